//! Files of the log directory: C2SP tlog-tiles v0.1.0, names and contents, both directions.
//!
//! A tile holds up to 256 hashes of one level of the tree, a bundle up to 256 entries. Contents are untrusted until
//! the tree built from them has the root of a verified checkpoint.

use std::fmt;

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

/// Hashes of a full tile, entries of a full bundle.
pub const TILE_WIDTH: u16 = 256;

/// Longest bundle: 256 entries of 65,535 bytes, each with its 2-byte length.
pub const BUNDLE_BYTES_MAX: usize = 256 * (2 + 65_535);

/// Name of the file that holds the latest checkpoint.
pub const CHECKPOINT_PATH: &str = "checkpoint";

/// One tile of hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// Level: its hashes stand 8 x `level` above the leaves. At most 63.
    pub level: u8,
    /// Position within the level.
    pub index: u64,
    /// How many hashes, 1 to 256.
    pub width: u16,
}

/// One bundle of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleId {
    /// Position: it begins with entry 256 x `index`.
    pub index: u64,
    /// How many entries, 1 to 256.
    pub width: u16,
}

/// A file below `tile/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileFile {
    /// Hashes.
    Tile(TileId),
    /// Entries.
    Bundle(BundleId),
}

/// A tile with its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Which.
    pub id: TileId,
    /// Its hashes, one after the other.
    pub bytes: Vec<u8>,
}

/// Why a name or a bundle is not of this format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TilesError {
    /// Not the one name of a tile or bundle.
    #[error("{path:?} is not the name of a tile or bundle")]
    Path {
        /// The name.
        path: String,
    },
    /// A bundle ends inside an entry.
    #[error("bundle ends within entry {position} at byte {offset}")]
    BundleEnds {
        /// Which entry of the bundle, 0-based.
        position: usize,
        /// Where the entry starts.
        offset: usize,
    },
    /// An entry that has no bytes or more than a bundle can hold.
    #[error("entry of {len} bytes does not fit a bundle")]
    EntryLength {
        /// How long.
        len: usize,
    },
}

impl TileId {
    /// How long its file is.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::from(self.width) * HASH_BYTES
    }

    /// Its name below the log directory.
    #[must_use]
    pub fn path(self) -> String {
        file_path(&self.level.to_string(), self.index, self.width)
    }
}

impl BundleId {
    /// Its name below the log directory.
    #[must_use]
    pub fn path(self) -> String {
        file_path("entries", self.index, self.width)
    }
}

impl fmt::Display for TileId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.path())
    }
}

impl fmt::Display for BundleId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.path())
    }
}

fn file_path(first: &str, index: u64, width: u16) -> String {
    // Groups of three digits, all but the last with an x: 1234067 is x001/x234/067.
    let mut groups = vec![format!("{:03}", index % 1000)];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.push(first.to_owned());
    groups.push("tile".to_owned());
    groups.reverse();
    let mut path = groups.join("/");
    if width < TILE_WIDTH {
        path.push_str(&format!(".p/{width}"));
    }
    path
}

impl TileFile {
    /// The file with this name. Only the name that [`TileId::path`] or [`BundleId::path`] gives is accepted.
    ///
    /// # Errors
    /// [`TilesError::Path`] for any other name.
    pub fn parse(path: &str) -> Result<Self, TilesError> {
        let wrong = || TilesError::Path { path: path.chars().take(200).collect() };
        let file = Self::read(path).ok_or_else(wrong)?;
        let written = match file {
            Self::Tile(id) => id.path(),
            Self::Bundle(id) => id.path(),
        };
        if written == path { Ok(file) } else { Err(wrong()) }
    }

