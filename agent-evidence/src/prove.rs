//! Proofs made from a log's directory: of one entry ([`prove`]), and that one size continues another ([`consistency`]).
//!
//! Reads the checkpoint and the tiles that the proof needs (a few kilobytes for each tile level, whatever the size of
//! the log), and for an entry its bundle. It believes what it reads and **verifies one thing**: that what it made
//! holds. So a proof that is returned is one, or nothing is.
//!
//! Safe beside a writer: a partial tile that was replaced by the full one is found under that name.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::{NOTE_BYTES_MAX, Note};
use crate::proof::{Proof, ProofError};
use crate::record::{EntryIndex, RootHash, TreeSize};
use crate::tiles::{self, TileKind, TilePath, TilesError};
use crate::tree::{self, NodeHash, Subtrees, TILE_HEIGHT, TILE_WIDTH, TreeError, fold_tile, inclusion_proof};
use crate::verify::{Cold, Source, SourceError};

/// Why no proof could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// A file could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no checkpoint: not a log, or one that was never sealed.
    #[error("there is no log here: it has no checkpoint")]
    NoCheckpoint,
    /// The checkpoint is none.
    #[error("the checkpoint cannot be used")]
    Checkpoint(#[from] CheckpointError),
    /// The entry is not, or not yet, under a checkpoint.
    #[error("entry {index} is not under the newest checkpoint, which covers {size} entries")]
    NotSealed {
        /// The entry.
        index: u64,
        /// Entries that are.
        size: u64,
    },
    /// A tile or bundle is not there: pruned, or the directory is incomplete.
    #[error("{path} is not there: pruned, or the directory is incomplete")]
    Missing {
        /// Its path.
        path: String,
    },
    /// The entry is not kept any more.
    #[error("entry {index} is pruned: the log has its place and no longer its content")]
    Pruned {
        /// The entry.
        index: u64,
    },
    /// A hash within pruned entries is needed.
    #[error("the hash of {count} entries from {first} on lies within what is pruned")]
    PrunedHash {
        /// First entry of the subtree.
        first: u64,
        /// How many it has.
        count: u64,
    },
    /// A tile or bundle is not what its name says.
    #[error("{path} cannot be used")]
    Malformed {
        /// Its path.
        path: String,
        /// What is wrong with it.
        #[source]
        source: TilesError,
    },
    /// The tree does not give a proof.
    #[error("the tree gives no proof")]
    Tree(#[source] TreeError),
    /// The tiles, the entry and the checkpoint do not agree: the log was altered.
    #[error("what the directory holds does not agree with its checkpoint: run `affiant verify`")]
    Disagrees(#[source] ProofError),
}

/// The proof of one entry under the newest checkpoint, and the entry's bytes.
///
/// # Errors
/// [`ProveError`].
pub fn prove(source: &mut impl Source, index: EntryIndex) -> Result<(Proof, Vec<u8>), ProveError> {
    let note = source.read("checkpoint", NOTE_BYTES_MAX)?.ok_or(ProveError::NoCheckpoint)?;
    let (checkpoint, note) = Checkpoint::parse(&note)?;
    prove_under(source, index, checkpoint, note)
}

/// The proof of one entry under a checkpoint that the caller has, and the entry's bytes.
///
/// # Errors
/// [`ProveError`].
pub fn prove_under(
    source: &mut impl Source,
    index: EntryIndex,
    checkpoint: Checkpoint,
    note: Note,
) -> Result<(Proof, Vec<u8>), ProveError> {
    let size = checkpoint.size;
    if index.0 >= size.0 {
        return Err(ProveError::NotSealed { index: index.0, size: size.0 });
    }
    let mut source = Cold::new(source);
    let entry = entry(&mut source, index, size)?;
    let hashes = inclusion(&mut source, index, size)?;
    let proof = Proof { extra: None, index, hashes, checkpoint, note };
    proof.includes(&entry).map_err(ProveError::Disagrees)?;
    Ok((proof, entry))
}

/// The hashes that prove the entry `index` of a log of `size` entries (RFC 6962, section 2.1.1), without the entry. They are
/// not verified here: who asks for them has the leaf hash and the root, or the one who is to believe them has.
///
/// # Errors
/// [`ProveError`].
pub fn inclusion(source: &mut impl Source, index: EntryIndex, size: TreeSize) -> Result<Vec<NodeHash>, ProveError> {
    let mut source = Cold::new(source);
    let tiles = Tiles::new(&mut source, size);
    tiles.finish(inclusion_proof(&tiles, index, size))
}

/// The proof that a log of `new` entries continues one of `old` (RFC 6962, section 2.1.2). It is not verified here: who
/// asks for it has no root for `old`, or the one who is to believe it has.
///
/// # Errors
/// [`ProveError`].
pub fn consistency(source: &mut impl Source, old: TreeSize, new: TreeSize) -> Result<Vec<NodeHash>, ProveError> {
    let mut source = Cold::new(source);
    let tiles = Tiles::new(&mut source, new);
    tiles.finish(tree::consistency_proof(&tiles, old, new))
}

/// The root hash that the tiles of a tree of `size` entries give for its first `at`.
///
/// # Errors
/// [`ProveError`].
pub fn root(source: &mut impl Source, at: TreeSize, size: TreeSize) -> Result<RootHash, ProveError> {
    if at.0 > size.0 {
        return Err(ProveError::Tree(TreeError::Shrunk { old: at.0, new: size.0 }));
    }
    let mut source = Cold::new(source);
    let tiles = Tiles::new(&mut source, size);
    tiles.finish(tree::root_of(&tiles, at))
}

fn entry<S: Source>(source: &mut Cold<S>, index: EntryIndex, size: TreeSize) -> Result<Vec<u8>, ProveError> {
    let width = TILE_WIDTH as u64;
    let path =
        TilePath { kind: TileKind::Entries, number: index.0 / width, width: tiles::width_in(size, 0, index.0 / width) };
    let place = usize::try_from(index.0 % width).unwrap_or(usize::MAX);
    let (bundle, stored, path) = match read(source, path, tiles::BUNDLE_BYTES_MAX) {
        Err(ProveError::Missing { path }) => {
            let kept = source.kept(index.0 / width)?.ok_or(ProveError::Missing { path })?;
            return kept.entry(place).map(<[u8]>::to_vec).ok_or(ProveError::Pruned { index: index.0 });
        }
        read => read?,
    };
    let malformed = |source| ProveError::Malformed { path: path.path(), source };
    let entries = tiles::entries(&bundle, stored).map_err(malformed)?;
    let seen = entries.len();
    let entry = entries.get(place).copied().map(<[u8]>::to_vec);
    entry.ok_or(ProveError::Malformed {
        path: path.path(),
        source: TilesError::BundleCount { expected: place + 1, seen },
    })
}

/// A tile or bundle of at least this width, with the width that it is stored in.
pub(crate) fn read(
    source: &mut impl Source,
    path: TilePath,
    bytes_max: usize,
) -> Result<(Vec<u8>, u16, TilePath), ProveError> {
    let full = TilePath { width: u16::try_from(TILE_WIDTH).unwrap_or(u16::MAX), ..path };
    for candidate in [path, full] {
        if let Some(bytes) = source.read(&candidate.path(), bytes_max)? {
            return Ok((bytes, candidate.width, candidate));
        }
    }
    Err(ProveError::Missing { path: path.path() })
}

/// Width of a full tile.
const FULL: u16 = 256;

/// Most tiles kept: 512 KiB. A proof needs a few at each level; who needs more goes from left to right.
const TILES_MAX: usize = 64;

/// The tiles of a tree, read as they are needed.
pub(crate) struct Tiles<'s, S> {
    size: TreeSize,
    inner: RefCell<Reading<'s, S>>,
}

struct Reading<'s, S> {
    source: &'s mut Cold<S>,
    /// Tiles by level and number: a proof needs the one at the right edge several times.
    read: HashMap<(u32, u64), Vec<NodeHash>>,
    failed: Option<ProveError>,
}

