//! The Merkle tree of RFC 6962, section 2.1: leaf and node hashes, an appendable tree that yields tile hashes,
//! inclusion and consistency proofs.
//!
//! Pure. The appendable [`Tree`] keeps only the right edge: one hash per level and the incomplete tile of each
//! tile level, so a log of any size is continued from a few kilobytes.

#![forbid(unsafe_code)]

use sha2::{Digest as _, Sha256};

use crate::record::{EntryIndex, LeafHash, RootHash, TreeSize};

/// Hashes in a full tile (C2SP tlog-tiles: height 8).
pub const TILE_WIDTH: usize = 256;
/// Tree levels that one tile level spans.
pub const TILE_HEIGHT: u32 = 8;
/// Longest proof that is accepted: one hash per level of a tree of 2^63 entries.
pub const PROOF_LEN_MAX: usize = 63;

/// A hash inside the tree, leaf or node.
pub type NodeHash = [u8; 32];

/// `SHA-256(0x00 || entry)`.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> LeafHash {
    let mut hasher = Sha256::new();
    hasher.update([0x00]);
    hasher.update(entry);
    LeafHash(hasher.finalize().into())
}

/// `SHA-256(0x01 || left || right)`.
#[must_use]
pub fn node_hash(left: &NodeHash, right: &NodeHash) -> NodeHash {
    let mut message = [0_u8; 65];
    message[0] = 0x01;
    message[1..33].copy_from_slice(left);
    message[33..].copy_from_slice(right);
    Sha256::digest(message).into()
}

/// The root of the empty tree: `SHA-256("")`.
#[must_use]
pub fn empty_root() -> RootHash {
    RootHash(Sha256::digest([]).into())
}

/// Why a tree could not be continued, or a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The tile given for a level does not have the width that the tree size asks for.
    #[error(
        "tile level {level} of a tree of {size} entries needs {expected} hashes at its right edge, {seen} were given"
    )]
    EdgeWidth {
        /// Tile level.
        level: u32,
        /// Tree size.
        size: u64,
        /// Hashes wanted.
        expected: usize,
        /// Hashes given.
        seen: usize,
    },
    /// The index is not in the tree.
    #[error("entry {index} is not in a tree of {size} entries")]
    NotInTree {
        /// The index asked for.
        index: u64,
        /// Tree size.
        size: u64,
    },
    /// The older tree is larger than the newer.
    #[error("a tree of {old} entries cannot be a prefix of one of {new}")]
    Shrunk {
        /// Older size.
        old: u64,
        /// Newer size.
        new: u64,
    },
    /// The proof has the wrong number of hashes.
    #[error("the proof has {seen} hashes, {expected} are needed")]
    ProofLength {
        /// Hashes needed.
        expected: usize,
        /// Hashes given.
        seen: usize,
    },
    /// The proof leads to another root.
    #[error("the proof leads to another root hash")]
    RootMismatch,
    /// A subtree was given where none of its height begins.
    #[error("no complete subtree of height {height} begins at entry {size}")]
    Unaligned {
        /// Leaves so far.
        size: u64,
        /// The height given.
        height: u32,
    },
    /// A tile that the proof needs was not available.
    #[error("tile level {level} number {tile} is not available")]
    TileMissing {
        /// Tile level.
        level: u32,
        /// Tile number.
        tile: u64,
    },
}

/// A tile as it stands after an append: its place and its hashes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileView<'a> {
    /// Tile level.
    pub level: u32,
    /// Tile number within the level.
    pub number: u64,
    /// The hashes, 1 to 256.
    pub hashes: &'a [NodeHash],
}

/// The incomplete tile at the right edge of one tile level, with the roots of its complete subtrees.
#[derive(Debug, Clone, Default)]
struct EdgeTile {
    /// Hashes of this tile so far; emptied when it is full.
    hashes: Vec<NodeHash>,
    /// Number of this tile.
    number: u64,
    /// Roots of complete subtrees inside this tile, largest first, with their height within the tile.
    peaks: Vec<(u32, NodeHash)>,
}

