//! The sessions of this host: which are open, whose they are, and when each one ends.
//!
//! This is the authority on "cgroup id belongs to session": a session is in it because its `issued` record is in
//! the log. The registry decides, the pipeline records. Bounded by configuration (`run.sessions_max`), plus
//! [`ENDED_MAX`] ended ones that `session show` can still name.

use std::collections::{HashMap, VecDeque};

use agent_evidence::record::{BootTime, EntryIndex, Kind, KindCount, ProcessCookie, WallTime};

use super::cgroupfs::SessionCgroup;
use crate::session::protocol::{CommandStatus, SessionInfo, SessionState};

/// How many ended sessions are remembered for `session list` and `session show`.
pub const ENDED_MAX: usize = 256;
/// How long a join token is good, ns: `affiant run` uses it within milliseconds.
pub const JOIN_TOKEN_AGE_MAX: u64 = 60_000_000_000;
/// Most processes per session that are followed after they left its cgroup.
pub const ESCAPED_MAX: usize = 65_536;

/// How far a session's command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandState {
    /// No process has joined yet.
    Awaited,
    /// A process joined.
    Running,
    /// `affiant run` told how it ended.
    Ended(CommandStatus),
    /// `affiant run` went away without telling.
    Abandoned,
}

/// Why a session is to be revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Its command ended and no process is left.
    Exit,
    /// Its time to live ran out.
    Expiry,
    /// Somebody with the right to do so revoked it.
    Operator,
    /// The host stopped, or its cgroup was removed from outside, while no daemon watched.
    HostStop,
}

/// One open session.
#[derive(Debug)]
pub struct Session {
    /// Its name for people: 16 random bytes in hexadecimal.
    pub id: String,
    /// Its `issued` entry.
    pub entry: EntryIndex,
    /// Identity in the `issued` entry.
    pub identity: String,
    /// Task text in the `issued` entry: the asker's claim.
    pub task: Option<String>,
    /// Labels in the `issued` entry: the asker's claims.
    pub labels: Vec<(String, String)>,
    /// User that asked for it.
    pub uid: u32,
    /// When it was issued.
    pub issued_wall: WallTime,
    /// Boot time at which it expires.
    pub expires: Option<BootTime>,
    /// Id of its cgroup.
    pub cgroup_id: u64,
    /// Its cgroup; none when an earlier run's is gone.
    pub cgroup: Option<SessionCgroup>,
    /// How far its command is.
    pub command: CommandState,
    /// The token its command joins with, and when it was given out.
    pub token: Option<(String, BootTime)>,
    /// Processes that are in the session by ancestry and were moved out of its cgroup, with their tgid.
    pub escaped: HashMap<ProcessCookie, u32>,
    /// Entries of each kind so far.
    pub totals: Totals,
    /// Set once it expired and its processes were told to die.
    pub expiring: bool,
}

/// How many kinds of entries there are.
const KINDS: usize = Kind::ALL.len();

/// How many entries made from kernel events a session has, by kind: what its `revoked` record repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals([u64; KINDS]);

impl Default for Totals {
    fn default() -> Self {
        Self([0; KINDS])
    }
}

impl Totals {
    /// Counts one entry, if it is of an act.
    pub fn count(&mut self, kind: Kind) {
        if !kind.is_kernel_event() {
            return;
        }
        for (counted, total) in Kind::ALL.iter().zip(&mut self.0) {
            *total += u64::from(*counted == kind);
        }
    }

    /// The counts that are not zero, in the order of the kinds.
    #[must_use]
    pub fn counts(&self) -> Vec<KindCount> {
        Kind::ALL
            .iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| KindCount { kind: *kind, count })
            .collect()
    }
}

impl Session {
    /// Whether nothing of it is left: its command is over and neither its cgroup nor an escaped process lives.
    fn is_over(&self, now: BootTime) -> bool {
        let command_over = match self.command {
            CommandState::Ended(_) | CommandState::Abandoned => true,
            CommandState::Running => false,
            // A session that nobody joined ends with its token.
            CommandState::Awaited => {
                self.token.as_ref().is_none_or(|(_, given)| now.0.saturating_sub(given.0) > JOIN_TOKEN_AGE_MAX)
            }
        };
        (command_over || self.expiring) && self.escaped.is_empty() && !self.is_populated()
    }

