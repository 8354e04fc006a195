//! From one record to one OCSF 1.9.0 event: a pure function of the record, its place and what
//! earlier records said.
//!
//! Classes: Process Activity (1007) for `fork`, `exec` and `exit`; Network Activity (4001) for
//! what happens on connections ([`network`]), Kernel Activity (1003) for `socket`; File System Activity (1001) for
//! `open`, `file_change`, `file_close`, `file_map` and `file_received`; privileged acts as
//! `privilege` says. Other kinds have no event.
//!
//! Facts stand in the fields that OCSF gives them. What the workload or a requester said stands in
//! `unmapped.affiant.claims` and nowhere else. The place in the log stands in `metadata` (`uid` =
//! origin, `#`, index: the dedupe id; `sequence`; `log_name`) and in `unmapped.affiant`, with the
//! leaf hash. It does not stand in `attestation_list`: a fingerprint there is defined over the OCSF
//! event, and the signed bytes are the record's. What could not be joined is named in
//! `unmapped.affiant.join`.
#![forbid(unsafe_code)]

mod file;
mod privilege;

use std::net::{IpAddr, SocketAddr};

use agent_evidence::record::{ActMarks, Body, Connect, ConnectDone, Exec, Exit, Fork, Open, Record, Text, Transport};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::cli::output::printable_bytes;
use crate::export::join::{JoinTable, Process, hex, image_of};

pub mod network;

/// The version of OCSF that events follow.
pub const OCSF_VERSION: &str = "1.9.0";

/// Version of this mapping: a verifier that compares exported events with entries must render them
/// with the same one.
pub const MAPPING_VERSION: u32 = 1;

const NS_PER_MS: u64 = 1_000_000;
const EINPROGRESS: u32 = 115;
const ECONNREFUSED: u32 = 111;

/// Where a record stands in its log.
#[derive(Debug, Clone, Copy)]
pub struct Coordinates<'a> {
    /// Origin of the log.
    pub origin: &'a str,
    /// RFC 6962 leaf hash of the entry's bytes.
    pub leaf_hash: [u8; 32],
}

/// The event of a record, or none when its kind has none. `joins` holds what the entries before
/// this one said.
#[must_use]
pub fn map(record: &Record<'_>, at: Coordinates<'_>, joins: &JoinTable) -> Option<Value> {
    let mut event = Event::new(record, at, joins);
    match record.body() {
        Body::Fork(fork) => event.fork(fork),
        Body::Exec(exec) => event.exec(exec),
        Body::Exit(exit) => event.exit(exit),
        Body::Connect(connect) => event.connect(connect),
        Body::ConnectDone(done) => event.connect_done(done),
        Body::Open(open) => event.open(open),
        Body::FileChange(change) => event.file_change(change),
        Body::FileClose(close) => event.file_close(close),
        Body::FileMap(map) => event.file_map(map),
        Body::FileReceived(received) => event.file_received(received),
        Body::Send(send) => event.send(send),
        Body::Flow(flow) => event.flow(flow),
        Body::Listen(listen) => event.listen(listen),
        Body::Accept(accept) => event.accept(accept),
        Body::ConnectUnix(connect) => event.connect_unix(connect),
        Body::ConnectVsock(connect) => event.connect_vsock(connect),
        Body::Socket(made) => event.socket_made(made),
        Body::ExecFailed(failed) => event.exec_failed(failed),
        Body::Creds(change) => event.creds(change),
        Body::ProcessAccess(access) => event.process_access(access),
        Body::Signal(signal) => event.signal(signal),
        Body::Mount(mount) => event.mount(mount),
        Body::Namespace(change) => event.namespace(change),
        Body::Bpf(call) => event.bpf(call),
        Body::KernelLoad(load) => event.kernel_load(load),
        Body::Key(key) => event.key(key),
        Body::IoUring(ring) => event.io_uring(ring),
        _ => return None,
    }
    Some(event.finish())
}