impl EdgeTile {
    /// Adds a hash; when this fills the tile, gives the tile's own root.
    fn push(&mut self, hash: NodeHash) -> Option<NodeHash> {
        self.hashes.push(hash);
        self.join(0, hash)
    }

    /// Adds a complete subtree of hashes that are not known, which must begin where one of this height does; when this fills
    /// the tile, gives the tile's own root.
    fn join(&mut self, height: u32, hash: NodeHash) -> Option<NodeHash> {
        let mut top = (height, hash);
        while let Some((height, left)) = self.peaks.last().copied() {
            if height != top.0 {
                break;
            }
            self.peaks.pop();
            top = (height + 1, node_hash(&left, &top.1));
        }
        if top.0 == TILE_HEIGHT {
            return Some(top.1);
        }
        self.peaks.push(top);
        None
    }
}

impl EdgeTile {
    /// The tile is full, and the next begins.
    fn complete(&mut self, level: usize, full: &mut impl FnMut(TileView<'_>)) {
        if self.hashes.len() == TILE_WIDTH {
            let level = u32::try_from(level).unwrap_or(u32::MAX);
            full(TileView { level, number: self.number, hashes: &self.hashes });
        }
        self.hashes.clear();
        self.peaks.clear();
        self.number += 1;
    }
}

/// A tree that grows at its right edge.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    size: u64,
    levels: Vec<EdgeTile>,
}

impl Tree {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Continues a tree of `size` from the incomplete tile of each level; `edge(level, number, width)` gives the
    /// `width` hashes of that tile, 1 to 255. Whether they are the right ones, the caller sees from [`Tree::root`].
    ///
    /// # Errors
    /// [`TreeError::EdgeWidth`] when a tile has another width; whatever `edge` answers.
    pub fn restore<E: From<TreeError>>(
        size: TreeSize,
        mut edge: impl FnMut(u32, u64, usize) -> Result<Vec<NodeHash>, E>,
    ) -> Result<Self, E> {
        let mut levels = Vec::new();
        let mut in_level = size.0;
        let mut level = 0_u32;
        while in_level > 0 {
            let number = in_level >> TILE_HEIGHT;
            let width = usize::try_from(in_level % TILE_WIDTH as u64).unwrap_or(0);
            let mut tile = EdgeTile { number, ..EdgeTile::default() };
            if width > 0 {
                let hashes = edge(level, number, width)?;
                if hashes.len() != width {
                    return Err(
                        TreeError::EdgeWidth { level, size: size.0, expected: width, seen: hashes.len() }.into()
                    );
                }
                for hash in hashes {
                    // A tile of at most 255 hashes never completes.
                    let _incomplete: Option<NodeHash> = tile.push(hash);
                }
            }
            levels.push(tile);
            in_level = number;
            level += 1;
        }
        Ok(Self { size: size.0, levels })
    }

    /// How many entries it has.
    #[must_use]
    pub fn size(&self) -> TreeSize {
        TreeSize(self.size)
    }

