//! `kill -9` at every system call of the log's commit path, on a real directory, by strace's fault injection.
//!
//! This program is two: the test, and the writer that it lets strace kill. The writer appends, commits, seals, packs,
//! prunes and opens again through the real `Log` and says what was acknowledged; it is run once in peace to count its
//! calls, then once for each call of each kind, killed on entering it. After each: the log opens, everything
//! acknowledged is there under its hash or was pruned, every checkpoint that was shown still holds, and the verifier
//! has no finding.
//!
//! A killed process leaves the page cache: what a power cut takes is for the fault table of `log/tests.rs`.
#![expect(clippy::print_stdout, reason = "a test program without a harness says its results itself")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use agent::log::prune::PruningState;
use agent::log::{Birth, Limits, Log, LogError, Now, Packing};
use agent::sign::software::SoftwareKey;
use agent_evidence::command::Directory;
use agent_evidence::record::{
    Body, BootTime, CgroupId, Device, Draft, EntryIndex, HashState, Hashed, Heartbeat, Id128, List, RootHash, Scope,
    Text, TreeSize, WallTime, Workload, WorkloadKind,
};
use agent_evidence::tree::leaf_hash;
use agent_evidence::trust::{Head, Trust};
use agent_evidence::verify::{Claim, Options, verify};
use anyhow::{Context as _, Result, bail, ensure};

const ORIGIN: &str = "example.org/killed";
/// System calls that the log can make on its directory. `read`, `close` and `mmap` change nothing on a disk, and being
/// killed at one is being killed at the next of these.
const CALLS: &str = "openat,mkdirat,unlinkat,renameat,renameat2,pwritev,pwritev2,pwrite64,write,ftruncate,fallocate,\
                     fdatasync,fsync,syncfs,flock";
/// Groups that one life of the writer commits.
const GROUPS: u64 = 16;
/// Entries of one group.
const GROUP: u64 = 45;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let outcome = match arguments.next() {
        Some(first) if first == "writer" => match arguments.next() {
            Some(directory) => write_a_life(Path::new(&directory)),
            None => Err(anyhow::anyhow!("writer DIRECTORY")),
        },
        _ => return run_tests(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_tests() -> ExitCode {
    let mut failed = 0;
    let tests = [
        ("killed_at_any_call_of_a_first_life_nothing_acknowledged_is_lost", first_life()),
        ("killed_at_any_call_of_a_recovery_nothing_acknowledged_is_lost", second_life()),
    ];
    let count = tests.len();
    for (name, outcome) in tests {
        match outcome {
            Ok(()) => println!("test {name} ... ok"),
            Err(error) => {
                failed += 1;
                println!("test {name} ... FAILED\n{error:#}");
            }
        }
    }
    println!("test result: {}. {} passed; {failed} failed", if failed == 0 { "ok" } else { "FAILED" }, count - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn first_life() -> Result<()> {
    kill_everywhere(&|_| Ok(Told::default()))
}

/// The directory that each run begins with was left by a writer killed in its last commit.
fn second_life() -> Result<()> {
    kill_everywhere(&|directory| {
        let told = run_writer(directory, None)?;
        // Entries that were committed and not sealed: recovery has something to replay.
        let mut log = open(directory)?;
        for number in 0..20 {
            log.append(&draft(scope(number)))?;
        }
        let _acknowledged = log.commit()?;
        drop(log);
        Ok(told)
    })
}

/// Lets the writer be killed at each of its calls, one run for each.
fn kill_everywhere(prepare: &dyn Fn(&Path) -> Result<Told>) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let at = |name: &str| -> Result<PathBuf> {
        let directory = scratch.path().join(name);
        std::fs::create_dir(&directory)?;
        Ok(directory)
    };
    let peaceful = at("peaceful")?;
    let mut told = prepare(&peaceful)?;
    let calls = count_calls(&peaceful, &mut told)?;
    check(&peaceful, &told).context("after a run in peace")?;
    let (mut runs, mut survived) = (0_u64, 0);
    for (call, count) in &calls {
        for number in 1..=*count {
            let directory = at(&format!("{call}-{number}"))?;
            let before = prepare(&directory)?;
            let mut told = run_writer(&directory, Some((call, number)))?;
            survived += u64::from(!told.killed);
            told.also(before);
            check(&directory, &told).with_context(|| format!("killed entering {call} number {number}"))?;
            std::fs::remove_dir_all(&directory)?;
            runs += 1;
        }
    }
    let list: Vec<String> = calls.iter().map(|(call, count)| format!("{count} {call}")).collect();
    println!("killed at each of {runs} calls ({survived} did not come): {}", list.join(", "));
    // When a segment of the write-ahead log is used again depends on when the disk has caught up.
    ensure!(
        survived * 20 < runs,
        "{survived} of {runs} runs were not killed: the calls are not those that were counted"
    );
    ensure!(runs > 100, "{runs} calls are too few for this to be the commit path");
    for call in ["fdatasync", "fsync", "renameat", "pwritev"] {
        ensure!(calls.keys().any(|seen| seen.starts_with(call)), "the commit path makes no {call}");
    }
    Ok(())
}

/// What a writer said before it ended.
#[derive(Debug, Default)]
struct Told {
    /// Sizes with the leaf hash of the last entry.
    acknowledged: Vec<(u64, String)>,
    /// Checkpoints.
    sealed: Vec<(u64, String)>,
    killed: bool,
}

impl Told {
    fn also(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.sealed.extend(other.sealed);
    }
}

/// How many of each call the writer makes in its main thread, which is where all but `syncfs` are.
fn count_calls(directory: &Path, told: &mut Told) -> Result<BTreeMap<String, u64>> {
    let trace = directory.with_extension("trace");
    let output = strace(directory, &["-e".to_owned(), format!("trace={CALLS}")], &trace)?;
    told.also(parse(&output.stdout)?);
    let mut calls = BTreeMap::new();
    let mut main = None;
    for line in std::fs::read_to_string(&trace)?.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let main: &str = main.get_or_insert_with(|| thread.to_owned());
        if let Some((call, _)) = rest.trim_start().split_once('(')
            && (thread == main || call == "syncfs")
            && CALLS.split(',').any(|known| known == call)
        {
            *calls.entry(call.to_owned()).or_default() += 1;
        }
    }
    Ok(calls)
}

fn run_writer(directory: &Path, kill: Option<(&str, u64)>) -> Result<Told> {
    let trace = directory.with_extension("trace");
    let output = match kill {
        None => Command::new(std::env::current_exe()?).arg("writer").arg(directory).stdin(Stdio::null()).output()?,
        Some((call, number)) => {
            let inject = format!("inject={call}:signal=KILL:when={number}");
            strace(directory, &["-e".to_owned(), format!("trace={call}"), "-e".to_owned(), inject], &trace)?
        }
    };
    let mut told = parse(&output.stdout)?;
    // strace ends as what it traces did.
    told.killed = output.status.signal() == Some(9);
    ensure!(told.killed || output.status.success(), "the writer ended {:?}", output.status);
    Ok(told)
}

fn strace(directory: &Path, options: &[String], trace: &Path) -> Result<Output> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(trace).args(options);
    command.arg(std::env::current_exe()?).arg("writer").arg(directory).stdin(Stdio::null());
    command.output().context("cannot run strace: run `cargo xtask setup`")
}

fn parse(output: &[u8]) -> Result<Told> {
    let mut told = Told::default();
    let text = std::str::from_utf8(output)?;
    // A line without its end was being written when the writer was killed: nobody was told.
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let mut words = line.split(' ');
        let (what, size, hash) = (words.next(), words.next(), words.next());
        let (Some(what), Some(size), Some(hash)) = (what, size, hash) else { bail!("the writer said {line:?}") };
        match what {
            "durable" => told.acknowledged.push((size.parse()?, hash.to_owned())),
            "sealed" => told.sealed.push((size.parse()?, hash.to_owned())),
            _ => bail!("the writer said {line:?}"),
        }
    }
    Ok(told)
}

