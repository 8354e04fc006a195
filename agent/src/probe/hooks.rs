//! Which program hangs where, which events it makes, and what the tier cannot see.
#![forbid(unsafe_code)]

use super::tiers::{Abilities, Tier};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// BTF tracepoint of this name.
    Btf(&'static str),
    /// Classic tracepoint: category and name.
    Classic(&'static str, &'static str),
    /// cgroup socket-address hook, on the root of cgroup v2.
    SockAddr,
    /// Iterator over kernel objects of this kind: nothing hooks, the pinned link gives a snapshot when read.
    Iter(&'static str),
    /// BPF LSM hook of this name.
    Lsm(&'static str),
    /// BPF LSM hook of this name, by a program that may sleep.
    LsmSleepable(&'static str),
    /// Entry of this kernel function.
    Fentry(&'static str),
    /// Return of this kernel function.
    Fexit(&'static str),
}

/// One program on one hook.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The event it serves, as records name it.
    pub event: &'static str,
    /// Function in the object.
    pub program: &'static str,
    /// Where it hangs.
    pub attach: Attach,
    /// Whether the probe refuses to arm without it; otherwise its absence is reported as not covered.
    pub required: bool,
    /// The tiers that it is part of.
    pub tiers: &'static [Tier],
}

impl Hook {
    /// The hook's name for people and evidence.
    #[must_use]
    pub fn name(&self) -> String {
        match self.attach {
            Attach::Btf(name) => format!("tp_btf/{name}"),
            Attach::Classic(category, name) => format!("tracepoint/{category}/{name}"),
            Attach::SockAddr => format!("cgroup/{}", self.program),
            Attach::Iter(name) => format!("iter/{name}"),
            Attach::Lsm(name) => format!("lsm/{name}"),
            Attach::LsmSleepable(name) => format!("lsm.s/{name}"),
            Attach::Fentry(name) => format!("fentry/{name}"),
            Attach::Fexit(name) => format!("fexit/{name}"),
        }
    }

    /// Whether it can be had where kernel memory is open, or closed, to programs. What closes it
    /// (lockdown=confidentiality) closes tracefs too, which classic tracepoints are attached through.
    #[must_use]
    pub fn runs(&self, read_kernel: bool) -> bool {
        read_kernel || !(matches!(self.attach, Attach::Classic(..)) || READING.contains(&self.program))
    }

    /// File name of the pinned link.
    pub(super) fn link_name(&self) -> String {
        match self.attach {
            Attach::Classic(_, name) => format!("{}-{name}", self.program),
            Attach::Btf(_)
            | Attach::SockAddr
            | Attach::Iter(_)
            | Attach::Lsm(_)
            | Attach::LsmSleepable(_)
            | Attach::Fentry(_)
            | Attach::Fexit(_) => self.program.to_owned(),
        }
    }
}

const fn required(event: &'static str, program: &'static str, attach: Attach) -> Hook {
    Hook { event, program, attach, required: true, tiers: EVERY_TIER }
}

const fn optional(event: &'static str, program: &'static str, attach: Attach) -> Hook {
    Hook { event, program, attach, required: false, tiers: EVERY_TIER }
}

/// The same hook, at these tiers only.
const fn only(tiers: &'static [Tier], hook: Hook) -> Hook {
    Hook { tiers, ..hook }
}

const EVERY_TIER: &[Tier] = &[Tier::Lsm, Tier::Fentry, Tier::Tracepoint];
const LSM: &[Tier] = &[Tier::Lsm];
const FENTRY: &[Tier] = &[Tier::Fentry];
const TRACEPOINT: &[Tier] = &[Tier::Tracepoint];
/// Both tiers that see the kernel's own objects before the process has a handle on them.
const LSM_OR_FENTRY: &[Tier] = &[Tier::Lsm, Tier::Fentry];
const FENTRY_OR_TRACEPOINT: &[Tier] = &[Tier::Fentry, Tier::Tracepoint];

/// The hooks of a tier, in the order in which they are attached.
pub fn of(tier: Tier) -> impl Iterator<Item = &'static Hook> {
    HOOKS.iter().filter(move |hook| hook.tiers.contains(&tier))
}

/// Programs on other hooks than classic tracepoints that read kernel memory, or work only for ones that are left out
/// where it is closed.
const READING: &[&str] = &["flow", "signal", "module_load", "module_free"];

/// The hooks of every tier.
pub const HOOKS: &[Hook] = &[
    required("fork", "fork", Attach::Btf("sched_process_fork")),
    only(FENTRY_OR_TRACEPOINT, required("exec", "exec", Attach::Btf("sched_process_exec"))),
    required("exit", "exit", Attach::Btf("sched_process_exit")),
    // After the hooks that take their slots away again, so that none is left behind.
    only(LSM, required("exec", "exec_whole", Attach::Btf("sched_process_exec"))),
    only(LSM, required("exec", "exec_strings", Attach::LsmSleepable("bprm_committed_creds"))),
    only(LSM, required("exec", "exec_creds", Attach::Lsm("bprm_committing_creds"))),
    required("cgroup", "cgroup_mkdir", Attach::Btf("cgroup_mkdir")),
    required("cgroup", "cgroup_rmdir", Attach::Btf("cgroup_rmdir")),
    required("cgroup", "cgroup_attach", Attach::Btf("cgroup_attach_task")),
    // Before the hooks that leave connections for it to report.
    optional("flow", "flow", Attach::Btf("inet_sock_set_state")),
    only(TRACEPOINT, optional("connect", "connect_exit", Attach::Classic("syscalls", "sys_exit_connect"))),
    only(LSM_OR_FENTRY, optional("connect", "connect_end", Attach::Fexit("__x64_sys_connect"))),
    optional("connect_done", "sock_state", Attach::Btf("inet_sock_set_state")),
    // After the hooks that take their entries away again, so that none is left behind.
    optional("connect", "connect4", Attach::SockAddr),
    optional("connect", "connect6", Attach::SockAddr),
    only(TRACEPOINT, optional("open", "open", Attach::Classic("syscalls", "sys_exit_openat"))),
    only(TRACEPOINT, optional("open", "open", Attach::Classic("syscalls", "sys_exit_openat2"))),
    only(TRACEPOINT, optional("open", "open", Attach::Classic("syscalls", "sys_exit_open"))),
    only(TRACEPOINT, optional("open", "open", Attach::Classic("syscalls", "sys_exit_creat"))),
    only(LSM_OR_FENTRY, required("open", "open_at_end", Attach::Fexit("__x64_sys_openat"))),
    only(LSM_OR_FENTRY, required("open", "open_at2_end", Attach::Fexit("__x64_sys_openat2"))),
    only(LSM_OR_FENTRY, required("open", "open_end", Attach::Fexit("__x64_sys_open"))),
    only(LSM_OR_FENTRY, required("open", "creat_end", Attach::Fexit("__x64_sys_creat"))),
    // After the ends of the calls, for the same reason.
    only(LSM, required("open", "open_lsm", Attach::Lsm("file_open"))),
    only(FENTRY, required("open", "open_fentry", Attach::Fentry("security_file_open"))),
    only(LSM, optional("file_map", "map_lsm", Attach::Lsm("mmap_file"))),
    only(FENTRY, optional("file_map", "map_fentry", Attach::Fentry("security_mmap_file"))),
    only(LSM, optional("file_received", "receive_lsm", Attach::Lsm("file_receive"))),
    only(FENTRY, optional("file_received", "receive_fentry", Attach::Fentry("security_file_receive"))),
    optional("process", "alive", Attach::Iter("task")),
    optional("file_change", "change_name", Attach::Classic("syscalls", "sys_exit_unlink")),
    optional("file_change", "change_name", Attach::Classic("syscalls", "sys_exit_rmdir")),
    optional("file_change", "change_name", Attach::Classic("syscalls", "sys_exit_mkdir")),
    optional("file_change", "change_name", Attach::Classic("syscalls", "sys_exit_mknod")),
    optional("file_change", "change_name", Attach::Classic("syscalls", "sys_exit_chmod")),
    optional("file_change", "change_name", Attach::Classic("syscalls", "sys_exit_chown")),
    optional("file_change", "change_name", Attach::Classic("syscalls", "sys_exit_lchown")),
    optional("file_change", "change_name", Attach::Classic("syscalls", "sys_exit_truncate")),
    optional("file_change", "change_names", Attach::Classic("syscalls", "sys_exit_rename")),
    optional("file_change", "change_names", Attach::Classic("syscalls", "sys_exit_link")),
    optional("file_change", "change_names", Attach::Classic("syscalls", "sys_exit_symlink")),
    optional("file_change", "change_names", Attach::Classic("syscalls", "sys_exit_setxattr")),
    optional("file_change", "change_names", Attach::Classic("syscalls", "sys_exit_lsetxattr")),
    optional("file_change", "change_names", Attach::Classic("syscalls", "sys_exit_removexattr")),
    optional("file_change", "change_names", Attach::Classic("syscalls", "sys_exit_lremovexattr")),
    optional("file_change", "change_at", Attach::Classic("syscalls", "sys_exit_unlinkat")),
    optional("file_change", "change_at", Attach::Classic("syscalls", "sys_exit_mkdirat")),
    optional("file_change", "change_at", Attach::Classic("syscalls", "sys_exit_mknodat")),
    optional("file_change", "change_at", Attach::Classic("syscalls", "sys_exit_fchmodat")),
    optional("file_change", "change_at", Attach::Classic("syscalls", "sys_exit_fchmodat2")),
    optional("file_change", "change_at", Attach::Classic("syscalls", "sys_exit_fchownat")),
    optional("file_change", "change_at_names", Attach::Classic("syscalls", "sys_exit_renameat")),
    optional("file_change", "change_at_names", Attach::Classic("syscalls", "sys_exit_renameat2")),
    optional("file_change", "change_at_names", Attach::Classic("syscalls", "sys_exit_linkat")),
    optional("file_change", "change_at_names", Attach::Classic("syscalls", "sys_exit_setxattrat")),
    optional("file_change", "change_at_names", Attach::Classic("syscalls", "sys_exit_removexattrat")),
    optional("file_change", "change_symlinkat", Attach::Classic("syscalls", "sys_exit_symlinkat")),
    optional("file_change", "change_file", Attach::Classic("syscalls", "sys_exit_fchmod")),
    optional("file_change", "change_file", Attach::Classic("syscalls", "sys_exit_fchown")),
    optional("file_change", "change_file", Attach::Classic("syscalls", "sys_exit_ftruncate")),
    optional("file_change", "change_file", Attach::Classic("syscalls", "sys_exit_fallocate")),
    optional("file_change", "change_file_named", Attach::Classic("syscalls", "sys_exit_fsetxattr")),
    optional("file_change", "change_file_named", Attach::Classic("syscalls", "sys_exit_fremovexattr")),
    optional("file_close", "close", Attach::Classic("syscalls", "sys_enter_close")),
    // The others have the kernel's own hook on a mapping: none is told twice.
    only(TRACEPOINT, optional("file_map", "map_call", Attach::Classic("syscalls", "sys_exit_mmap"))),
    optional("listen", "listen_exit", Attach::Classic("syscalls", "sys_exit_listen")),
    optional("accept", "accept_exit", Attach::Classic("syscalls", "sys_exit_accept")),
    optional("accept", "accept_exit", Attach::Classic("syscalls", "sys_exit_accept4")),
    optional("connect_unix, connect_vsock", "connect_local", Attach::Classic("syscalls", "sys_exit_connect")),
    optional("socket", "socket_exit", Attach::Classic("syscalls", "sys_exit_socket")),
    optional("send", "sendmsg4", Attach::SockAddr),
    optional("send", "sendmsg6", Attach::SockAddr),
    optional("exec_failed", "exec_failed", Attach::Classic("syscalls", "sys_exit_execve")),
    optional("exec_failed", "exec_failed", Attach::Classic("syscalls", "sys_exit_execveat")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_setuid")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_setgid")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_setreuid")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_setregid")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_setresuid")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_setresgid")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_setfsuid")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_setfsgid")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_capset")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_prctl")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_unshare")),
    optional("creds", "creds", Attach::Classic("syscalls", "sys_exit_setns")),
    // After the hooks that take their entries away again.
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_setuid")),
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_setgid")),
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_setreuid")),
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_setregid")),
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_setresuid")),
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_setresgid")),
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_setfsuid")),
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_setfsgid")),
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_capset")),
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_prctl")),
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_unshare")),
    optional("creds", "creds_before", Attach::Classic("syscalls", "sys_enter_setns")),
    optional("process_access", "reach", Attach::Classic("syscalls", "sys_exit_ptrace")),
    optional("process_access", "reach", Attach::Classic("syscalls", "sys_exit_process_vm_readv")),
    optional("process_access", "reach", Attach::Classic("syscalls", "sys_exit_process_vm_writev")),
    optional("process_access", "reach", Attach::Classic("syscalls", "sys_exit_pidfd_getfd")),
    optional("signal", "signal", Attach::Btf("signal_generate")),
    optional("signal", "signal_refused", Attach::Classic("syscalls", "sys_exit_kill")),
    optional("signal", "signal_refused", Attach::Classic("syscalls", "sys_exit_tkill")),
    optional("signal", "signal_refused", Attach::Classic("syscalls", "sys_exit_tgkill")),
    optional("signal", "signal_refused", Attach::Classic("syscalls", "sys_exit_rt_sigqueueinfo")),
    optional("signal", "signal_refused", Attach::Classic("syscalls", "sys_exit_rt_tgsigqueueinfo")),
    optional("signal", "signal_refused", Attach::Classic("syscalls", "sys_exit_pidfd_send_signal")),
    optional("mount", "mounts", Attach::Classic("syscalls", "sys_exit_mount")),
    optional("mount", "mounts", Attach::Classic("syscalls", "sys_exit_umount")),
    optional("mount", "mounts", Attach::Classic("syscalls", "sys_exit_move_mount")),
    optional("mount", "mounts", Attach::Classic("syscalls", "sys_exit_open_tree")),
    optional("mount", "mounts", Attach::Classic("syscalls", "sys_exit_fsmount")),
    optional("mount", "mounts", Attach::Classic("syscalls", "sys_exit_mount_setattr")),
    optional("mount", "mounts", Attach::Classic("syscalls", "sys_exit_pivot_root")),
    optional("mount", "mounts", Attach::Classic("syscalls", "sys_exit_chroot")),
    optional("namespace", "fork_into", Attach::Btf("sched_process_fork")),
    optional("namespace", "namespaces", Attach::Classic("syscalls", "sys_exit_unshare")),
    optional("namespace", "namespaces", Attach::Classic("syscalls", "sys_exit_setns")),
    optional("bpf", "bpf", Attach::Classic("syscalls", "sys_exit_bpf")),
    optional("kernel_load", "kernel_load", Attach::Classic("syscalls", "sys_exit_init_module")),
    optional("kernel_load", "kernel_load", Attach::Classic("syscalls", "sys_exit_finit_module")),
    optional("kernel_load", "kernel_load", Attach::Classic("syscalls", "sys_exit_delete_module")),
    optional("kernel_load", "kernel_load", Attach::Classic("syscalls", "sys_exit_kexec_load")),
    optional("kernel_load", "kernel_load", Attach::Classic("syscalls", "sys_exit_kexec_file_load")),
    // After the hook that takes their entries away again.
    optional("kernel_load", "module_load", Attach::Btf("module_load")),
    optional("kernel_load", "module_free", Attach::Btf("module_free")),
    optional("key", "keys", Attach::Classic("syscalls", "sys_exit_keyctl")),
    optional("key", "keys", Attach::Classic("syscalls", "sys_exit_add_key")),
    optional("key", "keys", Attach::Classic("syscalls", "sys_exit_request_key")),
    optional("io_uring", "io_uring", Attach::Classic("syscalls", "sys_exit_io_uring_setup")),
    optional("io_uring", "io_uring", Attach::Classic("syscalls", "sys_exit_io_uring_register")),
];

