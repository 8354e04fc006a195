//! How fast the log takes drafts: append, commit and seal of realistic exec and open records, one thread.
//!
//! `cargo run --release -p agent --example log_throughput -- DIR [ENTRIES [GROUP_BYTES]]`. DIR is made, must not exist, and is
//! left for `affiant-verify`. Prints events per second, bytes per entry plain and packed, the disk's share and peak memory.

#![expect(clippy::print_stdout, reason = "a measuring program prints its measurements")]
#![expect(clippy::disallowed_methods, reason = "a measuring program reads the clock")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent::log::{Birth, Limits, Log, Now, Packing};
use agent::sign::software::SoftwareKey;
use agent_evidence::record::{
    ActMarks, Armed, Body, BootTime, Cadence, Capabilities, CgroupId, Class, Counter, Device, Digest, DisarmCause,
    Disarmed, Draft, EntryIndex, Exec, ExecClaims, Id128, Issued, IssuedClaims, KernelNumber, KeyTier, List, Open,
    OpenClaims, ProcessCookie, Requester, SecureBoot, SessionSort, SessionState, Text, ValueList, WallTime, Workload,
    WorkloadKind,
};
use anyhow::Context as _;

/// The capture and the run that the entries are of.
const CAPTURE: Id128 = Id128([7; 16]);
/// One exec to this many opens: about what a compile or a `pip install` does.
const OPENS_PER_EXEC: u64 = 40;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let dir = PathBuf::from(args.next().context("usage: log_throughput DIR [ENTRIES [GROUP_BYTES]]")?);
    let mut number = |default: u64| -> anyhow::Result<u64> {
        match args.next() {
            Some(text) => Ok(text.to_string_lossy().parse()?),
            None => Ok(default),
        }
    };
    let entries = number(2_000_000)?;
    let limits = Limits::default();
    let commit_bytes = usize::try_from(number(limits.commit_bytes as u64)?)?;
    // Packed at the end and not before, so that each is measured alone.
    let packing = Some(Packing { hot_entries: entries, ..Packing::default() });
    let limits = Limits { commit_bytes, pending_bytes_max: commit_bytes + (4 << 20), packing, ..limits };
    std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
    let key = SoftwareKey::create(&dir.join("keys"))?;
    let birth = Birth {
        boot_id: Text::new(b"d9b2d63d-a233-4123-847a-7090b38f3c5e"),
        kernel: Text::new(b"6.12.0"),
        machine: None,
        predecessor: None,
    };
    let start = Instant::now();
    let now = || {
        let boot = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { wall: WallTime(1_700_000_000_000_000_000 + boot), boot: BootTime(boot) }
    };
    let mut log = Log::create(&dir, limits, "example.org/throughput", Box::new(key), &birth, now())?;
    let agent = Whose::default();
    log.append(&draft(now(), &agent, None, armed()))?;
    let workload = log.append(&draft(now(), &agent, None, workload()))?.index;
    let session = log.append(&draft(now(), &Whose { workload: Some(workload), ..agent }, None, issued()))?.index;
    let whose =
        Whose { workload: Some(workload), session: Some(session), process: Some(ProcessCookie(0x0012_3456_789a_bcde)) };

    let begun = Instant::now();
    let mut at = now();
    let (mut commits, mut seals) = (0_u64, 0_u64);
    let (mut committing, mut sealing) = (Duration::ZERO, Duration::ZERO);
    let mut slowest = Duration::ZERO;
    let mut path = b"/usr/lib/python3/dist-packages/numpy/core/include/00000000.py".to_vec();
    for number in 0..entries {
        // As the pipeline does: the clock once per batch.
        if number % 256 == 0 {
            at = now();
            let due = log.due(at.boot);
            let step = Instant::now();
            if due.seal {
                log.seal(at)?;
                seals += 1;
                sealing += step.elapsed();
            } else if due.commit {
                let _acknowledged = log.commit()?;
                commits += 1;
                committing += step.elapsed();
            }
            slowest = slowest.max(step.elapsed());
        }
        let (class, seq) = match number % OPENS_PER_EXEC {
            0 => (Class::Process, number / OPENS_PER_EXEC),
            _ => (Class::File, number - number / OPENS_PER_EXEC - 1),
        };
        let body = if class == Class::Process {
            exec()
        } else {
            let digits = path.len() - 11..path.len() - 3;
            for (digit, place) in path[digits].iter_mut().rev().zip([1, 10, 100, 1_000, 10_000, 100_000]) {
                *digit = b'0' + u8::try_from(number / place % 10)?;
            }
            open(&path)
        };
        log.append(&draft(at, &whose, Some(KernelNumber { cpu: 1, class, seq }), body))?;
    }
    let execs = entries.div_ceil(OPENS_PER_EXEC);
    let counter = |class, next| Counter { cpu: 1, class, next, dropped: 0, settled: next };
    let counters = vec![counter(Class::Process, execs), counter(Class::File, entries - execs)];
    let sessions = log.sessions();
    log.append(&draft(now(), &agent, None, disarmed(counters, sessions)))?;
    log.seal(now())?;
    let took = begun.elapsed();

    let bytes = size_below(&dir.join("log"))?;
    #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
    {
        let seconds = took.as_secs_f64();
        println!("entries              {entries}");
        println!("events/s             {:.0}", entries as f64 / seconds);
        println!("ns/entry             {:.0}", seconds * 1e9 / entries as f64);
        println!("bytes/entry          {:.1} (bundles and tiles)", bytes as f64 / entries as f64);
        println!("log MB/s             {:.0} (and as much again to the write-ahead log)", bytes as f64 / seconds / 1e6);
        println!("commits              {commits}, {:.2} s in all", committing.as_secs_f64());
        println!("seals                {seals}, {:.2} s in all", sealing.as_secs_f64());
        println!("slowest step         {:.1} ms", slowest.as_secs_f64() * 1e3);
    }
    drop(log);
    let limits = Limits { packing: Some(Packing { hot_entries: 0, ..Packing::default() }), ..limits };
    let key = SoftwareKey::load(&dir.join("keys"))?;
    let (mut log, _) = Log::open(&dir, limits, "example.org/throughput", Box::new(key), now())?;
    let begun = Instant::now();
    log.pack()?;
    let took = begun.elapsed();
    let segments = entries / 65_536;
    if segments > 0 {
        // What is left of whole segments: the segments, and their tiles of level 1 and above.
        let packed = size_below(&dir.join("log/packed"))? + segments * 8_192;
        #[expect(clippy::cast_precision_loss, reason = "rounded for people")]
        {
            println!(
                "cold bytes/entry     {:.1} (packed, hashes included)",
                packed as f64 / (segments * 65_536) as f64
            );
            println!("packing              {:.0} entries/s", (segments * 65_536) as f64 / took.as_secs_f64());
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = status.lines().find(|line| line.starts_with("VmHWM:")) {
        println!("peak memory          {}", peak.trim_start_matches("VmHWM:").trim());
    }
    Ok(())
}

/// Whose act a record is.
#[derive(Clone, Copy, Default)]
struct Whose {
    workload: Option<EntryIndex>,
    session: Option<EntryIndex>,
    process: Option<ProcessCookie>,
}

fn draft<'a>(now: Now, whose: &Whose, kernel: Option<KernelNumber>, body: Body<'a>) -> Draft<'a> {
    let Whose { workload, session, process } = *whose;
    Draft { wall: now.wall, boot: now.boot, kernel, process, workload, session, verdict: None, body }
}

