//! Processes and cgroups: kinds made from one kernel event each, and what every kind of act shares.
//!
//! Members are facts read from kernel objects; what the workload can write at any time stands in `claims`.

use super::ids::{BootTime, Capabilities, CgroupId, Digest, Nanoseconds, ProcessCookie};
use super::schema::{flags, object, row, words};
use super::text::Text;
use super::value::{Value, ValueList};

flags! {
    /// What the reader of a record of an act must know about how it was observed.
    ActMarks as "marks" {
        /// No strings: the kernel side had no room to collect them.
        NO_STRINGS = 0 "no_strings",
        /// A kernel worker carried the act out for the process (io_uring).
        IO_WORKER = 1 "io_worker",
        /// The identity was saved when the act began; the result came in another context.
        DEFERRED = 2 "deferred",
        /// Only the end of the path (nearest the file) was kept.
        PATH_PARTIAL = 3 "path_partial",
        /// The path's mount is not in the process's mount namespace (memfd, pipe, detached mount).
        PATH_DETACHED = 4 "path_detached",
        /// The name was no longer in its directory when it was read.
        PATH_UNLINKED = 5 "path_unlinked",
        /// A component of the path could not be read.
        PATH_UNREADABLE = 6 "path_unreadable",
        /// The working directory is partial, detached, unlinked or unreadable.
        CWD_UNSURE = 7 "cwd_unsure",
        /// `argv` holds less than the process was given.
        ARGV_TRUNCATED = 8 "argv_truncated",
        /// `argv` could not be read.
        ARGV_UNREAD = 9 "argv_unread",
        /// `invoked` or `asked` was longer than kept.
        CLAIM_TRUNCATED = 10 "claim_truncated",
        /// `asked` could not be read.
        CLAIM_UNREAD = 11 "claim_unread",
        /// A thread other than the leader called exec.
        BY_THREAD = 12 "by_thread",
        /// The descriptor table is shared: another thread could have replaced the descriptor before it was read.
        RACY = 13 "racy",
        /// The descriptor was already gone when it was resolved: nothing is known of the file.
        UNRESOLVED = 14 "unresolved",
        /// What the caller asked for and what was resolved are different files.
        DIFFERS = 15 "differs",
        /// This open created the file.
        CREATED = 16 "created",
        /// `oflags` are the caller's claim (openat2 reads them from user memory).
        OFLAGS_CLAIMED = 17 "oflags_claimed",
        /// The result was not observed: the act did not come through its system call.
        RESULT_NOT_OBSERVED = 18 "result_not_observed",
        /// A `connect_done` with the same socket follows, if the connection is decided while capture lasts.
        DONE_FOLLOWS = 19 "done_follows",
        /// No `connect_done` follows although the connection was still in progress.
        UNTRACKED = 20 "untracked",
        /// The whole process moved, not one thread.
        WHOLE_PROCESS = 21 "whole_process",
        /// The executable is an anonymous memory file.
        MEMFD = 22 "memfd",
        /// The file is in the upper layer of an overlay: it was written after the container began.
        OVERLAY_UPPER = 23 "overlay_upper",
        /// The file's set-user-id or set-group-id bit changed the credentials.
        SET_ID = 24 "set_id",
        /// The file's own capabilities were gained.
        FILE_CAPS = 25 "file_caps",
        /// The act was refused by a policy in the kernel.
        DENIED = 26 "denied",
        /// The act was against the agent: its processes, files, programs or maps.
        AGAINST_AGENT = 27 "against_agent",
        /// More of the same followed and were only counted.
        FIRST_OF_MANY = 28 "first_of_many",
        /// Totals are incomplete: some of what they sum was not observed.
        TOTALS_PARTIAL = 29 "totals_partial",
    }
}

object! {
    /// What a process says of itself.
    CommClaims<'a> as "comm claims" {
        /// Its `comm`.
        comm: Text<'a> = "comm",
    }
}

row! {
    /// A device number.
    Device as "device" {
        major: u32 = "Major number.",
        minor: u32 = "Minor number.",
    }
}

object! {
    /// A process was created. `p` is the parent.
    Fork<'a> as "fork" {
        /// The child.
        child: ProcessCookie = "child",
        /// Its tgid.
        child_tgid: u32 = "child_tgid",
        /// When it started.
        child_start: BootTime = "child_start",
        /// Its cgroup, when it began in another than its parent's.
        child_cgroup: Option<CgroupId> = "child_cgroup",
        /// `CLONE_*` flags, where observed.
        flags: Option<u64> = "flags",
        /// The parent's tgid.
        tgid: u32 = "tgid",
        /// The parent's real user id.
        uid: u32 = "uid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the parent says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// What the caller of exec chose freely.
    ExecClaims<'a> as "exec claims" {
        /// `comm` after the exec.
        comm: Text<'a> = "comm",
        /// The name given to exec: for a script, the script.
        invoked: Option<Value<'a>> = "invoked",
    }
}

