//! `kill -9` of the daemon at any moment: nothing shown is lost, nothing captured is lost, and the log says what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tests::{DEADLINE, Entry, Gate, Host, Random, program, until};

/// Kills in one test. Each restart takes about a second.
const ROUNDS: u64 = 5;
/// The latest moment of a kill after the daemon is ready, in milliseconds: covers several commits and a seal.
const KILL_AFTER_MAX_MS: u64 = 1500;

/// Starts a command in a session and does not wait for it.
fn begin(host: &Host, program: &Path, arguments: &[&str]) -> Result<Child> {
    host.affiant(&["run", "--"])
        .arg(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start affiant run")
}

/// Waits until the log shows that it was opened anew this often, exactly; then every entry.
fn recovered(host: &Host, times: u64) -> Result<Vec<Entry>> {
    until("the start is in the log", || {
        let entries = host.entries()?;
        let seen = entries.iter().filter(|entry| entry.kind() == "recovered").count() as u64;
        ensure!(seen <= times, "{seen} recovered entries after {times} restarts");
        Ok((seen == times).then_some(entries))
    })
}

#[test]
fn what_tail_showed_survives_a_kill_at_any_moment() -> Result<()> {
    let mut random = Random::seeded();
    let host = Host::new()?;
    let mut daemon = host.start()?;
    host.trust()?;
    let mut shown: Vec<String> = Vec::new();
    for round in 1..=ROUNDS {
        let shell_loop = "i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done";
        let mut workload = begin(&host, Path::new("/bin/sh"), &["-c", shell_loop])?;
        let moment = Duration::from_millis(random.below(KILL_AFTER_MAX_MS));
        ensure!(moment < DEADLINE);
        // The moment itself is what varies here; nothing is waited for.
        std::thread::sleep(moment);
        let before: Vec<String> = host.entries()?.into_iter().map(|entry| entry.line).collect();
        daemon.kill()?;
        workload.wait().context("cannot wait for the workload")?;

        daemon = host.start()?;
        // Ready means durable; shown is what is sealed, within a second.
        let after = recovered(&host, round)?;
        let lines: Vec<&str> = after.iter().map(|entry| entry.line.as_str()).collect();
        ensure!(lines.len() >= before.len(), "round {round}: {} entries before, {} after", before.len(), lines.len());
        for (index, line) in before.iter().enumerate() {
            assert_eq!(lines.get(index), Some(&line.as_str()), "round {round}: entry {index} changed");
        }
        assert!(before.len() >= shown.len());
        shown = before;
        let last = after.iter().rev().find(|entry| entry.kind() == "recovered");
        assert_eq!(last.and_then(|entry| entry.body_text("cause")), Some("crash"));
        host.assert_verifies()?;
    }
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn what_happened_while_the_daemon_was_down_is_in_the_log() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    let directory = host.open_directory("files")?;
    // Waits without an act of its own, then acts: after the daemon is gone.
    let gate = Gate::new(&host)?;
    let opens = program("act-opens");
    let script = format!("{}; {} 500 {}", gate.pass(), opens.display(), directory.display());
    let mut workload = begin(&host, Path::new("/bin/sh"), &["-c", &script])?;
    until("the workload runs in its session", || {
        Ok(host.entries()?.iter().any(|entry| entry.kind() == "exec" && entry.session().is_some()).then_some(()))
    })?;
    daemon.kill()?;
    gate.open()?;
    workload.wait().context("cannot wait for the workload")?;

    let daemon = host.start()?;
    let prefix = format!("{}/", directory.display());
    let opened = until("the acts of the time without a daemon", || {
        let entries = host.entries()?;
        let names: BTreeSet<u64> = entries.iter().filter_map(|entry| opened_number(entry, &prefix)).collect();
        let lost: u64 = entries.iter().filter_map(Entry::gap).map(|gap| gap.count).sum();
        Ok((names.len() as u64 + lost >= 500).then_some((names.len(), lost)))
    })?;
    assert_eq!(opened, (500, 0), "500 opens do not fill a ring");
    // Read twice by two runs of the daemon, recorded once.
    let entries = host.entries()?;
    let numbers: Vec<_> = entries.iter().filter_map(Entry::kernel).collect();
    let distinct: BTreeSet<_> = numbers.iter().collect();
    assert_eq!(numbers.len(), distinct.len(), "a kernel number is in the log twice");
    daemon.stop()?;
    host.assert_verifies()
}

#[expect(clippy::disallowed_methods, reason = "no crash follows: nothing need be durable")]
fn moved(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::rename(from, to)
}

/// The one directory below the pins: a set of the kernel side's objects.
fn pinned_set(host: &Host) -> Result<PathBuf> {
    let sets: Vec<PathBuf> = std::fs::read_dir(host.pins())
        .context("cannot list the pins")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .context("cannot list the pins")?;
    match sets.as_slice() {
        [set] => Ok(set.clone()),
        _ => bail!("one pinned set expected: {sets:?}"),
    }
}

/// Kernel numbers that gaps of this cause take away, by the capture they are of.
fn taken_away(entries: &[Entry], cause: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.body_text("cause") == Some(cause)) {
        if let (Some(gap), Some(capture)) = (entry.gap(), entry.body_text("capture_id")) {
            *counts.entry(capture.to_owned()).or_default() += gap.count;
        }
    }
    counts
}

