//! Privileged acts on this host's real kernel: each kind is done a known number of times by `tests/helpers/privileged.py`
//! and must come out exactly as often, of the right process and scope. Needs root (feature `root`) and fails without.
//!
//! One set of programs for all, as loading it is what takes the time.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use agent::event::{Event, WalkedPath, decode};
use agent::probe::{Probe, ProbeConfig, Rings, TierChoice};
use agent_common::header::{class, kind};
use agent_common::privilege::{access, act_flag, mount, namespace};
use agent_evidence::record::Class;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// How often each act is done.
const TIMES: usize = 5;
/// `uid` of nobody.
const NOBODY: u32 = 65_534;

struct Fixture {
    pins: PathBuf,
    cgroups: Vec<(PathBuf, u64)>,
    mount: tempfile::TempDir,
}

impl Fixture {
    fn new(test: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
        let root = Path::new(root.split(' ').nth(1).unwrap());
        let cgroup = |name: &str| {
            let path = root.join(format!("affiant-test-privilege-{test}-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            let id = std::fs::metadata(&path).unwrap().ino();
            (path, id)
        };
        Self {
            pins: PathBuf::from(format!("/sys/fs/bpf/affiant-test-privilege-{test}-{}", std::process::id())),
            cgroups: vec![cgroup("one"), cgroup("two")],
            mount: tempfile::tempdir().unwrap(),
        }
    }

    /// A command that begins inside a cgroup.
    fn inside(&self, cgroup: usize, command: &[&str]) -> Child {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.cgroups[cgroup].0.display());
        Command::new("/bin/sh").args(["-c", &enter, "sh"]).args(command).spawn().unwrap()
    }

    /// Does an act in the first cgroup; gives its process.
    fn act(&self, name: &str, argument: &str) -> u32 {
        self.act_times(TIMES, name, argument)
    }

    fn act_times(&self, times: usize, name: &str, argument: &str) -> u32 {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/helpers/privileged.py");
        let mut child = self.inside(0, &["/usr/bin/python3", "-I", "-S", script, name, &times.to_string(), argument]);
        assert!(child.wait().unwrap().success(), "{name}");
        child.id()
    }

    /// Arms a set of its own. This process is the agent: its own acts are left out, and acts against it are marked.
    fn arm(&self) -> Probe {
        let Some(object) = option_env!("AFFIANT_EBPF_OBJECT") else {
            panic!("no eBPF object: run `cargo xtask build` first")
        };
        let config = ProbeConfig {
            object: std::fs::read(object).unwrap(),
            pin_root: self.pins.clone(),
            agent_tgid: std::process::id(),
            tier: TierChoice::Tracepoint,
        };
        Probe::arm(&config).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for set in std::fs::read_dir(&self.pins).into_iter().flatten().flatten() {
            for dir in ["links", "progs", "."] {
                let dir = set.path().join(dir);
                for file in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                    let _ = std::fs::remove_file(file.path());
                }
                let _ = std::fs::remove_dir(&dir);
            }
            let _ = std::fs::remove_dir(set.path());
        }
        let _ = std::fs::remove_dir(&self.pins);
        for (path, _) in &self.cgroups {
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// What came of one act: the messages of the privileged kinds and of failed execs.
struct Seen {
    messages: Vec<Vec<u8>>,
}

impl Seen {
    fn events(&self) -> Vec<Event<'_>> {
        self.messages.iter().map(|message| decode(message).unwrap()).collect()
    }

    /// How many of each kind.
    fn counts(&self) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for message in &self.messages {
            *counts.entry(u16::from_ne_bytes([message[0], message[1]])).or_insert(0) += 1;
        }
        counts
    }
}

struct Reader {
    rings: Rings,
    scope: u64,
    numbers: BTreeMap<u32, Vec<u64>>,
}

impl Reader {
    /// What the first cgroup did since the last look; numbers are kept of everyone's.
    fn take(&mut self) -> Seen {
        let mut messages = Vec::new();
        while let Some(message) = self.rings.crit.next_message().unwrap() {
            let event = decode(message).unwrap();
            let header = event.header();
            if header.number.class == Class::Privilege {
                self.numbers.entry(header.number.cpu).or_default().push(header.number.seq);
            }
            let wanted = header.number.class == Class::Privilege || matches!(event, Event::ExecFailed(_));
            if wanted && header.scope_id == self.scope {
                messages.push(message.to_vec());
            }
        }
        let position = self.rings.crit.position();
        self.rings.crit.release(position).unwrap();
        Seen { messages }
    }
}

fn text(path: &WalkedPath<'_>) -> String {
    let mut out = Vec::new();
    path.write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn each_privileged_act_is_seen_once_with_what_the_kernel_knows_of_it() {
    let fixture = Fixture::new("acts");
    let mut probe = fixture.arm();
    let (one, two) = (fixture.cgroups[0].1, fixture.cgroups[1].1);
    probe.scope_set(one, one, 0).unwrap();
    probe.scope_set(two, two, 0).unwrap();
    let mut reader = Reader { rings: probe.rings().unwrap(), scope: one, numbers: BTreeMap::new() };
    let directory = fixture.mount.path().canonicalize().unwrap();
    let directory = directory.to_str().unwrap();

    credentials(&fixture, &mut reader);
    namespaces_and_mounts(&fixture, &mut reader, directory);
    objects_of_the_kernel(&fixture, &mut reader);
    other_processes(&fixture, &mut reader, two);
    against_the_agent(&fixture, &mut reader);

    // What this tier says it does not see: the change by the 32-bit entry is made, and makes no event.
    assert!(probe.report().not_covered.iter().any(|(what, _)| what.contains("32-bit") && what.contains("privileged")));
    fixture.act("compat_setuid", "");
    assert_eq!(reader.take().counts(), BTreeMap::new());

    // Every number that was given out came, once.
    let counters = probe.counters().unwrap();
    reader.take();
    assert_eq!(counters.totals(class::PRIVILEGE).1, 0, "nothing was dropped");
    for counter in counters.by_cpu.iter().filter(|counter| counter.class == class::PRIVILEGE) {
        let numbers = reader.numbers.entry(counter.cpu).or_default();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "cpu {}: {numbers:?}", counter.cpu);
        assert!(numbers.len() as u64 >= counter.generated, "cpu {}", counter.cpu);
    }
    probe.disarm(false).unwrap();
}

#[test]
fn a_flood_of_privileged_acts_is_received_or_counted_as_lost_by_whose_it_was() {
    // Two changes of 264 bytes each, of which the ring of 8 MiB holds fewer than 32,000.
    const ROUNDS: usize = 20_000;
    let fixture = Fixture::new("flood");
    let mut probe = fixture.arm();
    let one = fixture.cgroups[0].1;
    probe.scope_set(one, one, 0).unwrap();
    fixture.act_times(ROUNDS, "creds", "");
    let losses = probe.losses().unwrap();
    let lost = losses.iter().find(|loss| (loss.class, loss.scope_id) == (class::PRIVILEGE, one)).unwrap();
    let mut reader = Reader { rings: probe.rings().unwrap(), scope: one, numbers: BTreeMap::new() };
    let received = reader.take().counts().get(&kind::CREDS).copied().unwrap_or_default() as u64;
    assert_eq!(received + lost.count, 2 * ROUNDS as u64, "{received} received, {} lost", lost.count);
    assert!(received > 0 && lost.count > 0 && lost.first_ns <= lost.last_ns);
    probe.disarm(false).unwrap();
}

fn credentials(fixture: &Fixture, reader: &mut Reader) {
    let tgid = fixture.act("creds", "");
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::CREDS, 2 * TIMES)]));
    for (number, event) in seen.events().iter().enumerate() {
        let Event::Creds(change) = event else { panic!("{event:?}") };
        let (before, after) = (change.wire.before, change.wire.after);
        let euids = if number % 2 == 0 { (0, NOBODY) } else { (NOBODY, 0) };
        assert_eq!((before.euid, after.euid), euids);
        assert_eq!((before.uid, after.uid, before.suid, after.suid), (0, 0, 0, 0));
        assert_eq!((before.fsuid, after.fsuid), euids);
        // Root's capabilities go with the effective id and stay permitted.
        let caps = (before.cap_effective, after.cap_effective);
        let full = before.cap_permitted;
        assert_eq!(caps, if number % 2 == 0 { (full, 0) } else { (0, full) });
        assert!(full != 0 && before.user_namespace != 0 && before.user_namespace == after.user_namespace);
        assert_eq!((change.header.tgid, change.header.euid), (tgid, after.euid));
    }

    // Of one thread, and under a name that it gave itself.
    let tgid = fixture.act("thread_creds", "");
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::CREDS, TIMES)]));
    for event in seen.events() {
        let Event::Creds(change) = event else { panic!("{event:?}") };
        assert_eq!((change.wire.before.uid, change.wire.after.uid), (0, NOBODY));
        assert!(change.header.tgid == tgid && change.header.tid != tgid);
        assert_eq!(change.header.comm.0, b"sshd");
    }
}

