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

/// A log of many bundles, with an upper tile that is full.
fn long(entries: usize) -> Builder {
    let mut log = Builder::new().unwrap();
    log.append(Builder::armed());
    while log.entries.len() < entries {
        log.append(Builder::workload());
    }
    log
}

fn in_threads(files: &Files, trust: &Trust, threads: usize) -> Result<(String, String), VerifyError> {
    let threads = NonZeroUsize::new(threads).unwrap();
    verify_in_threads(&mut files.clone(), Some(trust), Options::default(), threads)
        .map(|report| (report.to_json(), report.to_string()))
}

#[test]
fn several_threads_find_what_one_finds_wherever_it_is() {
    let log = long(1_100);
    let (files, trust) = (log.files().unwrap(), log.trust().unwrap());
    let whole = in_threads(&files, &trust, 1).unwrap();
    assert!(whole.0.contains("\"verdict\":\"proved\""), "{}", whole.0);
    for (path, bytes) in &files.0 {
        for changed in [
            None,
            Some(Vec::new()),
            Some([bytes.as_slice(), b"x"].concat()),
            Some({
                let mut bytes = bytes.clone();
                if let Some(byte) = bytes.last_mut() {
                    *byte ^= 1;
                }
                bytes
            }),
        ] {
            let mut damaged = files.clone();
            match changed {
                None => drop(damaged.0.remove(path)),
                Some(changed) => drop(damaged.0.insert(path.clone(), changed)),
            }
            let alone = in_threads(&damaged, &trust, 1);
            assert_ne!(alone.as_ref().ok(), Some(&whole), "{path}");
            assert_eq!(in_threads(&damaged, &trust, 3), alone, "{path}");
        }
    }
}

#[test]
fn heads_within_a_bundle_are_compared_in_any_number_of_threads() {
    let log = long(1_000);
    let mut trust = log.trust().unwrap();
    for size in [1, 255, 256, 257, 511, 512, 700, 999, 1_000] {
        let mut early = long(1_000);
        early.entries.truncate(size);
        let head = early.trust().unwrap().heads[0];
        trust.add_head(trust.origin.clone().as_str(), head).unwrap();
    }
    let files = log.files().unwrap();
    let good = in_threads(&files, &trust, 1).unwrap();
    assert!(good.0.contains("\"verdict\":\"proved\""), "{}", good.0);
    assert_eq!(in_threads(&files, &trust, 4).unwrap(), good);
    for head in &mut trust.heads {
        head.root.0[0] ^= 1;
    }
    let bad = in_threads(&files, &trust, 1).unwrap();
    assert!(bad.0.contains("\"findings_total\":9"), "{}", bad.0);
    assert_eq!(in_threads(&files, &trust, 4).unwrap(), bad);
}

/// A source with one file that cannot be read.
struct Broken(Files, &'static str);

impl Source for Broken {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        if path == self.1 {
            return Err(SourceError { path: path.to_owned(), reason: "broken".to_owned() });
        }
        self.0.read(path, bytes_max)
    }
}

#[test]
fn an_unreadable_file_ends_the_verification_in_any_number_of_threads() {
    let log = long(1_500);
    let (files, trust) = (log.files().unwrap(), log.trust().unwrap());
    for path in ["tile/entries/000", "tile/0/003", "tile/entries/005.p/220", "tile/1/000.p/5"] {
        for threads in [1, 2, 6] {
            let mut source = Broken(files.clone(), path);
            let threads = NonZeroUsize::new(threads).unwrap();
            let error = verify_in_threads(&mut source, Some(&trust), Options::default(), threads).unwrap_err();
            assert_eq!(error, SourceError { path: path.to_owned(), reason: "broken".to_owned() }.into(), "{path}");
        }
    }
}

#[test]
fn a_forged_size_does_not_keep_any_thread_busy() {
    let log = long(600);
    let mut checkpoint = log.checkpoint().unwrap();
    checkpoint.size = TreeSize(1 << 52);
    let mut files = log.files().unwrap();
    files.0.insert("checkpoint".to_owned(), checkpoint.sign(&[&log.log_key, &log.epoch_key]).into_bytes());
    let trust = log.trust().unwrap();
    assert_eq!(in_threads(&files, &trust, 4), in_threads(&files, &trust, 1));
}