/// What is not seen at a tier, on a kernel with these abilities, and why. What a kernel lacks beyond that is added at
/// arming.
pub fn not_covered(tier: Tier, can: &Abilities) -> Vec<(String, String)> {
    let said = |(what, why): &Line| ((*what).to_owned(), (*why).to_owned());
    let lifted: Vec<&str> =
        SEEN.iter().filter(|(tiers, _)| tiers.contains(&tier)).flat_map(|(_, whats)| whats.iter().copied()).collect();
    let mut missing: Vec<_> = NOT_COVERED.iter().filter(|(what, _)| !lifted.contains(what)).map(said).collect();
    for (tiers, lines) in NOT_COVERED_AT {
        if tiers.contains(&tier) {
            missing.extend(lines.iter().map(said));
        }
    }
    if tier == Tier::Lsm && !can.ima_file_hash {
        missing.push(said(&("exec: content hash", "this kernel does not hash files for programs (5.18, CONFIG_IMA)")));
    }
    if !can.read_kernel {
        missing.extend(NOT_COVERED_CLOSED.iter().map(said));
        if tier == Tier::Fentry {
            missing.extend(NOT_COVERED_CLOSED_FENTRY.iter().map(said));
        }
    }
    missing
}

/// What is not seen, and why.
type Line = (&'static str, &'static str);

