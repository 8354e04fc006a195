//! Packed segments: up to 256 full bundles in one file, compressed, without what can be computed again (FORMAT.md, section 4.1).
//!
//! Owns the one encoding of a segment and its strict decoder. Pure: bytes in, bytes out. A packed bundle gives back the very
//! bytes of the plain one, and with them the hashes of its level-0 tile: those are as incompressible as anything can be, and
//! follow from the entries. Nothing here is believed: whether the entries are those that were signed, the tree above says.
//!
//! Trust: a segment may come from anybody. Every length is checked before it is used, and a block never gives more than the
//! largest bundle.

#![forbid(unsafe_code)]

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::tiles::{self, BUNDLE_BYTES_MAX, TilesError};
use crate::tree::{NodeHash, TILE_WIDTH, leaf_hash};

/// Most bundles in one segment: those under one tile of level 1.
pub const SEGMENT_BUNDLES: usize = TILE_WIDTH;
/// Largest segment, in bytes: 1,024 for each entry, five times what entries of the largest usual form take. Bundles that do
/// not fit stay plain.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// What a segment begins with.
pub const MAGIC: &[u8] = b"affiant/packed/v1\n";
/// Most bytes before the first block: [`MAGIC`], the number of blocks, and the length of each.
pub const HEADER_BYTES_MAX: usize = MAGIC.len() + 2 + 4 * SEGMENT_BUNDLES;

/// Entries in a full bundle.
const WIDTH: u16 = 256;
/// What stands in the place of `prev` and `rnd` in a line.
const BLANK: &[u8] = b"\"prev\":\"\",\"rnd\":\"\"";
const PREVIOUS: &[u8] = b"\"prev\":\"";
const RANDOM: &[u8] = b"\",\"rnd\":\"";
/// A bundle as it is.
const FORM_WHOLE: u8 = 0;
/// Lines without `prev` and `rnd`, which stand before them.
const FORM_LINES: u8 = 1;
/// Bytes before the compressed lines: the hash that the first `prev` holds, and the random bytes.
const LINES_AT: usize = 32 + 16 * TILE_WIDTH;

/// Why a segment is not one, or a bundle cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackedError {
    /// It does not begin as a segment does.
    #[error(
        "does not begin with \"affiant/packed/v1\", the number of blocks (1 to {SEGMENT_BUNDLES}) and their lengths"
    )]
    Header,
    /// The lengths do not add up to the file.
    #[error("the blocks have {expected} bytes, the file has {seen} for them")]
    Length {
        /// Bytes that the header promises.
        expected: u64,
        /// Bytes there are.
        seen: u64,
    },
    /// A block does not begin with a form that this version knows.
    #[error("block {block} has no form of this version")]
    Form {
        /// Which.
        block: usize,
    },
    /// A block is not one whole zlib stream, or gives more than a bundle holds.
    #[error("block {block} is not one zlib stream of at most {BUNDLE_BYTES_MAX} bytes")]
    Stream {
        /// Which.
        block: usize,
    },
    /// A block does not have a line for each entry.
    #[error("block {block} has {seen} lines, expected {expected}", expected = TILE_WIDTH)]
    Lines {
        /// Which.
        block: usize,
        /// Lines seen.
        seen: usize,
    },
    /// A line has no place for what was left out, or is longer than an entry.
    #[error("line {line} of block {block} is not an entry without `prev` and `rnd`")]
    Line {
        /// Which block.
        block: usize,
        /// Which line, from 0.
        line: usize,
    },
    /// A block that holds a bundle as it is does not hold one.
    #[error("block {block} does not hold a bundle")]
    Bundle {
        /// Which.
        block: usize,
        /// What is wrong with it.
        #[source]
        source: TilesError,
    },
    /// More bundles than a segment has were to be packed, or none.
    #[error("{0} bundles, a segment has 1 to {SEGMENT_BUNDLES}")]
    Count(usize),
    /// The segment would be larger than a reader accepts.
    #[error("a segment of {0} bytes, at most {SEGMENT_BYTES_MAX}")]
    TooLarge(usize),
}

/// The name of segment `number` below the log's directory.
#[must_use]
pub fn path(number: u64) -> String {
    format!("packed/{}", tiles::number_path(number))
}