#[test]
fn the_report_says_from_where_on_nothing_was_judged() {
    let log = log();
    let (mut files, trust) = (log.files().unwrap(), log.trust().unwrap());
    let bundle = files.0.get_mut("tile/entries/000.p/8").unwrap();
    let at = bundle.windows(8).position(|window| window == b"\"code\":1").unwrap();
    bundle[at] = b' ';
    let report = check(&files, Some(&trust)).unwrap();
    assert_eq!(report.sight_lost, Some(EntryIndex(5)));
    assert!(report.to_string().contains("From entry 5 on NOTHING WAS JUDGED"), "{report}");
    assert_eq!(check(&log.files().unwrap(), Some(&trust)).unwrap().sight_lost, None);
}

#[test]
fn the_time_not_observed_is_summed_by_its_cause() {
    const SECOND: u64 = 1_000_000_000;
    let mut log = Builder::new().unwrap();
    let armed = |log: &mut Builder, boot_id: &'static str, wall: u64, boot: u64| {
        log.seqs.clear();
        log.capture.0[0] += 1;
        let Body::Armed(armed) = Builder::armed() else { return };
        let body = Body::Armed(crate::record::Armed { capture_id: log.capture, boot_id: boot_id.into(), ..armed });
        let draft = at(log.draft(body), wall, boot);
        log.append_draft(&draft, |_| {});
    };
    let disarmed = |log: &mut Builder, wall: u64, boot: u64| {
        let disarmed = log.disarmed();
        let draft = at(log.draft(Body::Disarmed(disarmed)), wall, boot);
        log.append_draft(&draft, |_| {});
    };
    // 30 s after the boot; stopped for 5 s; off for at most 60 s and 20 s more until armed; cut off and 7 s later armed.
    armed(&mut log, "a", 1_030, 30);
    disarmed(&mut log, 1_100, 100);
    armed(&mut log, "a", 1_105, 105);
    disarmed(&mut log, 1_200, 200);
    armed(&mut log, "b", 1_280, 20);
    armed(&mut log, "b", 1_287, 27);
    let report = check(&log.files().unwrap(), Some(&log.trust().unwrap())).unwrap();
    let kinds: Vec<_> = report.windows.kept.iter().map(|window| window.kind.name()).collect();
    assert_eq!(kinds, ["before_first_run", "stopped", "restarted", "run_cut", "open_end"]);
    let sums = report.windows.not_observed;
    assert_eq!(
        (sums.boot_to_armed, sums.between_runs, sums.host_off, sums.total()),
        (50 * SECOND, 12 * SECOND, 60 * SECOND, 122 * SECOND)
    );
    assert_eq!(report.windows.may_miss, 2);
    assert!(report.to_string().contains("Time not observed, by the host's clocks: 122.000 s"), "{report}");
}

