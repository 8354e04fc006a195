//! Whether what somebody wants erased must be kept: the `hold` entries of a session.
//!
//! Owns: the search. A log may be long, so it goes over what is sealed in the asker's time, on a thread of its own, and the
//! pipeline looks only at what came since. Entries carry no index by kind: the search reads every entry behind the session's
//! `issued`, and decodes the few that can be holds.

#![forbid(unsafe_code)]

use agent_evidence::record::{Body, EntryIndex, Kind, decode};

use crate::export::sealed::{SealedError, SealedLog};

/// Most entries that are left to the pipeline, if the log does not grow faster than it is read.
const LEFT_MAX: u64 = 1 << 16;

/// What was seen so far of the holds on the session of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The session; without one nothing holds the entry.
    session: Option<EntryIndex>,
    held: Option<Held>,
    /// The first entry that was not looked at.
    next: EntryIndex,
}

/// The hold in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The entry that put it.
    pub since: EntryIndex,
    /// Its reason, as whoever put it gave it.
    pub reason: String,
}

/// Why an entry cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The newest checkpoint does not cover it.
    #[error("no entry {} is under the newest checkpoint", .0.0)]
    NotSealed(EntryIndex),
    /// It is not kept any more, and neither are the texts of its values.
    #[error("entry {} was pruned", .0.0)]
    Pruned(EntryIndex),
    /// The log cannot be read.
    #[error("cannot look for holds")]
    Sealed(#[from] SealedError),
}

/// Looks through the sealed log.
///
/// # Errors
/// [`LookError`].
pub fn look(log: &SealedLog, of: EntryIndex) -> Result<Looked, LookError> {
    let mut size = log.head()?.size;
    if of.0 >= size {
        return Err(LookError::NotSealed(of));
    }
    let Some(entry) = log.entry(of.0, size)? else { return Err(LookError::Pruned(of)) };
    let session = decode(&entry).ok().and_then(|record| match record.body() {
        Body::Issued(_) => Some(record.index()),
        _ => record.draft.session,
    });
    let mut looked = Looked { session, held: None, next: session.unwrap_or(EntryIndex(size)) };
    while session.is_some() && size.saturating_sub(looked.next.0) > 0 {
        // Of what was pruned nothing can be a hold: those are kept.
        let _pruned = log.each(looked.next.0..size, size, |index, entry| {
            looked.entry(EntryIndex(index), entry);
            Ok::<(), SealedError>(())
        })?;
        let grown = log.head()?.size;
        size = if grown.saturating_sub(looked.next.0) > LEFT_MAX { grown } else { looked.next.0 };
    }
    Ok(looked)
}

impl Looked {
    /// The first entry to go on with.
    #[must_use]
    pub fn next(&self) -> EntryIndex {
        self.next
    }

    /// Takes the next entry.
    pub fn entry(&mut self, index: EntryIndex, entry: &[u8]) {
        self.next = EntryIndex(index.0.saturating_add(1));
        // What the kind is stands near the beginning, behind nothing that anybody outside the agent chose.
        let kind = Kind::Hold.as_str().as_bytes();
        let head = entry.get(..64).unwrap_or(entry);
        if !head.windows(kind.len()).any(|window| window == kind) {
            return;
        }
        let Ok(record) = decode(entry) else { return };
        if let Body::Hold(hold) = record.body()
            && Some(hold.session) == self.session
        {
            self.held = hold.on.then(|| Held { since: index, reason: hold.reason.display() });
        }
    }

    /// The hold in force behind the last entry that was taken.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use agent_evidence::record::{
        BootTime, Draft, Hold, LeafHash, Placement, Requester, Scope, SessionNumber, WallTime,
    };

    use super::*;
    use crate::export::sealed::testlog;

    fn entry(index: u64, session: Option<u64>, body: Body<'_>) -> Vec<u8> {
        let draft = Draft {
            wall: WallTime(1),
            boot: BootTime(1),
            kernel: None,
            process: None,
            workload: None,
            session: session.map(EntryIndex),
            verdict: None,
            body,
        };
        let at = Placement {
            index: EntryIndex(index),
            session_number: session.map(|_| SessionNumber(1)),
            control_number: None,
            previous: LeafHash([0; 32]),
            random: [0; 16],
        };
        let mut bytes = Vec::new();
        draft.encode(&at, &mut bytes);
        bytes
    }

    fn act(index: u64, session: Option<u64>) -> Vec<u8> {
        entry(index, session, Body::Scope(Scope { text: "\"hold\"".into(), host_classes: 0, roots: Vec::new().into() }))
    }

    fn hold(index: u64, session: u64, on: bool) -> Vec<u8> {
        let by = Requester { process: None, tgid: 1, uid: 0, gid: 0 };
        entry(index, None, Body::Hold(Hold { session: EntryIndex(session), on, reason: "case 7".into(), by }))
    }

    #[test]
    fn the_latest_hold_on_the_session_counts_also_one_before_the_entry() {
        let directory = tempfile::tempdir().unwrap();
        let mut entries: Vec<_> = (0..600).map(|index| act(index, None)).collect();
        // Of the session that entry 300 issued.
        entries[301] = hold(301, 300, true);
        entries[310] = act(310, Some(300));
        entries[320] = act(320, Some(299));
        entries[590] = hold(590, 299, true);
        entries[591] = hold(591, 299, false);
        testlog::write(directory.path(), "o", &entries, 595);
        let log = SealedLog::new(directory.path().into());
        let of = |index| look(&log, EntryIndex(index)).unwrap();
        let held = of(310);
        assert_eq!(held.held(), Some(&Held { since: EntryIndex(301), reason: "case 7".into() }));
        assert_eq!(held.next(), EntryIndex(595));
        assert_eq!(of(320).held(), None, "it was taken off");
        assert_eq!(of(5).held(), None, "no session");
        assert!(matches!(look(&log, EntryIndex(595)), Err(LookError::NotSealed(EntryIndex(595)))));
        // What came since counts too.
        let mut later = of(320);
        later.entry(EntryIndex(595), &hold(595, 299, true));
        assert_eq!(later.held().map(|held| held.since), Some(EntryIndex(595)));
    }
}
