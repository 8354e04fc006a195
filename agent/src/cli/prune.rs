//! `affiant log prune`: entries of long ago go for good, and the log says so.
#![forbid(unsafe_code)]

use std::path::Path;

use agent_evidence::record;

use super::args::Since;
use super::clock;
use super::exit::{self, Exit};
use super::output::{Lines as _, Output, complain};
use crate::export::sealed::{BUNDLE_WIDTH, SealedLog};
use crate::session::client::{Client, ClientError};
use crate::session::protocol::{PruneReport, Reply, Request};

/// What is asked for.
#[derive(Debug)]
pub struct Wish {
    /// Where the entries begin that stay.
    pub before: Since,
    /// Why.
    pub reason: String,
    /// Only say what would go.
    pub dry_run: bool,
    /// Print facts as JSON.
    pub json: bool,
}

/// Asks the daemon to prune.
///
/// # Errors
/// No daemon, not root, or nothing can go.
pub fn prune(log: &SealedLog, socket: &Path, wish: Wish, out: &mut Output) -> Result<u8, Exit> {
    let Wish { before, reason, dry_run, json } = wish;
    let before = match before {
        Since::Index(index) => index,
        Since::WallNs(wall_ns) => first_at(log, wall_ns)?,
        Since::AgoNs(ago_ns) => first_at(log, clock::now_ns().saturating_sub(ago_ns))?,
    };
    let request = Request::Prune { before, reason, dry_run };
    let report = match Client::connect(socket)?.patient()?.ask(&request)? {
        Reply::Pruned(report) => report,
        _ => return Err(ClientError::Mismatch.into()),
    };
    if json {
        out.json(&report)?;
        return Ok(0);
    }
    say(&report, before, out)?;
    Ok(0)
}

fn say(report: &PruneReport, asked: u64, out: &mut Output) -> Result<(), Exit> {
    let PruneReport { first, from, gone, kept_by_kind, kept_by_session, kept_by_place, unsent, record } = report;
    let what = match record {
        Some(record) => format!("entries before #{first} are pruned; entry #{record} says so"),
        None => format!("entries before #{first} would be pruned"),
    };
    out.line(&format!("{what}. From #{from} on, where the log was whole:"))?;
    out.line(&format!("  {gone:>12} go"))?;
    out.line(&format!("  {kept_by_kind:>12} stay for what they are: control chain, sessions, workloads, processes"))?;
    out.line(&format!("  {kept_by_session:>12} stay because their session is held or open"))?;
    out.line(&format!("  {kept_by_place:>12} stay so that what follows can be checked"))?;
    if *first < asked {
        out.line(&format!(
            "Asked for was #{asked}; what is after #{first} is still needed, or cannot go without the rest of its \
             segment."
        ))?;
    }
    for sink in unsent {
        complain(&format!("{sink} has not sent all of it; what is pruned it will never send"));
    }
    Ok(())
}

/// The first entry from this time on, by the wall times that the entries state; where those go up and down, one of the
/// places where they pass it.
fn first_at(log: &SealedLog, wall_ns: u64) -> Result<u64, Exit> {
    let size = log.head()?.size;
    let whole = log.pruned(size)?.map_or(0, |pruned| pruned.first);
    let wall_of = |index: u64| -> Result<u64, Exit> {
        let entry = log.entry(index, size)?;
        let missing = || Exit::new(exit::DATA, format!("entry {index} cannot be read; run `affiant verify`"));
        let entry = entry.ok_or_else(missing)?;
        Ok(record::decode(&entry)
            .map_err(|error| Exit::new(exit::DATA, format!("entry {index}: {error}")))?
            .draft
            .wall
            .0)
    };
    // The last bundle that begins before.
    let (mut low, mut high) = (whole / BUNDLE_WIDTH, size.div_ceil(BUNDLE_WIDTH));
    while high.saturating_sub(low) > 1 {
        let middle = low + (high - low) / 2;
        if wall_of(middle * BUNDLE_WIDTH)? < wall_ns { low = middle } else { high = middle }
    }
    let mut first = None;
    let mut end = low * BUNDLE_WIDTH;
    let _pruned = log.each(low * BUNDLE_WIDTH..size.min((low + 1) * BUNDLE_WIDTH), size, |index, entry| {
        end = index + 1;
        if first.is_none() && record::decode(entry).is_ok_and(|record| record.draft.wall.0 >= wall_ns) {
            first = Some(index);
        }
        Ok::<(), Exit>(())
    })?;
    Ok(first.unwrap_or(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_looked_up_in_a_kept_log() {
        let log = SealedLog::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/in_order/log"));
        let size = log.head().unwrap().size;
        let walls: Vec<u64> = (0..size)
            .map(|index| record::decode(&log.entry(index, size).unwrap().unwrap()).unwrap().draft.wall.0)
            .collect();
        for wall_ns in [0, walls[0], walls[5], walls[5] + 1, u64::MAX] {
            let expected = walls.iter().position(|wall| *wall >= wall_ns).unwrap_or(walls.len());
            assert_eq!(first_at(&log, wall_ns).unwrap(), expected as u64, "{wall_ns}");
        }
    }
}
