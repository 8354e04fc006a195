//! A daemon with a TPM: what it says of the log, what survives its end, and that capture never waits for it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tests::{Commands, Entry, Host, Swtpm, Verdict, output_text, program, until};

fn host(tpm: &Swtpm) -> Result<Host> {
    Host::with(&format!("[tpm]\ndevice = {:?}\nanchor_seconds = 5\nanchor_spacing_seconds = 1\n", tpm.tcti()))
}

/// Waits for an entry of this kind whose `member` is `word`, at or after `from`; its index and every entry.
fn await_entry(host: &Host, kind: &str, member: &str, word: &str, from: u64) -> Result<(u64, Vec<Entry>)> {
    until(&format!("{kind} with {member} {word}"), || {
        let entries = host.entries()?;
        let found = entries.iter().find_map(|entry| {
            let index = entry.index().ok().filter(|index| *index >= from)?;
            (entry.kind() == kind && entry.body_text(member) == Some(word)).then_some(index)
        });
        Ok(found.map(|index| (index, entries)))
    })
    .with_context(|| format!("daemon's messages:\n{}", host.daemon_messages()))
}

/// Waits until an anchor covers the end of the newest session; every entry.
fn await_covered_end(host: &Host, from: u64) -> Result<Vec<Entry>> {
    until("an anchor over the end of the session", || {
        let entries = host.entries()?;
        let end = entries.iter().rposition(|entry| entry.kind() == "revoked").map(|end| end as u64);
        let is_covered = end.filter(|end| *end >= from).is_some_and(|end| {
            entries.iter().any(|entry| entry.kind() == "anchor" && entry.body_number("size") > Some(end))
        });
        Ok(is_covered.then_some(entries))
    })
    .with_context(|| format!("daemon's messages:\n{}", host.daemon_messages()))
}

/// Checks that the verifier finds exactly these, in any order. A killed emulator may have lost more of its clock than a TPM does.
fn assert_finds(host: &Host, names: &[&str]) -> Result<()> {
    let Verdict { code, text } = host.verify(&host.state().join("log"))?;
    let mut lines = text.lines().skip_while(|line| !line.starts_with("Findings (")).skip(1);
    let mut found: Vec<&str> = lines.by_ref().map_while(|line| line.strip_prefix("  ")?.split(':').next()).collect();
    let mut names = names.to_vec();
    found.retain(|name| *name != "tpm_clock_back");
    names.sort_unstable();
    found.sort_unstable();
    ensure!(code == Some(1) && found == names, "exit {code:?}, findings {found:?}, expected {names:?}:\n{text}");
    Ok(())
}

/// Checks that each attestation names the one before it, that anchors are numbered, and that the counter goes up by one
/// with an intent before each step; the counter's last certified value.
fn assert_chained(entries: &[Entry]) -> Result<u64> {
    let mut previous = [0_u8; 32];
    let mut anchors = 0;
    let mut intent = None;
    let mut certified = None;
    for entry in entries {
        if entry.kind() == "anchor" {
            assert_eq!(entry.body_number("number"), Some(anchors), "{}", entry.line);
            anchors += 1;
        }
        if entry.kind() == "counter" {
            let value = entry.body_number("value").context("a value")?;
            match entry.body_text("op") {
                Some("intent") => intent = Some(value),
                Some("step" | "late") => {
                    assert_eq!(intent, Some(value), "{}", entry.line);
                    if let Some(before) = certified {
                        assert_eq!(value, before + 1, "{}", entry.line);
                    }
                    certified = Some(value);
                }
                other => anyhow::bail!("op {other:?}: {}", entry.line),
            }
        }
        if let Some(attest) = entry.body_text("attest") {
            let hex: String = previous.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(entry.body_text("previous"), Some(hex.as_str()), "{}", entry.line);
            previous = Sha256::digest(STANDARD.decode(attest)?).into();
        }
    }
    certified.context("a certified value")
}

