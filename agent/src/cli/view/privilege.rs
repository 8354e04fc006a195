//! Sentences for privileged acts.

use agent_evidence::record::{
    AccessHow, ActMarks, BpfCall, CredentialSet, CredsChanged, ExecFailed, IoUring, KernelCode, KernelLoad, KeyUse,
    MountChanged, MountOp, NamespaceChanged, NamespaceOp, ProcessAccess, SignalSent,
};

use super::{signal_name, text, value};
use crate::export::ocsf::errno_name;

/// How it ended, when not well, and whom it was against.
fn end(errno: Option<u32>, marks: ActMarks) -> String {
    let result = match errno {
        Some(0) => String::new(),
        Some(errno) => format!(": FAILED {}", errno_name(errno)),
        None => " (result not observed)".to_owned(),
    };
    let agent = if marks.contains(ActMarks::AGAINST_AGENT) { "  AGAINST THE AGENT" } else { "" };
    format!("{result}{agent}")
}

pub(super) fn exec_failed(failed: &ExecFailed<'_>) -> String {
    let what = failed
        .claims
        .invoked
        .as_ref()
        .map_or_else(|| "a path not known".to_owned(), |path| format!("\"{}\"", value(path)));
    format!("{} FAILED to run {what}: {}", failed.tgid, errno_name(failed.errno))
}

/// The members that differ, as `name before -> after`.
pub(super) fn creds(change: &CredsChanged<'_>) -> String {
    let (before, after) = (&change.before, &change.after);
    let number = |of: fn(&CredentialSet) -> u32, name: &str| {
        (of(before) != of(after)).then(|| format!("{name} {} -> {}", of(before), of(after)))
    };
    let caps = |of: fn(&CredentialSet) -> u64, name: &str| {
        (of(before) != of(after)).then(|| format!("{name} {:x} -> {:x}", of(before), of(after)))
    };
    let changes = [
        number(|set| set.uid, "uid"),
        number(|set| set.euid, "euid"),
        number(|set| set.suid, "suid"),
        number(|set| set.fsuid, "fsuid"),
        number(|set| set.gid, "gid"),
        number(|set| set.egid, "egid"),
        number(|set| set.sgid, "sgid"),
        number(|set| set.fsgid, "fsgid"),
        caps(|set| set.caps.0, "capabilities"),
        caps(|set| set.caps_permitted.0, "permitted"),
        caps(|set| set.caps_inheritable.0, "inheritable"),
        caps(|set| set.caps_ambient.0, "ambient"),
        number(|set| set.user_namespace, "user namespace"),
    ];
    let changes: Vec<String> = changes.into_iter().flatten().collect();
    format!("{} changed its credentials: {}", change.tgid, changes.join(", "))
}

pub(super) fn process_access(access: &ProcessAccess<'_>) -> String {
    let how = match access.how {
        AccessHow::Ptrace => match access.mode {
            16 => "attached to".to_owned(),
            0x4206 => "seized".to_owned(),
            request => format!("controlled (ptrace {request:#x})"),
        },
        AccessHow::Mem => "opened the memory of".to_owned(),
        AccessHow::VmRead => "read the memory of".to_owned(),
        AccessHow::VmWrite => "wrote to the memory of".to_owned(),
        AccessHow::Getfd => "took a descriptor of".to_owned(),
        AccessHow::Other => "reached into".to_owned(),
    };
    let scope = access.target_scope.map(|scope| format!(" in scope {}", scope.0)).unwrap_or_default();
    format!("{} {how} {}{scope}{}", access.tgid, access.target_tgid, end(access.errno, access.marks))
}

pub(super) fn signal(signal: &SignalSent<'_>) -> String {
    let to = match signal.target {
        Some(_) => signal.target_tgid.to_string(),
        None => format!("group {}", signal.target_tgid),
    };
    format!(
        "{} sent signal {}{} to {to}{}",
        signal.tgid,
        signal.signal,
        signal_name(signal.signal),
        end(signal.errno, signal.marks)
    )
}

pub(super) fn mount(mount: &MountChanged<'_>) -> String {
    let what = match mount.op {
        MountOp::Mount => "mounted",
        MountOp::Bind => "bound",
        MountOp::Move => "moved the mount",
        MountOp::Remount => "changed the options of",
        MountOp::Unmount => "unmounted",
        MountOp::PivotRoot => "exchanged its root for",
        MountOp::Chroot => "changed its root to",
    };
    let source = mount.source.as_ref().map(|source| format!(" \"{}\"", value(source))).unwrap_or_default();
    let target = mount.target.as_ref().map(|target| format!(" at {}", value(target))).unwrap_or_default();
    let sort = mount.fstype.as_ref().map(|sort| format!(" ({})", text(sort))).unwrap_or_default();
    format!("{} {what}{source}{target}{sort}{}", mount.tgid, end(mount.errno, mount.marks))
}

/// `CLONE_NEW*` (include/uapi/linux/sched.h).
const NAMESPACES: [(u64, &str); 8] = [
    (0x0002_0000, "mount"),
    (0x0200_0000, "cgroup"),
    (0x0400_0000, "uts"),
    (0x0800_0000, "ipc"),
    (0x1000_0000, "user"),
    (0x2000_0000, "pid"),
    (0x4000_0000, "network"),
    (0x80, "time"),
];