fn namespaces_and_mounts(fixture: &Fixture, reader: &mut Reader, directory: &str) {
    fixture.act("namespaces", "");
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::NAMESPACE, 3 * TIMES), (kind::CREDS, TIMES)]));
    let own = std::fs::metadata("/proc/self/ns/user").unwrap().ino();
    let (mut made, mut entered) = (Vec::new(), 0);
    for event in seen.events() {
        match event {
            Event::Namespace(change) if change.wire.op == namespace::UNSHARE => {
                assert_eq!((change.wire.result, change.wire.act_flags), (0, act_flag::RESULT | act_flag::KNOWN));
                made.push((change.wire.flags, u64::from(change.wire.user) != own));
            }
            Event::Namespace(change) => {
                // The kind of the descriptor's namespace, which the call did not name.
                assert_eq!((change.wire.op, change.wire.flags), (namespace::ENTER, 0x0400_0000));
                entered += 1;
            }
            Event::Creds(change) => {
                assert_eq!(u64::from(change.wire.before.user_namespace), own);
                assert_ne!(u64::from(change.wire.after.user_namespace), own);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(made.iter().filter(|made| **made == (0x1000_0000, true)).count(), TIMES, "{made:?}");
    assert_eq!(made.iter().filter(|made| **made == (0x0400_0000, false)).count(), TIMES);
    assert_eq!(entered, TIMES);

    let tgid = fixture.act("clones", "");
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::NAMESPACE, TIMES)]));
    for event in seen.events() {
        let Event::Namespace(change) = event else { panic!("{event:?}") };
        assert_eq!((change.wire.op, change.wire.flags, change.header.tgid), (namespace::CLONE, 0x0002_0000, tgid));
        let mount = u64::from(change.wire.mount);
        assert_ne!(mount, std::fs::metadata("/proc/self/ns/mnt").unwrap().ino());
    }

    fixture.act("mounts", directory);
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::NAMESPACE, 1), (kind::MOUNT, 1 + 3 * TIMES)]));
    let mut ops = BTreeMap::new();
    for event in seen.events() {
        let Event::Mount(mounted) = event else { continue };
        *ops.entry(mounted.wire.op).or_insert(0) += 1;
        assert_eq!(mounted.wire.result, 0);
        match mounted.wire.op {
            mount::MOUNT => assert_eq!((mounted.source.0, text(&mounted.path)), (&b"affiant-test"[..], String::new())),
            mount::UNMOUNT => assert_eq!(mounted.source.0, directory.as_bytes()),
            mount::CHROOT => assert_eq!(text(&mounted.path), directory),
            _ => assert_eq!(mounted.wire.flags, 1 << 18 | 1 << 14),
        }
    }
    assert_eq!(
        ops,
        BTreeMap::from([(mount::MOUNT, TIMES), (mount::REMOUNT, 1), (mount::UNMOUNT, TIMES), (mount::CHROOT, TIMES)])
    );

    // Made without a place, then put in one: the kernel's own path and type.
    fixture.act("detached_mount", directory);
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::NAMESPACE, 1), (kind::MOUNT, 1 + 2 * TIMES)]));
    let moved = seen.events().into_iter().filter_map(|event| match event {
        Event::Mount(mounted) if mounted.wire.op == mount::MOVE => Some((text(&mounted.path), mounted.wire.fstype)),
        _ => None,
    });
    let moved: Vec<_> = moved.collect();
    assert_eq!(moved, vec![(directory.to_owned(), *b"tmpfs\0\0\0\0\0\0\0\0\0\0\0"); TIMES]);
}

