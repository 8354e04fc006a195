//! Pruning of a real daemon's log: what goes, what stays, who is told, and that two verifiers agree on what is left.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Entry, Host, Session, output_text, program, python, repository, until};

/// `affiant status`, as JSON.
fn status(host: &Host) -> Result<Value> {
    let output = host.affiant(&["status", "--json"]).output().context("cannot start affiant status")?;
    ensure!(output.status.success(), "affiant status: {}", output_text(&output));
    serde_json::from_slice(&output.stdout).context("what status says")
}

/// A session that opens so many files.
fn opens(host: &Host, name: &str, count: u64) -> Result<Session> {
    let directory = host.open_directory(name)?;
    host.run_in_session(&program("act-opens"), &[&count.to_string(), directory.to_str().context("a path in UTF-8")?])
}

/// Entries of the session with this id: its `issued` entry and those that name it.
fn of<'e>(entries: &'e [Entry], session: &Session) -> Result<Vec<&'e Entry>> {
    let issued =
        entries.iter().find(|entry| entry.kind() == "issued" && entry.body_text("id") == Some(session.id.as_str()));
    let issued = issued.context("its issued entry")?.index()?;
    Ok(entries.iter().filter(|entry| entry.session() == Some(issued) || entry.index().ok() == Some(issued)).collect())
}

fn indexes(entries: &[&Entry]) -> Result<Vec<u64>> {
    entries.iter().map(|entry| entry.index()).collect()
}

/// The verdict of the second reader, with the same trust file.
fn second_reader(host: &Host, directory: &Path) -> Result<(Option<i32>, String)> {
    let output = Command::new(python()?)
        .current_dir(repository())
        .args(["tests/verify.py", "--trust"])
        .arg(host.trust_file())
        .arg(directory)
        .output()
        .context("cannot start tests/verify.py")?;
    Ok((output.status.code(), output_text(&output)))
}

/// The trust file learns a head after what was pruned: those within it cannot be compared any more.
fn remember_head(host: &Host) -> Result<()> {
    let output = host.affiant(&["trust", "add-head"]).arg(host.trust_file()).output()?;
    ensure!(output.status.success(), "affiant trust add-head: {}", output_text(&output));
    Ok(())
}

