//! Map values: counters, losses, scope and saved calls.

use crate::connect::Endpoints;
use crate::header::Header;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of `LOSS`: whose events of which class found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LossKey {
    /// Scope id, 0 for the host and for what did not fit.
    pub scope_id: u64,
    /// One of [`crate::header::class`].
    pub class: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<LossKey>() == 16);

/// Value of `LOSS`: never reset, so differences say what a period lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Loss {
    /// Events lost.
    pub count: u64,
    /// First loss, nanoseconds since boot.
    pub first_ns: u64,
    /// Latest loss (approximate: concurrent losses may write it out of order by microseconds).
    pub last_ns: u64,
}
const _: () = assert!(size_of::<Loss>() == 24);

/// Event families that a scope wants beside process and cgroup events and privileged acts.
pub mod family {
    /// Everything on sockets.
    pub const NETWORK: u32 = 1 << 0;
    /// open.
    pub const FILE: u32 = 1 << 1;
    /// All of them.
    pub const ALL: u32 = NETWORK | FILE;
}

/// Value of `SCOPE`, keyed by cgroup id: the scope that a cgroup is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Scope {
    /// cgroup id of the scope's root.
    pub scope_id: u64,
    /// Bits of [`family`].
    pub families: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Scope>() == 16);

/// Value of the task storage `TASKS`: the scope of a process (kept at its leader) or thread, as last looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TaskScope {
    /// Sticky scope, 0 for none.
    pub scope_id: u64,
    /// Bits of [`family`].
    pub families: u32,
    /// [`Settings::generation`] under which this was looked up.
    pub generation: u32,
    /// Not 0 once the process's exit was reported (kernels whose tracepoint does not say which thread is last).
    pub exited: u64,
}
const _: () = assert!(size_of::<TaskScope>() == 24);

/// The one value of `SETTINGS`, which user space writes and the programs read.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// The agent's own process; 0 while no daemon runs.
    pub agent_tgid: u32,
    /// Raised whenever `SCOPE` changes, so that cached lookups are made again.
    pub generation: u32,
    /// Bits of [`family`] that any scope has wanted since the maps were made: without one, its hooks leave at once.
    pub families: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Settings>() == 16);

/// The one value of `META`: what a later daemon must know before it takes the maps over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Meta {
    /// Names this number space; random, chosen when the maps were made.
    pub capture_id: [u8; 16],
    /// SHA-256 of the eBPF object that made them.
    pub object_digest: [u8; 32],
    /// SHA-256 of the offsets and constants that the programs were loaded with.
    pub offsets_digest: [u8; 32],
    /// [`crate::WIRE_VERSION`].
    pub wire_version: u32,
    /// 1 once every map was pinned; a set without it was left half made.
    pub complete: u32,
}
const _: () = assert!(size_of::<Meta>() == 88);

/// Value of `CALLS`, keyed by thread: a connect(2) that has reached the address hook and not yet returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Call {
    /// When the hook ran, nanoseconds since boot.
    pub begun_ns: u64,
    /// Where to.
    pub endpoints: Endpoints,
}
const _: () = assert!(size_of::<Call>() == 64);

/// What each side adds, once, to [`Pending::state`]. The addition is atomic and gives back the old value, so the side
/// that comes second sees the other's mark and reports the answer: exactly one does.
pub mod pending_state {
    /// connect(2) returned "in progress"; the answer is awaited.
    pub const AWAITED: u64 = 1;
    /// The answer came.
    pub const ANSWERED: u64 = 2;
}

/// Value of `PENDING`, keyed by socket cookie: a TCP connection between SYN and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Pending {
    /// Sum of [`pending_state`] marks.
    pub state: u64,
    /// When the answer came, nanoseconds since boot.
    pub answered_ns: u64,
    /// Local address at the answer.
    pub local: [u8; 16],
    /// Local port at the answer, host byte order.
    pub local_port: u32,
    /// The answer: 0 or the negative error number.
    pub result: i32,
    /// The call.
    pub call: Call,
    /// Identity of the caller, from when it called.
    pub header: Header,
}
const _: () = assert!(size_of::<Pending>() == 40 + 64 + 112);

/// What the task iterator writes for each process alive (back-fill). Followed by the binary's path, which takes the
/// rest of the message and is written as [`crate::file`] describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Alive {
    /// The process; `kind`, `class` and `seq` are zero.
    pub header: Header,
    /// Inode number of its binary; 0 when it has none any more (a zombie).
    pub ino: u64,
    /// Kernel device number of the binary.
    pub dev: u32,
    /// Links to the binary.
    pub nlink: u32,
    /// Bits of [`crate::file::path_flag`].
    pub path_flags: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Alive>() == 112 + 24);

/// Key of `SENDS`: who sends from which socket where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SendKey {
    /// The socket.
    pub cookie: u64,
    /// Remote address, network byte order; IPv4 in the first four bytes, the rest zero.
    pub remote: [u8; 16],
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// The process: a socket that another one got hold of is reported again for that one.
    pub tgid: u32,
}
const _: () = assert!(size_of::<SendKey>() == 32);

/// Key of `HASHES`: a file as it was when it was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HashKey {
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Change time, seconds.
    pub ctime_s: i64,
    /// Change time, nanoseconds.
    pub ctime_ns: u32,
    /// Kernel device number.
    pub dev: u32,
}
const _: () = assert!(size_of::<HashKey>() == 32);

/// Value of `HASHES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KeptHash {
    /// When the file was first seen so, nanoseconds since boot.
    pub seen_ns: u64,
    /// 1 once `sha256` holds.
    pub known: u64,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
}
const _: () = assert!(size_of::<KeptHash>() == 48);