#[test]
fn a_daemon_with_a_tpm_seals_its_key_anchors_and_counts_and_goes_on_after_any_end() -> Result<()> {
    let mut tpm = Swtpm::start()?;
    let host = host(&tpm)?;
    let daemon = host.start()?;
    host.trust()?;
    let keys = host.state().join("keys");
    ensure!(!keys.join("log.ed25519").exists() && keys.join("log.tpm").exists(), "the log key is sealed");
    await_entry(&host, "anchor", "cause", "start", 0)?;
    let session = host.run_in_session(Path::new("/bin/true"), &[])?;
    let entries = await_covered_end(&host, 0)?;
    let armed = entries.iter().find(|entry| entry.kind() == "armed").context("armed")?;
    let cadence = armed.body("cadence").context("a cadence")?;
    assert_eq!((cadence["anchor_ms"].as_u64(), cadence["counter_ms"].as_u64()), (Some(5_000), Some(3_600_000)));
    assert_eq!(entries.iter().filter(|entry| entry.kind() == "attestation_key").count(), 1);
    ensure!(!session.id.is_empty());

    // Somebody's nonce, and tools that are not ours.
    let nonce = "0123456789abcdef".repeat(2);
    let exported = host.path("anchor");
    let output = host
        .affiant(&["anchor", "--json", "--nonce", &nonce, "--export"])
        .arg(&exported)
        .output()
        .context("cannot start affiant anchor")?;
    ensure!(output.status.success(), "{}", tests::output_text(&output));
    let anchored: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        anchored["entry"]["body"]["nonce"].as_str(),
        Some(STANDARD.encode([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef].repeat(2)).as_str())
    );
    let at = |name: &str| exported.join(name).to_string_lossy().into_owned();
    let qualifying = anchored["qualifying"].as_str().context("qualifying data")?;
    let check = |qualifying: &str| {
        let (key, quote, signature, pcrs) = (at("ak.pem"), at("quote.msg"), at("quote.sig"), at("quote.pcrs"));
        tpm.tool(
            "tpm2_checkquote",
            &["-u", &key, "-m", &quote, "-s", &signature, "-f", &pcrs, "-g", "sha256", "-q", qualifying],
        )
    };
    check(qualifying)?;
    check(&"00".repeat(32)).expect_err("another statement");
    let status = host.affiant(&["status"]).output().context("cannot start affiant status")?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(status.contains("TPM       ready") && status.contains("counter at"), "{status}");

    // In order: the last step and the last anchor before `disarmed`, which stays the last entry.
    daemon.stop()?;
    let entries = host.entries()?;
    let kinds: Vec<&str> = entries.iter().rev().take(3).map(Entry::kind).collect();
    assert_eq!(kinds.first(), Some(&"disarmed"));
    let stop = entries.iter().rfind(|entry| entry.kind() == "anchor").context("an anchor")?;
    assert_eq!(stop.body_text("cause"), Some("stop"));
    let stopped = assert_chained(&entries)?;

    // The epoch of the next start names the value that was stepped for it.
    let from = entries.len() as u64;
    let daemon = host.start()?;
    let (_, entries) = await_entry(&host, "anchor", "cause", "start", from)?;
    let epoch = entries.iter().rfind(|entry| entry.kind() == "epoch").context("an epoch")?;
    assert_eq!((epoch.body_text("how"), epoch.body_number("counter")), (Some("orphan"), Some(stopped + 1)));
    daemon.kill()?;
    host.assert_verifies()?;

    // A power cut of both.
    tpm.kill()?;
    tpm.restart()?;
    let from = host.entries()?.len() as u64;
    let daemon = host.start()?;
    host.run_in_session(Path::new("/bin/true"), &[])?;
    let entries = await_covered_end(&host, from)?;
    assert_eq!(assert_chained(&entries)?, stopped + 2);
    ensure!(entries.iter().all(|entry| entry.kind() != "condition"), "nothing was wrong at any time");
    daemon.stop()?;
    assert_chained(&host.entries()?)?;
    // The software TPM was reset and this host was not: that is what the verifier has to say, and nothing else.
    assert_finds(&host, &["tpm_reset_unexplained"])
}

