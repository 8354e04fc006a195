//! What a part of a log must hold: the rules of an evidence bundle over which entries are there.
//!
//! Sessions and the control chain are numbered, so what was left out of them shows. What cannot show is in the claims.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::bundle::Closing;
use crate::record::{Body, CgroupId, ControlNumber, EntryIndex, Gap, GapCause, Kind, ProcessCookie, Record};

use super::finding::Finding;
use super::report::{Findings, SessionWindow};

/// Most workloads and processes that a bundle may describe: 16 bytes each.
const DESCRIBED_MAX: usize = 1_000_000;

/// What a session's entries refer to and a bundle may leave out.
const WORKLOAD: &str = "the workload that an entry of a session names";
const POLICY: &str = "the policy set that an entry of a session was judged by";

/// Where the entries stand in the window of the control chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before it.
    Before,
    /// In it.
    In,
    /// Behind it.
    After,
}

/// One session that the bundle names.
#[derive(Debug, Clone, Copy)]
struct Session {
    issued: Option<Issued>,
    ended: bool,
    /// The latest entry that stated its chain.
    stated: Option<EntryIndex>,
    /// Events counted lost as its own.
    own: u64,
}

/// What stood when a session was issued.
#[derive(Debug, Clone, Copy)]
struct Issued {
    cgroup: CgroupId,
    lost: u64,
    unshared: u64,
    unknown: u64,
}

/// The state of the rules.
#[derive(Debug)]
pub(super) struct Part {
    sessions: BTreeMap<EntryIndex, Session>,
    phase: Phase,
    /// First entry of the window.
    since: EntryIndex,
    /// Whether no control entry was left out of it, so far.
    whole: bool,
    /// The control number of the entry before in the chain.
    control: Option<u64>,
    /// Whether the chain was disclosed without a hole from the genesis on, so far.
    from_genesis: bool,
    /// Policy sets before the window.
    policies: Vec<EntryIndex>,
    /// Control entries before the window that only a window from the genesis on may have.
    early: Vec<EntryIndex>,
    closing: Closing,
    /// Disclosed entries with committed values, ascending.
    committed: Vec<EntryIndex>,
    /// Workloads and policy sets.
    described: HashSet<EntryIndex>,
    /// Those that nothing referred to yet.
    unused: HashSet<EntryIndex>,
    unused_processes: HashMap<ProcessCookie, EntryIndex>,
    /// Last entry of the window so far.
    last: EntryIndex,
    lost: u64,
    unshared: u64,
    unknown: u64,
}

impl Part {
    pub(super) fn new(sessions: &[EntryIndex]) -> Self {
        let session = Session { issued: None, ended: false, stated: None, own: 0 };
        Self {
            sessions: sessions.iter().map(|index| (*index, session)).collect(),
            phase: Phase::Before,
            since: EntryIndex(0),
            whole: true,
            control: None,
            from_genesis: true,
            policies: Vec::new(),
            early: Vec::new(),
            closing: Closing::default(),
            committed: Vec::new(),
            described: HashSet::new(),
            unused: HashSet::new(),
            unused_processes: HashMap::new(),
            last: EntryIndex(0),
            lost: 0,
            unshared: 0,
            unknown: 0,
        }
    }

