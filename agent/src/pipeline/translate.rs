//! From a decoded kernel event to the body of its record: nothing is looked up, nothing is guessed.
//!
//! Pure. Facts go to the body's members, what the workload could have written goes to its `claims`; every flag of
//! the kernel side that limits what was observed becomes a mark. Paths are turned round in a buffer that is used
//! again for every event.

#![forbid(unsafe_code)]

mod privilege;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use agent_common::cgroup::cgroup_flag;
use agent_common::change::{Facts, change_flag};
use agent_common::connect::{AF_INET, connect_flag};
use agent_common::file::{open_flag, path_flag};
use agent_common::header::flag;
use agent_common::process::exec_flag;
use agent_common::socket::socket_flag;
use agent_evidence::record::{
    Accept, ActMarks, Body, Capabilities, Cgroup, CgroupId, CgroupOp, ChangeClaims, CommClaims, Connect, ConnectDone,
    ConnectUnix, ConnectVsock, Device, Digest, Exec, ExecBefore, ExecClaims, Exit, FileChange, FileClose, FileMap,
    FileOp, FileReceived, Flow, Fork, Listen, Nanoseconds, Open, OpenClaims, Send, SocketCookie, SocketMade, Text,
    Transport, ValueList,
};

use crate::event::calls::AT_FDCWD;
use crate::event::{self, Event, Header, WalkedPath};

/// The kernel's mark on an open that created the file (`FMODE_CREATED`, include/linux/fs.h).
const FMODE_CREATED: u32 = 0x10_0000;

/// Buffers for paths in reading order.
#[derive(Debug, Default)]
pub(super) struct Paths {
    path: Vec<u8>,
    cwd: Vec<u8>,
    cgroup: Vec<u8>,
    is_cgroups_own: bool,
}

impl Paths {
    /// The path of the event that was turned last.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Keeps the path of a cgroup that the kernel side could not read; `is_own` says whether it is the real one, which
    /// alone goes into a record.
    pub(super) fn name(&mut self, path: &[u8], is_own: bool) {
        self.cgroup.clear();
        self.cgroup.extend_from_slice(path);
        self.is_cgroups_own = is_own;
    }

    /// What was kept.
    pub(super) fn named(&self) -> &[u8] {
        &self.cgroup
    }

    /// The path for a record of a cgroup: the kernel side's, or the one that was kept when that had none.
    fn of_cgroup<'a>(&'a self, kernels: &'a [u8]) -> &'a [u8] {
        match kernels {
            [] if self.is_cgroups_own => &self.cgroup,
            kernels => kernels,
        }
    }

    /// Turns the paths of an event round. Call before [`body`].
    pub(super) fn turn(&mut self, event: &Event<'_>) {
        self.path.clear();
        self.cwd.clear();
        match event {
            Event::Exec(exec) => {
                exec.path.write(&mut self.path);
                exec.cwd.write(&mut self.cwd);
            }
            Event::Open(open) => open.path.write(&mut self.path),
            Event::Change(change) => change.path.write(&mut self.path),
            Event::Close(close) => close.path.write(&mut self.path),
            Event::MapCall(mapped) => mapped.path.write(&mut self.path),
            Event::ConnectUnix(connect) => {
                // In the mount namespace of who bound the socket, which has a root even if it is not the caller's.
                let flags = connect.path.flags & !path_flag::DETACHED;
                WalkedPath { flags, ..connect.path }.write(&mut self.path);
            }
            Event::Mount(mount) => mount.path.write(&mut self.path),
            Event::KernelLoad(load) => load.path.write(&mut self.path),
            Event::FileMap(seen) | Event::FileReceived(seen) => seen.path.write(&mut self.path),
            _ => {}
        }
    }
}

