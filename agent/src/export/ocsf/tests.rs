//! Every mapped kind: what stands where, and that the published schema accepts it.
#![allow(clippy::indexing_slicing, reason = "a test may fail by panicking")]

use agent_evidence::record::{
    Accept, AccessHow, BootTime, BpfCall, Capabilities, CgroupId, Class, CommClaims, ConnectUnix, ConnectVsock,
    ControlNumber, CredentialSet, CredsChanged, Device, Draft, EntryIndex, ExecClaims, ExecFailed, Flow, IoUring,
    Issued, IssuedClaims, KernelCode, KernelLoad, KernelNumber, KeyUse, Label, LeafHash, Listen, MountChanged, MountOp,
    NamespaceChanged, NamespaceOp, Nanoseconds, OpenClaims, Placement, ProcessAccess, ProcessCookie, Requester, Send,
    SessionNumber, SessionSort, SignalSent, SocketCookie, SocketMade, ValueList, WallTime, Workload, WorkloadKind,
    decode,
};

use super::*;

pub(crate) const ORIGIN: &str = "affiant.example/host-1";
const WALL: u64 = 1_795_000_000_123_456_789;
const BOOT: u64 = 5_000_000_000_000;
pub(crate) const SHELL: ProcessCookie = ProcessCookie(77);

/// A log under construction: encodes what it is given and decodes it again.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) entries: Vec<Vec<u8>>,
    session_number: u64,
}

impl Writer {
    pub(crate) fn push(&mut self, process: Option<ProcessCookie>, body: Body<'_>) -> u64 {
        self.push_in(process, None, None, body)
    }

    pub(crate) fn push_in(
        &mut self,
        process: Option<ProcessCookie>,
        workload: Option<u64>,
        session: Option<u64>,
        body: Body<'_>,
    ) -> u64 {
        let index = self.entries.len() as u64;
        let kind = body.kind();
        let in_session = session.is_some() || matches!(body, Body::Issued(_));
        if matches!(body, Body::Issued(_)) {
            self.session_number = 0;
        }
        let draft = Draft {
            wall: WallTime(WALL + index * 1_000_000),
            boot: BootTime(BOOT + index * 1_000_000),
            kernel: kind.is_kernel_event().then_some(KernelNumber { cpu: 1, class: Class::Process, seq: index }),
            process,
            workload: workload.map(EntryIndex),
            session: session.map(EntryIndex),
            verdict: None,
            body,
        };
        let at = Placement {
            index: EntryIndex(index),
            session_number: in_session.then_some(SessionNumber(self.session_number)),
            control_number: kind.is_control().then_some(ControlNumber(index)),
            previous: LeafHash([0; 32]),
            random: [7; 16],
        };
        self.session_number += u64::from(in_session);
        let mut bytes = Vec::new();
        draft.encode(&at, &mut bytes);
        self.entries.push(bytes);
        index
    }

    /// The events of all entries, with what is joined along the way.
    pub(crate) fn events(&self) -> Vec<Option<Value>> {
        let mut joins = JoinTable::default();
        self.entries
            .iter()
            .map(|bytes| {
                let record = decode(bytes).unwrap();
                let event = map(&record, Coordinates { origin: ORIGIN, leaf_hash: [0xab; 32] }, &joins);
                joins.learn(&record);
                event
            })
            .collect()
    }

    fn last_event(&self) -> Value {
        self.events().pop().unwrap().unwrap()
    }
}

fn comm() -> CommClaims<'static> {
    CommClaims { comm: "sh".into() }
}