/// Lines of [`NOT_COVERED`] that do not hold at these tiers.
const SEEN: &[(&[Tier], &[&str])] = &[
    (
        LSM_OR_FENTRY,
        &[
            "open: io_uring",
            "open: open_by_handle_at",
            "open: 32-bit and x32 calls",
            "open: descriptors inherited, or received over sockets or pidfd_getfd",
            "open: memfd_create, pipes, sockets, anonymous inodes",
            "open: files the kernel opens itself (exec, core dumps)",
            "open: which file, where the descriptor table is shared",
            "file_map: memory made executable later (mprotect, pkey_mprotect), mapped by exec, io_uring or a 32-bit call",
            "file_received: descriptors received over sockets or by pidfd_getfd",
        ],
    ),
    (LSM, &["exec: content hash", "exec: argv beyond 4,096 bytes, environment"]),
];

/// What only these tiers do not see.
const NOT_COVERED_AT: &[(&[Tier], &[Line])] = &[
    (
        LSM_OR_FENTRY,
        &[
            (
                "open: result of io_uring, open_by_handle_at, 32-bit and x32 calls, and of files the kernel opens itself",
                "they do not return through the calls hooked; marked result_not_observed",
            ),
            (
                "open: failed ones of io_uring, open_by_handle_at, 32-bit and x32 calls",
                "they fail before a file is opened, and do not return through the calls hooked",
            ),
            (
                "open: O_PATH",
                "has no hook, so it is looked up when the call ends: marked racy where the descriptor table is shared",
            ),
            ("open: descriptors inherited", "nothing is opened"),
            ("open: memfd_create, pipes, sockets, anonymous inodes", "nothing is opened"),
            ("open: files that the kernel opens beneath others (overlayfs layers)", "no act of a process"),
            (
                "file_map: memory made executable later (mprotect, pkey_mprotect)",
                "the hook runs when a file is mapped, and tells of mappings that are executable, or shared and writable, by then",
            ),
            ("file_received: who sent it", "the hook runs in the receiver"),
        ],
    ),
    (
        LSM,
        &[
            (
                "exec: argv beyond 16,384 bytes, environment",
                "bounded message; argc, envc and the whole length are recorded",
            ),
            (
                "exec: content hash of files beyond 128 MiB",
                "reading them would hold the exec up; size, inode and change are told",
            ),
            ("exec: overlay upper layer", "the file system's own objects are not described to programs"),
            ("exec: hash, change of credentials and long argv beyond 64 execs at one moment", "bounded memory"),
        ],
    ),
];