/// The body of the record of `event`, whose paths `paths` has turned round.
pub(super) fn body<'a>(event: &'a Event<'_>, paths: &'a Paths) -> Body<'a> {
    match event {
        Event::Fork(fork) => Body::Fork(self::fork(fork)),
        Event::Exec(exec) => Body::Exec(self::exec(exec, paths)),
        Event::Exit(exit) => Body::Exit(self::exit(exit)),
        Event::CgroupCreate(life) => Body::Cgroup(cgroup_life(life, CgroupOp::Create, paths)),
        Event::CgroupRemove(life) => Body::Cgroup(cgroup_life(life, CgroupOp::Remove, paths)),
        Event::CgroupMove(moved) => Body::Cgroup(cgroup_move(moved, paths)),
        Event::Connect(connect) => Body::Connect(self::connect(connect)),
        Event::ConnectDone(connect) => Body::ConnectDone(connect_done(connect)),
        Event::Open(open) => Body::Open(self::open(open, paths)),
        Event::Change(change) => Body::FileChange(self::change(change, paths)),
        Event::Close(close) => Body::FileClose(self::close(close, paths)),
        Event::MapCall(mapped) => Body::FileMap(map_call(mapped, paths)),
        Event::Send(send) => Body::Send(self::send(send)),
        Event::Flow(flow) => Body::Flow(self::flow(flow)),
        Event::Listen(listen) => Body::Listen(self::listen(listen)),
        Event::Accept(accept) => Body::Accept(self::accept(accept)),
        Event::ConnectUnix(connect) => Body::ConnectUnix(connect_unix(connect, paths)),
        Event::ConnectVsock(connect) => Body::ConnectVsock(connect_vsock(connect)),
        Event::SocketMade(made) => Body::Socket(socket_made(made)),
        Event::ExecFailed(failed) => Body::ExecFailed(privilege::exec_failed(failed)),
        Event::Creds(change) => Body::Creds(privilege::creds(change)),
        Event::Access(access) => Body::ProcessAccess(privilege::access(access)),
        Event::Signal(signal) => Body::Signal(privilege::signal(signal)),
        Event::Mount(mount) => Body::Mount(privilege::mounted(mount, paths)),
        Event::Namespace(change) => Body::Namespace(privilege::namespaces(change)),
        Event::Bpf(call) => Body::Bpf(privilege::bpf(call)),
        Event::KernelLoad(load) => Body::KernelLoad(privilege::kernel_load(load, paths)),
        Event::Key(key) => Body::Key(privilege::key(key)),
        Event::IoUring(ring) => Body::IoUring(privilege::io_uring(ring)),
        Event::FileMap(seen) => Body::FileMap(file_map(seen, paths)),
        Event::FileReceived(seen) => Body::FileReceived(file_received(seen, paths)),
    }
}

/// Whether an act could end what the agent can vouch for, so that an anchor over it should come soon: one against the
/// agent, or code for the kernel that was not refused.
pub(super) fn is_grave(body: &Body<'_>) -> bool {
    let marks = match body {
        Body::KernelLoad(load) => return load.errno == Some(0),
        Body::ProcessAccess(access) => access.marks,
        Body::Signal(signal) => signal.marks,
        Body::Bpf(call) => call.marks,
        _ => return false,
    };
    marks.contains(ActMarks::AGAINST_AGENT)
}

fn comm<'a>(header: &'a Header<'_>) -> CommClaims<'a> {
    CommClaims { comm: Text::new(header.comm.0) }
}

fn marks(header: &Header<'_>) -> ActMarks {
    ActMarks::NONE
        .with(ActMarks::NO_STRINGS, header.flags & flag::NO_SCRATCH != 0)
        .with(ActMarks::IO_WORKER, header.flags & flag::IO_WORKER != 0)
        .with(ActMarks::DEFERRED, header.flags & flag::DEFERRED != 0)
}

fn path_marks(marks: ActMarks, path: &WalkedPath<'_>) -> ActMarks {
    marks
        .with(ActMarks::PATH_PARTIAL, path.flags & path_flag::COMPLETE == 0)
        .with(ActMarks::PATH_DETACHED, path.flags & path_flag::DETACHED != 0)
        .with(ActMarks::PATH_UNLINKED, path.flags & path_flag::UNLINKED != 0)
        .with(ActMarks::PATH_UNREADABLE, path.flags & path_flag::UNREADABLE != 0)
}