/// The log opens, goes on, and has everything that it should have.
fn check(directory: &Path, told: &Told) -> Result<()> {
    let mut log = open(directory)?;
    for (size, hash) in &told.acknowledged {
        ensure!(log.size().0 >= *size, "{size} entries were acknowledged, {} are there", log.size().0);
        let mut seen = None;
        let wanted = EntryIndex(size - 1);
        log.entries_from(wanted, |index, entry| {
            seen = (index == wanted).then(|| hex(&leaf_hash(entry).0));
            ControlFlow::Break(())
        })?;
        let pruned = seen.is_none() && wanted < log.pruned_before();
        ensure!(pruned || seen.as_ref() == Some(hash), "acknowledged entry {} is another now", size - 1);
    }
    log.append(&draft(scope(9)))?;
    log.seal(now())?;
    log.pack()?;
    drop(log);
    let mut source = Directory::open(&directory.join("log"))?;
    let report = verify(&mut source, None, Options::default())?;
    let mut trust = Trust::pin(report.observed.as_ref().context("the verifier saw no whole log")?);
    let mut heads: BTreeMap<u64, RootHash> = BTreeMap::new();
    for (size, root) in &told.sealed {
        heads.insert(*size, RootHash(bytes_of(root)?));
    }
    heads.extend(trust.heads.iter().map(|head| (head.size.0, head.root)));
    trust.heads = heads.into_iter().map(|(size, root)| Head { size: TreeSize(size), root }).collect();
    let report = verify(&mut source, Some(&trust), Options::default())?;
    let findings: Vec<String> = report
        .findings
        .iter()
        // The heartbeats speak of a capture that nobody armed.
        .filter(|finding| finding.name() != "claim_not_proved" && finding.claim() != Claim::Coverage)
        .map(ToString::to_string)
        .collect();
    ensure!(findings.is_empty(), "the verifier found {findings:?}");
    ensure!(report.verified.is_some(), "the checkpoint is not verified");
    Ok(())
}

