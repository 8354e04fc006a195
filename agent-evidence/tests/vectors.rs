//! The vectors: what the verifier says of each, that the files in the tree are those that the generator makes, and
//! that every finding has one.

#![forbid(unsafe_code)]

#[path = "../examples/vectors/cases.rs"]
mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use agent_evidence::command::verify_directory;
use agent_evidence::trust::Trust;
use agent_evidence::verify::{Edge, Finding, Options, verify_in_threads};
use serde_json::json;

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
        let challenge = case.challenge.map(|challenge| challenge.to_string());
        assert_eq!(expected.get("challenge").and_then(|text| text.as_str()), challenge.as_deref(), "{}", case.name);
        assert_eq!(expected["findings"], serde_json::json!(case.findings), "{}", case.name);
        assert_eq!(expected["windows"], windows(&case), "{}", case.name);
    }
}

#[test]
fn entries_of_every_kind_are_those_that_the_generator_makes() {
    let stored = fs::read(directory().join(cases::ENTRIES_FILE)).unwrap();
    assert!(stored == cases::entries(), "{} is stale: run the example `vectors`", cases::ENTRIES_FILE);
    let stored = fs::read(directory().join(cases::ADDED_ENTRIES_FILE)).unwrap();
    assert!(stored == cases::added_entries(), "{} is stale: run the example `vectors`", cases::ADDED_ENTRIES_FILE);
}

/// Kind, first and last entry of each window, as `expected.json` has them.
fn windows(case: &cases::Case) -> serde_json::Value {
    let trust = case.trust.as_deref().map(Trust::parse).transpose();
    let report = trust.ok().and_then(|trust| case.report(trust.as_ref()).ok());
    let kept = report.map(|report| report.windows.kept).unwrap_or_default();
    let edge = |edge: Edge| edge.index.map(|index| index.0);
    let rows = kept.iter().map(|window| json!([window.kind.name(), edge(window.from), window.to.and_then(edge)]));
    rows.collect()
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

#[test]
fn the_report_does_not_depend_on_how_many_threads_make_it() {
    for case in cases::cases().unwrap() {
        let Ok(trust) = case.trust.as_deref().map(Trust::parse).transpose() else { continue };
        if case.bundle.is_some() {
            continue;
        }
        let options = Options { strict: case.strict, challenge: case.challenge };
        let report = |threads: usize| {
            let threads = NonZeroUsize::new(threads).unwrap();
            verify_in_threads(&mut case.files.clone(), trust.as_ref(), options, threads)
                .map(|report| (report.to_json(), report.to_string()))
        };
        let alone = report(1);
        for threads in [2, 3, 8] {
            assert_eq!(report(threads), alone, "{}: {threads} threads", case.name);
        }
    }
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_in_the_place_of_a_file_is_not_followed() {
    let own = directory().join("blobs");
    let mut held = BTreeMap::new();
    files_below(&own.join("log"), &mut held).unwrap();
    let names: Vec<_> = held.keys().map(|path| path.strip_prefix(own.join("log")).unwrap().to_owned()).collect();
    assert!(names.len() > 6, "a checkpoint, a bundle, a tile and blobs");
    let copy = tempfile::tempdir().unwrap();
    for name in &names {
        let path = copy.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(own.join("log").join(name), path).unwrap();
    }
    let trust = own.join("trust.toml");
    let verify = || verify_directory(copy.path(), Some(&trust), Options::default());
    assert_eq!(verify().unwrap().verdict.exit_code(), 0);
    for name in &names {
        let path = copy.path().join(name);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(own.join("log").join(name).canonicalize().unwrap(), &path).unwrap();
        let error = verify().unwrap_err().in_full();
        assert!(error.contains(name.to_str().unwrap()) && error.contains("symbolic link"), "{error}");
        fs::remove_file(&path).unwrap();
        fs::copy(own.join("log").join(name), &path).unwrap();
    }
}
