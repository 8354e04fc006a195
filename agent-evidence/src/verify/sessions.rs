//! The chains of sessions: numbered without holes, begun once, ended once, with the running hashes that are stated.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use crate::chain;
use crate::record::{
    Body, ChainHash, EntryIndex, Issued, Kind, LeafHash, Record, Revoked, SessionNumber, SessionState,
};

use super::finding::Finding;
use super::report::{Findings, SessionReport};

/// Most sessions remembered, at 2 KiB each or less.
const SESSIONS_MAX: usize = 200_000;

/// What a hole in a session's numbers says of a bundle.
const OMITTED: &str = "entries of a session that stand before it";

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
    hash: ChainHash,
    counts: HashMap<Kind, u64>,
    ended: Option<EntryIndex>,
    wrong: bool,
    /// Whether entries of it were left out of a bundle, so that counts and hashes over it say nothing.
    omitted: bool,
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
}

impl Sessions {
    /// The sessions of a bundle.
    pub(super) fn of_bundle() -> Self {
        Self { partial: true, ..Self::default() }
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
        session.hash = chain::step(session.hash, leaf);
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
            self.by_issued.retain(|_, session| session.ended.is_none());
            self.ended = 0;
        }
        let shortened = |text: String| text.chars().take(SHOWN_MAX).collect();
        let session = Session {
            id: shortened(issued.id.display()),
            id_digest: Sha256::digest(issued.id.as_bytes()).into(),
            identity: shortened(issued.identity.display()),
            next: 1,
            hash: chain::session_start(leaf),
            counts: HashMap::new(),
            ended: None,
            wrong: false,
            omitted: false,
        };
        self.by_issued.insert(record.index(), session);
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
                    if number != Some(session.next) || row.hash != session.hash || session.ended.is_some() {
                        session.wrong = true;
                        findings.push(Finding::SessionHashWrong { index, session: row.session });
                    }
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
            window: None,
        });
        (sessions.collect(), self.total)
    }
}

impl Session {
    fn count(&mut self, kind: Kind) {
        if kind.is_kernel_event() {
            *self.counts.entry(kind).or_default() += 1;
        }
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
        if stated != self.counts || stated.len() != revoked.acts.len() {
            bad = true;
            wrong("count of acts by kind");
        }
        if revoked.hash != self.hash {
            bad = true;
            findings.push(Finding::SessionHashWrong { index, session: named });
        }
        self.wrong |= bad;
    }
}