/// One life: creates the log or opens it, then groups, seals, an epoch, enough for segments of the write-ahead log to be
/// used again and for bundles to be packed. Says what is durable as soon as it is.
fn write_a_life(directory: &Path) -> Result<()> {
    let mut log = open(directory)?;
    say(&mut log, "durable", None)?;
    for group in 0..GROUPS {
        for number in 0..GROUP {
            log.append(&draft(match number % 9 {
                0 => scope(1),
                1..5 => hashed(),
                _ => workload(),
            }))?;
        }
        log.append(&Draft { boot: BootTime(10 + group), ..draft(heartbeat()) })?;
        let _committed = log.commit()?;
        say(&mut log, "durable", None)?;
        if group % 2 == 1 {
            let root = log.seal(now())?.checkpoint.root;
            say(&mut log, "sealed", Some(root))?;
        }
    }
    log.rotate_epoch(now())?;
    let root = log.seal(now())?.checkpoint.root;
    say(&mut log, "sealed", Some(root))?;
    log.pack()?;
    // Everything that can go before the last heartbeats.
    log.tend(now())?;
    if let Err(refused) = log.plan_pruning(EntryIndex(log.size().0), false) {
        // An earlier life went as far as can be.
        ensure!(log.pruned_before() > EntryIndex(0), "{refused}");
        return Ok(());
    }
    for (state, what) in [(PruningState::Looking, "looks"), (PruningState::Removing, "removes")] {
        for _ in 0..100 {
            if log.pruning() == state {
                log.commit().map(drop)?;
            }
        }
        ensure!(log.pruning() != state, "it {what} for ever");
        if state == PruningState::Looking {
            ensure!(log.prune(now(), "a test", None)?.is_some(), "nothing is pruned: {:?}", log.refused());
            let root = log.head().context("it was sealed")?.checkpoint.root;
            say(&mut log, "sealed", Some(root))?;
        }
    }
    Ok(())
}

fn say(log: &mut Log, what: &str, root: Option<RootHash>) -> Result<()> {
    let size = log.durable_size().0;
    let hash = match root {
        Some(root) => hex(&root.0),
        None => {
            let mut hash = String::new();
            log.entries_from(EntryIndex(size - 1), |_, entry| {
                hash = hex(&leaf_hash(entry).0);
                ControlFlow::Break(())
            })?;
            hash
        }
    };
    // One write: a half line was said to nobody.
    std::io::stdout().write_all(format!("{what} {size} {hash}\n").as_bytes())?;
    Ok(std::io::stdout().flush()?)
}

fn open(directory: &Path) -> Result<Log> {
    let limits = Limits {
        segment_bytes: 24 << 10,
        segments_max: 2,
        reserve_bytes: 1 << 16,
        packing: Some(Packing { hot_entries: 16, level: 1, bundles: 1, in_background: false }),
        ..Limits::default()
    };
    let key = || Box::new(SoftwareKey::from_seed(&[5; 32]));
    match Log::open(directory, limits, ORIGIN, key(), now()) {
        Ok((log, _)) => Ok(log),
        Err(LogError::NotCreated) => {
            let birth = Birth {
                boot_id: Text::new(b"d9b2d63d-a233-4123-847a-7090b38f3c5e"),
                kernel: Text::new(b"6.12.0"),
                machine: None,
                predecessor: None,
            };
            Ok(Log::create(directory, limits, ORIGIN, key(), &birth, now())?)
        }
        Err(error) => Err(error.into()),
    }
}

fn now() -> Now {
    Now { wall: WallTime(1_700_000_000_000_000_000), boot: BootTime(1) }
}

fn draft(body: Body<'_>) -> Draft<'_> {
    Draft {
        wall: now().wall,
        boot: now().boot,
        kernel: None,
        process: None,
        workload: None,
        session: None,
        verdict: None,
        body,
    }
}

fn scope(number: u32) -> Body<'static> {
    Body::Scope(Scope { text: Text::new(b"tests"), host_classes: number, roots: List::default() })
}

fn workload() -> Body<'static> {
    Body::Workload(Workload {
        sort: WorkloadKind::Host,
        id: Text::new(b"spiffe://example.org/host"),
        cgroup: CgroupId(1),
        path: Text::new(b"/"),
        how: Text::new(b"test"),
        labels: List::default(),
    })
}

/// What goes when entries are pruned.
fn hashed() -> Body<'static> {
    Body::Hashed(Hashed {
        path: Some("/bin/true".into()),
        ino: 7,
        dev: Device { major: 8, minor: 1 },
        ctime: 1,
        size: 0,
        state: HashState::Changed,
        sha256: None,
        format: None,
    })
}

fn heartbeat() -> Body<'static> {
    Body::Heartbeat(Heartbeat {
        capture_id: Id128([1; 16]),
        counters: List::default(),
        sessions: List::default(),
        hooks_ok: true,
        hooks_digest: agent_evidence::record::Digest([0; 32]),
        canaries: List::default(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &str) -> Result<[u8; 32]> {
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2).unwrap_or_default(), 16))
        .collect::<Result<_, _>>()?;
    bytes.as_slice().try_into().context("a hash has 32 bytes")
}
