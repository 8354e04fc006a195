//! Paths and entry bundles of a tiles directory, as C2SP tlog-tiles specifies them. Pure: names and bytes only.

#![forbid(unsafe_code)]

use crate::record::TreeSize;
use crate::tree::{NodeHash, TILE_HEIGHT, TILE_WIDTH};

/// Largest entry, in bytes: its length is a 16-bit number in a bundle.
pub const ENTRY_BYTES_MAX: usize = 65_535;
/// Largest full bundle, in bytes.
pub const BUNDLE_BYTES_MAX: usize = TILE_WIDTH * (2 + ENTRY_BYTES_MAX);
/// Bytes of a full tile.
pub const TILE_BYTES: usize = TILE_WIDTH * 32;
/// Highest tile level (a tree of 2^63 entries needs eight).
pub const LEVEL_MAX: u32 = 63;

/// What a file of the directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TileKind {
    /// Hashes of one tile level.
    Hashes {
        /// Tile level, 0 for leaf hashes.
        level: u32,
    },
    /// Entries.
    Entries,
}

/// One file below `tile/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TilePath {
    /// Hashes or entries.
    pub kind: TileKind,
    /// Number within the level.
    pub number: u64,
    /// How many hashes or entries: 256 for a full one, less for a partial one.
    pub width: u16,
}

/// Why a path or a bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TilesError {
    /// Not a path that the specification allows.
    #[error("{0:?} is not the path of a tile")]
    Path(String),
    /// A tile's size is not a multiple of a hash, or not what its name says.
    #[error("a tile of {seen} bytes, expected {expected}")]
    TileSize {
        /// Bytes expected.
        expected: usize,
        /// Bytes seen.
        seen: usize,
    },
    /// A bundle ends inside an entry.
    #[error("the bundle ends at byte {at} inside entry {entry} of the bundle")]
    BundleCut {
        /// Offset at which bytes were missing.
        at: usize,
        /// Which entry of the bundle, from 0.
        entry: usize,
    },
    /// A bundle has another number of entries than its name says.
    #[error("the bundle has {seen} entries, expected {expected}")]
    BundleCount {
        /// Entries expected.
        expected: usize,
        /// Entries seen (or one more than expected).
        seen: usize,
    },
}

/// The path of the sidecar of a bundle, relative to the log's directory.
#[must_use]
pub fn sidecar_path(bundle: u64) -> String {
    format!("sidecar/{}", number_path(bundle))
}

impl TilePath {
    /// The path relative to the log's directory, beginning with `tile/`.
    #[must_use]
    pub fn path(&self) -> String {
        let kind = match self.kind {
            TileKind::Hashes { level } => level.to_string(),
            TileKind::Entries => "entries".to_owned(),
        };
        let partial = if usize::from(self.width) < TILE_WIDTH { format!(".p/{}", self.width) } else { String::new() };
        format!("tile/{kind}/{}{partial}", number_path(self.number))
    }

    /// Reads a path relative to the log's directory; the only form accepted is the one [`TilePath::path`] writes.
    ///
    /// # Errors
    /// [`TilesError::Path`].
    pub fn parse(path: &str) -> Result<Self, TilesError> {
        Self::parse_loosely(path)
            .filter(|parsed| parsed.path() == path)
            .ok_or_else(|| TilesError::Path(path.chars().take(256).collect()))
    }

    fn parse_loosely(path: &str) -> Option<Self> {
        // 20 digits in groups of three with their marks, the level and the width are below 64 bytes.
        if path.len() > 64 {
            return None;
        }
        let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let kind = if kind == "entries" {
            TileKind::Entries
        } else {
            TileKind::Hashes { level: kind.parse().ok().filter(|level| *level <= LEVEL_MAX)? }
        };
        let (groups, width) = match rest.split_once(".p/") {
            Some((groups, width)) => {
                (groups, width.parse::<u16>().ok().filter(|w| (1..TILE_WIDTH).contains(&usize::from(*w)))?)
            }
            None => (rest, u16::try_from(TILE_WIDTH).ok()?),
        };
        let mut number = 0_u64;
        for group in groups.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            number = number.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        Some(Self { kind, number, width })
    }

    /// Whether a tree of this size has this tile with at least this width.
    #[must_use]
    pub fn is_within(&self, size: TreeSize) -> bool {
        let level = match self.kind {
            TileKind::Hashes { level } => level,
            TileKind::Entries => 0,
        };
        let in_level = hashes_in_level(size, level);
        self.number
            .checked_mul(TILE_WIDTH as u64)
            .and_then(|first| first.checked_add(u64::from(self.width)))
            .is_some_and(|past| past <= in_level)
    }
}

/// A number as paths spell it: groups of three digits, all but the last with an `x` before them.
#[must_use]
pub fn number_path(number: u64) -> String {
    let mut groups = vec![format!("{:03}", number % 1000)];
    let mut rest = number / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.reverse();
    groups.join("/")
}

/// How many hashes tile level `level` has in a tree of this size.
#[must_use]
pub fn hashes_in_level(size: TreeSize, level: u32) -> u64 {
    size.0.checked_shr(TILE_HEIGHT.saturating_mul(level)).unwrap_or(0)
}

