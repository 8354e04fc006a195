//! A copy of the log's directory on another disk: whole, checked, and continued where it stopped.
//!
//! Owns the order of the copy: bundles and tiles first, made durable, read back, then the checkpoint. A copy without a
//! checkpoint, or with an older one, is one that was interrupted; the next call goes on from the last checkpoint it has.
//!
//! The tree is computed from the entries that are copied and must have the root that the checkpoint states, so that a
//! damaged source is noticed here and not by whoever needs the copy. Signatures are the verifier's work.
//!
//! Of what the source has pruned, its kept entries are copied. A copy that was made before keeps what it has.
//!
//! Trust: neither directory is. What is copied is what the source says, if it agrees with itself.

use std::collections::BTreeSet;

use agent_evidence::blob::{self, BLOB_BYTES_MAX};
use agent_evidence::checkpoint::{Checkpoint, CheckpointError};
use agent_evidence::kept::{self, Item, KEPT_BYTES_MAX, Kept};
use agent_evidence::note::NOTE_BYTES_MAX;
use agent_evidence::packed::{self, Segment};
use agent_evidence::record::{self, Digest, Kind, LeafHash, TreeSize};
use agent_evidence::tiles::{self, BUNDLE_BYTES_MAX, TileKind, TilePath, TilesError, width_in};
use agent_evidence::tree::{NodeHash, TILE_HEIGHT, TILE_WIDTH, TileView, Tree, TreeError, fold_tile, leaf_hash};
use agent_evidence::verify::{Cold, SIDECAR_BYTES_MAX, Source, SourceError};
use sha2::{Digest as _, Sha256};

use super::disk::Disk;
use super::durable::{Durable, DurableError};
use super::peek::peek;

const WIDTH: u64 = TILE_WIDTH as u64;
const FULL: u16 = 256;
const CHECKPOINT: &str = "checkpoint";

/// Whether packed segments are copied as they are or written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As the source has them.
    AsStored,
    /// As plain bundles and tiles, which any C2SP reader reads.
    Plain,
}

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Entries that the copy had before.
    pub from: TreeSize,
    /// Entries that it has now.
    pub to: TreeSize,
    /// How many entries between were pruned, and are not in the copy.
    pub pruned: u64,
    /// Files written.
    pub files: usize,
}

/// Why a log was not copied. The copy has the checkpoint that it had before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The source could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source has no checkpoint.
    #[error("the source holds no log: it has no checkpoint")]
    NoLog,
    /// A checkpoint is none.
    #[error("the checkpoint of the {whose} is malformed")]
    Checkpoint {
        /// `source` or `copy`.
        whose: &'static str,
        /// What is wrong.
        #[source]
        source: CheckpointError,
    },
    /// The directory holds a copy of another log.
    #[error("the directory holds a copy of the log {copy}, the source is {source_origin}: choose an empty directory")]
    OtherLog {
        /// Origin of the copy.
        copy: String,
        /// Origin of the source.
        source_origin: String,
    },
    /// The copy knows more than the source.
    #[error("the copy has {copy} entries, the source {now}: the source was rolled back or truncated; keep the copy")]
    Ahead {
        /// Size of the copy.
        copy: u64,
        /// Size of the source.
        now: u64,
    },
    /// Copy and source have the same size and different roots.
    #[error("copy and source say different things about the tree of {size} entries: keep the copy")]
    Differs {
        /// The size.
        size: u64,
    },
    /// A bundle of the source is not there.
    #[error("the source has no {path}")]
    Missing {
        /// Its name.
        path: String,
    },
    /// A bundle of the source is damaged.
    #[error("{path} of the source is damaged")]
    Bundle {
        /// Its name.
        path: String,
        /// How.
        #[source]
        source: TilesError,
    },
    /// A blob of the source is not what its name says.
    #[error("{path} of the source has another content than its name says: run `affiant verify`")]
    Blob {
        /// Its name.
        path: String,
    },
    /// The tiles of the copy do not lead on.
    #[error("the copy has lost {path}: choose an empty directory")]
    CopyTile {
        /// Its name.
        path: String,
    },
    /// The tree could not be continued.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The entries are not those that the checkpoint states.
    #[error(
        "the {size} entries of the source do not have the root hash that its checkpoint states, or the copy's earlier ones are not the source's: verify both"
    )]
    Root {
        /// Size of the checkpoint.
        size: u64,
    },
    /// What was written reads back otherwise.
    #[error("{path} reads back otherwise than it was written: this disk cannot be relied on")]
    ReadBack {
        /// Its name.
        path: String,
    },
    /// The disk of the copy failed.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

