//! `cargo xtask bench`: what the agent costs and how fast it is, each number with what it was measured on.
//!
//! Costs are ratios to the same work without the agent, measured in turns within one run, because machines and their load differ
//! and the ratio of neighbors does not. Programs are release builds. Nothing here judges: the numbers are for people and for
//! `docs/PERFORMANCE.md`, which names the command that made each.

mod acts;
mod log;
mod pipeline;
mod proof;
mod tpm;

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::process::{Color, answer, paint, seconds};
use crate::workspace::Workspace;

/// `cargo xtask bench [acts|log|pipeline|tpm]...`: all of them when none is named. `cargo xtask bench proof [LEAVES]` by itself,
/// since it writes 3.4 GB.
pub(crate) fn run(workspace: &Workspace, wanted: &[&str]) -> Result<bool> {
    if let ["proof", leaves @ ..] = wanted {
        machine();
        return proof::run(workspace, leaves);
    }
    const PARTS: [&str; 4] = ["pipeline", "log", "acts", "tpm"];
    if let Some(unknown) = wanted.iter().find(|part| !PARTS.contains(part)) {
        println!("there is no benchmark {unknown}; there are: {}, and proof by itself", PARTS.join(", "));
        return Ok(false);
    }
    let started = Instant::now();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.contains(&part);
    build::ebpf(workspace, Profile::Release)?;
    build::host(workspace, Profile::Release)?;
    // This program is a debug build beside others; what is measured is not.
    ::tests::use_programs_in(workspace.target.join(Profile::Release.directory()));
    machine();
    if is_wanted("pipeline") {
        pipeline::run(workspace)?;
    }
    if is_wanted("acts") {
        acts::run(workspace)?;
    }
    if is_wanted("log") {
        log::run(workspace)?;
    }
    if is_wanted("tpm") {
        tpm::run(workspace)?;
    }
    println!("\nbench: {}", seconds(started.elapsed()));
    Ok(true)
}

/// What the numbers were measured on.
fn machine() {
    heading("machine");
    let kernel = answer(Command::new("uname").arg("-r")).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = information
        .lines()
        .find_map(|line| line.strip_prefix("model name").and_then(|rest| rest.split_once(": ")))
        .map_or("unknown processor", |(_, model)| model);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("  {processors} x {model}; Linux {kernel}; load before: {}", load.trim());
}

fn heading(text: &str) {
    println!("\n{}", paint(Color::Bold, text));
}

/// The middle of the values; 0 without any.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A field of `/proc/<pid>/status` in KiB.
fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processor time of a process so far, in seconds.
fn cpu_seconds(pid: u32) -> Option<f64> {
    /// Ticks per second that the kernel reports in: `USER_HZ`, 100 on every architecture that matters here.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; utime and stime are the 12th and 13th fields after it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Bytes of all files below a directory.
fn bytes_below(directory: &std::path::Path) -> u64 {
    let mut open = vec![directory.to_path_buf()];
    let mut sum = 0;
    while let Some(directory) = open.pop() {
        for item in fs::read_dir(directory).into_iter().flatten().flatten() {
            match item.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(item.path()),
                Ok(metadata) => sum += metadata.len(),
                Err(_) => {} // removed between listing and looking
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_sorted_values() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(&mut []).abs() < f64::EPSILON);
    }

    #[test]
    fn a_process_has_memory_and_processor_time() {
        let own = std::process::id();
        assert!(status_kib(own, "VmHWM").is_some_and(|size| size > 0));
        assert!(cpu_seconds(own).is_some());
        assert_eq!(status_kib(own, "NoSuchField"), None);
    }
}
