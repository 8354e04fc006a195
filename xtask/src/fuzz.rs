//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz`, each for a while, with limits on time and memory for every input.
//!
//! Not part of `test`: what a fuzzer finds depends on how long it looks. What it found is a vector or a test by the time it is
//! fixed. The corpus stays in `tests/fuzz/corpus` (not tracked) and is gone on with; it begins with the vectors of the
//! repository, so that the first inputs are already of the form that the decoders want.
//!
//! libFuzzer needs a nightly compiler, which is not installed here: one that is there is used, else the command says so.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::process::{answer, cargo, required_step, seconds};
use crate::setup::{self, Missing};
use crate::workspace::Workspace;

/// What drives the targets, pinned.
const CARGO_FUZZ_VERSION: &str = "0.13.1";
/// How long each target runs unless told otherwise, in minutes.
const MINUTES: u64 = 1;
/// Longest time for one input, in seconds by the clock: a decoder that needs more hangs, also on a busy machine.
const INPUT_SECONDS_MAX: u32 = 60;
/// Largest single allocation, in MiB: four times the largest input that any decoder accepts.
const ALLOCATION_MIB_MAX: u32 = 256;
/// Most memory of the whole process, in MiB; the address sanitizer takes most of it.
const PROCESS_MIB_MAX: u32 = 1_024;
/// Longest input, in bytes: more than an entry may have.
const INPUT_BYTES_MAX: u32 = 80_000;
/// How long to wait between two looks at running targets.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// What the command line asked for.
struct Plan {
    minutes: u64,
    jobs: usize,
    targets: Vec<String>,
}

/// One target that runs.
struct Running {
    target: String,
    child: Child,
    log: PathBuf,
    started: Instant,
    /// Processor time as last seen: on a shared machine, minutes by the clock say little about how much was tried.
    processor: Duration,
}

/// `cargo xtask fuzz [--minutes M] [--jobs N] [TARGET...]`.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<bool> {
    let known = targets(workspace)?;
    let plan = Plan::parse(arguments, &known)?;
    let programs = build(workspace)?;
    let mut waiting: VecDeque<String> = plan.targets.iter().cloned().collect();
    let mut running: Vec<Running> = Vec::new();
    let (mut passed, mut failed) = (0_u64, 0_u64);
    println!("==> fuzz {} targets, {} min each, {} at a time", waiting.len(), plan.minutes, plan.jobs);
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < plan.jobs
            && let Some(target) = waiting.pop_front()
        {
            running.push(start(workspace, &programs, target, plan.minutes)?);
        }
        let mut at = 0;
        while at < running.len() {
            match running[at].child.try_wait().context("cannot wait for a target")? {
                None => {
                    running[at].processor = processor_time(running[at].child.id()).unwrap_or(running[at].processor);
                    at += 1;
                }
                Some(status) => {
                    let ended = running.remove(at);
                    if report(&ended, status.success())? {
                        passed += 1;
                    } else {
                        failed += 1;
                    }
                }
            }
        }
        thread::sleep(POLL_INTERVAL);
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

impl Plan {
    fn parse(arguments: &[&str], known: &[String]) -> Result<Self> {
        let mut plan = Self { minutes: MINUTES, jobs: 1, targets: Vec::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut number = |what: &str| -> Result<u64> {
                let value = rest.next().with_context(|| format!("{what} needs a number"))?;
                let value: u64 = value.parse().with_context(|| format!("{what}: {value:?} is not a number"))?;
                ensure!((1..=10_000).contains(&value), "{what}: {value} is not within 1 to 10,000");
                Ok(value)
            };
            match *argument {
                "--minutes" => plan.minutes = number("--minutes")?,
                "--jobs" => plan.jobs = usize::try_from(number("--jobs")?)?,
                name if known.iter().any(|target| target == name) => plan.targets.push(name.to_owned()),
                other => bail!("{other:?} is neither an option nor a target; the targets are: {}", known.join(" ")),
            }
        }
        if plan.targets.is_empty() {
            plan.targets = known.to_vec();
        }
        Ok(plan)
    }
}

/// The targets there are: one file each.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let directory = workspace.root.join("tests/fuzz/targets");
    let mut found = Vec::new();
    for file in fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            found.push(name.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// Builds every target; the directory of the programs.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let toolchains = answer(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    if !toolchains.lines().any(|line| line.starts_with("nightly")) {
        return Err(Missing::new("a nightly Rust for libFuzzer: rustup toolchain install nightly").into());
    }
    let cargo_fuzz = workspace.cache.join(format!("cargo-fuzz-{CARGO_FUZZ_VERSION}"));
    let program = cargo_fuzz.join("bin/cargo-fuzz");
    if !program.is_file() {
        println!(
            "setup: cargo-fuzz {CARGO_FUZZ_VERSION} into {} (about a minute, once per machine)",
            cargo_fuzz.display()
        );
        fs::create_dir_all(&workspace.cache).with_context(|| format!("cannot create {}", workspace.cache.display()))?;
        let mut install = cargo();
        install
            .current_dir(&workspace.cache)
            .env("CARGO_TARGET_DIR", workspace.target.join("cargo-fuzz"))
            .args(["install", "cargo-fuzz", "--version", CARGO_FUZZ_VERSION, "--locked", "--root"])
            .arg(&cargo_fuzz);
        required_step(&workspace.logs(), "cargo-fuzz", &mut install)?;
    }
    let target = workspace.target.join("fuzz");
    // By rustup's own name for it, so that the toolchain this program was started with does not stand in the way.
    let mut build = Command::new("rustup");
    build
        .current_dir(&workspace.root)
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN")
        .args(["run", "nightly"])
        .arg(&program)
        .args(["build", "--fuzz-dir", "tests/fuzz", "--target-dir"])
        .arg(&target);
    required_step(&workspace.logs(), "build fuzz targets", &mut build)?;
    let host = answer(Command::new("rustc").args(["--print", "host-tuple"])).context("rustc does not say its host")?;
    Ok(target.join(host).join("release"))
}

