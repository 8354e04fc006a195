//! The RFC 6962 Merkle tree over the entries: its hashes, its growth, and proofs about it.
//!
//! [`Tree`] holds the right edge only, so that appending costs one or two hashes and memory does not grow with the
//! log. Proofs are made from stored hashes that the caller looks up. Hash inputs are labeled as RFC 6962, section
//! 2.1 says: 0x00 before an entry, 0x01 before two child hashes.

use sha2::{Digest as _, Sha256};

use crate::record::{EntryIndex, LeafHash, RootHash, TreeSize};
use crate::tiles::{HASH_BYTES, TILE_WIDTH, Tile, TileId};

/// Hash of any node: a leaf hash or that of two children.
pub type NodeHash = [u8; HASH_BYTES];

/// Levels of tiles that a tree below 2^53 entries can have: 7 levels hold 2^56.
const LEVELS_MAX: u8 = 7;

/// `SHA-256(0x00 || entry)`.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> LeafHash {
    LeafHash(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

/// `SHA-256(0x01 || left || right)`.
#[must_use]
pub fn node_hash(left: &NodeHash, right: &NodeHash) -> NodeHash {
    let mut input = [1_u8; 1 + 2 * HASH_BYTES];
    input[1..=HASH_BYTES].copy_from_slice(left);
    input[1 + HASH_BYTES..].copy_from_slice(right);
    Sha256::digest(input).into()
}

/// Root hash of the tree without entries: `SHA-256("")`.
#[must_use]
pub fn empty_root() -> RootHash {
    RootHash(Sha256::digest([]).into())
}

/// Why a tree could not be restored, or a proof does not prove.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A tile has another number of hashes than its place in a tree of this size demands.
    #[error("{tile} has {seen} bytes, expected {expected}")]
    TileLength {
        /// Which.
        tile: TileId,
        /// Bytes found.
        seen: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// The entry is not in the tree, or the smaller tree is not smaller.
    #[error("{inner} is not within a tree of size {size}")]
    OutOfRange {
        /// The index or smaller size.
        inner: u64,
        /// The size of the tree.
        size: u64,
    },
    /// A proof with too many or too few hashes.
    #[error("proof has {seen} hashes, expected {expected}")]
    ProofLength {
        /// Hashes found.
        seen: usize,
        /// Hashes expected.
        expected: usize,
    },
    /// The hashes lead to another root.
    #[error("proof leads to another root hash")]
    RootMismatch,
}

/// A node of the tree whose subtree is perfect: the `index`-th of those with 2^`height` leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Height above the leaves.
    pub height: u32,
    /// Position among the nodes of that height, 0-based.
    pub index: u64,
}

/// A growing tree: the hashes of its right edge.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    size: u64,
    /// Hashes of the perfect subtrees that the tree consists of, the largest (leftmost) first: one per set bit of `size`.
    frontier: Vec<NodeHash>,
    /// Per level of tiles, the bytes of the unfinished tile.
    edge: Vec<Vec<u8>>,
    /// Tiles finished since they were last taken.
    completed: Vec<Tile>,
}

impl Tree {
    /// The tree without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A tree of `size` entries from the unfinished tiles of its right edge, which `load` gives by name as stored
    /// (see [`edge_of`] for which ones). What `load` gives is not verified: compare [`Tree::root`] with a checkpoint.
    ///
    /// # Errors
    /// What `load` returns; [`TreeError::TileLength`] when a tile is too short or too long.
    pub fn restore<E: From<TreeError>>(
        size: TreeSize,
        mut load: impl FnMut(TileId) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let mut tree = Self { size: size.0, ..Self::default() };
        for level in 0..LEVELS_MAX {
            let Some(id) = edge_of(size, level) else {
                tree.edge.push(Vec::new());
                continue;
            };
            let bytes = load(id)?;
            if bytes.len() != id.bytes() {
                return Err(TreeError::TileLength { tile: id, seen: bytes.len(), expected: id.bytes() }.into());
            }
            tree.edge.push(bytes);
        }
        for level in (0..LEVELS_MAX).rev() {
            let bytes = tree.edge.get(usize::from(level)).map(Vec::as_slice).unwrap_or_default();
            let mut rest = bytes;
            let mut width = bytes.len() / HASH_BYTES;
            // The binary digits of the width, highest first, are the perfect subtrees within this tile.
            while width > 0 {
                let leaves = 1 << width.ilog2();
                let (perfect, after) = rest.split_at(leaves * HASH_BYTES);
                tree.frontier.push(perfect_root(perfect));
                rest = after;
                width -= leaves;
            }
        }
        Ok(tree)
    }