/// The dedupe id of an entry's event.
#[must_use]
pub fn dedupe_id(origin: &str, index: u64) -> String {
    format!("{origin}#{index}")
}

struct Activity {
    id: u32,
    name: &'static str,
}

const fn activity(id: u32, name: &'static str) -> Activity {
    Activity { id, name }
}

struct Event<'r, 't> {
    record: &'r Record<'r>,
    at: Coordinates<'t>,
    joins: &'t JoinTable,
    fields: Map<String, Value>,
    affiant: Map<String, Value>,
    claims: Map<String, Value>,
    join: Map<String, Value>,
    /// Fields whose bytes are not UTF-8, exactly.
    raw: Map<String, Value>,
    truncated: bool,
}

impl<'r, 't> Event<'r, 't> {
    fn new(record: &'r Record<'r>, at: Coordinates<'t>, joins: &'t JoinTable) -> Self {
        Self {
            record,
            at,
            joins,
            fields: Map::new(),
            affiant: Map::new(),
            claims: Map::new(),
            join: Map::new(),
            raw: Map::new(),
            truncated: !record.cut.is_empty(),
        }
    }

    fn class(&mut self, category: (u32, &str), class: (u32, &str), activity: &Activity) {
        let type_uid = class.0 * 100 + activity.id;
        self.put("category_uid", category.0);
        self.put("category_name", category.1);
        self.put("class_uid", class.0);
        self.put("class_name", class.1);
        self.put("activity_id", activity.id);
        self.put("activity_name", activity.name);
        self.put("type_uid", type_uid);
        self.put("type_name", format!("{}: {}", class.1, activity.name));
    }

    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.fields.insert(key.to_owned(), value.into());
    }

    fn fork(&mut self, fork: &Fork<'_>) {
        self.class((1, "System Activity"), (1007, "Process Activity"), &activity(1, "Launch"));
        self.put("launch_type_id", 2);
        self.put("launch_type", "Fork");
        let parent = self.record.draft.process.and_then(|cookie| self.joins.process(cookie));
        let child = Process {
            tgid: fork.child_tgid,
            start_ns: Some(fork.child_start.0),
            parent: self.record.draft.process.map(|cookie| cookie.0),
            path: parent.and_then(|parent| parent.path.clone()),
            command_line: parent.and_then(|parent| parent.command_line.clone()),
            command_line_cut: parent.is_some_and(|parent| parent.command_line_cut),
            uid: fork.uid,
        };
        let process = self.process("process", fork.child.0, &child, true);
        self.put("process", process);
        self.actor(fork.tgid, fork.uid, None);
        if let Some(cgroup) = fork.child_cgroup {
            self.affiant.insert("child_cgroup".into(), cgroup.0.to_string().into());
        }
        self.status(Some(0));
        self.marks(fork.marks);
        self.claim("comm", &fork.claims.comm);
    }

    fn exec(&mut self, exec: &Exec<'_>) {
        self.class((1, "System Activity"), (1007, "Process Activity"), &activity(1, "Launch"));
        self.put("launch_type_id", 3);
        self.put("launch_type", "Exec");
        let cookie = self.record.draft.process.map_or(0, |cookie| cookie.0);
        let before = self.record.draft.process.and_then(|cookie| self.joins.process(cookie));
        let image = image_of(exec, before.and_then(|before| before.start_ns));
        let mut process = self.process("process", cookie, &image, true);
        if let (Some(process), Some(path)) =
            (process.as_object_mut(), exec.path.as_ref().and_then(agent_evidence::record::Value::clear))
        {
            let mut file = self.file("process.file", path.as_bytes(), Some(exec.mode));
            if let Some(file) = file.as_object_mut() {
                file.insert("size".into(), exec.size.into());
                file.insert("uid".into(), file_uid(exec.dev.major, exec.dev.minor, exec.ino).into());
                if exec.nlink == 0 {
                    file.insert("is_deleted".into(), true.into());
                }
            }
            process.insert("file".into(), file);
        }
        if let (Some(process), Some(cwd)) =
            (process.as_object_mut(), exec.cwd.as_ref().and_then(agent_evidence::record::Value::clear))
        {
            let cwd = self.text("process.working_directory", cwd.as_bytes());
            process.insert("working_directory".into(), cwd.into());
        }
        self.put("process", process);
        self.actor(exec.tgid, exec.uid, Some(exec.euid));
        self.affiant.insert(
            "credentials".into(),
            json!({
                "uid": exec.uid, "gid": exec.gid, "euid": exec.euid, "egid": exec.egid,
                "suid": exec.suid, "sgid": exec.sgid, "login_uid": exec.login_uid,
                "capabilities": format!("{:016x}", exec.caps.0),
            }),
        );
        self.affiant.insert("argc".into(), exec.argc.into());
        self.status(Some(0));
        self.marks(exec.marks);
        self.claim("comm", &exec.claims.comm);
        if let Some(invoked) = exec.claims.invoked.as_ref().and_then(agent_evidence::record::Value::clear) {
            self.claim("invoked", invoked);
        }
    }

    fn exit(&mut self, exit: &Exit<'_>) {
        self.class((1, "System Activity"), (1007, "Process Activity"), &activity(2, "Terminate"));
        let cookie = self.record.draft.process.map_or(0, |cookie| cookie.0);
        let known = self.record.draft.process.and_then(|cookie| self.joins.process(cookie));
        let bare = Process {
            tgid: exit.tgid,
            start_ns: None,
            parent: None,
            path: None,
            command_line: None,
            command_line_cut: false,
            uid: exit.uid,
        };
        let mut process = self.process("process", cookie, known.unwrap_or(&bare), known.is_some());
        if let Some(process) = process.as_object_mut() {
            process.insert("terminated_time".into(), (self.record.draft.wall.0 / NS_PER_MS).into());
        }
        self.put("process", process);
        self.actor(exit.tgid, exit.uid, None);
        if let Some(code) = exit.code {
            self.put("exit_code", code);
        }
        if let Some(signal) = exit.signal {
            self.affiant.insert("signal".into(), signal.into());
            self.put("status_detail", format!("ended by signal {signal}"));
        }
        self.status(Some(0));
        self.marks(exit.marks);
        self.claim("comm", &exit.claims.comm);
    }

    fn connect(&mut self, connect: &Connect<'_>) {
        let activity = match connect.errno {
            // Decided later, by an event of its own: this is not yet an open connection.
            Some(EINPROGRESS) => activity(99, "Attempt"),
            other => network_activity(other),
        };
        self.network(&activity, connect.proto, connect.local, connect.remote, connect.socket.0);
        match connect.errno {
            Some(EINPROGRESS) => {
                self.put("status_id", 0);
                self.put("status", "Unknown");
                self.put("status_code", "EINPROGRESS");
                self.put("status_detail", "in progress");
            }
            errno => self.status(errno),
        }
        self.actor(connect.tgid, connect.uid, connect.euid);
        self.marks(connect.marks);
        self.claim("comm", &connect.claims.comm);
    }

    fn connect_done(&mut self, done: &ConnectDone<'_>) {
        self.network(&network_activity(done.errno), done.proto, done.local, done.remote, done.socket.0);
        self.status(done.errno);
        self.actor(done.tgid, done.uid, None);
        self.marks(done.marks);
        self.claim("comm", &done.claims.comm);
    }

    fn network(
        &mut self,
        activity: &Activity,
        proto: Transport,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        socket: u64,
    ) {
        self.class((4, "Network Activity"), (4001, "Network Activity"), activity);
        self.put("dst_endpoint", endpoint(remote));
        if let Some(local) = local {
            self.put("src_endpoint", endpoint(local));
        }
        let protocol_num = protocol_number(proto);
        let mut info = json!({
            "direction_id": 2,
            "direction": "Outbound",
            "protocol_name": proto.as_str(),
            "protocol_ver_id": if remote.is_ipv4() { 4 } else { 6 },
            "uid": socket.to_string(),
        });
        if let (Some(info), Some(number)) = (info.as_object_mut(), protocol_num) {
            info.insert("protocol_num".into(), number.into());
        }
        if let Some(info) = info.as_object_mut()
            && unmapped_ip(remote.ip()).is_loopback()
        {
            info.insert("boundary_id".into(), 1.into());
            info.insert("boundary".into(), "Localhost".into());
        }
        self.put("connection_info", info);
    }

    fn open(&mut self, open: &Open<'_>) {
        let activity =
            if open.marks.contains(ActMarks::CREATED) { activity(1, "Create") } else { activity(14, "Open") };
        self.class((1, "System Activity"), (1001, "File System Activity"), &activity);
        let mut file = match open.path.as_ref().and_then(agent_evidence::record::Value::clear) {
            Some(path) => self.file("file", path.as_bytes(), open.mode),
            // OCSF requires a name. What the caller asked for is its claim and stays there.
            None => json!({ "name": "(not resolved)", "type_id": 0, "type": "Unknown" }),
        };
        if let (Some(file), Some(dev), Some(ino)) = (file.as_object_mut(), open.dev, open.ino) {
            file.insert("uid".into(), file_uid(dev.major, dev.minor, ino).into());
        }
        self.put("file", file);
        self.status(Some(open.errno.unwrap_or(0)));
        self.actor(open.tgid, open.uid, open.euid);
        self.affiant
            .insert("open_flags".into(), json!({ "value": open.oflags, "names": open_flag_names(open.oflags) }));
        self.marks(open.marks);
        self.claim("comm", &open.claims.comm);
        if let Some(asked) = open.claims.asked.as_ref().and_then(agent_evidence::record::Value::clear) {
            self.claim("asked", asked);
        }
        if let Some(dir_fd) = open.claims.dir_fd {
            self.claims.insert("dir_fd".into(), dir_fd.into());
        }
    }

    /// The process that acted, its user, its session and its workload.
    fn actor(&mut self, tgid: u32, uid: u32, euid: Option<u32>) {
        let mut actor = Map::new();
        let process = match self.record.draft.process {
            Some(cookie) => {
                let known = self.joins.process(cookie);
                self.joined("process", known.is_some());
                let bare = Process {
                    tgid,
                    start_ns: None,
                    parent: None,
                    path: None,
                    command_line: None,
                    command_line_cut: false,
                    uid,
                };
                self.process("actor.process", cookie.0, known.unwrap_or(&bare), known.is_some())
            }
            None => {
                self.join.insert("process".into(), "not stated".into());
                json!({ "pid": tgid })
            }
        };
        actor.insert("process".into(), process);
        actor.insert("user".into(), user(euid.unwrap_or(uid)));
        if let Some(index) = self.record.draft.session {
            let session = self.joins.session(index);
            self.joined("session", session.is_some());
            if let Some(session) = session {
                let mut shown = json!({
                    "uid": session.id,
                    "issuer": self.at.origin,
                    "created_time": session.issued_wall_ns / NS_PER_MS,
                });
                if let (Some(shown), Some(ttl_ns)) = (shown.as_object_mut(), session.ttl_ns) {
                    let end_ns = session.issued_wall_ns.saturating_add(ttl_ns);
                    shown.insert("expiration_time".into(), (end_ns / NS_PER_MS).into());
                }
                actor.insert("session".into(), shown);
                actor.insert("app_uid".into(), session.identity.clone().into());
                if let Some(task) = &session.task {
                    self.claims.insert("task".into(), task.clone().into());
                }
            }
        }
        if let Some(index) = self.record.draft.workload {
            let workload = self.joins.workload(index);
            self.joined("workload", workload.is_some());
            if let Some(workload) = workload {
                actor.entry("app_uid").or_insert_with(|| workload.id.clone().into());
                let labels: Map<String, Value> =
                    workload.labels.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
                self.affiant.insert(
                    "workload".into(),
                    json!({
                        "entry": index.0,
                        "sort": workload.sort,
                        "id": workload.id,
                        "cgroup_path": workload.path,
                        "how": workload.how,
                        "labels": labels,
                    }),
                );
            }
        }
        self.put("actor", actor);
    }

    fn joined(&mut self, what: &str, known: bool) {
        self.join.insert(what.to_owned(), if known { "known" } else { "unknown" }.into());
    }

    fn process(&mut self, field: &str, cookie: u64, process: &Process, with_parent: bool) -> Value {
        let mut shown = Map::new();
        shown.insert("pid".into(), process.tgid.into());
        if cookie != 0 {
            shown.insert("uid".into(), self.process_uid(cookie).into());
        }
        if let Some(path) = &process.path {
            let path_text = self.text(&format!("{field}.path"), path);
            shown.insert("name".into(), base_name(&path_text).into());
            shown.insert("path".into(), path_text.into());
        }
        if let Some(line) = &process.command_line {
            shown.insert("cmd_line".into(), line.as_ref().into());
            self.truncated |= process.command_line_cut;
        }
        shown.insert("user".into(), user(process.uid));
        if let Some(start_ns) = process.start_ns {
            shown.insert("created_time".into(), self.wall_ms(start_ns).into());
        }
        if with_parent && let Some(parent) = process.parent {
            let known = self.joins.processes_by_cookie(parent);
            if field == "process" || !self.join.contains_key("parent") {
                self.joined("parent", known.is_some());
            }
            let parent = match known {
                Some(known) => self.process(&format!("{field}.parent_process"), parent, known, false),
                None => json!({ "uid": self.process_uid(parent) }),
            };
            shown.insert("parent_process".into(), parent);
        }
        Value::Object(shown)
    }

    /// A process by its cookie, which is unique within one boot only.
    fn process_uid(&self, cookie: u64) -> String {
        match &self.joins.host().boot_id {
            Some(boot_id) => format!("{boot_id}/{cookie}"),
            None => cookie.to_string(),
        }
    }

    /// Wall time of a boot time, by this record's own two clocks.
    fn wall_ms(&self, boot_ns: u64) -> u64 {
        let draft = &self.record.draft;
        draft.wall.0.saturating_sub(draft.boot.0.saturating_sub(boot_ns)) / NS_PER_MS
    }

    fn file(&mut self, field: &str, path: &[u8], mode: Option<u32>) -> Value {
        let path_text = self.text(&format!("{field}.path"), path);
        let name = match base_name(&path_text) {
            "" => "/",
            name => name,
        };
        let (type_id, type_name) = file_type(mode);
        let mut file = json!({ "name": name, "type_id": type_id, "type": type_name, "path": path_text });
        if let (Some(file), Some((folder, _))) = (file.as_object_mut(), path_text.rsplit_once('/')) {
            let folder = if folder.is_empty() { "/" } else { folder };
            file.insert("parent_folder".into(), folder.into());
        }
        file
    }

    /// Bytes as text. What is not UTF-8 is escaped, and kept exactly in `bytes_b64`.
    fn text(&mut self, field: &str, bytes: &[u8]) -> String {
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_not_utf8) => {
                self.raw.insert(field.to_owned(), STANDARD.encode(bytes).into());
                printable_bytes(bytes)
            }
        }
    }

    fn claim(&mut self, name: &str, value: &Text<'_>) {
        let value = self.text(&format!("claims.{name}"), value.as_bytes());
        self.claims.insert(name.to_owned(), value.into());
    }

    fn marks(&mut self, marks: ActMarks) {
        let names: Vec<Value> = marks.words().map(Value::from).collect();
        self.truncated |=
            [ActMarks::NO_STRINGS, ActMarks::PATH_PARTIAL, ActMarks::ARGV_TRUNCATED, ActMarks::CLAIM_TRUNCATED]
                .into_iter()
                .any(|mark| marks.contains(mark));
        if !names.is_empty() {
            self.affiant.insert("marks".into(), names.into());
        }
    }

    fn status(&mut self, errno: Option<u32>) {
        match errno {
            Some(0) => {
                self.put("status_id", 1);
                self.put("status", "Success");
            }
            Some(errno) => {
                self.put("status_id", 2);
                self.put("status", "Failure");
                self.put("status_code", errno_name(errno));
            }
            None => {
                self.put("status_id", 0);
                self.put("status", "Unknown");
                self.put("status_detail", "result not observed");
            }
        }
    }

    fn finish(mut self) -> Value {
        let record = self.record;
        let index = record.index().0;
        self.put("time", record.draft.wall.0 / NS_PER_MS);
        self.put("severity_id", 1);
        self.put("severity", "Informational");
        let host = self.joins.host();
        let mut product = json!({ "name": "Affiant", "vendor_name": "Affiant" });
        if let (Some(product), Some(version)) = (product.as_object_mut(), &host.agent_version) {
            product.insert("version".into(), version.clone().into());
        }
        let mut metadata = json!({
            "version": OCSF_VERSION,
            "product": product,
            "profiles": ["host"],
            "uid": dedupe_id(self.at.origin, index),
            "sequence": index,
            "log_name": self.at.origin,
            "log_provider": "affiant",
            "event_code": record.body().kind().as_str(),
            "original_time": record.draft.wall.0.to_string(),
        });
        let session = record.draft.session.and_then(|index| self.joins.session(index));
        if let Some(metadata) = metadata.as_object_mut() {
            if let Some(session) = session {
                metadata.insert("correlation_uid".into(), session.id.clone().into());
            }
            if self.truncated {
                metadata.insert("is_truncated".into(), true.into());
            }
        }
        let mut device = json!({
            "type_id": 0,
            "type": "Unknown",
            "uid": host.machine.as_deref().unwrap_or(self.at.origin),
            "os": { "name": "Linux", "type_id": 200, "type": "Linux" },
        });
        if let Some(boot_id) = &host.boot_id {
            device["boot_uid"] = boot_id.clone().into();
        }
        if let Some(kernel) = &host.kernel {
            device["os"]["kernel_release"] = kernel.clone().into();
        }
        let mut affiant = json!({
            "mapping": MAPPING_VERSION,
            "origin": self.at.origin,
            "index": index,
            "leaf_hash": hex(&self.at.leaf_hash),
            "boot_time_ns": record.draft.boot.0.to_string(),
        });
        if let Some(affiant) = affiant.as_object_mut() {
            if let Some(kernel) = record.draft.kernel {
                affiant.insert(
                    "kernel_number".into(),
                    json!({ "cpu": kernel.cpu, "class": kernel.class.name(), "seq": kernel.seq.to_string() }),
                );
            }
            if let Some(issued) = record.draft.session {
                affiant.insert("session_entry".into(), issued.0.into());
            }
            if let Some(number) = record.placement.session_number {
                affiant.insert("session_number".into(), number.0.into());
            }
            affiant.append(&mut self.affiant);
            affiant.insert("join".into(), std::mem::take(&mut self.join).into());
            affiant.insert("claims".into(), std::mem::take(&mut self.claims).into());
            if !self.raw.is_empty() {
                affiant.insert("bytes_b64".into(), std::mem::take(&mut self.raw).into());
            }
        }
        self.put("metadata", metadata);
        self.put("device", device);
        self.put("unmapped", json!({ "affiant": affiant }));
        Value::Object(self.fields)
    }
}

