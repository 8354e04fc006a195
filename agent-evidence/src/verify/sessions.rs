//! The chains of sessions: numbered without holes, begun once, ended once, with the running hashes that are stated.
//!
//! In a pruned log entries of a session may be missing where entries are withheld, not more of them than those. Its numbers go
//! on from what is there, its running hash from what is stated next; it is then never complete, and a finding if it was on hold.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use crate::chain;
use crate::record::{
    Body, ChainHash, EntryIndex, Hold, Issued, Kind, LeafHash, Record, Revoked, SessionNumber, SessionState,
};

use super::finding::Finding;
use super::report::{Findings, SessionReport};

/// Most sessions remembered, at 2 KiB each or less.
const SESSIONS_MAX: usize = 200_000;

/// What a hole in a session's numbers says of a bundle.
const OMITTED: &str = "entries of a session that stand before it";

/// What is left out of a session that was on hold.
const HELD: &str = "entries of a session that was on hold";

/// Most characters of an id or identity that are kept for the report.
const SHOWN_MAX: usize = 256;

/// What is known of one session.
#[derive(Debug, Clone)]
struct Session {
    id: String,
    /// SHA-256 of the id, which may be long.
    id_digest: [u8; 32],
    identity: String,
    next: u64,
    /// Not known after missing entries, until it is stated.
    hash: Option<ChainHash>,
    /// How many acts of each kind, each kind once: a session has few kinds, and seldom another than the entry before.
    counts: Vec<(Kind, u64)>,
    ended: Option<EntryIndex>,
    wrong: bool,
    /// Whether entries of it were left out of a bundle, so that counts and hashes over it say nothing.
    omitted: bool,
    /// Entries of it that are withheld.
    missing: u64,
    /// The latest place before the last of them where its chain was known.
    missing_after: EntryIndex,
    /// Where its chain was known last, and how many entries were withheld until then.
    known: (EntryIndex, u64),
    held: bool,
    /// How many `pruned` entries there were when it was last released.
    released: u64,
    /// Up to where a `pruned` entry that was written while it was not on hold permits to leave entries out.
    permitted: u64,
}

/// Every session so far.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_issued: HashMap<EntryIndex, Session>,
    total: u64,
    /// Ended sessions among those remembered.
    ended: u64,
    /// Whether these are the sessions of a bundle, which may leave entries out.
    partial: bool,
    /// Entries withheld so far.
    withheld: u64,
    /// Sessions with missing entries that are not remembered any more.
    pruned_before: u64,
}

impl Sessions {
    /// The sessions of a bundle.
    pub(super) fn of_bundle() -> Self {
        Self { partial: true, ..Self::default() }
    }

    /// So many entries are withheld.
    pub(super) fn withheld(&mut self, count: u64) {
        self.withheld = self.withheld.saturating_add(count);
    }

    /// Applies the rules to the next entry, in a session or not.
    pub(super) fn entry(&mut self, index: EntryIndex, record: &Record<'_>, leaf: LeafHash, findings: &mut Findings) {
        let seen = record.placement.session_number;
        if let Body::Issued(issued) = record.body() {
            self.issued(index, issued, record, leaf, findings);
            return;
        }
        let Some(named) = record.draft.session else {
            if seen.is_some() {
                findings.push(Finding::SessionNumberWrong { index, expected: None, seen });
            }
            return;
        };
        let Some(session) = self.by_issued.get_mut(&named) else {
            findings.push(Finding::SessionUnknown { index, session: named });
            return;
        };
        if session.ended.is_some() {
            session.wrong = true;
            findings.push(Finding::SessionEnded { index, session: named });
        }
        if let Some(seen) = seen {
            session.skip(seen.0, self.withheld);
        }
        let expected = Some(SessionNumber(session.next));
        if seen != expected {
            session.wrong = true;
            if self.partial && seen > expected {
                session.omitted = true;
                findings.push(Finding::EvbEntryOmitted { index, what: OMITTED });
            } else {
                findings.push(Finding::SessionNumberWrong { index, expected, seen });
            }
        }
        if let Body::Revoked(revoked) = record.body() {
            session.check_revoked(index, named, revoked, findings);
            self.ended += u64::from(session.ended.is_none());
            session.ended = Some(index);
        }
        session.next = seen.map_or(session.next, |number| number.0).saturating_add(1);
        session.hash = session.hash.map(|hash| chain::step(hash, leaf));
        session.known = (index, self.withheld);
        session.count(record.body().kind());
    }