pub(crate) fn exec<'a>(path: &'a [u8], argv: &'a [u8]) -> Body<'a> {
    Body::Exec(Exec {
        path: Some(path.into()),
        script: None,
        argv: ValueList::Nul(argv),
        argc: 3,
        cwd: Some("/home/user".into()),
        tgid: 4242,
        parent: ProcessCookie(70),
        uid: 1000,
        gid: 1000,
        euid: 0,
        egid: 1000,
        suid: 0,
        sgid: 1000,
        login_uid: Some(1000),
        caps: Capabilities(0x21),
        caps_permitted: None,
        caps_ambient: None,
        before: None,
        ino: 99,
        dev: Device { major: 8, minor: 1 },
        nlink: 1,
        mode: 0o100_755,
        size: 1234,
        ctime: None,
        sha256: None,
        marks: ActMarks::NONE,
        claims: ExecClaims { comm: "sh".into(), invoked: Some("./run".into()) },
    })
}

pub(crate) fn fork() -> Body<'static> {
    Body::Fork(Fork {
        flags: None,
        child: ProcessCookie(78),
        child_tgid: 4243,
        child_start: BootTime(BOOT - 500_000_000),
        child_cgroup: Some(CgroupId(9)),
        tgid: 4242,
        uid: 1000,
        marks: ActMarks::NONE,
        claims: comm(),
    })
}

pub(crate) fn exit(code: Option<u32>, signal: Option<u32>) -> Body<'static> {
    Body::Exit(Exit {
        tgid: 4242,
        code,
        signal,
        uid: 1000,
        user_time: None,
        system_time: None,
        marks: ActMarks::NONE,
        claims: comm(),
    })
}

pub(crate) fn connect(remote: &str, errno: Option<u32>) -> Body<'static> {
    Body::Connect(Connect {
        proto: Transport::Tcp,
        local: Some("10.0.0.5:50000".parse().unwrap()),
        remote: remote.parse().unwrap(),
        errno,
        socket: SocketCookie(5),
        tgid: 4242,
        uid: 1000,
        euid: None,
        name: None,
        marks: ActMarks::NONE,
        claims: comm(),
    })
}

pub(crate) fn connect_done(remote: &str, errno: Option<u32>) -> Body<'static> {
    Body::ConnectDone(ConnectDone {
        proto: Transport::Tcp,
        local: None,
        remote: remote.parse().unwrap(),
        errno,
        socket: SocketCookie(5),
        tgid: 4242,
        uid: 1000,
        marks: ActMarks::NONE,
        claims: comm(),
    })
}

pub(crate) fn send(remote: &str, marks: ActMarks) -> Body<'static> {
    Body::Send(Send {
        proto: Transport::Udp,
        local: Some("0.0.0.0:50000".parse().unwrap()),
        remote: remote.parse().unwrap(),
        errno: None,
        bytes: None,
        socket: SocketCookie(6),
        tgid: 4242,
        uid: 1000,
        euid: None,
        marks: marks | ActMarks::RESULT_NOT_OBSERVED,
        claims: comm(),
    })
}

pub(crate) fn flow(remote: &str, sent: u64, received: u64) -> Body<'static> {
    Body::Flow(Flow {
        proto: Transport::Tcp,
        local: Some("10.0.0.5:50000".parse().unwrap()),
        remote: remote.parse().unwrap(),
        socket: SocketCookie(5),
        sent,
        received,
        began: Some(BootTime(BOOT - 2_000_000_000)),
        duration: Some(Nanoseconds(2_000_000_000)),
        tgid: 4242,
        uid: 1000,
        euid: None,
        marks: ActMarks::DEFERRED,
        claims: comm(),
    })
}

pub(crate) fn listen(local: &str, errno: u32) -> Body<'static> {
    Body::Listen(Listen {
        proto: Transport::Tcp,
        local: local.parse().unwrap(),
        errno: Some(errno),
        socket: SocketCookie(7),
        tgid: 4242,
        uid: 1000,
        euid: None,
        marks: ActMarks::NONE,
        claims: comm(),
    })
}

pub(crate) fn accept(local: &str, remote: &str) -> Body<'static> {
    Body::Accept(Accept {
        proto: Transport::Tcp,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        socket: SocketCookie(8),
        tgid: 4242,
        uid: 1000,
        euid: None,
        marks: ActMarks::RACY,
        claims: comm(),
    })
}

