//! fork, exec (successful and failed) and exit.

use crate::header::Header;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A process was created (never a thread, never a kernel thread). The header is the parent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fork {
    /// The creating task.
    pub header: Header,
    /// Start of the child, nanoseconds since boot.
    pub child_start_ns: u64,
    /// cgroup v2 id of the child (differs from the parent's after `CLONE_INTO_CGROUP`).
    pub child_cgroup_id: u64,
    /// Scope of the child, 0 for none.
    pub child_scope_id: u64,
    /// The child.
    pub child_tgid: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Fork>() == 112 + 32);

/// Bits of [`Exec::exec_flags`].
pub mod exec_flag {
    /// Another thread than the leader called exec: the tid changed to the tgid.
    pub const BY_THREAD: u16 = 1 << 0;
    /// `argv` was longer than kept.
    pub const ARGV_TRUNCATED: u16 = 1 << 1;
    /// `argv` could not be read (page not present): length 0.
    pub const ARGV_UNREAD: u16 = 1 << 2;
    /// The name given to exec was longer than kept, or could not be read.
    pub const NAME_TRUNCATED: u16 = 1 << 3;
    /// The file descriptor table is shared with another process.
    pub const FILES_SHARED: u16 = 1 << 4;
    /// The set-user-id or set-group-id bit of the file changed the effective ids. Only in [`super::ExecWhole`].
    pub const SET_ID: u16 = 1 << 5;
    /// Capabilities were gained that no change to root explains: the file carries them. Only in [`super::ExecWhole`].
    pub const FILE_CAPS: u16 = 1 << 6;
    /// `sha256` is that of the file. Only in [`super::ExecWhole`].
    pub const HASHED: u16 = 1 << 7;
    /// Every bit that may be set.
    pub const ALL: u16 =
        BY_THREAD | ARGV_TRUNCATED | ARGV_UNREAD | NAME_TRUNCATED | FILES_SHARED | SET_ID | FILE_CAPS | HASHED;
}

/// A process replaced its program, successfully. Followed by path, cwd, name and argv in this order.
///
/// Credentials in the header and here are those after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Exec {
    /// The process.
    pub header: Header,
    /// Inode number of the binary that runs (the interpreter's, for a script).
    pub ino: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its change time, seconds since the epoch by the host clock.
    pub ctime_s: i64,
    /// Effective capabilities after the exec.
    pub cap_effective: u64,
    /// Nanosecond part of the change time.
    pub ctime_ns: u32,
    /// Kernel device number (major << 20 | minor) of its file system.
    pub dev: u32,
    /// Links to it; 0 for deleted files and memfds.
    pub nlink: u32,
    /// Owner, in the initial user namespace.
    pub owner_uid: u32,
    /// Owning group, likewise.
    pub owner_gid: u32,
    /// Saved user id after the exec.
    pub suid: u32,
    /// Saved group id after the exec.
    pub sgid: u32,
    /// Login user id (audit), `u32::MAX` when never set or not known to this kernel.
    pub loginuid: u32,
    /// Arguments as the kernel counted them.
    pub argc: u32,
    /// Environment strings as the kernel counted them.
    pub envc: u32,
    /// Bytes of the whole argv, terminators included; more than kept when truncated.
    pub argv_total: u32,
    /// Thread id before the exec.
    pub old_tid: u32,
    /// File type and permissions.
    pub mode: u16,
    /// Bits of [`exec_flag`].
    pub exec_flags: u16,
    /// Bits of [`crate::file::path_flag`] for the path.
    pub path_flags: u16,
    /// Bits of [`crate::file::path_flag`] for the working directory.
    pub cwd_flags: u16,
    /// Bytes of the path, as [`crate::file`] describes.
    pub path_len: u16,
    /// Bytes of the working directory, likewise.
    pub cwd_len: u16,
    /// Bytes of the name given to exec (the script, for a script), no terminator.
    pub name_len: u16,
    /// Bytes of argv kept, NUL after each argument.
    pub argv_len: u16,
}
const _: () = assert!(size_of::<Exec>() == 112 + 96);

/// An exec as the hooks that may sleep see it. Followed by path, cwd, name and argv as [`Exec`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExecWhole {
    /// What every exec says.
    pub exec: Exec,
    /// SHA-256 of the binary, by the kernel; zero unless `HASHED`.
    pub sha256: [u8; 32],
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
    /// Bytes of the new stack that were copied where argv begins: argv and, behind it, the environment, of which
    /// nothing is sent.
    pub copied: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<ExecWhole>() == 208 + 72);

/// The last thread of a process ended. The header is that thread's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Exit {
    /// The process.
    pub header: Header,
    /// As wait(2) encodes it: code << 8, or signal number with 0x80 for a core dump.
    pub status: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Exit>() == 112 + 8);

/// Bits of [`ExecFailed::exec_flags`].
pub mod exec_failed_flag {
    /// The name given to exec was longer than kept.
    pub const NAME_TRUNCATED: u16 = 1 << 0;
    /// The name could not be read.
    pub const NAME_UNREAD: u16 = 1 << 1;
    /// Every bit that may be set.
    pub const ALL: u16 = NAME_TRUNCATED | NAME_UNREAD;
}

/// A process tried to replace its program and goes on as it was. Followed by the name given to exec, as it stands in
/// user memory after the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExecFailed {
    /// The caller.
    pub header: Header,
    /// The negative error number.
    pub result: i32,
    /// Bits of [`exec_failed_flag`].
    pub exec_flags: u16,
    /// Bytes of the name, no terminator.
    pub name_len: u16,
}
const _: () = assert!(size_of::<ExecFailed>() == 112 + 8);
