//! Privileged acts and failed execs as OCSF events.
//!
//! What was done to another process is Process Activity (1007) or Memory Activity (1004) with that process as `process`;
//! what was asked of the kernel is Kernel Activity (1003): Invoke, named after the call; Create and Delete for modules.
//! What OCSF has no field for stands in `unmapped.affiant.act`.

use agent_evidence::record::{
    AccessHow, BpfCall, CredentialSet, CredsChanged, ExecFailed, IoUring, KernelCode, KernelLoad, KeyUse, MountChanged,
    MountOp, NamespaceChanged, ProcessAccess, SignalSent, Text, Value as RecordValue,
};
use serde_json::{Map, Value, json};

use super::{Activity, Event, activity};
use crate::export::join::Process;

/// `PTRACE_ATTACH` and `PTRACE_SEIZE` (include/uapi/linux/ptrace.h).
const TAKES_HOLD: [u32; 2] = [16, 0x4206];

const PROCESS: (u32, &str) = (1007, "Process Activity");
const MEMORY: (u32, &str) = (1004, "Memory Activity");
const KERNEL: (u32, &str) = (1003, "Kernel Activity");
const SYSTEM: (u32, &str) = (1, "System Activity");

/// Number of a `keyctl` operation in a record that stands for another call.
const ADD_KEY: u32 = 1000;
const REQUEST_KEY: u32 = 1001;

fn bare(tgid: u32, uid: u32) -> Process {
    Process { tgid, start_ns: None, parent: None, path: None, command_line: None, command_line_cut: false, uid }
}

fn set(of: &CredentialSet) -> Value {
    json!({
        "uid": of.uid, "gid": of.gid, "euid": of.euid, "egid": of.egid, "suid": of.suid, "sgid": of.sgid,
        "fsuid": of.fsuid, "fsgid": of.fsgid, "user_namespace": of.user_namespace,
        "capabilities": format!("{:016x}", of.caps.0), "permitted": format!("{:016x}", of.caps_permitted.0),
        "inheritable": format!("{:016x}", of.caps_inheritable.0), "ambient": format!("{:016x}", of.caps_ambient.0),
    })
}

impl Event<'_, '_> {
    /// The acting process as the one that the event is about.
    fn itself(&mut self, tgid: u32, uid: u32) {
        let cookie = self.record.draft.process.map_or(0, |cookie| cookie.0);
        let known = self.record.draft.process.and_then(|cookie| self.joins.process(cookie));
        let process = self.process("process", cookie, known.unwrap_or(&bare(tgid, uid)), known.is_some());
        self.put("process", process);
    }

    /// Another process as the one that the event is about; by its number alone when that is all there is.
    fn target(&mut self, cookie: u64, tgid: u32) {
        let known = if cookie == 0 { None } else { self.joins.processes_by_cookie(cookie) };
        self.joined("target", known.is_some());
        let process = match known {
            Some(known) => self.process("process", cookie, known, true),
            None if cookie == 0 => json!({ "pid": tgid }),
            None => json!({ "pid": tgid, "uid": self.process_uid(cookie) }),
        };
        self.put("process", process);
    }

    fn act(&mut self, members: Value) {
        let members: Map<String, Value> = match members {
            Value::Object(members) => members.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            _ => Map::new(),
        };
        self.affiant.insert("act".into(), members.into());
    }

    /// A call of the kernel by its name.
    fn invoked(&mut self, call: &str) {
        self.class(SYSTEM, KERNEL, &activity(4, "Invoke"));
        self.put("kernel", json!({ "name": call, "type_id": 2, "type": "System Call" }));
    }

    /// A value in the clear as text, or what stands for it.
    fn value_text(&mut self, field: &str, value: Option<&RecordValue<'_>>) -> Option<String> {
        let value = value?;
        Some(match value.clear() {
            Some(text) => self.text(field, text.as_bytes()),
            None => value.display(),
        })
    }

    fn kernel_name(&mut self, field: &str, name: Option<&Text<'_>>) -> Option<String> {
        name.map(|name| self.text(field, name.as_bytes()))
    }

    pub(super) fn exec_failed(&mut self, failed: &ExecFailed<'_>) {
        self.class(SYSTEM, PROCESS, &activity(1, "Launch"));
        self.put("launch_type_id", 3);
        self.put("launch_type", "Exec");
        self.itself(failed.tgid, failed.uid);
        self.status(Some(failed.errno));
        self.actor(failed.tgid, failed.uid, failed.euid);
        self.marks(failed.marks);
        self.claim("comm", &failed.claims.comm);
        if let Some(invoked) = failed.claims.invoked.as_ref().and_then(RecordValue::clear) {
            self.claim("invoked", invoked);
        }
    }

    pub(super) fn creds(&mut self, change: &CredsChanged<'_>) {
        let (before, after) = (&change.before, &change.after);
        let ids = |set: &CredentialSet| (set.uid, set.euid, set.suid, set.fsuid);
        let what =
            if ids(before) == ids(after) { activity(99, "Change Credentials") } else { activity(5, "Set User ID") };
        self.class(SYSTEM, PROCESS, &what);
        self.itself(change.tgid, change.uid);
        self.status(Some(0));
        self.actor(change.tgid, change.uid, change.euid);
        self.act(json!({ "before": set(before), "after": set(after) }));
        self.marks(change.marks);
        self.claim("comm", &change.claims.comm);
    }

