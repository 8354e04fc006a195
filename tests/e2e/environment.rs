//! Machines that lack something: the mode or the exit code that the operations table states, and a sentence that helps.

use std::fs;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use tests::{Daemon, Host, NOBODY, output_text, program, until};

/// Runs `command` after `preparation` in mount and only mount namespace of its own.
fn in_own_mounts(preparation: &str, command: &Command) -> Command {
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "--propagation", "private", "/bin/sh", "-e", "-c"])
        .arg(format!("{preparation}\nexec \"$@\""))
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    shell
}

fn ends_with(command: &mut Command, code: i32, sentence: &[&str]) -> Result<Output> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(output.status.code() == Some(code), "exit {code} expected: {}", output_text(&output));
    let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
    for word in sentence {
        ensure!(text.contains(word), "the message does not name {word:?}: {}", output_text(&output));
    }
    ensure!(!text.contains("panicked"), "it panicked: {}", output_text(&output));
    Ok(output)
}

#[test]
fn a_bad_configuration_is_refused_with_key_and_line() -> Result<()> {
    let host = Host::with("[heartbeat]\ninterval_s = 0")?;
    ends_with(&mut host.daemon_command(), 64, &["interval_s"])?;
    host.configure("[heartbeat]\nintervall_s = 10")?;
    ends_with(&mut host.daemon_command(), 64, &["intervall_s"])?;
    fs::write(host.config(), "this is not toml").context("cannot write")?;
    ends_with(&mut host.daemon_command(), 64, &["line"])?;
    fs::remove_file(host.config()).context("cannot remove")?;
    ends_with(&mut host.daemon_command(), 64, &["affiant.toml"])?;
    Ok(())
}

#[test]
fn the_daemon_needs_root_and_says_so() -> Result<()> {
    let host = Host::new()?;
    let directory = host.open_directory("programs")?;
    let affiant = directory.join("affiant");
    fs::copy(program("affiant"), &affiant).context("cannot copy affiant")?;
    let id = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
        .arg(affiant)
        .args(["daemon", "--config"])
        .arg(host.config())
        .current_dir("/");
    ends_with(&mut command, 69, &["root"])?;
    Ok(())
}

#[test]
fn a_kernel_without_btf_is_refused_with_what_to_do() -> Result<()> {
    let host = Host::new()?;
    let mut command = in_own_mounts("mount -t tmpfs none /sys/kernel/btf", &host.daemon_command());
    ends_with(&mut command, 69, &["btf"])?;
    Ok(())
}

#[test]
fn a_cgroup2_hierarchy_in_an_unusual_place_is_found() -> Result<()> {
    let host = Host::new()?;
    let place = host.open_directory("odd place")?;
    // Every other cgroup2 mount disappears from the daemon's view; only the odd one is left.
    let preparation = format!(
        "mount -t cgroup2 none '{}'\nfor mount in $(awk '$3 == \"cgroup2\" && $2 !~ /odd/ {{ print $2 }}' /proc/mounts); do umount -l \"$mount\"; done",
        place.display()
    );
    let daemon = Daemon::start(&host, in_own_mounts(&preparation, &host.daemon_command()))?;
    let session = host.run_in_session(std::path::Path::new("/bin/true"), &[])?;
    let entries = host.entries_after_session(&session)?;
    assert!(entries.iter().any(|entry| entry.kind() == "exec" && entry.session().is_some()));
    daemon.stop()
}

#[test]
fn without_a_bpf_file_system_one_is_mounted() -> Result<()> {
    let host = Host::new()?;
    let preparation = "while umount -l /sys/fs/bpf 2>/dev/null; do :; done";
    let daemon = Daemon::start(&host, in_own_mounts(preparation, &host.daemon_command()))?;
    let session = host.run_in_session(std::path::Path::new("/bin/true"), &[])?;
    host.entries_after_session(&session)?;
    daemon.stop()
}

#[test]
fn no_tpm_means_tier_t0_and_every_output_says_so() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    host.trust()?;
    let status = host.affiant(&["status"]).output().context("cannot start affiant status")?;
    assert!(String::from_utf8_lossy(&status.stdout).contains("T0"), "{}", output_text(&status));
    let armed = until("an armed entry", || Ok(host.entries()?.into_iter().find(|entry| entry.kind() == "armed")))?;
    assert_eq!(armed.body_text("key_tier"), Some("T0"));
    daemon.stop()?;
    let verdict = host.verify(&host.state().join("log"))?;
    assert!(verdict.text.contains("T0"), "{}", verdict.text);
    Ok(())
}

#[test]
fn doctor_says_what_this_machine_allows() -> Result<()> {
    let host = Host::new()?;
    let output = host.affiant(&["doctor"]).output().context("cannot start affiant doctor")?;
    assert_eq!(output.status.code(), Some(0), "{}", output_text(&output));
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    for word in ["btf", "cgroup", "tracepoint", "tpm"] {
        assert!(text.contains(word), "doctor does not speak of {word}:\n{text}");
    }
    Ok(())
}
