//! Verification: entries per second and peak memory of `affiant-verify` on a log of real sessions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::{Host, TreeDirectory, program};

use super::{bytes_below, heading, median, status_kib};
use crate::build::Profile;
use crate::workspace::Workspace;

/// Sessions whose acts make the log, 20,000 opens each.
const SESSIONS: usize = 5;
/// Verifications; the median counts.
const ROUNDS: usize = 5;
/// Time between two looks at the memory of a running verifier.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

pub(super) fn run(workspace: &Workspace) -> Result<()> {
    heading(&format!("verification: median of {ROUNDS} runs"));
    let directory = workspace.target.join(Profile::Release.directory());
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    for number in 0..SESSIONS {
        let files = host.open_directory(&format!("files-{number}"))?;
        let files = files.to_string_lossy().into_owned();
        let session = host.run_in_session(&directory.join("act-opens"), &["20000", &files])?;
        host.entries_after_session(&session)?;
    }
    daemon.stop()?;
    let log = host.state().join("log");
    let size = TreeDirectory::new(log.clone()).size()?;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    for threads in BTreeSet::from([1, processors]) {
        let (time, peak_kib) = verify(&log, host.trust_file(), threads)?;
        let megabytes = bytes_below(&log.join("tile/entries")) as f64 / 1e6;
        println!(
            "  {threads} threads: {size} entries in {time:.3} s: {:.0} entries/s, {:.0} MB/s of entries",
            size as f64 / time,
            megabytes / time
        );
        println!("  {threads} threads: peak memory {:.1} MiB", peak_kib as f64 / 1024.0);
    }
    Ok(())
}

/// Median time of a verification with this many threads, in seconds, and the peak memory in KiB.
fn verify(log: &Path, trust: PathBuf, threads: usize) -> Result<(f64, u64)> {
    let mut times = Vec::new();
    let mut peak_kib = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut child = Command::new(program("affiant-verify"))
            .arg(log)
            .arg("--trust")
            .arg(&trust)
            .args(["--threads", &threads.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start affiant-verify")?;
        let status = loop {
            peak_kib = peak_kib.max(status_kib(child.id(), "VmHWM").unwrap_or_default());
            if let Some(status) = child.try_wait().context("cannot wait")? {
                break status;
            }
            thread::sleep(LOOK_INTERVAL);
        };
        times.push(start.elapsed().as_secs_f64());
        ensure!(status.success(), "affiant-verify: {status}");
    }
    Ok((median(&mut times), peak_kib))
}