/// The kernel's internal device number: major in the upper 12 bits, minor in the lower 20 (include/linux/kdev_t.h).
fn device(dev: u32) -> Device {
    Device { major: dev >> 20, minor: dev & 0xf_ffff }
}

fn euid(header: &Header<'_>) -> Option<u32> {
    (header.euid != header.uid).then_some(header.euid)
}

fn known(id: u64) -> Option<CgroupId> {
    (id != 0).then_some(CgroupId(id))
}

fn fork<'a>(event: &'a event::Fork<'_>) -> Fork<'a> {
    let header = &event.header;
    Fork {
        child: event.child(),
        child_tgid: event.child_tgid,
        child_start: event.child_start,
        flags: None,
        child_cgroup: (event.child_cgroup_id != header.cgroup_id).then_some(CgroupId(event.child_cgroup_id)),
        tgid: header.tgid,
        uid: header.uid,
        marks: marks(header),
        claims: comm(header),
    }
}

fn exec<'a>(event: &'a event::Exec<'_>, paths: &'a Paths) -> Exec<'a> {
    let (header, wire) = (&event.header, &event.wire);
    let flags = wire.exec_flags;
    let cwd_unsure = event.cwd.flags & path_flag::COMPLETE == 0
        || event.cwd.flags & (path_flag::DETACHED | path_flag::UNLINKED | path_flag::UNREADABLE) != 0;
    // The kernel names a memfd's file `memfd:` and whatever the caller chose (mm/memfd.c), on a mount outside every
    // namespace; a file of that name on a real mount is not detached.
    let memfd = event.path.flags & path_flag::DETACHED != 0 && paths.path.starts_with(b"memfd:");
    Exec {
        path: (!paths.path.is_empty()).then(|| Text::new(&paths.path).into()),
        script: None,
        argv: ValueList::Nul(event.argv),
        argc: wire.argc,
        cwd: (!paths.cwd.is_empty()).then(|| Text::new(&paths.cwd).into()),
        tgid: header.tgid,
        parent: header.parent(),
        uid: header.uid,
        gid: header.gid,
        euid: header.euid,
        egid: header.egid,
        suid: wire.suid,
        sgid: wire.sgid,
        login_uid: (wire.loginuid != u32::MAX).then_some(wire.loginuid),
        caps: Capabilities(wire.cap_effective),
        caps_permitted: event.more.map(|more| Capabilities(more.cap_permitted)),
        caps_ambient: event.more.map(|more| Capabilities(more.cap_ambient)),
        before: event.more.and_then(|more| before(header, wire, &more)),
        ino: wire.ino,
        dev: device(wire.dev),
        nlink: wire.nlink,
        mode: u32::from(wire.mode),
        size: wire.size,
        ctime: None,
        sha256: event.more.and_then(|more| more.sha256).map(Digest),
        marks: path_marks(marks(header), &event.path)
            .with(ActMarks::CWD_UNSURE, cwd_unsure)
            .with(ActMarks::ARGV_TRUNCATED, flags & exec_flag::ARGV_TRUNCATED != 0)
            .with(ActMarks::ARGV_UNREAD, flags & exec_flag::ARGV_UNREAD != 0)
            .with(ActMarks::CLAIM_TRUNCATED, flags & exec_flag::NAME_TRUNCATED != 0)
            .with(ActMarks::BY_THREAD, flags & exec_flag::BY_THREAD != 0)
            .with(ActMarks::SET_ID, flags & exec_flag::SET_ID != 0)
            .with(ActMarks::FILE_CAPS, flags & exec_flag::FILE_CAPS != 0)
            .with(ActMarks::MEMFD, memfd),
        claims: ExecClaims {
            comm: Text::new(header.comm.0),
            invoked: (!event.invoked.0.is_empty()).then(|| Text::new(event.invoked.0).into()),
        },
    }
}

