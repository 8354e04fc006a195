//! The vectors: what the verifier says of each, that the files in the tree are those that the generator makes, and
//! that every finding has one.

#![forbid(unsafe_code)]

#[path = "../examples/vectors/cases.rs"]
mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use agent_evidence::command::verify_directory;
use agent_evidence::trust::Trust;
use agent_evidence::verify::{Finding, Options};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors")
}

#[test]
fn each_case_gives_exactly_its_findings() {
    let mut wrong = Vec::new();
    for case in cases::cases().unwrap() {
        let trust = case.trust.as_deref().map(Trust::parse).transpose();
        let report = match &trust {
            Ok(trust) => case.report(trust.as_ref()).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let (exit, findings) = match &report {
            Ok(report) => (report.verdict.exit_code(), report.findings.iter().map(Finding::name).collect()),
            Err(_) => (2, Vec::new()),
        };
        if (exit, &findings) != (case.exit, &case.findings) {
            wrong.push(format!("{}: exit {exit}, {findings:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_finding_has_a_vector() {
    let cases = cases::cases().unwrap();
    let provoked: BTreeSet<&str> = cases.iter().flat_map(|case| case.findings.iter().copied()).collect();
    assert_eq!(provoked, Finding::NAMES.iter().copied().collect());
}

fn files_below(directory: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files_below(&path, into)?;
        } else {
            into.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(())
}

#[test]
fn the_files_in_the_tree_are_those_that_the_generator_makes() {
    for case in cases::cases().unwrap() {
        let own = directory().join(&case.name);
        let mut found = BTreeMap::new();
        if case.bundle.is_none() {
            files_below(&own.join("log"), &mut found).unwrap();
        }
        assert!(fs::read(own.join("bundle.evb")).ok() == case.bundle, "{} is stale", case.name);
        let made: BTreeMap<_, _> =
            case.files.0.iter().map(|(path, bytes)| (own.join("log").join(path), bytes.clone())).collect();
        assert!(found == made, "{} is stale: run the example `vectors` on tests/vectors", case.name);
        assert_eq!(fs::read_to_string(own.join("trust.toml")).ok(), case.trust, "{}", case.name);
        let expected: serde_json::Value =
            serde_json::from_slice(&fs::read(own.join("expected.json")).unwrap()).unwrap();
        assert_eq!(expected["exit"], case.exit, "{}", case.name);
        assert_eq!(expected["strict"], case.strict, "{}", case.name);
        assert_eq!(expected["findings"], serde_json::json!(case.findings), "{}", case.name);
    }
}

#[test]
fn entries_of_every_kind_are_those_that_the_generator_makes() {
    let stored = fs::read(directory().join(cases::ENTRIES_FILE)).unwrap();
    assert!(stored == cases::entries(), "{} is stale: run the example `vectors`", cases::ENTRIES_FILE);
}

#[test]
fn a_directory_gives_the_same_verdict_as_the_files_in_memory() {
    let own = directory();
    let log = |name: &str| own.join(name).join("log");
    let trust = own.join("in_order/trust.toml");
    let report = verify_directory(&log("in_order"), Some(&trust), Options::default()).unwrap();
    assert_eq!(report.verdict.exit_code(), 0, "{report}");
    let report = verify_directory(&log("in_order"), None, Options::default()).unwrap();
    assert_eq!(report.verdict.exit_code(), 2);
    assert!(verify_directory(&log("garbage"), Some(&trust), Options::default()).is_err());
    assert!(verify_directory(&own.join("nowhere"), Some(&trust), Options::default()).is_err());
}