    /// A cgroup that cannot be read any more has been removed, and the kernel lets nobody remove one with a
    /// process in it.
    fn is_populated(&self) -> bool {
        self.cgroup.as_ref().is_some_and(|cgroup| cgroup.populated().unwrap_or(false))
    }

    /// Where it is in its life, for people.
    #[must_use]
    pub fn state(&self) -> SessionState {
        match self.command {
            CommandState::Awaited => SessionState::Issued,
            CommandState::Running => SessionState::Running,
            CommandState::Ended(_) | CommandState::Abandoned => SessionState::Lingering,
        }
    }

    /// What `session list` shows.
    #[must_use]
    pub fn info(&self, now: BootTime) -> SessionInfo {
        SessionInfo {
            id: self.id.clone(),
            identity: self.identity.clone(),
            task: self.task.clone(),
            labels: self.labels.clone(),
            uid: self.uid,
            entry: self.entry.0,
            cgroup: self.cgroup.is_some().then_some(self.cgroup_id),
            issued_wall_ns: self.issued_wall.0,
            expires_in_ns: self.expires.map(|at| at.0.saturating_sub(now.0)),
            state: self.state(),
        }
    }
}

/// All open sessions, by cgroup id.
#[derive(Debug, Default)]
pub struct Sessions {
    open: HashMap<u64, Session>,
    ended: VecDeque<SessionInfo>,
}

impl Sessions {
    /// Adds a session whose `issued` record is in the log.
    pub fn insert(&mut self, session: Session) {
        self.open.insert(session.cgroup_id, session);
    }

    /// The session whose scope this is.
    #[must_use]
    pub fn by_scope(&self, scope_id: u64) -> Option<&Session> {
        self.open.get(&scope_id)
    }

    /// Likewise, to count an act.
    pub fn by_scope_mut(&mut self, scope_id: u64) -> Option<&mut Session> {
        self.open.get_mut(&scope_id)
    }

    /// The open session with this name.
    pub fn by_id_mut(&mut self, id: &str) -> Option<&mut Session> {
        self.open.values_mut().find(|session| session.id == id)
    }