    fn issued(
        &mut self,
        index: EntryIndex,
        issued: &Issued<'_>,
        record: &Record<'_>,
        leaf: LeafHash,
        findings: &mut Findings,
    ) {
        let seen = record.placement.session_number;
        let expected = Some(SessionNumber(0));
        if seen != expected {
            findings.push(Finding::SessionNumberWrong { index, expected, seen });
        }
        if let Some(session) = record.draft.session.filter(|session| *session != record.index()) {
            findings.push(Finding::SessionUnknown { index, session });
        }
        // A bundle is silent about the other sessions.
        if let Some(parent) = issued.parent.filter(|_| !self.partial) {
            self.named(index, parent, findings);
        }
        self.total += 1;
        if self.by_issued.len() >= SESSIONS_MAX {
            // Entries of a session that is forgotten, or never followed, are findings, not passed over.
            if self.ended == 0 {
                return;
            }
            self.forget_ended(findings);
            self.ended = 0;
        }
        let shortened = |text: String| text.chars().take(SHOWN_MAX).collect();
        let session = Session {
            id: shortened(issued.id.display()),
            id_digest: Sha256::digest(issued.id.as_bytes()).into(),
            identity: shortened(issued.identity.display()),
            next: 1,
            hash: Some(chain::session_start(leaf)),
            counts: Vec::new(),
            ended: None,
            wrong: false,
            omitted: false,
            missing: 0,
            missing_after: index,
            known: (index, self.withheld),
            held: false,
            released: 0,
            permitted: 0,
        };
        self.by_issued.insert(record.index(), session);
    }

    /// Makes room. What later entries permit does not concern a session that is on hold; one that is not may have been pruned.
    fn forget_ended(&mut self, findings: &mut Findings) {
        let ended = self.by_issued.iter().filter(|(_, session)| session.ended.is_some());
        let mut omitted: Vec<_> = ended.clone().filter(|(_, session)| session.held && session.omits()).collect();
        omitted.sort_by_key(|(index, _)| **index);
        for (index, _) in omitted {
            findings.push(Finding::KeptOmitted { index: *index, what: HELD });
        }
        self.pruned_before += ended.filter(|(_, session)| session.missing > 0).count() as u64;
        self.by_issued.retain(|_, session| session.ended.is_none());
    }

    /// A session is exempt from pruning from here on, or no longer. `permitted`: how many `pruned` entries there were before, and
    /// up to where the latest of them permits to leave entries out.
    pub(super) fn hold(&mut self, index: EntryIndex, hold: &Hold<'_>, permitted: (u64, u64), findings: &mut Findings) {
        self.named(index, hold.session, findings);
        let Some(session) = self.by_issued.get_mut(&hold.session) else { return };
        if hold.on == session.held {
            return;
        }
        if hold.on {
            session.permitted = session.permitted_up_to(permitted);
        } else {
            session.released = permitted.0;
        }
        session.held = hold.on;
    }

    /// Judges at the end of the log which entries of sessions may be missing. `permits`: how many `pruned` entries there were.
    pub(super) fn finish(&mut self, permits: u64, findings: &mut Findings) {
        // Of one that was not on hold when the latest permission came, what is gone is judged with the rest.
        let omit = |session: &Session| (session.held || permits <= session.released) && session.omits();
        let mut omitted: Vec<_> = self.by_issued.iter_mut().filter(|(_, session)| omit(session)).collect();
        omitted.sort_by_key(|(index, _)| **index);
        for (index, session) in omitted {
            session.wrong = true;
            findings.push(Finding::KeptOmitted { index: *index, what: HELD });
        }
    }

    /// How many sessions have missing entries.
    pub(super) fn pruned(&self) -> u64 {
        let here = self.by_issued.values().filter(|session| session.missing > 0).count() as u64;
        self.pruned_before.saturating_add(here)
    }

    /// An entry names a session that is not its own.
    pub(super) fn named(&self, index: EntryIndex, session: EntryIndex, findings: &mut Findings) {
        if !self.by_issued.contains_key(&session) {
            findings.push(Finding::SessionUnknown { index, session });
        }
    }

    /// Compares what a heartbeat or `disarmed` states.
    pub(super) fn stated(&mut self, index: EntryIndex, rows: &[SessionState], findings: &mut Findings) {
        for row in rows {
            match self.by_issued.get_mut(&row.session) {
                // A bundle is silent about the other sessions.
                None if self.partial => {}
                None => findings.push(Finding::SessionUnknown { index, session: row.session }),
                Some(session) if session.omitted => {}
                Some(session) => {
                    let number = row.number.0.checked_add(1);
                    if self.partial && number > Some(session.next) {
                        (session.wrong, session.omitted) = (true, true);
                        session.next = number.unwrap_or(u64::MAX);
                        findings.push(Finding::EvbEntryOmitted { index, what: OMITTED });
                        continue;
                    }
                    if let Some(number) = number.filter(|_| session.ended.is_none()) {
                        session.skip(number, self.withheld);
                    }
                    let hash = session.hash.unwrap_or(row.hash);
                    if number != Some(session.next) || row.hash != hash || session.ended.is_some() {
                        session.wrong = true;
                        findings.push(Finding::SessionHashWrong { index, session: row.session });
                        continue;
                    }
                    session.hash = Some(hash);
                    session.known = (index, self.withheld);
                }
            }
        }
    }

    /// Every session, in the order of issue, with how many there were.
    pub(super) fn reports(&self) -> (Vec<SessionReport>, u64) {
        let mut all: Vec<_> = self.by_issued.iter().collect();
        all.sort_by_key(|(index, _)| **index);
        let sessions = all.into_iter().map(|(index, session)| SessionReport {
            id: session.id.clone(),
            identity: session.identity.clone(),
            issued: *index,
            revoked: session.ended,
            entries: session.next,
            wrong: session.wrong,
            missing: session.missing,
            window: None,
        });
        (sessions.collect(), self.total)
    }
}