fn network_activity(errno: Option<u32>) -> Activity {
    match errno {
        Some(0) => activity(1, "Open"),
        Some(ECONNREFUSED) => activity(5, "Refuse"),
        Some(_) => activity(4, "Fail"),
        None => activity(0, "Unknown"),
    }
}

/// IANA protocol numbers. A word that stands for several protocols has none.
fn protocol_number(proto: Transport) -> Option<u32> {
    match proto {
        Transport::Icmp => Some(1),
        Transport::Tcp => Some(6),
        Transport::Udp => Some(17),
        Transport::Icmp6 => Some(58),
        Transport::Sctp => Some(132),
        Transport::Mptcp | Transport::Other => None,
    }
}

/// The schema wants a name or a uid; no name was resolved, so the address is its own name.
fn endpoint(address: SocketAddr) -> Value {
    let ip = unmapped_ip(address.ip()).to_string();
    json!({ "ip": ip, "name": ip, "port": address.port() })
}

/// An IPv4 address inside an IPv6 socket is shown as IPv4, which is what went over the wire.
fn unmapped_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

fn user(uid: u32) -> Value {
    json!({ "uid": uid.to_string() })
}

/// A file's own name within one boot: device and inode.
fn file_uid(major: u32, minor: u32, ino: u64) -> String {
    format!("{major}:{minor}:{ino}")
}

