//! Measured boots of a guest: what the registers of its TPM must say, boot after boot, and what a policy over them finds.
//!
//! The policy is what the first boot quoted. The second boot is alike and has to meet it; the third has another kernel
//! command line, which is all that the host changed, and must not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use ::tests::Entry;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::scenario::{Desk, Left, Verdict, findings};

/// What is on the kernel's command line in the third boot.
pub(crate) const OTHERWISE: &str = "affiant.otherwise";
/// Registers that firmware and boot loader fill, and that a policy may name: what follows belongs to the running system. 8 is not
/// among those that the agent quotes.
const POLICY: [u64; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 9];
/// The register into which EFI stub kernels measure their command line and root file system.
const COMMAND_LINE: u64 = 9;
/// What the guest's script runs from its disk.
const PROGRAM: &str = "/disk/measured";
/// The disk as it was after two boots alike.
const ALIKE: &str = "alike";

/// Keeps the log of the boots that are alike.
pub(crate) fn keep(desk: &Desk<'_>, boot: u32) -> Result<()> {
    if boot == 3 { desk.disk.copy_out(&desk.directory.join(ALIKE)) } else { Ok(()) }
}

/// Checks the logs of both, with and without a policy.
pub(crate) fn check(left: &Left<'_>) -> Result<String> {
    let entries = left.entries()?;
    let boots = boots(&entries);
    ensure!(boots.len() == 3, "{} boots in the armed entries, 3 expected", boots.len());
    let quoted = boots.iter().map(|boot| quoted(boot)).collect::<Result<Vec<_>>>()?;
    for (number, (boot, quoted)) in (1..).zip(boots.iter().zip(&quoted)) {
        parts_are_kept(left, boot).with_context(|| format!("boot {number}"))?;
        let seen = registers(&left.text(&format!("pcrs-{number}"))?)?;
        ensure!(*quoted == seen, "boot {number} quotes {quoted:?}, the kernel shows {seen:?}");
    }
    let [first, second, third] = <[BTreeMap<u64, String>; 3]>::try_from(quoted).ok().context("three boots")?;
    let differ = |other: &BTreeMap<u64, String>| -> BTreeSet<u64> {
        first
            .iter()
            .filter(|(register, value)| other.get(register) != Some(value))
            .map(|(register, _)| *register)
            .collect()
    };
    ensure!(differ(&second).is_empty(), "two boots alike differ in registers {:?}", differ(&second));
    let changed = differ(&third);
    ensure!(changed == BTreeSet::from([COMMAND_LINE]), "another command line changed registers {changed:?}");

    // Without a policy nobody said what is right, and the log is whole.
    let trust = left.out("trust.toml");
    let report = Verdict::of(&left.log(), &trust)?.with_code(0)?;
    ensure!(claim(&report)? == "not_proved", "host_state without a policy: {}", claim(&report)?);
    explained(&report, 3)?;

    let policy = left.host.join("policy.toml");
    with_policy(&trust, &first, &policy)?;
    let report = Verdict::of(&left.host.join(ALIKE).join("state/log"), &policy)?.with_code(0)?;
    ensure!(claim(&report)? == "proved", "host_state of two boots alike: {}", claim(&report)?);
    explained(&report, 2)?;

    let report = Verdict::of(&left.log(), &policy)?.with_code(1)?;
    ensure!(findings(&report) == ["pcr_policy_violated"], "findings {:?}", findings(&report));
    let at = report.pointer("/findings/0/index").and_then(Value::as_u64).context("the finding names an entry")?;
    let armed = boots.last().and_then(|boot| boot.first()).context("a third boot")?.index()?;
    ensure!(at > armed, "the finding is about entry {at}, before the third boot began with {armed}");
    ensure!(claim(&report)? == "failed", "host_state of another boot: {}", claim(&report)?);
    Ok(format!(
        "the logs explain registers 0 to 7, 9 and 10 of 3 boots; a policy from the first proves the second, and finds the \
         other command line of the third in register {COMMAND_LINE}"
    ))
}

/// The entries of each boot, from its first `armed` on.
fn boots(entries: &[Entry]) -> Vec<Vec<&Entry>> {
    let mut boots: Vec<Vec<&Entry>> = Vec::new();
    let mut latest = None;
    for entry in entries {
        if entry.kind() == "armed" && entry.body_text("boot_id") != latest {
            latest = entry.body_text("boot_id");
            boots.push(Vec::new());
        }
        if let Some(boot) = boots.last_mut() {
            boot.push(entry);
        }
    }
    boots
}

