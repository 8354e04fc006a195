//! The agent's own programs, maps and links, by the kernel's ids, told to the programs so that an act against one of
//! them is marked as such.
//!
//! Ids are never used again while the kernel runs, so one that stays in the map after its object is gone does no harm.
#![forbid(unsafe_code)]

use super::load::{HookReport, ProbeError, map_error, typed};
use super::pins::{MAPS, PinSet};
use agent_common::privilege::ours;
use aya::maps::{HashMap, MapData};

/// Writes the ids of everything in force.
///
/// # Errors
/// When a pinned map cannot be asked for its id, or the table cannot be written.
pub(super) fn tell(pins: &PinSet, hooks: &[HookReport]) -> Result<(), ProbeError> {
    let mut table: HashMap<_, u64, u64> = typed(pins, "OURS", HashMap::try_from)?;
    let mut put = |key: u64| table.insert(key, 1, 0).map_err(|source| map_error("OURS", source));
    for name in MAPS {
        let info = MapData::from_pin(pins.map(name)).and_then(|map| map.info());
        put(ours::MAP | u64::from(info.map_err(|source| map_error(name, source))?.id()))?;
    }
    for hook in hooks {
        put(ours::PROGRAM | u64::from(hook.program_id))?;
        put(ours::LINK | u64::from(hook.link_id))?;
    }
    Ok(())
}