    /// How many entries it has.
    #[must_use]
    pub fn size(&self) -> TreeSize {
        TreeSize(self.size)
    }

    /// Adds an entry and gives its index.
    pub fn append(&mut self, leaf: LeafHash) -> EntryIndex {
        let index = self.size;
        self.store(0, &leaf.0);
        let mut hash = leaf.0;
        // Each trailing one bit of the old size is a perfect subtree that this entry completes to a larger one.
        for height in 1..=index.trailing_ones() {
            let Some(left) = self.frontier.pop() else { break };
            hash = node_hash(&left, &hash);
            if height % 8 == 0 {
                self.store(height / 8, &hash);
            }
        }
        self.frontier.push(hash);
        self.size += 1;
        EntryIndex(index)
    }

    fn store(&mut self, level: u32, hash: &NodeHash) {
        let position = usize::try_from(level).unwrap_or(usize::MAX);
        while self.edge.len() <= position {
            self.edge.push(Vec::with_capacity(usize::from(TILE_WIDTH) * HASH_BYTES));
        }
        let Some(bytes) = self.edge.get_mut(position) else { return };
        bytes.extend_from_slice(hash);
        if bytes.len() == usize::from(TILE_WIDTH) * HASH_BYTES {
            let room = Vec::with_capacity(bytes.len());
            let bytes = std::mem::replace(bytes, room);
            let id = TileId { level: u8::try_from(level).unwrap_or(u8::MAX), index: self.size >> (8 * (level + 1)), width: TILE_WIDTH };
            self.completed.push(Tile { id, bytes });
        }
    }

    /// Its root hash.
    #[must_use]
    pub fn root(&self) -> RootHash {
        let mut subtrees = self.frontier.iter().rev();
        let Some(last) = subtrees.next() else { return empty_root() };
        RootHash(subtrees.fold(*last, |right, left| node_hash(left, &right)))
    }

    /// The full tiles finished since the last call, each before the one above it.
    pub fn take_completed(&mut self) -> Vec<Tile> {
        std::mem::take(&mut self.completed)
    }

    /// The unfinished tiles as they stand, lowest level first; empty ones are not among them.
    pub fn edge_tiles(&self) -> impl Iterator<Item = Tile> {
        (0..LEVELS_MAX).filter_map(|level| {
            let id = edge_of(self.size(), level)?;
            let bytes = self.edge.get(usize::from(level))?.clone();
            Some(Tile { id, bytes })
        })
    }
}

/// The unfinished tile of a level in a tree of this size, if there is one.
#[must_use]
pub fn edge_of(size: TreeSize, level: u8) -> Option<TileId> {
    let hashes = size.0.checked_shr(8 * u32::from(level))?;
    let width = u16::try_from(hashes % u64::from(TILE_WIDTH)).ok()?;
    (width > 0).then_some(TileId { level, index: hashes / u64::from(TILE_WIDTH), width })
}

