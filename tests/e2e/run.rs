//! `affiant run` and what it answers: exit codes, signals, identities, refusals.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use tests::{Host, NOBODY, Session, output_text, program};

/// Runs a command in a session as root.
fn run(host: &Host, options: &[&str], command: &[&str]) -> Result<Output> {
    let mut arguments = vec!["run"];
    arguments.extend(options);
    arguments.push("--");
    arguments.extend(command);
    host.affiant(&arguments).output().context("cannot start affiant run")
}

/// The same as user `nobody`, without any privilege.
fn run_as_nobody(host: &Host, command: &[&str]) -> Result<Output> {
    // The programs are copied: the directory they were built in need not be open to others.
    let directory = host.open_directory("programs")?;
    let affiant = directory.join("affiant");
    if !affiant.exists() {
        std::fs::copy(program("affiant"), &affiant).context("cannot copy affiant")?;
    }
    let id = NOBODY.to_string();
    Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs", "--"])
        .arg(affiant)
        .arg("run")
        .arg("--config")
        .arg(host.config())
        .arg("--")
        .args(command)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .context("cannot start setpriv (package util-linux)")
}

fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", output_text(output));
}

fn says(output: &Output, words: &str) -> bool {
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .any(|line| line.starts_with("affiant:") && line.to_lowercase().contains(words))
}

#[test]
fn the_commands_exit_code_is_the_exit_code() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    assert_code(&run(&host, &[], &["/bin/true"])?, 0);
    assert_code(&run(&host, &[], &["/bin/sh", "-c", "exit 7"])?, 7);
    // 128 + 15, as a shell says it.
    assert_code(&run(&host, &[], &["/bin/sh", "-c", "kill -TERM $$"])?, 143);
    assert_code(&run(&host, &[], &["/nonexistent/program"])?, 127);
    assert_code(&run(&host, &[], &["/etc/passwd"])?, 126);
    assert_code(&run(&host, &["--no-such-option"], &["/bin/true"])?, 64);
    assert_code(&run(&host, &["--ttl", "not-a-time"], &["/bin/true"])?, 64);
    Ok(())
}

#[test]
fn without_a_daemon_run_says_so() -> Result<()> {
    let host = Host::new()?;
    let output = run(&host, &[], &["/bin/true"])?;
    assert_code(&output, 69);
    assert!(says(&output, "daemon"), "{}", output_text(&output));
    Ok(())
}

#[test]
fn the_commands_output_is_untouched_and_its_input_arrives() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let output = run(&host, &[], &["/bin/sh", "-c", "printf 'a\\0b'; printf c >&2"])?;
    assert_code(&output, 0);
    assert_eq!(output.stdout, b"a\0b");
    assert!(output.stderr.ends_with(b"c") || output.stderr.windows(1).any(|byte| byte == b"c"));
    Ok(())
}

#[test]
fn another_user_is_refused_unless_the_configuration_allows_it() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    let refused = run_as_nobody(&host, &["/bin/true"])?;
    assert_code(&refused, 77);
    assert!(says(&refused, "allow"), "the refusal does not say what to change: {}", output_text(&refused));
    daemon.stop()?;

    host.configure(&format!("[run]\nallow_uids = [{NOBODY}]"))?;
    let _daemon = host.start()?;
    let allowed = run_as_nobody(&host, &["/usr/bin/id", "-u"])?;
    assert_code(&allowed, 0);
    assert_eq!(String::from_utf8_lossy(&allowed.stdout).trim(), NOBODY.to_string());
    let session = Session::of(allowed)?;
    let entries = host.entries_after_session(&session)?;
    let issued = entries
        .iter()
        .find(|entry| entry.kind() == "issued" && entry.body_text("id") == Some(session.id.as_str()))
        .context("the session has an issued entry")?;
    assert_eq!(issued.body_number("uid"), Some(u64::from(NOBODY)));
    let identity = issued.body_text("identity").context("the session has an identity")?;
    assert!(identity.contains(&NOBODY.to_string()), "{identity}");
    // Its processes ran without the agent's rights.
    let issued = issued.index()?;
    let ids = entries.iter().filter(|entry| {
        entry.kind() == "exec"
            && entry.session() == Some(issued)
            && entry.body_text("path").is_some_and(|path| path.ends_with("/bin/id"))
            && entry.body_number("euid") == Some(u64::from(NOBODY))
    });
    assert_eq!(ids.count(), 1);
    Ok(())
}

#[test]
fn an_asked_for_identity_task_and_label_are_in_the_issued_entry() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let options = ["--identity", "spiffe://example.org/pilot", "--task", "rank claims", "--label", "team=claims"];
    let session = Session::of(run(&host, &options, &["/bin/true"])?)?;
    let entries = host.entries_after_session(&session)?;
    let issued = entries
        .iter()
        .find(|entry| entry.kind() == "issued" && entry.body_text("id") == Some(session.id.as_str()))
        .context("the session has an issued entry")?;
    assert_eq!(issued.body_text("identity"), Some("spiffe://example.org/pilot"));
    assert_eq!(issued.claim("task"), Some("rank claims"));
    assert!(issued.line.contains(r#"["team","claims"]"#), "{}", issued.line);
    Ok(())
}

#[test]
fn whoami_tells_a_session_from_outside() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let outside = host.affiant(&["whoami"]).output().context("cannot start affiant whoami")?;
    assert_code(&outside, 1);
    let config = host.config();
    let config = config.to_str().context("a temporary directory is UTF-8")?;
    let affiant = program("affiant");
    let affiant = affiant.to_str().context("the target directory is UTF-8")?;
    let inside = host.run_in_session(Path::new(affiant), &["whoami", "--config", config])?;
    let said = String::from_utf8_lossy(&inside.output.stdout).into_owned();
    assert!(said.contains(&inside.id), "{said}");
    Ok(())
}

#[test]
fn a_session_ends_at_its_time_to_live() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let output = run(&host, &["--ttl", "1s"], &["/bin/sleep", "50"])?;
    ensure!(!output.status.success(), "the command outlived its session: {}", output_text(&output));
    let expired = tests::until("the session's end is in the log", || {
        let entries = host.entries()?;
        let revoked = entries.iter().find(|entry| entry.kind() == "revoked");
        Ok(revoked.and_then(|entry| entry.body_text("cause")).map(str::to_owned))
    })?;
    assert_eq!(expired, "expiry");
    Ok(())
}

#[test]
fn the_timeline_tells_what_a_session_did() -> Result<()> {
    let host = Host::new()?;
    let _daemon = host.start()?;
    let session = host.run_in_session(Path::new("/bin/sh"), &["-c", "/bin/cat /etc/hostname; exit 0"])?;
    host.entries_after_session(&session)?;
    let output = host.affiant(&["timeline", &session.id]).output().context("cannot start affiant timeline")?;
    assert_code(&output, 0);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for expected in ["cat", "/etc/hostname"] {
        assert!(text.contains(expected), "the timeline does not tell {expected}:\n{text}");
    }
    Ok(())
}
