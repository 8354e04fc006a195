//! Who is at the other end of a connection: the kernel's answer, completed from `/proc`.
//!
//! Owns the reading of credentials and the test that a process id still names the same process.
//! `/proc` is the kernel's word; a workload cannot write what is read here. What remains: between
//! `connect` and the reading here the process can exit and its id can be reused, by a process of
//! the same user (another user's is refused) that started in that moment. A pidfd of the peer
//! (`SO_PEERPIDFD`, Linux 6.5) would close that window.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

use tokio::net::UnixStream;

use crate::session::protocol::Peer;

/// Why the peer of a connection is not known.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The kernel did not tell.
    #[error("the kernel does not name the peer: {0}")]
    Credentials(#[source] io::Error),
    /// The peer is outside the daemon's pid namespace.
    #[error("the peer has no process id in the daemon's pid namespace")]
    NoPid,
    /// The peer is gone, or `/proc` does not show it.
    #[error("cannot read {path}: {source}")]
    Proc {
        /// What was read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `/proc` has a form that is not known.
    #[error("{path} has no {field}")]
    ProcFormat {
        /// What was read.
        path: PathBuf,
        /// What was looked for.
        field: &'static str,
    },
    /// The process of that id has another user than the one that connected.
    #[error("process {pid} has uid {seen}, the peer had {expected} when it connected")]
    OtherUser {
        /// The process id.
        pid: u32,
        /// Its effective user id now.
        seen: u32,
        /// The peer's when it connected.
        expected: u32,
    },
}

impl Peer {
    /// The peer of a connection.
    ///
    /// # Errors
    /// When the kernel does not name it, it is gone, or another user's process has its id by now.
    pub fn of(stream: &UnixStream) -> Result<Self, PeerError> {
        let credentials = stream.peer_cred().map_err(PeerError::Credentials)?;
        let pid = credentials
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|&pid| pid != 0)
            .ok_or(PeerError::NoPid)?;
        let status = ProcStatus::read(pid)?;
        if status.euid != credentials.uid() {
            return Err(PeerError::OtherUser { pid, seen: status.euid, expected: credentials.uid() });
        }
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            groups: status.groups,
            pid,
            start_ticks: start_ticks(pid)?,
        })
    }

    /// Whether `pid` still names the process that it named when this was read.
    ///
    /// Whoever acts on the process id (moves it to a cgroup) asks after the act: when the answer
    /// is yes, the act hit the right process, because an id is not reused while its process lives.
    #[must_use]
    pub fn is_same_process(&self) -> bool {
        start_ticks(self.pid).is_ok_and(|ticks| ticks == self.start_ticks)
    }
}

struct ProcStatus {
    euid: u32,
    groups: Vec<u32>,
}

impl ProcStatus {
    fn read(pid: u32) -> Result<Self, PeerError> {
        let path = PathBuf::from(format!("/proc/{pid}/status"));
        let text = std::fs::read_to_string(&path).map_err(|source| PeerError::Proc { path: path.clone(), source })?;
        Self::parse(&text).map_err(|field| PeerError::ProcFormat { path, field })
    }

    /// See proc_pid_status(5): `Uid:` is real, effective, saved, file system.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let field = |name: &'static str| text.lines().find_map(|line| line.strip_prefix(name)).ok_or(name);
        let euid = field("Uid:")?.split_whitespace().nth(1).and_then(|uid| uid.parse().ok()).ok_or("Uid:")?;
        let groups = field("Groups:")?
            .split_whitespace()
            .map(|gid| gid.parse().map_err(|_not_a_number| "Groups:"))
            .collect::<Result<_, _>>()?;
        Ok(Self { euid, groups })
    }
}

/// Field 22 of `/proc/<pid>/stat`: the start in clock ticks since boot. The second field is the
/// command name in parentheses, which may hold anything: fields are counted from the last `)`.
fn start_ticks(pid: u32) -> Result<u64, PeerError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let bytes = std::fs::read(&path).map_err(|source| PeerError::Proc { path: path.clone(), source })?;
    parse_start_ticks(&bytes).ok_or(PeerError::ProcFormat { path, field: "starttime" })
}

fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    // The first field after the name is field 3.
    rest.split_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_start_time() {
        let stat = b"12 (a) 1 (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_start_ticks(stat), Some(4242));
    }

    #[test]
    fn effective_uid_and_groups_come_from_their_lines() {
        let status =
            ProcStatus::parse("Name:\tGroups: 1\nUid:\t1\t2\t3\t4\nGid:\t5\t5\t5\t5\nGroups:\t7 8 \n").unwrap();
        assert_eq!((status.euid, status.groups), (2, vec![7, 8]));
        assert_eq!(ProcStatus::parse("Uid:\t1\t2\t3\t4\n").err(), Some("Groups:"));
    }

    #[tokio::test]
    async fn the_peer_of_a_socket_pair_is_this_process() {
        let (here, _there) = UnixStream::pair().unwrap();
        let peer = Peer::of(&here).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert!(peer.is_same_process());
        let later = Peer { start_ticks: peer.start_ticks + 1, ..peer };
        assert!(!later.is_same_process());
    }
}