#[test]
fn capture_goes_on_while_the_tpm_hangs_or_is_gone_and_a_cleared_one_leaves_the_log_unsigned() -> Result<()> {
    let mut tpm = Swtpm::start()?;
    let host = host(&tpm)?;
    let daemon = host.start()?;
    host.trust()?;
    await_entry(&host, "anchor", "cause", "start", 0)?;

    tpm.pause()?;
    let session = host.run_in_session(Path::new("/bin/true"), &[])?;
    host.entries_after_session(&session)?;
    let (slow, _) = await_entry(&host, "condition", "state", "slow", 0)?;
    tpm.resume()?;
    let (ready, _) = await_entry(&host, "condition", "state", "ready", slow)?;

    tpm.kill()?;
    let (absent, _) = await_entry(&host, "condition", "state", "absent", ready)?;
    let session = host.run_in_session(Path::new("/bin/true"), &[])?;
    host.entries_after_session(&session)?;
    tpm.restart()?;
    let (ready, _) = await_entry(&host, "condition", "state", "ready", absent)?;

    // The TPM's owner clears it: another key, another counter, and a sealed key that nobody can unseal any more.
    tpm.tool("tpm2_clear", &[])?;
    let (cleared, _) = await_entry(&host, "condition", "state", "new_key", ready)?;
    await_entry(&host, "condition", "state", "counter_moved", cleared)?;
    await_entry(&host, "anchor", "cause", "interval", cleared)?;
    daemon.stop()?;
    // It was reset twice while the host ran on, and cleared: another key, counts from 0, a counter made anew.
    let reset = "tpm_reset_unexplained";
    let found = ["attestation_key_changed", reset, reset, "tpm_reset_back", "nv_counter_gap"];
    assert_finds(&host, &found)?;
    let sealed = host.entries()?.len();

    let daemon = host.start()?;
    let session = host.run_in_session(Path::new("/bin/true"), &[])?;
    ensure!(!session.id.is_empty());
    let status = until("the key is known to be lost", || {
        let status = host.affiant(&["status"]).output().context("cannot start affiant status")?;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        Ok(status.contains("KEY_LOST").then_some(status))
    })?;
    ensure!(status.contains("NOT SIGNED"), "{status}");
    daemon.stop()?;
    assert_eq!(host.entries()?.len(), sealed, "what is not signed is not shown as sealed");
    assert_finds(&host, &found)
}