object! {
    /// A script that the binary interprets, as the kernel resolved it.
    Script<'a> as "script" {
        /// Its path.
        path: Value<'a> = "path",
        /// Inode number.
        ino: u64 = "ino",
        /// Device of its file system.
        dev: Device = "dev",
        /// SHA-256 of its content, where the kernel side computed it.
        sha256: Option<Digest> = "sha256",
    }
}

object! {
    /// Credentials that an exec replaced; only those that changed.
    ExecBefore as "exec before" {
        /// Effective user id.
        euid: Option<u32> = "euid",
        /// Effective group id.
        egid: Option<u32> = "egid",
        /// Effective capabilities.
        caps: Option<Capabilities> = "caps",
    }
}

object! {
    /// A process replaced its program. Credentials are those after the change.
    Exec<'a> as "exec" {
        /// Path of the binary that runs (for a script, the interpreter) as the kernel resolved it.
        path: Option<Value<'a>> = "path",
        /// The script it interprets, where observed.
        script: Option<Script<'a>> = "script",
        /// Arguments, from the new process image.
        argv: ValueList<'a> = "argv",
        /// How many arguments the kernel counted.
        argc: u32 = "argc",
        /// Working directory.
        cwd: Option<Value<'a>> = "cwd",
        /// tgid.
        tgid: u32 = "tgid",
        /// The parent process.
        parent: ProcessCookie = "parent",
        /// Real user id.
        uid: u32 = "uid",
        /// Real group id.
        gid: u32 = "gid",
        /// Effective user id.
        euid: u32 = "euid",
        /// Effective group id.
        egid: u32 = "egid",
        /// Saved user id.
        suid: u32 = "suid",
        /// Saved group id.
        sgid: u32 = "sgid",
        /// Login user id of the audit subsystem, where set.
        login_uid: Option<u32> = "login_uid",
        /// Effective capabilities.
        caps: Capabilities = "caps",
        /// Permitted capabilities, where observed.
        caps_permitted: Option<Capabilities> = "caps_permitted",
        /// Ambient capabilities, where observed.
        caps_ambient: Option<Capabilities> = "caps_ambient",
        /// What the exec changed of the credentials, where observed.
        before: Option<ExecBefore> = "before",
        /// Inode number of the binary.
        ino: u64 = "ino",
        /// Device of its file system.
        dev: Device = "dev",
        /// Links to it; 0 for a deleted file.
        nlink: u32 = "nlink",
        /// File type and permissions of it.
        mode: u32 = "mode",
        /// Its size in bytes.
        size: u64 = "size",
        /// Its status change time, nanoseconds since 1970 by the host's clock, where observed.
        ctime: Option<u64> = "ctime",
        /// SHA-256 of its content, where the kernel side computed it. Else a `hashed` entry may follow.
        sha256: Option<Digest> = "sha256",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the caller chose freely.
        claims: ExecClaims<'a> = "claims",
    }
}

object! {
    /// The last thread of a process ended.
    Exit<'a> as "exit" {
        /// tgid.
        tgid: u32 = "tgid",
        /// Exit code, when it ended by itself.
        code: Option<u32> = "code",
        /// The signal that ended it.
        signal: Option<u32> = "signal",
        /// Real user id.
        uid: u32 = "uid",
        /// Processor time in user space of all its threads, where observed.
        user_time: Option<Nanoseconds> = "user_time",
        /// Processor time in the kernel of all its threads, where observed.
        system_time: Option<Nanoseconds> = "system_time",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// An exec that failed; the process goes on as it was.
    ExecFailed<'a> as "exec_failed" {
        /// The error number.
        errno: u32 = "errno",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the caller chose freely.
        claims: ExecClaims<'a> = "claims",
    }
}

words! {
    /// What was done to a cgroup.
    CgroupOp as "cgroup op" {
        /// It was created.
        Create = "create",
        /// It was removed.
        Remove = "remove",
        /// A process or thread was moved into it.
        Move = "move",
    }
}

object! {
    /// A cgroup was created or removed, or a process was moved into it. `p` is who did it.
    Cgroup<'a> as "cgroup" {
        /// What was done.
        op: CgroupOp = "op",
        /// The cgroup.
        id: CgroupId = "id",
        /// Its path below the cgroup2 root.
        path: Option<Text<'a>> = "path",
        /// Its parent; only for creation and removal.
        parent: Option<CgroupId> = "parent",
        /// The process that was moved.
        moved: Option<ProcessCookie> = "moved",
        /// tgid of the process that was moved.
        moved_tgid: Option<u32> = "moved_tgid",
        /// The session cgroup that its acts were attributed to before the move, when there was one.
        scope_before: Option<CgroupId> = "scope_before",
        /// The session cgroup that its acts are attributed to after the move, when there is one.
        scope_after: Option<CgroupId> = "scope_after",
        /// tgid of who did it.
        tgid: u32 = "tgid",
        /// Real user id of who did it.
        uid: u32 = "uid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}
