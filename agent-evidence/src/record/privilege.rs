//! Privileged acts: credentials, other processes, mounts, namespaces, kernel code and keys. Kinds made from one kernel
//! event each.

use super::act::{ActMarks, CommClaims};
use super::ids::{Capabilities, CgroupId, Digest, ProcessCookie};
use super::schema::{object, words};
use super::text::Text;
use super::value::Value;

object! {
    /// A process's credentials (credentials(7), capabilities(7)).
    CredentialSet as "credential set" {
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
        /// User id for file access.
        fsuid: u32 = "fsuid",
        /// Group id for file access.
        fsgid: u32 = "fsgid",
        /// Effective capabilities.
        caps: Capabilities = "caps",
        /// Permitted capabilities.
        caps_permitted: Capabilities = "caps_permitted",
        /// Inheritable capabilities.
        caps_inheritable: Capabilities = "caps_inheritable",
        /// Ambient capabilities.
        caps_ambient: Capabilities = "caps_ambient",
        /// The user namespace, by its inode number.
        user_namespace: u32 = "user_namespace",
    }
}

words! {
    /// How another process was reached.
    AccessHow as "access how" {
        /// `ptrace`.
        Ptrace = "ptrace",
        /// `/proc/PID/mem`.
        Mem = "mem",
        /// `process_vm_readv`.
        VmRead = "vm_read",
        /// `process_vm_writev`.
        VmWrite = "vm_write",
        /// `pidfd_getfd`.
        Getfd = "getfd",
        /// Another access that the kernel checks as one of these.
        Other = "other",
    }
}

words! {
    /// What was done to a mount.
    MountOp as "mount op" {
        /// A file system was mounted.
        Mount = "mount",
        /// A directory was bound to another place.
        Bind = "bind",
        /// A mount was moved.
        Move = "move",
        /// Options were changed.
        Remount = "remount",
        /// It was taken away.
        Unmount = "unmount",
        /// The root was exchanged (`pivot_root`).
        PivotRoot = "pivot_root",
        /// The root of the process was changed (`chroot`).
        Chroot = "chroot",
    }
}

words! {
    /// How namespaces were changed.
    NamespaceOp as "namespace op" {
        /// New ones were made by `unshare`.
        Unshare = "unshare",
        /// New ones were made with a process (`clone`).
        Clone = "clone",
        /// Existing ones were entered (`setns`).
        Enter = "enter",
    }
}

words! {
    /// What was loaded into the kernel.
    KernelCode as "kernel code" {
        /// A module.
        Module = "module",
        /// A module was removed.
        ModuleRemoved = "module_removed",
        /// A kernel to be started by `kexec`.
        Kexec = "kexec",
        /// Firmware.
        Firmware = "firmware",
        /// A live patch.
        LivePatch = "live_patch",
    }
}

object! {
    /// A process's credentials changed without an exec.
    CredsChanged<'a> as "creds" {
        /// Before.
        before: CredentialSet = "before",
        /// After.
        after: CredentialSet = "after",
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
    /// A process reached into another, or tried to.
    ProcessAccess<'a> as "process_access" {
        /// How.
        how: AccessHow = "how",
        /// The other process.
        target: ProcessCookie = "target",
        /// Its tgid.
        target_tgid: u32 = "target_tgid",
        /// The cgroup at the root of its scope, when that is another.
        target_scope: Option<CgroupId> = "target_scope",
        /// The kernel's access mode (`PTRACE_MODE_*`) or the ptrace request, as a number.
        mode: u32 = "mode",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
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
    /// A signal was sent to a process of another scope, or to the agent.
    SignalSent<'a> as "signal" {
        /// The other process; absent for a process group.
        target: Option<ProcessCookie> = "target",
        /// Its tgid, or the process group as the caller gave it.
        target_tgid: u32 = "target_tgid",
        /// The signal.
        signal: u32 = "signal",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
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
    /// A mount or root directory changed, or a change failed.
    MountChanged<'a> as "mount" {
        /// What was done.
        op: MountOp = "op",
        /// What was mounted, as given.
        source: Option<Value<'a>> = "source",
        /// Where, as the kernel resolved it.
        target: Option<Value<'a>> = "target",
        /// Type of the file system.
        fstype: Option<Text<'a>> = "fstype",
        /// `MS_*` or `MNT_*` flags, as a number.
        flags: u64 = "flags",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
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
    /// Namespaces were made or entered, or an attempt failed.
    NamespaceChanged<'a> as "namespace" {
        /// What was done.
        op: NamespaceOp = "op",
        /// `CLONE_NEW*` flags, as a number.
        flags: u64 = "flags",
        /// The mount namespace afterwards, by its inode number.
        mount_namespace: Option<u32> = "mount_namespace",
        /// The pid namespace for children afterwards.
        pid_namespace: Option<u32> = "pid_namespace",
        /// The network namespace afterwards.
        network_namespace: Option<u32> = "network_namespace",
        /// The user namespace afterwards.
        user_namespace: Option<u32> = "user_namespace",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
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
    /// `bpf(2)` was called.
    BpfCall<'a> as "bpf" {
        /// The command, as a number.
        cmd: u32 = "cmd",
        /// Type of the program, map or attachment, as a number.
        type_: Option<u32> = "type",
        /// Its id in the kernel.
        id: Option<u32> = "id",
        /// Its name, as the caller chose it.
        name: Option<Text<'a>> = "name",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
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
    /// Code was loaded into the kernel, or removed, or an attempt failed.
    KernelLoad<'a> as "kernel_load" {
        /// What.
        what: KernelCode = "what",
        /// Its name, as its file says.
        name: Option<Text<'a>> = "name",
        /// Path of its file as the kernel resolved it.
        path: Option<Value<'a>> = "path",
        /// SHA-256 of its content, where the kernel side computed it.
        sha256: Option<Digest> = "sha256",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
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
    /// A kernel key or keyring was used by `keyctl`, `add_key` or `request_key`.
    KeyUse<'a> as "key" {
        /// The `keyctl` operation, as a number; 1000 for `add_key`, 1001 for `request_key`.
        op: u32 = "op",
        /// Serial number of the key.
        serial: Option<u32> = "serial",
        /// Type of the key.
        type_: Option<Text<'a>> = "type",
        /// Its description.
        description: Option<Value<'a>> = "description",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
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
    /// An io_uring instance was made or changed.
    IoUring<'a> as "io_uring" {
        /// 0 for `io_uring_setup`, else the `io_uring_register` operation plus 1.
        op: u32 = "op",
        /// `IORING_SETUP_*` flags, as a number.
        flags: u32 = "flags",
        /// Entries of its queue.
        entries: Option<u32> = "entries",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
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
