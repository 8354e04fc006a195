//! Kept entries: what is left of a part of a log that was pruned, with the hashes that keep it provable (FORMAT.md, section 4.2).
//!
//! Owns the one encoding of such a file, its strict decoder, and what follows from a bundle of it: entries by their place, and
//! the hashes of complete subtrees. Pure: bytes in, bytes out. Which entries may be left out is not decided here, and nothing
//! is believed: whether entries and hashes are those that were signed, the tree above says.
//!
//! Trust: a file may come from anybody. What it inflates to is bounded, and every length is checked before it is used.

#![forbid(unsafe_code)]

use std::ops::Range;

use miniz_oxide::deflate::compress_to_vec_zlib;

use crate::packed::{self, inflate};
use crate::tiles;
use crate::tree::{NodeHash, TILE_HEIGHT, TILE_WIDTH, complete_subtrees, leaf_hash, node_hash};

/// What a file of kept entries begins with.
pub const MAGIC: &[u8] = b"affiant/kept/v1\n";
/// Most bundles that one file stands for: those of a packed segment.
pub const KEPT_BUNDLES: usize = packed::SEGMENT_BUNDLES;
/// Largest file, in bytes.
pub const KEPT_BYTES_MAX: usize = 64 << 20;
/// Most bytes that its stream gives: 2,048 for each entry of 256 bundles. What does not fit must not be pruned.
pub const INFLATED_BYTES_MAX: usize = 128 << 20;

/// Bytes of an item that withholds: a length of zero, the height, the hash.
const WITHHELD_BYTES: usize = 2 + 1 + 32;

/// Why a file of kept entries is not one, or cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// It does not begin as one does.
    #[error("does not begin with \"affiant/kept/v1\" and the number of bundles (1 to {KEPT_BUNDLES})")]
    Header,
    /// What follows is not one whole zlib stream, or gives too much.
    #[error("is not one zlib stream of at most {INFLATED_BYTES_MAX} bytes")]
    Stream,
    /// The stream ends inside an item or a bundle.
    #[error("ends inside bundle {bundle}")]
    Cut {
        /// Which, from 0.
        bundle: usize,
    },
    /// Something follows the last bundle.
    #[error("has {0} bytes after its last bundle")]
    Longer(usize),
    /// A hash stands where no complete subtree of its height begins.
    #[error("bundle {bundle} has a hash of height {height} at place {place}, where no such subtree of a bundle begins")]
    Unaligned {
        /// Which bundle, from 0.
        bundle: usize,
        /// The place within it, from 0.
        place: usize,
        /// The height.
        height: u32,
    },
    /// Two hashes stand where one would do.
    #[error("bundle {bundle} has two hashes for one subtree that ends at place {place}")]
    Divided {
        /// Which bundle, from 0.
        bundle: usize,
        /// The place after it, from 0.
        place: usize,
    },
    /// Items for a bundle do not stand for exactly 256 entries.
    #[error("a bundle of {0} entries, expected {TILE_WIDTH}")]
    Count(usize),
    /// An entry is empty or too long for a bundle.
    #[error("an entry of {0} bytes, expected 1 to {max}", max = tiles::ENTRY_BYTES_MAX)]
    Entry(usize),
    /// More bundles than one file has, or none.
    #[error("{0} bundles, a file has 1 to {KEPT_BUNDLES}")]
    Bundles(usize),
    /// The file would be larger than a reader accepts.
    #[error("kept entries of {0} bytes, at most {INFLATED_BYTES_MAX}, or {KEPT_BYTES_MAX} compressed")]
    TooLarge(usize),
}

/// The name of the file of segment `number` below the log's directory.
#[must_use]
pub fn path(number: u64) -> String {
    format!("kept/{}", tiles::number_path(number))
}

/// What stands for one entry or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'k> {
    /// An entry that is kept.
    Entry(&'k [u8]),
    /// Entries that are not.
    Withheld {
        /// There are `2^height`, 0 to 8.
        height: u32,
        /// The hash of the complete subtree over them.
        hash: NodeHash,
    },
}

