//! The corpus: what was written must verify for ever.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use agent_evidence::command::verify_path;
use agent_evidence::record::decode;
use agent_evidence::verify::{Finding, Options};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus")
}

#[test]
fn old_logs_have_the_verdict_that_they_had() {
    let mut seen = 0;
    for entry in fs::read_dir(corpus()).unwrap() {
        let own = entry.unwrap().path();
        let Ok(expected) = fs::read(own.join("expected.json")) else { continue };
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        let bundle = own.join("bundle.evb");
        let log = if bundle.exists() { bundle } else { own.join("log") };
        let trust = own.join("trust.toml");
        let options = Options { strict: expected["strict"] == true, ..Options::default() };
        let report = verify_path(&log, trust.exists().then_some(trust.as_path()), options, None).unwrap();
        let findings: Vec<&str> = report.findings.iter().map(Finding::name).collect();
        let name = own.display();
        assert_eq!(expected["findings"], serde_json::json!(findings), "{name}");
        assert_eq!(expected["exit"], report.verdict.exit_code(), "{name}");
        seen += 1;
    }
    assert!(seen >= 14, "the corpus is not all there: {seen}");
}

#[test]
fn old_entries_of_every_kind_are_read() {
    let entries = fs::read(corpus().join("entries.jsonl")).unwrap();
    for line in entries.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n') {
        let record = decode(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)));
        let mut again = Vec::new();
        record.encode(&mut again);
        assert!(again == line);
    }
}
