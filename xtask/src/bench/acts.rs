//! What an act costs the one who does it, and the agent: off, outside any session, and in a session, in turns.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use tests::{Entry, Host, nanoseconds_per_act, output_text};

use super::{bytes_below, cpu_seconds, heading, median, status_kib};
use crate::build::Profile;
use crate::workspace::Workspace;

/// Rounds of off, outside, session; the median counts. Odd, so that there is a middle.
const ROUNDS: usize = 5;

/// One kind of act: a name, how many, and the helper program with its other arguments.
struct Act {
    name: &'static str,
    count: u64,
    helper: &'static str,
    after: Vec<String>,
}

/// What was measured of one act under one condition.
#[derive(Default)]
struct Samples {
    nanoseconds: Vec<f64>,
}

pub(super) fn run(workspace: &Workspace) -> Result<()> {
    heading(&format!("cost of an act: median of {ROUNDS} rounds, in turns without and with the agent"));
    let host = Host::new()?;
    let file = host.path("cached-file");
    std::fs::write(&file, "cached").context("cannot write")?;
    let file = file.to_string_lossy().into_owned();
    let acts = [
        Act { name: "fork+exec+wait", count: 10_000, helper: "act-execs", after: vec!["/bin/true".into()] },
        Act { name: "open+read+close", count: 300_000, helper: "act-rereads", after: vec![file] },
        Act { name: "TCP connect", count: 20_000, helper: "act-connects", after: vec!["loopback".into()] },
    ];
    let directory = workspace.target.join(Profile::Release.directory());
    let mut off: Vec<Samples> = acts.iter().map(|_| Samples::default()).collect();
    let mut outside: Vec<Samples> = acts.iter().map(|_| Samples::default()).collect();
    let mut inside: Vec<Samples> = acts.iter().map(|_| Samples::default()).collect();
    let mut agent_seconds = vec![Vec::new(); acts.len()];
    let mut peak_kib = 0;
    for _ in 0..ROUNDS {
        for (act, samples) in acts.iter().zip(&mut off) {
            samples.nanoseconds.push(measure(&mut plain(&directory, act))?);
        }
        let daemon = host.start()?;
        for (number, act) in acts.iter().enumerate() {
            if let Some(samples) = outside.get_mut(number) {
                samples.nanoseconds.push(measure(&mut plain(&directory, act))?);
            }
            let before = cpu_seconds(daemon.id()).unwrap_or_default();
            let mut command = host.affiant(&["run", "--"]);
            let helper = plain(&directory, act);
            command.arg(helper.get_program()).args(helper.get_args());
            if let Some(samples) = inside.get_mut(number) {
                samples.nanoseconds.push(measure(&mut command)?);
            }
            drained(&host)?;
            let spent = cpu_seconds(daemon.id()).unwrap_or_default() - before;
            if let Some(samples) = agent_seconds.get_mut(number) {
                samples.push(spent * 1e6 / act.count as f64);
            }
        }
        peak_kib = peak_kib.max(status_kib(daemon.id(), "VmHWM").unwrap_or_default());
        daemon.stop()?;
    }
    println!(
        "  {:<16} {:>9} {:>12} {:>12} {:>10} {:>10} {:>14}",
        "act", "off", "outside", "in session", "outside", "session", "agent CPU"
    );
    println!("  {:<16} {:>9} {:>12} {:>12} {:>10} {:>10} {:>14}", "", "ns", "ns", "ns", "ratio", "ratio", "us per act");
    for (number, act) in acts.iter().enumerate() {
        let middle = |samples: &mut [Samples]| samples.get_mut(number).map_or(0.0, |one| median(&mut one.nanoseconds));
        let (off, outside, inside) = (middle(&mut off), middle(&mut outside), middle(&mut inside));
        let spent = agent_seconds.get_mut(number).map_or(0.0, |samples| median(samples));
        println!(
            "  {:<16} {off:>9.0} {outside:>12.0} {inside:>12.0} {:>10.2} {:>10.2} {spent:>14.2}",
            act.name,
            outside / off,
            inside / off,
        );
    }
    summary(&host, peak_kib)
}

/// The helper with its arguments, outside any session.
fn plain(directory: &Path, act: &Act) -> Command {
    let mut command = Command::new(directory.join(act.helper));
    command.arg(act.count.to_string()).args(&act.after);
    command
}

fn measure(command: &mut Command) -> Result<f64> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    nanoseconds_per_act(&String::from_utf8_lossy(&output.stdout)).with_context(|| output_text(&output))
}

/// Waits until the agent has written what it knows: two looks in a row find the same number of entries.
fn drained(host: &Host) -> Result<()> {
    let mut last = None;
    tests::until("the agent has caught up", || {
        let output = host.affiant(&["status", "--json"]).output().context("cannot start affiant status")?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| output_text(&output))?;
        let entries = status.get("entries").and_then(serde_json::Value::as_u64);
        let same = last == entries;
        last = entries;
        Ok(same.then_some(()))
    })
}

fn summary(host: &Host, peak_kib: u64) -> Result<()> {
    let entries = host.entries()?;
    let lost: u64 = entries.iter().filter_map(Entry::gap).map(|gap| gap.count).sum();
    let bytes = bytes_below(&host.state().join("log"));
    let count = entries.len().max(1) as f64;
    println!("  {} entries, {lost} events lost (all of them in gaps)", entries.len());
    println!("  {:.0} bytes per entry on disk, hashes and tiles included", bytes as f64 / count);
    println!("  peak memory of the agent: {:.1} MiB", peak_kib as f64 / 1024.0);
    Ok(())
}
