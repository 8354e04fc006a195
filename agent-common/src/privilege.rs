//! Privileged acts: credentials, other processes, mounts, namespaces, eBPF, kernel code, keys, io_uring.
//!
//! Results are as the system call returned them: 0 or more for success, else the negative error number.

use crate::header::Header;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits that say what is known of a privileged act. Every struct of this file has them, and uses those that apply.
pub mod act_flag {
    /// A descriptor was resolved after the call, which another thread or process could have replaced by then.
    pub const RACY: u32 = 1 << 0;
    /// The object or process that the call named was gone when it was looked for.
    pub const UNRESOLVED: u32 = 1 << 1;
    /// The act was against the agent: its process, or one of its programs, maps or links.
    pub const AGAINST_AGENT: u32 = 1 << 2;
    /// The caller's string was longer than kept.
    pub const STRING_TRUNCATED: u32 = 1 << 3;
    /// The caller's string could not be read.
    pub const STRING_UNREAD: u32 = 1 << 4;
    /// `flags` came from user memory, so they are a claim.
    pub const FLAGS_CLAIMED: u32 = 1 << 5;
    /// The members that describe the object are known; else they are zero.
    pub const KNOWN: u32 = 1 << 6;
    /// The result is known.
    pub const RESULT: u32 = 1 << 7;
    /// Every bit that may be set.
    pub const ALL: u32 = (1 << 8) - 1;
}

/// A process's credentials, ids in the initial user namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Credentials {
    /// Effective capabilities.
    pub cap_effective: u64,
    /// Permitted capabilities.
    pub cap_permitted: u64,
    /// Inheritable capabilities.
    pub cap_inheritable: u64,
    /// Ambient capabilities.
    pub cap_ambient: u64,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Saved user id.
    pub suid: u32,
    /// Saved group id.
    pub sgid: u32,
    /// User id for file access.
    pub fsuid: u32,
    /// Group id for file access.
    pub fsgid: u32,
    /// Inode number of the user namespace.
    pub user_namespace: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Credentials>() == 72);

/// The credentials of a thread changed in a system call. The header has those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Creds {
    /// The thread.
    pub header: Header,
    /// When the system call began.
    pub before: Credentials,
    /// When it returned.
    pub after: Credentials,
}
const _: () = assert!(size_of::<Creds>() == 112 + 144);

/// How another process was reached.
pub mod access {
    /// `ptrace`.
    pub const PTRACE: u32 = 0;
    /// `process_vm_readv`.
    pub const VM_READ: u32 = 1;
    /// `process_vm_writev`.
    pub const VM_WRITE: u32 = 2;
    /// `pidfd_getfd`.
    pub const GETFD: u32 = 3;
    /// The largest of them.
    pub const LAST: u32 = GETFD;
}

/// A process reached into another, or tried to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Access {
    /// The caller.
    pub header: Header,
    /// Start of the other process, nanoseconds since boot; 0 when `UNRESOLVED`.
    pub target_start_ns: u64,
    /// Scope of the cgroup that the other process is in, 0 for none.
    pub target_scope: u64,
    /// The other process; as the caller gave it when `UNRESOLVED`.
    pub target_tgid: u32,
    /// One of [`access`].
    pub how: u32,
    /// The ptrace request; else 0.
    pub mode: u32,
    /// As the call returned.
    pub result: i32,
    /// Bits of [`act_flag`].
    pub act_flags: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Access>() == 112 + 40);

/// A signal was sent to a process of another scope or to the agent, or such a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Signal {
    /// The sender.
    pub header: Header,
    /// Start of the other process, nanoseconds since boot.
    pub target_start_ns: u64,
    /// Its scope, 0 for none.
    pub target_scope: u64,
    /// The other process.
    pub target_tgid: u32,
    /// The signal.
    pub signal: u32,
    /// 0, or the negative error number.
    pub result: i32,
    /// Bits of [`act_flag`].
    pub act_flags: u32,
}
const _: () = assert!(size_of::<Signal>() == 112 + 32);

/// What was done to a mount.
pub mod mount {
    /// A file system was mounted.
    pub const MOUNT: u32 = 0;
    /// A directory was bound to another place.
    pub const BIND: u32 = 1;
    /// A mount was moved, or a detached one was put somewhere.
    pub const MOVE: u32 = 2;
    /// Options were changed.
    pub const REMOUNT: u32 = 3;
    /// It was taken away.
    pub const UNMOUNT: u32 = 4;
    /// The root was exchanged.
    pub const PIVOT_ROOT: u32 = 5;
    /// The root of the process was changed.
    pub const CHROOT: u32 = 6;
    /// The largest of them.
    pub const LAST: u32 = CHROOT;
}