/// Where each block of a segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Where the header ends, then where each block ends.
    bounds: Vec<u64>,
}

impl Index {
    /// Reads the first bytes, at most [`HEADER_BYTES_MAX`] are looked at, of a segment of `size` bytes.
    ///
    /// # Errors
    /// [`PackedError::Header`], [`PackedError::Length`].
    pub fn parse(header: &[u8], size: u64) -> Result<Self, PackedError> {
        let rest = header.strip_prefix(MAGIC).ok_or(PackedError::Header)?;
        let (count, rest) = rest.split_first_chunk::<2>().ok_or(PackedError::Header)?;
        let count = usize::from(u16::from_be_bytes(*count));
        let lengths = rest.get(..4 * count).filter(|_| (1..=SEGMENT_BUNDLES).contains(&count));
        let lengths = lengths.ok_or(PackedError::Header)?;
        let header = (MAGIC.len() + 2 + 4 * count) as u64;
        let mut end = header;
        let mut bounds = vec![end];
        for length in lengths.as_chunks::<4>().0 {
            end += u64::from(u32::from_be_bytes(*length));
            bounds.push(end);
        }
        if end != size {
            return Err(PackedError::Length { expected: end - header, seen: size.saturating_sub(header) });
        }
        Ok(Self { bounds })
    }

    /// How many blocks there are.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    /// Where block `block` is in the file; nothing when the segment has no such block.
    #[must_use]
    pub fn range(&self, block: usize) -> Option<Range<u64>> {
        Some(*self.bounds.get(block)?..*self.bounds.get(block + 1)?)
    }
}

/// A bundle that was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Its bytes, as the plain file has them.
    pub bundle: Vec<u8>,
    /// The leaf hashes of its entries: its level-0 tile.
    pub leaves: Vec<NodeHash>,
}

/// A whole segment in memory.
#[derive(Debug, Clone)]
pub struct Segment {
    bytes: Vec<u8>,
    index: Index,
}

impl Segment {
    /// Reads a segment's directory; the blocks are looked at when they are asked for.
    ///
    /// # Errors
    /// As [`Index::parse`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, PackedError> {
        let index = Index::parse(&bytes, bytes.len() as u64)?;
        Ok(Self { bytes, index })
    }

    /// The bundle of block `block`; nothing when the segment has no such block.
    ///
    /// # Errors
    /// As [`unpack`].
    pub fn bundle(&self, block: usize) -> Result<Option<Unpacked>, PackedError> {
        let Some(range) = self.index.range(block) else { return Ok(None) };
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        unpack(self.bytes.get(at(range.start)..at(range.end)).unwrap_or_default(), block).map(Some)
    }
}

/// The bundle that a block holds; `block` is its number, for errors.
///
/// # Errors
/// [`PackedError::Form`], [`PackedError::Stream`], [`PackedError::Lines`], [`PackedError::Line`], [`PackedError::Bundle`].
pub fn unpack(bytes: &[u8], block: usize) -> Result<Unpacked, PackedError> {
    let form = PackedError::Form { block };
    let stream = || PackedError::Stream { block };
    match bytes.split_first() {
        Some((&FORM_WHOLE, stream_bytes)) => {
            let bundle = inflate(stream_bytes, BUNDLE_BYTES_MAX).ok_or_else(stream)?;
            let entries = tiles::entries(&bundle, WIDTH).map_err(|source| PackedError::Bundle { block, source })?;
            let leaves = entries.into_iter().map(|entry| leaf_hash(entry).0).collect();
            Ok(Unpacked { bundle, leaves })
        }
        Some((&FORM_LINES, rest)) => {
            let (fixed, stream_bytes) = rest.split_at_checked(LINES_AT).ok_or_else(stream)?;
            let (previous, random) = fixed.split_first_chunk::<32>().ok_or_else(stream)?;
            let lines = inflate(stream_bytes, BUNDLE_BYTES_MAX).ok_or_else(stream)?;
            restore(*previous, random.as_chunks::<16>().0, &lines, block)
        }
        _ => Err(form),
    }
}