/// Copies what the newest checkpoint of `source` covers into the directory that `disk` is.
///
/// # Errors
/// [`CopyError`].
pub fn copy<S: Source, D: Disk>(source: &mut S, disk: D, form: Form) -> Result<Copied, CopyError> {
    let mut disk = Durable::new(disk);
    let note = source.read(CHECKPOINT, NOTE_BYTES_MAX)?.ok_or(CopyError::NoLog)?;
    let (checkpoint, _) = parse("source", &note)?;
    let size = checkpoint.size;
    let held = disk.read(CHECKPOINT)?.map(|bytes| parse("copy", &bytes)).transpose()?.map(|(held, _)| held);
    if let Some(held) = &held {
        compare(held, &checkpoint)?;
    }
    let from = held.as_ref().map_or(TreeSize(0), |held| held.size);
    disk.prepare_temp()?;
    let base = from.0 / WIDTH;
    let mut writer = Writer {
        tree: restore(&mut disk, base)?,
        disk: &mut disk,
        written: Vec::new(),
        blobs: BTreeSet::new(),
        pruned: 0,
    };
    let mut segment: Option<(u64, Option<Segment>)> = None;
    let mut kept: Option<(u64, Option<Kept>)> = None;
    for number in base..size.0.div_ceil(WIDTH) {
        let path = TilePath { kind: TileKind::Entries, number, width: width_in(size, 0, number) };
        if let Some((bytes, width)) = plain(source, path)? {
            writer.bundle(path, &bytes, width, true)?;
            continue;
        }
        let bundles = packed::SEGMENT_BUNDLES as u64;
        if segment.as_ref().is_none_or(|(held, _)| *held != number / bundles) {
            let bytes = source.read(&packed::path(number / bundles), packed::SEGMENT_BYTES_MAX)?;
            if let (Form::AsStored, Some(bytes)) = (form, &bytes) {
                writer.place(packed::path(number / bundles), bytes)?;
            }
            segment = Some((number / bundles, bytes.and_then(|bytes| Segment::parse(bytes).ok())));
        }
        let held = segment.as_ref().and_then(|(_, segment)| segment.as_ref());
        let block = usize::try_from(number % bundles).unwrap_or(0);
        let unpacked = held.and_then(|segment| segment.bundle(block).ok().flatten());
        if let Some(unpacked) = unpacked {
            writer.bundle(path, &unpacked.bundle, FULL, form == Form::Plain || path.width < FULL)?;
            continue;
        }
        if kept.as_ref().is_none_or(|(held, _)| *held != number / bundles) {
            let name = kept::path(number / bundles);
            let bytes = source.read(&name, KEPT_BYTES_MAX)?;
            let parsed = bytes.as_deref().and_then(|bytes| Kept::parse(bytes).ok());
            if let (Some(bytes), Some(_)) = (&bytes, &parsed) {
                writer.replace(name, bytes)?;
            }
            kept = Some((number / bundles, parsed));
        }
        let held = kept.as_ref().and_then(|(_, kept)| kept.as_ref());
        let left = held.and_then(|kept| kept.bundle(block)).ok_or_else(|| CopyError::Missing { path: path.path() })?;
        for (_, item) in left.items() {
            writer.item(item)?;
        }
    }
    writer.edge()?;
    // From the beginning each time: what was erased since must not stay in the copy.
    for bundle in 0..size.0.div_ceil(WIDTH) {
        let path = tiles::sidecar_path(bundle);
        let Some(bytes) = source.read(&path, SIDECAR_BYTES_MAX)? else { continue };
        match writer.disk.read(&path)? {
            None => writer.place(path, &bytes)?,
            // The source has pruned the entries behind some lines, the copy has them and needs the lines.
            Some(held) if held != bytes && !is_whole(source, bundle)? && is_whole(&mut Held(writer.disk), bundle)? => {}
            Some(held) if held != bytes => writer.replace(path, &bytes)?,
            Some(_) => {}
        }
    }
    for digest in std::mem::take(&mut writer.blobs) {
        writer.blob(source, &digest)?;
    }
    let Writer { tree, written, pruned, .. } = writer;
    if tree.root() != checkpoint.root {
        return Err(CopyError::Root { size: size.0 });
    }
    disk.start_sync_all()?;
    disk.finish_sync_all(true)?;
    for (path, digest) in &written {
        let same = disk.read(path)?.is_some_and(|bytes| <[u8; 32]>::from(Sha256::digest(bytes)) == *digest);
        if !same {
            return Err(CopyError::ReadBack { path: path.clone() });
        }
    }
    disk.publish(CHECKPOINT, &note)?;
    disk.remove_dir(super::durable::TMP)?;
    Ok(Copied { from, to: size, pruned, files: written.len() + 1 })
}