fn armed() -> Body<'static> {
    Body::Armed(Armed {
        policy_digest: None,
        kernel_build: None,
        run: CAPTURE,
        boot_id: Text::new(b"d9b2d63d-a233-4123-847a-7090b38f3c5e"),
        capture_id: CAPTURE,
        resumed: false,
        agent_version: Text::new(b"0.1.0"),
        agent_digest: Digest([1; 32]),
        object_digest: Digest([2; 32]),
        offsets_digest: Digest([3; 32]),
        config_digest: Digest([4; 32]),
        kernel: Text::new(b"6.12.0"),
        lockdown: Text::new(b"none"),
        secure_boot: SecureBoot::Unknown,
        hook_tier: Text::new(b"tracepoint"),
        key_tier: KeyTier::T0,
        cadence: Cadence { commit_ms: 50, seal_ms: 1_000, heartbeat_ms: 3_600_000, anchor_ms: None, counter_ms: None },
        hooks: List::default(),
        not_covered: List::default(),
        scope: Text::new(b"measurement"),
    })
}

fn disarmed(counters: Vec<Counter>, sessions: Vec<SessionState>) -> Body<'static> {
    Body::Disarmed(Disarmed {
        cause: DisarmCause::Operator,
        capture_id: CAPTURE,
        counters: counters.into(),
        sessions: sessions.into(),
    })
}

