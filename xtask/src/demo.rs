//! `cargo xtask demo`.

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// `cargo xtask demo`.
pub(crate) fn run(_workspace: &Workspace) -> Result<bool> {
    bail!("not written yet")
}
