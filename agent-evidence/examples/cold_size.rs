//! What the entries of a log take when they are cold: packs each full bundle in memory as the agent does, and prints bytes per
//! entry plain and packed, hashes included in both, and what the entries are.
//!
//! `cargo run --release -p agent-evidence --example cold_size -- LOGDIR`

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a measuring program prints its measurements")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use agent_evidence::checkpoint::Checkpoint;
use agent_evidence::command::Directory;
use agent_evidence::note::NOTE_BYTES_MAX;
use agent_evidence::packed;
use agent_evidence::record::decode;
use agent_evidence::tiles::{BUNDLE_BYTES_MAX, TileKind, TilePath, entries};
use agent_evidence::tree::TILE_WIDTH;
use agent_evidence::verify::{Cold, Source as _};

/// The agent's zlib level if nothing else is configured.
const LEVEL: u8 = 6;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: cold_size LOGDIR")?;
    let mut log = Cold::new(Directory::open(&directory)?);
    let note = log.read("checkpoint", NOTE_BYTES_MAX)?.ok_or("no checkpoint")?;
    let (checkpoint, _) = Checkpoint::parse(&note)?;
    let bundles = checkpoint.size.0 / TILE_WIDTH as u64;
    let width = u16::try_from(TILE_WIDTH)?;
    let (mut plain, mut cold) = (0_u64, 0_u64);
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for number in 0..bundles {
        let path = TilePath { kind: TileKind::Entries, number, width }.path();
        let bundle = log.read(&path, BUNDLE_BYTES_MAX)?.ok_or(path)?;
        for entry in entries(&bundle, width)? {
            *kinds.entry(decode(entry)?.body().kind().as_str()).or_default() += 1;
        }
        // With the level-0 tile that stands beside a plain bundle and not beside a packed one.
        plain += (bundle.len() + 32 * TILE_WIDTH) as u64;
        cold += (packed::pack(&bundle, LEVEL)?.len() + 4) as u64;
    }
    let count = bundles * TILE_WIDTH as u64;
    if count == 0 {
        return Err("the log has no full bundle".into());
    }
    let each = |bytes: u64| format!("{}.{}", bytes / count, bytes * 10 / count % 10);
    println!("{count} entries in full bundles: {} bytes each plain, {} cold (level {LEVEL})", each(plain), each(cold));
    for (kind, seen) in kinds {
        println!("{seen:>9} {kind}");
    }
    Ok(())
}