fn workload() -> Body<'static> {
    Body::Workload(Workload {
        sort: WorkloadKind::Session,
        id: Text::new(b"spiffe://example.org/pilot/claims-review"),
        cgroup: CgroupId(4711),
        path: Text::new(b"/affiant/0123456789abcdef"),
        how: Text::new(b"session"),
        labels: List::default(),
    })
}

fn issued() -> Body<'static> {
    Body::Issued(Issued {
        sort: SessionSort::Run,
        rule: None,
        parent: None,
        id: Text::new(b"0123456789abcdef"),
        identity: Text::new(b"spiffe://example.org/pilot/claims-review"),
        cgroup: CgroupId(4711),
        uid: Some(1000),
        gid: Some(1000),
        ttl: None,
        by: Some(Requester { process: None, tgid: 7, uid: 1000, gid: 1000 }),
        claims: IssuedClaims { task: None, labels: List::default() },
    })
}

fn open(path: &[u8]) -> Body<'_> {
    Body::Open(Open {
        path: Some(path.into()),
        oflags: 0o2_000_000,
        fd: Some(3),
        errno: None,
        ino: Some(1_234_567),
        dev: Some(Device { major: 254, minor: 1 }),
        mode: Some(0o100_644),
        nlink: Some(1),
        tgid: 4_242,
        uid: 1000,
        euid: None,
        marks: ActMarks::NONE,
        claims: OpenClaims { comm: Text::new(b"python3"), asked: None, dir_fd: None },
    })
}

fn exec() -> Body<'static> {
    Body::Exec(Exec {
        path: Some("/usr/bin/x86_64-linux-gnu-gcc-12".into()),
        script: None,
        argv: ValueList::Nul(
            b"gcc\0-O2\0-Wall\0-fPIC\0-I/usr/include/python3.11\0-c\0src/module.c\0-o\0build/module.o\0",
        ),
        argc: 9,
        cwd: Some("/home/pilot/srv/project".into()),
        tgid: 4_242,
        parent: ProcessCookie(0x0012_3456_789a_bcdd),
        uid: 1000,
        gid: 1000,
        euid: 1000,
        egid: 1000,
        suid: 1000,
        sgid: 1000,
        login_uid: None,
        caps: Capabilities(0),
        caps_permitted: None,
        caps_ambient: None,
        before: None,
        ino: 1_234_567,
        dev: Device { major: 254, minor: 1 },
        nlink: 1,
        mode: 0o100_755,
        size: 1_016_552,
        ctime: None,
        sha256: None,
        marks: ActMarks::NONE,
        claims: ExecClaims { comm: Text::new(b"gcc"), invoked: Some("/usr/bin/gcc".into()) },
    })
}

fn size_below(dir: &std::path::Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else {
                bytes += metadata.len();
            }
        }
    }
    Ok(bytes)
}