impl Session {
    /// The next number of the chain is this one: those before may be of withheld entries, as far as there are any.
    fn skip(&mut self, number: u64, withheld: u64) {
        let missing = number.saturating_sub(self.next);
        if missing == 0 || missing > withheld.saturating_sub(self.known.1) {
            return;
        }
        self.missing = self.missing.saturating_add(missing);
        self.missing_after = self.known.0;
        self.next = number;
        self.hash = None;
    }

    /// Up to where entries of it may be left out.
    fn permitted_up_to(&self, (count, up_to): (u64, u64)) -> u64 {
        if !self.held && count > self.released { up_to } else { self.permitted }
    }

    /// Whether entries of it are missing from where they may not be, but for what was permitted after its last release.
    fn omits(&self) -> bool {
        self.missing > 0 && self.missing_after.0 >= self.permitted
    }

    fn count(&mut self, kind: Kind) {
        if !kind.is_kernel_event() {
            return;
        }
        match self.counts.iter_mut().find(|(counted, _)| *counted == kind) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((kind, 1)),
        }
    }

    /// Whether its acts may have been so many of each kind: those that were seen, and as many more as entries are missing.
    fn may_have_had(&self, stated: &HashMap<Kind, u64>) -> bool {
        if self.missing == 0 {
            let is_stated = |(kind, count): &(Kind, u64)| stated.get(kind) == Some(count);
            return stated.len() == self.counts.len() && self.counts.iter().all(is_stated);
        }
        let seen = |kind: &Kind| self.counts.iter().find(|(counted, _)| counted == kind).map_or(0, |(_, count)| *count);
        let more: u128 = stated.iter().map(|(kind, count)| u128::from(count.saturating_sub(seen(kind)))).sum();
        stated.iter().all(|(kind, count)| kind.is_kernel_event() && *count > 0 && *count >= seen(kind))
            && self.counts.iter().all(|(kind, _)| stated.contains_key(kind))
            && more <= u128::from(self.missing)
    }

    fn check_revoked(&mut self, index: EntryIndex, named: EntryIndex, revoked: &Revoked<'_>, findings: &mut Findings) {
        let mut wrong = |what| findings.push(Finding::RevokedWrong { index, what });
        let mut bad = false;
        let id: [u8; 32] = Sha256::digest(revoked.id.as_bytes()).into();
        if id != self.id_digest {
            bad = true;
            wrong("session id");
        }
        if self.omitted {
            self.wrong |= bad;
            return;
        }
        if revoked.entries != self.next {
            bad = true;
            wrong("number of entries");
        }
        let stated: HashMap<Kind, u64> = revoked.acts.iter().map(|act| (act.kind, act.count)).collect();
        if stated.len() != revoked.acts.len() || !self.may_have_had(&stated) {
            bad = true;
            wrong("count of acts by kind");
        }
        if self.hash.is_some_and(|hash| revoked.hash != hash) {
            bad = true;
            findings.push(Finding::SessionHashWrong { index, session: named });
        }
        self.wrong |= bad;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stated_acts_are_those_that_were_counted_kind_by_kind() {
        let issued = EntryIndex(2);
        let mut session = Session {
            id: String::new(),
            id_digest: [0; 32],
            identity: String::new(),
            next: 1,
            hash: None,
            counts: Vec::new(),
            ended: None,
            wrong: false,
            omitted: false,
            missing: 0,
            missing_after: issued,
            known: (issued, 0),
            held: false,
            released: 0,
            permitted: 0,
        };
        for kind in [Kind::Open, Kind::Exec, Kind::Open, Kind::Heartbeat] {
            session.count(kind);
        }
        let fits = |session: &Session, acts: &[(Kind, u64)]| session.may_have_had(&acts.iter().copied().collect());
        assert!(fits(&session, &[(Kind::Open, 2), (Kind::Exec, 1)]));
        let wrong: [&[(Kind, u64)]; 5] = [
            &[(Kind::Open, 2)],
            &[(Kind::Open, 2), (Kind::Exec, 2)],
            &[(Kind::Open, 2), (Kind::Fork, 0)],
            &[(Kind::Open, 2), (Kind::Exec, 1), (Kind::Fork, 0)],
            &[],
        ];
        for acts in wrong {
            assert!(!fits(&session, acts), "{acts:?}");
        }
        // Two entries are withheld: acts of any kind, but not of fewer than were seen.
        session.missing = 2;
        assert!(fits(&session, &[(Kind::Open, 3), (Kind::Exec, 1), (Kind::Fork, 1)]));
        for acts in [&[(Kind::Open, 3)][..], &[(Kind::Open, 1), (Kind::Exec, 1)], &[(Kind::Open, 5), (Kind::Exec, 1)]] {
            assert!(!fits(&session, acts), "{acts:?}");
        }
    }
}