fn parse(whose: &'static str, bytes: &[u8]) -> Result<(Checkpoint, agent_evidence::note::Note), CopyError> {
    Checkpoint::parse(bytes).map_err(|source| CopyError::Checkpoint { whose, source })
}

fn compare(copy: &Checkpoint, source: &Checkpoint) -> Result<(), CopyError> {
    if copy.origin != source.origin {
        let (copy, source_origin) = (copy.origin.as_str().to_owned(), source.origin.as_str().to_owned());
        return Err(CopyError::OtherLog { copy, source_origin });
    }
    if copy.size > source.size {
        return Err(CopyError::Ahead { copy: copy.size.0, now: source.size.0 });
    }
    if copy.size == source.size && copy.root != source.root {
        return Err(CopyError::Differs { size: copy.size.0 });
    }
    Ok(())
}

/// The bundle as a plain file of this width or the full one.
fn plain<S: Source>(source: &mut S, path: TilePath) -> Result<Option<(Vec<u8>, u16)>, SourceError> {
    if let Some(bytes) = source.read(&path.path(), BUNDLE_BYTES_MAX)? {
        return Ok(Some((bytes, path.width)));
    }
    let full = TilePath { width: FULL, ..path };
    Ok(source.read(&full.path(), BUNDLE_BYTES_MAX)?.map(|bytes| (bytes, FULL)))
}

/// The tree over the first `bundles` bundles of the copy, from its full tiles.
fn restore<D: Disk>(disk: &mut Durable<D>, bundles: u64) -> Result<Tree, CopyError> {
    let mut held = Cold::new(Held(disk));
    Tree::restore(TreeSize(bundles * WIDTH), |level, number, width| {
        let below = level.checked_sub(1).ok_or(TreeError::TileMissing { level, tile: number })?;
        let first = number * WIDTH;
        let roots = (first..first + width as u64).map(|number| {
            let path = TilePath { kind: TileKind::Hashes { level: below }, number, width: FULL }.path();
            let tile = held.read(&path, tiles::TILE_BYTES)?;
            let hashes = tile.and_then(|tile| tiles::hashes(&tile, FULL).ok());
            let root = match hashes.and_then(|hashes| fold_tile(&hashes)) {
                None if below == 0 => held.kept(number)?.and_then(|kept| kept.subtree(TILE_HEIGHT, 0)),
                root => root,
            };
            root.ok_or(CopyError::CopyTile { path })
        });
        roots.collect::<Result<Vec<NodeHash>, CopyError>>()
    })
}

/// Whether a directory has a full bundle, plain or packed.
fn is_whole<S: Source>(source: &mut S, number: u64) -> Result<bool, SourceError> {
    let path = TilePath { kind: TileKind::Entries, number, width: FULL }.path();
    Ok(Cold::new(source).read(&path, BUNDLE_BYTES_MAX)?.is_some())
}

/// The copy as a source.
struct Held<'d, D: Disk>(&'d mut Durable<D>);

impl<D: Disk> Source for Held<'_, D> {
    fn read(&mut self, path: &str, _bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        // Written by an earlier call, by us.
        self.0.read(path).map_err(|error| SourceError { path: path.to_owned(), reason: error.to_string() })
    }
}

struct Writer<'d, D: Disk> {
    disk: &'d mut Durable<D>,
    tree: Tree,
    /// What was written, and its SHA-256.
    written: Vec<(String, [u8; 32])>,
    /// What the entries refer to beside the log.
    blobs: BTreeSet<Digest>,
    /// How many entries the source has no more.
    pruned: u64,
}