fn captures(entries: &[Entry]) -> Vec<String> {
    let armed = entries.iter().filter(|entry| entry.kind() == "armed");
    armed.filter_map(|entry| entry.body_text("capture_id")).map(str::to_owned).collect()
}

#[test]
fn unread_events_of_a_replaced_kernel_side_are_a_gap_with_their_numbers() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    let gate = Gate::new(&host)?;
    let script = format!("{}; {} 50 /bin/true", gate.pass(), program("act-execs").display());
    let mut workload = begin(&host, Path::new("/bin/sh"), &["-c", &script])?;
    until("the workload runs in its session", || {
        Ok(host.entries()?.iter().any(|entry| entry.kind() == "exec" && entry.session().is_some()).then_some(()))
    })?;
    daemon.kill()?;
    gate.open()?;
    workload.wait().context("cannot wait for the workload")?;
    // What an upgrade finds: a set that another object made. Only the digest in its name says which object that was.
    let set = pinned_set(&host)?;
    let name = set.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (version, _) = name.split_once('-').context("a version and a digest")?;
    let other = host.pins().join(format!("{version}-0123456789abcdef"));
    moved(&set, &other).context("cannot rename the pinned set")?;

    let daemon = host.start()?;
    let entries = until("the new capture is armed", || {
        let entries = host.entries()?;
        Ok((captures(&entries).len() == 2).then_some(entries))
    })?;
    let captures = captures(&entries);
    let [old, new] = captures.as_slice() else { bail!("two captures expected: {captures:?}") };
    assert_ne!(old, new);
    let lost = taken_away(&entries, "not_observed");
    // Fifty processes begin, execute and end while nobody reads.
    assert!(lost.get(old).is_some_and(|count| *count >= 150), "{lost:?} of {old}");
    assert!(!lost.contains_key(new), "{lost:?}");
    assert!(taken_away(&entries, "unexplained").is_empty());
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn a_fresh_log_beside_a_running_capture_says_which_numbers_it_cannot_know() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    let session = host.run_in_session(&program("act-execs"), &["20", "/bin/true"])?;
    host.entries_after_session(&session)?;
    daemon.kill()?;
    // The log is gone, the kernel side is not.
    moved(&host.state(), &host.path("state-before")).context("cannot move the state away")?;

    let daemon = host.start()?;
    host.trust()?;
    let session = host.run_in_session(&program("act-execs"), &["20", "/bin/true"])?;
    let entries = host.entries_after_session(&session)?;
    let lost = taken_away(&entries, "not_observed");
    assert!(lost.values().sum::<u64>() >= 60, "what the first log holds is not observed by this one: {lost:?}");
    assert!(taken_away(&entries, "unexplained").is_empty());
    let issued = entries
        .iter()
        .find(|entry| entry.kind() == "issued" && entry.body_text("id") == Some(session.id.as_str()))
        .context("the session has an issued entry")?
        .index()?;
    let execs = entries.iter().filter(|entry| entry.kind() == "exec" && entry.session() == Some(issued));
    // The program itself, and what it starts.
    assert_eq!(execs.count(), 21);
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn an_end_in_order_is_recorded_and_the_next_start_says_so() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    daemon.stop()?;
    let daemon = host.start()?;
    let entries = recovered(&host, 1)?;
    assert_eq!(entries.iter().filter(|entry| entry.kind() == "disarmed").count(), 1);
    let recovered: Vec<_> = entries.iter().filter(|entry| entry.kind() == "recovered").collect();
    assert_eq!(recovered.last().and_then(|entry| entry.body_text("cause")), Some("clean"));
    daemon.stop()?;
    host.assert_verifies()
}

/// The number of the file, when the entry is an open of one of the workload's.
fn opened_number(entry: &Entry, prefix: &str) -> Option<u64> {
    if entry.kind() != "open" {
        return None;
    }
    entry.body_text("path")?.strip_prefix(prefix)?.parse().ok()
}