pub(crate) fn connect_unix(path: Option<&'static [u8]>, name: Option<&'static [u8]>, errno: u32) -> Body<'static> {
    let served = errno == 0;
    Body::ConnectUnix(ConnectUnix {
        path: path.map(Into::into),
        abstract_name: name.map(Into::into),
        type_: 1,
        errno: Some(errno),
        peer: served.then_some(ProcessCookie(60)),
        peer_tgid: served.then_some(60),
        peer_uid: served.then_some(0),
        socket: None,
        tgid: 4242,
        uid: 1000,
        euid: None,
        marks: ActMarks::NONE,
        claims: comm(),
    })
}

pub(crate) fn connect_vsock(cid: u32, port: u32) -> Body<'static> {
    Body::ConnectVsock(ConnectVsock {
        cid,
        port,
        errno: Some(19),
        socket: None,
        tgid: 4242,
        uid: 1000,
        euid: None,
        marks: ActMarks::NONE,
        claims: comm(),
    })
}

pub(crate) fn socket_made(family: u32, errno: u32) -> Body<'static> {
    Body::Socket(SocketMade {
        family,
        type_: 3,
        protocol: 768,
        errno: Some(errno),
        socket: None,
        tgid: 4242,
        uid: 1000,
        euid: None,
        marks: ActMarks::NONE,
        claims: comm(),
    })
}

pub(crate) fn open<'a>(path: Option<&'a [u8]>, errno: Option<u32>, marks: ActMarks) -> Body<'a> {
    Body::Open(Open {
        path: path.map(Into::into),
        oflags: 0o101,
        fd: errno.is_none().then_some(3),
        errno,
        ino: errno.is_none().then_some(12),
        dev: errno.is_none().then_some(Device { major: 8, minor: 1 }),
        mode: errno.is_none().then_some(0o100_644),
        nlink: errno.is_none().then_some(1),
        tgid: 4242,
        uid: 1000,
        euid: None,
        marks,
        claims: OpenClaims { comm: "sh".into(), asked: errno.map(|_| "secret.txt".into()), dir_fd: None },
    })
}

pub(crate) fn workload() -> Body<'static> {
    Body::Workload(Workload {
        sort: WorkloadKind::Session,
        id: "spiffe://local/user/1000/run".into(),
        cgroup: CgroupId(9),
        path: "/affiant/s1".into(),
        how: "issued session".into(),
        labels: vec![Label { name: "team".into(), value: "ml".into() }].into(),
    })
}

pub(crate) fn issued() -> Body<'static> {
    Body::Issued(Issued {
        sort: SessionSort::Run,
        rule: None,
        parent: None,
        id: "s1".into(),
        identity: "spiffe://local/user/1000/run".into(),
        cgroup: CgroupId(9),
        uid: Some(1000),
        gid: Some(1000),
        ttl: Some(Nanoseconds(3_600_000_000_000)),
        by: Some(Requester { process: Some(ProcessCookie(60)), tgid: 60, uid: 1000, gid: 1000 }),
        claims: IssuedClaims { task: Some("train".into()), labels: Vec::new().into() },
    })
}