#[test]
fn a_running_agent_answers_a_challenge_and_a_copy_made_before_does_not() -> Result<()> {
    let tpm = Swtpm::start()?;
    let host = host(&tpm)?;
    let daemon = host.start()?;
    await_entry(&host, "anchor", "cause", "start", 0)?;
    // Pins the attestation key, which the log has shown by now.
    host.trust()?;
    let copy = host.copy_of_log("copy")?;
    let challenge = "000102030405060708090a0b0c0d0e0f1011121314151617";
    let verify = |log: &Path, options: &[&str]| {
        let mut command = std::process::Command::new(tests::program("affiant-verify"));
        command.arg(log).arg("--trust").arg(host.trust_file()).args(options);
        let output = command.output().context("cannot start affiant-verify")?;
        Ok::<_, anyhow::Error>((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let log = host.state().join("log");
    let (code, text) = verify(&log, &["--live-challenge", challenge])?;
    ensure!(code == Some(1) && text.contains("challenge_unanswered"), "nobody was asked yet: {code:?}\n{text}");
    let from = host.entries()?.len() as u64;
    let asked = host.affiant(&["anchor", "--nonce", challenge]).output().context("cannot start affiant anchor")?;
    ensure!(asked.status.success(), "{}", tests::output_text(&asked));
    await_entry(&host, "anchor", "cause", "nonce", from)?;
    let (code, text) = verify(&log, &["--live-challenge", challenge])?;
    ensure!(code == Some(0) && text.contains(&format!("Challenge {challenge}: answered by entry")), "{code:?}\n{text}");
    // A log that was put aside before has no answer, and an old answer answers no new challenge.
    for (log, challenge) in [(copy.path(), challenge), (log.as_path(), "ff0102030405060708090a0b0c0d0e0f")] {
        let (code, text) = verify(log, &["--live-challenge", challenge])?;
        ensure!(code == Some(1) && text.contains("challenge_unanswered"), "{code:?}\n{text}");
    }
    // All of it in one command, of which the answer is of now.
    let live = |log: &Path| {
        let mut command = host.affiant(&["verify"]);
        command.arg(log).args(["--live", "--json", "--trust"]).arg(host.trust_file());
        command.output().context("cannot start affiant verify")
    };
    let output = live(&log)?;
    ensure!(output.status.success(), "{}", tests::output_text(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("not JSON")?;
    assert_eq!(report["challenge"]["answer"]["believed"], true, "{report}");
    daemon.stop()?;
    let output = live(&log)?;
    assert_eq!(output.status.code(), Some(69), "no daemon, no answer: {}", tests::output_text(&output));
    host.assert_verifies()
}

#[test]
fn a_required_tpm_that_is_not_there_ends_the_start_and_a_log_without_one_says_so() -> Result<()> {
    let mut tpm = Swtpm::start()?;
    tpm.kill()?;
    let tables = |required| format!("[tpm]\ndevice = {:?}\nrequired = {required}\n", tpm.tcti());
    let host = Host::with(&tables(true))?;
    let mut refused = tests::Daemon::spawn(&host, host.daemon_command())?;
    assert_eq!(refused.wait()?.code(), Some(69), "{}", host.daemon_messages());

    // Without the demand it runs with a software key, and keeps it when a TPM comes: the TPM anchors it all the same.
    host.configure(&tables(false))?;
    let daemon = host.start()?;
    host.trust()?;
    ensure!(host.daemon_messages().contains("NO TPM"), "{}", host.daemon_messages());
    tpm.restart()?;
    await_entry(&host, "anchor", "cause", "start", 0)?;
    ensure!(host.state().join("keys/log.ed25519").exists() && !host.state().join("keys/log.tpm").exists());
    daemon.stop()?;
    let daemon = host.start()?;
    let (_, entries) = await_entry(&host, "epoch", "how", "orphan", 0)?;
    let epoch = entries.iter().rfind(|entry| entry.kind() == "epoch").context("an epoch")?;
    ensure!(epoch.body_number("counter").is_some(), "{}", epoch.line);
    daemon.stop()?;
    assert_chained(&host.entries()?)?;
    host.assert_verifies()
}

#[test]
fn a_step_without_a_record_is_certified_late_and_any_other_is_a_gap() -> Result<()> {
    let tpm = Swtpm::start()?;
    let host = host(&tpm)?;
    let step_by_somebody = || tpm.tool("tpm2_nvincrement", &["0x1500100", "-C", "0x1500100"]);
    let daemon = host.start()?;
    host.trust()?;
    await_entry(&host, "anchor", "cause", "start", 0)?;

    // A kill between the intent and the record of the step, and the step itself made: the stop's own, which hangs.
    let from = host.entries()?.len() as u64;
    tpm.pause()?;
    let terminated = std::process::Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status()?;
    ensure!(terminated.success());
    await_entry(&host, "counter", "op", "intent", from)?;
    daemon.kill()?;
    tpm.resume()?;
    step_by_somebody()?;
    let daemon = host.start()?;
    let (late, _) = await_entry(&host, "counter", "op", "late", from)?;
    let (_, entries) = await_entry(&host, "counter", "op", "step", late)?;
    assert_chained(&entries)?;
    daemon.stop()?;

    // A step that no intent announced.
    step_by_somebody()?;
    let tables = format!("[tpm]\ndevice = {:?}\non_counter_gap = \"halt\"\n", tpm.tcti());
    host.configure(&tables)?;
    let mut halted = tests::Daemon::spawn(&host, host.daemon_command())?;
    assert_eq!(halted.wait()?.code(), Some(70), "{}", host.daemon_messages());
    ensure!(host.daemon_messages().contains("the counter stands at"), "{}", host.daemon_messages());
    host.configure(&tables.replace("halt", "record"))?;
    let from = host.entries()?.len() as u64;
    let daemon = host.start()?;
    let (moved, _) = await_entry(&host, "condition", "state", "counter_moved", from)?;
    await_entry(&host, "counter", "op", "step", moved)?;
    daemon.stop()?;
    // What somebody else stepped is a hole in the counter, and the verifier says so of the log too.
    assert_finds(&host, &["nv_counter_gap"])
}

#[test]
fn a_tpm_that_answers_late_has_stepped_for_the_epoch_all_the_same() -> Result<()> {
    let tpm = Swtpm::start()?;
    let host = host(&tpm)?;
    let daemon = host.start()?;
    host.trust()?;
    await_entry(&host, "anchor", "cause", "start", 0)?;
    daemon.stop()?;

    // Longer than an epoch waits, and shorter than what is called slow.
    let from = host.entries()?.len() as u64;
    tpm.pause()?;
    let daemon = host.start()?;
    std::thread::sleep(Duration::from_secs(7));
    tpm.resume()?;
    let (epoch, entries) = await_entry(&host, "epoch", "how", "orphan", from)?;
    let epoch = entries.iter().find(|entry| entry.index().ok() == Some(epoch)).context("the epoch")?;
    ensure!(epoch.body_number("counter").is_some(), "{}", epoch.line);
    await_entry(&host, "anchor", "cause", "start", from)?;
    daemon.stop()?;
    host.assert_verifies()
}

#[test]
fn a_host_that_a_site_enrolled_is_t1_by_its_word_and_t0_without_it() -> Result<()> {
    let tpm = Swtpm::start()?;
    let host = host(&tpm)?;
    let daemon = host.start()?;
    host.trust()?;
    await_entry(&host, "anchor", "cause", "start", 0)?;
    daemon.stop()?;

    // Four files on a stick. No vendor certified the key of a software TPM: the authority is told to go on all the same.
    let at = |name: &str| host.path(name).to_string_lossy().into_owned();
    let run = |arguments: &[&str]| -> Result<String> {
        let output = host.affiant(arguments).output().context("cannot start affiant")?;
        ensure!(output.status.success(), "{arguments:?}: {}", tests::output_text(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (ca, request, challenge) = (at("ca"), at("request"), at("challenge"));
    let (response, certificate) = (at("response"), at("certificate"));
    run(&["enroll", "ca-init", &ca, "--name", "Example site CA"])?;
    run(&["enroll", "request", "-o", &request])?;
    run(&["enroll", "challenge", &request, "-o", &challenge, "--ca", &ca])?;
    run(&["enroll", "respond", &challenge, "-o", &response])?;
    run(&["enroll", "certify", &request, &response, "-o", &certificate, "--ca", &ca, "--uncertified-ek"])?;
    run(&["enroll", "install", &certificate])?;

    let from = host.entries()?.len() as u64;
    let daemon = host.start()?;
    let (_, entries) = await_entry(&host, "attestation_key", "voucher", "site", from)?;
    let armed = entries.iter().rfind(|entry| entry.kind() == "armed").context("armed")?;
    assert_eq!(armed.body_text("key_tier"), Some("T1"));
    await_entry(&host, "anchor", "cause", "start", from)?;
    daemon.stop()?;

    // Whoever does not believe the authority sees what was there before; whoever does can demand it.
    host.assert_verifies()?;
    let trust = host.trust_file().to_string_lossy().into_owned();
    let said = run(&["trust", "add-root", &trust, &format!("{ca}/ca.pem"), "--as", "site", "--minimum-tier", "T1"])?;
    ensure!(said.contains("Example site CA") && said.contains("tier T1"), "{said}");
    host.assert_verifies()?;
    let Verdict { text, .. } = host.verify(&host.state().join("log"))?;
    ensure!(text.contains("T1") && text.contains("Example site CA"), "{text}");

    // Another authority of the same name is not it, and one demand more is not met.
    let other = at("other-ca");
    run(&["enroll", "ca-init", &other, "--name", "Example site CA"])?;
    let text = std::fs::read_to_string(&trust).context("the trust file")?;
    std::fs::remove_file(&trust).context("the trust file")?;
    host.trust()?;
    run(&["trust", "add-root", &trust, &format!("{other}/ca.pem"), "--as", "site", "--minimum-tier", "T1"])?;
    let Verdict { code, text: said } = host.verify(&host.state().join("log"))?;
    ensure!(code == Some(1) && said.contains("tier_too_low"), "exit {code:?}:\n{said}");
    std::fs::write(&trust, text.replace("\"T1\"", "\"T3\"")).context("the trust file")?;
    let Verdict { code, text: said } = host.verify(&host.state().join("log"))?;
    ensure!(code == Some(1) && said.contains("tier_too_low"), "exit {code:?}:\n{said}");
    Ok(())
}

#[test]
fn sessions_that_open_all_at_once_share_anchors_and_step_no_counter() -> Result<()> {
    const SESSIONS: u64 = 300;
    const SPACING_NS: u64 = 1_000_000_000;
    let tpm = Swtpm::start_noting()?;
    let host = host(&tpm)?;
    let daemon = host.start()?;
    host.trust()?;
    await_entry(&host, "anchor", "cause", "start", 0)?;
    let load = std::process::Command::new(program("act-sessions"))
        .args([&SESSIONS.to_string(), "32"])
        .arg(host.path("run").join("control.sock"))
        .output()
        .context("cannot start act-sessions")?;
    ensure!(load.status.success(), "{}", output_text(&load));
    until("every session has ended", || {
        let ended = host.entries()?.iter().filter(|entry| entry.kind() == "revoked").count() as u64;
        Ok((ended == SESSIONS).then_some(()))
    })?;
    await_covered_end(&host, 0)?;
    daemon.stop()?;

    let entries = host.entries()?;
    let of = |kind: &str| entries.iter().filter(|entry| entry.kind() == kind).collect::<Vec<_>>();
    assert_eq!(of("issued").len() as u64, SESSIONS);
    let times: Vec<u64> = entries.iter().filter_map(Entry::boot).collect();
    let (first, last) = times.first().zip(times.last()).context("entries")?;
    // One begins each second, two more at the edges, and the stop's, which does not wait.
    let anchors = of("anchor").len() as u64;
    let most = (last - first) / SPACING_NS + 3;
    ensure!(anchors >= 3 && anchors <= most, "{anchors} anchors in {} ns, at most {most}", last - first);
    let steps = of("counter").into_iter().filter(|entry| entry.body_text("op") == Some("step")).count() as u64;
    assert_eq!(steps, 2, "at start and at stop");
    // The TPM says so too: what is not in the log was not asked of it, but for the step that gives a new counter its value.
    let asked = tpm.commands()?;
    assert_eq!(asked.of(Commands::NV_INCREMENT), steps + 1, "{asked:?}");
    assert_eq!(asked.nv_writes(), steps + 2, "the counter was made: {asked:?}");
    assert_eq!(asked.of(Commands::QUOTE), anchors, "{asked:?}");
    assert_chained(&entries)?;
    host.assert_verifies()
}

#[test]
fn an_agent_is_taken_off_its_host_and_the_log_says_so() -> Result<()> {
    let tpm = Swtpm::start()?;
    let host = host(&tpm)?;
    let uninstall = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let output = host.affiant(&[&["uninstall"], arguments].concat()).output().context("cannot start affiant")?;
        Ok((output.status.code(), output_text(&output)))
    };
    let daemon = host.start()?;
    host.trust()?;
    host.run_in_session(Path::new("/bin/true"), &[])?;
    await_covered_end(&host, 0)?;
    let (code, text) = uninstall(&[])?;
    ensure!(code == Some(69) && text.contains("stop it first"), "{text}");
    // Everything is left where it was.
    daemon.kill()?;
    let before = host.entries()?.len();
    let (code, text) = uninstall(&["--dry-run"])?;
    for part in ["would remove", " links, ", "cgroup ", "NV index 0x01500100", "the log and its keys stay"] {
        ensure!(code == Some(0) && text.contains(part), "{part}: {text}");
    }
    assert_eq!(host.entries()?.len(), before);
    let handles = || tpm.tool("tpm2_getcap", &["handles-nv-index"]);
    ensure!(host.pins().exists() && handles()?.to_lowercase().contains("0x1500100"), "a dry run removes nothing");

    let (code, text) = uninstall(&[])?;
    ensure!(code == Some(0) && text.contains("removed NV index 0x01500100") && !text.contains("LEFT"), "{text}");
    ensure!(!host.pins().exists(), "{text}");
    ensure!(!handles()?.to_lowercase().contains("0x1500100"), "{text}");
    ensure!(tpm.tool("tpm2_getcap", &["handles-persistent"])?.trim().is_empty(), "there was none");
    let entries = host.entries()?;
    let told: Vec<_> = entries.iter().filter(|entry| entry.body_text("state") == Some("uninstalled")).collect();
    let subjects: Vec<_> = told.iter().filter_map(|entry| entry.body_text("subject")).collect();
    assert_eq!(subjects, ["hooks", "tpm"]);
    ensure!(told[1].line.contains("NV index 0x01500100"), "{}", told[1].line);
    host.assert_verifies()?;
    let (code, text) = uninstall(&[])?;
    ensure!(code == Some(0) && text.contains("there is nothing of the agent on this host"), "{text}");
    assert_eq!(host.entries()?.len(), entries.len(), "there was nothing to tell");
    Ok(())
}
