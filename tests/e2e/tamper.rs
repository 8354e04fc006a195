//! What an attacker with the files can do to a log: each gives exit 1 and a finding that names what and where; none panics.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tests::{Host, TreeDirectory, Verdict};

/// A log with one session in it, closed, trusted, and verified once unharmed.
fn log_of_one_session() -> Result<Host> {
    let host = Host::new()?;
    let daemon = host.start()?;
    // More than one bundle of entries, so that damage can be in one that must be full.
    let many = "i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done";
    let session = host.run_in_session(Path::new("/bin/sh"), &["-c", many])?;
    host.entries_after_session(&session)?;
    daemon.stop()?;
    host.trust()?;
    host.assert_verifies()?;
    Ok(host)
}

/// Verifies and demands exit 1 and a text that has every one of `named`.
fn assert_found(host: &Host, log: &TreeDirectory, named: &[&str]) -> Result<Verdict> {
    let verdict = host.verify(log.path())?;
    ensure!(verdict.code == Some(1), "exit {:?}, 1 expected:\n{}", verdict.code, verdict.text);
    for name in named {
        ensure!(verdict.text.contains(name), "the verdict does not name {name:?}:\n{}", verdict.text);
    }
    Ok(verdict)
}

/// Does something to the entries of a copy, from the first `exec` on, and demands that this index is named.
fn assert_damage_is_named(harm: impl FnOnce(&mut Vec<Vec<u8>>, usize)) -> Result<()> {
    let host = log_of_one_session()?;
    let log = host.copy_of_log("damaged")?;
    let place = log.find("exec")?;
    let mut entries = log.entries()?;
    harm(&mut entries, place);
    log.write_entries(&entries)?;
    assert_found(&host, &log, &[&format!("entry {place} ")])?;
    Ok(())
}

#[test]
fn an_edited_entry_is_named() -> Result<()> {
    assert_damage_is_named(|entries, place| {
        let middle = entries[place].len() / 2;
        entries[place][middle] ^= 1;
    })
}

#[test]
fn a_removed_entry_is_named() -> Result<()> {
    assert_damage_is_named(|entries, place| {
        entries.remove(place);
    })
}

#[test]
fn two_entries_in_each_others_place_are_named() -> Result<()> {
    assert_damage_is_named(|entries, place| entries.swap(place, place + 1))
}

#[test]
fn an_entry_that_stands_twice_is_named() -> Result<()> {
    assert_damage_is_named(|entries, place| {
        let before = entries[place - 1].clone();
        entries.insert(place, before);
    })
}

#[test]
fn a_bundle_that_ends_early_is_named() -> Result<()> {
    let host = log_of_one_session()?;
    let log = host.copy_of_log("truncated")?;
    let mut entries = log.bundle(0)?;
    entries.pop();
    log.write_bundle(0, &entries)?;
    assert_found(&host, &log, &["tile/entries/000"])?;
    Ok(())
}

#[test]
fn a_log_rolled_back_to_an_older_checkpoint_is_found_by_a_remembered_head() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.start()?;
    let session = host.run_in_session(Path::new("/bin/true"), &[])?;
    host.entries_after_session(&session)?;
    let old = host.copy_of_log("old")?;
    let session = host.run_in_session(Path::new("/bin/true"), &[])?;
    host.entries_after_session(&session)?;
    daemon.stop()?;
    // The trust file remembers the head as it is now; the copy is consistent in itself and shorter.
    host.trust()?;
    host.assert_verifies()?;
    assert_found(&host, &old, &[&old.size()?.to_string()])?;
    Ok(())
}

#[test]
fn a_checkpoint_of_another_size_is_named() -> Result<()> {
    let host = log_of_one_session()?;
    let log = host.copy_of_log("swapped")?;
    let older = {
        let daemon = host.start()?;
        let session = host.run_in_session(Path::new("/bin/true"), &[])?;
        host.entries_after_session(&session)?;
        daemon.stop()?;
        host.copy_of_log("longer")?
    };
    // The newer checkpoint over the older tree: its signatures are good, its tree is not there.
    fs::copy(older.path().join("checkpoint"), log.path().join("checkpoint")).context("cannot swap the checkpoint")?;
    let verdict = host.verify(log.path())?;
    ensure!(verdict.code == Some(1), "exit {:?}, 1 expected:\n{}", verdict.code, verdict.text);
    Ok(())
}