#[test]
fn an_exec_is_a_launch_with_image_parent_actor_and_place_in_the_log() {
    let mut log = Writer::default();
    let workload = log.push(None, workload());
    let session = log.push_in(None, Some(workload), None, issued());
    let index = log.push_in(Some(SHELL), Some(workload), Some(session), exec(b"/bin/sh", b"sh\0-c\0echo a b\0"));
    let event = log.last_event();
    assert_eq!(event["class_uid"], 1007);
    assert_eq!(event["type_uid"], 100_701);
    assert_eq!(event["launch_type_id"], 3);
    assert_eq!(event["process"]["cmd_line"], "sh -c 'echo a b'");
    assert_eq!(event["process"]["name"], "sh");
    assert_eq!(event["process"]["file"]["uid"], "8:1:99");
    assert_eq!(event["process"]["parent_process"], json!({ "uid": "70" }));
    assert_eq!(event["actor"]["session"]["uid"], "s1");
    assert_eq!(event["actor"]["app_uid"], "spiffe://local/user/1000/run");
    assert_eq!(event["actor"]["user"]["uid"], "0", "the effective user acts");
    assert_eq!(event["metadata"]["uid"], format!("{ORIGIN}#{index}"));
    assert_eq!(event["metadata"]["sequence"], index);
    assert_eq!(event["metadata"]["correlation_uid"], "s1");
    let affiant = &event["unmapped"]["affiant"];
    assert_eq!(affiant["leaf_hash"], "ab".repeat(32));
    assert_eq!(affiant["claims"], json!({ "comm": "sh", "invoked": "./run", "task": "train" }));
    assert_eq!(
        affiant["join"],
        json!({ "parent": "unknown", "process": "unknown", "session": "known", "workload": "known" })
    );
}

#[test]
fn a_fork_is_a_launch_by_the_parent_and_the_child_is_known_afterwards() {
    let mut log = Writer::default();
    log.push(Some(SHELL), exec(b"/bin/sh", b"sh\0"));
    log.push(Some(SHELL), fork());
    let event = log.last_event();
    assert_eq!(event["launch_type_id"], 2);
    assert_eq!(event["process"]["pid"], 4243);
    assert_eq!(event["process"]["path"], "/bin/sh");
    assert_eq!(event["process"]["parent_process"]["pid"], 4242);
    assert_eq!(event["actor"]["process"]["cmd_line"], "sh");
    log.push(Some(ProcessCookie(78)), open(Some(b"/etc/hosts"), None, ActMarks::NONE));
    assert_eq!(log.last_event()["actor"]["process"]["parent_process"]["path"], "/bin/sh");
}

#[test]
fn an_exit_by_code_and_by_signal_is_a_termination() {
    let mut log = Writer::default();
    log.push(Some(SHELL), exit(Some(3), None));
    let event = log.last_event();
    assert_eq!((&event["type_uid"], &event["exit_code"]), (&json!(100_702), &json!(3)));
    log.push(Some(SHELL), exit(None, Some(9)));
    let event = log.last_event();
    assert_eq!(event["exit_code"], Value::Null);
    assert_eq!(event["unmapped"]["affiant"]["signal"], 9);
}

#[test]
fn a_connection_is_open_refused_failed_attempted_or_not_observed() {
    let table = [
        (connect("1.2.3.4:443", Some(0)), 400_101, 1, Value::Null),
        (connect("1.2.3.4:443", Some(115)), 400_199, 0, json!("EINPROGRESS")),
        (connect("[::1]:80", Some(111)), 400_105, 2, json!("ECONNREFUSED")),
        (connect("1.2.3.4:443", Some(101)), 400_104, 2, json!("ENETUNREACH")),
        (connect("1.2.3.4:443", None), 400_100, 0, Value::Null),
        (connect_done("1.2.3.4:443", Some(0)), 400_101, 1, Value::Null),
        (connect_done("1.2.3.4:443", Some(111)), 400_105, 2, json!("ECONNREFUSED")),
    ];
    for (body, type_uid, status_id, code) in table {
        let mut log = Writer::default();
        log.push(Some(SHELL), body);
        let event = log.last_event();
        assert_eq!(event["type_uid"], type_uid);
        assert_eq!(event["status_id"], status_id);
        assert_eq!(event["status_code"], code);
    }
}

