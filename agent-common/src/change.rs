//! Changes of files by system calls, closes of files that could be written, and mappings.
//!
//! Calls on names hand a hook on system calls nothing but strings of the caller's memory, which are claims; calls on
//! descriptors give the file itself, as an open does. Which call it was stands in the message as its number: user space
//! knows what each does.

use crate::header::Header;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`Change::change_flags`], [`Close::change_flags`] and [`MapCall::change_flags`].
pub mod change_flag {
    /// The descriptor table is shared with another thread or process, which could have replaced the descriptor
    /// before it was read: the facts may be of another file.
    pub const RACY: u16 = 1 << 0;
    /// The descriptor leads to no file: no facts about it.
    pub const UNRESOLVED: u16 = 1 << 1;
    /// The call is on a name: there are no facts about the file, and `asked` is a claim.
    pub const BY_NAME: u16 = 1 << 2;
    /// The first string was longer than kept.
    pub const ASKED_TRUNCATED: u16 = 1 << 3;
    /// The first string could not be read.
    pub const ASKED_UNREAD: u16 = 1 << 4;
    /// The call has a second string.
    pub const SECOND: u16 = 1 << 5;
    /// The second string was longer than kept.
    pub const SECOND_TRUNCATED: u16 = 1 << 6;
    /// The second string could not be read.
    pub const SECOND_UNREAD: u16 = 1 << 7;
    /// Bits of a change.
    pub const CHANGE: u16 =
        RACY | UNRESOLVED | BY_NAME | ASKED_TRUNCATED | ASKED_UNREAD | SECOND | SECOND_TRUNCATED | SECOND_UNREAD;
    /// Bits of a close and of a mapping.
    pub const BY_DESCRIPTOR: u16 = RACY | UNRESOLVED;
}

/// What is known of the file behind a descriptor; all zero when nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Facts {
    /// Inode number.
    pub ino: u64,
    /// Kernel device number (major << 20 | minor).
    pub dev: u32,
    /// Links to the file.
    pub nlink: u32,
    /// File type and permissions.
    pub mode: u16,
    /// Bits of [`crate::file::path_flag`].
    pub path_flags: u16,
    /// Bytes of the path, the first string behind the fixed part.
    pub path_len: u16,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<Facts>() == 24);

/// A call that changes a file returned. Followed by the path, the first string of the caller, and the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Change {
    /// The caller.
    pub header: Header,
    /// The file after the change, for calls on descriptors.
    pub facts: Facts,
    /// Its length, likewise.
    pub size: u64,
    /// Arguments of the call as its registers had them.
    pub args: [u64; 5],
    /// 0, or the negative error number.
    pub result: i32,
    /// Number of the system call.
    pub nr: u32,
    /// Owner of the file, for calls on descriptors.
    pub owner: u32,
    /// Group of the file, likewise.
    pub group: u32,
    /// Bits of [`change_flag`].
    pub change_flags: u16,
    /// Bytes of the first string, no terminator.
    pub asked_len: u16,
    /// Bytes of the second string, likewise.
    pub second_len: u16,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<Change>() == 112 + 24 + 72);

/// close(2) is about to end the only reference to a regular file that was open for writing. Followed by the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Close {
    /// The caller.
    pub header: Header,
    /// The file.
    pub facts: Facts,
    /// Bits of [`change_flag`].
    pub change_flags: u16,
    /// Zero.
    pub reserved: [u16; 3],
}
const _: () = assert!(size_of::<Close>() == 112 + 32);

/// mmap(2) succeeded. Followed by the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MapCall {
    /// The caller.
    pub header: Header,
    /// The file.
    pub facts: Facts,
    /// `PROT_*` flags, as the register had them.
    pub prot: u32,
    /// `MAP_*` flags, likewise.
    pub map_flags: u32,
    /// Bits of [`change_flag`].
    pub change_flags: u16,
    /// Zero.
    pub reserved: [u16; 3],
}
const _: () = assert!(size_of::<MapCall>() == 112 + 40);