#[test]
fn a_log_started_anew_under_the_same_key_is_found() -> Result<()> {
    let host = log_of_one_session()?;
    // What root would do: keep the keys, throw the log away, start again.
    let state = host.state();
    let keys = host.path("kept-keys");
    tests::copy_directory(&state.join("keys"), &keys)?;
    fs::remove_dir_all(&state).context("cannot throw the state away")?;
    fs::create_dir_all(&state).context("cannot create the state directory")?;
    tests::copy_directory(&keys, &state.join("keys"))?;
    let started = host.start();
    match started {
        Ok(daemon) => {
            let session = host.run_in_session(Path::new("/bin/true"), &[])?;
            host.entries_after_session(&session)?;
            daemon.stop()?;
            let log = host.copy_of_log("anew")?;
            assert_found(&host, &log, &["genesis"])?;
        }
        // Refusing to begin a second log with a key that has one is as good.
        Err(_) => {
            let messages = host.daemon_messages();
            ensure!(messages.contains("key"), "the refusal does not say why:\n{messages}");
        }
    }
    Ok(())
}

#[test]
fn a_flipped_byte_in_any_file_is_found_or_harmless_and_never_a_panic() -> Result<()> {
    let mut random = tests::Random::seeded();
    let host = log_of_one_session()?;
    let original = host.copy_of_log("original")?;
    let mut files = Vec::new();
    let mut open = vec![original.path().to_path_buf()];
    while let Some(directory) = open.pop() {
        for item in fs::read_dir(&directory).context("cannot read the log")? {
            let path = item.context("cannot read the log")?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    for round in 0..40 {
        let file = files.get(usize::try_from(random.below(files.len() as u64))?).context("a file")?;
        let bytes = fs::read(file).context("cannot read the log")?;
        if bytes.is_empty() {
            continue;
        }
        let mut damaged = bytes.clone();
        let place = usize::try_from(random.below(damaged.len() as u64))?;
        let bit = u8::try_from(random.below(8))?;
        *damaged.get_mut(place).context("the byte")? ^= 1 << bit;
        fs::write(file, &damaged).context("cannot write the log")?;
        let verdict = host.verify(original.path())?;
        fs::write(file, &bytes).context("cannot write the log")?;
        let name = file.strip_prefix(original.path()).unwrap_or(file).display().to_string();
        // A partial tile that a later one replaced is not part of what the checkpoint covers.
        let superseded = name.contains(".p/") && verdict.code == Some(0);
        // A checkpoint that is no checkpoint any more leaves nothing to check against.
        let unreadable = name == "checkpoint" && verdict.code == Some(2);
        ensure!(
            verdict.code == Some(1) || superseded || unreadable,
            "round {round}: bit {bit} of byte {place} of {name}: exit {:?}\n{}",
            verdict.code,
            verdict.text
        );
    }
    Ok(())
}

#[test]
fn a_directory_of_garbage_cannot_be_checked() -> Result<()> {
    let host = log_of_one_session()?;
    let garbage = host.open_directory("garbage")?;
    let empty = host.verify(&garbage)?;
    ensure!(empty.code == Some(2), "an empty directory: exit {:?}\n{}", empty.code, empty.text);
    fs::write(garbage.join("checkpoint"), [0xff_u8; 4096]).context("cannot write garbage")?;
    let verdict = host.verify(&garbage)?;
    ensure!(verdict.code == Some(2), "garbage: exit {:?}\n{}", verdict.code, verdict.text);
    let absent = host.verify(&host.path("absent"))?;
    ensure!(absent.code == Some(2), "no directory: exit {:?}\n{}", absent.code, absent.text);
    Ok(())
}

#[test]
fn without_a_trust_file_the_signer_is_not_established() -> Result<()> {
    let host = log_of_one_session()?;
    let verdict = host.verify_without_trust(&host.state().join("log"))?;
    assert_eq!(verdict.code, Some(2), "{}", verdict.text);
    assert!(verdict.text.contains("self-consistent, signer not established"), "{}", verdict.text);
    Ok(())
}

#[test]
fn without_a_trust_file_damage_is_still_found() -> Result<()> {
    let host = log_of_one_session()?;
    let log = host.copy_of_log("edited")?;
    let place = log.find("exec")?;
    let mut entries = log.entries()?;
    entries.remove(place);
    log.write_entries(&entries)?;
    let verdict = host.verify_without_trust(log.path())?;
    assert_eq!(verdict.code, Some(1), "{}", verdict.text);
    Ok(())
}