/// What the exec changed; none when it changed nothing. An id of `u32::MAX` was not known to the kernel side.
fn before(header: &Header<'_>, wire: &agent_common::process::Exec, more: &event::ExecMore) -> Option<ExecBefore> {
    if more.before_euid == u32::MAX {
        return None;
    }
    let before = ExecBefore {
        euid: (more.before_euid != header.euid).then_some(more.before_euid),
        egid: (more.before_egid != header.egid).then_some(more.before_egid),
        caps: (more.before_cap_effective != wire.cap_effective).then_some(Capabilities(more.before_cap_effective)),
    };
    (before.euid.is_some() || before.egid.is_some() || before.caps.is_some()).then_some(before)
}

fn exit<'a>(event: &'a event::Exit<'_>) -> Exit<'a> {
    // wait(2): the low seven bits are the signal, 0x80 a core dump, the next byte the code.
    let signal = event.status & 0x7f;
    Exit {
        tgid: event.header.tgid,
        code: (signal == 0).then_some((event.status >> 8) & 0xff),
        signal: (signal != 0).then_some(signal),
        uid: event.header.uid,
        user_time: None,
        system_time: None,
        marks: marks(&event.header),
        claims: comm(&event.header),
    }
}

/// A path cut short by the kernel side is partial; one that it did not read, and that was found elsewhere, is whole.
fn is_partial(kernels: &[u8], path: &[u8], flags: u16) -> bool {
    flags & cgroup_flag::PATH_TRUNCATED != 0 && (!kernels.is_empty() || path.is_empty())
}

fn cgroup_life<'a>(event: &'a event::CgroupLife<'_>, op: CgroupOp, paths: &'a Paths) -> Cgroup<'a> {
    let path = paths.of_cgroup(event.path);
    Cgroup {
        op,
        id: CgroupId(event.id),
        path: (!path.is_empty()).then(|| Text::new(path)),
        parent: known(event.parent_id),
        moved: None,
        moved_tgid: None,
        scope_before: None,
        scope_after: None,
        tgid: event.header.tgid,
        uid: event.header.uid,
        marks: marks(&event.header).with(ActMarks::PATH_PARTIAL, is_partial(event.path, path, event.flags)),
        claims: comm(&event.header),
    }
}

fn cgroup_move<'a>(event: &'a event::CgroupMove<'_>, paths: &'a Paths) -> Cgroup<'a> {
    let path = paths.of_cgroup(event.path);
    Cgroup {
        op: CgroupOp::Move,
        id: CgroupId(event.to_id),
        path: (!path.is_empty()).then(|| Text::new(path)),
        parent: None,
        moved: Some(event.process()),
        moved_tgid: Some(event.moved_tgid),
        scope_before: known(event.scope_before),
        scope_after: known(event.scope_after),
        tgid: event.header.tgid,
        uid: event.header.uid,
        marks: marks(&event.header)
            .with(ActMarks::PATH_PARTIAL, is_partial(event.path, path, event.flags))
            .with(ActMarks::WHOLE_PROCESS, event.flags & cgroup_flag::WHOLE_PROCESS != 0),
        claims: comm(&event.header),
    }
}

fn address(family: u16, bytes: [u8; 16], port: u16) -> SocketAddr {
    let ip = if family == AF_INET {
        let [a, b, c, d, ..] = bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(bytes))
    };
    SocketAddr::new(ip, port)
}

/// By the kernel's protocol number (include/uapi/linux/in.h).
fn transport(protocol: u16) -> Transport {
    match protocol {
        6 => Transport::Tcp,
        17 => Transport::Udp,
        1 => Transport::Icmp,
        58 => Transport::Icmp6,
        132 => Transport::Sctp,
        262 => Transport::Mptcp,
        _ => Transport::Other,
    }
}

/// What both records of a connection have in common.
struct Ends {
    proto: Transport,
    local: Option<SocketAddr>,
    remote: SocketAddr,
    errno: Option<u32>,
    marks: ActMarks,
}