#[test]
fn a_pruned_log_keeps_what_it_must_says_what_went_and_verifies() -> Result<()> {
    let host = Host::with("[heartbeat]\ninterval_s = 1\n\n[privacy]\ncommit = [\"open.path\"]\n")?;
    let daemon = host.start()?;
    host.trust()?;
    let held = opens(&host, "held", 200)?;
    let gone = opens(&host, "gone", 400)?;
    let before = host.entries_after_session(&gone)?;
    let end = indexes(&of(&before, &gone)?)?.into_iter().max().context("its entries")?;
    // Far enough behind that there is a heartbeat in between, however fast the entries come.
    let target = end + 8_000;
    let done = host.affiant(&["log", "hold", "add", &held.id, "--reason", "case 7"]).output()?;
    ensure!(done.status.success(), "{}", output_text(&done));

    // Until the write-ahead log has let go of it and enough heartbeats have followed.
    let prune = |more: &[&str]| {
        host.affiant(&["log", "prune", "--json", "--before", &format!("#{target}")]).args(more).output()
    };
    let planned = until("enough can go", || {
        opens(&host, "more", 1_200)?;
        let answer = prune(&["--dry-run"]).context("cannot start affiant log prune")?;
        let planned: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
        let first = planned["first"].as_u64().unwrap_or(0);
        // The heartbeat from which on everything stays is in the last bundle before.
        Ok((first > end + 256).then_some(planned))
    })?;
    assert_eq!(host.entries()?.first().context("the genesis")?.index()?, 0);
    assert_eq!(status(&host)?["retention"]["first_entry"], 0, "a dry run changes nothing");

    let answer = prune(&["--reason", "a test"])?;
    ensure!(answer.status.success(), "{}", output_text(&answer));
    let report: Value = serde_json::from_slice(&answer.stdout).context("the report")?;
    for fact in ["first", "gone", "kept_by_session"] {
        assert_eq!(report[fact], planned[fact], "{fact} as the dry run said");
    }
    let first = report["first"].as_u64().context("a first entry")?;
    until("it is done", || Ok((status(&host)?["retention"]["state"] == "idle").then_some(())))?;
    let now = status(&host)?;
    assert_eq!(now["retention"]["first_entry"], first);
    assert_eq!(now["retention"]["held"], 1);
    let log = host.state().join("log");
    for bundle in 0..first / 256 {
        assert!(!log.join(format!("tile/entries/{bundle:03}")).exists(), "bundle {bundle} is still there");
    }

    // What stays is what was there; the held session is whole, of the other its beginning and end.
    let after = host.entries()?;
    let lines =
        |entries: &[Entry]| entries.iter().map(|entry| entry.line.clone()).collect::<std::collections::BTreeSet<_>>();
    let (lines_before, lines_after) = (lines(&before), lines(&after));
    assert!(
        lines_before.iter().all(|line| lines_after.contains(line) || !line.contains(",\"c\":")),
        "the control chain stays"
    );
    assert_eq!(indexes(&of(&before, &held)?)?, indexes(&of(&after, &held)?)?);
    let left = of(&after, &gone)?;
    let by_place = |entry: &&Entry| entry.kind() != "issued" && entry.kind() != "revoked";
    assert!(left.iter().filter(|entry| by_place(entry)).count() < 100, "{} of it are left", left.len());
    let whole = after.iter().filter_map(|entry| entry.index().ok()).filter(|index| *index >= first).collect::<Vec<_>>();
    assert_eq!(whole, (first..first + whole.len() as u64).collect::<Vec<_>>(), "no hole after");
    let record = after.iter().find(|entry| entry.kind() == "pruned").context("an entry that says so")?;
    assert_eq!(
        (record.body_number("first"), record.body_text("rule")),
        (Some(first), Some("affiant log prune: a test"))
    );

    // Every reader says that something is not there.
    let missing = indexes(&of(&before, &gone)?)?
        .into_iter()
        .find(|index| after.iter().all(|entry| entry.index().ok() != Some(*index)));
    let missing = missing.context("something went")?.to_string();
    for (arguments, code, says) in [
        (vec!["tail"], 0, "were pruned by entry"),
        (vec!["timeline", &gone.id], 0, "PRUNED"),
        (vec!["prove", &missing], 65, "is pruned"),
        (vec!["bundle", &gone.id, "-o", "/dev/null/no.evb"], 64, ""),
        (vec!["log", "erase", &missing, "open.path", "--reason", "x"], 64, "was pruned"),
        (vec!["log", "hold", "add", &gone.id, "--reason", "too late"], 0, "were pruned before it was held"),
        (vec!["status"], 0, "PRUNED before"),
    ] {
        let output = host.affiant(&arguments).output()?;
        let text = output_text(&output);
        assert!(output.status.code() == Some(code) && text.contains(says), "{arguments:?}: {text}");
    }
    let bundle = host.path("gone.evb");
    let output = host.affiant(&["bundle", &gone.id, "-o"]).arg(&bundle).output()?;
    assert!(
        output.status.code() == Some(65) && output_text(&output).contains("would not be complete"),
        "{}",
        output_text(&output)
    );
    let output = host.affiant(&["bundle", &held.id, "-o"]).arg(host.path("held.evb")).output()?;
    assert_eq!(output.status.code(), Some(0), "what is held is handed over: {}", output_text(&output));

    remember_head(&host)?;
    host.assert_verifies()?;
    let (code, text) = second_reader(&host, &log)?;
    assert_eq!(code, Some(0), "{text}");
    let copy = host.path("exported");
    let output = host.affiant(&["log", "export"]).arg(&copy).output()?;
    ensure!(output.status.success() && output_text(&output).contains("were pruned"), "{}", output_text(&output));
    let verdict = host.verify(&copy)?;
    assert_eq!(verdict.code, Some(0), "{}", verdict.text);

    // The next run knows, and goes on.
    daemon.stop()?;
    let daemon = host.start()?;
    assert_eq!(status(&host)?["retention"]["first_entry"], first);
    let last = opens(&host, "last", 20)?;
    host.entries_after_session(&last)?;
    host.assert_verifies()?;
    daemon.kill()?;
    let daemon = host.start()?;
    daemon.stop()?;
    host.assert_verifies()?;
    // And whoever removes more is found out.
    let copy = host.copy_of_log("damaged")?;
    std::fs::remove_file(copy.path().join("kept/000")).context("cannot remove the kept entries")?;
    assert_eq!(host.verify(copy.path())?.code, Some(1));
    Ok(())
}