impl Item<'_> {
    /// How many entries it stands for.
    #[must_use]
    pub fn entries(&self) -> usize {
        match self {
            Self::Entry(_) => 1,
            Self::Withheld { height, .. } => 1 << (*height).min(TILE_HEIGHT),
        }
    }

    /// The subtree over them.
    fn subtree(&self) -> (u32, NodeHash) {
        match self {
            Self::Entry(bytes) => (0, leaf_hash(bytes).0),
            Self::Withheld { height, hash } => (*height, *hash),
        }
    }
}

/// A file of kept entries, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    items: Vec<u8>,
    /// Where each bundle is in `items`.
    bundles: Vec<Range<usize>>,
}

impl Kept {
    /// Reads a file; all of it is checked.
    ///
    /// # Errors
    /// [`KeptError::Header`], [`KeptError::Stream`], [`KeptError::Cut`], [`KeptError::Longer`], [`KeptError::Entry`],
    /// [`KeptError::Unaligned`], [`KeptError::Divided`].
    pub fn parse(file: &[u8]) -> Result<Self, KeptError> {
        let (count, stream) =
            file.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<2>()).ok_or(KeptError::Header)?;
        let count = usize::from(u16::from_be_bytes(*count));
        if !(1..=KEPT_BUNDLES).contains(&count) {
            return Err(KeptError::Header);
        }
        let items = inflate(stream, INFLATED_BYTES_MAX).ok_or(KeptError::Stream)?;
        let mut bundles = Vec::with_capacity(count);
        let mut rest = items.as_slice();
        for bundle in 0..count {
            let start = items.len() - rest.len();
            let mut place = 0;
            let mut last = None;
            while place < TILE_WIDTH {
                let item = take(&mut rest).ok_or(KeptError::Cut { bundle })?;
                match item {
                    Ok(item) => {
                        last = check(&item, place, last, bundle)?;
                        place += item.entries();
                    }
                    Err(height) => return Err(KeptError::Unaligned { bundle, place, height }),
                }
            }
            bundles.push(start..items.len() - rest.len());
        }
        match rest.len() {
            0 => Ok(Self { items, bundles }),
            longer => Err(KeptError::Longer(longer)),
        }
    }

    /// How many bundles it stands for, from the segment's first on.
    #[must_use]
    pub fn bundles(&self) -> usize {
        self.bundles.len()
    }

    /// What is left of bundle `bundle` of the segment; nothing when the file does not reach that far.
    #[must_use]
    pub fn bundle(&self, bundle: usize) -> Option<KeptBundle<'_>> {
        self.items.get(self.bundles.get(bundle)?.clone()).map(|items| KeptBundle { items })
    }
}

/// The next item; or the height that it states, when there is no such subtree in a bundle.
fn take<'k>(rest: &mut &'k [u8]) -> Option<Result<Item<'k>, u32>> {
    let (length, after) = rest.split_first_chunk::<2>()?;
    match usize::from(u16::from_be_bytes(*length)) {
        0 => {
            let (height, after) = after.split_first()?;
            let (hash, after) = after.split_first_chunk::<32>()?;
            *rest = after;
            let height = u32::from(*height);
            Some(if height > TILE_HEIGHT { Err(height) } else { Ok(Item::Withheld { height, hash: *hash }) })
        }
        length => {
            let (entry, after) = after.split_at_checked(length)?;
            *rest = after;
            Some(Ok(Item::Entry(entry)))
        }
    }
}

/// That an item may stand at this place after `last`, the height of the hash that ends here if one does; gives the same for
/// the next item.
fn check(item: &Item<'_>, place: usize, last: Option<u32>, bundle: usize) -> Result<Option<u32>, KeptError> {
    let Item::Withheld { height, .. } = *item else { return Ok(None) };
    if !place.is_multiple_of(item.entries()) {
        return Err(KeptError::Unaligned { bundle, place, height });
    }
    let past = place + item.entries();
    // Two of one height, of which the first begins where the subtree over both would.
    if last == Some(height) && past.is_multiple_of(2 * item.entries()) {
        return Err(KeptError::Divided { bundle, place: past });
    }
    Ok(Some(height))
}