fn ends(event: &event::Connect<'_>) -> Ends {
    let at = &event.endpoints;
    let flags = at.connect_flags;
    let observed = flags & connect_flag::RESULT_UNOBSERVED == 0;
    Ends {
        proto: transport(at.protocol),
        local: (flags & connect_flag::LOCAL_KNOWN != 0).then(|| address(at.family, at.local, at.local_port)),
        remote: address(at.family, at.remote, at.remote_port),
        errno: observed.then(|| at.result.unsigned_abs()),
        marks: marks(&event.header)
            .with(ActMarks::RESULT_NOT_OBSERVED, !observed)
            .with(ActMarks::DONE_FOLLOWS, flags & connect_flag::DONE_FOLLOWS != 0)
            .with(ActMarks::UNTRACKED, flags & connect_flag::UNTRACKED != 0)
            .with(ActMarks::FIRST_OF_MANY, flags & connect_flag::FIRST_OF_MANY != 0)
            .with(ActMarks::RACY, flags & connect_flag::RACY != 0),
    }
}

fn connect<'a>(event: &'a event::Connect<'_>) -> Connect<'a> {
    let Ends { proto, local, remote, errno, marks } = ends(event);
    Connect {
        proto,
        local,
        remote,
        errno,
        socket: SocketCookie(event.endpoints.cookie),
        tgid: event.header.tgid,
        uid: event.header.uid,
        euid: euid(&event.header),
        name: None,
        marks,
        claims: comm(&event.header),
    }
}

fn connect_done<'a>(event: &'a event::Connect<'_>) -> ConnectDone<'a> {
    let Ends { proto, local, remote, errno, marks } = ends(event);
    ConnectDone {
        proto,
        local,
        remote,
        errno,
        socket: SocketCookie(event.endpoints.cookie),
        tgid: event.header.tgid,
        uid: event.header.uid,
        marks,
        claims: comm(&event.header),
    }
}

fn send<'a>(event: &'a event::Connect<'_>) -> Send<'a> {
    let Ends { proto, local, remote, errno, marks } = ends(event);
    Send {
        proto,
        local,
        remote,
        errno,
        bytes: None,
        socket: SocketCookie(event.endpoints.cookie),
        tgid: event.header.tgid,
        uid: event.header.uid,
        euid: euid(&event.header),
        marks,
        claims: comm(&event.header),
    }
}

fn flow<'a>(event: &'a event::Flow<'_>) -> Flow<'a> {
    let (header, at) = (&event.header, &event.endpoints);
    Flow {
        proto: transport(at.protocol),
        local: (at.connect_flags & connect_flag::LOCAL_KNOWN != 0).then(|| address(at.family, at.local, at.local_port)),
        remote: address(at.family, at.remote, at.remote_port),
        socket: SocketCookie(at.cookie),
        sent: event.sent,
        received: event.received,
        began: Some(event.began),
        duration: Some(Nanoseconds(header.boot.0.saturating_sub(event.began.0))),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: marks(header),
        claims: comm(header),
    }
}

fn listen<'a>(event: &'a event::Connect<'_>) -> Listen<'a> {
    let (header, at) = (&event.header, &event.endpoints);
    let Ends { proto, errno, marks, .. } = ends(event);
    Listen {
        proto,
        local: address(at.family, at.local, at.local_port),
        errno,
        socket: SocketCookie(at.cookie),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks,
        claims: comm(header),
    }
}

fn accept<'a>(event: &'a event::Connect<'_>) -> Accept<'a> {
    let (header, at) = (&event.header, &event.endpoints);
    let Ends { proto, remote, marks, .. } = ends(event);
    Accept {
        proto,
        local: address(at.family, at.local, at.local_port),
        remote,
        socket: SocketCookie(at.cookie),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks,
        claims: comm(header),
    }
}

/// A socket of these kinds has a cookie only if somebody asked for one.
fn cookie(cookie: u64) -> Option<SocketCookie> {
    (cookie != 0).then_some(SocketCookie(cookie))
}

