//! Capture on this host's real kernel: load, attach, act, read back. Needs root (feature `root`) and fails without.
//!
//! Each test has its own pin directory and its own cgroups, so they can run at the same time; each arms its own set
//! of programs. Acts are done by `python3` and `sh` inside a cgroup that the test has put in scope.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use agent::event::{Event, WalkedPath, decode};
use agent::probe::{Probe, ProbeConfig, ProbeError, RingReader, Rings, Tier, TierChoice, hooks};
use agent_common::connect::connect_flag;
use agent_common::file::{open_flag, path_flag};
use agent_common::header::{class, flag};
use agent_common::stats::family;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The object that `cargo xtask build` made.
fn object() -> Vec<u8> {
    let Some(path) = option_env!("AFFIANT_EBPF_OBJECT") else {
        panic!("no eBPF object: run `cargo xtask build` first")
    };
    std::fs::read(path).unwrap()
}

/// A pin root of its own, removed at the end.
struct PinRoot(PathBuf);

impl PinRoot {
    fn new(name: &str) -> Self {
        Self(PathBuf::from(format!("/sys/fs/bpf/affiant-test-{name}-{}", std::process::id())))
    }

    fn config(&self) -> ProbeConfig {
        // Not this process: its own acts are what some tests look at.
        ProbeConfig { object: object(), pin_root: self.0.clone(), agent_tgid: 1, tier: TierChoice::Tracepoint }
    }

    /// The one set below it.
    fn set(&self) -> PathBuf {
        let mut sets: Vec<_> = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(sets.len(), 1, "{sets:?}");
        sets.remove(0)
    }
}

impl Drop for PinRoot {
    fn drop(&mut self) {
        for set in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            for dir in ["links", "progs", "."] {
                let dir = set.path().join(dir);
                for file in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                    let _ = std::fs::remove_file(file.path());
                }
                let _ = std::fs::remove_dir(&dir);
            }
            let _ = std::fs::remove_dir(set.path());
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A cgroup of its own, removed at the end with its children.
struct Cgroup {
    path: PathBuf,
    id: u64,
}

impl Cgroup {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
        let root = root.split(' ').nth(1).unwrap();
        Self::at(Path::new(root).join(format!("affiant-test-{name}-{}", std::process::id())))
    }

    fn at(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        let id = std::fs::metadata(&path).unwrap().ino();
        Self { path, id }
    }

    fn child(&self, name: &str) -> Self {
        Self::at(self.path.join(name))
    }