    /// Takes the session that waits for this token. Tokens are random and long, so comparing them in variable time
    /// tells nothing that could be used within their minute.
    pub fn claim_token(&mut self, token: &str, now: BootTime) -> Option<&mut Session> {
        let session = self.open.values_mut().find(|session| {
            session.token.as_ref().is_some_and(|(expected, given)| {
                expected == token && now.0.saturating_sub(given.0) <= JOIN_TOKEN_AGE_MAX
            })
        })?;
        Some(session)
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The open sessions, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<&Session> {
        let mut all: Vec<_> = self.open.values().collect();
        all.sort_unstable_by_key(|session| session.entry);
        all
    }

    /// Open sessions and the last ended ones, oldest first.
    #[must_use]
    pub fn list(&self, now: BootTime) -> Vec<SessionInfo> {
        let open = self.open.values().map(|session| session.info(now));
        let mut all: Vec<_> = self.ended.iter().cloned().chain(open).collect();
        all.sort_by_key(|info| info.entry);
        all
    }

    /// Whether this names a session that has ended.
    #[must_use]
    pub fn has_ended(&self, id: &str) -> bool {
        self.ended.iter().any(|info| info.id == id)
    }

    /// The sessions whose time is up and whose processes were not told yet.
    pub fn expiring(&mut self, now: BootTime) -> impl Iterator<Item = &mut Session> {
        self.open.values_mut().filter(move |session| !session.expiring && session.expires.is_some_and(|at| at <= now))
    }

    /// The scopes of sessions of which nothing is left.
    #[must_use]
    pub fn over(&self, now: BootTime) -> Vec<(u64, EndReason)> {
        self.open
            .values()
            .filter(|session| session.is_over(now))
            .map(|session| (session.cgroup_id, if session.expiring { EndReason::Expiry } else { EndReason::Exit }))
            .collect()
    }

    /// Takes a session out, because its `revoked` record has been written.
    pub fn end(&mut self, scope_id: u64, now: BootTime) -> Option<Session> {
        let session = self.open.remove(&scope_id)?;
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(SessionInfo { state: SessionState::Revoked, cgroup: None, ..session.info(now) });
        Some(session)
    }

    /// Notes that a process of this session was moved out of its cgroup. Answers false when too many were.
    pub fn escaped(&mut self, scope_id: u64, process: ProcessCookie, tgid: u32) -> bool {
        let Some(session) = self.open.get_mut(&scope_id) else { return true };
        if session.escaped.len() >= ESCAPED_MAX {
            return false;
        }
        session.escaped.insert(process, tgid);
        true
    }

    /// Notes that a process ended, or came back into its session's cgroup.
    pub fn no_longer_escaped(&mut self, scope_id: u64, process: ProcessCookie) {
        if let Some(session) = self.open.get_mut(&scope_id) {
            session.escaped.remove(&process);
        }
    }

    /// Forgets escaped processes that no longer exist, for the case that their exit was lost.
    pub fn forget_dead_escapees(&mut self, alive: impl Fn(u32) -> bool) {
        for session in self.open.values_mut() {
            session.escaped.retain(|_, tgid| alive(*tgid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(cgroup_id: u64, command: CommandState) -> Session {
        Session {
            id: format!("id{cgroup_id}"),
            entry: EntryIndex(cgroup_id),
            identity: "spiffe://local/test".to_owned(),
            task: None,
            labels: Vec::new(),
            uid: 0,
            issued_wall: WallTime(0),
            expires: Some(BootTime(1_000)),
            cgroup_id,
            cgroup: None,
            command,
            token: Some(("token".to_owned(), BootTime(0))),
            escaped: HashMap::new(),
            totals: Totals::default(),
            expiring: false,
        }
    }

    const ENDED: CommandState = CommandState::Ended(CommandStatus { code: Some(0), signal: None });

    #[test]
    fn a_session_ends_with_its_command_only_when_no_descendant_is_left() {
        let mut sessions = Sessions::default();
        sessions.insert(session(7, ENDED));
        assert!(sessions.escaped(7, ProcessCookie(1), 100));
        assert_eq!(sessions.over(BootTime(1)), []);
        sessions.no_longer_escaped(7, ProcessCookie(1));
        assert_eq!(sessions.over(BootTime(1)), [(7, EndReason::Exit)]);
    }

    #[test]
    fn a_session_whose_command_runs_is_not_over() {
        let mut sessions = Sessions::default();
        sessions.insert(session(7, CommandState::Running));
        assert_eq!(sessions.over(BootTime(1)), []);
    }

    #[test]
    fn a_session_that_nobody_joins_ends_with_its_token() {
        let mut sessions = Sessions::default();
        sessions.insert(session(7, CommandState::Awaited));
        assert_eq!(sessions.over(BootTime(JOIN_TOKEN_AGE_MAX)), []);
        assert_eq!(sessions.over(BootTime(JOIN_TOKEN_AGE_MAX + 1)), [(7, EndReason::Exit)]);
    }

    #[test]
    fn a_token_is_refused_after_its_minute() {
        let mut sessions = Sessions::default();
        sessions.insert(session(7, CommandState::Awaited));
        assert!(sessions.claim_token("token", BootTime(JOIN_TOKEN_AGE_MAX)).is_some());
        assert!(sessions.claim_token("other", BootTime(0)).is_none());
        assert!(sessions.claim_token("token", BootTime(JOIN_TOKEN_AGE_MAX + 1)).is_none());
    }

    #[test]
    fn an_expired_session_is_told_once() {
        let mut sessions = Sessions::default();
        sessions.insert(session(7, CommandState::Running));
        assert_eq!(sessions.expiring(BootTime(999)).count(), 0);
        for session in sessions.expiring(BootTime(1_000)) {
            session.expiring = true;
        }
        assert_eq!(sessions.expiring(BootTime(1_001)).count(), 0);
        assert_eq!(sessions.over(BootTime(1_001)), [(7, EndReason::Expiry)]);
    }

    #[test]
    fn an_ended_session_is_still_named() {
        let mut sessions = Sessions::default();
        sessions.insert(session(7, ENDED));
        assert!(sessions.end(7, BootTime(5)).is_some());
        assert!(sessions.by_scope(7).is_none());
        assert!(sessions.has_ended("id7"));
        assert_eq!(sessions.list(BootTime(5)).first().map(|info| info.state), Some(SessionState::Revoked));
    }
}
