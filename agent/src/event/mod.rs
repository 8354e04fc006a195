//! Events: what the kernel side reported, decoded and typed, borrowing from the message.
//!
//! Pure. A member is a fact read from kernel objects unless it is a [`Claim`], which the workload could have written
//! at any time. Nothing here is looked up or attributed.

#![forbid(unsafe_code)]

pub mod calls;
pub mod capture;
pub mod decode;
mod privilege;

use agent_common::privilege::act_flag;
use agent_evidence::record::{BootTime, KernelNumber, ProcessCookie};

pub use calls::ChangeCall;
pub use decode::{DecodeError, decode, number_of};
pub use privilege::{Act, ExecFailed, KernelLoad, Mount};

/// Bytes that the workload could have written as it liked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a>(pub &'a [u8]);

/// What every event says: when, where, by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Number in the kernel side's own count.
    pub number: KernelNumber,
    /// Nanoseconds since boot.
    pub boot: BootTime,
    /// cgroup of the acting task at the act.
    pub cgroup_id: u64,
    /// Root of the scope the process is in by ancestry; 0 for none.
    pub scope_id: u64,
    /// Start of the process.
    pub start: BootTime,
    /// Start of its parent; 0 when there is none.
    pub parent_start: BootTime,
    /// The process.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// The parent process; 0 when there is none.
    pub parent_tgid: u32,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Bits of `agent_common::header::flag`.
    pub flags: u32,
    /// Thread name, up to its first NUL.
    pub comm: Claim<'a>,
}

impl Header<'_> {
    /// The process's stable name within this boot.
    #[must_use]
    pub fn cookie(&self) -> ProcessCookie {
        ProcessCookie::derive(self.start, self.tgid)
    }

    /// The parent's.
    #[must_use]
    pub fn parent(&self) -> ProcessCookie {
        ProcessCookie::derive(self.parent_start, self.parent_tgid)
    }
}

/// A path as the kernel side walked it: names from the file towards the root, each followed by a NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkedPath<'a> {
    /// The names.
    pub names: &'a [u8],
    /// Bits of `agent_common::file::path_flag`.
    pub flags: u16,
}

impl WalkedPath<'_> {
    /// Appends the path in the usual order to `out`: absolute when the root was reached, else beginning with the
    /// first name that was kept.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        if self.flags & agent_common::file::path_flag::IN_ORDER != 0 {
            return self.write_in_order(out);
        }
        // Outside the process's mount namespace there is no root to begin from: `memfd:x`, not `/memfd:x`.
        let detached = self.flags & agent_common::file::path_flag::DETACHED != 0;
        let complete = self.flags & agent_common::file::path_flag::COMPLETE != 0 && !detached;
        let names = self.names.strip_suffix(&[0]).unwrap_or(self.names);
        if !self.names.is_empty() {
            for name in names.rsplit(|byte| *byte == 0) {
                if complete || out.len() > start {
                    out.push(b'/');
                }
                out.extend_from_slice(name);
            }
        } else if complete {
            out.push(b'/');
        }
    }
}

impl WalkedPath<'_> {
    /// A path as the kernel's `d_path` gives it: what it adds to a name that is gone is taken away again, since the
    /// flag says so, and the root that it gives a file without a directory too.
    fn write_in_order(&self, out: &mut Vec<u8>) {
        let gone = self.flags & agent_common::file::path_flag::UNLINKED != 0;
        let detached = self.flags & agent_common::file::path_flag::DETACHED != 0;
        let path = if gone { self.names.strip_suffix(b" (deleted)").unwrap_or(self.names) } else { self.names };
        let path = if detached { path.strip_prefix(b"/").unwrap_or(path) } else { path };
        out.extend_from_slice(path);
    }
}

/// A process was created. The header is the parent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork<'a> {
    /// The creating task.
    pub header: Header<'a>,
    /// Start of the child.
    pub child_start: BootTime,
    /// Its cgroup.
    pub child_cgroup_id: u64,
    /// Its scope; 0 for none.
    pub child_scope_id: u64,
    /// The child.
    pub child_tgid: u32,
}

