//! The first bytes of every message: what happened, when, where, by whom.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a message reports.
pub mod kind {
    /// A process was created.
    pub const FORK: u16 = 1;
    /// A process replaced its program.
    pub const EXEC: u16 = 2;
    /// The last thread of a process ended.
    pub const EXIT: u16 = 3;
    /// A process tried to replace its program and could not.
    pub const EXEC_FAILED: u16 = 4;
    /// A cgroup was created.
    pub const CGROUP_CREATE: u16 = 16;
    /// A cgroup was removed.
    pub const CGROUP_REMOVE: u16 = 17;
    /// A task or process was moved to another cgroup.
    pub const CGROUP_MOVE: u16 = 18;
    /// A socket was connected, or tried to.
    pub const CONNECT: u16 = 32;
    /// A connection begun without waiting was answered.
    pub const CONNECT_DONE: u16 = 33;
    /// Data was sent to an address without a connection.
    pub const SEND: u16 = 34;
    /// A connection ended, with its totals.
    pub const FLOW: u16 = 35;
    /// A socket began to listen, or tried to.
    pub const LISTEN: u16 = 36;
    /// A connection was accepted.
    pub const ACCEPT: u16 = 37;
    /// A socket of the local host was connected, or tried to.
    pub const CONNECT_UNIX: u16 = 38;
    /// A socket between host and virtual machine was connected, or tried to.
    pub const CONNECT_VSOCK: u16 = 39;
    /// A socket of an unusual sort was created, or tried to.
    pub const SOCKET: u16 = 40;
    /// A file was opened, or tried to.
    pub const OPEN: u16 = 48;
    /// A name, permissions, owner, length or attribute of a file was changed, or tried to.
    pub const CHANGE: u16 = 49;
    /// A file that could be written was closed.
    pub const CLOSE: u16 = 56;
    /// mmap(2) mapped a file as executable, or as shared and writable.
    pub const MAP_CALL: u16 = 57;
    /// Credentials changed without an exec.
    pub const CREDS: u16 = 64;
    /// A process reached into another, or tried to.
    pub const ACCESS: u16 = 65;
    /// A signal was sent to a process of another scope or to the agent, or refused.
    pub const SIGNAL: u16 = 66;
    /// A mount or root directory changed, or a change failed.
    pub const MOUNT: u16 = 67;
    /// Namespaces were made or entered, or an attempt failed.
    pub const NAMESPACE: u16 = 68;
    /// bpf(2) was called.
    pub const BPF: u16 = 69;
    /// Kernel code was loaded or removed, or an attempt failed.
    pub const KERNEL_LOAD: u16 = 70;
    /// A kernel key was used.
    pub const KEY: u16 = 71;
    /// An io_uring instance was made or changed.
    pub const IO_URING: u16 = 72;
    /// A process replaced its program, seen by the hooks that may sleep: with its hash and what changed.
    pub const EXEC_WHOLE: u16 = 5;
    /// A file was mapped as executable, or as shared and writable, memory.
    pub const FILE_MAP: u16 = 50;
    /// A descriptor of a file was received over a socket.
    pub const FILE_RECEIVED: u16 = 51;
}

/// The number spaces: every event takes the next number of its (cpu, class).
pub mod class {
    /// fork, exec (failed ones too), exit.
    pub const PROCESS: u8 = 0;
    /// cgroup create, remove, move.
    pub const CGROUP: u8 = 1;
    /// Everything on sockets: kinds 32 to 47.
    pub const NETWORK: u8 = 2;
    /// open, change, close, map.
    pub const FILE: u8 = 3;
    /// Privileged acts.
    pub const PRIVILEGE: u8 = 4;
    /// How many classes there are.
    pub const COUNT: u32 = 5;
}

/// Bits of [`Header::flags`].
pub mod flag {
    /// No scratch could be had: fixed fields only, every string is missing. Not written yet: such an event counts as
    /// lost.
    pub const NO_SCRATCH: u32 = 1 << 0;
    /// The acting task is a kernel worker that carries out requests for the process (io_uring).
    pub const IO_WORKER: u32 = 1 << 1;
    /// The process identity was saved when the act began; the message itself was made in another context.
    pub const DEFERRED: u32 = 1 << 2;
    /// Every bit that may be set.
    pub const ALL: u32 = NO_SCRATCH | IO_WORKER | DEFERRED;
}

/// Common beginning of every message. Written whole before the message is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// One of [`kind`].
    pub kind: u16,
    /// One of [`class`].
    pub class: u8,
    /// [`crate::WIRE_VERSION`].
    pub version: u8,
    /// Bytes of the whole message.
    pub len: u32,
    /// Number in the (cpu, class) space, from 0, taken before the ring was asked for room.
    pub seq: u64,
    /// Nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`).
    pub boot_ns: u64,
    /// cgroup v2 id of the acting task at the act.
    pub cgroup_id: u64,
    /// Sticky scope: id of the scope's root cgroup, 0 for none.
    pub scope_id: u64,
    /// Start of the process (its thread group leader), nanoseconds since boot.
    pub start_ns: u64,
    /// Start of the parent process, nanoseconds since boot; 0 when there is none.
    pub parent_start_ns: u64,
    /// CPU that made the message and whose number space it uses.
    pub cpu: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Parent process in the initial pid namespace; 0 when there is none.
    pub parent_tgid: u32,
    /// User ids in the initial user namespace.
    pub uid: u32,
    /// Group id, likewise.
    pub gid: u32,
    /// Effective user id, likewise.
    pub euid: u32,
    /// Effective group id, likewise.
    pub egid: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Thread name: the workload writes it as it likes, so a claim.
    pub comm: [u8; 16],
}
const _: () = assert!(size_of::<Header>() == 112);