fn connect_unix<'a>(event: &'a event::ConnectUnix<'_>, paths: &'a Paths) -> ConnectUnix<'a> {
    let (header, wire) = (&event.header, &event.wire);
    let flags = wire.socket_flags;
    let peer_known = flags & socket_flag::PEER_KNOWN != 0;
    let on_path = flags & socket_flag::PATH != 0;
    let marks = if on_path { path_marks(marks(header), &event.path) } else { marks(header) };
    ConnectUnix {
        path: (on_path && !paths.path.is_empty()).then(|| Text::new(&paths.path).into()),
        abstract_name: (flags & socket_flag::ABSTRACT != 0).then(|| Text::new(event.abstract_name).into()),
        type_: u32::from(wire.socket_type),
        errno: Some(wire.result.unsigned_abs()),
        peer: event.peer(),
        peer_tgid: peer_known.then_some(wire.peer_tgid),
        peer_uid: peer_known.then_some(wire.peer_uid),
        socket: cookie(wire.cookie),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: marks.with(ActMarks::RACY, flags & socket_flag::RACY != 0),
        claims: comm(header),
    }
}

fn connect_vsock<'a>(event: &'a event::ConnectVsock<'_>) -> ConnectVsock<'a> {
    let (header, wire) = (&event.header, &event.wire);
    ConnectVsock {
        cid: wire.cid,
        port: wire.port,
        errno: Some(wire.result.unsigned_abs()),
        socket: cookie(wire.cookie),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: marks(header).with(ActMarks::RACY, wire.socket_flags & socket_flag::RACY != 0),
        claims: comm(header),
    }
}

fn socket_made<'a>(event: &'a event::SocketMade<'_>) -> SocketMade<'a> {
    let (header, wire) = (&event.header, &event.wire);
    SocketMade {
        family: wire.family,
        type_: wire.socket_type,
        protocol: wire.protocol,
        // A descriptor, or what went wrong.
        errno: Some(if wire.result < 0 { wire.result.unsigned_abs() } else { 0 }),
        socket: None,
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: marks(header),
        claims: comm(header),
    }
}

fn open<'a>(event: &'a event::Open<'_>, paths: &'a Paths) -> Open<'a> {
    let (header, wire) = (&event.header, &event.wire);
    let flags = wire.open_flags;
    let observed = flags & open_flag::RESULT_UNOBSERVED == 0;
    let opened = u32::try_from(wire.result).ok().filter(|_| observed);
    let resolved = (opened.is_some() || !observed) && flags & open_flag::UNRESOLVED == 0;
    let racy = flags & open_flag::RACY != 0;
    let marks = if resolved { path_marks(marks(header), &event.path) } else { marks(header) };
    Open {
        path: (resolved && !paths.path.is_empty()).then(|| Text::new(&paths.path).into()),
        oflags: wire.asked_flags,
        fd: opened,
        errno: (observed && opened.is_none()).then(|| wire.result.unsigned_abs()),
        ino: resolved.then_some(wire.ino),
        dev: resolved.then(|| device(wire.dev)),
        mode: resolved.then_some(u32::from(wire.mode)),
        nlink: resolved.then_some(wire.nlink),
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: marks
            .with(ActMarks::CLAIM_TRUNCATED, flags & open_flag::ASKED_TRUNCATED != 0)
            .with(ActMarks::CLAIM_UNREAD, flags & open_flag::ASKED_UNREAD != 0)
            .with(ActMarks::OFLAGS_CLAIMED, flags & open_flag::ASKED_FLAGS_CLAIMED != 0)
            .with(ActMarks::RACY, racy)
            .with(ActMarks::UNRESOLVED, flags & open_flag::UNRESOLVED != 0)
            .with(ActMarks::RESULT_NOT_OBSERVED, !observed)
            .with(ActMarks::CREATED, wire.file_mode & FMODE_CREATED != 0)
            .with(ActMarks::DIFFERS, racy && resolved && differs(event.asked.0, &paths.path)),
        claims: OpenClaims {
            comm: Text::new(header.comm.0),
            asked: (!event.asked.0.is_empty()).then(|| Text::new(event.asked.0).into()),
            dir_fd: (wire.dir_fd != AT_FDCWD).then(|| u32::try_from(wire.dir_fd).ok()).flatten(),
        },
    }
}

