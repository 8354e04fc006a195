//! Proofs: how long the proof of one entry takes over the tiles of a large tree, from files.

use anyhow::{Result, ensure};

use super::heading;
use crate::process::cargo;
use crate::workspace::Workspace;

/// Leaves of the tree: a busy host's entries of some weeks.
const LEAVES: &str = "100000000";

pub(super) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<bool> {
    heading("proof of one entry");
    let leaves = arguments.first().copied().unwrap_or(LEAVES);
    let mut example = cargo();
    example.current_dir(&workspace.root).args([
        "run",
        "--locked",
        "--release",
        "--quiet",
        "--package",
        "agent-evidence",
    ]);
    example.args(["--example", "proof", "--", leaves]).arg(&workspace.target);
    ensure!(example.status()?.success(), "the example `proof` failed");
    Ok(true)
}
