//! Committed values: the log holds hashes, the sidecars the texts, and an erased text is gone with a record that says so.

use anyhow::{Context as _, Result, ensure};
use tests::{Entry, Host, output_text, program};

const TABLES: &str = "[privacy]\ncommit = [\"exec.argv\"]\n";

/// The exec of `/bin/echo` in the log: its index.
fn echo(entries: &[Entry]) -> Result<u64> {
    entries
        .iter()
        .find(|entry| entry.kind() == "exec" && entry.body_text("path").is_some_and(|path| path.ends_with("/echo")))
        .context("an exec of echo")?
        .index()
}

#[test]
fn committed_arguments_are_withheld_and_an_erased_one_is_gone() -> Result<()> {
    let host = Host::with(TABLES)?;
    let daemon = host.start()?;
    host.trust()?;
    let session = host.run_in_session("/bin/echo".as_ref(), &["a-secret-word"])?;
    let entries = host.entries_after_session(&session)?;
    ensure!(!entries.iter().any(|entry| entry.line.contains("a-secret-word")), "the argument stands in the log");
    let index = echo(&entries)?;
    host.assert_verifies()?;
    // The first 256 entries: a short session is among them.
    ensure!(index < 256, "entry {index}");
    let sidecars = || {
        let path = host.state().join("log/sidecar/000");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let line = format!("{{\"i\":{index},\"field\":\"exec.argv.1\",");
    assert!(sidecars()?.lines().any(|text| text.starts_with(&line) && text.contains("a-secret-word")));

    // What is not committed cannot be erased, and nothing is recorded of the attempt.
    let refused = host.affiant(&["log", "erase"]).args(["0", "genesis.origin", "--reason", "x"]).output()?;
    assert_eq!(refused.status.code(), Some(64), "{}", output_text(&refused));
    let field = "exec.argv.1";
    // What is held is not erased, whenever the hold came.
    let log = |arguments: &[&str]| host.affiant(&["log"]).args(arguments).output().context("cannot start affiant log");
    let held = log(&["hold", "add", &session.id, "--reason", "case 12"])?;
    ensure!(held.status.success(), "{}", output_text(&held));
    let refused = log(&["erase", &index.to_string(), field, "--reason", "request 17"])?;
    assert_eq!(refused.status.code(), Some(77), "{}", output_text(&refused));
    let said = output_text(&refused);
    ensure!(said.contains("under hold since entry") && said.contains("case 12"), "{said}");
    ensure!(sidecars()?.contains("a-secret-word"), "nothing was erased");
    let freed = log(&["hold", "remove", &session.id, "--reason", "case closed"])?;
    ensure!(freed.status.success(), "{}", output_text(&freed));
    let erased =
        host.affiant(&["log", "erase"]).args([&index.to_string(), field, "--reason", "request 17"]).output()?;
    ensure!(erased.status.success(), "{}", output_text(&erased));
    // The same word stands in the command lines that led here, which are other entries and other values.
    let left = sidecars()?;
    assert!(!left.lines().any(|text| text.starts_with(&line)), "its text is gone: {left}");
    assert!(left.contains(&format!("{{\"i\":{index},\"field\":\"exec.argv.0\",")), "and no other");
    // Nor twice: a second record could explain away what somebody took.
    let again = host.affiant(&["log", "erase"]).args([&index.to_string(), field, "--reason", "again"]).output()?;
    assert_eq!(again.status.code(), Some(64), "{}", output_text(&again));
    let entries = host.entries()?;
    let records: Vec<&Entry> = entries.iter().filter(|entry| entry.kind() == "erased").collect();
    let [record] = records.as_slice() else { panic!("one erasure: {records:?}") };
    assert_eq!((record.body_number("of"), record.body_text("field")), (Some(index), Some(field)));
    host.assert_verifies()?;

    // A text that goes without a record is found out.
    let copy = host.copy_of_log("copy")?;
    let sidecar = copy.path().join("sidecar/000");
    let text = std::fs::read_to_string(&sidecar).context("cannot read the sidecar")?;
    let kept: String = text.lines().skip(1).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&sidecar, kept).context("cannot write the sidecar")?;
    let verdict = host.verify(copy.path())?;
    assert_eq!(verdict.code, Some(1), "{}", verdict.text);
    assert!(verdict.text.contains("no entry says that it was erased"), "{}", verdict.text);
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn a_kill_at_any_moment_leaves_every_committed_value_disclosed() -> Result<()> {
    let host = Host::with(TABLES)?;
    let daemon = host.start()?;
    host.trust()?;
    let mut workload = host
        .affiant(&["run", "--"])
        .arg(program("act-execs"))
        .args(["300", "/bin/true"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .context("cannot start affiant run")?;
    tests::until("some of it is in the log", || {
        Ok((host.entries()?.iter().filter(|entry| entry.kind() == "exec").count() > 20).then_some(()))
    })?;
    daemon.kill()?;
    workload.wait().context("cannot wait for the workload")?;
    let daemon = host.start()?;
    tests::until("the restart is in the log", || {
        Ok(host.entries()?.iter().any(|entry| entry.kind() == "recovered").then_some(()))
    })?;
    host.assert_verifies()?;
    daemon.stop()?;
    host.assert_verifies()
}