/// What is not seen where programs may not read kernel memory (lockdown=confidentiality).
const NOT_COVERED_CLOSED: &[Line] = &[
    (
        "paths: beyond the process's root directory, and whether a mount is outside its namespace",
        "lockdown=confidentiality: the kernel's own function gives them, as the process would see them",
    ),
    ("cgroup: path of one that is gone at once", "lockdown=confidentiality: it is looked up in the cgroup file system"),
    ("open: O_PATH, which file", "lockdown=confidentiality: a descriptor cannot be looked up"),
    (
        "open: what a failed one asked for",
        "lockdown=confidentiality: the loader can have no program read user memory there",
    ),
    ("connect: local address, and connect_done", "lockdown=confidentiality: a descriptor cannot be looked up"),
    ("flow, signal", "lockdown=confidentiality: their hooks read kernel memory"),
    (
        "file_change, file_close, listen, accept, connect_unix, connect_vsock, socket, exec_failed, creds, \
         process_access, mount, bpf, kernel_load, key, io_uring",
        "lockdown=confidentiality: tracefs is closed, which the system calls that they are made of are hooked through",
    ),
    ("namespace: unshare and setns", "lockdown=confidentiality: likewise; namespaces made with a process are told"),
    (
        "process: binary of those alive before arming",
        "lockdown=confidentiality: nothing holds the file for the iterator",
    ),
];
const NOT_COVERED_CLOSED_FENTRY: &[Line] = &[(
    "exec: argv, name, path and working directory; file_map and file_received: path",
    "lockdown=confidentiality: these hooks may not call the kernel's own function, nor read user memory; inode and device are told",
)];