    /// Appends an entry and hands every tile that this completes to `full`, lowest level first.
    pub fn append(&mut self, leaf: LeafHash, full: impl FnMut(TileView<'_>)) -> EntryIndex {
        let index = EntryIndex(self.size);
        self.size += 1;
        self.carry(0, leaf.0, full);
        index
    }

    /// Adds a hash to a level, and to those above what becomes complete by it.
    fn carry(&mut self, level: usize, hash: NodeHash, mut full: impl FnMut(TileView<'_>)) {
        let mut carry = Some(hash);
        let mut level = level;
        while let Some(hash) = carry {
            if level == self.levels.len() {
                self.levels.push(EdgeTile { hashes: Vec::with_capacity(TILE_WIDTH), ..EdgeTile::default() });
            }
            let Some(tile) = self.levels.get_mut(level) else { break };
            carry = tile.push(hash);
            if carry.is_some() {
                tile.complete(level, &mut full);
            }
            level += 1;
        }
    }

    /// Appends a complete subtree of `2^height` leaves, at most those of one level-0 tile, of which only the hash is known, and
    /// hands every tile that this completes to `full`, lowest level first; not a level-0 tile of which not every hash is known.
    ///
    /// # Errors
    /// [`TreeError::Unaligned`] when no such subtree begins here, or none that is within one tile.
    pub fn append_subtree(
        &mut self,
        height: u32,
        hash: NodeHash,
        mut full: impl FnMut(TileView<'_>),
    ) -> Result<(), TreeError> {
        let unaligned = TreeError::Unaligned { size: self.size, height };
        if height > TILE_HEIGHT || !self.size.is_multiple_of(1 << height) {
            return Err(unaligned);
        }
        self.size = self.size.checked_add(1 << height).ok_or(unaligned)?;
        if self.levels.is_empty() {
            self.levels.push(EdgeTile::default());
        }
        let Some(lowest) = self.levels.first_mut() else { return Err(unaligned) };
        let root = if height == TILE_HEIGHT { Some(hash) } else { lowest.join(height, hash) };
        if let Some(root) = root {
            lowest.complete(0, &mut full);
            self.carry(1, root, full);
        }
        Ok(())
    }

    /// Appends the leaves of a whole level-0 tile, whose root was computed elsewhere, and hands every tile that this
    /// completes to `full`, lowest level first. The size must be a multiple of [`TILE_WIDTH`], and `leaves` that many;
    /// otherwise nothing is appended and the answer is no.
    pub fn append_tile(&mut self, leaves: &[NodeHash], root: NodeHash, mut full: impl FnMut(TileView<'_>)) -> bool {
        if leaves.len() != TILE_WIDTH || !self.size.is_multiple_of(TILE_WIDTH as u64) {
            return false;
        }
        if self.levels.is_empty() {
            self.levels.push(EdgeTile::default());
        }
        let Some(lowest) = self.levels.first_mut() else { return false };
        full(TileView { level: 0, number: lowest.number, hashes: leaves });
        lowest.number += 1;
        self.size += TILE_WIDTH as u64;
        self.carry(1, root, full);
        true
    }

    /// The incomplete tiles of the right edge, lowest level first: what a checkpoint of this size needs besides
    /// the full tiles.
    pub fn partial_tiles(&self) -> impl Iterator<Item = TileView<'_>> {
        self.levels.iter().enumerate().filter(|(_, tile)| !tile.hashes.is_empty()).map(|(level, tile)| TileView {
            level: u32::try_from(level).unwrap_or(u32::MAX),
            number: tile.number,
            hashes: &tile.hashes,
        })
    }

    /// The root hash at this size.
    #[must_use]
    pub fn root(&self) -> RootHash {
        // RFC 6962: the complete subtrees from the smallest, at the right, to the largest.
        let mut accumulated: Option<NodeHash> = None;
        for tile in &self.levels {
            for (_, peak) in tile.peaks.iter().rev() {
                accumulated = Some(match accumulated {
                    None => *peak,
                    Some(right) => node_hash(peak, &right),
                });
            }
        }
        accumulated.map_or_else(empty_root, RootHash)
    }
}

/// Where the hashes of complete subtrees come from when a proof is made: tiles, usually.
pub trait Subtrees {
    /// The hash of the complete subtree of `2^height` leaves that begins at leaf `number << height`.
    ///
    /// # Errors
    /// [`TreeError::TileMissing`] when it cannot be had.
    fn subtree(&self, height: u32, number: u64) -> Result<NodeHash, TreeError>;
}

/// The subtree hash that a tile's hashes give: `height` counts from the leaves; the tile must be the one that
/// holds the subtree's lowest known level.
#[must_use]
pub fn fold_tile(hashes: &[NodeHash]) -> Option<NodeHash> {
    if !hashes.len().is_power_of_two() {
        return None;
    }
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).filter_map(|pair| Some(node_hash(pair.first()?, pair.get(1)?))).collect();
    }
    row.first().copied()
}

/// Largest power of two that is smaller than `count`, for `count` of at least 2 (RFC 6962, section 2.1).
fn split(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

/// The complete subtrees that the leaves `first..past` divide into, from left to right, each as large as possible: its
/// height and its number among those of this height.
pub fn complete_subtrees(first: u64, past: u64) -> impl Iterator<Item = (u32, u64)> {
    let mut at = first;
    std::iter::from_fn(move || {
        let left = past.checked_sub(at).filter(|left| *left > 0)?;
        let height = if at == 0 { left.ilog2() } else { left.ilog2().min(at.trailing_zeros()) };
        let number = at >> height;
        at += 1 << height;
        Some((height, number))
    })
}

/// A tree of which only complete subtrees are known, put together from left to right.
#[derive(Debug, Clone, Default)]
pub struct Peaks {
    size: u64,
    /// Heights and hashes, largest first.
    peaks: Vec<(u32, NodeHash)>,
}

impl Peaks {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> TreeSize {
        TreeSize(self.size)
    }

    /// Adds the next complete subtree.
    ///
    /// # Errors
    /// [`TreeError::Unaligned`] when no complete subtree of this height begins here.
    pub fn push(&mut self, height: u32, hash: NodeHash) -> Result<(), TreeError> {
        let unaligned = TreeError::Unaligned { size: self.size, height };
        let leaves = 1_u64.checked_shl(height).ok_or(unaligned)?;
        if !self.size.is_multiple_of(leaves) {
            return Err(unaligned);
        }
        self.size = self.size.checked_add(leaves).ok_or(unaligned)?;
        let mut top = (height, hash);
        while let Some((_, left)) = self.peaks.pop_if(|(height, _)| *height == top.0) {
            top = (top.0 + 1, node_hash(&left, &top.1));
        }
        self.peaks.push(top);
        Ok(())
    }

    /// The root hash at this size.
    #[must_use]
    pub fn root(&self) -> RootHash {
        let mut peaks = self.peaks.iter().rev().map(|(_, hash)| *hash);
        let Some(last) = peaks.next() else { return empty_root() };
        RootHash(peaks.fold(last, |right, left| node_hash(&left, &right)))
    }
}

/// The hash of the leaves `first..past`.
fn range_hash(source: &impl Subtrees, first: u64, past: u64) -> Result<NodeHash, TreeError> {
    // Folded from the right: no recursion over input.
    let mut parts = Vec::new();
    for (height, number) in complete_subtrees(first, past) {
        parts.push(source.subtree(height, number)?);
    }
    let mut parts = parts.into_iter().rev();
    let Some(last) = parts.next() else { return Ok(empty_root().0) };
    Ok(parts.fold(last, |right, left| node_hash(&left, &right)))
}

/// The root hash of the first `size` leaves (RFC 6962, section 2.1).
///
/// # Errors
/// What `source` answers.
pub fn root_of(source: &impl Subtrees, size: TreeSize) -> Result<RootHash, TreeError> {
    range_hash(source, 0, size.0).map(RootHash)
}

/// Makes the inclusion proof of `index` in a tree of `size` (RFC 6962, section 2.1.1), leaf sibling first.
///
/// # Errors
/// [`TreeError::NotInTree`], or what `source` answers.
pub fn inclusion_proof(source: &impl Subtrees, index: EntryIndex, size: TreeSize) -> Result<Vec<NodeHash>, TreeError> {
    if index.0 >= size.0 {
        return Err(TreeError::NotInTree { index: index.0, size: size.0 });
    }
    let mut proof = Vec::new();
    let (mut first, mut past) = (0, size.0);
    while past - first > 1 {
        let middle = first + split(past - first);
        if index.0 < middle {
            proof.push(range_hash(source, middle, past)?);
            past = middle;
        } else {
            proof.push(range_hash(source, first, middle)?);
            first = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Checks an inclusion proof (RFC 9162, section 2.1.3.2).
///
/// # Errors
/// [`TreeError::NotInTree`], [`TreeError::ProofLength`], [`TreeError::RootMismatch`].
pub fn verify_inclusion(
    leaf: LeafHash,
    index: EntryIndex,
    size: TreeSize,
    proof: &[NodeHash],
    root: RootHash,
) -> Result<(), TreeError> {
    if index.0 >= size.0 {
        return Err(TreeError::NotInTree { index: index.0, size: size.0 });
    }
    let mut hash = leaf.0;
    let mut left = proof.len();
    let length = || TreeError::ProofLength { expected: inclusion_len(index.0, size.0), seen: proof.len() };
    let (mut node, mut last) = (index.0, size.0 - 1);
    for sibling in proof {
        if last == 0 {
            return Err(length());
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
        left -= 1;
    }
    if last != 0 || left != 0 {
        return Err(length());
    }
    if hash == root.0 { Ok(()) } else { Err(TreeError::RootMismatch) }
}

/// How many hashes an inclusion proof has.
fn inclusion_len(index: u64, size: u64) -> usize {
    let (mut first, mut past, mut count) = (0, size, 0);
    while past - first > 1 {
        let middle = first + split(past - first);
        if index < middle {
            past = middle
        } else {
            first = middle
        }
        count += 1;
    }
    count
}

/// Makes the consistency proof between two sizes (RFC 6962, section 2.1.2).
///
/// # Errors
/// [`TreeError::Shrunk`], or what `source` answers.
pub fn consistency_proof(source: &impl Subtrees, old: TreeSize, new: TreeSize) -> Result<Vec<NodeHash>, TreeError> {
    if old.0 > new.0 {
        return Err(TreeError::Shrunk { old: old.0, new: new.0 });
    }
    if old.0 == 0 || old.0 == new.0 {
        return Ok(Vec::new());
    }
    let mut proof = Vec::new();
    let (mut first, mut past) = (0, new.0);
    let mut whole = true;
    while old.0 != past {
        let middle = first + split(past - first);
        if old.0 <= middle {
            proof.push(range_hash(source, middle, past)?);
            past = middle;
        } else {
            proof.push(range_hash(source, first, middle)?);
            first = middle;
            whole = false;
        }
    }
    if !whole {
        proof.push(range_hash(source, first, past)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks a consistency proof (RFC 9162, section 2.1.4.2).
///
/// # Errors
/// [`TreeError::Shrunk`], [`TreeError::ProofLength`], [`TreeError::RootMismatch`].
pub fn verify_consistency(
    old: (TreeSize, RootHash),
    new: (TreeSize, RootHash),
    proof: &[NodeHash],
) -> Result<(), TreeError> {
    let ((old_size, old_root), (new_size, new_root)) = (old, new);
    if old_size.0 > new_size.0 {
        return Err(TreeError::Shrunk { old: old_size.0, new: new_size.0 });
    }
    let none_needed = old_size.0 == new_size.0 || old_size.0 == 0;
    if none_needed {
        if !proof.is_empty() {
            return Err(TreeError::ProofLength { expected: 0, seen: proof.len() });
        }
        let holds = if old_size.0 == 0 { old_root == empty_root() } else { old_root == new_root };
        return if holds { Ok(()) } else { Err(TreeError::RootMismatch) };
    }
    let (mut node, mut last) = (old_size.0 - 1, new_size.0 - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let too_short = TreeError::ProofLength { expected: proof.len() + 1, seen: proof.len() };
    let mut path = proof.iter();
    let start = if old_size.0.is_power_of_two() { old_root.0 } else { *path.next().ok_or(too_short)? };
    let (mut old_hash, mut new_hash) = (start, start);
    while let Some(sibling) = path.next() {
        if last == 0 {
            return Err(TreeError::ProofLength { expected: proof.len() - path.len() - 1, seen: proof.len() });
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(too_short);
    }
    if old_hash == old_root.0 && new_hash == new_root.0 { Ok(()) } else { Err(TreeError::RootMismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recursive definition of RFC 6962, section 2.1, as the reference for everything above.
    fn reference(leaves: &[NodeHash]) -> NodeHash {
        match leaves {
            [] => empty_root().0,
            [one] => *one,
            _ => {
                let (left, right) = leaves.split_at(usize::try_from(split(leaves.len() as u64)).expect("small"));
                node_hash(&reference(left), &reference(right))
            }
        }
    }

    fn leaves(count: u64) -> Vec<NodeHash> {
        (0..count).map(|i| leaf_hash(&i.to_be_bytes()).0).collect()
    }

    struct Leaves(Vec<NodeHash>);

    impl Subtrees for Leaves {
        fn subtree(&self, height: u32, number: u64) -> Result<NodeHash, TreeError> {
            let first = usize::try_from(number << height).expect("small");
            Ok(reference(&self.0[first..first + (1 << height)]))
        }
    }

    #[test]
    fn subtrees_of_which_only_the_hash_is_known_give_the_same_root_and_upper_tiles() {
        const SIZE: u64 = 256 * 259 + 77;
        let leaves = Leaves(leaves(SIZE));
        let upper = |into: &mut Vec<(u32, u64, Vec<NodeHash>)>, tile: TileView<'_>| {
            if tile.level > 0 {
                into.push((tile.level, tile.number, tile.hashes.to_vec()));
            }
        };
        let (mut whole, mut expected) = (Tree::new(), Vec::new());
        for leaf in &leaves.0 {
            whole.append(LeafHash(*leaf), |tile| upper(&mut expected, tile));
        }
        // Heights in turn, as far as each fits.
        let (mut tree, mut seen) = (Tree::new(), Vec::new());
        let mut turn = 0_u32;
        while tree.size().0 < SIZE {
            let size = tree.size().0;
            let fits = size.trailing_zeros().min((SIZE - size).ilog2()).min(TILE_HEIGHT);
            let height = fits.min(turn % 11);
            turn += 1;
            let hash = leaves.subtree(height, size >> height).expect("within");
            if height == 0 {
                tree.append(LeafHash(hash), |tile| upper(&mut seen, tile));
            } else {
                let whole_tile = |tile: TileView<'_>| {
                    assert_eq!(tile.hashes.len(), TILE_WIDTH, "level {}", tile.level);
                    upper(&mut seen, tile);
                };
                tree.append_subtree(height, hash, whole_tile).expect("aligned");
            }
        }
        assert_eq!((tree.root(), seen), (whole.root(), expected));
        for (height, size) in [(1, 1), (9, 0), (8, 128)] {
            let mut tree = Tree::new();
            (0..size).for_each(|_| _ = tree.append(LeafHash([1; 32]), |_| {}));
            let unaligned = TreeError::Unaligned { size, height };
            assert_eq!(tree.append_subtree(height, [0; 32], |_| {}), Err(unaligned));
            assert_eq!(tree.size().0, size);
        }
    }

    #[test]
    fn the_eight_canonical_leaves_of_certificate_transparency_have_their_published_root() {
        let mut tree = Tree::new();
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        for input in inputs {
            tree.append(leaf_hash(input), |_| ());
        }
        let hex: String = tree.root().0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }

    #[test]
    fn the_growing_tree_has_the_root_of_the_definition_at_every_size() {
        let all = leaves(600);
        let mut tree = Tree::new();
        assert_eq!(tree.root(), empty_root());
        for (i, leaf) in all.iter().enumerate() {
            tree.append(LeafHash(*leaf), |_| ());
            assert_eq!(tree.root().0, reference(&all[..=i]), "size {}", i + 1);
        }
    }

    #[test]
    fn a_tree_of_two_tile_levels_is_restored_from_its_right_edge() {
        let all = leaves(70_000);
        let mut tree = Tree::new();
        let mut tiles = std::collections::HashMap::new();
        for leaf in &all {
            tree.append(LeafHash(*leaf), |tile| {
                assert_eq!(tile.hashes.len(), TILE_WIDTH);
                tiles.insert((tile.level, tile.number), tile.hashes.to_vec());
            });
        }
        // C2SP tlog-tiles: 273 full + a partial of 112; one full + a partial of 17; a partial of 1.
        assert_eq!(tiles.keys().filter(|(level, _)| *level == 0).count(), 273);
        assert_eq!(tiles.keys().filter(|(level, _)| *level == 1).count(), 1);
        let partial: Vec<_> = tree.partial_tiles().map(|t| (t.level, t.number, t.hashes.to_vec())).collect();
        assert_eq!(
            partial.iter().map(|(level, number, hashes)| (*level, *number, hashes.len())).collect::<Vec<_>>(),
            [(0, 273, 112), (1, 1, 17), (2, 0, 1)]
        );
        let mut restored = Tree::restore::<TreeError>(tree.size(), |level, number, width| {
            let (_, _, hashes) =
                partial.iter().find(|(l, n, _)| (*l, *n) == (level, number)).expect("asked for the edge");
            assert_eq!(hashes.len(), width);
            Ok(hashes.clone())
        })
        .expect("the edge is whole");
        assert_eq!(restored.root(), tree.root());
        for i in 0..300_u64 {
            let leaf = leaf_hash(&i.to_le_bytes());
            tree.append(leaf, |_| ());
            restored.append(leaf, |_| ());
            assert_eq!(restored.root(), tree.root());
        }
    }

    #[test]
    fn an_edge_of_the_wrong_width_is_refused() {
        let refused = Tree::restore::<TreeError>(TreeSize(5), |_, _, _| Ok(leaves(4)));
        assert_eq!(refused.err(), Some(TreeError::EdgeWidth { level: 0, size: 5, expected: 5, seen: 4 }));
    }

    #[test]
    fn every_inclusion_proof_holds_and_no_altered_one_does() {
        for size in 1..=40_u64 {
            let source = Leaves(leaves(size));
            let root = RootHash(reference(&source.0));
            for index in 0..size {
                let leaf = LeafHash(source.0[usize::try_from(index).expect("small")]);
                let (at, of) = (EntryIndex(index), TreeSize(size));
                let proof = inclusion_proof(&source, at, of).expect("in the tree");
                assert_eq!(verify_inclusion(leaf, at, of, &proof, root), Ok(()));
                for i in 0..proof.len() {
                    let mut altered = proof.clone();
                    altered[i][0] ^= 1;
                    assert_eq!(verify_inclusion(leaf, at, of, &altered, root), Err(TreeError::RootMismatch));
                    let mut short = proof.clone();
                    short.remove(i);
                    assert!(verify_inclusion(leaf, at, of, &short, root).is_err());
                }
                let mut long = proof.clone();
                long.push([0; 32]);
                assert_eq!(
                    verify_inclusion(leaf, at, of, &long, root),
                    Err(TreeError::ProofLength { expected: proof.len(), seen: proof.len() + 1 })
                );
            }
        }
    }

    #[test]
    fn every_consistency_proof_holds_and_no_altered_one_does() {
        let all = leaves(40);
        let root = |size: u64| RootHash(reference(&all[..usize::try_from(size).expect("small")]));
        for new in 1..=40_u64 {
            let source = Leaves(all[..usize::try_from(new).expect("small")].to_vec());
            for old in 0..=new {
                let proof = consistency_proof(&source, TreeSize(old), TreeSize(new)).expect("a prefix");
                let check = |proof: &[NodeHash]| {
                    verify_consistency((TreeSize(old), root(old)), (TreeSize(new), root(new)), proof)
                };
                assert_eq!(check(&proof), Ok(()), "{old} to {new}");
                for i in 0..proof.len() {
                    let mut altered = proof.clone();
                    altered[i][31] ^= 0x80;
                    assert_eq!(check(&altered), Err(TreeError::RootMismatch));
                    let mut short = proof.clone();
                    short.remove(i);
                    assert!(check(&short).is_err(), "{old} to {new}");
                }
                let mut long = proof.clone();
                long.push([0; 32]);
                assert!(check(&long).is_err(), "{old} to {new}");
            }
        }
        assert_eq!(
            verify_consistency((TreeSize(2), root(2)), (TreeSize(1), root(1)), &[]),
            Err(TreeError::Shrunk { old: 2, new: 1 })
        );
    }
}
