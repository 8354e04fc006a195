//! Acts on files: kinds made from kernel events.

use super::act::{ActMarks, CommClaims, Device};
use super::control::NumberRange;
use super::ids::{BootTime, Digest, ProcessCookie};
use super::list::List;
use super::schema::{object, words};
use super::text::Text;
use super::value::Value;

object! {
    /// What the caller of open handed over.
    OpenClaims<'a> as "open claims" {
        /// `comm` of the process.
        comm: Text<'a> = "comm",
        /// The string given to open: kept when the open failed or the facts are racy.
        asked: Option<Value<'a>> = "asked",
        /// The directory descriptor that `asked` starts from, when it is not the working directory.
        dir_fd: Option<u32> = "dir_fd",
    }
}

object! {
    /// A file was opened, or an open failed. What stands of the file is of the file that was opened.
    Open<'a> as "open" {
        /// Path as the kernel resolved it; absent when the open failed.
        path: Option<Value<'a>> = "path",
        /// `O_*` flags asked for, as a number.
        oflags: u32 = "oflags",
        /// The descriptor; absent when the open failed.
        fd: Option<u32> = "fd",
        /// The error number; absent when the open succeeded.
        errno: Option<u32> = "errno",
        /// Inode number.
        ino: Option<u64> = "ino",
        /// Device of the file system.
        dev: Option<Device> = "dev",
        /// File type and permissions.
        mode: Option<u32> = "mode",
        /// Links to the file.
        nlink: Option<u32> = "nlink",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the caller handed over.
        claims: OpenClaims<'a> = "claims",
    }
}

words! {
    /// What was done to a file or directory.
    FileOp as "file op" {
        /// Created without an open: `mknod`, a bound socket.
        Create = "create",
        /// A directory was made.
        Mkdir = "mkdir",
        /// A symbolic link was made; `to` is its target as given.
        Symlink = "symlink",
        /// A further name; `to` is the new one.
        Link = "link",
        /// Another name; `to` is the new one.
        Rename = "rename",
        /// Two names exchanged; `to` is the other one.
        Exchange = "exchange",
        /// A name was removed.
        Unlink = "unlink",
        /// A directory was removed.
        Rmdir = "rmdir",
        /// Permissions changed.
        Chmod = "chmod",
        /// Owner changed.
        Chown = "chown",
        /// Length changed.
        Truncate = "truncate",
        /// An extended attribute was set; `attribute` names it.
        SetXattr = "set_xattr",
        /// An extended attribute was removed; `attribute` names it.
        RemoveXattr = "remove_xattr",
    }
}

words! {
    /// Why a file was hashed, or could not be.
    HashState as "hash state" {
        /// `sha256` is that of the whole file, which did not change meanwhile.
        Done = "done",
        /// The file changed while it was read, or since the act.
        Changed = "changed",
        /// It is longer than the limit.
        TooLong = "too_long",
        /// The queue was full.
        QueueFull = "queue_full",
        /// It could not be read.
        Unreadable = "unreadable",
    }
}

words! {
    /// What a file is, by its first bytes.
    FileFormat as "file format" {
        /// An ELF program or library.
        Elf = "elf",
        /// A script that names its interpreter.
        Script = "script",
        /// Model weights: safetensors.
        Safetensors = "safetensors",
        /// Model weights: GGUF.
        Gguf = "gguf",
        /// Model weights: ONNX.
        Onnx = "onnx",
        /// Model weights: a PyTorch archive.
        Torch = "torch",
        /// Something else.
        Other = "other",
    }
}

object! {
    /// What the caller of a call on names handed over. All but `comm` came after version 1 was frozen (section 15).
    ChangeClaims<'a> as "change claims" {
        /// `comm` of the process.
        comm: Text<'a> = "comm",
        /// The name that the call was given for the file.
        asked: Option<Value<'a>> = "asked",
        /// The other string: a second name, the target of a `symlink`, the name of an extended attribute.
        asked_to: Option<Value<'a>> = "asked_to",
        /// The directory descriptor that `asked` starts from, when it is not the working directory.
        dir_fd: Option<u32> = "dir_fd",
        /// The directory descriptor that `asked_to` starts from, likewise.
        to_dir_fd: Option<u32> = "to_dir_fd",
    }
}