fn at(mut draft: crate::record::Draft<'_>, wall: u64, boot: u64) -> crate::record::Draft<'_> {
    draft.wall = crate::record::WallTime(wall * 1_000_000_000);
    draft.boot = crate::record::BootTime(boot * 1_000_000_000);
    draft
}

/// A log of 300 entries that a TPM attests, an anchor over each 30 of them.
fn attested() -> (Builder, crate::fixture::tpm::FixedTpm) {
    let (mut log, mut tpm) = (Builder::new().unwrap(), crate::fixture::tpm::FixedTpm::new(0x51).unwrap());
    log.append(Body::AttestationKey(tpm.attestation_key()));
    log.append(Body::NvCounter(tpm.intent()));
    let step = tpm.step();
    log.append(step);
    log.append(Builder::armed());
    while log.entries.len() < 299 {
        if log.entries.len().is_multiple_of(30) {
            let checkpoint = log.checkpoint().unwrap();
            let cause = crate::record::AnchorCause::Interval;
            let anchor = tpm.anchor(cause, crate::record::EpochNumber(0), &checkpoint, None);
            log.append(Body::Anchor(anchor));
        } else {
            log.append(Builder::workload());
        }
    }
    let disarmed = log.disarmed();
    log.append(Body::Disarmed(disarmed));
    (log, tpm)
}

#[test]
fn what_a_tpm_attests_can_be_pinned_and_raises_no_tier_by_itself() {
    let (log, tpm) = attested();
    let files = log.files().unwrap();
    let observed = check(&files, None).unwrap().observed.unwrap();
    let trust = Trust::pin(&observed);
    let known = &trust.attestation;
    assert_eq!((&known.ak_names, &known.counter_name), (&vec![tpm.name()], &Some(tpm.nv.name())));
    assert_eq!((known.counter_value, known.reset_count), (Some(8), Some(5)));
    let report = check(&files, Some(&trust)).unwrap();
    assert_eq!((report.verdict, report.tier), (Verdict::Proved, KeyTier::T0), "{report}");
    let attestation = report.attestation.as_ref().unwrap();
    assert_eq!((attestation.anchors, attestation.anchored.map(|anchored| anchored.size)), (9, Some(TreeSize(270))));
    assert_eq!((attestation.epochs, attestation.epochs_bound, attestation.counted), (1, 1, None));
    let text = report.to_string();
    assert!(text.contains("TIER T0 - NOT VOUCHED FOR"), "{text}");
    assert!(text.contains("where the log key lives: ") && text.contains("who vouches for that: nobody"), "{text}");
    // Without the tiles nobody can say whether the anchors' roots are the log's, and nothing is anchored.
    let mut without = files.clone();
    without.0.retain(|path, _| !path.starts_with("tile/0/"));
    let report = check(&without, Some(&trust)).unwrap();
    assert!(report.attestation.unwrap().anchored.is_none());
}

#[test]
fn a_note_on_an_epoch_names_the_step_that_vouches_for_it_and_no_other() {
    let note = |counter: Option<u64>, steps: bool| {
        let (mut log, mut tpm) = attested();
        if steps {
            log.append(Body::NvCounter(tpm.intent()));
            let step = tpm.step();
            log.append(step);
        }
        let epoch = log.counted_epoch(0x33, crate::record::Succession::Orphan, counter).unwrap();
        log.append(Body::Epoch(epoch));
        let report = check(&log.files().unwrap(), None).unwrap();
        let notes = report.notes.iter().filter(|note| note.name == "orphan_epoch");
        (notes.map(|note| note.text.clone()).collect::<Vec<_>>().concat(), report.findings.is_empty())
    };
    let (counted, in_order) = note(Some(9), true);
    assert!(
        counted.ends_with("the log key vouches for, and a step of the TPM's counter to 9") && in_order,
        "{counted}"
    );
    for (counter, steps) in [(None, true), (Some(8), true), (Some(8), false), (Some(9), false), (None, false)] {
        let (text, in_order) = note(counter, steps);
        assert!(text.ends_with("that only the log key vouches for") && !in_order, "{counter:?} {steps}: {text}");
    }
}

#[test]
fn no_changed_byte_of_an_attestation_passes() {
    let (log, _) = attested();
    let trust = Trust::pin(&check(&log.files().unwrap(), None).unwrap().observed.unwrap());
    // The entry that holds the first anchor, with everything after it written anew by whoever has the keys.
    let entry = log.entries.get(30).unwrap().clone();
    let record = decode(&entry).unwrap();
    let Body::Anchor(anchor) = record.body() else { panic!("entry 30 is an anchor") };
    for at in (0..anchor.attest.as_bytes().len()).step_by(7) {
        let mut bytes = anchor.attest.as_bytes().to_vec();
        *bytes.get_mut(at).unwrap() ^= 0x10;
        let mut forged = Builder::new().unwrap();
        for entry in &log.entries[2..30] {
            forged.append_draft(&decode(entry).unwrap().draft, |_| {});
        }
        let changed = crate::record::Anchor { attest: crate::record::Bytes::owned(bytes), ..anchor.clone() };
        forged.append(Body::Anchor(changed));
        let report = check(&forged.files().unwrap(), Some(&trust)).unwrap();
        let about = |finding: &&Finding| finding.index() == Some(EntryIndex(30));
        let names: Vec<_> = report.findings.iter().filter(about).map(Finding::name).collect();
        assert_eq!(names, ["attestation_forged"], "byte {at}");
        assert_eq!(report.attestation.unwrap().anchors, 0);
    }
}
