//! `cargo xtask bench`.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// `cargo xtask bench`.
pub(crate) fn run(_workspace: &Workspace, _arguments: &[&str]) -> Result<bool> {
    bail!("not written yet")
}