    /// Whether the bundle is about this session.
    pub(super) fn names(&self, session: EntryIndex) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Whether the entry that issued this session was disclosed.
    pub(super) fn is_issued(&self, session: EntryIndex) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.issued.is_some())
    }

    /// Whether the window has its end.
    pub(super) fn closed(&self) -> bool {
        self.phase == Phase::After
    }

    /// First and last entry of the window.
    pub(super) fn window(&self) -> Option<(EntryIndex, EntryIndex)> {
        (self.phase != Phase::Before).then_some((self.since, self.last))
    }

    /// Takes the next entry. `false`, with a finding, when it does not belong in this bundle.
    pub(super) fn entry(&mut self, record: &Record<'_>, findings: &mut Findings) -> bool {
        let index = record.index();
        let session = self.session_of(record);
        let fits = if record.body().kind().is_control() {
            self.control(record, session, findings)
        } else {
            if let Some(seen) = record.placement.control_number {
                findings.push(Finding::ControlNumberWrong { index, expected: None, seen: Some(seen) });
            }
            match (record.body(), session) {
                (_, Some(_)) => true,
                (Body::Workload(_), None) if record.draft.session.is_none() => self.describes(index),
                (Body::Process(_), None) if record.draft.session.is_none() => self.process(record, findings),
                _ => false,
            }
        };
        if !fits {
            findings.push(Finding::EvbEntryForeign { index });
            return false;
        }
        if record.committed > 0 {
            self.committed.push(index);
        }
        if let Some(session) = session {
            self.of_session(session, record, findings);
        }
        true
    }

    /// The session of the entry, when the bundle is about it.
    pub(super) fn session_of(&self, record: &Record<'_>) -> Option<EntryIndex> {
        let session = match record.body() {
            Body::Issued(_) => Some(record.index()),
            _ => record.draft.session,
        };
        session.filter(|session| self.names(*session))
    }

    fn describes(&mut self, index: EntryIndex) -> bool {
        self.described.insert(index);
        self.unused.insert(index);
        self.described.len() <= DESCRIBED_MAX
    }

    fn process(&mut self, record: &Record<'_>, findings: &mut Findings) -> bool {
        let Some(cookie) = record.draft.process else { return false };
        if let Some(index) = self.unused_processes.insert(cookie, record.index()) {
            findings.push(Finding::EvbEntryForeign { index });
        }
        self.unused_processes.len() <= DESCRIBED_MAX
    }

    fn of_session(&mut self, named: EntryIndex, record: &Record<'_>, findings: &mut Findings) {
        if let Some(cookie) = record.draft.process {
            self.unused_processes.remove(&cookie);
        }
        let set = record.draft.verdict.as_ref().map(|verdict| verdict.set);
        for (referred, what) in [(record.draft.workload, WORKLOAD), (set, POLICY)] {
            let Some(index) = referred else { continue };
            self.unused.remove(&index);
            // Reported once.
            if self.described.len() <= DESCRIBED_MAX && self.described.insert(index) {
                findings.push(Finding::EvbEntryOmitted { index, what });
            }
        }
        let standing = (self.lost, self.unshared, self.unknown);
        let Some(session) = self.sessions.get_mut(&named) else { return };
        match record.body() {
            Body::Issued(issued) => {
                let (lost, unshared, unknown) = standing;
                session.issued = Some(Issued { cgroup: issued.cgroup, lost, unshared, unknown });
                if let Some(cookie) = issued.by.as_ref().and_then(|by| by.process) {
                    self.unused_processes.remove(&cookie);
                }
                self.begin(record.index(), findings);
            }
            Body::Revoked(_) => session.ended = true,
            _ => {}
        }
    }

    /// The first session begins: the window must have begun.
    fn begin(&mut self, index: EntryIndex, findings: &mut Findings) {
        if self.phase != Phase::Before {
            return;
        }
        if !self.from_genesis || self.control.is_none() {
            self.whole = false;
            findings.push(Finding::EvbControlOmitted { index, expected: None, seen: None });
        }
        // Without an `armed` before it, the window is the chain from the genesis on.
        self.early.clear();
        for policy in self.policies.drain(..) {
            self.unused.remove(&policy);
        }
        self.phase = Phase::In;
    }

    /// An entry of the control chain; whether it belongs.
    fn control(&mut self, record: &Record<'_>, session: Option<EntryIndex>, findings: &mut Findings) -> bool {
        let (index, body) = (record.index(), record.body());
        let next = self.control.map_or(0, |number| number.saturating_add(1));
        let seen = record.placement.control_number;
        let Some(number) = seen.map(|number| number.0).filter(|number| *number >= next) else {
            findings.push(Finding::ControlNumberWrong { index, expected: Some(ControlNumber(next)), seen });
            return true;
        };
        self.control = Some(number);
        self.from_genesis &= number == next;
        let always = match body {
            // Why a value is not there.
            Body::Erased(erased) => self.committed.binary_search(&erased.of).is_ok(),
            _ => matches!(body.kind(), Kind::Genesis | Kind::Epoch | Kind::AttestationKey),
        };
        let issued = self.sessions.values().any(|session| session.issued.is_some());
        match self.phase {
            Phase::After => return always,
            Phase::Before if !matches!(body, Body::Armed(_)) => {
                if always {
                    return true;
                }
                if matches!(body, Body::Policy(_)) {
                    self.policies.push(index);
                    return self.describes(index);
                }
                self.early.push(index);
                return self.from_genesis;
            }
            // A window begins with the latest `armed` before the first session: what came before is not needed.
            Phase::In if !issued && matches!(body, Body::Armed(_)) => {
                findings.push(Finding::EvbEntryForeign { index: self.since });
                self.since = index;
            }
            Phase::Before => {
                for index in self.early.drain(..) {
                    findings.push(Finding::EvbEntryForeign { index });
                }
                (self.phase, self.since) = (Phase::In, index);
            }
            Phase::In if number != next => {
                self.whole = false;
                let expected = Some(ControlNumber(next));
                findings.push(Finding::EvbControlOmitted { index, expected, seen });
            }
            Phase::In => {}
        }
        self.last = index;
        match body {
            Body::Gap(gap) => self.gap(gap, session),
            Body::Unknown(_) => self.unknown = self.unknown.saturating_add(1),
            // Within the window it is there in any case.
            Body::Policy(_) if self.described.len() <= DESCRIBED_MAX => {
                self.described.insert(index);
            }
            _ => {}
        }
        let ended = self.sessions.values().all(|session| session.ended);
        if self.closing.control(body, ended) {
            self.phase = Phase::After;
        }
        true
    }

    fn gap(&mut self, gap: &Gap<'_>, session: Option<EntryIndex>) {
        self.lost = self.lost.saturating_add(gap.count);
        if gap.cause == GapCause::Unexplained {
            // A finding, whoever's.
            return;
        }
        if let Some(session) = session.and_then(|session| self.sessions.get_mut(&session)) {
            session.own = session.own.saturating_add(gap.count);
            return;
        }
        let mut shared = 0_u64;
        for share in gap.shares.iter() {
            shared = shared.saturating_add(share.count);
            for session in self.sessions.values_mut() {
                if session.issued.is_some_and(|issued| issued.cgroup == share.scope) {
                    session.own = session.own.saturating_add(share.count);
                }
            }
        }
        self.unshared = self.unshared.saturating_add(gap.count.saturating_sub(shared));
    }

    /// An entry states where the chain of a session stands.
    pub(super) fn stated(&mut self, index: EntryIndex, session: EntryIndex) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.stated = Some(index);
        }
    }

    /// What shows only at the end of the bundle.
    pub(super) fn finish(&mut self, findings: &mut Findings) {
        for (index, session) in &self.sessions {
            if session.issued.is_none() {
                findings.push(Finding::EvbEntryOmitted { index: *index, what: "the entry that issued the session" });
            }
        }
        let mut unused: Vec<_> = self.unused.drain().chain(self.unused_processes.drain().map(|p| p.1)).collect();
        unused.sort_unstable();
        for index in unused {
            findings.push(Finding::EvbEntryForeign { index });
        }
    }

    /// What the window shows of a session.
    pub(super) fn session(&self, session: EntryIndex) -> Option<SessionWindow> {
        let session = self.sessions.get(&session)?;
        let issued = session.issued?;
        Some(SessionWindow {
            whole: self.whole,
            closed: self.closed(),
            stated: session.stated,
            lost: self.lost.saturating_sub(issued.lost),
            own: session.own,
            unshared: self.unshared.saturating_sub(issued.unshared),
            unknown: self.unknown.saturating_sub(issued.unknown),
        })
    }
}