/// What is left of one bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptBundle<'k> {
    items: &'k [u8],
}

impl<'k> KeptBundle<'k> {
    /// Its items in order, each with the place within the bundle at which it begins.
    pub fn items(&self) -> impl Iterator<Item = (usize, Item<'k>)> + use<'k> {
        let mut rest = self.items;
        let mut place = 0;
        std::iter::from_fn(move || {
            // It was read to its end before.
            let item = take(&mut rest)?.ok()?;
            let at = place;
            place += item.entries();
            Some((at, item))
        })
    }

    /// The entry at this place, if it is kept.
    #[must_use]
    pub fn entry(&self, place: usize) -> Option<&'k [u8]> {
        self.items().find_map(|(at, item)| match item {
            Item::Entry(bytes) if at == place => Some(bytes),
            _ => None,
        })
    }

    /// The hash of the complete subtree `number` of height `height` (0 to 8) within the bundle; nothing where it lies within
    /// withheld entries, or is not in a bundle.
    #[must_use]
    pub fn subtree(&self, height: u32, number: usize) -> Option<NodeHash> {
        let leaves = 1_usize.checked_shl(height).filter(|leaves| *leaves <= TILE_WIDTH)?;
        let first = number.checked_mul(leaves)?;
        let past = first.checked_add(leaves)?;
        let mut peaks: Vec<(u32, NodeHash)> = Vec::new();
        for (at, item) in self.items().skip_while(|(at, _)| *at < first).take_while(|(at, _)| *at < past) {
            if peaks.is_empty() && at != first {
                return None;
            }
            let mut top = item.subtree();
            if top.0 > height {
                return None;
            }
            while let Some((_, left)) = peaks.pop_if(|(height, _)| *height == top.0) {
                top = (top.0 + 1, node_hash(&left, &top.1));
            }
            peaks.push(top);
        }
        match peaks.as_slice() {
            [(top, hash)] if *top == height => Some(*hash),
            _ => None,
        }
    }

    /// Whether the tree can be cut at this place of the bundle: what stands before it is made of whole items.
    #[must_use]
    pub fn divides_at(&self, place: usize) -> bool {
        complete_subtrees(0, place as u64)
            .all(|(height, number)| usize::try_from(number).is_ok_and(|number| self.subtree(height, number).is_some()))
    }
}

/// Writes a file of kept entries, bundle by bundle.
#[derive(Debug, Clone, Default)]
pub struct KeptWriter {
    items: Vec<u8>,
    bundles: usize,
}

