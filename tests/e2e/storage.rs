//! A disk that runs out of room: what is left out is what configuration lets go, is counted exactly, and comes back.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tests::{Daemon, Entry, Host, Session, program, until};

use crate::exactness::{FILE, assert_numbers_are_complete, of_session};

/// A small file system of its own on a directory, until it is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(directory: &Path, mebibytes: u32) -> Result<Self> {
        fs::create_dir_all(directory).context("cannot make the mount point")?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0755"), "tmpfs"])
            .arg(directory)
            .status()
            .context("cannot start mount")?;
        ensure!(status.success(), "cannot mount a tmpfs");
        Ok(Self(directory.to_owned()))
    }

    fn free(&self) -> Result<u64> {
        let status = rustix::fs::statvfs(&self.0)?;
        Ok(status.f_bavail * status.f_frsize)
    }

    /// Writes until so many bytes are left, or until there is no room.
    fn fill(&self, name: &str, left: u64) -> Result<()> {
        let mut file = File::create(self.0.join(name)).context("cannot create a filler")?;
        let block = vec![0x5a; 64 << 10];
        while self.free()? > left {
            match file.write_all(&block) {
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                written => written.context("cannot fill the disk")?,
            }
        }
        Ok(())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a daemon of a failed test may still be in it.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        drop(unmounted);
    }
}

/// Waits until the daemon says that the disk is in this state.
fn wait_for(host: &Host, state: &str) -> Result<()> {
    until(&format!("the storage state {state}"), || {
        let answer = host.affiant(&["status", "--json"]).output().context("cannot start affiant status")?;
        let status: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
        Ok((status.pointer("/storage/state").and_then(|seen| seen.as_str()) == Some(state)).then_some(()))
    })
}

/// Opens so many files in a session; the log after it, and how many of them are in it.
fn opens(host: &Host, name: &str, count: u64) -> Result<(Vec<Entry>, Session, u64)> {
    let directory = host.open_directory(name)?;
    let directory = directory.to_str().context("a path in UTF-8")?;
    let session = host.run_in_session(&program("act-opens"), &[&count.to_string(), directory])?;
    let entries = host.entries_after_session(&session)?;
    let (own, _) = of_session(&entries, &session, FILE)?;
    let seen = own
        .iter()
        .filter(|entry| {
            entry.kind() == "open" && entry.body_text("path").is_some_and(|path| path.starts_with(directory))
        })
        .count();
    Ok((entries, session, seen as u64))
}

#[test]
fn a_disk_without_room_leaves_out_what_it_may_counts_it_and_goes_on_when_there_is_room() -> Result<()> {
    let host =
        Host::with("[storage]\nlow_mib = 16\nreserve_mib = 4\ndrop = [\"file\"]\n\n[heartbeat]\ninterval_s = 1\n")?;
    let disk = Small::mount(&host.state(), 64)?;
    let daemon = host.start()?;
    host.trust()?;
    let (_, _, seen) = opens(&host, "before", 300)?;
    assert_eq!(seen, 300);

    disk.fill("filler", 10 << 20)?;
    wait_for(&host, "low")?;
    let (_, session, seen) = opens(&host, "low", 500)?;
    assert_eq!(seen, 0, "files are left out");
    fs::remove_file(host.state().join("filler"))?;
    wait_for(&host, "ok")?;
    let (entries, _, seen) = opens(&host, "after", 300)?;
    assert_eq!(seen, 300, "capture came back");
    let (own, lost) = of_session(&entries, &session, FILE)?;
    assert!(lost >= 500, "{lost} opens are counted, at least the helper's 500 and its libraries'");
    assert!(own.iter().any(|entry| entry.kind() == "exec"), "processes are not left out");

    // No room at all: the reserve is spent on the control chain.
    disk.fill("filler", 0)?;
    wait_for(&host, "full")?;
    let refused = host.affiant(&["run", "--", "/bin/true"]).output().context("cannot start affiant run")?;
    assert_eq!(refused.status.code(), Some(69), "{}", String::from_utf8_lossy(&refused.stderr));
    fs::remove_file(host.state().join("filler"))?;
    wait_for(&host, "ok")?;
    let (entries, _, seen) = opens(&host, "again", 300)?;
    assert_eq!(seen, 300, "capture came back from a full disk");

    let states: Vec<&str> =
        entries.iter().filter(|entry| entry.kind() == "storage").filter_map(|entry| entry.body_text("state")).collect();
    let mut without_repeats = states.clone();
    without_repeats.dedup();
    assert_eq!(states, without_repeats, "each change is said once");
    assert!(states.starts_with(&["low", "ok"]) && states.contains(&"full") && states.ends_with(&["ok"]), "{states:?}");
    let causes: Vec<&str> =
        entries.iter().filter(|entry| entry.kind() == "gap").filter_map(|entry| entry.body_text("cause")).collect();
    assert!(!causes.is_empty() && causes.iter().all(|cause| *cause == "disk_full"), "{causes:?}");
    assert_numbers_are_complete(&entries)?;
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn a_daemon_starts_on_a_full_disk_out_of_its_reserve_and_without_one_says_what_is_missing() -> Result<()> {
    let host =
        Host::with("[storage]\nlow_mib = 16\nreserve_mib = 4\ndrop = [\"file\"]\n\n[heartbeat]\ninterval_s = 1\n")?;
    let disk = Small::mount(&host.state(), 64)?;
    let daemon = host.start()?;
    host.trust()?;
    daemon.stop()?;

    disk.fill("filler", 0)?;
    let daemon = host.start()?;
    wait_for(&host, "full")?;
    // The reserve is spent now: what it freed goes too, and nothing is left to start with.
    disk.fill("more", 0)?;
    daemon.kill()?;
    disk.fill("rest", 0)?;
    let mut refused = Daemon::spawn(&host, host.daemon_command())?;
    let status = refused.wait()?;
    let messages = host.daemon_messages();
    assert_eq!(status.code(), Some(69), "{messages}");
    let last = messages.lines().last().unwrap_or_default();
    ensure!(last.contains("the disk is full: free space on the file system of the state directory"), "{last}");

    for filler in ["filler", "more", "rest"] {
        fs::remove_file(host.state().join(filler))?;
    }
    let daemon = host.start()?;
    wait_for(&host, "ok")?;
    let (entries, _, seen) = opens(&host, "after", 300)?;
    assert_eq!(seen, 300, "capture came back");
    assert!(entries.iter().any(|entry| entry.kind() == "storage" && entry.body_text("state") == Some("full")));
    daemon.stop()?;
    host.assert_verifies()
}