fn objects_of_the_kernel(fixture: &Fixture, reader: &mut Reader) {
    fixture.act("bpf", "");
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::BPF, 2 * TIMES)]), "writing elements of a map is no event");
    let mut ids = Vec::new();
    for event in seen.events() {
        let Event::Bpf(call) = event else { panic!("{event:?}") };
        if call.wire.cmd == 0 {
            assert!(call.wire.result >= 0);
            assert_eq!((call.wire.r#type, call.wire.act_flags), (1, act_flag::RESULT | act_flag::KNOWN));
            assert_eq!(&call.wire.name[..13], b"affiant_test\0");
            ids.push(call.wire.id);
        } else {
            assert_eq!((call.wire.cmd, call.wire.result, call.wire.id), (999, -22, 0));
        }
    }
    ids.dedup();
    assert!(ids.len() == TIMES && !ids.contains(&0), "{ids:?}");

    fixture.act("keys", "");
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::KEY, 2 * TIMES)]));
    let mut added = None;
    for event in seen.events() {
        let Event::Key(key) = event else { panic!("{event:?}") };
        match key.wire.op {
            1000 => added = Some(key.wire.serial),
            op => assert_eq!((op, Some(key.wire.serial), key.wire.result), (11, added, 1)),
        }
        assert!(key.wire.serial > 0);
    }

    fixture.act("io_uring", "");
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::IO_URING, 2 * TIMES)]));
    for event in seen.events() {
        let Event::IoUring(ring) = event else { panic!("{event:?}") };
        assert_eq!((ring.wire.op, ring.wire.entries), (0, 8));
        if ring.wire.result >= 0 {
            assert_eq!((ring.wire.flags, ring.wire.act_flags), (0, act_flag::RESULT | act_flag::KNOWN));
        } else {
            assert_eq!((ring.wire.result, ring.wire.flags), (-22, 1 << 31));
            assert_eq!(ring.wire.act_flags, act_flag::RESULT | act_flag::FLAGS_CLAIMED);
        }
    }

    fixture.act("failed_execs", "");
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::EXEC_FAILED, 2 * TIMES)]));
    for (number, event) in seen.events().iter().enumerate() {
        let Event::ExecFailed(failed) = event else { panic!("{event:?}") };
        let expected: (i32, &[u8]) =
            if number % 2 == 0 { (-2, b"/affiant-test/nothing") } else { (-13, b"/etc/passwd") };
        assert_eq!((failed.wire.result, failed.invoked.0), expected);
    }
}