impl<'s, S: Source> Tiles<'s, S> {
    pub(crate) fn new(source: &'s mut Cold<S>, size: TreeSize) -> Self {
        Self { size, inner: RefCell::new(Reading { source, read: HashMap::new(), failed: None }) }
    }

    /// What was asked for; or why a tile could not be had, which says more than that it could not.
    pub(crate) fn finish<T>(&self, outcome: Result<T, TreeError>) -> Result<T, ProveError> {
        match (outcome, self.inner.borrow_mut().failed.take()) {
            (_, Some(failed)) => Err(failed),
            (outcome, None) => outcome.map_err(ProveError::Tree),
        }
    }
}

/// The hash of the subtree of this height that begins at entry `first`, when its bundle is pruned; else the error with which its
/// tile was not found.
fn pruned_subtree<S: Source>(
    source: &mut Cold<S>,
    (height, first): (u32, u64),
    missing: ProveError,
) -> Result<NodeHash, ProveError> {
    let kept = source.kept(first / TILE_WIDTH as u64)?.ok_or(missing)?;
    let number = usize::try_from((first % TILE_WIDTH as u64) >> height).unwrap_or(usize::MAX);
    kept.subtree(height, number).ok_or(ProveError::PrunedHash { first, count: 1 << height })
}

impl<S: Source> Subtrees for Tiles<'_, S> {
    fn subtree(&self, height: u32, number: u64) -> Result<NodeHash, TreeError> {
        let (level, within) = (height / TILE_HEIGHT, height % TILE_HEIGHT);
        let first = number << within;
        let (tile, position) = (first / TILE_WIDTH as u64, usize::try_from(first % TILE_WIDTH as u64).unwrap_or(0));
        let missing = TreeError::TileMissing { level, tile };
        let mut inner = self.inner.borrow_mut();
        let Reading { source, read: known, failed } = &mut *inner;
        if known.len() >= TILES_MAX && !known.contains_key(&(level, tile)) {
            known.clear();
        }
        if let Entry::Vacant(place) = known.entry((level, tile)) {
            let path = TilePath {
                kind: TileKind::Hashes { level },
                number: tile,
                width: tiles::width_in(self.size, level, tile),
            };
            let hashes = read(*source, path, tiles::TILE_BYTES).and_then(|(bytes, width, path)| {
                tiles::hashes(&bytes, width).map_err(|source| ProveError::Malformed { path: path.path(), source })
            });
            let hashes = match hashes {
                Err(error @ ProveError::Missing { .. }) if level == 0 && path.width == FULL => {
                    match pruned_subtree(*source, (height, first), error) {
                        Ok(hash) => return Ok(hash),
                        Err(error) => Err(error),
                    }
                }
                hashes => hashes,
            };
            match hashes {
                Ok(hashes) => _ = place.insert(hashes),
                Err(error) => {
                    failed.get_or_insert(error);
                    return Err(missing);
                }
            }
        }
        known
            .get(&(level, tile))
            .and_then(|hashes| hashes.get(position..position + (1 << within)))
            .and_then(fold_tile)
            .ok_or(missing)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::note::KeyName;
    use crate::tree::{TileView, Tree, leaf_hash, verify_consistency};

    #[derive(Default)]
    struct Files(BTreeMap<String, Vec<u8>>);

    impl Source for Files {
        fn read(&mut self, path: &str, _bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
            Ok(self.0.get(path).cloned())
        }
    }

    fn bytes_of(index: u64) -> Vec<u8> {
        format!("entry {index}").into_bytes()
    }

    /// A directory of `size` entries as a writer leaves it, and the roots of every size below.
    fn log(size: u64) -> (Files, Vec<RootHash>) {
        let mut files = Files::default();
        let mut tree = Tree::new();
        let mut roots = vec![tree.root()];
        let mut bundle = Vec::new();
        let put = |files: &mut Files, tile: TileView<'_>| {
            let width = u16::try_from(tile.hashes.len()).unwrap();
            let path = TilePath { kind: TileKind::Hashes { level: tile.level }, number: tile.number, width };
            files.0.insert(path.path(), tile.hashes.concat());
        };
        for index in 0..size {
            tiles::push_entry(&mut bundle, &bytes_of(index));
            tree.append(leaf_hash(&bytes_of(index)), |tile| put(&mut files, tile));
            if (index + 1) % 256 == 0 || index + 1 == size {
                let width = u16::try_from(index % 256 + 1).unwrap();
                let path = TilePath { kind: TileKind::Entries, number: index / 256, width };
                files.0.insert(path.path(), std::mem::take(&mut bundle));
            }
            roots.push(tree.root());
        }
        for tile in tree.partial_tiles() {
            put(&mut files, tile);
        }
        let checkpoint =
            Checkpoint { origin: KeyName::new("log.example").unwrap(), size: TreeSize(size), root: tree.root() };
        files.0.insert(
            "checkpoint".into(),
            format!("{}\n\u{2014} log.example AAAAAAE=\n", checkpoint.text()).into_bytes(),
        );
        (files, roots)
    }

    #[test]
    fn every_entry_of_a_log_of_several_tiles_is_proved() {
        let (mut files, _) = log(70_000);
        for index in [0, 1, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999] {
            let (proof, entry) = prove(&mut files, EntryIndex(index)).unwrap();
            assert_eq!(entry, bytes_of(index));
            assert_eq!(Proof::parse(proof.to_text().as_bytes()), Ok(proof));
        }
        assert_eq!(
            prove(&mut files, EntryIndex(70_000)).err(),
            Some(ProveError::NotSealed { index: 70_000, size: 70_000 })
        );
    }

    #[test]
    fn a_log_that_has_grown_proves_its_consistency_from_any_size() {
        let (mut files, roots) = log(1_000);
        let new = TreeSize(1_000);
        for old in (0..=1_000_u64).step_by(37).chain([1, 256, 999, 1_000]) {
            let proof = consistency(&mut files, TreeSize(old), new).unwrap();
            let old_root = roots[usize::try_from(old).unwrap()];
            assert_eq!(verify_consistency((TreeSize(old), old_root), (new, roots[1_000]), &proof), Ok(()), "{old}");
            assert_eq!(root(&mut files, TreeSize(old), new).unwrap(), old_root, "{old}");
        }
    }

    #[test]
    fn a_partial_tile_that_was_replaced_is_found_in_the_full_one() {
        let (mut files, _) = log(512);
        // A writer removes a partial file when the full one is there, and not before.
        let (mut older, _) = log(300);
        older.0.retain(|path, _| !path.ends_with("001.p/44"));
        files.0.extend(older.0);
        let (proof, _) = prove(&mut files, EntryIndex(299)).unwrap();
        assert_eq!(proof.checkpoint.size, TreeSize(300));
    }

    #[test]
    fn what_is_missing_or_altered_is_named_and_gives_no_proof() {
        let (mut files, _) = log(300);
        let tile = files.0.remove("tile/0/001.p/44").unwrap();
        assert_eq!(
            prove(&mut files, EntryIndex(0)).err(),
            Some(ProveError::Missing { path: "tile/0/001.p/44".into() })
        );
        files.0.insert("tile/0/001.p/44".into(), tile[..40].to_vec());
        assert!(
            matches!(prove(&mut files, EntryIndex(0)), Err(ProveError::Malformed { path, .. }) if path == "tile/0/001.p/44")
        );
        let mut altered = tile;
        altered[7] ^= 1;
        files.0.insert("tile/0/001.p/44".into(), altered);
        assert!(matches!(prove(&mut files, EntryIndex(0)), Err(ProveError::Disagrees(_))));
        files.0.remove("checkpoint");
        assert_eq!(prove(&mut files, EntryIndex(0)).err(), Some(ProveError::NoCheckpoint));
    }
}
