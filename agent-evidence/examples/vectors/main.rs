//! Writes `tests/vectors`: small logs from fixed seeds, at least one for every finding, each with what a verifier must
//! say of it.
//!
//! `cargo run -p agent-evidence --example vectors -- tests/vectors`. The test `vectors` fails when the directory and
//! this program disagree.

#![forbid(unsafe_code)]

mod cases;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use agent_evidence::trust::Trust;
use agent_evidence::verify::Edge;
use serde_json::json;

use cases::Case;

/// What `expected.json` of a case holds: the findings as the verifier gives them, which the test `vectors` compares with
/// those that the case names.
fn expected(case: &Case) -> String {
    let trust = case.trust.as_deref().map(Trust::parse).transpose();
    let report = match &trust {
        Ok(trust) => case.report(trust.as_ref()).ok(),
        Err(_) => None,
    };
    let findings = || report.iter().flat_map(|report| &report.findings);
    let indexes: Vec<_> = findings().map(|finding| finding.index().map(|index| index.0)).collect();
    let exit = report.as_ref().map_or(2, |report| report.verdict.exit_code());
    let named: Vec<_> = findings().map(|finding| finding.name()).collect();
    if named != case.findings || exit != case.exit {
        complain(&format!("{}: exit {exit}, {named:?}; expected {}, {:?}", case.name, case.exit, case.findings));
    }
    let windows = || report.iter().flat_map(|report| &report.windows.kept);
    let edge = |edge: Edge| edge.index.map(|index| index.0);
    let windows: Vec<_> = windows().map(|w| json!([w.kind.name(), edge(w.from), w.to.and_then(edge)])).collect();
    let mut text = json!({
        "what": case.what, "strict": case.strict, "exit": exit, "findings": named, "indexes": indexes, "windows": windows,
    });
    if let Some(challenge) = case.challenge {
        text["challenge"] = json!(challenge.to_string());
    }
    format!("{text:#}\n")
}

/// Every file of a case, by its name below the case's directory.
fn files(case: &Case) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = case.files.0.iter().map(|(path, bytes)| (format!("log/{path}"), bytes.clone())).collect();
    files.extend(case.bundle.iter().map(|bundle| ("bundle.evb".to_owned(), bundle.clone())));
    files.extend(case.trust.iter().map(|text| ("trust.toml".to_owned(), text.clone().into_bytes())));
    files.push(("expected.json".to_owned(), expected(case).into_bytes()));
    files
}

fn write(directory: &Path, cases: &[Case]) -> io::Result<()> {
    for case in cases {
        let own = directory.join(&case.name);
        if own.exists() {
            fs::remove_dir_all(&own)?;
        }
        for (path, bytes) in files(case) {
            let path = own.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, bytes)?;
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a command says what went wrong")]
fn complain(message: &str) {
    eprintln!("vectors: {message}");
}

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        complain("usage: vectors DIRECTORY");
        return ExitCode::FAILURE;
    };
    let cases = match cases::cases() {
        Ok(cases) => cases,
        Err(error) => {
            complain(&format!("{error:?}"));
            return ExitCode::FAILURE;
        }
    };
    let written = write(Path::new(&directory), &cases)
        .and_then(|()| fs::write(Path::new(&directory).join(cases::ENTRIES_FILE), cases::entries()))
        .and_then(|()| fs::write(Path::new(&directory).join(cases::ADDED_ENTRIES_FILE), cases::added_entries()));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