impl Fork<'_> {
    /// The child's stable name.
    #[must_use]
    pub fn child(&self) -> ProcessCookie {
        ProcessCookie::derive(self.child_start, self.child_tgid)
    }
}

/// A process replaced its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exec<'a> {
    /// The process, with its credentials after the change.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: agent_common::process::Exec,
    /// The binary that runs.
    pub path: WalkedPath<'a>,
    /// Working directory.
    pub cwd: WalkedPath<'a>,
    /// The name given to exec.
    pub invoked: Claim<'a>,
    /// Arguments, a NUL after each.
    pub argv: &'a [u8],
    /// What only hooks that may sleep, and those before the change of credentials, have seen.
    pub more: Option<ExecMore>,
}

/// What not every tier of hooks sees of an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecMore {
    /// SHA-256 of the binary, by the kernel.
    pub sha256: Option<[u8; 32]>,
    /// Permitted capabilities after the exec.
    pub cap_permitted: u64,
    /// Ambient capabilities after the exec.
    pub cap_ambient: u64,
    /// Effective capabilities before the exec.
    pub before_cap_effective: u64,
    /// Effective user id before the exec.
    pub before_euid: u32,
    /// Effective group id before the exec.
    pub before_egid: u32,
}

/// The last thread of a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit<'a> {
    /// The process.
    pub header: Header<'a>,
    /// As wait(2) encodes it.
    pub status: u32,
}

/// A cgroup was created or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupLife<'a> {
    /// Who did it.
    pub header: Header<'a>,
    /// The cgroup.
    pub id: u64,
    /// Its parent; 0 when it has none.
    pub parent_id: u64,
    /// Scope that it is in; 0 for none.
    pub scope_id: u64,
    /// Path from the hierarchy's root.
    pub path: &'a [u8],
    /// Bits of `agent_common::cgroup::cgroup_flag`.
    pub flags: u16,
}

/// A task was moved to another cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupMove<'a> {
    /// Who did it.
    pub header: Header<'a>,
    /// The new cgroup.
    pub to_id: u64,
    /// Start of the moved process.
    pub moved_start: BootTime,
    /// Its scope before; 0 for none.
    pub scope_before: u64,
    /// Its scope after; 0 for none.
    pub scope_after: u64,
    /// The moved process.
    pub moved_tgid: u32,
    /// Path of the new cgroup.
    pub path: &'a [u8],
    /// Bits of `agent_common::cgroup::cgroup_flag`.
    pub flags: u16,
}

impl CgroupMove<'_> {
    /// The moved process's stable name.
    #[must_use]
    pub fn process(&self) -> ProcessCookie {
        ProcessCookie::derive(self.moved_start, self.moved_tgid)
    }
}

/// A socket was connected, or a connection in progress was decided; or data was sent without a connection, a socket
/// began to listen, a connection was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The process that called connect(2), or did the other act.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub endpoints: agent_common::connect::Endpoints,
}

/// A connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow<'a> {
    /// The process that had made it.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub endpoints: agent_common::connect::Endpoints,
    /// Bytes of payload sent.
    pub sent: u64,
    /// Bytes of payload received.
    pub received: u64,
    /// When it began.
    pub began: BootTime,
}

/// A socket of the local host was connected, or tried to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectUnix<'a> {
    /// The process.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: agent_common::socket::ConnectUnix,
    /// What the listening socket is bound to.
    pub path: WalkedPath<'a>,
    /// Its name in the abstract namespace.
    pub abstract_name: &'a [u8],
}

impl ConnectUnix<'_> {
    /// The stable name of the process that had called listen(2), while it is there.
    #[must_use]
    pub fn peer(&self) -> Option<ProcessCookie> {
        let known = self.wire.socket_flags & agent_common::socket::socket_flag::PEER_KNOWN != 0;
        (known && self.wire.peer_start_ns != 0)
            .then(|| ProcessCookie::derive(BootTime(self.wire.peer_start_ns), self.wire.peer_tgid))
    }
}

/// A socket between host and virtual machine was connected, or tried to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectVsock<'a> {
    /// The process.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: agent_common::socket::ConnectVsock,
}