    pub(super) fn process_access(&mut self, access: &ProcessAccess<'_>) {
        let (class, what): (_, Activity) = match access.how {
            AccessHow::VmRead => (MEMORY, activity(7, "Read")),
            AccessHow::VmWrite => (MEMORY, activity(8, "Write")),
            AccessHow::Ptrace if !TAKES_HOLD.contains(&access.mode) => (PROCESS, activity(99, "Control")),
            _ => (PROCESS, activity(3, "Open")),
        };
        self.class(SYSTEM, class, &what);
        self.target(access.target.0, access.target_tgid);
        self.status(access.errno);
        self.actor(access.tgid, access.uid, access.euid);
        self.act(json!({
            "how": access.how.as_str(), "mode": access.mode,
            "target_scope": access.target_scope.map(|scope| scope.0.to_string()),
        }));
        self.marks(access.marks);
        self.claim("comm", &access.claims.comm);
    }

    pub(super) fn signal(&mut self, signal: &SignalSent<'_>) {
        self.class(SYSTEM, PROCESS, &activity(99, "Signal"));
        self.target(signal.target.map_or(0, |target| target.0), signal.target_tgid);
        self.status(signal.errno);
        self.actor(signal.tgid, signal.uid, signal.euid);
        self.act(json!({ "signal": signal.signal, "group": signal.target.is_none() }));
        self.marks(signal.marks);
        self.claim("comm", &signal.claims.comm);
    }

    pub(super) fn mount(&mut self, mount: &MountChanged<'_>) {
        self.invoked(match mount.op {
            MountOp::Unmount => "umount",
            MountOp::PivotRoot => "pivot_root",
            MountOp::Chroot => "chroot",
            MountOp::Mount | MountOp::Bind | MountOp::Move | MountOp::Remount => "mount",
        });
        self.status(mount.errno);
        self.actor(mount.tgid, mount.uid, mount.euid);
        let source = self.value_text("act.source", mount.source.as_ref());
        let target = self.value_text("act.target", mount.target.as_ref());
        let fstype = self.kernel_name("act.fstype", mount.fstype.as_ref());
        self.act(json!({
            "op": mount.op.as_str(), "target": target, "fstype": fstype, "flags": mount.flags.to_string(),
        }));
        // As the caller gave it, so it stands with what the caller said.
        if let Some(source) = source {
            self.claims.insert("source".into(), source.into());
        }
        self.marks(mount.marks);
        self.claim("comm", &mount.claims.comm);
    }

    pub(super) fn namespace(&mut self, change: &NamespaceChanged<'_>) {
        self.invoked(match change.op {
            agent_evidence::record::NamespaceOp::Unshare => "unshare",
            agent_evidence::record::NamespaceOp::Clone => "clone",
            agent_evidence::record::NamespaceOp::Enter => "setns",
        });
        self.status(change.errno);
        self.actor(change.tgid, change.uid, change.euid);
        self.act(json!({
            "op": change.op.as_str(), "flags": change.flags.to_string(), "mount_namespace": change.mount_namespace,
            "pid_namespace": change.pid_namespace, "network_namespace": change.network_namespace,
            "user_namespace": change.user_namespace,
        }));
        self.marks(change.marks);
        self.claim("comm", &change.claims.comm);
    }

    pub(super) fn bpf(&mut self, call: &BpfCall<'_>) {
        self.invoked("bpf");
        self.status(call.errno);
        self.actor(call.tgid, call.uid, call.euid);
        let name = self.kernel_name("act.name", call.name.as_ref());
        self.act(json!({ "cmd": call.cmd, "type": call.type_, "id": call.id, "name": name }));
        self.marks(call.marks);
        self.claim("comm", &call.claims.comm);
    }

    pub(super) fn kernel_load(&mut self, load: &KernelLoad<'_>) {
        let name = self.kernel_name("act.name", load.name.as_ref());
        let path = self.value_text("act.path", load.path.as_ref());
        match load.what {
            KernelCode::Kexec => self.invoked("kexec"),
            what => {
                let removed = what == KernelCode::ModuleRemoved;
                let what = if removed { activity(3, "Delete") } else { activity(1, "Create") };
                self.class(SYSTEM, KERNEL, &what);
                // OCSF requires a name; a module that the kernel refused early has none.
                let shown = name.clone().unwrap_or_else(|| "(not known)".to_owned());
                self.put("kernel", json!({ "name": shown, "type_id": 99, "type": "Kernel Module" }));
            }
        }
        self.act(json!({ "what": load.what.as_str(), "name": name, "path": path }));
        self.status(load.errno);
        self.actor(load.tgid, load.uid, load.euid);
        self.marks(load.marks);
        self.claim("comm", &load.claims.comm);
    }

    pub(super) fn key(&mut self, key: &KeyUse<'_>) {
        self.invoked(match key.op {
            ADD_KEY => "add_key",
            REQUEST_KEY => "request_key",
            _ => "keyctl",
        });
        self.status(key.errno);
        self.actor(key.tgid, key.uid, key.euid);
        let sort = self.kernel_name("act.type", key.type_.as_ref());
        let description = self.value_text("act.description", key.description.as_ref());
        self.act(json!({ "op": key.op, "serial": key.serial, "type": sort, "description": description }));
        self.marks(key.marks);
        self.claim("comm", &key.claims.comm);
    }

    pub(super) fn io_uring(&mut self, ring: &IoUring<'_>) {
        self.invoked(if ring.op == 0 { "io_uring_setup" } else { "io_uring_register" });
        self.status(ring.errno);
        self.actor(ring.tgid, ring.uid, ring.euid);
        self.act(json!({ "op": ring.op, "flags": ring.flags, "entries": ring.entries }));
        self.marks(ring.marks);
        self.claim("comm", &ring.claims.comm);
    }
}