fn start(workspace: &Workspace, programs: &Path, target: String, minutes: u64) -> Result<Running> {
    let fuzz = workspace.root.join("tests/fuzz");
    let corpus = fuzz.join("corpus").join(&target);
    let artifacts = fuzz.join("artifacts").join(&target);
    for directory in [&corpus, &artifacts, &workspace.logs()] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    seed(&workspace.root.join("tests/vectors"), &target, &corpus)?;
    let log = workspace.logs().join(format!("fuzz-{target}.log"));
    let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let errors = output.try_clone().context("cannot share the log file")?;
    let child = Command::new(programs.join(&target))
        .arg(&corpus)
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_total_time={}", minutes * 60))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-malloc_limit_mb={ALLOCATION_MIB_MAX}"))
        .arg(format!("-rss_limit_mb={PROCESS_MIB_MAX}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .args(["-print_final_stats=1", "-use_value_profile=1"])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot start {target}"))?;
    Ok(Running { target, child, log, started: Instant::now(), processor: Duration::ZERO })
}

/// Time on a processor of the thread that runs the inputs; `None` once it has ended. `Documentation/scheduler/sched-stats.rst`
/// of the kernel: the first number of `/proc/PID/schedstat`, in nanoseconds.
fn processor_time(pid: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let nanoseconds: u64 = text.split_whitespace().next()?.parse().ok()?;
    (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
}

/// Prints one line for a target that ended; whether it found nothing.
fn report(ended: &Running, success: bool) -> Result<bool> {
    let output = fs::read(&ended.log).with_context(|| format!("cannot read {}", ended.log.display()))?;
    let output = String::from_utf8_lossy(&output);
    let statistic = |name: &str| {
        let value = output.lines().rev().find_map(|line| line.strip_prefix(name));
        value.map_or("?", str::trim).to_owned()
    };
    let runs = statistic("stat::number_of_executed_units:");
    let peak = statistic("stat::peak_rss_mb:");
    let took = seconds(ended.started.elapsed());
    let processor = seconds(ended.processor);
    let verdict = if success { "nothing found" } else { "FAILED" };
    println!("    {:<16} {verdict}: {runs} inputs in {took} ({processor} of processor), peak {peak} MiB", ended.target);
    if !success {
        for line in output.lines().filter(|line| line.contains("SUMMARY") || line.contains("Test unit written")) {
            println!("    | {line}");
        }
        println!("    whole log: {}", ended.log.display());
    }
    Ok(success)
}

/// Puts what the vectors have for a target into its corpus.
fn seed(vectors: &Path, target: &str, corpus: &Path) -> Result<()> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    match target {
        "record" => {
            let entries = fs::read(vectors.join("entries.jsonl")).context("no tests/vectors/entries.jsonl")?;
            found.extend(entries.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        }
        _ => collect(vectors, &mut |path, bytes| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let text = path.to_string_lossy();
            match target {
                "note" | "checkpoint" | "cosignature" if name == "checkpoint" => found.push(bytes),
                "trust" if name == "trust.toml" => found.push(bytes),
                "packed" if text.contains("/packed/") => found.push(bytes),
                "kept" if text.contains("/kept/") => found.push(bytes),
                "proof" if text.ends_with(".tlog-proof") => found.push(bytes),
                "evidence_bundle" if text.ends_with(".evb") => found.push(bytes),
                "verify" if text.contains("/tile/entries/000.p/") => found.push(lines(&bytes)),
                _ => {}
            }
        })?,
    }
    for input in found.iter().filter(|input| !input.is_empty() && input.len() <= INPUT_BYTES_MAX as usize) {
        let path = corpus.join(setup::hex(&Sha256::digest(input)));
        if !path.exists() {
            fs::write(&path, input).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Every file below a directory, with what is in it.
fn collect(directory: &Path, take: &mut impl FnMut(&Path, Vec<u8>)) -> Result<()> {
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for file in fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))? {
            let file = file?;
            if file.file_type()?.is_dir() {
                waiting.push(file.path());
            } else if let Ok(bytes) = fs::read(file.path()) {
                take(&file.path(), bytes);
            }
        }
    }
    Ok(())
}

/// The entries of a bundle as the target `verify` reads them: one per line, then two bytes that change nothing.
fn lines(bundle: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(bundle.len());
    let mut rest = bundle;
    while let Some((length, after)) = rest.split_first_chunk::<2>()
        && let Some((entry, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))
    {
        input.extend_from_slice(entry);
        input.push(b'\n');
        rest = after;
    }
    input.pop();
    input.extend_from_slice(&[u8::MAX, 0]);
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_targets_that_exist() {
        let known = ["note".to_owned(), "record".to_owned()];
        let plan = Plan::parse(&["--minutes", "30", "--jobs", "2", "record"], &known).unwrap();
        assert_eq!((plan.minutes, plan.jobs, plan.targets), (30, 2, vec!["record".to_owned()]));
        assert_eq!(Plan::parse(&[], &known).unwrap().targets, known);
        for wrong in [&["recrod"][..], &["--minutes"], &["--minutes", "0"], &["--jobs", "x"]] {
            assert!(Plan::parse(wrong, &known).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_bundle_becomes_lines() {
        assert_eq!(lines(b"\x00\x02ab\x00\x01c"), b"ab\nc\xff\x00");
    }
}