/// Marks of what was found by a descriptor.
fn file_marks(header: &Header<'_>, flags: u16, path: &WalkedPath<'_>) -> ActMarks {
    let resolved = flags & (change_flag::BY_NAME | change_flag::UNRESOLVED) == 0;
    let marks = if resolved { path_marks(marks(header), path) } else { marks(header) };
    marks
        .with(ActMarks::RACY, flags & change_flag::RACY != 0)
        .with(ActMarks::UNRESOLVED, flags & change_flag::UNRESOLVED != 0)
}

fn path(paths: &Paths) -> Option<agent_evidence::record::Value<'_>> {
    (!paths.path.is_empty()).then(|| Text::new(&paths.path).into())
}

/// The file of a call on a name is not known: only what was asked for is, which the caller says.
fn change<'a>(event: &'a event::Change<'_>, paths: &'a Paths) -> FileChange<'a> {
    let (header, wire) = (&event.header, &event.wire);
    let flags = wire.change_flags;
    let resolved = flags & (change_flag::BY_NAME | change_flag::UNRESOLVED) == 0;
    let owned = resolved && event.call.op == FileOp::Chown;
    let size = if resolved && event.call.op == FileOp::Truncate {
        Some(wire.size)
    } else {
        // The register that held the length is no claim: a call on a name that set it has made it so.
        event.call.length.filter(|_| flags & change_flag::BY_NAME != 0 && wire.result == 0)
    };
    let truncated = change_flag::ASKED_TRUNCATED | change_flag::SECOND_TRUNCATED;
    let unread = change_flag::ASKED_UNREAD | change_flag::SECOND_UNREAD;
    FileChange {
        op: event.call.op,
        path: path(paths).filter(|_| resolved),
        to: None,
        errno: Some(if wire.result < 0 { wire.result.unsigned_abs() } else { 0 }),
        ino: resolved.then_some(wire.facts.ino),
        dev: resolved.then(|| device(wire.facts.dev)),
        mode: resolved.then_some(u32::from(wire.facts.mode)),
        mode_before: None,
        owner: owned.then_some(wire.owner),
        group: owned.then_some(wire.group),
        size,
        nlink: resolved.then_some(wire.facts.nlink),
        attribute: None,
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: file_marks(header, flags, &event.path)
            .with(ActMarks::CLAIM_TRUNCATED, flags & truncated != 0)
            .with(ActMarks::CLAIM_UNREAD, flags & unread != 0),
        claims: ChangeClaims {
            comm: Text::new(header.comm.0),
            asked: event.asked().map(|claim| Text::new(claim.0).into()),
            asked_to: event.asked_to().map(|claim| Text::new(claim.0).into()),
            dir_fd: event.call.dir_fd,
            to_dir_fd: event.call.to_dir_fd,
        },
    }
}

/// Inode and device; zero for a file that was not resolved, which the marks say.
fn identity(facts: &Facts) -> (u64, Device) {
    (facts.ino, device(facts.dev))
}

fn close<'a>(event: &'a event::Close<'_>, paths: &'a Paths) -> FileClose<'a> {
    let header = &event.header;
    let (ino, dev) = identity(&event.wire.facts);
    FileClose {
        path: path(paths),
        ino,
        dev,
        // Neither is counted: the marks say so.
        read: 0,
        written: 0,
        opened: None,
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: file_marks(header, event.wire.change_flags, &event.path).with(ActMarks::TOTALS_PARTIAL, true),
        claims: comm(header),
    }
}

fn map_call<'a>(event: &'a event::MapCall<'_>, paths: &'a Paths) -> FileMap<'a> {
    let header = &event.header;
    let (ino, dev) = identity(&event.wire.facts);
    FileMap {
        path: path(paths),
        ino,
        dev,
        prot: event.wire.prot,
        flags: event.wire.map_flags,
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: file_marks(header, event.wire.change_flags, &event.path),
        claims: comm(header),
    }
}