fn base_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// The type bits of `st_mode` (inode(7)) as OCSF file types.
fn file_type(mode: Option<u32>) -> (u32, &'static str) {
    match mode.map(|mode| mode & 0o170_000) {
        Some(0o100_000) => (1, "Regular File"),
        Some(0o040_000) => (2, "Folder"),
        Some(0o020_000) => (3, "Character Device"),
        Some(0o060_000) => (4, "Block Device"),
        Some(0o140_000) => (5, "Local Socket"),
        Some(0o010_000) => (6, "Named Pipe"),
        Some(0o120_000) => (7, "Symbolic Link"),
        _ => (0, "Unknown"),
    }
}

/// Names of `O_*` flags (include/uapi/asm-generic/fcntl.h; the values of x86 and arm64 agree for
/// these). The access mode is two bits of which 0 means read.
#[must_use]
pub fn open_flag_names(flags: u32) -> Vec<&'static str> {
    let access = match flags & 0o3 {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        2 => "O_RDWR",
        _ => "O_ACCMODE",
    };
    let known =
        [(0o100, "O_CREAT"), (0o200, "O_EXCL"), (0o1000, "O_TRUNC"), (0o2000, "O_APPEND"), (0o10_000_000, "O_PATH")];
    let mut names = vec![access];
    names.extend(known.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name));
    names
}

