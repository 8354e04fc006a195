//! A log that ends, by fault or by the operator's word, and the one that goes on.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tests::Host;

/// `cause` and `size` of the predecessor that the log's genesis names, and its own origin.
fn genesis(host: &Host) -> Result<(Option<(String, u64)>, String)> {
    let entries = host.entries()?;
    let genesis = entries.first().context("an entry")?;
    ensure!(genesis.kind() == "genesis", "entry 0 is {}", genesis.kind());
    let origin = genesis.body_text("origin").context("an origin")?.to_owned();
    let predecessor = genesis.body("predecessor").map(|predecessor| {
        let cause = predecessor.get("cause").and_then(|cause| cause.as_str()).unwrap_or_default().to_owned();
        (cause, predecessor.get("size").and_then(serde_json::Value::as_u64).unwrap_or_default())
    });
    Ok((predecessor, origin))
}

#[test]
fn a_store_that_contradicts_itself_is_put_aside_and_a_successor_goes_on_where_configuration_says_so() -> Result<()> {
    let host = Host::with("[log]\norigin = \"example.org/host\"\non_fault = \"halt\"\n")?;
    let daemon = host.start()?;
    host.run_in_session(Path::new("/bin/true"), &[])?;
    daemon.stop()?;
    let head = fs::read(host.state().join("head"))?;
    // The write-ahead log is lost: the store has less than the head says.
    fs::remove_dir_all(host.state().join("wal"))?;
    let mut halted = tests::Daemon::spawn(&host, host.daemon_command())?;
    assert_eq!(halted.wait()?.code(), Some(70), "halts by default");
    assert_eq!(fs::read(host.state().join("head"))?, head, "and changes nothing");

    host.configure("[log]\norigin = \"example.org/host\"\non_fault = \"succeed\"\n")?;
    let daemon = host.start()?;
    host.trust()?;
    host.run_in_session(Path::new("/bin/true"), &[])?;
    let (predecessor, origin) = genesis(&host)?;
    let (cause, size) = predecessor.context("a predecessor")?;
    assert_eq!((cause.as_str(), origin.as_str()), ("fault", "example.org/host/2"));
    assert!(String::from_utf8_lossy(&head).lines().nth(1) == Some(size.to_string().as_str()), "it names the head");
    daemon.stop()?;
    host.assert_verifies()?;
    assert_eq!(fs::read(host.state().join("frozen/000/head"))?, head, "the old log is as it was");

    // What must be kept is said in the log, by root and through the daemon.
    let daemon = host.start()?;
    let session = host.run_in_session(Path::new("/bin/true"), &[])?;
    host.entries_after_session(&session)?;
    let hold = |arguments: &[&str]| host.affiant(arguments).output().context("cannot start affiant log hold");
    let add = ["log", "hold", "add", &session.id, "--reason", "case 12"];
    let added = hold(&add)?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    assert_eq!(hold(&["log", "hold", "add", "0000", "--reason", "x"])?.status.code(), Some(65), "no such session");
    let listed = tests::until("the hold is sealed", || {
        let listed = hold(&["log", "hold", "list"])?;
        Ok((!listed.stdout.is_empty()).then_some(listed))
    })?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.starts_with(&session.id) && listed.contains("case 12"), "{listed}");
    daemon.stop()?;
    host.assert_verifies()?;

    // By the operator's word.
    let frozen = host.affiant(&["log", "freeze"]).output().context("cannot start affiant log freeze")?;
    ensure!(frozen.status.success(), "{}", String::from_utf8_lossy(&frozen.stderr));
    let daemon = host.start()?;
    let refused = host.affiant(&["log", "freeze"]).output().context("cannot start affiant log freeze")?;
    assert_eq!(refused.status.code(), Some(69), "not under a running daemon");
    let (predecessor, origin) = genesis(&host)?;
    assert_eq!((predecessor.context("a predecessor")?.0.as_str(), origin.as_str()), ("operator", "example.org/host/3"));
    daemon.stop()?;
    // What was put aside is a whole log, by its own trust file.
    let verdict = host.verify(&host.state().join("frozen/001/log"))?;
    ensure!(verdict.code == Some(0), "{}", verdict.text);
    Ok(())
}
