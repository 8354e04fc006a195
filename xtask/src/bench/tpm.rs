//! What a host does to its TPM that opens sessions as fast as the agent lets it, and what the TPM does to it: without a TPM,
//! with one, and with one that hangs, in turns.
//!
//! The TPM is swtpm, which answers faster than any chip: what a chip would need is for its own measurement. What does not
//! depend on that is how often it is asked. The commands are counted by the TPM, not by the agent.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Commands, Entry, Host, Swtpm, nanoseconds_per_act, output_text};

use super::{heading, median};
use crate::build::Profile;
use crate::workspace::Workspace;

/// Turns of none, TPM, hanging; the median counts. Odd, so that there is a middle.
const ROUNDS: usize = 3;
/// Sessions of each run.
const SESSIONS: u64 = 10_000;
/// Threads that open them, each one after the other. A session is answered once it is durable, together with all that came
/// in 50 ms.
const THREADS: u64 = 256;
const DAY_SECONDS: f64 = 24.0 * 3600.0;

/// One sort of TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tpm {
    None,
    There,
    Hangs,
}

/// What was measured of one run.
#[derive(Debug, Default, Clone)]
struct Run {
    sessions_per_second: f64,
    /// The longest that the opening of a session took, ms.
    longest_ms: f64,
    /// From the end of the load until the agent had written everything, ms.
    behind_ms: f64,
    lost: u64,
    tpm: Option<Use>,
}

/// What was asked of the TPM meanwhile, from before the start of the daemon until after its end.
#[derive(Debug, Clone)]
struct Use {
    seconds: f64,
    commands: Commands,
    operations: u64,
    busy_seconds: f64,
    /// The longest that the pipeline took to hand an operation over, us.
    handed_over_us: f64,
    anchors: u64,
    steps: u64,
    steps_max: u64,
}

pub(super) fn run(workspace: &Workspace) -> Result<()> {
    heading(&format!(
        "a TPM under load: {SESSIONS} sessions from {THREADS} threads; median of {ROUNDS} rounds, in turns without and with it"
    ));
    let sorts = [("none", Tpm::None), ("swtpm", Tpm::There), ("one that hangs", Tpm::Hangs)];
    let mut runs: Vec<Vec<Run>> = sorts.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, sort), runs) in sorts.iter().zip(&mut runs) {
            runs.push(load(workspace, *sort)?);
        }
    }
    println!(
        "  {:<16} {:>12} {:>7} {:>16} {:>14} {:>6}",
        "TPM", "sessions/s", "ratio", "longest open ms", "caught up ms", "lost"
    );
    let middle = |runs: &[Run], of: fn(&Run) -> f64| median(&mut runs.iter().map(of).collect::<Vec<_>>());
    let without = runs.first().map_or(0.0, |runs| middle(runs, |run| run.sessions_per_second));
    for ((name, _), runs) in sorts.iter().zip(&runs) {
        let rate = middle(runs, |run| run.sessions_per_second);
        println!(
            "  {name:<16} {rate:>12.0} {:>7.2} {:>16.1} {:>14.0} {:>6}",
            rate / without,
            middle(runs, |run| run.longest_ms),
            middle(runs, |run| run.behind_ms),
            runs.iter().map(|run| run.lost).sum::<u64>(),
        );
    }
    for ((name, _), runs) in sorts.iter().zip(&runs) {
        for used in runs.iter().filter_map(|run| run.tpm.as_ref()) {
            print_use(name, used);
        }
    }
    Ok(())
}

fn print_use(name: &str, used: &Use) {
    let Use { seconds, commands, operations, busy_seconds, handed_over_us, anchors, steps, steps_max } = used;
    println!(
        "  {name}: in {seconds:.1} s, start and stop included, {operations} operations, {anchors} anchors among them; the TPM was asked {} commands and was at work for {busy_seconds:.2} s: {:.0} s of each hour",
        commands.total(),
        busy_seconds / seconds * 3600.0,
    );
    println!(
        "  {name}: {} writes to NV, {steps} of them steps for the log; such runs one after the other would make {:.0} steps a day, the cap lets {steps_max} happen",
        commands.nv_writes(),
        *steps as f64 / seconds * DAY_SECONDS,
    );
    println!(
        "  {name}: longest that the pipeline took to hand the TPM something, which it never waits for: {handed_over_us:.0} us"
    );
}