    fn read(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("tile/")?;
        let (first, rest) = rest.split_once('/')?;
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse::<u16>().ok().filter(|width| (1..TILE_WIDTH).contains(width))?),
            None => (rest, TILE_WIDTH),
        };
        let mut index = 0_u64;
        for group in number.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        if first == "entries" {
            return Some(Self::Bundle(BundleId { index, width }));
        }
        let level = first.parse::<u8>().ok().filter(|level| *level <= 63)?;
        Some(Self::Tile(TileId { level, index, width }))
    }
}

/// Appends one entry to a bundle: its length in two bytes, big-endian, then its bytes.
///
/// # Errors
/// [`TilesError::EntryLength`] when it is empty or longer than 65,535 bytes.
pub fn bundle_push(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), TilesError> {
    let len = u16::try_from(entry.len()).ok().filter(|len| *len > 0).ok_or(TilesError::EntryLength { len: entry.len() })?;
    bundle.extend_from_slice(&len.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries of a bundle, in order. Ends after the first error.
pub fn bundle_entries(bundle: &[u8]) -> impl Iterator<Item = Result<&[u8], TilesError>> {
    let mut offset = 0;
    let mut position = 0;
    std::iter::from_fn(move || {
        let rest = bundle.get(offset..).filter(|rest| !rest.is_empty())?;
        let entry = rest.split_first_chunk::<2>().and_then(|(len, rest)| {
            let len = usize::from(u16::from_be_bytes(*len));
            rest.get(..len)
        });
        let found = entry.ok_or(TilesError::BundleEnds { position, offset });
        offset = match found {
            Ok(entry) => offset + 2 + entry.len(),
            Err(_) => bundle.len(),
        };
        position += 1;
        Some(found)
    })
}

/// How many entries the bundle `index` has in a tree of `size` entries, 0 when there is none.
#[must_use]
pub fn width_at(size: u64, index: u64) -> u16 {
    let start = index.saturating_mul(u64::from(TILE_WIDTH));
    u16::try_from(size.saturating_sub(start).min(u64::from(TILE_WIDTH))).unwrap_or(TILE_WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        let tile = |level, index, width| TileId { level, index, width }.path();
        assert_eq!(tile(0, 0, 256), "tile/0/000");
        assert_eq!(tile(0, 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(tile(1, 273, 112), "tile/1/273.p/112");
        assert_eq!(BundleId { index: 1000, width: 1 }.path(), "tile/entries/x001/000.p/1");
    }

    #[test]
    fn a_name_is_read_back_and_no_other_spelling_of_it() {
        for id in [TileId { level: 0, index: 0, width: 256 }, TileId { level: 63, index: u64::MAX, width: 1 }] {
            assert_eq!(TileFile::parse(&id.path()), Ok(TileFile::Tile(id)));
        }
        for path in [
            "tile/0/0", "tile/00/000", "tile/0/x000/001", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01",
            "tile/64/000", "tile/0/001/002", "tile/0/000/", "tile/0/+01", "tile/entries/", "checkpoint", "",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999", "tile/0/000.p/", "tile/0/../000",
        ] {
            assert_eq!(TileFile::parse(path), Err(TilesError::Path { path: path.to_owned() }), "{path}");
        }
    }

    #[test]
    fn a_bundle_gives_its_entries_back_and_a_torn_one_says_where() {
        let mut bundle = Vec::new();
        bundle_push(&mut bundle, b"one").unwrap();
        bundle_push(&mut bundle, b"two").unwrap();
        assert_eq!(bundle_entries(&bundle).collect::<Result<Vec<_>, _>>(), Ok(vec![&b"one"[..], b"two"]));
        let torn: Vec<_> = bundle_entries(&bundle[..8]).collect();
        assert_eq!(torn, [Ok(&b"one"[..]), Err(TilesError::BundleEnds { position: 1, offset: 5 })]);
        assert_eq!(bundle_push(&mut bundle, &[0; 65_536]), Err(TilesError::EntryLength { len: 65_536 }));
        assert_eq!(bundle_push(&mut bundle, &[]), Err(TilesError::EntryLength { len: 0 }));
    }
}