object! {
    /// Names, permissions, owner, length or attributes changed, or a change failed.
    FileChange<'a> as "file_change" {
        /// What was done.
        op: FileOp = "op",
        /// Path as the kernel resolved it.
        path: Option<Value<'a>> = "path",
        /// The other name, for operations with two.
        to: Option<Value<'a>> = "to",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
        /// Inode number.
        ino: Option<u64> = "ino",
        /// Device of the file system.
        dev: Option<Device> = "dev",
        /// File type and permissions after the change.
        mode: Option<u32> = "mode",
        /// Permissions before, for `chmod`.
        mode_before: Option<u32> = "mode_before",
        /// Owner after the change, for `chown`.
        owner: Option<u32> = "owner",
        /// Group after the change, for `chown`.
        group: Option<u32> = "group",
        /// Length after the change, for `truncate`.
        size: Option<u64> = "size",
        /// Links to the file after the change.
        nlink: Option<u32> = "nlink",
        /// Name of the extended attribute.
        attribute: Option<Text<'a>> = "attribute",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the caller handed over.
        claims: ChangeClaims<'a> = "claims",
    }
}

object! {
    /// A file that had been opened was closed for good, with its totals.
    FileClose<'a> as "file_close" {
        /// Path as the kernel resolved it.
        path: Option<Value<'a>> = "path",
        /// Inode number.
        ino: u64 = "ino",
        /// Device of the file system.
        dev: Device = "dev",
        /// Bytes read through it.
        read: u64 = "read",
        /// Bytes written through it.
        written: u64 = "written",
        /// When it was opened, where observed.
        opened: Option<BootTime> = "opened",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// A file was mapped as executable memory, or as writable shared memory.
    FileMap<'a> as "file_map" {
        /// Path as the kernel resolved it.
        path: Option<Value<'a>> = "path",
        /// Inode number.
        ino: u64 = "ino",
        /// Device of the file system.
        dev: Device = "dev",
        /// `PROT_*` flags, as a number.
        prot: u32 = "prot",
        /// `MAP_*` flags, as a number.
        flags: u32 = "flags",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// A descriptor was received over a socket.
    FileReceived<'a> as "file_received" {
        /// Path as the kernel resolved it.
        path: Option<Value<'a>> = "path",
        /// Inode number.
        ino: u64 = "ino",
        /// Device of the file system.
        dev: Device = "dev",
        /// Who sent it, where known.
        sender: Option<ProcessCookie> = "sender",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// Opens for reading of system files, folded: only counted. Carries no `q`: `ranges` are the kernel numbers of what was folded.
    FileFolded<'a> as "file_folded" {
        /// The directory they have in common.
        directory: Option<Value<'a>> = "directory",
        /// The kernel numbers.
        ranges: List<'a, NumberRange> = "ranges",
        /// How many: the sum of the ranges.
        count: u64 = "count",
        /// SHA-256 over the names in order, each with its length in four bytes before it.
        names: Digest = "names",
        /// When the first happened.
        from: BootTime = "from",
        /// When the last happened.
        to: BootTime = "to",
    }
}

object! {
    /// The content of a file that had been executed, mapped or opened before: hashed in user space, once per inode and change time.
    Hashed<'a> as "hashed" {
        /// Path as the act had it.
        path: Option<Value<'a>> = "path",
        /// Inode number.
        ino: u64 = "ino",
        /// Device of the file system.
        dev: Device = "dev",
        /// Its status change time, nanoseconds since 1970 by the host's clock.
        ctime: u64 = "ctime",
        /// Its size in bytes.
        size: u64 = "size",
        /// How it went.
        state: HashState = "state",
        /// SHA-256 of its content.
        sha256: Option<Digest> = "sha256",
        /// What it is.
        format: Option<FileFormat> = "format",
    }
}
