//! `cargo xtask check`: everything that can be said about the code without running it.
//!
//! All parts run even when one fails, so that one round shows every complaint. Warnings fail here and only here: they are the
//! same lints an editor shows, and denying them everywhere would make work in progress impossible.

use anyhow::Result;

use crate::build;
use crate::dependencies;
use crate::process::{self, Color, paint, step};
use crate::setup::{self, EbpfToolchain};
use crate::tidy;
use crate::workspace::Workspace;

/// How many checks passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Checks or tests that hold.
    pub(crate) passed: u64,
    /// Checks or tests that do not, and steps that ended without a count.
    pub(crate) failed: u64,
}

impl Tally {
    /// Counts one verdict.
    pub(crate) fn count(&mut self, holds: bool) {
        if holds {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Adds another tally.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// `cargo xtask check`.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    // The host crates are linted with the object embedded, as they are built: without it another branch would be compiled.
    build::ebpf(workspace, build::Profile::Dev)?;
    let tally = all(workspace)?;
    println!("{} checks passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// Runs every check and counts them.
pub(crate) fn all(workspace: &Workspace) -> Result<Tally> {
    let logs = workspace.logs();
    let mut tally = Tally::default();

    let mut format = process::cargo();
    format.current_dir(&workspace.root).args(["fmt", "--all", "--check"]);
    tally.count(step(&logs, "check formatting", &mut format)?.success);

    let mut clippy = process::cargo();
    clippy
        .current_dir(&workspace.root)
        .args(["clippy", "--locked", "--workspace", "--exclude", "agent-ebpf", "--all-targets"])
        .args(["--features", "agent/root,tests/root", "--", "-D", "warnings"]);
    tally.count(step(&logs, "check host lints", &mut clippy)?.success);

    let toolchain = setup::ebpf(workspace)?;
    let mut clippy = build::ebpf_cargo(workspace, &toolchain, "clippy");
    clippy.args(["--release", "--features", "trace", "--", "-D", "warnings"]);
    // Debian's Clippy is a year's releases apart from the pinned one at most; a lint only one of them knows is not an error.
    if matches!(toolchain, EbpfToolchain::Debian { .. }) {
        clippy.args(["-A", "unknown-lints"]);
    }
    tally.count(step(&logs, "check BPF lints", &mut clippy)?.success);

    // For those who change the code: built with private items, so links to them are wanted.
    let flags = "-D warnings -A rustdoc::private_intra_doc_links";
    let mut documentation = process::cargo();
    documentation.current_dir(&workspace.root).env("RUSTDOCFLAGS", flags).args([
        "doc",
        "--locked",
        "--workspace",
        "--exclude",
        "agent-ebpf",
        "--no-deps",
        "--document-private-items",
    ]);
    tally.count(step(&logs, "check documentation", &mut documentation)?.success);

    let mut tables = process::cargo();
    tables
        .current_dir(&workspace.root)
        .args(["run", "--locked", "--package", "agent-evidence", "--example", "format_tables", "--"])
        .args(["--check", "docs/FORMAT.md"]);
    tally.count(step(&logs, "check format tables", &mut tables)?.success);

    tally.count(complaints("check dependencies", &dependencies::complaints(workspace)?));
    tally.count(complaints("check files", &tidy::complaints(workspace)?));
    Ok(tally)
}

/// Prints what a check of our own found, in the form of a step.
fn complaints(name: &str, found: &[String]) -> bool {
    println!("==> {name}");
    for complaint in found {
        println!("    | {complaint}");
    }
    if found.is_empty() {
        println!("    {}", paint(Color::Green, "done"));
    } else {
        println!("    {}: {} complaints", paint(Color::Red, "failed"), found.len());
    }
    found.is_empty()
}