/// Acts that no tier sees but those that [`SEEN`] names, whatever the kernel, and why.
pub const NOT_COVERED: &[(&str, &str)] = &[
    ("acts before arming", "capture starts when the hooks are attached; processes alive then are back-filled"),
    ("fork: threads", "only processes are reported; a thread's acts carry its tid"),
    ("fork: kernel threads", "not acts of a workload; helpers that the kernel starts appear at their exec"),
    ("fork: clone flags", "sched_process_fork does not carry them; new namespaces are found by comparison"),
    ("exec_failed: 32-bit and x32 calls", "the kernel does not trace compatibility calls by these tracepoints"),
    ("exec_failed: which file", "the kernel resolved none that is left; what the caller asked for is its claim"),
    ("exec: content hash", "no hook of this tier may sleep, so the kernel cannot hash the file there"),
    ("exec: argv beyond 4,096 bytes, environment", "bounded message; argc, envc and the whole length are recorded"),
    ("cgroup v1 hierarchies", "a cgroup is named by its v2 id only"),
    ("open: io_uring", "its opens do not return through the system calls hooked"),
    ("open: open_by_handle_at", "not hooked"),
    ("open: 32-bit and x32 calls", "the kernel does not trace compatibility calls by these tracepoints"),
    ("open: descriptors inherited, or received over sockets or pidfd_getfd", "nothing is opened"),
    ("open: memfd_create, pipes, sockets, anonymous inodes", "not made by the calls hooked"),
    ("open: files the kernel opens itself (exec, core dumps)", "not made by the calls hooked; exec is its own event"),
    (
        "open: which file, where the descriptor table is shared",
        "marked racy: another thread may have replaced the descriptor before it was read",
    ),
    (
        "file_change: which file a call on a name changed, and what it was before",
        "the hook has the caller's strings only, which are recorded as claims; calls on descriptors have the file",
    ),
    (
        "file_change: permissions, owner and value of attribute that a call on a name asked for",
        "the record has members for what they are after the change, which is not observed",
    ),
    ("file_change: io_uring, 32-bit and x32 calls", "not through the system calls hooked"),
    ("file_change: times (utimensat), flags and attributes set by ioctl or file_setattr", "no hooks for these yet"),
    (
        "file_change: length by open with O_TRUNC, write, or copies",
        "the open is recorded; fallocate that keeps the length is not",
    ),
    ("file_change: sockets bound to a path", "no hook for these yet"),
    ("file_close: bytes read and written", "counting each call costs the workload too much; marked totals_partial"),
    ("file_close: files open for reading only", "only what could have been written is reported"),
    (
        "file_close: files closed by the end of a process, exec, close_range, dup2, io_uring or a 32-bit call",
        "only close(2) is hooked, and reports when its descriptor is the last",
    ),
    (
        "file_map: memory made executable later (mprotect, pkey_mprotect), mapped by exec, io_uring or a 32-bit call",
        "only mmap(2) is hooked",
    ),
    (
        "file_received: descriptors received over sockets or by pidfd_getfd",
        "what was received stands in user memory at this tier",
    ),
    ("connect: netlink, SCTP and other protocols without an address hook", "their sockets are recorded when made"),
    ("connect: calls that fail before the address is looked at", "the hooks run after the kernel's first checks"),
    (
        "connect: result of io_uring and 32-bit calls",
        "they do not return through connect(2); marked result_not_observed",
    ),
    ("connect: an association that is dissolved (AF_UNSPEC)", "the hooks see addresses of IPv4 and IPv6 only"),
    (
        "connect: connections that the kernel makes itself (NFS and the like)",
        "the hooks belong to the cgroup of a process",
    ),
    ("connect_unix: what a failed call was for", "the kernel keeps no address of it; the caller's is only its claim"),
    (
        "connect_unix: datagrams sent to a path without connect, and socketpair",
        "nothing is connected, or only the caller with itself",
    ),
    (
        "connect_unix, connect_vsock: by a descriptor replaced before it was read",
        "another thread can do that where the descriptor table is shared; marked racy when what is read fits the call",
    ),
    (
        "connect_unix, connect_vsock, socket, listen, accept: io_uring and 32-bit calls",
        "they do not return through the system calls hooked",
    ),
    ("send: results and sizes", "the hooks run before anything is sent; marked result_not_observed"),
    ("send: raw, packet and ping sockets", "no hook sees their packets; the sockets are recorded when made"),
    (
        "send: each datagram",
        "one process, socket and address is recorded once, and once more when there is a second datagram",
    ),
    (
        "flow: UDP and other protocols than TCP",
        "the kernel keeps no count of their bytes, and no hook here counts datagrams",
    ),
    ("flow: connections from before arming, or accepted through io_uring", "nobody kept whose they are"),
    ("listen, accept: AF_UNIX, vsock and other families", "the records have addresses of IPv4 and IPv6 only"),
    ("accept: failed calls", "nothing was accepted"),
    (
        "accept: socket and totals of a connection that waited since before arming",
        "it has no cookie, recorded as 0, and no flow follows",
    ),
    (
        "listen, accept: which socket, where the descriptor table is shared",
        "marked racy: another thread may have replaced the descriptor before it was read",
    ),
    ("bind", "no hook; local addresses are in connect, send, listen, accept and flow"),
    (
        "privileged acts: 32-bit and x32 calls (int 0x80)",
        "these tracepoints do not trace compatibility calls; signals that arrive and clones with new namespaces are seen",
    ),
    (
        "privileged acts: of the agent itself",
        "left out in the kernel, so that what it does to watch is not recorded as an act",
    ),
    (
        "creds: supplementary groups, bounding set, secure bits, keyrings",
        "a record shows ids, capability sets and the user namespace; a change of anything else makes none",
    ),
    ("creds: changes that were refused", "nothing changed; the call's error number is not kept"),
    (
        "process_access: reading a process that is held by ptrace, PTRACE_TRACEME",
        "taking hold (attach, seize) and changing (poke, set, kill) are recorded, not each read",
    ),
    ("process_access: /proc/PID/mem", "seen as an open, in scopes whose file events are on"),
    (
        "process_access: a target that ended right after",
        "it is looked up by its number after the call; then marked unresolved, with the number as the caller gave it",
    ),
    (
        "process_access: target_scope of a target that left its scope's cgroup",
        "told by the cgroup that it is in; its own acts are attributed by ancestry all the same",
    ),
    (
        "signal: within one scope, signal 0, signals that the kernel sends",
        "only those to another scope or to the agent",
    ),
    ("signal: refused, and the receiver ended right after", "it is looked up by its number after the call"),
    (
        "mount: the place of mount(2) and umount2(2), and the type of mount(2)",
        "no kernel object leads from the call to it afterwards, and the caller's string is its word only",
    ),
    ("mount: fsconfig on a mounted file system, mounts that end with their namespace", "no hooks for these yet"),
    ("namespace: clone and clone3 that failed", "sched_process_fork runs only when there is a child"),
    (
        "bpf: reading and writing elements of maps, listing ids, querying",
        "recorded only where the map, program or link is the agent's; each call of the rest is not",
    ),
    ("bpf: what a pinned path (BPF_OBJ_GET) led to", "the kind of object is not known from the call"),
    ("kernel_load: content hash, firmware", "its hooks may not sleep; firmware is read by the kernel itself"),
    (
        "key: type and description",
        "the kernel's key is not reachable from here, and the caller's string is its word only",
    ),
    (
        "io_uring: what is submitted",
        "requests do not pass the system calls hooked; that a process has an instance is recorded",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const ALL: Abilities = Abilities { lsm: Ok(()), fentry: Ok(()), ima_file_hash: true, read_kernel: true };

    #[test]
    fn what_a_tier_sees_is_a_line_of_the_list_and_said_by_the_others() {
        for (tiers, lines) in SEEN {
            for line in *lines {
                assert!(NOT_COVERED.iter().any(|(what, _)| what == line), "{line}");
                for tier in EVERY_TIER {
                    let said = not_covered(*tier, &ALL).iter().any(|(what, _)| what == line);
                    // A tier may say it again in its own words.
                    let again = NOT_COVERED_AT
                        .iter()
                        .any(|(at, lines)| at.contains(tier) && lines.iter().any(|(what, _)| what == line));
                    assert_eq!(said, !tiers.contains(tier) || again, "{line} at {}", tier.name());
                }
            }
        }
    }

    #[test]
    fn every_event_of_a_tier_has_a_hook_and_every_link_its_own_name() {
        for tier in EVERY_TIER {
            let events: HashSet<&str> = of(*tier).map(|hook| hook.event).collect();
            for event in ["fork", "exec", "exit", "cgroup", "connect", "connect_done", "open"] {
                assert!(events.contains(event), "{event} at {}", tier.name());
            }
            let maps = of(*tier).filter(|hook| hook.event == "file_map").count();
            assert_eq!(maps, 1, "a mapping is told once, at {}", tier.name());
            assert_eq!(events.contains("file_received"), *tier != Tier::Tracepoint);
            let links: HashSet<String> = of(*tier).map(Hook::link_name).collect();
            assert_eq!(links.len(), of(*tier).count());
        }
    }

    #[test]
    fn what_a_closed_kernel_hides_is_said() {
        let closed = Abilities { read_kernel: false, ima_file_hash: false, ..ALL };
        for tier in [Tier::Lsm, Tier::Fentry] {
            let (open, closed) = (not_covered(tier, &ALL), not_covered(tier, &closed));
            assert!(open.iter().all(|line| closed.contains(line)));
            let more = closed.iter().filter(|(_, why)| why.contains("lockdown=confidentiality")).count();
            assert_eq!(more, if tier == Tier::Lsm { 9 } else { 10 });
            // What is left out is said by its events.
            for hook in of(tier).filter(|hook| !hook.runs(false)) {
                assert!(!hook.required, "{}", hook.name());
                let names = |what: &str, event: &str| what.split([',', ':']).any(|word| word.trim() == event);
                let said = |event: &str| NOT_COVERED_CLOSED.iter().any(|(what, _)| names(what, event));
                assert!(hook.event.split(", ").all(said), "{}", hook.event);
            }
        }
        assert!(not_covered(Tier::Lsm, &closed).iter().any(|(what, _)| what == "exec: content hash"));
        for program in READING {
            assert!(HOOKS.iter().any(|hook| hook.program == *program), "{program}");
        }
    }
}