/// Root of a perfect tree over these hashes, whose number is a power of two.
fn perfect_root(hashes: &[u8]) -> NodeHash {
    let mut row: Vec<NodeHash> = hashes.as_chunks::<HASH_BYTES>().0.to_vec();
    while row.len() > 1 {
        row = row.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    row.first().copied().unwrap_or_default()
}

/// The hash that stands above a whole tile.
#[must_use]
pub fn tile_root(full_tile: &[u8]) -> NodeHash {
    perfect_root(full_tile)
}

/// Hash over leaves `start..end` of a tree, where every perfect part of the range starts at a multiple of its size,
/// as the ranges of RFC 6962 do.
fn range_hash<E>(start: u64, end: u64, node: &mut impl FnMut(Node) -> Result<NodeHash, E>) -> Result<NodeHash, E> {
    let mut parts = Vec::new();
    let mut position = start;
    while position < end {
        let height = (end - position).ilog2();
        parts.push(node(Node { height, index: position >> height })?);
        position += 1 << height;
    }
    let mut parts = parts.into_iter().rev();
    let last = parts.next().unwrap_or_default();
    Ok(parts.fold(last, |right, left| node_hash(&left, &right)))
}

/// The inclusion proof of entry `index` in the tree of `size` entries: RFC 6962, section 2.1.1. `node` looks stored
/// hashes up.
///
/// # Errors
/// What `node` returns; [`TreeError::OutOfRange`] when there is no such entry.
pub fn inclusion_proof<E: From<TreeError>>(
    index: EntryIndex,
    size: TreeSize,
    node: &mut impl FnMut(Node) -> Result<NodeHash, E>,
) -> Result<Vec<NodeHash>, E> {
    if index.0 >= size.0 {
        return Err(TreeError::OutOfRange { inner: index.0, size: size.0 }.into());
    }
    let (mut start, mut end) = (0, size.0);
    let mut proof = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index.0 < middle {
            proof.push(range_hash(middle, end, node)?);
            end = middle;
        } else {
            proof.push(range_hash(start, middle, node)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `size` entries begins with the tree of `older` entries: RFC 6962, section 2.1.2.
///
/// # Errors
/// What `node` returns; [`TreeError::OutOfRange`] when `older` is 0 or above `size`.
pub fn consistency_proof<E: From<TreeError>>(
    older: TreeSize,
    size: TreeSize,
    node: &mut impl FnMut(Node) -> Result<NodeHash, E>,
) -> Result<Vec<NodeHash>, E> {
    if older.0 == 0 || older.0 > size.0 {
        return Err(TreeError::OutOfRange { inner: older.0, size: size.0 }.into());
    }
    let (mut start, mut end) = (0, size.0);
    let mut proof = Vec::new();
    // Until the older tree ends where the range ends.
    while older.0 != end {
        let middle = start + split(end - start);
        if older.0 <= middle {
            proof.push(range_hash(middle, end, node)?);
            end = middle;
        } else {
            proof.push(range_hash(start, middle, node)?);
            start = middle;
        }
    }
    // The verifier knows the older root, so it is not sent when it is itself a node.
    if start != 0 {
        proof.push(range_hash(start, end, node)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// Checks an inclusion proof: RFC 9162, section 2.1.3.2.
///
/// # Errors
/// [`TreeError`] says what does not hold.
pub fn verify_inclusion(
    index: EntryIndex,
    size: TreeSize,
    leaf: LeafHash,
    proof: &[NodeHash],
    root: RootHash,
) -> Result<(), TreeError> {
    if index.0 >= size.0 {
        return Err(TreeError::OutOfRange { inner: index.0, size: size.0 });
    }
    let (mut node, mut last) = (index.0, size.0 - 1);
    let mut hash = leaf.0;
    let mut used = 0;
    for sibling in proof {
        if last == 0 {
            return Err(TreeError::ProofLength { seen: proof.len(), expected: used });
        }
        if node % 2 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node % 2 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
        used += 1;
    }
    if last != 0 {
        return Err(TreeError::ProofLength { seen: proof.len(), expected: used + 1 });
    }
    if hash == root.0 { Ok(()) } else { Err(TreeError::RootMismatch) }
}

/// Checks a consistency proof: RFC 9162, section 2.1.4.2. The empty tree is the beginning of every tree.
///
/// # Errors
/// [`TreeError`] says what does not hold.
pub fn verify_consistency(
    older: (TreeSize, RootHash),
    newer: (TreeSize, RootHash),
    proof: &[NodeHash],
) -> Result<(), TreeError> {
    let ((first, first_root), (second, second_root)) = (older, newer);
    if first.0 > second.0 {
        return Err(TreeError::OutOfRange { inner: first.0, size: second.0 });
    }
    if first.0 == 0 || first.0 == second.0 {
        let expected = if first.0 == 0 { empty_root() } else { second_root };
        if !proof.is_empty() {
            return Err(TreeError::ProofLength { seen: proof.len(), expected: 0 });
        }
        return if first_root == expected { Ok(()) } else { Err(TreeError::RootMismatch) };
    }
    let (mut node, mut last) = (first.0 - 1, second.0 - 1);
    while node % 2 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let mut hashes = proof.iter();
    let start = if node == 0 {
        first_root.0
    } else {
        *hashes.next().ok_or(TreeError::ProofLength { seen: 0, expected: 1 })?
    };
    let (mut old_hash, mut new_hash) = (start, start);
    for hash in hashes {
        if last == 0 {
            return Err(TreeError::ProofLength { seen: proof.len(), expected: proof.len() - 1 });
        }
        if node % 2 == 1 || node == last {
            old_hash = node_hash(hash, &old_hash);
            new_hash = node_hash(hash, &new_hash);
            while node % 2 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(TreeError::ProofLength { seen: proof.len(), expected: proof.len() + 1 });
    }
    if old_hash == first_root.0 && new_hash == second_root.0 { Ok(()) } else { Err(TreeError::RootMismatch) }
}

#[cfg(test)]
mod tests;
