//! Export to OCSF: every act of a session is an event, valid against the published schema, once, across restarts.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Host, output_text, program, python, repository, until};

/// Starts with the export on; the file it writes.
fn exporting_host() -> Result<(Host, std::path::PathBuf)> {
    let host = Host::new()?;
    let file = host.path("events.ndjson");
    host.configure(&format!("[export.ocsf_file]\npath = {file:?}"))?;
    Ok((host, file))
}

fn events(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).unwrap_or_default();
    // The last line may be half written while the daemon runs.
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    whole.lines().map(|line| serde_json::from_str(line).context("an exported line is JSON")).collect()
}

fn class(event: &Value) -> u64 {
    event.get("class_uid").and_then(Value::as_u64).unwrap_or_default()
}

#[test]
fn exported_events_are_valid_ocsf() -> Result<()> {
    let (host, file) = exporting_host()?;
    let daemon = host.start()?;
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    let address = listener.local_addr().context("no address")?.to_string();
    let connects = program("act-connects");
    let script = format!("/bin/cat /etc/hostname /nonexistent; {} 2 tcp {address}", connects.display());
    let session = host.run_in_session(Path::new("/bin/sh"), &["-c", &script])?;
    host.entries_after_session(&session)?;
    // Process 1007, network 4001, file 1001.
    until("events of three classes are exported", || {
        let classes: BTreeSet<u64> = events(&file)?.iter().map(class).collect();
        Ok([1007, 4001, 1001].iter().all(|wanted| classes.contains(wanted)).then_some(()))
    })?;
    daemon.stop()?;

    let schemas = repository().join("../shared/ocsf");
    let mut command = Command::new(python()?);
    command.arg(repository().join("tests/ocsf.py")).arg(&file);
    if schemas.is_dir() {
        command.arg("--schemas").arg(&schemas);
    }
    let output = command.output().context("cannot start the validation")?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    ensure!(output.status.success(), "{}", output_text(&output));
    Ok(())
}

#[test]
fn a_killed_daemon_exports_nothing_twice_and_leaves_nothing_out() -> Result<()> {
    let (host, file) = exporting_host()?;
    let mut daemon = host.start()?;
    for _ in 0..3 {
        let session = host.run_in_session(&program("act-execs"), &["20", "/bin/true"])?;
        host.entries_after_session(&session)?;
        daemon.kill()?;
        daemon = host.start()?;
    }
    let execs = host.entries()?.iter().filter(|entry| entry.kind() == "exec").count();
    until("every exec is exported", || Ok((launches(&events(&file)?) >= execs).then_some(())))?;
    daemon.stop()?;
    let events = events(&file)?;
    let mut ids = BTreeSet::new();
    for event in &events {
        let id = event.pointer("/metadata/uid").and_then(Value::as_str).context("an event has metadata.uid")?;
        // At least once, and a file sink with a durable cursor does better: the same bytes or not at all.
        ids.insert(id.to_owned());
    }
    ensure!(ids.len() >= execs, "{} distinct events for {execs} execs", ids.len());
    Ok(())
}

/// Process activity events that are launches (activity 1).
fn launches(events: &[Value]) -> usize {
    events
        .iter()
        .filter(|event| class(event) == 1007 && event.get("activity_id").and_then(Value::as_u64) == Some(1))
        .count()
}
