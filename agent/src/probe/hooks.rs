//! Which program hangs where, which events it makes, and what the tier cannot see.
#![forbid(unsafe_code)]

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// BTF tracepoint of this name.
    Btf(&'static str),
    /// Classic tracepoint: category and name.
    Classic(&'static str, &'static str),
    /// cgroup socket-address hook, on the root of cgroup v2.
    SockAddr,
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
}

impl Hook {
    /// The hook's name for people and evidence.
    #[must_use]
    pub fn name(&self) -> String {
        match self.attach {
            Attach::Btf(name) => format!("tp_btf/{name}"),
            Attach::Classic(category, name) => format!("tracepoint/{category}/{name}"),
            Attach::SockAddr => format!("cgroup/{}", self.program),
        }
    }

    /// File name of the pinned link.
    pub(super) fn link_name(&self) -> String {
        match self.attach {
            Attach::Classic(_, name) => format!("{}-{name}", self.program),
            Attach::Btf(_) | Attach::SockAddr => self.program.to_owned(),
        }
    }
}

const fn required(event: &'static str, program: &'static str, attach: Attach) -> Hook {
    Hook { event, program, attach, required: true }
}

const fn optional(event: &'static str, program: &'static str, attach: Attach) -> Hook {
    Hook { event, program, attach, required: false }
}

/// The `tracepoint` tier.
pub const HOOKS: &[Hook] = &[
    required("fork", "fork", Attach::Btf("sched_process_fork")),
    required("exec", "exec", Attach::Btf("sched_process_exec")),
    required("exit", "exit", Attach::Btf("sched_process_exit")),
    required("cgroup", "cgroup_mkdir", Attach::Btf("cgroup_mkdir")),
    required("cgroup", "cgroup_rmdir", Attach::Btf("cgroup_rmdir")),
    required("cgroup", "cgroup_attach", Attach::Btf("cgroup_attach_task")),
    optional("connect", "connect_exit", Attach::Classic("syscalls", "sys_exit_connect")),
    optional("connect_done", "sock_state", Attach::Btf("inet_sock_set_state")),
    // After the hooks that take their entries away again, so that none is left behind.
    optional("connect", "connect4", Attach::SockAddr),
    optional("connect", "connect6", Attach::SockAddr),
    optional("open", "open", Attach::Classic("syscalls", "sys_exit_openat")),
    optional("open", "open", Attach::Classic("syscalls", "sys_exit_openat2")),
    optional("open", "open", Attach::Classic("syscalls", "sys_exit_open")),
    optional("open", "open", Attach::Classic("syscalls", "sys_exit_creat")),
];

/// Acts that this tier does not see, whatever the kernel, and why.
pub const NOT_COVERED: &[(&str, &str)] = &[
    ("fork: threads", "only processes are reported; a thread's acts carry its tid"),
    ("exec: failed calls", "sched_process_exec runs only when the exec succeeded"),
    ("exec: content hash", "no hook of this tier may sleep, so the kernel cannot hash the file here"),
];