#[test]
fn a_mapped_ipv4_address_is_shown_as_ipv4_and_loopback_as_localhost() {
    let mut log = Writer::default();
    log.push(Some(SHELL), connect("[::ffff:127.0.0.1]:8888", Some(0)));
    let event = log.last_event();
    assert_eq!(event["dst_endpoint"], json!({ "ip": "127.0.0.1", "name": "127.0.0.1", "port": 8888 }));
    assert_eq!(event["connection_info"]["boundary_id"], 1);
}

#[test]
fn what_happens_on_connections_has_its_direction_and_its_ends() {
    let event = |body: Body<'_>| {
        let mut log = Writer::default();
        log.push(Some(SHELL), body);
        log.last_event()
    };
    let sent = event(send("1.2.3.4:53", ActMarks::FIRST_OF_MANY));
    assert_eq!((&sent["type_uid"], &sent["status_id"]), (&json!(400_106), &json!(0)));
    assert_eq!(sent["unmapped"]["affiant"]["marks"], json!(["result_not_observed", "first_of_many"]));
    let ended = event(flow("1.2.3.4:443", 10, 20));
    assert_eq!(ended["type_uid"], 400_102);
    assert_eq!(ended["traffic"], json!({ "bytes_out": 10, "bytes_in": 20, "bytes": 30 }));
    assert_eq!(ended["duration"], 2000);
    assert_eq!(ended["connection_info"]["direction_id"], 0, "a flow does not say who began");
    let heard = event(listen("[::]:8080", 0));
    assert_eq!((&heard["type_uid"], &heard["dst_endpoint"]["port"]), (&json!(400_107), &json!(8080)));
    assert_eq!(event(listen("0.0.0.0:1", 98))["type_uid"], 400_104);
    let taken = event(accept("10.0.0.5:8080", "10.0.0.9:40000"));
    assert_eq!(taken["type_uid"], 400_101);
    assert_eq!(taken["connection_info"]["direction"], "Inbound");
    assert_eq!((&taken["src_endpoint"]["ip"], &taken["dst_endpoint"]["ip"]), (&json!("10.0.0.9"), &json!("10.0.0.5")));
}

#[test]
fn sockets_of_the_host_have_names_for_addresses() {
    let event = |body: Body<'_>| {
        let mut log = Writer::default();
        log.push(Some(SHELL), body);
        log.last_event()
    };
    let to_path = event(connect_unix(Some(b"/run/docker.sock"), None, 0));
    assert_eq!(to_path["dst_endpoint"], json!({ "name": "/run/docker.sock" }));
    assert_eq!(to_path["unmapped"]["affiant"]["peer"], json!({ "pid": 60, "uid": "60", "user": { "uid": "0" } }));
    assert_eq!(to_path["connection_info"]["protocol_name"], "unix");
    let hidden = event(connect_unix(None, Some(b"x\xff"), 0));
    assert_eq!(hidden["dst_endpoint"]["name"], "@x\\xff");
    assert_eq!(hidden["unmapped"]["affiant"]["bytes_b64"]["dst_endpoint.name"], STANDARD.encode(b"x\xff"));
    let failed = event(connect_unix(None, None, 2));
    assert_eq!((&failed["type_uid"], &failed["dst_endpoint"]["name"]), (&json!(400_104), &json!("(not resolved)")));
    assert_eq!(event(connect_vsock(2, 1 << 20))["dst_endpoint"], json!({ "name": "vsock:2:1048576", "uid": "2" }));
    let made = event(socket_made(17, 1));
    assert_eq!((&made["type_uid"], &made["status_code"]), (&json!(100_301), &json!("EPERM")));
    assert_eq!(made["kernel"]["name"], "AF_PACKET socket");
}