impl KeptWriter {
    /// Without a bundle yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next bundle of the segment, given as items that together stand for its 256 entries: of a whole bundle each
    /// entry, or its leaf hash with height 0; of one that was pruned before, what [`KeptBundle::items`] gives, with leaf
    /// hashes in the place of entries that go now. Hashes are joined as far as they can be.
    ///
    /// # Errors
    /// [`KeptError::Count`], [`KeptError::Unaligned`], [`KeptError::Entry`], [`KeptError::TooLarge`]; then the writer is as
    /// it was before.
    pub fn bundle<'k>(&mut self, items: impl IntoIterator<Item = Item<'k>>) -> Result<(), KeptError> {
        let bundle = self.bundles;
        if bundle >= KEPT_BUNDLES {
            return Err(KeptError::Bundles(bundle + 1));
        }
        let mut joined: Vec<Item<'k>> = Vec::new();
        let mut place = 0_usize;
        for mut item in items {
            match item {
                Item::Entry(bytes) if bytes.is_empty() || bytes.len() > tiles::ENTRY_BYTES_MAX => {
                    return Err(KeptError::Entry(bytes.len()));
                }
                Item::Withheld { height, .. } if height > TILE_HEIGHT || !place.is_multiple_of(item.entries()) => {
                    return Err(KeptError::Unaligned { bundle, place, height });
                }
                _ => {}
            }
            place += item.entries();
            if place > TILE_WIDTH {
                return Err(KeptError::Count(place));
            }
            while let Item::Withheld { height, hash } = item
                && place.is_multiple_of(2 * item.entries())
                && let Some(Item::Withheld { height: before, hash: left }) = joined.last().copied()
                && before == height
            {
                joined.pop();
                item = Item::Withheld { height: height + 1, hash: node_hash(&left, &hash) };
            }
            joined.push(item);
        }
        if place != TILE_WIDTH {
            return Err(KeptError::Count(place));
        }
        let bytes = |item: &Item<'_>| match item {
            Item::Entry(bytes) => 2 + bytes.len(),
            Item::Withheld { .. } => WITHHELD_BYTES,
        };
        let size = self.items.len() + joined.iter().map(bytes).sum::<usize>();
        if size > INFLATED_BYTES_MAX {
            return Err(KeptError::TooLarge(size));
        }
        for item in joined {
            match item {
                Item::Entry(bytes) => tiles::push_entry(&mut self.items, bytes),
                Item::Withheld { height, hash } => {
                    // At most 8.
                    self.items.extend_from_slice(&[0, 0, height.to_be_bytes()[3]]);
                    self.items.extend_from_slice(&hash);
                }
            }
        }
        self.bundles += 1;
        Ok(())
    }

    /// The file, compressed at a zlib level (0 to 10). What it returns was read again and is the same.
    ///
    /// # Errors
    /// [`KeptError::Bundles`] without a bundle, [`KeptError::TooLarge`].
    pub fn finish(self, level: u8) -> Result<Vec<u8>, KeptError> {
        let count = u16::try_from(self.bundles).ok().filter(|count| *count > 0);
        let count = count.ok_or(KeptError::Bundles(self.bundles))?;
        let mut file = [MAGIC, &count.to_be_bytes()].concat();
        file.extend_from_slice(&compress_to_vec_zlib(&self.items, level));
        if file.len() > KEPT_BYTES_MAX {
            return Err(KeptError::TooLarge(file.len()));
        }
        match Kept::parse(&file)? {
            Kept { items, .. } if items == self.items => Ok(file),
            _ => Err(KeptError::Stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::fold_tile;

    fn entry(index: usize) -> Vec<u8> {
        format!("entry {index}").into_bytes()
    }

    fn leaves() -> Vec<NodeHash> {
        (0..TILE_WIDTH).map(|index| leaf_hash(&entry(index)).0).collect()
    }

    /// One bundle of which the entries at these places are kept.
    fn kept(places: &[usize]) -> Vec<u8> {
        let entries: Vec<_> = (0..TILE_WIDTH).map(entry).collect();
        let items = entries.iter().enumerate().map(|(place, bytes)| {
            if places.contains(&place) {
                Item::Entry(bytes)
            } else {
                Item::Withheld { height: 0, hash: leaf_hash(bytes).0 }
            }
        });
        let mut writer = KeptWriter::new();
        writer.bundle(items).unwrap();
        writer.finish(6).unwrap()
    }

    fn file(count: u16, items: &[u8]) -> Vec<u8> {
        [MAGIC, &count.to_be_bytes(), &compress_to_vec_zlib(items, 6)].concat()
    }

    fn hash(height: u8) -> Vec<u8> {
        [&[0, 0, height][..], &[7; 32]].concat()
    }

    #[test]
    fn every_subtree_outside_what_is_withheld_has_the_hash_that_the_entries_give() {
        let leaves = leaves();
        for places in [&[][..], &[0], &[255], &[5, 6, 77, 128], &(0..256).collect::<Vec<_>>()] {
            let kept = Kept::parse(&kept(places)).unwrap();
            let bundle = kept.bundle(0).unwrap();
            assert_eq!(kept.bundle(1), None);
            for height in 0..=8 {
                for number in 0..256_usize >> height {
                    let range = number << height..(number + 1) << height;
                    let hidden = bundle.items().any(|(at, item)| {
                        item.entries() > range.len() && (at..at + item.entries()).contains(&range.start)
                    });
                    let expected = fold_tile(&leaves[range]).filter(|_| !hidden);
                    assert_eq!(bundle.subtree(height, number), expected, "{places:?} {height} {number}");
                }
            }
            for place in 0..256 {
                assert_eq!(bundle.entry(place), places.contains(&place).then(|| entry(place)).as_deref());
            }
        }
        assert_eq!(Kept::parse(&kept(&[])).unwrap().bundle(0).unwrap().subtree(9, 0), None);
    }

    #[test]
    fn a_bundle_that_is_pruned_twice_is_as_if_it_had_been_pruned_once() {
        let once = Kept::parse(&kept(&[3, 9, 200])).unwrap();
        let items = once.bundle(0).unwrap().items().map(|(_, item)| match item {
            Item::Entry(bytes) if bytes != b"entry 200" => Item::Withheld { height: 0, hash: leaf_hash(bytes).0 },
            item => item,
        });
        let mut writer = KeptWriter::new();
        writer.bundle(items).unwrap();
        assert_eq!(writer.finish(6).unwrap(), kept(&[200]));
    }

    #[test]
    fn the_tree_is_cut_only_between_items() {
        let kept = Kept::parse(&kept(&[4])).unwrap();
        let bundle = kept.bundle(0).unwrap();
        let cuts: Vec<usize> = (0..=256).filter(|place| bundle.divides_at(*place)).collect();
        assert_eq!(cuts, [0, 4, 5, 6, 8, 16, 32, 64, 128, 256]);
    }

    #[test]
    fn any_other_form_is_refused() {
        let whole = hash(8);
        assert_eq!(Kept::parse(&file(1, &whole)).map(|kept| kept.bundles()), Ok(1));
        for (what, file, expected) in [
            ("nothing", Vec::new(), KeptError::Header),
            ("no bundles", file(0, &[]), KeptError::Header),
            ("too many", file(257, &whole.repeat(257)), KeptError::Header),
            ("no stream", [MAGIC, &[0, 1]].concat(), KeptError::Stream),
            ("more after the stream", [file(1, &whole), vec![0]].concat(), KeptError::Stream),
            ("a bundle less", file(2, &whole), KeptError::Cut { bundle: 1 }),
            ("a bundle more", file(1, &whole.repeat(2)), KeptError::Longer(35)),
            ("half a hash", file(1, &whole[..20]), KeptError::Cut { bundle: 0 }),
            ("half an entry", file(1, &[0, 5, b'x']), KeptError::Cut { bundle: 0 }),
            ("two siblings", file(1, &hash(7).repeat(2)), KeptError::Divided { bundle: 0, place: 256 }),
            ("too high", file(1, &hash(9)), KeptError::Unaligned { bundle: 0, place: 0, height: 9 }),
            (
                "not aligned",
                file(1, &[&[0, 1, b'x'][..], &hash(1)].concat()),
                KeptError::Unaligned { bundle: 0, place: 1, height: 1 },
            ),
        ] {
            assert_eq!(Kept::parse(&file), Err(expected), "{what}");
        }
    }

    #[test]
    fn a_file_that_would_inflate_beyond_the_limit_is_refused() {
        let bomb = compress_to_vec_zlib(&vec![0; INFLATED_BYTES_MAX + 1], 1);
        assert_eq!(Kept::parse(&[MAGIC, &[0, 1], &bomb].concat()), Err(KeptError::Stream));
    }

    #[test]
    fn a_writer_takes_whole_bundles_only() {
        let mut writer = KeptWriter::new();
        let withheld = |height| Item::Withheld { height, hash: [7; 32] };
        assert_eq!(writer.bundle([withheld(7)]), Err(KeptError::Count(128)));
        assert_eq!(writer.bundle([withheld(8), Item::Entry(b"x")]), Err(KeptError::Count(257)));
        let unaligned = KeptError::Unaligned { bundle: 0, place: 1, height: 1 };
        assert_eq!(writer.bundle([Item::Entry(b"x"), withheld(1)]), Err(unaligned));
        assert_eq!(writer.bundle([Item::Entry(b"")]), Err(KeptError::Entry(0)));
        assert_eq!(writer.clone().finish(6), Err(KeptError::Bundles(0)));
        writer.bundle([withheld(8)]).unwrap();
        assert_eq!(Kept::parse(&writer.finish(6).unwrap()).map(|kept| kept.bundles()), Ok(1));
    }
}
