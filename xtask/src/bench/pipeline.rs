//! User space alone: captured raw events replayed into a durable, sealed log, stage by stage.
//!
//! The messages are real: captured from the kernel while helper programs act, then renumbered and repeated. Time is measured
//! inside the replaying program. Instructions are counted by Callgrind, where it is installed, because virtual machines rarely
//! have counters; a stage's own cost is what it adds to the stage before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tests::{nanoseconds_per_act, output_text};

use super::{bytes_below, heading, median};
use crate::build::Profile;
use crate::process::{self, answer, required_step};
use crate::workspace::Workspace;

/// Stages in order; each includes those before it. The first only has the messages in memory.
const STAGES: [&str; 6] = ["read", "decode", "translate", "encode", "append", "seal"];
/// Messages per timed run: about a second of work.
const COUNT: u64 = 500_000;
/// Messages per counted run: Callgrind is fifty times slower.
const COUNT_COUNTED: u64 = 20_000;
/// Timed runs of each stage; the median counts.
const ROUNDS: usize = 3;

pub(super) fn run(workspace: &Workspace) -> Result<()> {
    heading(&format!(
        "pipeline: {COUNT} captured events to a durable, sealed log; median of {ROUNDS} runs, one thread"
    ));
    let mut build = process::cargo();
    build
        .current_dir(&workspace.root)
        .args(["build", "--locked", "--release", "--workspace", "--exclude", "agent-ebpf", "--bins"])
        .args(["--example", "replay"]);
    required_step(&workspace.logs(), "build replay", &mut build)?;
    let directory = workspace.target.join(Profile::Release.directory());
    let replay = directory.join("examples/replay");
    // Every run gets a directory of its own, and all are removed at the end: ext4 does not use an inode again for minutes
    // after its removal, and looks at each of them when it creates a file nearby (fs/ext4/ialloc.c, recently_deleted).
    let scratch = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&workspace.target)
        .context("cannot create a scratch directory")?;
    let scratch = scratch.path();
    fs::create_dir(scratch.join("files")).context("cannot create a scratch directory")?;
    println!("  disk: {:.0} MB/s written and synced", disk_megabytes_per_second(scratch)?);
    let captured = capture(workspace, &directory, &replay, scratch)?;

    println!("  {:<12} {:>10} {:>14} {:>22}", "up to stage", "ns/event", "events/s", "instructions/event");
    let mut before = 0;
    for stage in STAGES {
        let mut times = Vec::new();
        let mut bytes = 0;
        for _ in 0..ROUNDS {
            let state = fresh_state(scratch)?;
            let output = replayed(&mut Command::new(&replay), &captured, &state, stage, COUNT)?;
            times.push(nanoseconds_per_act(&output).context("replay prints its time")?);
            bytes = bytes_below(&state.join("log"));
        }
        let time = median(&mut times);
        let instructions = instructions(&replay, &captured, scratch, stage)?;
        let counted = instructions
            .map_or_else(|| "no valgrind".to_owned(), |count| format!("{count} (+{})", count.saturating_sub(before)));
        before = instructions.unwrap_or_default();
        println!("  {stage:<12} {time:>10.0} {:>14.0} {counted:>22}", 1e9 / time);
        if stage == "seal" {
            println!("  {:.0} bytes per entry on disk, hashes and tiles included", bytes as f64 / COUNT as f64);
        }
    }
    Ok(())
}

/// Captures what helper programs do; the file of messages.
fn capture(workspace: &Workspace, directory: &Path, replay: &Path, scratch: &Path) -> Result<PathBuf> {
    let file = scratch.join("captured");
    let acts = format!(
        "{opens} 5000 {files} && {execs} 300 /bin/true && {rereads} 5000 /etc/hostname",
        opens = directory.join("act-opens").display(),
        execs = directory.join("act-execs").display(),
        rereads = directory.join("act-rereads").display(),
        files = scratch.join("files").display(),
    );
    let output = Command::new(replay)
        .arg("capture")
        .arg(workspace.ebpf_object(Profile::Release.directory()))
        .arg(&file)
        .args(["/bin/sh", "-c", &acts])
        .stdin(Stdio::null())
        .output()
        .context("cannot start replay")?;
    ensure!(output.status.success(), "capture: {}", output_text(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    let count = said.lines().last().unwrap_or_default();
    println!("  captured: {count} of 10,000 opens and 300 processes");
    Ok(file)
}

/// An empty state directory that only root can enter, as the log's keys demand.
fn fresh_state(scratch: &Path) -> Result<PathBuf> {
    let state =
        tempfile::Builder::new().prefix("state-").tempdir_in(scratch).context("cannot create a state directory")?;
    Ok(state.keep())
}

/// How fast the disk takes what the log writes: 256 MiB in pieces of a group commit, then one sync.
fn disk_megabytes_per_second(scratch: &Path) -> Result<f64> {
    use std::io::Write as _;
    let piece = vec![0x5a_u8; 2 << 20];
    let mut file = fs::File::create(scratch.join("disk")).context("cannot create a file")?;
    let start = std::time::Instant::now();
    for _ in 0..128 {
        file.write_all(&piece).context("cannot write")?;
    }
    file.sync_data().context("cannot sync")?;
    let seconds = start.elapsed().as_secs_f64();
    fs::remove_file(scratch.join("disk")).context("cannot remove a file")?;
    Ok(128.0 * piece.len() as f64 / 1e6 / seconds)
}

fn replayed(command: &mut Command, captured: &Path, state: &Path, stage: &str, count: u64) -> Result<String> {
    let output = command
        .arg("run")
        .arg(captured)
        .arg(state)
        .args([stage, &count.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("cannot start replay")?;
    ensure!(output.status.success(), "replay {stage}: {}", output_text(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// Instructions per event up to a stage: what more events add, so that start and end are not in it.
fn instructions(replay: &Path, captured: &Path, scratch: &Path, stage: &str) -> Result<Option<u64>> {
    if answer(Command::new("valgrind").arg("--version")).is_none() {
        return Ok(None);
    }
    let mut totals = [0; 2];
    for (total, count) in totals.iter_mut().zip([COUNT_COUNTED, COUNT_COUNTED * 2]) {
        let state = fresh_state(scratch)?;
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(replay);
        let output = replayed(&mut command, captured, &state, stage, count)?;
        *total = output
            .lines()
            .find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok())
            .context("callgrind prints what it collected")?;
    }
    // Preparing a message (reading, copying, renumbering) is in the difference too: it is what stage `read` shows.
    Ok(Some((totals[1].saturating_sub(totals[0])) / COUNT_COUNTED))
}