/// Puts `prev` and `rnd` back into each line.
fn restore(mut previous: NodeHash, random: &[[u8; 16]], lines: &[u8], block: usize) -> Result<Unpacked, PackedError> {
    let mut unpacked = Unpacked {
        bundle: Vec::with_capacity(lines.len() + TILE_WIDTH * (2 + 44 + 24)),
        leaves: Vec::with_capacity(TILE_WIDTH),
    };
    let mut seen = 0;
    let mut rest = lines;
    while !rest.is_empty() {
        let line = PackedError::Line { block, line: seen };
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Err(line) };
        let (text, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        let Some(random) = random.get(seen) else { return Err(PackedError::Lines { block, seen: seen + 1 }) };
        let Some((head, tail)) = split_once(text, BLANK) else { return Err(line) };
        let Ok(length) = u16::try_from(text.len() + 44 + 24) else { return Err(line) };
        unpacked.bundle.extend_from_slice(&length.to_be_bytes());
        let start = unpacked.bundle.len();
        unpacked.bundle.extend_from_slice(head);
        unpacked.bundle.extend_from_slice(PREVIOUS);
        push_base64::<44>(&mut unpacked.bundle, &previous);
        unpacked.bundle.extend_from_slice(RANDOM);
        push_base64::<24>(&mut unpacked.bundle, random);
        unpacked.bundle.push(b'"');
        unpacked.bundle.extend_from_slice(tail);
        previous = leaf_hash(unpacked.bundle.get(start..).unwrap_or_default()).0;
        unpacked.leaves.push(previous);
        seen += 1;
    }
    if seen != TILE_WIDTH {
        return Err(PackedError::Lines { block, seen });
    }
    Ok(unpacked)
}

/// Packs one full bundle into a block at a zlib level (0 to 10; 10 is the smallest and slowest). What it returns was unpacked
/// again and is the same.
///
/// # Errors
/// [`PackedError::Bundle`] when it is not a full bundle.
pub fn pack(bundle: &[u8], level: u8) -> Result<Vec<u8>, PackedError> {
    let entries = tiles::entries(bundle, WIDTH).map_err(|source| PackedError::Bundle { block: 0, source })?;
    if let Some(block) = pack_lines(&entries, level)
        && unpack(&block, 0).is_ok_and(|unpacked| unpacked.bundle == bundle)
    {
        return Ok(block);
    }
    // Entries that are not as the agent writes them, so that every log can be packed.
    let mut block = vec![FORM_WHOLE];
    block.extend_from_slice(&compress_to_vec_zlib(bundle, level));
    unpack(&block, 0)?;
    Ok(block)
}

fn pack_lines(entries: &[&[u8]], level: u8) -> Option<Vec<u8>> {
    let mut block = vec![FORM_LINES];
    let mut random = Vec::with_capacity(16 * TILE_WIDTH);
    let mut lines = Vec::with_capacity(entries.iter().map(|entry| entry.len()).sum());
    for (position, entry) in entries.iter().enumerate() {
        let (head, rest) = split_once(entry, PREVIOUS)?;
        let (previous, rest) = rest.split_at_checked(44)?;
        let (rnd, rest) = rest.strip_prefix(RANDOM)?.split_at_checked(24)?;
        let tail = rest.strip_prefix(b"\"")?;
        if position == 0 {
            block.extend_from_slice(STANDARD.decode(previous).ok()?.first_chunk::<32>()?);
        }
        random.extend_from_slice(STANDARD.decode(rnd).ok()?.first_chunk::<16>()?);
        lines.extend_from_slice(head);
        lines.extend_from_slice(BLANK);
        lines.extend_from_slice(tail);
        lines.push(b'\n');
    }
    block.extend_from_slice(&random);
    block.extend_from_slice(&compress_to_vec_zlib(&lines, level));
    Some(block)
}

/// Joins the blocks of one segment.
///
/// # Errors
/// [`PackedError::Count`], [`PackedError::TooLarge`].
pub fn join(blocks: &[Vec<u8>]) -> Result<Vec<u8>, PackedError> {
    let count = u16::try_from(blocks.len()).ok().filter(|count| (1..=WIDTH).contains(count));
    let count = count.ok_or(PackedError::Count(blocks.len()))?;
    let size = MAGIC.len() + 2 + blocks.iter().map(|block| 4 + block.len()).sum::<usize>();
    if size > SEGMENT_BYTES_MAX {
        return Err(PackedError::TooLarge(size));
    }
    let mut segment = Vec::with_capacity(size);
    segment.extend_from_slice(MAGIC);
    segment.extend_from_slice(&count.to_be_bytes());
    for block in blocks {
        let length = u32::try_from(block.len()).map_err(|_too_long| PackedError::TooLarge(size))?;
        segment.extend_from_slice(&length.to_be_bytes());
    }
    for block in blocks {
        segment.extend_from_slice(block);
    }
    Ok(segment)
}