#[test]
fn opens_say_create_open_or_failure_and_a_failed_path_stays_a_claim() {
    let mut log = Writer::default();
    log.push(Some(SHELL), open(Some(b"/data/out.csv"), None, ActMarks::CREATED));
    let event = log.last_event();
    assert_eq!(event["type_uid"], 100_101);
    assert_eq!(event["file"]["parent_folder"], "/data");
    assert_eq!(event["unmapped"]["affiant"]["open_flags"]["names"], json!(["O_WRONLY", "O_CREAT"]));
    log.push(Some(SHELL), open(None, Some(13), ActMarks::NONE));
    let event = log.last_event();
    assert_eq!((&event["status_id"], &event["status_code"]), (&json!(2), &json!("EACCES")));
    assert_eq!(event["file"]["name"], "(not resolved)");
    assert_eq!(event["unmapped"]["affiant"]["claims"]["asked"], "secret.txt");
}

#[test]
fn bytes_that_are_not_utf8_are_escaped_and_kept_exactly() {
    let mut log = Writer::default();
    log.push(Some(SHELL), open(Some(b"/tmp/\xff\n"), None, ActMarks::NONE));
    let event = log.last_event();
    assert_eq!(event["file"]["path"], "/tmp/\\xff\\n");
    assert_eq!(event["unmapped"]["affiant"]["bytes_b64"]["file.path"], STANDARD.encode(b"/tmp/\xff\n"));
}

#[test]
fn what_was_truncated_says_so() {
    let mut log = Writer::default();
    log.push(Some(SHELL), open(Some(b"/a"), None, ActMarks::PATH_PARTIAL | ActMarks::RACY));
    let event = log.last_event();
    assert_eq!(event["metadata"]["is_truncated"], true);
    assert_eq!(event["unmapped"]["affiant"]["marks"], json!(["path_partial", "racy"]));
}

#[test]
fn kinds_without_a_class_have_no_event() {
    let mut log = Writer::default();
    log.push(None, workload());
    log.push(None, issued());
    assert_eq!(log.events(), [None, None]);
}

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

fn creds(before: CredentialSet, after: CredentialSet) -> Body<'static> {
    Body::Creds(CredsChanged {
        uid: after.uid,
        before,
        after,
        tgid: 4242,
        euid: None,
        marks: ActMarks::NONE,
        claims: comm(),
    })
}

fn access(how: AccessHow, mode: u32, target: ProcessCookie, marks: ActMarks) -> Body<'static> {
    Body::ProcessAccess(ProcessAccess {
        how,
        target,
        target_tgid: 99,
        target_scope: Some(CgroupId(17)),
        mode,
        errno: Some(0),
        tgid: 4242,
        uid: 0,
        euid: None,
        marks,
        claims: comm(),
    })
}

