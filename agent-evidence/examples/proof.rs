//! How long the proof of one entry takes over the tiles of a large tree: makes the tiles of a tree without entries in a
//! directory of its own, proves entries of it from the files, and removes them.
//!
//! `cargo run --release -p agent-evidence --example proof [LEAVES] [DIRECTORY]`

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark measures time and prints its result")]

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use agent_evidence::command::Directory;
use agent_evidence::prove::inclusion;
use agent_evidence::record::{EntryIndex, LeafHash, TreeSize};
use agent_evidence::tiles::{TILE_BYTES, TileKind, TilePath};
use agent_evidence::tree::{NodeHash, TILE_WIDTH, TileView, Tree, fold_tile, leaf_hash, verify_inclusion};
use agent_evidence::verify::{Source, SourceError};

/// Proofs measured in each way; the median and the longest count.
const PROOFS: u64 = 200;

/// Level-0 tiles that one thread makes at a time.
const TILES_AT_A_TIME: u64 = 1_024;

/// The leaf hash of an entry that says its index.
fn leaf(index: u64) -> LeafHash {
    leaf_hash(&index.to_be_bytes())
}

fn write(place: &Path, tile: TilePath, hashes: &[NodeHash]) -> io::Result<()> {
    fs::write(place.join(tile.path()), hashes.as_flattened())
}

/// Directories of all tiles of one level.
fn make_directories(place: &Path, level: u32, tiles: u64) -> io::Result<()> {
    for thousand in 0..=tiles / 1_000 {
        let path = TilePath { kind: TileKind::Hashes { level }, number: thousand * 1_000, width: 256 }.path();
        if let Some(parent) = place.join(path).parent() {
            fs::create_dir_all(parent)?;
        }
    }
    Ok(())
}

/// Writes the tiles of a tree, and gives the tree.
fn generate(place: &Path, leaves: u64) -> Result<Tree, Box<dyn Error>> {
    let width = TILE_WIDTH as u64;
    let full = leaves / width;
    for (level, tiles) in (0..8).zip(std::iter::successors(Some(full), |tiles| (*tiles > 0).then_some(tiles / width))) {
        make_directories(place, level, tiles)?;
    }
    let next = AtomicU64::new(0);
    // Full level-0 tiles in any order, and the root of each for the levels above.
    let make = || -> io::Result<Vec<(u64, Vec<NodeHash>)>> {
        let mut roots = Vec::new();
        loop {
            let first = next.fetch_add(TILES_AT_A_TIME, Ordering::Relaxed);
            if first >= full {
                return Ok(roots);
            }
            let mut some = Vec::new();
            for number in first..full.min(first + TILES_AT_A_TIME) {
                let hashes: Vec<NodeHash> = (number * width..(number + 1) * width).map(|index| leaf(index).0).collect();
                write(place, TilePath { kind: TileKind::Hashes { level: 0 }, number, width: 256 }, &hashes)?;
                some.extend(fold_tile(&hashes));
            }
            roots.push((first, some));
        }
    };
    let threads = thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let mut roots = thread::scope(|scope| -> Result<Vec<_>, Box<dyn Error>> {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(make)).collect();
        let mut roots = Vec::new();
        for worker in workers {
            roots.extend(worker.join().map_err(|_panic| "a thread panicked")??);
        }
        Ok(roots)
    })?;
    roots.sort_unstable_by_key(|(first, _)| *first);
    let mut tree = Tree::new();
    let mut result = Ok(());
    let mut store = |tile: TileView<'_>| {
        let width = u16::try_from(tile.hashes.len()).unwrap_or(u16::MAX);
        let path = TilePath { kind: TileKind::Hashes { level: tile.level }, number: tile.number, width };
        if tile.level == 0 && usize::from(width) == TILE_WIDTH {
            return;
        }
        let parent = place.join(path.path()).parent().map_or(Ok(()), fs::create_dir_all);
        if let Err(error) = parent.and_then(|()| write(place, path, tile.hashes)) {
            result = Err(error);
        }
    };
    // The hashes of a level-0 tile are in its file already; the tree needs its root.
    let unused = vec![[0; 32]; TILE_WIDTH];
    for root in roots.into_iter().flat_map(|(_, roots)| roots) {
        tree.append_tile(&unused, root, &mut store);
    }
    for index in full * width..leaves {
        tree.append(leaf(index), &mut store);
    }
    tree.partial_tiles().for_each(&mut store);
    result?;
    Ok(tree)
}

/// A source that remembers what was read.
struct Recording(Directory, Vec<String>);

impl Source for Recording {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        let bytes = self.0.read(path, bytes_max)?;
        self.1.extend(bytes.is_some().then(|| path.to_owned()));
        Ok(bytes)
    }
}

/// Asks the kernel to forget what it has of a file.
fn forget(path: &Path) -> io::Result<()> {
    let mut dd = Command::new("dd");
    dd.arg(format!("of={}", path.display())).args([
        "oflag=nocache",
        "conv=notrunc,fdatasync",
        "count=0",
        "status=none",
    ]);
    dd.stdin(Stdio::null()).status().map(drop)
}

struct Times(Vec<Duration>);

impl Times {
    fn print(mut self, what: &str) {
        self.0.sort_unstable();
        let at = |part: usize| self.0.get(self.0.len() * part / 100).or(self.0.last()).copied().unwrap_or_default();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1_000.0;
        println!(
            "  {what:<34} median {:.3} ms, 99 % {:.3} ms, longest {:.3} ms",
            milliseconds(at(50)),
            milliseconds(at(99)),
            milliseconds(self.0.last().copied().unwrap_or_default())
        );
    }
}

fn run(leaves: u64, place: &Path) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let tree = generate(place, leaves)?;
    let took = start.elapsed().as_secs_f64();
    let gigabytes = (leaves / TILE_WIDTH as u64) as f64 * TILE_BYTES as f64 / 1e9;
    println!("  {leaves} leaves, {gigabytes:.2} GB of level-0 tiles made in {took:.1} s");
    let size = TreeSize(leaves);
    let prove = |source: &mut Recording, index: EntryIndex| -> Result<Duration, Box<dyn Error>> {
        source.1.clear();
        let start = Instant::now();
        let proof = inclusion(source, index, size)?;
        verify_inclusion(leaf(index.0), index, size, &proof, tree.root())?;
        Ok(start.elapsed())
    };
    let (mut cold, mut warm, mut files) = (Times(Vec::new()), Times(Vec::new()), 0);
    let mut source = Recording(Directory::open(place)?, Vec::new());
    for number in 0..PROOFS {
        // Spread over the tree, in no order: a prime step.
        let index = EntryIndex(number.wrapping_mul(7_919_000_003) % leaves);
        prove(&mut source, index)?;
        for path in &source.1 {
            forget(&place.join(path))?;
        }
        cold.0.push(prove(&mut source, index)?);
        warm.0.push(prove(&mut source, index)?);
        files += source.1.len();
    }
    println!("  {PROOFS} proofs, made and verified, each from {} files", files / usize::try_from(PROOFS)?);
    cold.print("files out of the kernel's cache");
    warm.print("files in the kernel's cache");
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let leaves = arguments.next().and_then(|leaves| leaves.to_str()?.parse().ok()).filter(|leaves| *leaves > 0);
    let leaves = leaves.unwrap_or(1_000_000);
    let within = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let outcome = tempfile::Builder::new().prefix("tiles-").tempdir_in(within).map_err(Into::into).and_then(|place| {
        let outcome = run(leaves, place.path());
        place.close()?;
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("  proof: {error}");
            ExitCode::FAILURE
        }
    }
}
