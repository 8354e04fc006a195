//! Load that we did not write, at full speed: what stress-ng(1) does is in the log or in a `gap`, exactly.
//!
//! Every stressor runs for a number of operations, not for a time. At this pace events may be lost; then the loss is counted,
//! every kernel number is in one entry or one gap, and entries and losses together are not fewer than the operations.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, ensure};
use tests::{Entry, Host};

use crate::exactness::{FILE, NETWORK, PROCESS, assert_numbers_are_complete, of_session};

/// A stressor with its options, its operations, and what each of them does at least once.
const STRESSORS: &[(&str, u64, &str, u64)] = &[
    ("exec", 500, "exec", PROCESS),
    ("fork", 1000, "fork", PROCESS),
    ("clone", 200, "exit", PROCESS),
    ("open", 20_000, "open", FILE),
    ("sock", 300, "connect", NETWORK),
    // Maps and unmaps memory; what it does to files is little. It must not disturb the rest.
    ("mmap --mmap-bytes 1m", 20, "exec", PROCESS),
];

#[test]
fn what_stress_ng_does_is_in_the_log_or_counted_as_lost() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    let directory = host.open_directory("stress")?;
    for (stressor, operations, kind, class) in STRESSORS {
        let (stressor, options) = stressor.split_once(' ').unwrap_or((stressor, ""));
        // The exec stressor does not run as root.
        let command = format!(
            "cd {} && exec setpriv --reuid 65534 --clear-groups stress-ng --quiet --{stressor} 1 --{stressor}-ops {operations} {options}",
            directory.display()
        );
        let session = host.run_in_session(Path::new("/bin/sh"), &["-c", &command])?;
        let entries = host.entries_after_session(&session)?;
        let (own, lost) = of_session(&entries, &session, *class)?;
        let of_kind = own.iter().filter(|entry| entry.kind() == *kind).count() as u64;
        println!("{stressor}: {operations} operations, {of_kind} entries {kind:?}, {lost} lost");
        let floor = if stressor == "mmap" { 1 } else { *operations };
        ensure!(of_kind + lost >= floor, "{stressor}: {of_kind} {kind:?} and {lost} lost for {operations} operations");
        if lost == 0 && *class == PROCESS {
            whole_lives(&own)?;
        }
        assert_numbers_are_complete(&entries)?;
    }
    daemon.stop()?;
    host.assert_verifies()
}

/// Without losses each process of the session began once, by a fork, and ended once.
fn whole_lives(own: &[&Entry]) -> Result<()> {
    let mut lives: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for entry in own {
        match entry.kind() {
            "fork" => {
                let child = entry.body("child").map(ToString::to_string).unwrap_or_default();
                lives.entry(child.trim_matches('"').to_owned()).or_default().0 += 1;
            }
            "exit" => lives.entry(entry.process().unwrap_or_default().to_owned()).or_default().1 += 1,
            _ => {}
        }
    }
    // The first process was made by `affiant run`, outside the session.
    let odd: Vec<_> = lives.iter().filter(|(_, life)| **life != (1, 1)).collect();
    ensure!(odd.len() == 1 && *odd[0].1 == (0, 1), "forks and exits that do not match: {odd:?}");
    Ok(())
}