fn other_processes(fixture: &Fixture, reader: &mut Reader, two: u64) {
    let mut victim = fixture.inside(1, &["/bin/sleep", "1000"]);
    let target = victim.id().to_string();
    // The shell becomes the sleeper a moment after it was started.
    while !std::fs::read_to_string(format!("/proc/{target}/comm")).unwrap().starts_with("sleep") {
        std::thread::yield_now();
    }
    fixture.act("reach", &target);
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::ACCESS, 3 * TIMES)]));
    let mut ways = BTreeMap::new();
    let start = start_of(victim.id());
    for event in seen.events() {
        let Event::Access(reached) = event else { panic!("{event:?}") };
        *ways.entry(reached.wire.how).or_insert(0) += 1;
        assert_eq!((reached.wire.target_tgid, reached.wire.target_scope), (victim.id(), two));
        // /proc gives it in hundredths of a second.
        assert_eq!(reached.wire.target_start_ns / 10_000_000, start);
        assert!(reached.wire.result >= 0 && reached.wire.act_flags == act_flag::RESULT);
    }
    assert_eq!(ways, BTreeMap::from([(access::PTRACE, TIMES), (access::VM_READ, TIMES), (access::GETFD, TIMES)]));

    fixture.act("refused_reach", &target);
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::CREDS, 2), (kind::ACCESS, TIMES), (kind::SIGNAL, TIMES)]));
    for event in seen.events() {
        match event {
            Event::Access(reached) => {
                assert_eq!((reached.wire.result, reached.wire.target_tgid), (-1, victim.id()));
                assert_eq!(reached.header.euid, NOBODY);
            }
            Event::Signal(signal) => {
                assert_eq!((signal.wire.result, signal.wire.target_tgid), (-1, victim.id()));
                assert_eq!((signal.wire.signal, signal.wire.target_scope), (9, two));
            }
            _ => {}
        }
    }

    let tgid = fixture.act("signals", &target);
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::SIGNAL, TIMES)]));
    for event in seen.events() {
        let Event::Signal(signal) = event else { panic!("{event:?}") };
        assert_eq!((signal.header.tgid, signal.wire.target_tgid, signal.wire.target_scope), (tgid, victim.id(), two));
        assert_eq!((signal.wire.signal, signal.wire.result, signal.wire.act_flags), (18, 0, act_flag::RESULT));
        assert_eq!(signal.wire.target_start_ns / 10_000_000, start);
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(reader.take().messages.is_empty(), "the agent's own signal is not recorded");
}