fn file_map<'a>(event: &'a event::Seen<'_>, paths: &'a Paths) -> FileMap<'a> {
    let (header, wire) = (&event.header, &event.wire);
    FileMap {
        path: (!paths.path.is_empty()).then(|| Text::new(&paths.path).into()),
        ino: wire.ino,
        dev: device(wire.dev),
        prot: wire.prot,
        flags: wire.map_flags,
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: path_marks(marks(header), &event.path),
        claims: comm(header),
    }
}

fn file_received<'a>(event: &'a event::Seen<'_>, paths: &'a Paths) -> FileReceived<'a> {
    let (header, wire) = (&event.header, &event.wire);
    FileReceived {
        path: (!paths.path.is_empty()).then(|| Text::new(&paths.path).into()),
        ino: wire.ino,
        dev: device(wire.dev),
        sender: None,
        tgid: header.tgid,
        uid: header.uid,
        euid: euid(header),
        marks: path_marks(marks(header), &event.path),
        claims: comm(header),
    }
}

/// Whether the last component that was asked for is not the file's own name. Links make that legitimate, and so is
/// `.` or `..`: the mark tells a reader where to look, it accuses nobody.
fn differs(asked: &[u8], path: &[u8]) -> bool {
    let last = |bytes: &[u8]| bytes.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty()).map(<[u8]>::to_vec);
    match last(asked).as_deref() {
        None | Some(b"." | b"..") => false,
        asked => last(path).as_deref() != asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_each_family_reads_as_people_write_it() {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[127, 0, 0, 1]);
        assert_eq!(address(AF_INET, bytes, 80).to_string(), "127.0.0.1:80");
        let mut bytes = [0; 16];
        bytes[15] = 1;
        assert_eq!(address(10, bytes, 443).to_string(), "[::1]:443");
    }

    #[test]
    fn a_socket_bound_in_another_mount_namespace_has_its_whole_path_and_the_mark() {
        let wire = agent_common::socket::ConnectUnix {
            header: zerocopy::FromZeros::new_zeroed(),
            cookie: 0,
            peer_start_ns: 0,
            peer_tgid: 3,
            peer_uid: 4,
            result: 0,
            socket_type: 1,
            socket_flags: socket_flag::PATH | socket_flag::PEER_KNOWN,
            path_flags: path_flag::COMPLETE | path_flag::DETACHED,
            path_len: 0,
            abstract_len: 0,
            reserved: 0,
        };
        let path = WalkedPath { names: b"docker.sock\0run\0", flags: wire.path_flags };
        let number =
            agent_evidence::record::KernelNumber { cpu: 0, class: agent_evidence::record::Class::Network, seq: 0 };
        let zero = agent_evidence::record::BootTime(0);
        let header = Header {
            number,
            boot: zero,
            cgroup_id: 0,
            scope_id: 0,
            start: zero,
            parent_start: zero,
            tgid: 1,
            tid: 1,
            parent_tgid: 0,
            uid: 0,
            gid: 0,
            euid: 0,
            egid: 0,
            flags: 0,
            comm: event::Claim(b"sh"),
        };
        let event = Event::ConnectUnix(event::ConnectUnix { header, wire, path, abstract_name: b"" });
        let mut paths = Paths::default();
        paths.turn(&event);
        let Body::ConnectUnix(connect) = body(&event, &paths) else { panic!("not a connect_unix") };
        assert_eq!(connect.path, Some(Text::new(b"/run/docker.sock").into()));
        assert_eq!(connect.marks, ActMarks::PATH_DETACHED);
        assert_eq!((connect.peer, connect.peer_tgid, connect.peer_uid), (None, Some(3), Some(4)), "it is gone");
        assert_eq!(connect.abstract_name, None);
    }

    #[test]
    fn names_that_differ_are_marked_and_dots_are_not() {
        assert!(!differs(b"/etc/passwd", b"/etc/passwd"));
        assert!(!differs(b"passwd", b"/etc/passwd"));
        assert!(differs(b"/tmp/link", b"/etc/shadow"));
        assert!(!differs(b"..", b"/etc"));
        assert!(!differs(b"dir/", b"/tmp/dir"));
    }
}