/// The width that tile `number` of `level` has in a tree of this size: 0 when it has none, at most 256.
#[must_use]
pub fn width_in(size: TreeSize, level: u32, number: u64) -> u16 {
    let first = number.saturating_mul(TILE_WIDTH as u64);
    let width = hashes_in_level(size, level).saturating_sub(first).min(TILE_WIDTH as u64);
    u16::try_from(width).unwrap_or(0)
}

/// Appends one entry to a bundle. Entries longer than [`ENTRY_BYTES_MAX`] do not exist: the encoder bounds them.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    let length = u16::try_from(entry.len()).unwrap_or(u16::MAX);
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry.get(..usize::from(length)).unwrap_or(entry));
}

/// The entries of a bundle that must hold exactly `width` of them.
///
/// # Errors
/// [`TilesError::BundleCut`], [`TilesError::BundleCount`].
pub fn entries(bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, TilesError> {
    let expected = usize::from(width);
    let mut entries = Vec::with_capacity(expected);
    let mut rest = bundle;
    while !rest.is_empty() {
        if entries.len() == expected {
            return Err(TilesError::BundleCount { expected, seen: expected + 1 });
        }
        let cut = || TilesError::BundleCut { at: bundle.len(), entry: entries.len() };
        let (length, after) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
        let (entry, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(cut)?;
        entries.push(entry);
        rest = after;
    }
    if entries.len() != expected {
        return Err(TilesError::BundleCount { expected, seen: entries.len() });
    }
    Ok(entries)
}

/// The hashes of a tile that must hold exactly `width` of them.
///
/// # Errors
/// [`TilesError::TileSize`].
pub fn hashes(tile: &[u8], width: u16) -> Result<Vec<NodeHash>, TilesError> {
    let expected = usize::from(width) * 32;
    if tile.len() != expected {
        return Err(TilesError::TileSize { expected, seen: tile.len() });
    }
    Ok(tile.as_chunks::<32>().0.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(kind: TileKind, number: u64) -> TilePath {
        TilePath { kind, number, width: 256 }
    }

    #[test]
    fn the_example_of_the_specification_has_its_path() {
        let tile = full(TileKind::Hashes { level: 3 }, 1_234_067);
        assert_eq!(tile.path(), "tile/3/x001/x234/067");
        assert_eq!(full(TileKind::Entries, 5).path(), "tile/entries/005");
        assert_eq!(TilePath { kind: TileKind::Entries, number: 1000, width: 7 }.path(), "tile/entries/x001/000.p/7");
    }

    #[test]
    fn every_written_path_is_read_back() {
        for number in [0, 1, 999, 1000, 1_234_067, u64::MAX] {
            for width in [1, 255, 256] {
                for kind in [TileKind::Entries, TileKind::Hashes { level: 0 }, TileKind::Hashes { level: 63 }] {
                    let tile = TilePath { kind, number, width };
                    assert_eq!(TilePath::parse(&tile.path()), Ok(tile));
                }
            }
        }
    }

    #[test]
    fn any_other_spelling_is_refused() {
        for path in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/0/1",
            "tile/0/x001",
            "tile/0/001/002",
            "tile/00/001",
            "tile/64/001",
            "tile/+1/001",
            "tile/0/x000/001",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/07",
            "tile/0/001.p/",
            "tile/0/../../etc",
            "tile/entries/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(TilePath::parse(path), Err(TilesError::Path(path.to_owned())));
        }
    }

    #[test]
    fn widths_follow_the_tree_size() {
        let size = TreeSize(70_000);
        assert_eq!(width_in(size, 0, 272), 256);
        assert_eq!(width_in(size, 0, 273), 112);
        assert_eq!(width_in(size, 0, 274), 0);
        assert_eq!(width_in(size, 1, 1), 17);
        assert_eq!(width_in(size, 2, 0), 1);
        assert_eq!(width_in(size, 3, 0), 0);
        assert_eq!(width_in(size, 63, u64::MAX), 0);
    }

    #[test]
    fn a_bundle_gives_its_entries_back_and_nothing_else() {
        let mut bundle = Vec::new();
        push_entry(&mut bundle, b"one");
        push_entry(&mut bundle, b"");
        assert_eq!(entries(&bundle, 2), Ok(vec![b"one".as_slice(), b"".as_slice()]));
        assert_eq!(entries(&bundle, 3), Err(TilesError::BundleCount { expected: 3, seen: 2 }));
        assert_eq!(entries(&bundle, 1), Err(TilesError::BundleCount { expected: 1, seen: 2 }));
        assert_eq!(entries(&bundle[..4], 2), Err(TilesError::BundleCut { at: 4, entry: 0 }));
        assert_eq!(entries(&bundle[..6], 2), Err(TilesError::BundleCut { at: 6, entry: 1 }));
    }

    #[test]
    fn a_tile_of_another_size_is_refused() {
        assert_eq!(hashes(&[0; 64], 2), Ok(vec![[0; 32]; 2]));
        assert_eq!(hashes(&[0; 63], 2), Err(TilesError::TileSize { expected: 64, seen: 63 }));
    }
}
