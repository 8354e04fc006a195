//! Pruned logs: each entry that is kept is demanded and proved, bundles are made of sessions that are whole, and no others.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use agent_evidence::bundle::{MakeError, make};
use agent_evidence::fixture::Files;
use agent_evidence::kept::{self, Item, Kept, KeptWriter};
use agent_evidence::proof::Proof;
use agent_evidence::prove::{ProveError, consistency, prove};
use agent_evidence::record::{EntryIndex, TreeSize};
use agent_evidence::tree::{leaf_hash, verify_consistency};
use agent_evidence::trust::Trust;
use agent_evidence::verify::{Claim, Options, Outcome, Report, Verdict, verify, verify_bundle};

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors").join(name)
}

/// The log of a vector, and its trust file.
fn log(name: &str) -> (Files, Trust) {
    let own = vector(name);
    let mut files = Files::default();
    let mut open = vec![own.join("log")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(own.join("log")).unwrap().to_str().unwrap().to_owned();
                files.0.insert(name, fs::read(path).unwrap());
            }
        }
    }
    (files, Trust::parse(&fs::read_to_string(own.join("trust.toml")).unwrap()).unwrap())
}

fn report(files: &Files, trust: &Trust) -> Report {
    verify(&mut files.clone(), Some(trust), Options::default()).unwrap()
}

fn outcome(report: &Report, claim: Claim) -> &Outcome {
    &report.claims.iter().find(|report| report.claim == claim).unwrap().outcome
}

/// The same without one entry of those that are kept.
fn without(files: &Files, bundle: usize, place: usize) -> Files {
    let kept = Kept::parse(&files.0[&kept::path(0)]).unwrap();
    let mut writer = KeptWriter::new();
    for number in 0..kept.bundles() {
        let items = kept.bundle(number).unwrap().items().map(|(at, item)| match item {
            Item::Entry(bytes) if (number, at) == (bundle, place) => {
                Item::Withheld { height: 0, hash: leaf_hash(bytes).0 }
            }
            item => item,
        });
        writer.bundle(items).unwrap();
    }
    let mut files = files.clone();
    files.0.insert(kept::path(0), writer.finish(1).unwrap());
    files
}

/// Bundle, place and bytes of each entry that is kept.
fn entries(files: &Files) -> Vec<(usize, usize, Vec<u8>)> {
    let kept = Kept::parse(&files.0[&kept::path(0)]).unwrap();
    let of = |number| kept.bundle(number).unwrap().items().map(move |(place, item)| (number, place, item));
    let all = (0..kept.bundles()).flat_map(of);
    all.filter_map(|(number, place, item)| match item {
        Item::Entry(bytes) => Some((number, place, bytes.to_vec())),
        Item::Withheld { .. } => None,
    })
    .collect()
}

#[test]
fn no_entry_that_must_be_kept_can_be_left_out() {
    for name in ["pruned", "pruned_held", "pruned_twice"] {
        let (files, trust) = log(name);
        assert_eq!(report(&files, &trust).verdict, Verdict::Proved, "{name}");
        for (bundle, place, _) in entries(&files) {
            let report = report(&without(&files, bundle, place), &trust);
            assert_eq!(report.verdict, Verdict::Findings, "{name} passes without entry {place} of bundle {bundle}");
        }
    }
}

#[test]
fn the_report_says_what_is_gone_and_claims_no_more_than_is_shown() {
    let (files, trust) = log("pruned");
    let report = report(&files, &trust);
    let pruned = report.pruned.clone().unwrap();
    let there = entries(&files).len() as u64;
    assert_eq!((pruned.withheld, pruned.judged), (256 - there, true));
    let (_, first, rule) = pruned.permit.unwrap();
    assert_eq!((first, rule.as_str(), pruned.sessions), (EntryIndex(256), "keep 90 days", 2));
    for (claim, says) in [
        (Claim::Integrity, "which are pruned"),
        (Claim::Coverage, "before entry 240 "),
        (Claim::Sessions, "entries of 2 are pruned"),
    ] {
        let Outcome::Proved(text) = outcome(&report, claim) else { panic!("{report}") };
        assert!(text.contains(says), "{text}");
    }
    // s-1 goes on after the pruned part, s-2 ended in it, of s-3 nothing went.
    let complete: Vec<bool> =
        report.sessions.iter().map(|session| matches!(session.outcome(), Outcome::Proved(_))).collect();
    assert_eq!(complete, [false, false, true], "{report}");
    let text = report.to_string();
    assert!(text.contains("Pruned: ") && text.contains("by rule \"keep 90 days\""), "{text}");
}

