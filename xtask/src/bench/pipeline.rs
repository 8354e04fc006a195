//! User space alone: captured raw events replayed into a durable, sealed log.

use anyhow::Result;

use super::heading;
use crate::workspace::Workspace;

pub(super) fn run(_workspace: &Workspace) -> Result<()> {
    heading("pipeline: captured raw events to a durable, sealed log");
    Ok(())
}
