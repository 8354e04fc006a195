//! What no verdict may do, whatever the log: pass a changed byte, say more than was proved, or never end. The verdict
//! on each kind of damage is tested by `tests/vectors`.

use super::*;
use crate::fixture::{Builder, Files};
use crate::record::{Body, Class, CommClaims, Exit, RootHash, TreeSize};

fn log() -> Builder {
    let mut log = Builder::new().unwrap();
    log.append(Builder::armed());
    log.append(Builder::workload());
    for code in 0..3 {
        let exit = Exit {
            tgid: 4,
            code: Some(code),
            signal: None,
            uid: 0,
            user_time: None,
            system_time: None,
            marks: crate::record::ActMarks::NONE,
            claims: CommClaims { comm: "sh".into() },
        };
        log.event(Body::Exit(exit), Class::Process, None);
    }
    let disarmed = log.disarmed();
    log.append(Body::Disarmed(disarmed));
    log
}

fn check(files: &Files, trust: Option<&Trust>) -> Result<Report, VerifyError> {
    verify(&mut files.clone(), trust, Options::default())
}

#[test]
fn a_whole_log_is_proved_and_its_checkpoint_verified() {
    let log = log();
    let report = check(&log.files().unwrap(), Some(&log.trust().unwrap())).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.verdict, Verdict::Proved);
    assert_eq!(report.verified.map(|verified| verified.get().size), Some(TreeSize(8)));
}

#[test]
fn without_a_trust_file_nothing_is_verified() {
    let log = log();
    let report = check(&log.files().unwrap(), None).unwrap();
    assert_eq!((report.verdict, report.verdict.exit_code()), (Verdict::SelfConsistent, 2));
    assert!(report.verified.is_none());
    assert!(report.to_string().contains("self-consistent, signer not established"));
}

#[test]
fn what_a_log_shows_can_be_pinned_and_then_holds() {
    let log = log();
    let files = log.files().unwrap();
    let observed = check(&files, None).unwrap().observed.unwrap();
    let trust = Trust::pin(&observed);
    assert_eq!(trust, log.trust().unwrap());
    assert_eq!(check(&files, Some(&trust)).unwrap().verdict, Verdict::Proved);
}

#[test]
fn no_changed_byte_of_any_file_passes() {
    let log = log();
    let (files, trust) = (log.files().unwrap(), log.trust().unwrap());
    for (path, bytes) in &files.0 {
        for position in (0..bytes.len()).step_by(7) {
            let mut changed = files.clone();
            if let Some(bytes) = changed.0.get_mut(path) {
                bytes[position] ^= 1 << (position % 8);
            }
            let verdict = check(&changed, Some(&trust)).map(|report| report.verdict);
            assert_eq!(verdict, Ok(Verdict::Findings), "{path} byte {position}");
        }
    }
}

#[test]
fn no_shortened_or_missing_file_passes() {
    let log = log();
    let (files, trust) = (log.files().unwrap(), log.trust().unwrap());
    for (path, bytes) in &files.0 {
        for kept in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = files.clone();
            changed.0.insert(path.clone(), bytes[..kept].to_vec());
            let verdict = check(&changed, Some(&trust)).map(|report| report.verdict);
            assert_eq!(verdict, Ok(Verdict::Findings), "{path} cut to {kept}");
        }
        let mut changed = files.clone();
        changed.0.remove(path);
        assert_eq!(check(&changed, Some(&trust)).map(|report| report.verdict), Ok(Verdict::Findings), "no {path}");
    }
}

#[test]
fn a_log_cut_at_any_size_by_whoever_has_the_keys_is_missed_only_by_those_who_never_saw_it() {
    let whole = log();
    let trust = whole.trust().unwrap();
    for size in 0..whole.entries.len() {
        let mut cut = log();
        cut.entries.truncate(size);
        let report = check(&cut.files().unwrap(), Some(&trust)).unwrap();
        let truncated = Finding::LogTruncated { size: TreeSize(size as u64), remembered: TreeSize(8) };
        assert!(report.findings.contains(&truncated), "{size}: {:?}", report.findings);
    }
}

#[test]
fn the_text_is_loud_about_a_software_key_and_never_says_just_verified() {
    let log = log();
    let trust = log.trust().unwrap();
    for report in [
        check(&log.files().unwrap(), Some(&trust)).unwrap(),
        check(&log.files().unwrap(), None).unwrap(),
        check(&Files::default(), Some(&trust))
            .err()
            .map_or_else(|| panic!("no log"), |_| check(&log.files().unwrap(), None).unwrap()),
    ] {
        let text = report.to_string();
        assert!(text.contains("TIER T0 - SOFTWARE KEY"), "{text}");
        assert!(text.contains("Not promised"), "{text}");
        assert!(!text.to_lowercase().contains("verified"), "{text}");
    }
}

#[test]
fn the_json_says_what_the_text_says() {
    let log = log();
    let mut trust = log.trust().unwrap();
    trust.heads = vec![Head { size: TreeSize(8), root: RootHash([1; 32]) }];
    let report = check(&log.files().unwrap(), Some(&trust)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["verdict"], "findings");
    assert_eq!(json["exit"], 1);
    assert_eq!(json["tier"], "T0");
    assert_eq!(json["findings"][0]["name"], "equivocation");
    assert_eq!(json["claims"][3]["outcome"], "failed");
}

#[test]
fn what_is_not_a_log_cannot_be_checked() {
    let empty = check(&Files::default(), None).map(|report| report.verdict);
    assert_eq!(empty, Err(VerifyError::NotALog { reason: "it has no file `checkpoint`".to_owned() }));
}

#[test]
fn a_flood_of_damage_is_counted_and_not_kept() {
    let mut log = Builder::new().unwrap();
    for _ in 0..3_000 {
        log.append_bytes(b"{}".to_vec());
    }
    let report = check(&log.files().unwrap(), Some(&log.trust().unwrap())).unwrap();
    assert_eq!((report.findings.len(), report.findings_total), (1_000, 3_000));
}