/// The values that every quote of a boot has of the registers of the policy.
fn quoted(boot: &[&Entry]) -> Result<BTreeMap<u64, String>> {
    let mut found: Option<BTreeMap<u64, String>> = None;
    for anchor in boot.iter().filter(|entry| entry.kind() == "anchor") {
        let pcrs = anchor.body("pcrs").and_then(Value::as_array).context("an anchor has registers")?;
        let values = pcrs.iter().filter_map(|pcr| Some((pcr.get(0)?.as_u64()?, pcr.get(1)?.as_str()?.to_owned())));
        let values: BTreeMap<u64, String> = values.filter(|(register, _)| POLICY.contains(register)).collect();
        ensure!(values.keys().eq(POLICY.iter()), "registers are missing: {}", anchor.line);
        ensure!(found.as_ref().is_none_or(|found| *found == values), "they changed within a boot: {}", anchor.line);
        found = Some(values);
    }
    found.context("nothing was quoted")
}

/// Registers as the guest's script wrote them: number and value in each line.
fn registers(text: &str) -> Result<BTreeMap<u64, String>> {
    let line = |line: &str| {
        let (register, value) = line.split_once(' ')?;
        Some((register.parse().ok()?, value.trim().to_ascii_lowercase()))
    };
    text.lines().map(|text| line(text).with_context(|| format!("no register: {text}"))).collect()
}

/// Both logs of a boot are beside the log of evidence, whole from their beginning on, and an anchor covers the event log.
fn parts_are_kept(left: &Left<'_>, boot: &[&Entry]) -> Result<()> {
    let anchored =
        boot.iter().filter(|entry| entry.kind() == "anchor").filter_map(|entry| entry.body_number("size")).max();
    for log in ["event_log", "ima"] {
        let parts: Vec<&&Entry> =
            boot.iter().filter(|entry| entry.kind() == "measured" && entry.body_text("log") == Some(log)).collect();
        let first = parts.first().with_context(|| format!("no part of {log}"))?;
        ensure!(anchored > Some(first.index()?), "{log} begins after what is anchored: {anchored:?}");
        let (mut from, mut whole) = (0, Vec::new());
        for part in &parts {
            ensure!(part.body_number("from") == Some(from), "{log} has a hole: {}", part.line);
            let digest = part.body("content").and_then(|blob| blob.get("sha256")?.as_str()).context("a blob")?;
            let blob = left.log().join("blob").join(digest);
            whole.extend(fs::read(&blob).with_context(|| format!("cannot read {}", blob.display()))?);
            from = whole.len() as u64;
        }
        ensure!(from > 0, "{log} is empty");
        let ran = whole.windows(PROGRAM.len()).any(|bytes| bytes == PROGRAM.as_bytes());
        ensure!(log != "ima" || ran, "the measurement list does not name {PROGRAM}, which was run");
    }
    Ok(())
}

/// Every register that firmware, loader and kernel fill is explained in every boot of a report.
fn explained(report: &Value, boots: usize) -> Result<()> {
    let seen = report.pointer("/host/boots").and_then(Value::as_array).context("the report has boots")?;
    ensure!(seen.len() == boots, "{} boots, {boots} expected", seen.len());
    for boot in seen {
        for log in ["event_log", "ima"] {
            let state = boot.get(log).and_then(|log| log.get("state")?.as_str());
            ensure!(state == Some("replayed"), "{log}: {boot:#}");
        }
        let explained = boot.get("explained").and_then(Value::as_array).context("a boot has registers")?;
        let explained: BTreeSet<u64> = explained.iter().filter_map(Value::as_u64).collect();
        ensure!(POLICY.iter().chain(&[10]).all(|register| explained.contains(register)), "explained: {boot:#}");
        let secure_boot = boot.pointer("/secure_boot/measured").and_then(Value::as_str);
        ensure!(secure_boot == Some("off"), "Secure Boot: {boot:#}");
    }
    Ok(())
}

/// What became of the claim about the host.
fn claim(report: &Value) -> Result<&str> {
    let claims = report.get("claims").and_then(Value::as_array).context("a report has claims")?;
    let host = claims.iter().find(|claim| claim.get("claim").and_then(Value::as_str) == Some("host_state"));
    host.and_then(|claim| claim.get("outcome")?.as_str()).context("a report tells of host_state")
}

/// A trust file that demands these values, and the claim that rests on them: as an operator would write it.
fn with_policy(trust: &Path, values: &BTreeMap<u64, String>, to: &Path) -> Result<()> {
    let text = fs::read_to_string(trust).with_context(|| format!("cannot read {}", trust.display()))?;
    let (before, after) = text.split_once("required = [").context("the trust file requires claims")?;
    let mut text = format!("{before}required = [\"host_state\", {after}");
    for (register, value) in values {
        text.push_str(&format!("\n[[pcr]]\nindex = {register}\nvalues = [\"{value}\"]\n"));
    }
    fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_read_as_the_kernel_shows_them() {
        let read = registers("0 AB01\n10 00\n").unwrap();
        assert_eq!(read, BTreeMap::from([(0, "ab01".to_owned()), (10, "00".to_owned())]));
        assert!(registers("0\n").is_err());
    }
}