fn against_the_agent(fixture: &Fixture, reader: &mut Reader) {
    let marked = act_flag::RESULT | act_flag::AGAINST_AGENT;
    fixture.act("signals", &std::process::id().to_string());
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::SIGNAL, TIMES)]));
    for event in seen.events() {
        let Event::Signal(signal) = event else { panic!("{event:?}") };
        assert_eq!((signal.wire.target_tgid, signal.wire.act_flags), (std::process::id(), marked));
    }
    fixture.act("refused_reach", &std::process::id().to_string());
    for event in reader.take().events() {
        match event {
            Event::Access(reached) => assert_eq!(reached.wire.act_flags, marked),
            Event::Signal(signal) => assert_eq!(signal.wire.act_flags, marked),
            Event::Creds(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let set = std::fs::read_dir(&fixture.pins).unwrap().next().unwrap().unwrap().path();
    fixture.act("meddle", set.join("SETTINGS").to_str().unwrap());
    let seen = reader.take();
    assert_eq!(seen.counts(), BTreeMap::from([(kind::BPF, TIMES + 1)]));
    for event in seen.events() {
        let Event::Bpf(call) = event else { panic!("{event:?}") };
        if call.wire.cmd == 1 {
            assert_eq!(call.wire.act_flags, marked | act_flag::RACY | act_flag::KNOWN);
            assert_eq!(&call.wire.name[..9], b"SETTINGS\0");
        } else {
            assert_eq!((call.wire.cmd, call.wire.act_flags), (7, act_flag::RESULT));
        }
    }
}

/// When a process started, hundredths of a second since boot (proc(5), `stat`, field 22).
fn start_of(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(19).unwrap().parse().unwrap()
}