/// The name of an error number (include/uapi/asm-generic/errno.h), for those that the calls
/// recorded give; any other as its number.
#[must_use]
pub fn errno_name(errno: u32) -> String {
    let name = match errno {
        1 => "EPERM",
        2 => "ENOENT",
        3 => "ESRCH",
        4 => "EINTR",
        5 => "EIO",
        6 => "ENXIO",
        7 => "E2BIG",
        8 => "ENOEXEC",
        9 => "EBADF",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        16 => "EBUSY",
        17 => "EEXIST",
        18 => "EXDEV",
        19 => "ENODEV",
        20 => "ENOTDIR",
        21 => "EISDIR",
        22 => "EINVAL",
        23 => "ENFILE",
        24 => "EMFILE",
        26 => "ETXTBSY",
        27 => "EFBIG",
        28 => "ENOSPC",
        29 => "ESPIPE",
        30 => "EROFS",
        31 => "EMLINK",
        34 => "ERANGE",
        36 => "ENAMETOOLONG",
        38 => "ENOSYS",
        39 => "ENOTEMPTY",
        40 => "ELOOP",
        61 => "ENODATA",
        75 => "EOVERFLOW",
        95 => "EOPNOTSUPP",
        97 => "EAFNOSUPPORT",
        98 => "EADDRINUSE",
        99 => "EADDRNOTAVAIL",
        100 => "ENETDOWN",
        101 => "ENETUNREACH",
        103 => "ECONNABORTED",
        104 => "ECONNRESET",
        106 => "EISCONN",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        112 => "EHOSTDOWN",
        113 => "EHOSTUNREACH",
        114 => "EALREADY",
        115 => "EINPROGRESS",
        122 => "EDQUOT",
        126 => "ENOKEY",
        127 => "EKEYEXPIRED",
        128 => "EKEYREVOKED",
        129 => "EKEYREJECTED",
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
pub(crate) mod tests;