pub(super) fn namespace(change: &NamespaceChanged<'_>) -> String {
    let names: Vec<&str> =
        NAMESPACES.iter().filter(|(flag, _)| change.flags & flag != 0).map(|(_, name)| *name).collect();
    let what = match change.op {
        NamespaceOp::Unshare => "made itself new namespaces",
        NamespaceOp::Clone => "began a process in new namespaces",
        NamespaceOp::Enter => "entered namespaces",
    };
    let which = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    format!("{} {what}{which}{}", change.tgid, end(change.errno, change.marks))
}

/// Commands of bpf(2) that an analyst looks for (include/uapi/linux/bpf.h).
fn bpf_command(cmd: u32) -> Option<&'static str> {
    Some(match cmd {
        0 => "MAP_CREATE",
        1 => "MAP_LOOKUP_ELEM",
        2 => "MAP_UPDATE_ELEM",
        3 => "MAP_DELETE_ELEM",
        5 => "PROG_LOAD",
        6 => "OBJ_PIN",
        7 => "OBJ_GET",
        8 => "PROG_ATTACH",
        9 => "PROG_DETACH",
        13 => "PROG_GET_FD_BY_ID",
        14 => "MAP_GET_FD_BY_ID",
        17 => "RAW_TRACEPOINT_OPEN",
        18 => "BTF_LOAD",
        28 => "LINK_CREATE",
        29 => "LINK_UPDATE",
        30 => "LINK_GET_FD_BY_ID",
        34 => "LINK_DETACH",
        _ => return None,
    })
}

pub(super) fn bpf(call: &BpfCall<'_>) -> String {
    let command = bpf_command(call.cmd).map_or_else(|| format!("command {}", call.cmd), str::to_owned);
    let id = call.id.map(|id| format!(" of {id}")).unwrap_or_default();
    let name = call.name.as_ref().map(|name| format!(" \"{}\"", text(name))).unwrap_or_default();
    format!("{} called bpf {command}{id}{name}{}", call.tgid, end(call.errno, call.marks))
}

pub(super) fn kernel_load(load: &KernelLoad<'_>) -> String {
    let what = match load.what {
        KernelCode::Module => "loaded a kernel module",
        KernelCode::ModuleRemoved => "removed a kernel module",
        KernelCode::Kexec => "loaded a kernel to start",
        KernelCode::Firmware => "loaded firmware",
        KernelCode::LivePatch => "loaded a live patch",
    };
    let name = load.name.as_ref().map(|name| format!(" {}", text(name))).unwrap_or_default();
    let path = load.path.as_ref().map(|path| format!(" from {}", value(path))).unwrap_or_default();
    format!("{} {what}{name}{path}{}", load.tgid, end(load.errno, load.marks))
}

pub(super) fn key(key: &KeyUse<'_>) -> String {
    let what = match key.op {
        1000 => "added a key".to_owned(),
        1001 => "requested a key".to_owned(),
        op => format!("used keyctl operation {op}"),
    };
    let serial = key.serial.map(|serial| format!(", key {serial}")).unwrap_or_default();
    format!("{} {what}{serial}{}", key.tgid, end(key.errno, key.marks))
}

pub(super) fn io_uring(ring: &IoUring<'_>) -> String {
    let what = if ring.op == 0 {
        "made an io_uring".to_owned()
    } else {
        format!("changed an io_uring (register operation {})", ring.op.saturating_sub(1))
    };
    let entries = ring.entries.map(|entries| format!(" of {entries} entries")).unwrap_or_default();
    format!("{} {what}{entries}{}", ring.tgid, end(ring.errno, ring.marks))
}

#[cfg(test)]
mod tests {
    use agent_evidence::record::{Capabilities, CommClaims, ProcessCookie};

    use super::*;

    fn set(uid: u32, caps: u64) -> CredentialSet {
        CredentialSet {
            uid,
            gid: 0,
            euid: uid,
            egid: 0,
            suid: uid,
            sgid: 0,
            fsuid: uid,
            fsgid: 0,
            caps: Capabilities(caps),
            caps_permitted: Capabilities(caps),
            caps_inheritable: Capabilities(0),
            caps_ambient: Capabilities(0),
            user_namespace: 4_026_531_837,
        }
    }

    #[test]
    fn only_what_differs_of_the_credentials_is_said() {
        let change = CredsChanged {
            before: set(0, 0xff),
            after: set(65_534, 0),
            tgid: 7,
            uid: 65_534,
            euid: None,
            marks: ActMarks::NONE,
            claims: CommClaims { comm: "x".into() },
        };
        let said = creds(&change);
        assert!(said.contains("uid 0 -> 65534") && said.contains("capabilities ff -> 0"), "{said}");
        assert!(!said.contains("gid 0") && !said.contains("namespace"), "{said}");
    }

    #[test]
    fn an_act_against_the_agent_is_loud_and_a_refusal_is_said() {
        let mut sent = SignalSent {
            target: Some(ProcessCookie(5)),
            target_tgid: 99,
            signal: 9,
            errno: Some(1),
            tgid: 7,
            uid: 0,
            euid: None,
            marks: ActMarks::NONE.with(ActMarks::AGAINST_AGENT, true),
            claims: CommClaims { comm: "x".into() },
        };
        assert_eq!(signal(&sent), "7 sent signal 9 (KILL) to 99: FAILED EPERM  AGAINST THE AGENT");
        (sent.target, sent.errno, sent.marks) = (None, Some(0), ActMarks::NONE);
        assert_eq!(signal(&sent), "7 sent signal 9 (KILL) to group 99");
    }
}