/// One run of a fresh agent under the load.
fn load(workspace: &Workspace, sort: Tpm) -> Result<Run> {
    let swtpm = if sort == Tpm::None { None } else { Some(Swtpm::start_noting()?) };
    let device = swtpm.as_ref().map_or_else(|| "none".to_owned(), Swtpm::tcti);
    let host = Host::with(&format!("[tpm]\ndevice = {device:?}\n"))?;
    let begin = Instant::now();
    let daemon = host.start()?;
    if swtpm.is_some() {
        tests::until("the first anchor", || {
            let anchors = status(&host)?.pointer("/tpm/anchors").and_then(Value::as_u64);
            Ok(anchors.filter(|anchors| *anchors > 0).map(drop))
        })?;
    }
    let hanging = swtpm.as_ref().filter(|_| sort == Tpm::Hangs);
    if let Some(swtpm) = hanging {
        swtpm.pause()?;
    }
    let mut run = sessions(workspace, &host)?;
    let at_end = status(&host)?;
    if let Some(swtpm) = hanging {
        swtpm.resume()?;
    }
    let tpm = used(&at_end)?;
    daemon.stop()?;
    let seconds = begin.elapsed().as_secs_f64();
    let entries = host.entries()?;
    run.lost = entries.iter().filter_map(Entry::gap).map(|gap| gap.count).sum();
    let of_kind = |kind: &str, op: Option<&str>| {
        entries.iter().filter(|entry| entry.kind() == kind && (op.is_none() || entry.body_text("op") == op)).count()
            as u64
    };
    run.tpm = match (swtpm, tpm) {
        (Some(swtpm), Some(tpm)) => Some(Use {
            seconds,
            commands: swtpm.commands()?,
            anchors: of_kind("anchor", None),
            steps: of_kind("counter", Some("step")),
            ..tpm
        }),
        _ => None,
    };
    Ok(run)
}

/// Opens the sessions, and waits until the agent has written what it knows of them.
fn sessions(workspace: &Workspace, host: &Host) -> Result<Run> {
    let program = workspace.target.join(Profile::Release.directory()).join("act-sessions");
    let output = Command::new(program)
        .args([SESSIONS.to_string(), THREADS.to_string()])
        .arg(host.path("run").join("control.sock"))
        .output()
        .context("cannot start act-sessions")?;
    let end = Instant::now();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let each = nanoseconds_per_act(&text).with_context(|| output_text(&output))?;
    let longest = text.lines().find_map(|line| line.strip_prefix("the longest took ")?.strip_suffix(" ns"));
    let longest: f64 = longest.with_context(|| output_text(&output))?.parse().context("nanoseconds")?;
    tests::until("the agent has caught up", || {
        let status = status(host)?;
        let number = |name: &str| status.get(name).and_then(Value::as_u64);
        ensure!(number("entries").is_some(), "no entries in the status: {status}");
        // Every session ended, and all that is written is sealed.
        Ok((number("sessions") == Some(0) && number("entries") == number("sealed")).then_some(()))
    })?;
    let behind_ms = end.elapsed().as_secs_f64() * 1e3;
    Ok(Run { sessions_per_second: 1e9 / each, longest_ms: longest / 1e6, behind_ms, ..Run::default() })
}

/// What the agent says of its use of the TPM; what only the log and the TPM know is added later.
fn used(status: &Value) -> Result<Option<Use>> {
    let Some(tpm) = status.get("tpm") else { return Ok(None) };
    let number = |name: &str| tpm.get(name).and_then(Value::as_u64).with_context(|| format!("no {name}: {tpm}"));
    Ok(Some(Use {
        seconds: 0.0,
        commands: Commands::default(),
        operations: number("operations_last_hour")?,
        busy_seconds: number("busy_ns_last_hour")? as f64 / 1e9,
        handed_over_us: number("order_ns_max")? as f64 / 1e3,
        anchors: 0,
        steps: 0,
        steps_max: number("steps_per_day_max")?,
    }))
}

fn status(host: &Host) -> Result<Value> {
    let output = host.affiant(&["status", "--json"]).output().context("cannot start affiant status")?;
    serde_json::from_slice(&output.stdout).with_context(|| output_text(&output))
}