impl<D: Disk> Writer<'_, D> {
    fn place(&mut self, path: String, bytes: &[u8]) -> Result<(), CopyError> {
        self.disk.place(&path, bytes)?;
        self.written.push((path, Sha256::digest(bytes).into()));
        Ok(())
    }

    /// Writes a file that the checkpoint that the copy has may need: it must not be lost on the way to the next.
    fn replace(&mut self, path: String, bytes: &[u8]) -> Result<(), CopyError> {
        self.disk.publish(&path, bytes)?;
        self.written.push((path, Sha256::digest(bytes).into()));
        Ok(())
    }

    /// Takes what stands for entries that were pruned into the tree, and writes the tiles above that it completes.
    fn item(&mut self, item: Item<'_>) -> Result<(), CopyError> {
        let (height, hash) = match item {
            Item::Entry(entry) => {
                self.blobs.extend(referred(entry));
                (0, leaf_hash(entry).0)
            }
            Item::Withheld { height, hash } => {
                self.pruned += item.entries() as u64;
                (height, hash)
            }
        };
        let mut full = Vec::new();
        self.tree.append_subtree(height, hash, |tile| {
            if tile.level > 0 {
                full.push(file_of(tile));
            }
        })?;
        for (path, bytes) in full {
            self.place(path, &bytes)?;
        }
        Ok(())
    }

    /// Takes the first `path.width` entries of a bundle into the tree, writes the tiles that they complete, and with
    /// `plain` the bundle and its tile.
    fn bundle(&mut self, path: TilePath, bytes: &[u8], width: u16, plain: bool) -> Result<(), CopyError> {
        let mut entries =
            tiles::entries(bytes, width).map_err(|source| CopyError::Bundle { path: path.path(), source })?;
        entries.truncate(usize::from(path.width));
        if plain {
            let bytes = bytes.get(..entries.iter().map(|entry| 2 + entry.len()).sum()).unwrap_or(bytes);
            self.place(path.path(), bytes)?;
        }
        for entry in entries {
            self.blobs.extend(referred(entry));
            self.leaf(leaf_hash(entry), plain)?;
        }
        Ok(())
    }

    fn leaf(&mut self, leaf: LeafHash, plain: bool) -> Result<(), CopyError> {
        let mut full = Vec::new();
        self.tree.append(leaf, |tile| {
            if plain || tile.level > 0 {
                full.push(file_of(tile));
            }
        });
        for (path, bytes) in full {
            self.place(path, &bytes)?;
        }
        Ok(())
    }

    /// Copies a content, if the source has it.
    fn blob<S: Source>(&mut self, source: &mut S, digest: &Digest) -> Result<(), CopyError> {
        let path = blob::path(digest);
        let Some(content) = source.read(&path, BLOB_BYTES_MAX)? else { return Ok(()) };
        if blob::reference(&content).sha256 != *digest {
            return Err(CopyError::Blob { path });
        }
        // Written once: an entry of the copy's checkpoint may refer to it already.
        if self.disk.read(&path)?.is_none_or(|held| held != content) {
            self.place(path, &content)?;
        }
        Ok(())
    }

    fn edge(&mut self) -> Result<(), CopyError> {
        let edge: Vec<_> = self.tree.partial_tiles().map(file_of).collect();
        for (path, bytes) in edge {
            self.place(path, &bytes)?;
        }
        Ok(())
    }
}

/// The blobs that an entry refers to. Few do, and only those are decoded.
fn referred(entry: &[u8]) -> Vec<Digest> {
    let may = |kind| matches!(kind, Kind::Policy | Kind::AttestationKey | Kind::Measured);
    if !peek(entry).is_some_and(|peek| may(peek.kind)) {
        return Vec::new();
    }
    record::decode(entry).map_or(Vec::new(), |record| record.blobs().map(|blob| blob.sha256).collect())
}

fn file_of(tile: TileView<'_>) -> (String, Vec<u8>) {
    let width = u16::try_from(tile.hashes.len()).unwrap_or(FULL);
    let path = TilePath { kind: TileKind::Hashes { level: tile.level }, number: tile.number, width };
    (path.path(), tile.hashes.as_flattened().to_vec())
}
