//! The attack suite: what somebody does to a log or its evidence, and what must come of it. Each row is a vector, so that both
//! readers judge it; `docs/THREAT-MODEL.md` names the row for each.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use agent_evidence::blob::BLOB_BYTES_MAX;
use agent_evidence::command::{COULD_NOT_CHECK, verify_path};
use agent_evidence::note::NOTE_BYTES_MAX;
use agent_evidence::tiles::{BUNDLE_BYTES_MAX, TILE_BYTES};
use agent_evidence::trust::TRUST_BYTES_MAX;
use agent_evidence::verify::{ClaimReport, Options, Outcome as Outcomes, Report};

/// What must come of an attack.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// A finding, beside which there may be others.
    Finding(&'static str),
    /// A window that could miss entries; no finding.
    Window(&'static str),
    /// A note; no finding.
    Note(&'static str),
    /// Nothing that could be found here: this claim is not proved, and the report says why a TPM does not help.
    Unproved(&'static str),
    /// Nothing: it changes nothing.
    Nothing,
    /// It cannot be checked.
    CouldNotCheck,
}

use Outcome::{CouldNotCheck, Finding, Note, Nothing, Unproved, Window};

/// The attack, the vector that has it, and what must come of it.
const ATTACKS: &[(&str, &str, Outcome)] = &[
    ("edit an entry", "entry_altered", Finding("entry_altered")),
    ("edit an entry, and its tile", "entry_rewritten", Finding("root_mismatch")),
    ("edit an entry in a packed segment", "packed_altered", Finding("root_mismatch")),
    ("drop an entry, with the keys", "entry_removed", Finding("previous_mismatch")),
    ("insert an entry, with the keys", "attack_entry_inserted", Finding("previous_mismatch")),
    ("reorder entries, with the keys", "entries_reordered", Finding("index_wrong")),
    ("duplicate an entry, with the keys", "entry_repeated", Finding("number_repeated")),
    ("edit the text of the policies that an entry names", "blob_altered", Finding("blob_altered")),
    ("remove the text of the policies that an entry names", "blob_removed", Note("blob_absent")),
    ("edit a content in an evidence bundle", "evb_blob_altered", Finding("blob_altered")),
    ("remove a bundle", "bundle_missing", Finding("bundle_missing")),
    ("truncate, with the keys", "log_truncated", Finding("log_truncated")),
    ("truncate, by the checkpoint alone", "checkpoint_forged", Finding("checkpoint_forged")),
    ("truncate and start again", "attack_cut_as_crash_remembered", Finding("head_mismatch")),
    ("truncate and disguise it as a crash", "attack_cut_as_crash", Window("run_cut")),
    ("truncate within a run that nobody remembers", "attack_cut_open_end", Window("open_end")),
    ("begin again from nothing under the same keys", "genesis_untrusted", Finding("genesis_untrusted")),
    ("roll the state directory back", "attack_rolled_back", Finding("log_truncated")),
    ("sign with a stolen key of an epoch that is over", "attack_stolen_epoch_key", Finding("checkpoint_unsigned")),
    ("sign with the epoch key and not the log key", "attack_epoch_key_alone", Finding("checkpoint_unsigned")),
    ("use an epoch key for a size before its epoch", "attack_epoch_key_early", Finding("checkpoint_unsigned")),
    ("forge an epoch without the log key", "epoch_forged", Finding("epoch_forged")),
    ("begin an epoch that the one before does not vouch for", "in_order_long", Note("orphan_epoch")),
    ("show two parties two heads of one size", "equivocation", Finding("equivocation")),
    ("show two parties two histories", "head_mismatch", Finding("head_mismatch")),
    ("write an entry with two JSON readings", "entry_malformed_duplicate_key", Finding("entry_malformed")),
    ("nest deeply", "entry_malformed_deep", Finding("entry_malformed")),
    ("write huge numbers", "entry_malformed_huge_number", Finding("entry_malformed")),
    ("claim far more entries than there are", "size_forged", Finding("bundle_missing")),
    ("rename the origin", "attack_origin_renamed", Finding("origin_untrusted")),
    (
        "put an unknown key's signature in the place of the known one's",
        "attack_unknown_signature",
        Finding("checkpoint_unsigned"),
    ),
    ("put unknown keys' signatures beside the known ones", "in_order_unknown_signatures", Nothing),
    (
        "put a forged signature of the known key beside a good one",
        "attack_signature_beside",
        Finding("checkpoint_forged"),
    ),
    ("dress an entry as one of a newer version", "version_altered", Finding("entry_altered")),
    ("go on in a newer version", "version_newer", CouldNotCheck),
    ("hide a loss", "number_hole", Finding("number_hole")),
    ("conceal acts at the end of a session", "revoked_wrong_acts", Finding("revoked_wrong")),
    ("detach a hook", "hooks_not_attached", Finding("hooks_not_attached")),
    ("prune entries without saying so", "pruned_unrecorded", Finding("pruned_unrecorded")),
    ("prune more than was said", "pruned_unrecorded_beyond", Finding("pruned_unrecorded")),
    ("leave a control entry out of what is kept", "kept_omitted_control", Finding("control_number_wrong")),
    ("leave a whole short session out of what is kept", "kept_omitted", Finding("kept_omitted")),
    ("leave an entry of a session on hold out of what is kept", "kept_omitted_held", Finding("kept_omitted")),
    ("leave out what stands between the last statement and the edge", "kept_omitted_place", Finding("kept_omitted")),
    ("edit an entry that is kept", "kept_altered", Finding("root_mismatch")),
    ("let a pruned session go on otherwise", "pruned_session_wrong", Finding("session_hash_wrong")),
    ("hide a loss behind the edge of what is pruned", "pruned_number_hole", Finding("number_hole")),
    ("put a file of kept entries beside whole bundles", "kept_and_plain", Nothing),
    ("leave an entry out of an evidence bundle", "evb_entry_omitted", Finding("evb_entry_omitted")),
    ("leave a `gap` or `armed` out of an evidence bundle", "evb_control_omitted", Finding("evb_control_omitted")),
    ("leave a heartbeat out of an evidence bundle", "evb_control_omitted_heartbeat", Finding("evb_control_omitted")),
    ("alter the event log", "measured_mismatch_event_log", Finding("measured_mismatch")),
    ("hand over the event log of another boot", "measured_mismatch_other_boot", Finding("measured_mismatch")),
    ("say of a measured event that it was not measured", "measured_mismatch_no_action", Finding("measured_mismatch")),
    ("call an event of the event log by another type", "host_state_type_swapped", Nothing),
    ("cut the measurement list short", "measured_mismatch_ima_cut", Finding("measured_mismatch")),
    ("alter an entry of the measurement list", "measured_mismatch_ima_altered", Finding("measured_mismatch")),
    ("deny a violation in the measurement list", "measured_mismatch_violation", Finding("measured_mismatch")),
    ("leave a part of a log of what was measured out", "measured_malformed_gap", Finding("measured_malformed")),
    ("boot something that the trust file does not allow", "pcr_policy_violated", Finding("pcr_policy_violated")),
    ("not quote a register that the trust file speaks of", "host_state_not_quoted", Finding("claim_not_proved")),
    ("quote with a key that nobody vouches for", "host_state_unvouched", Finding("claim_not_proved")),
    (
        "answer a challenge with a log that was put aside before",
        "challenge_unanswered",
        Finding("challenge_unanswered"),
    ),
    ("answer a part of a challenge", "challenge_unanswered_prefix", Finding("challenge_unanswered")),
    ("answer a challenge over another history", "challenge_elsewhere", Finding("challenge_unanswered")),
    ("answer a challenge with a key that nobody vouches for", "challenge_unbelieved", Finding("challenge_unbelieved")),
    ("replay an old quote", "attack_quote_replayed", Finding("attestation_data_wrong")),
    ("quote with a key that is not restricted", "attack_key_unrestricted", Finding("attestation_key_wrong")),
    ("sign a quote that no TPM made", "attack_quote_forged", Finding("attestation_forged")),
    ("quote with a key of the owner hierarchy", "attack_key_of_owner", Finding("attestation_signer_wrong")),
    ("quote in another boot", "attack_quote_other_boot", Finding("tpm_reset_back")),
    ("set the TPM's clock back within a boot", "attack_clock_back", Finding("tpm_clock_back")),
    ("set the TPM's clock back over a boot", "attack_clock_back_reset", Finding("tpm_clock_back")),
    ("boot another kernel without a reset (kexec)", "attack_kexec", Finding("boot_without_reset")),
    ("reset the TPM under a running host", "attack_reset_unexplained", Finding("tpm_reset_unexplained")),
    ("burn values of the counter", "attack_counter_burnt", Finding("nv_counter_gap")),
    ("make the agent start until the counter is capped", "attack_crash_loop", Finding("nv_counter_capped")),
    ("clear the TPM", "attack_tpm_cleared", Finding("tpm_reset_back")),
    ("define the counter anew, of another sort", "attack_counter_redefined", Finding("nv_counter_wrong")),
    ("swap the attestation key", "attack_key_swapped", Finding("attestation_key_changed")),
    ("have a nonce of one's choice signed as it is", "attack_nonce_raw", Finding("attestation_data_wrong")),
    ("begin an epoch with the log key alone, under a TPM", "attack_epoch_uncounted", Finding("epoch_uncounted")),
    ("begin an epoch with a step that was used", "attack_epoch_step_used", Finding("epoch_uncounted")),
    ("roll the state directory back, under a counter", "attack_state_rolled_back", Finding("nv_counter_gap")),
    ("put back a copy from between an intent and its step", "attack_snapshot_after_intent", Window("counted_late")),
    ("go on without anchors", "attack_unanchored", Window("unanchored")),
    ("roll state directory and TPM back together", "attack_state_and_tpm_rolled_back", Unproved("non_equivocation")),
    ("the same, before a witness", "attack_state_and_tpm_rolled_back_witnessed", Finding("log_truncated")),
    ("keep a second log beside the first, with one TPM", "attack_two_logs", Unproved("non_equivocation")),
    ("the same two logs, before a witness", "attack_two_logs_witnessed", Finding("split_view")),
    ("certify the key of another log", "attack_certificate_of_another_log", Finding("tier_too_low")),
    ("remove an anchor, with the keys", "attack_anchor_removed", Finding("attestation_order_wrong")),
    ("anchor another history", "attack_anchor_elsewhere", Finding("anchor_mismatch")),
    ("dress a register of a quote", "attack_register_dressed", Finding("pcr_digest_wrong")),
];

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn judged(vector: &str) -> Option<Report> {
    let own = tree().join("tests/vectors").join(vector);
    let bundle = own.join("bundle.evb");
    let held = if bundle.exists() { bundle } else { own.join("log") };
    let expected: serde_json::Value = serde_json::from_slice(&fs::read(own.join("expected.json")).ok()?).ok()?;
    let challenge = expected.get("challenge").and_then(|text| text.as_str()?.parse().ok());
    let options = Options { challenge, ..Options::default() };
    verify_path(&held, Some(&own.join("trust.toml")), options, None).ok()
}

#[test]
fn each_attack_has_its_outcome() {
    for (attack, vector, outcome) in ATTACKS {
        let report = judged(vector);
        let exit = report.as_ref().map_or(COULD_NOT_CHECK, |report| report.verdict.exit_code());
        let holds = match (outcome, &report) {
            (Finding(name), Some(report)) => exit == 1 && report.findings.iter().any(|finding| finding.name() == *name),
            (Window(kind), Some(report)) => {
                let is_listed = |text: &str| text.contains(&format!("! {kind}: "));
                let kept = &report.windows.kept;
                exit == 0
                    && is_listed(&report.to_string())
                    && kept.iter().any(|window| window.kind.name() == *kind && window.may_miss_entries)
            }
            (Note(name), Some(report)) => exit == 0 && report.notes.iter().any(|note| note.name == *name),
            (Unproved(name), Some(report)) => {
                let says = |reason: &str| reason.contains("a TPM alone does not show");
                let is_said = |claim: &ClaimReport| {
                    claim.claim.name() == *name && matches!(&claim.outcome, Outcomes::NotProved(reason) if says(reason))
                };
                exit == 0 && report.claims.iter().any(is_said) && says(&report.to_string())
            }
            (Nothing, Some(report)) => exit == 0 && report.findings.is_empty(),
            (CouldNotCheck, None) => true,
            _ => false,
        };
        assert!(
            holds,
            "{attack} ({vector}): {outcome:?}, exit {exit}\n{}",
            report.map_or(String::new(), |r| r.to_string())
        );
    }
}

#[test]
fn the_threat_model_names_each_attack_and_its_vector() {
    let text = fs::read_to_string(tree().join("docs/THREAT-MODEL.md")).unwrap();
    for (attack, vector, _) in ATTACKS {
        assert!(text.contains(&format!("| {attack} | ")), "{attack}");
        assert!(text.contains(&format!("`{vector}`")), "{vector}");
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let into = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &into)?;
        } else {
            fs::copy(entry.path(), into)?;
        }
    }
    Ok(())
}

#[test]
fn a_file_that_is_too_large_ends_the_verification_wherever_it_is() {
    let own = tree().join("tests/vectors/in_order");
    let trust = own.join("trust.toml");
    for (name, bytes_max) in
        [("checkpoint", NOTE_BYTES_MAX), ("tile/0/000.p/14", TILE_BYTES), ("tile/entries/000.p/14", BUNDLE_BYTES_MAX)]
    {
        let copy = tempfile::tempdir().unwrap();
        for file in ["checkpoint", "tile/0/000.p/14", "tile/entries/000.p/14"] {
            fs::create_dir_all(copy.path().join(file).parent().unwrap()).unwrap();
            fs::copy(own.join("log").join(file), copy.path().join(file)).unwrap();
        }
        let file = fs::OpenOptions::new().write(true).open(copy.path().join(name)).unwrap();
        file.set_len(bytes_max as u64 + 1).unwrap();
        let error = verify_path(copy.path(), Some(&trust), Options::default(), None).unwrap_err().in_full();
        assert!(error.contains(name) && error.contains("longer than"), "{error}");
    }
    // A blob as the rest, with any of the contents that entries refer to.
    let own = tree().join("tests/vectors/blobs");
    let copy = tempfile::tempdir().unwrap();
    copy_all(&own.join("log"), copy.path()).unwrap();
    let blob = fs::read_dir(copy.path().join("blob")).unwrap().next().unwrap().unwrap().path();
    fs::OpenOptions::new().write(true).open(&blob).unwrap().set_len(BLOB_BYTES_MAX as u64 + 1).unwrap();
    let error = verify_path(copy.path(), Some(&trust), Options::default(), None).unwrap_err().in_full();
    assert!(error.contains("blob/") && error.contains("longer than"), "{error}");
    let own = tree().join("tests/vectors/in_order");
    let large = tempfile::NamedTempFile::new().unwrap();
    large.as_file().set_len(TRUST_BYTES_MAX as u64 + 1).unwrap();
    let error = verify_path(&own.join("log"), Some(large.path()), Options::default(), None).unwrap_err().in_full();
    assert!(error.contains("trust file") && error.contains("longer than"), "{error}");
    let mut deep = tempfile::NamedTempFile::new().unwrap();
    deep.write_all(format!("version = {}", "[".repeat(1 << 20)).as_bytes()).unwrap();
    assert!(verify_path(&own.join("log"), Some(deep.path()), Options::default(), None).is_err());
}
