//! The tiles directory as it is written: entries into bundles, leaf hashes into tiles.
//!
//! Owns the tree, the bytes of the entries that are not in a full bundle on disk yet, and the names of partial
//! files. What is durable, and when a checkpoint may be signed, is decided in `mod.rs`: nothing here is synced.
//! Every file is put in place whole (temporary file, rename), so that a reader sees all of it or nothing.

use std::ops::Range;

use agent_evidence::record::{LeafHash, RootHash, TreeSize};
use agent_evidence::tiles::{self, TileKind, TilePath};
use agent_evidence::tree::{self, NodeHash, TILE_HEIGHT, TILE_WIDTH, Tree, TreeError};

use super::cold::ColdCache;
use super::disk::Disk;
use super::durable::{Durable, DurableError};
use super::prune::KeptCache;

/// Directory of the log: a C2SP tiles directory.
pub(super) const DIR: &str = "log";
/// Width of a full tile or bundle.
const FULL: u16 = 256;
const WIDTH: u64 = TILE_WIDTH as u64;

/// Why a tree cannot be continued from its full tiles.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestoreError {
    #[error(transparent)]
    Durable(#[from] DurableError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("{path} is missing or not whole")]
    Tile { path: String },
}

/// Holds a bundle that was read, and what makes the next one cheaper.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    cold: ColdCache,
    pub(super) kept: KeptCache,
}

/// The tree and what of it is not on disk yet.
pub(super) struct Tiling {
    tree: Tree,
    /// Entries from `first` on, as a bundle holds them.
    tail: Vec<u8>,
    /// Index of the first entry in `tail`, a multiple of 256.
    first: u64,
    /// Where in `tail` each full bundle ends.
    bundle_ends: Vec<usize>,
    /// Full tiles that are not on disk.
    tiles: Vec<(TilePath, Vec<u8>)>,
    /// Partial files that this process wrote and that are still wanted.
    partials: Vec<TilePath>,
    /// Partial files of an earlier process: perhaps torn, so written again when wanted.
    found: Vec<TilePath>,
}

impl Tiling {
    /// The empty tree.
    pub(super) fn new() -> Self {
        Self::with(Tree::new(), 0)
    }

    fn with(tree: Tree, first: u64) -> Self {
        Self {
            tree,
            tail: Vec::new(),
            first,
            bundle_ends: Vec::new(),
            tiles: Vec::new(),
            partials: Vec::new(),
            found: Vec::new(),
        }
    }

    /// Continues the tree of `size` entries, a multiple of 256, from full tiles only: those are durable.
    pub(super) fn restore<D: Disk>(disk: &mut Durable<D>, size: u64) -> Result<Self, RestoreError> {
        let mut caches = (ColdCache::default(), KeptCache::default());
        let tree = Tree::restore(TreeSize(size), |level, number, width| {
            // Each hash of an incomplete tile stands above a full tile of the level below.
            let below =
                level.checked_sub(1).ok_or(RestoreError::Tree(TreeError::TileMissing { level, tile: number }))?;
            let first = number << TILE_HEIGHT;
            (first..first + width as u64).map(|number| full_tile_root(disk, &mut caches, below, number)).collect()
        })?;
        Ok(Self::with(tree, size))
    }

    /// The hashes of the bundles of a segment of 256, by the tree: of those that are full.
    pub(super) fn bundle_roots<D: Disk>(
        &self,
        disk: &mut Durable<D>,
        segment: u64,
    ) -> Result<Vec<NodeHash>, RestoreError> {
        match self.tree.partial_tiles().find(|tile| tile.level == 1 && tile.number == segment) {
            Some(tile) => Ok(tile.hashes.to_vec()),
            None => full_tile(disk, &mut ColdCache::default(), 1, segment),
        }
    }

    /// How many entries the tree has.
    pub(super) fn size(&self) -> u64 {
        self.tree.size().0
    }

    /// Index of the first entry whose full bundle was not written yet.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The root hash.
    pub(super) fn root(&self) -> RootHash {
        self.tree.root()
    }