/// A socket of an unusual sort was created, or tried to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMade<'a> {
    /// The process.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: agent_common::socket::SocketMade,
}

/// A file was opened, or an open failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open<'a> {
    /// The process.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: agent_common::file::Open,
    /// The file that was opened.
    pub path: WalkedPath<'a>,
    /// The string given to open.
    pub asked: Claim<'a>,
}

/// A call that changes a file returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// The process.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: agent_common::change::Change,
    /// Which call.
    pub call: ChangeCall,
    /// The file, for calls on descriptors.
    pub path: WalkedPath<'a>,
    /// The first string that the call was given.
    pub first: Claim<'a>,
    /// The second.
    pub second: Claim<'a>,
}

impl<'a> Change<'a> {
    /// The name that the call was given for the file, where it could be read.
    #[must_use]
    pub fn asked(&self) -> Option<Claim<'a>> {
        if self.call.target_first { self.second() } else { self.first() }
    }

    /// The other string, where it could be read.
    #[must_use]
    pub fn asked_to(&self) -> Option<Claim<'a>> {
        if self.call.target_first { self.first() } else { self.second() }
    }

    fn first(&self) -> Option<Claim<'a>> {
        use agent_common::change::change_flag::{ASKED_UNREAD, BY_NAME};
        (self.wire.change_flags & (BY_NAME | ASKED_UNREAD) == BY_NAME).then_some(self.first)
    }

    fn second(&self) -> Option<Claim<'a>> {
        use agent_common::change::change_flag::{SECOND, SECOND_UNREAD};
        (self.wire.change_flags & (SECOND | SECOND_UNREAD) == SECOND).then_some(self.second)
    }
}

/// A regular file that was open for writing is being closed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    /// The process.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: agent_common::change::Close,
    /// The file.
    pub path: WalkedPath<'a>,
}

/// mmap(2) mapped a file as executable, or as shared and writable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapCall<'a> {
    /// The process.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: agent_common::change::MapCall,
    /// The file.
    pub path: WalkedPath<'a>,
}

/// A file was mapped, or a descriptor of it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The process.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: agent_common::file::Seen,
    /// The file.
    pub path: WalkedPath<'a>,
}

