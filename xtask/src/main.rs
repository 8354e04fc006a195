//! Affiant's build, test and demonstration commands: `cargo xtask <command>`.
//!
//! One file per command (`setup`, `build`, `check`, `test`, `vm`, `demo`, `fuzz`, `bench`); beside them `workspace` (where things are),
//! `process` (running other programs with progress and a log each), `dependencies` and `tidy` (two parts of `check`).
//! Continuous integration calls nothing but `cargo xtask test`, so whatever a contributor needs is done here, said before it
//! is done, and done again in seconds.
//!
//! Exit codes: 0 done, 1 something failed, 64 wrong usage, 69 this machine lacks something (the message says what).

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command for people at a terminal")]
#![expect(
    clippy::disallowed_methods,
    reason = "a developer tool: its own elapsed times, its environment, its scratch files"
)]

mod bench;
mod build;
mod check;
mod demo;
mod dependencies;
mod fuzz;
mod process;
mod setup;
mod test;
mod tidy;
mod vm;
mod workspace;

use std::process::ExitCode;

use crate::setup::Missing;
use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <command>

  setup             install what the other commands need (Debian 12 as root), or say what is missing
  build [--release] the eBPF object, then the programs affiant and affiant-verify
  check             formatting, lints on host and BPF code, documentation, dependency rules, file rules
  test              build, check and every test; the last line is `N passed, N failed`
  vm [--kernel NAME]... [--scenario NAME]... [--long]
                    other kernels in emulated machines, some with a TPM: a line for each kernel, boot variant and scenario
  demo              a real notebook under the agent: its timeline, the verdict, one flipped byte, the finding
  fuzz [--minutes M] [--jobs N] [TARGET...]
                    every decoder against inputs that nobody thought of; needs a nightly compiler
  bench             costs as ratios to the same work without the agent, in one run

Every command that needs setup does it first. Logs of each step: target/xtask-logs/.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let workspace = match Workspace::locate() {
        Ok(workspace) => workspace,
        Err(error) => return report(&error),
    };
    let outcome = match arguments.as_slice() {
        ["setup"] => setup::run(&workspace),
        ["build"] => build::run(&workspace, build::Profile::Dev),
        ["build", "--release"] => build::run(&workspace, build::Profile::Release),
        ["check"] => check::run(&workspace),
        ["test"] => test::run(&workspace),
        ["vm", rest @ ..] => vm::run(&workspace, rest),
        ["demo"] => demo::run(&workspace),
        ["fuzz", rest @ ..] => fuzz::run(&workspace, rest),
        ["bench", rest @ ..] => bench::run(&workspace, rest),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => report(&error),
    }
}

/// Prints an error with its causes and chooses the exit code: 69 when the machine lacks something, else 1.
fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("xtask: {error:#}");
    if error.downcast_ref::<Missing>().is_some() { ExitCode::from(69) } else { ExitCode::FAILURE }
}