    /// The entries from [`Self::first`] on, as bundles hold them.
    pub(super) fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// Appends an entry that `encode` writes, and gives its leaf hash. One that is longer than a bundle can say
    /// is taken back: its length is the error.
    pub(super) fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<LeafHash, usize> {
        let start = self.tail.len();
        self.tail.extend_from_slice(&[0, 0]);
        encode(&mut self.tail);
        let written = self.tail.len() - start - 2;
        let Ok(len) = u16::try_from(written) else {
            self.tail.truncate(start);
            return Err(written);
        };
        self.tail[start..start + 2].copy_from_slice(&len.to_be_bytes());
        let leaf = tree::leaf_hash(&self.tail[start + 2..]);
        let tiles = &mut self.tiles;
        self.tree.append(leaf, |view| {
            let path = TilePath { kind: TileKind::Hashes { level: view.level }, number: view.number, width: FULL };
            tiles.push((path, view.hashes.as_flattened().to_vec()));
        });
        if self.tree.size().0.is_multiple_of(WIDTH) {
            self.bundle_ends.push(self.tail.len());
        }
        Ok(leaf)
    }

    /// Writes every full bundle and tile that is not on disk, and drops them from memory. After
    /// [`DurableError::Full`] what was not written is kept.
    pub(super) fn write_full<D: Disk>(&mut self, disk: &mut Durable<D>) -> Result<(), DurableError> {
        let mut written = 0;
        let mut start = 0;
        let mut outcome = Ok(());
        for end in &self.bundle_ends {
            let path = TilePath { kind: TileKind::Entries, number: self.first / WIDTH + written as u64, width: FULL };
            outcome = disk.place(&in_log(path), &self.tail[start..*end]);
            if outcome.is_err() {
                break;
            }
            written += 1;
            start = *end;
        }
        if written > 0 {
            self.bundle_ends.drain(..written);
            for end in &mut self.bundle_ends {
                *end -= start;
            }
            self.tail.drain(..start);
            self.first += written as u64 * WIDTH;
        }
        outcome?;
        while let Some((path, bytes)) = self.tiles.first() {
            disk.place(&in_log(*path), bytes)?;
            self.tiles.remove(0);
        }
        Ok(())
    }

    /// Writes the partial bundle and tiles of the present size. Every full one must be on disk.
    pub(super) fn write_partials<D: Disk>(&mut self, disk: &mut Durable<D>) -> Result<(), DurableError> {
        let size = self.tree.size();
        let width = tiles::width_in(size, 0, size.0 / WIDTH);
        if width > 0 {
            let path = TilePath { kind: TileKind::Entries, number: size.0 / WIDTH, width };
            place_partial(disk, &mut self.partials, path, &self.tail)?;
        }
        for view in self.tree.partial_tiles() {
            let width = u16::try_from(view.hashes.len()).unwrap_or(FULL);
            let path = TilePath { kind: TileKind::Hashes { level: view.level }, number: view.number, width };
            place_partial(disk, &mut self.partials, path, view.hashes.as_flattened())?;
        }
        Ok(())
    }

