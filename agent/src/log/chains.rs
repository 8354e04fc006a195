//! The numbered chains beside the log, as the writer needs them: where each open session stands, and the next
//! number of the control chain.
//!
//! Owns the numbers and running hashes; the definition of a running hash is `agent_evidence::chain`'s.

use std::collections::HashMap;

use agent_evidence::chain;
use agent_evidence::record::{
    Body, ChainHash, ControlNumber, Draft, EntryIndex, Kind, LeafHash, SessionNumber, SessionState,
};

/// An entry named a session that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotOpen(pub(super) EntryIndex);

/// The chains at the end of the log.
#[derive(Debug, Default)]
pub(super) struct Chains {
    open: HashMap<EntryIndex, (SessionNumber, ChainHash)>,
    next_control: u64,
}

/// The numbers an entry gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) session: Option<SessionNumber>,
    pub(super) control: Option<ControlNumber>,
}

impl Chains {
    /// The chains as recovery found them.
    pub(super) fn resume(open: impl IntoIterator<Item = SessionState>, next_control: u64) -> Self {
        let open = open.into_iter().map(|state| (state.session, (state.number, state.hash))).collect();
        Self { open, next_control }
    }

    /// The numbers that this draft gets; changes nothing.
    pub(super) fn numbers(&self, draft: &Draft<'_>) -> Result<Numbers, NotOpen> {
        let session = match (&draft.body, draft.session) {
            (Body::Issued(_), _) => Some(SessionNumber(0)),
            (_, None) => None,
            (_, Some(session)) => match self.open.get(&session) {
                Some((number, _)) => Some(SessionNumber(number.0 + 1)),
                None => return Err(NotOpen(session)),
            },
        };
        let control = draft.body.kind().is_control().then_some(ControlNumber(self.next_control));
        Ok(Numbers { session, control })
    }

    /// Moves the chains over an entry that was appended with these numbers.
    pub(super) fn step(&mut self, draft: &Draft<'_>, numbers: Numbers, index: EntryIndex, leaf: LeafHash) {
        if numbers.control.is_some() {
            self.next_control += 1;
        }
        if let Some(number) = numbers.session {
            let session = draft.session.filter(|_| draft.body.kind() != Kind::Issued).unwrap_or(index);
            self.step_session(draft.body.kind(), session, number, leaf);
        }
    }

    /// Moves a session's chain over its entry `number`. `false` when that is not the entry that comes next.
    pub(super) fn step_session(
        &mut self,
        kind: Kind,
        session: EntryIndex,
        number: SessionNumber,
        leaf: LeafHash,
    ) -> bool {
        if kind == Kind::Issued {
            self.open.insert(session, (number, chain::session_start(leaf)));
            return number.0 == 0;
        }
        let Some((at, hash)) = self.open.get_mut(&session) else { return false };
        if number.0 <= at.0 {
            // Already in the state that a heartbeat gave.
            return true;
        }
        if number.0 != at.0 + 1 {
            return false;
        }
        (*at, *hash) = (number, chain::step(*hash, leaf));
        if kind == Kind::Revoked {
            self.open.remove(&session);
        }
        true
    }

    /// How many sessions are open.
    pub(super) fn open_sessions(&self) -> usize {
        self.open.len()
    }

    /// Where an open session stands.
    pub(super) fn session(&self, session: EntryIndex) -> Option<SessionState> {
        self.open.get(&session).map(|(number, hash)| SessionState { session, number: *number, hash: *hash })
    }

    /// Where every open session stands, in order of issuance.
    pub(super) fn sessions(&self) -> Vec<SessionState> {
        let mut states: Vec<SessionState> = self
            .open
            .iter()
            .map(|(session, (number, hash))| SessionState { session: *session, number: *number, hash: *hash })
            .collect();
        states.sort_unstable_by_key(|state| state.session);
        states
    }
}
