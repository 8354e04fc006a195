//! Files opened, mapped and received, and how paths are written.
//!
//! A path is written as the kernel's names from the file towards the root, each followed by one NUL, because that is
//! the order in which dentries can be walked; user space turns it round. The empty string is the root itself.

use crate::header::Header;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits that say what is known of a path.
pub mod path_flag {
    /// The root was reached; without it the path is only the end of the real one.
    pub const COMPLETE: u16 = 1 << 0;
    /// The top mount is not in the task's mount namespace (memfd, pipe, detached or foreign mount).
    pub const DETACHED: u16 = 1 << 1;
    /// The name was no longer in its directory when it was read.
    pub const UNLINKED: u16 = 1 << 2;
    /// A name could not be read.
    pub const UNREADABLE: u16 = 1 << 3;
    /// Written by the kernel itself (`bpf_d_path`), in reading order and without a terminator; where it is also
    /// `UNLINKED`, the kernel has added ` (deleted)`.
    pub const IN_ORDER: u16 = 1 << 4;
    /// Every bit that may be set.
    pub const ALL: u16 = COMPLETE | DETACHED | UNLINKED | UNREADABLE | IN_ORDER;
}

/// Bits of [`Open::open_flags`].
pub mod open_flag {
    /// The descriptor table is shared with another thread or process, which could have replaced the descriptor
    /// before it was read: the facts may be of another file, and the caller's string is kept beside them.
    pub const RACY: u16 = 1 << 0;
    /// The caller's string was longer than kept.
    pub const ASKED_TRUNCATED: u16 = 1 << 1;
    /// The caller's string could not be read.
    pub const ASKED_UNREAD: u16 = 1 << 2;
    /// `asked_flags` came from user memory (openat2), so it is a claim.
    pub const ASKED_FLAGS_CLAIMED: u16 = 1 << 3;
    /// The descriptor was already gone when it was resolved: no facts about the file.
    pub const UNRESOLVED: u16 = 1 << 4;
    /// The open did not come through a call whose end is watched: `result` is 0 and means nothing, and
    /// `asked_flags` are the kernel's own.
    pub const RESULT_UNOBSERVED: u16 = 1 << 5;
    /// Every bit that may be set.
    pub const ALL: u16 = RACY | ASKED_TRUNCATED | ASKED_UNREAD | ASKED_FLAGS_CLAIMED | UNRESOLVED | RESULT_UNOBSERVED;
}

/// open, openat, openat2 or creat returned. Followed by the path (if it succeeded) and the caller's string (if it
/// failed, or is racy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Open {
    /// The caller.
    pub header: Header,
    /// Inode number of the file opened; 0 on failure.
    pub ino: u64,
    /// Descriptor, or the negative error number.
    pub result: i32,
    /// Kernel device number (major << 20 | minor).
    pub dev: u32,
    /// Links to the file.
    pub nlink: u32,
    /// `O_*` flags of the open file (without `O_CREAT`, `O_EXCL`, `O_TRUNC`, which the kernel drops).
    pub file_flags: u32,
    /// The kernel's `FMODE_*` bits; 0x100000 says this open created the file.
    pub file_mode: u32,
    /// `O_*` flags that were asked for.
    pub asked_flags: u32,
    /// Directory descriptor that a relative `asked` starts from; -100 is the working directory.
    pub dir_fd: i32,
    /// File type and permissions.
    pub mode: u16,
    /// Bits of [`open_flag`].
    pub open_flags: u16,
    /// Bits of [`path_flag`].
    pub path_flags: u16,
    /// Bytes of the path.
    pub path_len: u16,
    /// Bytes of the caller's string, no terminator.
    pub asked_len: u16,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<Open>() == 112 + 48);

/// A file was mapped as executable or as shared and writable memory, or a descriptor of one was received over a
/// socket. Followed by the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Seen {
    /// Who maps or receives.
    pub header: Header,
    /// Inode number of the file.
    pub ino: u64,
    /// Kernel device number (major << 20 | minor).
    pub dev: u32,
    /// `PROT_*` flags asked for; 0 for a descriptor received.
    pub prot: u32,
    /// `MAP_*` flags; 0 for a descriptor received.
    pub map_flags: u32,
    /// Bits of [`path_flag`].
    pub path_flags: u16,
    /// Bytes of the path.
    pub path_len: u16,
}
const _: () = assert!(size_of::<Seen>() == 112 + 24);