fn load(what: KernelCode, path: Option<&'static [u8]>) -> Body<'static> {
    Body::KernelLoad(KernelLoad {
        what,
        name: Some("dummy".into()),
        path: path.map(|path| Text::new(path).into()),
        sha256: None,
        errno: Some(0),
        tgid: 4242,
        uid: 0,
        euid: None,
        marks: ActMarks::NONE,
        claims: comm(),
    })
}

/// Every kind of privileged act, and a failed exec.
pub(crate) fn privileged() -> Vec<Body<'static>> {
    let (tgid, uid, euid, marks) = (4242, 0, None, ActMarks::NONE);
    vec![
        Body::ExecFailed(ExecFailed {
            errno: 13,
            tgid,
            uid,
            euid,
            marks,
            claims: ExecClaims { comm: "sh".into(), invoked: Some("./tool".into()) },
        }),
        creds(set(0, 0xff), set(1000, 0)),
        creds(set(0, 0xff), set(0, 0)),
        access(AccessHow::Ptrace, 16, ProcessCookie(5), ActMarks::AGAINST_AGENT),
        access(AccessHow::Ptrace, 4, SHELL, marks),
        access(AccessHow::VmWrite, 0x12, ProcessCookie(0), ActMarks::UNRESOLVED),
        Body::Signal(SignalSent {
            target: Some(ProcessCookie(5)),
            target_tgid: 99,
            signal: 9,
            errno: Some(1),
            tgid,
            uid,
            euid,
            marks,
            claims: comm(),
        }),
        Body::Signal(SignalSent {
            target: None,
            target_tgid: 99,
            signal: 15,
            errno: None,
            tgid,
            uid,
            euid,
            marks,
            claims: comm(),
        }),
        Body::Mount(MountChanged {
            op: MountOp::Move,
            source: Some(Text::new(b"/mnt/\xff").into()),
            target: Some("/mnt".into()),
            fstype: Some("tmpfs".into()),
            flags: 4,
            errno: Some(0),
            tgid,
            uid,
            euid,
            marks,
            claims: comm(),
        }),
        Body::Namespace(NamespaceChanged {
            op: NamespaceOp::Unshare,
            flags: 0x1000_0000,
            mount_namespace: Some(1),
            pid_namespace: Some(2),
            network_namespace: None,
            user_namespace: Some(4),
            errno: Some(0),
            tgid,
            uid,
            euid,
            marks,
            claims: comm(),
        }),
        Body::Bpf(BpfCall {
            cmd: 5,
            type_: Some(2),
            id: Some(77),
            name: Some("prog".into()),
            errno: Some(0),
            tgid,
            uid,
            euid,
            marks,
            claims: comm(),
        }),
        load(KernelCode::Module, Some(b"/lib/modules/dummy.ko")),
        load(KernelCode::ModuleRemoved, None),
        load(KernelCode::Kexec, Some(b"/boot/vmlinuz")),
        Body::Key(KeyUse {
            op: 1000,
            serial: Some(5),
            type_: None,
            description: None,
            errno: Some(0),
            tgid,
            uid,
            euid,
            marks,
            claims: comm(),
        }),
        Body::IoUring(IoUring {
            op: 0,
            flags: 0,
            entries: Some(8),
            errno: Some(0),
            tgid,
            uid,
            euid,
            marks,
            claims: comm(),
        }),
    ]
}

#[test]
fn credentials_before_and_after_stand_apart_and_the_activity_says_what_changed() {
    let mut log = Writer::default();
    log.push(Some(SHELL), creds(set(0, 0xff), set(1000, 0)));
    let event = log.last_event();
    assert_eq!((event["class_uid"].as_u64(), event["activity_id"].as_u64()), (Some(1007), Some(5)));
    let act = &event["unmapped"]["affiant"]["act"];
    assert_eq!((act["before"]["uid"].as_u64(), act["after"]["uid"].as_u64()), (Some(0), Some(1000)));
    assert_eq!(act["before"]["permitted"], "00000000000000ff");
    log.push(Some(SHELL), creds(set(0, 0xff), set(0, 0)));
    assert_eq!(log.last_event()["activity_name"], "Change Credentials");
}

#[test]
fn the_process_of_an_access_is_the_one_reached_and_the_actor_is_who_did_it() {
    let mut log = Writer::default();
    log.push(Some(SHELL), access(AccessHow::VmRead, 0x12, ProcessCookie(5), ActMarks::NONE));
    let event = log.last_event();
    assert_eq!((event["class_uid"].as_u64(), event["activity_id"].as_u64()), (Some(1004), Some(7)));
    assert_eq!((event["process"]["pid"].as_u64(), event["actor"]["process"]["pid"].as_u64()), (Some(99), Some(4242)));
    assert_eq!(event["unmapped"]["affiant"]["act"]["target_scope"], "17");
    assert_eq!(event["unmapped"]["affiant"]["join"]["target"], "unknown");
}

#[test]
fn the_source_of_a_mount_is_a_claim_and_its_place_a_fact() {
    let mut log = Writer::default();
    for body in privileged().into_iter().filter(|body| matches!(body, Body::Mount(_))) {
        log.push(Some(SHELL), body);
    }
    let event = log.last_event();
    assert_eq!(event["kernel"]["name"], "mount");
    let affiant = &event["unmapped"]["affiant"];
    assert_eq!((&affiant["act"]["target"], &affiant["act"]["source"]), (&json!("/mnt"), &Value::Null));
    assert!(affiant["claims"]["source"].as_str().unwrap().starts_with("/mnt/"));
    assert!(affiant["bytes_b64"]["act.source"].is_string(), "what is not UTF-8 is kept exactly");
}

