//! cgroup v2 life: create, remove, move.

use crate::header::Header;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of `cgroup_flags`.
pub mod cgroup_flag {
    /// The path was longer than kept.
    pub const PATH_TRUNCATED: u16 = 1 << 0;
    /// The whole process moved, not one thread.
    pub const WHOLE_PROCESS: u16 = 1 << 1;
    /// Every bit that may be set.
    pub const ALL: u16 = PATH_TRUNCATED | WHOLE_PROCESS;
}

/// A cgroup was created or removed. The header is the caller's. Followed by the path from the hierarchy's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CgroupLife {
    /// The caller of mkdir or rmdir.
    pub header: Header,
    /// The cgroup.
    pub id: u64,
    /// Its parent; 0 when it has none.
    pub parent_id: u64,
    /// Scope that the cgroup is in, 0 for none.
    pub scope_id: u64,
    /// Depth below the root, which has 0.
    pub level: u32,
    /// Bytes of the path, no terminator.
    pub path_len: u16,
    /// Bits of [`cgroup_flag`].
    pub cgroup_flags: u16,
}
const _: () = assert!(size_of::<CgroupLife>() == 112 + 32);

/// A task was moved to another cgroup. The header is the mover's. Followed by the new cgroup's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CgroupMove {
    /// Who wrote to `cgroup.procs`.
    pub header: Header,
    /// The new cgroup.
    pub to_id: u64,
    /// Start of the moved process, nanoseconds since boot.
    pub moved_start_ns: u64,
    /// Scope of the moved process before, 0 for none (or not yet looked up).
    pub scope_before: u64,
    /// Scope of the moved process after.
    pub scope_after: u64,
    /// The moved process.
    pub moved_tgid: u32,
    /// The moved thread.
    pub moved_tid: u32,
    /// Bytes of the path, no terminator.
    pub path_len: u16,
    /// Bits of [`cgroup_flag`].
    pub cgroup_flags: u16,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<CgroupMove>() == 112 + 48);