/// What a zlib stream gives, if it is one, whole, with nothing after it, and gives no more than `bytes_max`.
pub(crate) fn inflate(stream: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    const FLAGS: u32 = TINFL_FLAG_PARSE_ZLIB_HEADER | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut state = Box::<DecompressorOxide>::default();
    // Lines of entries come out about ten times as long as they go in; the buffer grows as needed.
    let mut out = vec![0; stream.len().saturating_mul(12).clamp(1 << 12, bytes_max)];
    let (mut read, mut written) = (0, 0);
    loop {
        let (status, more_read, more_written) = decompress(&mut state, stream.get(read..)?, &mut out, written, FLAGS);
        read += more_read;
        written += more_written;
        match status {
            TINFLStatus::Done if read == stream.len() => {
                out.truncate(written);
                return Some(out);
            }
            TINFLStatus::HasMoreOutput if out.len() < bytes_max => {
                out.resize(out.len().saturating_mul(2).min(bytes_max), 0);
            }
            _ => return None,
        }
    }
}

/// The bytes before and after the first place where `needle` stands.
fn split_once<'a>(bytes: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(needle.len()).position(|window| window == needle)?;
    Some((bytes.get(..at)?, bytes.get(at + needle.len()..)?))
}

/// Appends the base64 of `bytes`, which takes `N` characters.
fn push_base64<const N: usize>(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut encoded = [b'='; N];
    // N is what that many bytes take, so it cannot fail.
    let _length: Result<usize, _> = STANDARD.encode_slice(bytes, &mut encoded);
    out.extend_from_slice(&encoded);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Builder;

    /// A full bundle of a log's first entries.
    fn bundle() -> Vec<u8> {
        let mut log = Builder::new().unwrap();
        while log.entries.len() < TILE_WIDTH {
            log.append(Builder::workload());
        }
        bundle_of(&log.entries)
    }

    fn bundle_of(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bundle = Vec::new();
        for entry in entries {
            tiles::push_entry(&mut bundle, entry);
        }
        bundle
    }

    #[test]
    fn a_packed_bundle_gives_back_its_bytes_and_its_tile() {
        let bundle = bundle();
        let leaves: Vec<NodeHash> =
            tiles::entries(&bundle, WIDTH).unwrap().into_iter().map(|entry| leaf_hash(entry).0).collect();
        for level in [0, 1, 6, 10] {
            let block = pack(&bundle, level).unwrap();
            assert_eq!(block[0], FORM_LINES);
            assert_eq!(unpack(&block, 0), Ok(Unpacked { bundle: bundle.clone(), leaves: leaves.clone() }));
        }
    }

    #[test]
    fn entries_that_are_not_as_the_agent_writes_them_are_packed_whole() {
        let good = bundle();
        let good: Vec<Vec<u8>> = tiles::entries(&good, WIDTH).unwrap().into_iter().map(<[u8]>::to_vec).collect();
        let odd: [&[u8]; 5] = [
            b"",
            b"\n",
            b"{\"prev\":\"short\",\"rnd\":\"\"}",
            // The unused bits of the last digit are not zero.
            b"\"prev\":\"G21S+sRN65RlDzt0+PjQIwX4czJCEC0+1Xa571vwZJN=\",\"rnd\":\"4wYkAvBSHE2IYOQwP6wacQ==\"",
            // A second place that looks like the one where something was left out.
            b"\"prev\":\"\",\"rnd\":\"\" \"prev\":\"G21S+sRN65RlDzt0+PjQIwX4czJCEC0+1Xa571vwZJM=\",\"rnd\":\"4wYkAvBSHE2IYOQwP6wacQ==\"",
        ];
        for entry in odd {
            let mut entries = good.clone();
            entries[7] = entry.to_vec();
            let bundle = bundle_of(&entries);
            let block = pack(&bundle, 6).unwrap();
            assert_eq!(block[0], FORM_WHOLE, "{}", String::from_utf8_lossy(entry));
            assert_eq!(unpack(&block, 0).unwrap().bundle, bundle);
        }
    }

    #[test]
    fn an_edited_previous_hash_is_packed_as_it_is() {
        let good = bundle();
        let mut entries: Vec<Vec<u8>> = tiles::entries(&good, WIDTH).unwrap().into_iter().map(<[u8]>::to_vec).collect();
        let (at, entry) = (9, entries[9].clone());
        let (head, rest) = split_once(&entry, PREVIOUS).unwrap();
        entries[at] = [head, PREVIOUS, b"AAAA", &rest[4..]].concat();
        let bundle = bundle_of(&entries);
        assert_eq!(unpack(&pack(&bundle, 6).unwrap(), 0).unwrap().bundle, bundle);
    }

    #[test]
    fn a_segment_is_read_back_and_every_cut_of_it_is_refused() {
        let bundle = bundle();
        let block = pack(&bundle, 6).unwrap();
        let bytes = join(&[block.clone(), block.clone()]).unwrap();
        let segment = Segment::parse(bytes.clone()).unwrap();
        assert_eq!(segment.bundle(1).unwrap().unwrap().bundle, bundle);
        assert_eq!(segment.bundle(2), Ok(None));
        assert!(Segment::parse([bytes.as_slice(), b"x"].concat()).is_err());
        for end in 0..bytes.len() {
            assert!(Segment::parse(bytes[..end].to_vec()).is_err(), "{end} bytes");
        }
        assert_eq!(join(&[]), Err(PackedError::Count(0)));
        assert_eq!(join(&vec![Vec::new(); 257]), Err(PackedError::Count(257)));
        let mut none = bytes;
        none[MAGIC.len() + 1] = 0;
        assert_eq!(Segment::parse(none).map(drop), Err(PackedError::Header));
    }

    #[test]
    fn a_damaged_block_never_gives_the_same_bundle() {
        let bundle = bundle();
        let block = pack(&bundle, 6).unwrap();
        for at in (0..block.len()).step_by(61) {
            let mut damaged = block.clone();
            damaged[at] ^= 4;
            assert!(unpack(&damaged, 0).map_or(true, |unpacked| unpacked.bundle != bundle), "byte {at}");
        }
        for end in 0..block.len() {
            assert!(unpack(&block[..end], 0).is_err(), "{end} bytes");
        }
        assert_eq!(unpack(&[block.as_slice(), b"x"].concat(), 3), Err(PackedError::Stream { block: 3 }));
    }

    #[test]
    fn a_stream_of_more_than_a_bundle_is_not_unpacked() {
        let bomb = [&[FORM_WHOLE], compress_to_vec_zlib(&vec![0; BUNDLE_BYTES_MAX + 1], 6).as_slice()].concat();
        assert_eq!(unpack(&bomb, 0), Err(PackedError::Stream { block: 0 }));
    }

    #[test]
    fn lines_are_counted_and_have_a_place_for_what_was_left_out() {
        let lines = |text: &[u8]| {
            let mut block = vec![FORM_LINES];
            block.resize(1 + LINES_AT, 0);
            block.extend_from_slice(&compress_to_vec_zlib(text, 6));
            unpack(&block, 0).map(drop)
        };
        let line = [b"{", BLANK, b"}\n"].concat();
        assert_eq!(lines(&line.repeat(256)), Ok(()));
        assert_eq!(lines(&line.repeat(255)), Err(PackedError::Lines { block: 0, seen: 255 }));
        assert_eq!(lines(&line.repeat(257)), Err(PackedError::Lines { block: 0, seen: 257 }));
        assert_eq!(lines(b"{}\n"), Err(PackedError::Line { block: 0, line: 0 }));
        assert_eq!(lines(&line[..line.len() - 1]), Err(PackedError::Line { block: 0, line: 0 }));
        let long = [vec![b' '; 65_450], line].concat();
        assert_eq!(lines(&long), Err(PackedError::Line { block: 0, line: 0 }));
    }
}