#[test]
fn numbers_at_the_edge_are_counted_and_no_loss() {
    let (files, trust) = log("pruned_number_at_edge");
    let report = report(&files, &trust);
    assert_eq!(report.verdict, Verdict::Proved, "{report}");
    // The one that was on its way, and those of entries after it that went.
    assert_eq!(report.pruned.unwrap().numbers, 41);
    assert!(report.notes.iter().any(|note| note.name == "pruned_numbers"));
    assert_eq!((report.losses.events, report.losses.in_flight, report.losses.cut_off), (0, 0, 0));
}

#[test]
fn every_kept_entry_is_proved_and_no_other() {
    let (mut files, trust) = log("pruned_held");
    let kept = entries(&files);
    for index in 0..trust.heads[0].size.0 {
        let known = kept.iter().find(|(bundle, place, _)| (256 * bundle + place) as u64 == index);
        match (prove(&mut files, EntryIndex(index)), known) {
            (Ok((proof, entry)), Some((_, _, bytes))) => {
                assert_eq!(entry, *bytes);
                assert_eq!(Proof::parse(proof.to_text().as_bytes()), Ok(proof));
            }
            (Ok(_), None) => assert!(index >= 256),
            (Err(error), known) => assert_eq!((error, known), (ProveError::Pruned { index }, None)),
        }
    }
}

#[test]
fn a_size_is_shown_to_be_continued_unless_it_is_within_what_is_withheld() {
    let (mut files, trust) = log("pruned");
    let (mut whole, _) = log("pruned_later");
    let head = trust.heads[0];
    let mut hidden = 0;
    for size in 1..head.size.0 {
        let old = TreeSize(size);
        let root = agent_evidence::prove::root(&mut whole, old, head.size).unwrap();
        match consistency(&mut files, old, head.size) {
            Ok(proof) => assert_eq!(verify_consistency((old, root), (head.size, head.root), &proof), Ok(()), "{size}"),
            Err(error) => {
                assert!(matches!(error, ProveError::PrunedHash { .. }), "{size}: {error}");
                hidden += 1;
            }
        }
    }
    assert!((1..256).contains(&hidden), "{hidden}");
}

#[test]
fn the_bundle_of_a_session_that_is_whole_is_the_same_and_of_another_there_is_none() {
    let (mut whole, trust) = log("pruned_later");
    let (mut files, _) = log("pruned_more_kept");
    let mut made = Vec::new();
    for log in [&mut whole, &mut files] {
        let mut bundle = Vec::new();
        make(log, [b"s-2".to_vec()], [TreeSize(256)], &mut bundle).unwrap();
        let report = verify_bundle(bundle.as_slice(), Some(&trust), Options::default()).unwrap();
        assert_eq!(report.verdict, Verdict::Proved, "{report}");
        made.push(bundle);
    }
    assert!(made[0] == made[1]);
    // A head within what is withheld cannot be shown any more, and is left out.
    let heads = [TreeSize(101), TreeSize(256)];
    assert_eq!(make(&mut files, [b"s-2".to_vec()], heads, &mut Vec::new()).unwrap().heads, [TreeSize(256)]);
    let of_pruned = make(&mut files, [b"s-1".to_vec()], [], &mut Vec::new());
    assert!(matches!(&of_pruned, Err(MakeError::Pruned { id }) if id == "s-1"), "{of_pruned:?}");
}