/// One message of the kernel side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A process was created.
    Fork(Fork<'a>),
    /// A process replaced its program.
    Exec(Exec<'a>),
    /// A process ended.
    Exit(Exit<'a>),
    /// A cgroup was created.
    CgroupCreate(CgroupLife<'a>),
    /// A cgroup was removed.
    CgroupRemove(CgroupLife<'a>),
    /// A task was moved.
    CgroupMove(CgroupMove<'a>),
    /// A socket was connected.
    Connect(Connect<'a>),
    /// A connection was decided.
    ConnectDone(Connect<'a>),
    /// A file was opened.
    Open(Open<'a>),
    /// A file was changed.
    Change(Change<'a>),
    /// A file was closed.
    Close(Close<'a>),
    /// A file was mapped.
    MapCall(MapCall<'a>),
    /// Data was sent without a connection.
    Send(Connect<'a>),
    /// A connection ended.
    Flow(Flow<'a>),
    /// A socket began to listen.
    Listen(Connect<'a>),
    /// A connection was accepted.
    Accept(Connect<'a>),
    /// A socket of the local host was connected.
    ConnectUnix(ConnectUnix<'a>),
    /// A socket between host and virtual machine was connected.
    ConnectVsock(ConnectVsock<'a>),
    /// A socket of an unusual sort was created.
    SocketMade(SocketMade<'a>),
    /// An exec failed.
    ExecFailed(ExecFailed<'a>),
    /// Credentials changed.
    Creds(Act<'a, agent_common::privilege::Creds>),
    /// A process reached into another.
    Access(Act<'a, agent_common::privilege::Access>),
    /// A signal was sent to another scope or to the agent.
    Signal(Act<'a, agent_common::privilege::Signal>),
    /// A mount or root directory changed.
    Mount(Mount<'a>),
    /// Namespaces were made or entered.
    Namespace(Act<'a, agent_common::privilege::Namespace>),
    /// `bpf(2)` was called.
    Bpf(Act<'a, agent_common::privilege::Bpf>),
    /// Kernel code was loaded or removed.
    KernelLoad(KernelLoad<'a>),
    /// A kernel key was used.
    Key(Act<'a, agent_common::privilege::Key>),
    /// An io_uring instance was made or changed.
    IoUring(Act<'a, agent_common::privilege::IoUring>),
    /// A file was mapped as executable, or as shared and writable, memory.
    FileMap(Seen<'a>),
    /// A descriptor of a file was received.
    FileReceived(Seen<'a>),
}

impl<'a> Event<'a> {
    /// The same act, known to be the agent's own: what it does to itself is not against it. The kernel side leaves its
    /// acts out once it has been told who the agent is, which is after a daemon began to take over what is pinned.
    #[must_use]
    pub fn of_the_agent_itself(mut self) -> Self {
        match &mut self {
            Self::Access(act) => act.wire.act_flags &= !act_flag::AGAINST_AGENT,
            Self::Signal(act) => act.wire.act_flags &= !act_flag::AGAINST_AGENT,
            Self::Bpf(act) => act.wire.act_flags &= !act_flag::AGAINST_AGENT,
            _ => {}
        }
        self
    }

    /// What every event says.
    #[must_use]
    pub fn header(&self) -> &Header<'a> {
        match self {
            Self::Fork(event) => &event.header,
            Self::Exec(event) => &event.header,
            Self::Exit(event) => &event.header,
            Self::CgroupCreate(event) | Self::CgroupRemove(event) => &event.header,
            Self::CgroupMove(event) => &event.header,
            Self::Connect(event) | Self::ConnectDone(event) => &event.header,
            Self::Open(event) => &event.header,
            Self::Change(event) => &event.header,
            Self::Close(event) => &event.header,
            Self::MapCall(event) => &event.header,
            Self::Send(event) | Self::Listen(event) | Self::Accept(event) => &event.header,
            Self::Flow(event) => &event.header,
            Self::ConnectUnix(event) => &event.header,
            Self::ConnectVsock(event) => &event.header,
            Self::SocketMade(event) => &event.header,
            Self::ExecFailed(event) => &event.header,
            Self::Creds(event) => &event.header,
            Self::Access(event) => &event.header,
            Self::Signal(event) => &event.header,
            Self::Mount(event) => &event.header,
            Self::Namespace(event) => &event.header,
            Self::Bpf(event) => &event.header,
            Self::KernelLoad(event) => &event.header,
            Self::Key(event) => &event.header,
            Self::IoUring(event) => &event.header,
            Self::FileMap(event) | Self::FileReceived(event) => &event.header,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::file::path_flag;

    #[track_caller]
    fn written(names: &[u8], flags: u16) -> String {
        let mut out = Vec::new();
        WalkedPath { names, flags }.write(&mut out);
        String::from_utf8(out).expect("test names are text")
    }

    #[test]
    fn a_walked_path_is_turned_round() {
        assert_eq!(written(b"passwd\0etc\0", path_flag::COMPLETE), "/etc/passwd");
        assert_eq!(written(b"", path_flag::COMPLETE), "/");
        assert_eq!(written(b"passwd\0etc\0", 0), "etc/passwd");
        assert_eq!(written(b"", 0), "");
        assert_eq!(written(b"memfd:x\0", path_flag::COMPLETE | path_flag::DETACHED), "memfd:x");
    }

    #[test]
    fn what_the_kernel_writes_itself_loses_only_what_the_flags_say() {
        let own = path_flag::COMPLETE | path_flag::IN_ORDER;
        assert_eq!(written(b"/etc/passwd", own), "/etc/passwd");
        assert_eq!(written(b"/tmp/x (deleted)", own), "/tmp/x (deleted)");
        assert_eq!(written(b"/tmp/x (deleted)", own | path_flag::UNLINKED), "/tmp/x");
        assert_eq!(written(b"/tmp/x (deleted) (deleted)", own | path_flag::UNLINKED), "/tmp/x (deleted)");
        assert_eq!(written(b"/memfd:x (deleted)", own | path_flag::UNLINKED | path_flag::DETACHED), "memfd:x");
    }
}