/// One log with every mapped kind and every status.
fn every_kind() -> Writer {
    let mut log = Writer::default();
    let workload = log.push(None, workload());
    let session = log.push_in(None, Some(workload), None, issued());
    for body in [
        exec(b"/bin/sh", b"sh\0-c\0x\0"),
        exec(b"/bin/\xff", b"sh\0\xff\0"),
        fork(),
        connect("1.2.3.4:443", Some(0)),
        connect("1.2.3.4:443", Some(115)),
        connect("[2001:db8::1]:443", Some(111)),
        connect("1.2.3.4:443", None),
        connect_done("1.2.3.4:443", Some(110)),
        open(Some(b"/data/out.csv"), None, ActMarks::CREATED),
        open(Some(b"/"), None, ActMarks::RACY),
        open(None, Some(2), ActMarks::NONE),
        exit(Some(0), None),
        exit(None, Some(9)),
        send("1.2.3.4:53", ActMarks::NONE),
        send("[2001:db8::1]:53", ActMarks::FIRST_OF_MANY),
        flow("1.2.3.4:443", 10, u64::from(u32::MAX) * 4),
        listen("0.0.0.0:8080", 0),
        listen("0.0.0.0:8080", 98),
        accept("10.0.0.5:8080", "10.0.0.9:40000"),
        connect_unix(Some(b"/run/docker.sock"), None, 0),
        connect_unix(None, Some(b"\xff"), 0),
        connect_unix(None, None, 2),
        connect_vsock(2, u32::MAX),
        socket_made(17, 0),
        socket_made(99, 97),
    ] {
        log.push_in(Some(SHELL), Some(workload), Some(session), body);
    }
    for body in file::tests::every_kind().into_iter().chain(privileged()) {
        log.push_in(Some(SHELL), Some(workload), Some(session), body);
    }
    // And without anything to join.
    log.push(Some(ProcessCookie(5)), exit(Some(255), None));
    log.push(None, connect("127.0.0.1:1", Some(0)));
    log
}

/// The schemas of OCSF 1.9.0 are not part of the source; `AFFIANT_OCSF_DIR` names a directory that
/// has them, and the test run passes it when it is there.
#[test]
fn every_event_follows_the_published_schema() {
    #[expect(clippy::disallowed_methods, reason = "the test run passes the place of the schemas")]
    let Some(directory) = std::env::var_os("AFFIANT_OCSF_DIR") else {
        eprintln!("AFFIANT_OCSF_DIR is not set: events are not compared with the OCSF schema here");
        return;
    };
    let directory = std::path::PathBuf::from(directory);
    let mut seen = std::collections::BTreeMap::new();
    let load = |name: &str| {
        let text = std::fs::read_to_string(directory.join(name)).unwrap();
        jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
    };
    let process = load("1007_process_activity.schema.json");
    let network = load("4001_network_activity.schema.json");
    let file = load("1001_file_activity.schema.json");
    let kernel = load("1003_kernel_activity.schema.json");
    let memory = load("1004_memory_activity.schema.json");
    for event in every_kind().events().into_iter().flatten() {
        let class = event["class_uid"].as_u64().unwrap();
        let validator = match class {
            1007 => &process,
            4001 => &network,
            1001 => &file,
            1003 => &kernel,
            1004 => &memory,
            other => panic!("no schema for class {other}"),
        };
        let errors: Vec<String> =
            validator.iter_errors(&event).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}\n{event:#}");
        *seen.entry(class).or_insert(0) += 1;
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [(1001, 46), (1003, 10), (1004, 1), (1007, 13), (4001, 16)]);
}