/// A mount or a root directory changed, or a change failed. Followed by the path (where the call leaves an object to
/// take it from) and the caller's string that says what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mount {
    /// The caller.
    pub header: Header,
    /// `MS_*`, `MNT_*`, `MOVE_MOUNT_*`, `OPEN_TREE_*` or `MOUNT_ATTR_*` flags, as the call has them.
    pub flags: u64,
    /// As the call returned.
    pub result: i32,
    /// One of [`mount`].
    pub op: u32,
    /// Bits of [`act_flag`]; `KNOWN` is of the path.
    pub act_flags: u32,
    /// Bits of [`crate::file::path_flag`].
    pub path_flags: u16,
    /// Bytes of the path, as [`crate::file`] describes.
    pub path_len: u16,
    /// Bytes of the caller's string, no terminator.
    pub source_len: u16,
    /// Zero.
    pub reserved: u16,
    /// Zero.
    pub reserved_too: u32,
    /// Type of the file system, from its superblock, NUL padded; empty when not known.
    pub fstype: [u8; 16],
}
const _: () = assert!(size_of::<Mount>() == 112 + 48);

/// How namespaces were changed.
pub mod namespace {
    /// New ones were made by `unshare`.
    pub const UNSHARE: u32 = 0;
    /// New ones were made with a process.
    pub const CLONE: u32 = 1;
    /// Existing ones were entered.
    pub const ENTER: u32 = 2;
    /// The largest of them.
    pub const LAST: u32 = ENTER;
}

/// Namespaces were made or entered, or an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Namespace {
    /// The caller; the parent, for `CLONE`.
    pub header: Header,
    /// `CLONE_NEW*`: as asked for, or as found different from the parent's for `CLONE`.
    pub flags: u64,
    /// As the call returned; 0 for `CLONE`.
    pub result: i32,
    /// One of [`namespace`].
    pub op: u32,
    /// Bits of [`act_flag`]; `KNOWN` is of the four numbers.
    pub act_flags: u32,
    /// Inode number of the mount namespace afterwards; the child's, for `CLONE`.
    pub mount: u32,
    /// Of the pid namespace for children, likewise.
    pub pid: u32,
    /// Of the network namespace, likewise.
    pub network: u32,
    /// Of the user namespace, likewise.
    pub user: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<Namespace>() == 112 + 40);

/// `bpf(2)` was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bpf {
    /// The caller.
    pub header: Header,
    /// The command.
    pub cmd: u32,
    /// Type of the program, map or link that the call is about.
    pub r#type: u32,
    /// Its id.
    pub id: u32,
    /// As the call returned.
    pub result: i32,
    /// Bits of [`act_flag`]; `KNOWN` is of type, id and name.
    pub act_flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Name that the kernel keeps of it, as its maker chose it, NUL padded; empty for links.
    pub name: [u8; 16],
}
const _: () = assert!(size_of::<Bpf>() == 112 + 40);

/// What was loaded into the kernel.
pub mod kernel_code {
    /// A module.
    pub const MODULE: u32 = 0;
    /// A module was removed.
    pub const MODULE_REMOVED: u32 = 1;
    /// A kernel to be started by kexec.
    pub const KEXEC: u32 = 2;
    /// The largest of them.
    pub const LAST: u32 = KEXEC;
}

/// Code was loaded into the kernel or removed from it, or an attempt failed. Followed by the path of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KernelLoad {
    /// The caller.
    pub header: Header,
    /// As the call returned.
    pub result: i32,
    /// One of [`kernel_code`].
    pub what: u32,
    /// Bits of [`act_flag`]; `KNOWN` is of the path.
    pub act_flags: u32,
    /// Bits of [`crate::file::path_flag`].
    pub path_flags: u16,
    /// Bytes of the path, as [`crate::file`] describes.
    pub path_len: u16,
    /// The module's name as the kernel has it, NUL padded; empty when the kernel did not get as far.
    pub name: [u8; 56],
}
const _: () = assert!(size_of::<KernelLoad>() == 112 + 72);

/// [`Key::op`] of `add_key`; smaller ones are operations of `keyctl`.
pub const OP_ADD_KEY: u32 = 1000;
/// [`Key::op`] of `request_key`.
pub const OP_REQUEST_KEY: u32 = 1001;

/// A kernel key was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Key {
    /// The caller.
    pub header: Header,
    /// The `keyctl` operation, [`OP_ADD_KEY`] or [`OP_REQUEST_KEY`].
    pub op: u32,
    /// Serial number of the key: the result where that is one, else as asked for; negative for a special keyring.
    pub serial: i32,
    /// As the call returned.
    pub result: i32,
    /// Bits of [`act_flag`]; `KNOWN` is of the serial number.
    pub act_flags: u32,
}
const _: () = assert!(size_of::<Key>() == 112 + 16);

/// An io_uring instance was made or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IoUring {
    /// The caller.
    pub header: Header,
    /// 0 for `io_uring_setup`, else the `io_uring_register` operation plus 1.
    pub op: u32,
    /// `IORING_SETUP_*` flags of the instance.
    pub flags: u32,
    /// Entries of its submission queue; as asked for, when it could not be made.
    pub entries: u32,
    /// As the call returned.
    pub result: i32,
    /// Bits of [`act_flag`]; `KNOWN` is of flags and entries.
    pub act_flags: u32,
    /// Zero.
    pub reserved: u32,
}
const _: () = assert!(size_of::<IoUring>() == 112 + 24);

/// Keys of `OURS`: the kernel's ids of the agent's own eBPF objects, by kind.
pub mod ours {
    /// A program.
    pub const PROGRAM: u64 = 1 << 32;
    /// A map.
    pub const MAP: u64 = 2 << 32;
    /// A link.
    pub const LINK: u64 = 3 << 32;
}