    /// Removes the partial files whose full ones a visible checkpoint of `size` covers. Until then every partial
    /// file that a checkpoint needed stays (C2SP tlog-tiles).
    pub(super) fn remove_partials<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        size: TreeSize,
    ) -> Result<(), DurableError> {
        let is_full = |path: &TilePath| TilePath { width: FULL, ..*path }.is_within(size);
        let mut obsolete: Vec<TilePath> = Vec::new();
        for list in [&mut self.partials, &mut self.found] {
            obsolete.extend(list.iter().filter(|path| is_full(path)));
            list.retain(|path| !is_full(path));
        }
        let mut dirs: Vec<String> = Vec::new();
        for path in obsolete {
            let path = in_log(path);
            disk.remove(&path)?;
            if let Some((dir, _)) = path.rsplit_once('/')
                && !dirs.iter().any(|known| known == dir)
            {
                dirs.push(dir.to_owned());
            }
        }
        for dir in dirs {
            disk.remove_dir(&dir)?;
        }
        Ok(())
    }

    /// Looks for partial files that an earlier process left for tiles from entry `from` on.
    pub(super) fn find_partials<D: Disk>(&mut self, disk: &mut Durable<D>, from: u64) -> Result<(), DurableError> {
        let size = self.size();
        let mut level = 0_u32;
        while level == 0 || size >> (TILE_HEIGHT * level) > 0 {
            let shift = TILE_HEIGHT * (level + 1);
            // One earlier: its partial files may have outlived the checkpoint that made it full.
            for number in (from >> shift).saturating_sub(1)..=(size >> shift) {
                let kinds = [TileKind::Hashes { level }, TileKind::Entries];
                for kind in kinds.into_iter().take(if level == 0 { 2 } else { 1 }) {
                    let any = in_log(TilePath { kind, number, width: 1 });
                    let Some((dir, _)) = any.rsplit_once('/') else { continue };
                    for name in disk.list(dir)? {
                        if let Ok(width @ 1..FULL) = name.parse() {
                            self.found.push(TilePath { kind, number, width });
                        }
                    }
                }
            }
            level += 1;
        }
        Ok(())
    }

    /// Reads the whole bundle that holds entry `number * 256`, if it is not in memory. `false` when it is not on the
    /// disk: pruned, or missing.
    pub(super) fn fill<D: Disk>(
        &self,
        disk: &mut Durable<D>,
        number: u64,
        buffer: &mut Buffer,
    ) -> Result<bool, DurableError> {
        if number * WIDTH >= self.first {
            return Ok(true);
        }
        let path = in_log(TilePath { kind: TileKind::Entries, number, width: FULL });
        buffer.bytes = match disk.read(&path)? {
            Some(bytes) => bytes,
            None => match buffer.cold.bundle(disk, number)? {
                Some(unpacked) => unpacked.bundle,
                None => return Ok(false),
            },
        };
        Ok(true)
    }

    /// The bytes of the bundle that [`Self::fill`] was asked for, and the index after its last entry. `None` when the
    /// tree has no such bundle.
    pub(super) fn filled<'a>(&'a self, number: u64, buffer: &'a Buffer) -> Option<(&'a [u8], u64)> {
        let first = number * WIDTH;
        if first < self.first {
            return Some((&buffer.bytes, first + WIDTH));
        }
        self.in_tail(number).map(|range| (&self.tail[range], (first + WIDTH).min(self.size())))
    }

    fn in_tail(&self, number: u64) -> Option<Range<usize>> {
        let position = usize::try_from(number.checked_sub(self.first / WIDTH)?).ok()?;
        let start = match position {
            0 => 0,
            _ => *self.bundle_ends.get(position - 1)?,
        };
        let end = self.bundle_ends.get(position).copied().unwrap_or(self.tail.len());
        (start < end).then_some(start..end)
    }
}

/// The leaf hashes of a full tile of level 0.
pub(super) fn leaf_hashes<D: Disk>(disk: &mut Durable<D>, number: u64) -> Result<Vec<NodeHash>, RestoreError> {
    full_tile(disk, &mut ColdCache::default(), 0, number)
}

fn full_tile_root<D: Disk>(
    disk: &mut Durable<D>,
    (cold, kept): &mut (ColdCache, KeptCache),
    level: u32,
    number: u64,
) -> Result<NodeHash, RestoreError> {
    let hashes = match full_tile(disk, cold, level, number) {
        // Pruned: its kept file has the hash of each bundle.
        Err(error @ RestoreError::Tile { .. }) if level == 0 => {
            kept.load(disk, number)?;
            return kept.bundle(number).and_then(|bundle| bundle.subtree(TILE_HEIGHT, 0)).ok_or(error);
        }
        hashes => hashes?,
    };
    tree::fold_tile(&hashes).ok_or(RestoreError::Tree(TreeError::TileMissing { level, tile: number }))
}

fn full_tile<D: Disk>(
    disk: &mut Durable<D>,
    cold: &mut ColdCache,
    level: u32,
    number: u64,
) -> Result<Vec<NodeHash>, RestoreError> {
    let path = in_log(TilePath { kind: TileKind::Hashes { level }, number, width: FULL });
    let bytes = match disk.read(&path)? {
        Some(bytes) => bytes,
        None if level == 0 => match cold.bundle(disk, number)? {
            Some(unpacked) => return Ok(unpacked.leaves),
            None => Vec::new(),
        },
        None => Vec::new(),
    };
    tiles::hashes(&bytes, FULL).map_err(|_size| RestoreError::Tile { path })
}

fn place_partial<D: Disk>(
    disk: &mut Durable<D>,
    written: &mut Vec<TilePath>,
    path: TilePath,
    bytes: &[u8],
) -> Result<(), DurableError> {
    if !written.contains(&path) {
        disk.place(&in_log(path), bytes)?;
        written.push(path);
    }
    Ok(())
}

/// The path of a tile in the state directory.
pub(super) fn in_log(path: TilePath) -> String {
    format!("{DIR}/{}", path.path())
}
