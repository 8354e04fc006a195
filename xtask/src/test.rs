//! `cargo xtask test`: everything that shows the tree to work, in one command and one count.
//!
//! Every step runs even when an earlier one failed. The last line of the output is `N passed, N failed` and nothing else: the
//! sum over every test program and every check; a step that fails without saying how many (it did not compile, it crashed)
//! counts as one failure. Privileged tests run here and fail where they cannot run: a test that is skipped shows nothing.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::check::{self, Tally};
use crate::process::{self, Finished, seconds, step};
use crate::setup;
use crate::vm;
use crate::workspace::Workspace;

/// How much of what one failed test said is shown: the panic and what led to it, not a whole log.
const COMPLAINT_LINES_MAX: usize = 30;

/// `cargo xtask test`.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let started = Instant::now();
    let mut tally = Tally::default();
    tally.count(attempt("build eBPF object", build::ebpf(workspace, Profile::Dev)));
    match check::all(workspace) {
        Ok(checks) => tally.add(checks),
        Err(error) => tally.count(attempt("check", Err(error))),
    }
    tally.count(attempt("build programs", build::host(workspace, Profile::Dev)));
    tally.add(unit_tests(workspace)?);
    tally.add(second_reader(workspace)?);
    tally.add(end_to_end_tests(workspace)?);
    match vm::short(workspace) {
        Ok(guests) => tally.add(guests),
        Err(error) => tally.count(attempt("guests", Err(error))),
    }
    println!("all of it in {}", seconds(started.elapsed()));
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// Turns the error of a step that others can go on without into one failure.
fn attempt(name: &str, outcome: Result<()>) -> bool {
    if let Err(error) = &outcome {
        println!("    {name}: {error:#}");
    }
    outcome.is_ok()
}

/// Tests in the source files of every crate, the privileged ones of the agent included.
fn unit_tests(workspace: &Workspace) -> Result<Tally> {
    let mut tests = process::cargo();
    tests
        .current_dir(&workspace.root)
        .args(["test", "--locked", "--no-fail-fast", "--workspace", "--exclude", "agent-ebpf", "--exclude", "tests"])
        .args(["--features", "agent/root"]);
    let finished = step(&workspace.logs(), "unit tests", &mut tests)?;
    let mut tally = counted(&finished)?;
    // The harness of the end-to-end tests has unit tests too; its privileged programs come later, with their own environment.
    let mut tests = process::cargo();
    tests.current_dir(&workspace.root).args(["test", "--locked", "--package", "tests", "--lib"]);
    tally.add(counted(&step(&workspace.logs(), "harness tests", &mut tests)?)?);
    Ok(tally)
}

/// The independent reader, which must agree with the verifier on every vector and on what was written long ago.
fn second_reader(workspace: &Workspace) -> Result<Tally> {
    let mut tally = Tally::default();
    for (step_name, directory) in [("second reader", "tests/vectors"), ("second reader, corpus", "tests/corpus")] {
        let mut reader = Command::new("python3");
        reader.current_dir(&workspace.root).args(["tests/verify.py", "--vectors", directory]);
        tally.add(counted(&step(&workspace.logs(), step_name, &mut reader)?)?);
    }
    Ok(tally)
}

/// The daemon as an operator runs it, with real kernel events.
fn end_to_end_tests(workspace: &Workspace) -> Result<Tally> {
    let mut tests = process::cargo();
    tests.current_dir(&workspace.root).env("AFFIANT_PROGRAMS", workspace.target.join(Profile::Dev.directory())).args([
        "test",
        "--locked",
        "--package",
        "tests",
        "--features",
        "root",
        "--test",
        "e2e",
    ]);
    match setup::python(workspace) {
        Ok(interpreter) => {
            tests.env("AFFIANT_TEST_PYTHON", interpreter);
        }
        Err(error) => println!("    no Python environment: {error:#}"),
    }
    // One at a time: the tests count exact numbers of events, and two cores shared by several daemons only add waiting.
    tests.args(["--", "--test-threads", "1"]);
    counted(&step(&workspace.logs(), "end-to-end tests", &mut tests)?)
}

/// Adds up what the programs of a step said; a failed step that counted no failure is one.
fn counted(finished: &Finished) -> Result<Tally> {
    let output = finished.output()?;
    for line in complaints(&output) {
        println!("    ! {line}");
    }
    let mut tally = results(&output);
    if !finished.success && tally.failed == 0 {
        tally.failed = 1;
    }
    if finished.success && tally == Tally::default() {
        // A step that ran nothing is not a success: a renamed test program must not vanish unseen.
        println!("    no test ran");
        tally.failed = 1;
    }
    println!("    {} passed, {} failed", tally.passed, tally.failed);
    Ok(tally)
}

/// What the tests that failed said, of Rust's test programs: the last lines of a step are those of the last program, which
/// says nothing about a test of an earlier one. At most [`COMPLAINT_LINES_MAX`] lines for each test.
fn complaints(output: &str) -> Vec<&str> {
    let mut shown = Vec::new();
    let mut left = 0_usize;
    for line in output.lines() {
        if line.starts_with("---- ") && (line.ends_with(" stdout ----") || line.ends_with(" stderr ----")) {
            left = COMPLAINT_LINES_MAX;
        } else if line == "failures:" {
            left = 0;
        }
        if left > 0 && !line.trim().is_empty() {
            shown.push(line);
            left -= 1;
        }
    }
    shown
}

/// Reads `test result: ok. 3 passed; 0 failed; ...` of Rust's test programs and `3 passed, 0 failed` of ours.
fn results(output: &str) -> Tally {
    let mut tally = Tally::default();
    for line in output.lines() {
        let line = line.trim();
        if !line.starts_with("test result:") && !line.ends_with(" failed") {
            continue;
        }
        let counts = line.split_once(". ").map_or(line, |(_, counts)| counts);
        for part in counts.split([';', ',']) {
            let mut words = part.split_whitespace();
            if let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) {
                match what {
                    "passed" => tally.passed += count,
                    "failed" => tally.failed += count,
                    _ => {}
                }
            }
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_test_said_is_found_between_the_programs() {
        let output = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nseed 7\n\npanicked at x.rs:3:1\n\n\
                      failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed;\nrunning 1 test\ntest c ... ok\n";
        assert_eq!(complaints(output), ["---- b stdout ----", "seed 7", "panicked at x.rs:3:1"]);
        let long = format!("---- b stdout ----\n{}failures:\n", "said\n".repeat(100));
        assert_eq!(complaints(&long).len(), COMPLAINT_LINES_MAX);
    }

    #[test]
    fn counts_of_both_forms_are_added() {
        let output = "\
running 3 tests
test a ... ok
test b ... FAILED
test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests agent
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s
12 passed, 3 failed
";
        assert_eq!(results(output), Tally { passed: 18, failed: 4 });
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(results("error: could not compile\nthe connection failed\n7 of 9 failed\n"), Tally::default());
    }
}