    /// Runs a Python program inside; its process enters before the first line of `program`.
    fn python(&self, program: &str) -> std::process::ExitStatus {
        let enter = format!("import os\nopen('{}/cgroup.procs','w').write(str(os.getpid()))\n", self.path.display());
        Command::new("python3").args(["-I", "-S", "-c", &(enter + program)]).status().unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Everything in a ring now, decoded, by way of `take`; released.
fn drain(ring: &mut RingReader, mut take: impl FnMut(&Event<'_>)) {
    while let Some(message) = ring.next_message().unwrap() {
        take(&decode(message).unwrap());
    }
    let position = ring.position();
    ring.release(position).unwrap();
}

fn text(path: &WalkedPath<'_>) -> String {
    let mut out = Vec::new();
    path.write(&mut out);
    String::from_utf8(out).unwrap()
}

fn arm(pins: &PinRoot) -> (Probe, Rings) {
    let probe = Probe::arm(&pins.config()).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let rings = probe.rings().unwrap();
    (probe, rings)
}

fn chain(error: &ProbeError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[test]
fn every_hook_of_the_tier_is_attached_on_this_kernel() {
    let pins = PinRoot::new("hooks");
    let (probe, _rings) = arm(&pins);
    let report = probe.report();
    assert!(!report.resumed);
    // Only what this kernel was built without may be missing: modules, kexec.
    let preflight = agent::probe::preflight(Some(&object()), TierChoice::Tracepoint);
    let absent = |hook: &&hooks::Hook| {
        let looked = preflight.features.iter().find(|feature| feature.what == format!("hook {}", hook.name()));
        looked.is_some_and(|feature| feature.found == agent::probe::Found::No)
    };
    let missing: Vec<_> = hooks::of(Tier::Tracepoint).filter(absent).collect();
    assert!(missing.iter().all(|hook| hook.event == "kernel_load"), "{missing:#?}");
    assert_eq!(report.hooks.len() + missing.len(), hooks::of(Tier::Tracepoint).count(), "{:#?}", report.not_covered);
    assert!(report.hooks.iter().all(|hook| hook.pinned && hook.attached_now && hook.tag.len() == 16));
    assert!(probe.check_hooks().unwrap().ok);
    assert!(agent::probe::preflight(Some(&object()), TierChoice::Tracepoint).usable());
    probe.disarm(false).unwrap();
}

#[test]
fn programs_whose_offsets_were_never_set_are_refused_by_the_verifier() {
    let btf = aya::Btf::from_sys_fs().unwrap();
    // The same object that is armed elsewhere, its offsets as it carries them.
    let mut loader = aya::EbpfLoader::new();
    loader.allow_unsupported_maps();
    let mut object = loader.load(&object()).unwrap();
    for (name, tracepoint) in
        [("fork", "sched_process_fork"), ("exec", "sched_process_exec"), ("exit", "sched_process_exit")]
    {
        let program: &mut aya::programs::BtfTracePoint = object.program_mut(name).unwrap().try_into().unwrap();
        let refused = program.load(tracepoint, &btf);
        assert!(matches!(refused, Err(aya::programs::ProgramError::LoadError { .. })), "{name}: {refused:?}");
    }
}

#[test]
fn a_process_is_seen_from_fork_to_exit_with_what_it_was_given() {
    let pins = PinRoot::new("process");
    let cgroup = Cgroup::new("process");
    let (mut probe, mut rings) = arm(&pins);
    probe.scope_set(cgroup.id, cgroup.id, family::ALL).unwrap();
    cgroup.python("import os\nos.chdir('/usr')\nos.execv('/bin/sh',['sh','-c','exit 3','two words',''])");
    cgroup.python("import os,signal\nos.kill(os.getpid(),signal.SIGKILL)");
    let (mut shell, mut code, mut killed, mut child) = (None, None, false, None);
    drain(&mut rings.crit, |event| match event {
        Event::Fork(fork) if fork.header.tgid == std::process::id() => child = Some(fork.child()),
        Event::Exec(exec) if exec.header.scope_id == cgroup.id => {
            assert_eq!(text(&exec.cwd), "/usr");
            assert_eq!(exec.invoked.0, b"/bin/sh");
            assert_eq!(exec.argv, b"sh\0-c\0exit 3\0two words\0\0");
            assert_eq!(exec.wire.argc, 5);
            assert_eq!(exec.wire.path_flags, path_flag::COMPLETE);
            let file = std::fs::metadata(text(&exec.path)).unwrap();
            assert_eq!((exec.wire.ino, exec.wire.size), (file.ino(), file.size()));
            assert_eq!(u32::from(exec.wire.mode), file.mode());
            assert_eq!(exec.wire.ctime_s, file.ctime());
            assert_eq!((exec.header.uid, exec.header.euid), (0, 0));
            shell = Some(exec.header.cookie());
        }
        Event::Exit(exit) if exit.header.scope_id == cgroup.id => {
            if Some(exit.header.cookie()) == shell {
                code = Some(exit.status);
            } else {
                killed |= exit.status == 9;
            }
        }
        _ => {}
    });
    assert!(shell.is_some() && child.is_some());
    assert_eq!(code, Some(3 << 8));
    assert!(killed);
    probe.disarm(false).unwrap();
}

#[test]
fn a_deleted_binary_and_a_memfd_are_recognized_at_exec() {
    let pins = PinRoot::new("memfd");
    let cgroup = Cgroup::new("memfd");
    let (mut probe, mut rings) = arm(&pins);
    probe.scope_set(cgroup.id, cgroup.id, 0).unwrap();
    cgroup.python(
        "import os
fd = os.memfd_create('payload')
os.write(fd, open('/bin/true','rb').read())
os.execve(fd, ['x'], {})",
    );
    let mut seen = None;
    drain(&mut rings.crit, |event| match event {
        Event::Exec(exec) if exec.header.scope_id == cgroup.id => {
            seen = Some((text(&exec.path), exec.wire.nlink, exec.wire.path_flags & path_flag::DETACHED != 0));
        }
        _ => {}
    });
    assert_eq!(seen, Some(("memfd:payload".to_owned(), 0, true)));
    probe.disarm(false).unwrap();
}

#[test]
fn cgroups_are_seen_and_a_process_that_leaves_stays_in_scope() {
    let pins = PinRoot::new("cgroup");
    let (inside, outside) = (Cgroup::new("inside"), Cgroup::new("outside"));
    let (mut probe, mut rings) = arm(&pins);
    probe.scope_set(inside.id, inside.id, family::FILE).unwrap();
    let child = inside.child("child");
    assert!(probe.scopes().unwrap().contains(&(child.id, inside.id, family::FILE)));
    let leave = format!("open('{}/cgroup.procs','w').write(str(os.getpid()))\n", outside.path.display());
    child.python(&format!("{leave}os.open('/etc/passwd',0)\nos.execv('/bin/true',['true'])"));
    let child_id = child.id;
    drop(child);
    let (mut created, mut removed, mut moves, mut exec) = (false, false, Vec::new(), None);
    drain(&mut rings.crit, |event| match event {
        Event::CgroupCreate(life) if life.id == child_id => {
            created = life.parent_id == inside.id && life.scope_id == inside.id && life.path.ends_with(b"/child");
        }
        Event::CgroupRemove(life) if life.id == child_id => removed = life.scope_id == inside.id,
        Event::CgroupMove(moved) if moved.to_id == child_id || moved.to_id == outside.id => {
            moves.push((moved.to_id, moved.scope_before, moved.scope_after));
        }
        Event::Exec(event) if event.header.cgroup_id == outside.id => exec = Some(event.header.scope_id),
        _ => {}
    });
    assert!(created && removed);
    assert_eq!(moves, [(child_id, 0, inside.id), (outside.id, inside.id, inside.id)]);
    assert_eq!(exec, Some(inside.id));
    let mut opened = None;
    drain(&mut rings.bulk, |event| match event {
        Event::Open(open) if text(&open.path) == "/etc/passwd" => {
            opened = Some((open.header.cgroup_id, open.header.scope_id))
        }
        _ => {}
    });
    assert_eq!(opened, Some((outside.id, inside.id)));
    assert!(!probe.scopes().unwrap().iter().any(|scope| scope.0 == child_id));
    probe.disarm(false).unwrap();
}

#[test]
fn opens_have_the_kernels_path_and_say_where_they_cannot_be_sure() {
    let pins = PinRoot::new("open");
    let cgroup = Cgroup::new("open");
    let (mut probe, mut rings) = arm(&pins);
    probe.scope_set(cgroup.id, cgroup.id, family::FILE).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let long = "n".repeat(200);
    std::os::unix::fs::symlink(dir.join("new"), dir.join("link")).unwrap();
    cgroup.python(&format!(
        "import threading
os.chdir('{dir}')
os.open('new', os.O_CREAT|os.O_RDWR, 0o600)
os.open('link', 0)
os.mkdir('{long}')
os.open('{long}/{long}', os.O_CREAT|os.O_WRONLY)
try: os.open('missing', 0)
except OSError: pass
fd = os.open('gone', os.O_CREAT|os.O_RDWR); os.unlink('gone'); os.open('/proc/self/fd/%d' % fd, 0)
os.open('/', os.O_DIRECTORY)
t = threading.Thread(target=lambda: os.open('/etc/hostname', 0)); t.start(); t.join()",
        dir = dir.display(),
    ));
    let mut opens = Vec::new();
    drain(&mut rings.bulk, |event| {
        if let Event::Open(open) = event {
            assert_eq!(open.header.scope_id, cgroup.id);
            let asked = String::from_utf8(open.asked.0.to_vec()).unwrap();
            opens.push((text(&open.path), asked, open.wire));
        }
    });
    let of = |path: &str| {
        let found: Vec<_> = opens.iter().filter(|open| open.0 == path).collect();
        assert!(!found.is_empty(), "{path}: {opens:?}");
        found
    };
    let new = dir.join("new").display().to_string();
    let created = of(&new);
    assert_eq!(created.len(), 2, "the link leads to the file");
    assert!(created[0].2.file_mode & 0x10_0000 != 0 && created[1].2.file_mode & 0x10_0000 == 0);
    assert_eq!(created[0].2.ino, std::fs::metadata(&new).unwrap().ino());
    assert_eq!(created[0].2.asked_flags & 0o103, 0o102);
    assert_eq!(created[0].2.open_flags & open_flag::RACY, 0);
    assert_eq!(of(&format!("{}/{long}/{long}", dir.display())).len(), 1);
    assert!(
        of(&format!("{}/gone", dir.display()))
            .iter()
            .any(|open| open.2.nlink == 0 && open.2.path_flags & path_flag::UNLINKED != 0)
    );
    assert_eq!(of("/").len(), 1);
    let missing: Vec<_> = opens.iter().filter(|open| open.1 == "missing").collect();
    assert_eq!((missing.len(), missing[0].2.result, missing[0].2.dir_fd), (1, -2, -100));
    let racy = of("/etc/hostname");
    assert!(racy[0].2.open_flags & open_flag::RACY != 0 && racy[0].1 == "/etc/hostname");
    probe.disarm(false).unwrap();
}

#[test]
fn connects_have_address_and_result_and_a_late_answer_follows() {
    let pins = PinRoot::new("connect");
    let cgroup = Cgroup::new("connect");
    let (mut probe, mut rings) = arm(&pins);
    probe.scope_set(cgroup.id, cgroup.id, family::NETWORK).unwrap();
    cgroup.python(
        "import sys
sys.path.append(os.path.dirname(os.__file__) + '/lib-dynload')
import _socket as s
l4 = s.socket(2, 1); l4.bind(('127.0.0.1', 0)); l4.listen(9)
l6 = s.socket(10, 1); l6.bind(('::1', 0)); l6.listen(9)
c = s.socket(2, 1); c.connect(l4.getsockname())
c6 = s.socket(10, 1); c6.connect(l6.getsockname())
u = s.socket(2, 2); u.connect(('127.0.0.9', 53))
r = s.socket(2, 1)
try: r.connect(('127.0.0.1', 1))
except OSError: pass
n = s.socket(2, 1); n.setblocking(False)
try: n.connect(l4.getsockname())
except OSError: pass
m = s.socket(2, 1); m.setblocking(False)
try: m.connect(('127.0.0.1', 1))
except OSError: pass
x = s.socket(2, 1)
try: x.sendto(b'hello', 0x20000000, l4.getsockname())
except OSError: pass",
    );
    let (mut connects, mut answers) = (Vec::new(), Vec::new());
    drain(&mut rings.bulk, |event| match event {
        Event::Connect(connect) | Event::Send(connect) => connects.push((connect.header.tgid, connect.endpoints)),
        Event::ConnectDone(connect) => {
            assert!(connect.header.flags & flag::DEFERRED != 0);
            answers.push((connect.header.tgid, connect.endpoints));
        }
        _ => {}
    });
    let remote = |n: usize| {
        let at = connects[n].1.remote;
        if connects[n].1.family == 2 {
            IpAddr::V4(Ipv4Addr::new(at[0], at[1], at[2], at[3]))
        } else {
            IpAddr::V6(Ipv6Addr::from(at))
        }
    };
    let result = |n: usize| (remote(n), connects[n].1.protocol, connects[n].1.result, connects[n].1.connect_flags);
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    assert_eq!(connects.len(), 7, "{connects:?}");
    assert_eq!(result(0), (local, 6, 0, connect_flag::LOCAL_KNOWN));
    assert_eq!(result(1), (IpAddr::V6(Ipv6Addr::LOCALHOST), 6, 0, connect_flag::LOCAL_KNOWN));
    assert_eq!(result(2), ("127.0.0.9".parse().unwrap(), 17, 0, connect_flag::LOCAL_KNOWN));
    assert_eq!(result(3), (local, 6, -111, 0));
    assert_eq!(result(4), (local, 6, -115, connect_flag::DONE_FOLLOWS));
    assert_eq!(result(5), (local, 6, -115, connect_flag::DONE_FOLLOWS));
    assert_eq!(result(6), (local, 6, 0, connect_flag::RESULT_UNOBSERVED), "fast open does not return from connect");
    assert_eq!(answers.len(), 2, "{answers:?}");
    for (answer, (connect, result)) in answers.iter().zip([(4, 0), (5, -111)]) {
        assert_eq!((answer.0, answer.1.cookie), (connects[connect].0, connects[connect].1.cookie));
        assert_eq!(answer.1.result, result);
    }
    probe.disarm(false).unwrap();
}

/// What a Python program needs to make sockets without its standard library, which opens many files.
const SOCKETS: &str = "import sys
sys.path.append(os.path.dirname(os.__file__) + '/lib-dynload')
import _socket as s
def tries(f, *a):
    try: f(*a)
    except OSError: pass
";

/// All network events of a program run in a cgroup of its own, in order of their numbers on one processor.
fn network_events(name: &str, program: &str, mut take: impl FnMut(&Event<'_>)) {
    let pins = PinRoot::new(name);
    let cgroup = Cgroup::new(name);
    let (mut probe, mut rings) = arm(&pins);
    probe.scope_set(cgroup.id, cgroup.id, family::NETWORK).unwrap();
    assert!(cgroup.python(&format!("{SOCKETS}{program}")).success());
    drain(&mut rings.bulk, |event| {
        assert_eq!(event.header().scope_id, cgroup.id);
        take(event);
    });
    let lost = probe.counters().unwrap().totals(class::NETWORK).1;
    assert_eq!(lost, 0);
    probe.disarm(false).unwrap();
}

fn end(family: u16, bytes: [u8; 16], port: u16) -> String {
    let [a, b, c, d, ..] = bytes;
    let ip = if family == 2 { IpAddr::V4(Ipv4Addr::new(a, b, c, d)) } else { IpAddr::V6(Ipv6Addr::from(bytes)) };
    std::net::SocketAddr::new(ip, port).to_string()
}

#[test]
fn datagrams_are_told_once_for_each_address_and_once_more_when_there_are_many() {
    let mut sends = Vec::new();
    network_events(
        "send",
        "u = s.socket(2, 2); u.bind(('127.0.0.1', 0))
for i in range(50):
    for port in (5001, 5002): u.sendto(b'x', ('127.0.0.1', port))
u.sendto(b'x', ('127.0.0.1', 5003))
v = s.socket(10, 2); v.sendto(b'x', ('::1', 5004))
m = s.socket(10, 2); m.sendmsg([b'x'], [], 0, ('::ffff:127.0.0.1', 5005))
if os.fork() == 0:
    for i in range(3): u.sendto(b'x', ('127.0.0.1', 5001))
    os._exit(0)
os.wait()
w = s.socket(2, 2); w.bind(('127.0.0.1', 0))
c = s.socket(2, 2); c.connect(w.getsockname()); c.send(b'x'); c.sendto(b'x', ('127.0.0.1', 5007))",
        |event| {
            if let Event::Send(send) = event {
                let at = &send.endpoints;
                assert_eq!(at.protocol, 17);
                let marks = at.connect_flags & !connect_flag::RESULT_UNOBSERVED & !connect_flag::LOCAL_KNOWN;
                assert!(at.connect_flags & connect_flag::LOCAL_KNOWN != 0 && at.local_port != 0);
                sends.push((
                    end(at.family, at.remote, at.remote_port),
                    at.local_port,
                    marks == connect_flag::FIRST_OF_MANY,
                ));
            }
        },
    );
    let of = |remote: &str| sends.iter().filter(|send| send.0 == remote).map(|send| send.2).collect::<Vec<_>>();
    assert_eq!(of("127.0.0.1:5001"), [false, true, false, true], "the second process is told of for itself");
    assert_eq!(of("127.0.0.1:5002"), [false, true]);
    assert_eq!(of("127.0.0.1:5003"), [false]);
    assert_eq!(of("[::1]:5004"), [false]);
    assert_eq!(of("127.0.0.1:5005"), [false], "a mapped address is what goes over the wire: {sends:?}");
    assert_eq!(of("127.0.0.1:5007"), [false], "an address of its own on a connected socket: {sends:?}");
    assert_eq!(sends.len(), 10, "{sends:?}");
    assert!(sends.iter().take(5).all(|send| send.1 == sends[0].1), "one socket has one port: {sends:?}");
}

#[test]
fn a_flood_of_addresses_makes_more_events_and_never_fewer() {
    const ADDRESSES: usize = 40_000;
    // Twice what the kernel side remembers, and then the first ones again, which it must have forgotten.
    const _: () = assert!(ADDRESSES > 2 * agent_common::limits::SENDS_ENTRIES_MAX as usize);
    let mut sends = std::collections::HashMap::<u16, Vec<bool>>::new();
    network_events(
        "flood",
        &format!(
            "u = s.socket(2, 2)
for port in range(10000, 10000 + {ADDRESSES}): u.sendto(b'x', ('127.0.0.1', port))
for port in range(10000, 10100): u.sendto(b'x', ('127.0.0.1', port))"
        ),
        |event| {
            if let Event::Send(send) = event {
                let many = send.endpoints.connect_flags & connect_flag::FIRST_OF_MANY != 0;
                sends.entry(send.endpoints.remote_port).or_default().push(many);
            }
        },
    );
    assert_eq!(sends.len(), ADDRESSES);
    assert!((10_000..10_100).all(|port| sends[&port] == [false, false]), "the count began again");
}

#[test]
fn connections_are_told_of_at_both_ends_with_their_bytes() {
    let (mut listens, mut accepts, mut connects, mut flows) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    network_events(
        "flow",
        "def both(a, n, m, closer):
    l = s.socket(a, 1); l.bind(('127.0.0.1' if a == 2 else '::1', 0)); l.listen(9)
    c = s.socket(a, 1); c.connect(l.getsockname())
    fd, _ = l._accept(); d = s.socket(fileno=fd)
    def send(x, y, n):
        while n:
            k = x.send(bytes(min(n, 50000))); n -= k
            while k: k -= len(y.recv(k))
    send(c, d, n); send(d, c, m)
    x, y = (c, d) if closer else (d, c)
    x.close(); assert y.recv(1) == b''; y.close(); l.close()
both(2, 1234567, 7654321, True)
both(10, 3, 0, False)
both(10, 0, 0, True)
l = s.socket(2, 1); l.bind(('127.0.0.1', 0)); l.listen(9)
tries(l.listen, 5)
l2 = s.socket(2, 1); tries(l2.bind, l.getsockname()); l2.setsockopt(1, 2, 1)
n = s.socket(2, 1); n.setblocking(False); tries(n.connect, l.getsockname())
fd, _ = l._accept(); d = s.socket(fileno=fd); assert n.send(b'12345') == 5; assert len(d.recv(9)) == 5
r = s.socket(2, 1); tries(r.connect, ('127.0.0.1', 1))
x = s.socket(2, 1); tries(x.setsockopt, 1, 13, bytes([1,0,0,0,0,0,0,0]))
x.connect(l.getsockname()); x.send(b'abc'); fd, _ = l._accept(); y = s.socket(fileno=fd); y.recv(3)
x.setsockopt(1, 13, bytes([1,0,0,0,0,0,0,0])); x.close()
if os.fork() == 0:
    n.close(); os._exit(0)
os.wait(); n.close(); d.close(); y.close()",
        |event| match event {
            Event::Listen(listen) => listens.push((
                end(listen.endpoints.family, listen.endpoints.local, listen.endpoints.local_port),
                listen.endpoints.result,
                listen.endpoints.cookie,
            )),
            Event::Accept(accept) => {
                assert!(accept.endpoints.cookie != 0);
                accepts.push((accept.endpoints.cookie, accept.endpoints));
            }
            Event::Connect(connect) => {
                connects.push((connect.endpoints.cookie, connect.endpoints, connect.header.tgid))
            }
            Event::Flow(flow) => {
                assert!(flow.header.flags & flag::DEFERRED != 0 && flow.began < flow.header.boot);
                flows.push((flow.endpoints.cookie, flow.sent, flow.received, flow.endpoints, flow.header.tgid));
            }
            _ => {}
        },
    );
    assert_eq!(listens.len(), 5, "{listens:?}");
    assert!(listens.iter().all(|(local, result, cookie)| *result == 0 && *cookie != 0 && !local.ends_with(":0")));
    assert_eq!(accepts.len(), 5, "{accepts:?}");
    // One connect was refused: it has no flow. All others have one at each end.
    assert_eq!(connects.len(), 6, "{connects:?}");
    assert_eq!(flows.len(), 10, "{flows:?}");
    let of = |cookie: u64| {
        let found: Vec<_> = flows.iter().filter(|flow| flow.0 == cookie).collect();
        assert_eq!(found.len(), 1);
        (found[0].1, found[0].2)
    };
    let totals = [(1_234_567, 7_654_321), (3, 0), (0, 0), (5, 0), (3, 0)];
    let connected: Vec<_> = connects.iter().filter(|connect| connect.1.result != -111).collect();
    for (n, (sent, received)) in totals.into_iter().enumerate() {
        assert_eq!(of(connected[n].0), (sent, received), "connection {n}");
        assert_eq!(of(accepts[n].0), (received, sent), "its other end");
        // Both ends agree on the addresses.
        let flow = |cookie: u64| flows.iter().find(|flow| flow.0 == cookie).unwrap().3;
        let (near, far) = (flow(connected[n].0), flow(accepts[n].0));
        assert_eq!((near.local, near.local_port), (far.remote, far.remote_port));
        assert_eq!((near.remote, near.remote_port), (far.local, far.local_port));
        assert_eq!(accepts[n].1.remote_port, near.local_port);
        assert!(near.connect_flags & connect_flag::LOCAL_KNOWN != 0);
    }
    assert!(flows.iter().all(|flow| flow.4 == connects[0].2), "whoever closes, it is the maker's");
}

#[test]
fn acts_by_io_uring_reach_the_address_hooks() {
    let (mut connects, mut sends, mut flows) = (Vec::new(), Vec::new(), Vec::new());
    network_events(
        "uring",
        "import ctypes, mmap, struct
c = ctypes.CDLL(None)
p = ctypes.create_string_buffer(120)
ring = c.syscall(425, 4, p); assert ring >= 0
o = struct.unpack('30I', p.raw)
room = mmap.mmap(ring, max(o[16] + 4 * o[0], o[25] + 16 * o[1]), offset=0)
sqes = mmap.mmap(ring, 64 * o[0], offset=0x10000000)
def submit(op, fd, off, addr, n):
    tail = struct.unpack_from('I', room, o[11])[0]; slot = tail % o[0]
    struct.pack_into('BBHiQQIIQ24x', sqes, 64 * slot, op, 0, 0, fd, off, addr, n, 0, 7)
    struct.pack_into('I', room, o[16] + 4 * slot, slot); struct.pack_into('I', room, o[11], tail + 1)
    assert c.syscall(426, ring, 1, 1, 1, None, 0) == 1
    return struct.unpack_from('i', room, o[25] + 16 * (tail % o[1]) + 8)[0]
def address(port):
    return ctypes.create_string_buffer(struct.pack('H', 2) + struct.pack('>H', port) + bytes([127, 0, 0, 1]) + bytes(8), 16)
l = s.socket(2, 1); l.bind(('127.0.0.1', 0)); l.listen(9); port = l.getsockname()[1]
x = s.socket(2, 1); a = address(port)
assert submit(16, x.fileno(), 16, ctypes.addressof(a), 0) == 0
assert x.send(b'1234') == 4
fd, _ = l._accept(); y = s.socket(fileno=fd); assert len(y.recv(9)) == 4; x.close(); y.close()
u = s.socket(2, 2); b = address(5008)
data = ctypes.create_string_buffer(b'x'); vec = (ctypes.c_uint64 * 2)(ctypes.addressof(data), 1)
m = (ctypes.c_uint64 * 7)(ctypes.addressof(b), 16, ctypes.addressof(vec), 1, 0, 0, 0)
assert submit(9, u.fileno(), 0, ctypes.addressof(m), 1) == 1",
        |event| match event {
            Event::Connect(connect) => connects.push(connect.endpoints),
            Event::Send(send) => sends.push(send.endpoints),
            Event::Flow(flow) => flows.push((flow.endpoints, flow.sent, flow.received)),
            _ => {}
        },
    );
    assert_eq!((connects.len(), sends.len(), flows.len()), (1, 1, 2), "{connects:?} {sends:?} {flows:?}");
    assert_eq!(connects[0].connect_flags, connect_flag::RESULT_UNOBSERVED);
    let flow = flows.iter().find(|flow| flow.0.cookie == connects[0].cookie).unwrap();
    assert_eq!((flow.1, flow.2, flow.0.connect_flags), (4, 0, connect_flag::LOCAL_KNOWN));
    assert_eq!((sends[0].protocol, sends[0].remote_port), (17, 5008));
}

#[test]
fn sockets_of_the_host_and_of_unusual_sorts_are_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("a.sock").display().to_string();
    let (mut unix, mut vsock, mut made) = (Vec::new(), Vec::new(), Vec::new());
    let (mut me, mut from_outside) = (None, 0);
    network_events(
        "local",
        &format!(
            "l = s.socket(1, 1); l.bind('{path}'); l.listen(9)
c = s.socket(1, 1); c.connect('{path}')
h = s.socket(1, 5); h.bind(b'\\0hidden\\xff'); h.listen(9)
c2 = s.socket(1, 5); c2.connect(b'\\0hidden\\xff')
import ctypes
if os.fork() == 0:
    if ctypes.CDLL(None).unshare(0x20000): os._exit(1)
    s.socket(1, 1).connect('{path}'); os._exit(0)
assert os.wait()[1] == 0
d = s.socket(1, 2); d.bind('{path}d'); e = s.socket(1, 2); e.connect('{path}d')
tries(e.connect, '{path}none')
tries(c.connect, '/nowhere')
a, b = s.socketpair()
tries(lambda: s.socket(40, 1).connect((77, 1234)))
tries(s.socket, 2, 3, 1)
tries(s.socket, 17, 3, 0x300)
tries(s.socket, 16, 3, 9)
tries(s.socket, 16, 3, 0)
tries(s.socket, 2, 2, 1)
tries(s.socket, 77, 1, 0)
tries(s.socket, 2, 1, 0); tries(s.socket, 10, 2, 17)"
        ),
        |event| match event {
            Event::ConnectUnix(connect) => {
                if connect.path.flags & path_flag::DETACHED != 0 {
                    // In a mount namespace of its own: the socket is bound outside, and its server is who it was.
                    assert_eq!(format!("/{}", text(&connect.path)), path);
                    assert_eq!(connect.peer().map(|peer| (peer, connect.wire.peer_tgid)), me);
                    from_outside += 1;
                    return;
                }
                me = Some((connect.header.cookie(), connect.header.tgid));
                unix.push((
                    text(&connect.path),
                    connect.abstract_name.to_vec(),
                    connect.wire.result,
                    u32::from(connect.wire.socket_type),
                    connect.peer().map(|peer| (peer, connect.wire.peer_tgid)),
                ));
            }
            Event::ConnectVsock(connect) => vsock.push((connect.wire.cid, connect.wire.port, connect.wire.result)),
            Event::SocketMade(socket) => {
                made.push((socket.wire.family, socket.wire.socket_type, socket.wire.protocol, socket.wire.result < 0));
            }
            _ => {}
        },
    );
    let none = Vec::new();
    assert_eq!(from_outside, 1);
    assert_eq!(unix[0], (path.clone(), none.clone(), 0, 1, me));
    assert_eq!(unix[1], (String::new(), b"hidden\xff".to_vec(), 0, 5, me));
    assert_eq!(unix[2], (format!("{path}d"), none.clone(), 0, 2, None), "nobody listens on a datagram socket");
    assert_eq!(unix[3], (String::new(), none.clone(), -2, 2, None));
    assert_eq!((unix[4].2, &unix[4].0), (-2, &String::new()));
    assert_eq!(unix.len(), 5, "{unix:?}");
    assert_eq!(vsock.len(), 1, "{vsock:?}");
    assert_eq!((vsock[0].0, vsock[0].1), (77, 1234));
    assert!(vsock[0].2 < 0);
    let vsock_made = (40, 1, 0, false);
    let unknown = (77, 1, 0, true);
    let kinds: Vec<_> = made.iter().map(|made| (made.0, made.1, made.2)).collect();
    assert_eq!(kinds, [(40, 1, 0), (2, 3, 1), (17, 3, 0x300), (16, 3, 9), (2, 2, 1), (77, 1, 0)]);
    assert!(made.contains(&vsock_made) && made.contains(&unknown), "{made:?}");
}

#[test]
fn an_undrained_ring_loses_events_and_every_one_is_accounted_for() {
    const OPENS: u64 = 120_000;
    let pins = PinRoot::new("loss");
    let cgroups = [Cgroup::new("loss-a"), Cgroup::new("loss-b"), Cgroup::new("loss-idle")];
    let (mut probe, mut rings) = arm(&pins);
    for cgroup in &cgroups {
        probe.scope_set(cgroup.id, cgroup.id, family::FILE).unwrap();
    }
    // What an idle interpreter opens by itself after it entered, which each of the others does too.
    cgroups[2].python("n = 0\nfor i in range(n): os.close(os.open('/etc/hostname', 0))");
    for cgroup in &cgroups[..2] {
        cgroup.python(&format!("n = {OPENS}\nfor i in range(n): os.close(os.open('/etc/hostname', 0))"));
    }
    let counters = probe.counters().unwrap();
    let losses = probe.losses().unwrap();
    let mut received = std::collections::HashMap::new();
    let mut numbers = std::collections::HashSet::new();
    let mut count = |event: &Event<'_>| {
        let header = event.header();
        *received.entry((header.number.class, header.scope_id)).or_insert(0u64) += 1;
        assert!(numbers.insert(header.number), "{:?} came twice", header.number);
    };
    drain(&mut rings.bulk, &mut count);
    drain(&mut rings.crit, &mut count);
    let file = agent_evidence::record::Class::File;
    let (generated, dropped) = counters.totals(class::FILE);
    let all: u64 = received.iter().filter(|((class, _), _)| *class == file).map(|(_, count)| count).sum();
    assert!(dropped > 0, "the ring held {generated} events");
    assert_eq!(generated, all + dropped);
    assert_eq!(losses.iter().filter(|loss| loss.class == class::FILE).map(|loss| loss.count).sum::<u64>(), dropped);
    let of = |cgroup: &Cgroup| {
        let lost = losses.iter().find(|loss| loss.class == class::FILE && loss.scope_id == cgroup.id);
        received.get(&(file, cgroup.id)).copied().unwrap_or(0) + lost.map_or(0, |loss| loss.count)
    };
    let idle = of(&cgroups[2]);
    assert_eq!((of(&cgroups[0]), of(&cgroups[1])), (idle + OPENS, idle + OPENS));
    let (_, process_dropped) = counters.totals(class::PROCESS);
    assert_eq!(process_dropped, 0, "a flood of opens must not push process events out");
    probe.disarm(false).unwrap();
}

#[test]
fn the_reader_is_woken_when_a_quarter_of_the_ring_is_unread() {
    let pins = PinRoot::new("wake");
    let cgroup = Cgroup::new("wake");
    let (mut probe, rings) = arm(&pins);
    probe.scope_set(cgroup.id, cgroup.id, family::FILE).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let woken = runtime.block_on(async {
        // Registered while the ring is empty: what makes it ready after that is a wake-up, and nothing else.
        let fd = std::os::fd::AsFd::as_fd(&rings.bulk).try_clone_to_owned().unwrap();
        #[expect(deprecated, reason = "an owned descriptor gives what the newer, unsafe constructor asks for")]
        let ring = tokio::io::unix::AsyncFd::with_interest(fd, tokio::io::Interest::READABLE).unwrap();
        assert_eq!(rings.bulk.backlog_bytes(), 0);
        let quarter = rings.bulk.capacity_bytes() / 4;
        cgroup.python("for i in range(30000): os.close(os.open('/etc/hostname', 0))");
        assert!(rings.bulk.backlog_bytes() > quarter);
        tokio::time::timeout(std::time::Duration::from_secs(10), ring.readable()).await.map(|ready| ready.is_ok())
    });
    assert_eq!(woken, Ok(true));
    probe.disarm(false).unwrap();
}

#[test]
fn numbers_have_no_holes_while_many_act_and_the_reader_reads() {
    const ACTORS: usize = 4;
    const OPENS: usize = 4_000;
    let pins = PinRoot::new("numbers");
    let cgroup = Cgroup::new("numbers");
    let (mut probe, mut rings) = arm(&pins);
    probe.scope_set(cgroup.id, cgroup.id, family::FILE).unwrap();
    let program = format!(
        "import threading
def f():
    for i in range({OPENS} // 2): os.close(os.open('/etc/hostname', 0))
ts = [threading.Thread(target=f) for i in range(2)]
for t in ts: t.start()
for t in ts: t.join()
for i in range(50):
    if os.fork() == 0: os._exit(0)
    os.wait()"
    );
    let mut numbers = std::collections::HashMap::<_, std::collections::BTreeSet<u64>>::new();
    let mut opens = 0;
    let mut take = |event: &Event<'_>| {
        let number = event.header().number;
        let new = numbers.entry((number.cpu, number.class)).or_default().insert(number.seq);
        assert!(new, "{number:?} came twice");
        opens += usize::from(matches!(event, Event::Open(open) if text(&open.path) == "/etc/hostname"));
    };
    std::thread::scope(|scope| {
        let actors: Vec<_> = (0..ACTORS).map(|_| scope.spawn(|| cgroup.python(&program))).collect();
        while !actors.iter().all(|actor| actor.is_finished()) {
            drain(&mut rings.bulk, &mut take);
            drain(&mut rings.crit, &mut take);
        }
    });
    drain(&mut rings.bulk, &mut take);
    drain(&mut rings.crit, &mut take);
    let counters = probe.counters().unwrap();
    assert!(counters.by_cpu.iter().all(|counter| counter.dropped == 0), "{counters:?}");
    assert_eq!(opens, ACTORS * OPENS);
    for ((cpu, class), seen) in &numbers {
        let last = seen.last().copied().unwrap();
        assert_eq!(seen.len() as u64, last + 1, "cpu {cpu}, {class:?}");
    }
    let files: usize = numbers
        .iter()
        .filter(|((_, class), _)| *class == agent_evidence::record::Class::File)
        .map(|(_, seen)| seen.len())
        .sum();
    assert_eq!(counters.totals(class::FILE).0, files as u64);
    probe.disarm(false).unwrap();
}

#[test]
fn a_scope_that_is_removed_ends_for_those_who_left_it_too() {
    let pins = PinRoot::new("ends");
    let (inside, outside) = (Cgroup::new("ends-in"), Cgroup::new("ends-out"));
    let (mut probe, mut rings) = arm(&pins);
    probe.scope_set(inside.id, inside.id, family::FILE).unwrap();
    let mut actor = Command::new("python3")
        .args(["-I", "-S", "-u", "-c"])
        .arg(format!(
            "import os, sys
for cgroup in ['{}', '{}']: open(cgroup + '/cgroup.procs', 'w').write(str(os.getpid()))
for line in sys.stdin:
    try: os.open(line.strip(), 0)
    except OSError: pass
    print('opened')",
            inside.path.display(),
            outside.path.display(),
        ))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut tell = actor.stdin.take().unwrap();
    let mut said = BufReader::new(actor.stdout.take().unwrap()).lines();
    let mut open = |name: &str| {
        std::io::Write::write_all(&mut tell, format!("{name}\n").as_bytes()).unwrap();
        assert_eq!(said.next().unwrap().unwrap(), "opened");
    };
    open("/in-scope");
    probe.scope_remove(inside.id).unwrap();
    open("/after-the-end");
    probe.scope_set(outside.id, outside.id, family::FILE).unwrap();
    open("/in-another-scope");
    probe.scope_set(outside.id, outside.id, family::NETWORK).unwrap();
    open("/not-wanted");
    drop(tell);
    actor.wait().unwrap();
    let mut seen = Vec::new();
    drain(&mut rings.bulk, |event| match event {
        Event::Open(open) if open.wire.result == -2 => {
            seen.push((String::from_utf8_lossy(open.asked.0).into_owned(), open.header.scope_id));
        }
        _ => {}
    });
    seen.retain(|(asked, _)| {
        ["/in-scope", "/after-the-end", "/in-another-scope", "/not-wanted"].contains(&asked.as_str())
    });
    assert_eq!(seen, [("/in-scope".to_owned(), inside.id), ("/in-another-scope".to_owned(), outside.id)]);
    probe.disarm(false).unwrap();
}

#[test]
fn a_killed_loader_leaves_capture_running_and_the_next_takes_it_over() {
    const ARMED_BY: &str = "AFFIANT_TEST_PIN_ROOT";
    #[expect(clippy::disallowed_methods, reason = "how this test tells its second process what to do")]
    if let Some(root) = std::env::var_os(ARMED_BY) {
        // The second process: arm, say so, and wait to be killed.
        let config = ProbeConfig {
            object: object(),
            pin_root: root.into(),
            agent_tgid: std::process::id(),
            tier: TierChoice::Tracepoint,
        };
        let probe = Probe::arm(&config).unwrap();
        println!("armed {}", hex(&probe.report().capture_id));
        loop {
            std::thread::park();
        }
    }
    let pins = PinRoot::new("takeover");
    let cgroup = Cgroup::new("takeover");
    let name = "a_killed_loader_leaves_capture_running_and_the_next_takes_it_over";
    let mut loader = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ARMED_BY, &pins.0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(loader.stdout.take().unwrap()).lines();
    let armed = said.find_map(|line| Some(line.unwrap().split_once("armed ")?.1.to_owned())).unwrap();
    loader.kill().unwrap();
    loader.wait().unwrap();
    drop(said);
    // Its number is anybody's now, and nobody's acts are left out for it.
    let settings = aya::maps::MapData::from_pin(pins.set().join("SETTINGS")).unwrap();
    let settings: aya::maps::Array<_, agent_common::stats::Settings> =
        aya::maps::Map::Array(settings).try_into().unwrap();
    assert_eq!(settings.get(&0, 0).unwrap().agent_tgid, 0);

    // Nobody is there now.
    cgroup.python("os.execv('/bin/true',['true','unwatched'])");
    let (mut probe, mut rings) = arm(&pins);
    assert!(probe.report().resumed);
    assert!(probe.report().hooks.iter().all(|hook| !hook.attached_now));
    assert_eq!(hex(&probe.report().capture_id), armed);
    assert!(probe.check_hooks().unwrap().ok);
    let mut seen = 0;
    drain(&mut rings.crit, |event| {
        seen += usize::from(matches!(event, Event::Exec(exec) if exec.argv == b"true\0unwatched\0"));
    });
    assert_eq!(seen, 1);

    // What was read and not released is there again for the next one.
    probe.scope_set(cgroup.id, cgroup.id, family::FILE).unwrap();
    cgroup.python("os.open('/etc/hostname', 0)");
    let read = |rings: &mut Rings| {
        let mut numbers = Vec::new();
        while let Some(message) = rings.bulk.next_message().unwrap() {
            numbers.push(decode(message).unwrap().header().number);
        }
        numbers
    };
    let first = read(&mut rings);
    assert!(!first.is_empty());
    drop(rings);
    drop(probe);
    let (probe, mut rings) = arm(&pins);
    assert!(probe.report().resumed);
    assert_eq!(read(&mut rings), first);
    probe.disarm(false).unwrap();
    assert!(!pins.0.exists() || std::fs::read_dir(&pins.0).unwrap().next().is_none());
}

#[test]
fn a_missing_link_is_attached_again_and_a_missing_map_makes_a_fresh_set() {
    let pins = PinRoot::new("partial");
    let (probe, _rings) = arm(&pins);
    let capture = probe.report().capture_id;
    std::fs::remove_file(pins.set().join("links/exec")).unwrap();
    let check = probe.check_hooks().unwrap();
    assert!(!check.ok && check.what.contains("sched_process_exec"), "{check:?}");
    drop(probe);
    let (probe, _rings) = arm(&pins);
    assert!(probe.report().resumed);
    assert_eq!(probe.report().capture_id, capture);
    let again: Vec<_> = probe.report().hooks.iter().filter(|hook| hook.attached_now).map(|hook| hook.program).collect();
    assert_eq!(again, ["exec"]);
    drop(probe);

    std::fs::remove_file(pins.set().join("LOSS")).unwrap();
    let (probe, _rings) = arm(&pins);
    let report = probe.report();
    assert!(!report.resumed);
    assert_ne!(report.capture_id, capture);
    assert_eq!((report.removed.len(), report.removed[0].capture_id), (1, Some(capture)));
    assert!(report.removed[0].why.contains("LOSS"), "{:?}", report.removed);
    probe.disarm(false).unwrap();
}

#[test]
fn maps_of_another_object_are_never_reused() {
    let pins = PinRoot::new("version");
    let (probe, _rings) = arm(&pins);
    let (capture, old) = (probe.report().capture_id, pins.set());
    Command::new("/bin/true").status().unwrap();
    drop(probe);
    let mut config = pins.config();
    // Bytes after the last section change the digest and nothing else.
    config.object.extend_from_slice(&[0; 4]);
    let probe = Probe::arm(&config).unwrap();
    let report = probe.report();
    assert!(!report.resumed && report.pin_dir != old && !old.exists());
    let removed = &report.removed[0];
    assert_eq!((&removed.dir, removed.capture_id), (&old, Some(capture)));
    assert!(removed.unread_bytes.unwrap() > 0);
    assert!(removed.counters.as_ref().unwrap().totals(class::PROCESS).0 >= 3);
    probe.disarm(false).unwrap();
}

#[test]
fn processes_alive_before_are_back_filled_under_the_cookie_their_events_carry() {
    let pins = PinRoot::new("alive");
    let (probe, mut rings) = arm(&pins);
    let alive = probe.backfill().unwrap();
    let me = alive.iter().find(|process| process.tgid == std::process::id()).unwrap();
    assert_eq!(me.path.as_deref(), Some(std::env::current_exe().unwrap().as_os_str().as_encoded_bytes()));
    Command::new("/bin/true").status().unwrap();
    let mut parents = Vec::new();
    drain(&mut rings.crit, |event| {
        if let Event::Fork(fork) = event
            && fork.header.tgid == me.tgid
        {
            parents.push(fork.header.start.0);
        }
    });
    assert!(!parents.is_empty() && parents.iter().all(|start| *start == me.start_ns), "{parents:?} {me:?}");
    probe.disarm(false).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
