//! A bundle made from a log's directory: one pass to choose its entries, one to copy them.
//!
//! Believes what it reads: whoever receives the bundle verifies it, and so should whoever makes it.

#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use crate::blob::{self, BLOB_BYTES_MAX};
use crate::checkpoint::Checkpoint;
use crate::kept::Item;
use crate::note::NOTE_BYTES_MAX;
use crate::prove::{ProveError, Tiles, read};
use crate::record::{Body, DecodeError, Digest, Disclosure, DisclosureError, EntryIndex, TreeSize, decode_with};
use crate::tiles::{self, TileKind, TilePath};
use crate::tree::{TILE_WIDTH, TreeError};
use crate::verify::{Cold, Source};

use super::{
    Disclosed, HEADS_MAX, Manifest, Selected, Selection, write_blob, write_end, write_entries, write_proof,
    write_sidecar,
};

/// Longest sidecar that is read, in bytes.
const SIDECAR_BYTES_MAX: usize = 256 << 20;

/// Why a bundle could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// A file of the log is missing, cannot be read or is not what its name says.
    #[error(transparent)]
    Log(#[from] ProveError),
    /// An entry is not one.
    #[error("entry {index} cannot be decoded: run `affiant verify`")]
    Entry {
        /// Which.
        index: u64,
        /// Why not.
        #[source]
        source: DecodeError,
    },
    /// A line that discloses a value is none.
    #[error("{path} cannot be used: run `affiant verify`")]
    Sidecar {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: DisclosureError,
    },
    /// No session of the log has this id.
    #[error("no session {id:?} is under the newest checkpoint, which covers {size} entries")]
    NoSession {
        /// The id.
        id: String,
        /// Entries covered.
        size: u64,
    },
    /// Entries of a session are not kept any more.
    #[error("entries of session {id:?} are not in the log any more: a bundle of it would not be complete")]
    Pruned {
        /// The session's id.
        id: String,
    },
    /// The bundle could not be written.
    #[error("cannot write the bundle")]
    Write(#[from] io::Error),
}

impl From<TreeError> for MakeError {
    fn from(error: TreeError) -> Self {
        Self::Log(ProveError::Tree(error))
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What the bundle holds.
    pub selected: Selected,
    /// The head it is under.
    pub checkpoint: Checkpoint,
    /// Those of the sizes asked for whose root it shows. It shows those that its anchors name too.
    pub heads: Vec<TreeSize>,
}

/// Makes the bundle of the sessions with these ids under the newest checkpoint, which shows the roots at those of `heads`
/// that are below it.
///
/// # Errors
/// [`MakeError`]; what was written until then is no bundle.
pub fn make(
    source: &mut impl Source,
    ids: impl IntoIterator<Item = Vec<u8>>,
    heads: impl IntoIterator<Item = TreeSize>,
    out: &mut impl Write,
) -> Result<Made, MakeError> {
    let note =
        source.read("checkpoint", NOTE_BYTES_MAX).map_err(ProveError::Source)?.ok_or(ProveError::NoCheckpoint)?;
    make_under(source, &note, ids, heads, out)
}

/// Like [`make`], under a checkpoint of this log that the caller has.
///
/// # Errors
/// [`MakeError`]; what was written until then is no bundle.
pub fn make_under(
    source: &mut impl Source,
    note: &[u8],
    ids: impl IntoIterator<Item = Vec<u8>>,
    heads: impl IntoIterator<Item = TreeSize>,
    out: &mut impl Write,
) -> Result<Made, MakeError> {
    let mut source = Cold::new(source);
    let (checkpoint, _) = Checkpoint::parse(note).map_err(ProveError::Checkpoint)?;
    let size = checkpoint.size;
    let wanted: BTreeSet<Vec<u8>> = ids.into_iter().collect();
    let mut selection = Selection::new(wanted.iter().cloned());
    let mut scratch = Vec::new();
    let mut bundle = Bundle::default();
    let mut ids_of = HashMap::new();
    for number in 0..size.0.div_ceil(TILE_WIDTH as u64) {
        bundle.read(&mut source, number, size)?;
        for (index, entry) in bundle.entries(size)? {
            let record = decode_with(entry, &mut scratch).map_err(|source| MakeError::Entry { index, source })?;
            selection.entry(&record, entry.len());
            if let Body::Issued(issued) = record.body()
                && wanted.contains(issued.id.as_bytes())
            {
                ids_of.insert(EntryIndex(index), issued.id.display());
            }
        }
    }
    let selected = selection
        .finish()
        .map_err(|id| MakeError::NoSession { id: String::from_utf8_lossy(&id).into_owned(), size: size.0 })?;
    if let Some(session) = selected.pruned.first() {
        return Err(MakeError::Pruned { id: ids_of.remove(session).unwrap_or_default() });
    }
    let mut heads: Vec<_> = heads.into_iter().filter(|head| head.0 > 0 && *head < size).collect();
    heads.sort_unstable();
    heads.dedup();
    // Of a head within withheld entries nobody can show the root any more.
    let mut shown = Vec::with_capacity(heads.len());
    for head in heads {
        if can_show(&mut source, head, size)? {
            shown.push(head);
        }
    }
    let asked = shown.clone();
    let mut heads = shown;
    // As many anchors as there is room for, the latest first: without the roots that they name nothing shows that they hold.
    let room = HEADS_MAX.saturating_sub(heads.len());
    heads.extend(selected.anchored.iter().rev().filter(|at| at.0 > 0 && **at < size).take(room));
    heads.sort_unstable();
    heads.dedup();
    let manifest = Manifest { sessions: selected.sessions.clone(), heads };
    let tiles = Tiles::new(&mut source, size);
    let written = write_proof::<MakeError>(out, &manifest, (note, size), &selected.disclosed, &tiles);
    match written {
        // Why a tile could not be had says more than that it could not.
        Err(MakeError::Log(ProveError::Tree(error))) => tiles.finish(Err(error))?,
        written => written?,
    }
    let mut blobs = BTreeSet::new();
    write_entries::<MakeError>(out, &selected.disclosed, |index, line| {
        bundle.entry(&mut source, index, size, line)?;
        let of = |source| MakeError::Entry { index: index.0, source };
        blobs.extend(decode_with(line, &mut scratch).map_err(of)?.blobs().map(|blob| blob.sha256));
        Ok(())
    })?;
    let disclosed = &selected.disclosed;
    let mut bytes = 0_u64;
    each_disclosure(&mut source, disclosed, |line| {
        bytes = bytes.saturating_add(line.len() as u64);
        Ok(())
    })?;
    write_sidecar(out, bytes, |write| each_disclosure(&mut source, disclosed, write))?;
    each_blob(&mut source, blobs, out)?;
    write_end(out)?;
    Ok(Made { selected, checkpoint, heads: asked })
}

/// Whether the tree can be cut at this size: not within entries that are pruned.
fn can_show<S: Source>(source: &mut Cold<S>, head: TreeSize, size: TreeSize) -> Result<bool, ProveError> {
    let width = TILE_WIDTH as u64;
    let place = usize::try_from(head.0 % width).unwrap_or(0);
    if place == 0 || tiles::width_in(size, 0, head.0 / width) < Bundle::FULL {
        return Ok(true);
    }
    let path = TilePath { kind: TileKind::Hashes { level: 0 }, number: head.0 / width, width: Bundle::FULL };
    if source.read(&path.path(), tiles::TILE_BYTES)?.is_some() {
        return Ok(true);
    }
    Ok(source.kept(head.0 / width)?.is_none_or(|kept| kept.divides_at(place)))
}

/// Hands each line that discloses a value of these entries to `visit`, its line feed included.
fn each_disclosure(
    source: &mut impl Source,
    disclosed: &[Disclosed],
    mut visit: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), MakeError> {
    let bundle_of = |entry: &Disclosed| entry.index.0 / TILE_WIDTH as u64;
    for entries in disclosed.chunk_by(|one, next| bundle_of(one) == bundle_of(next)) {
        let Some(number) = entries.first().map(bundle_of) else { continue };
        let path = tiles::sidecar_path(number);
        let Some(sidecar) = source.read(&path, SIDECAR_BYTES_MAX).map_err(ProveError::Source)? else { continue };
        for line in sidecar.split_inclusive(|byte| *byte == b'\n') {
            // What does not end was not written to its end, and is of no entry that a checkpoint covers.
            let Some(text) = line.strip_suffix(b"\n") else { break };
            let (index, _) =
                Disclosure::decode(text).map_err(|source| MakeError::Sidecar { path: path.clone(), source })?;
            if entries.binary_search_by_key(&index, |entry| entry.index).is_ok() {
                visit(line)?;
            }
        }
    }
    Ok(())
}

/// Copies each blob that is there.
fn each_blob(source: &mut impl Source, blobs: BTreeSet<Digest>, out: &mut impl Write) -> Result<(), MakeError> {
    for digest in blobs {
        let content = source.read(&blob::path(&digest), BLOB_BYTES_MAX).map_err(ProveError::Source)?;
        if let Some(content) = content {
            write_blob(out, &digest, &content)?;
        }
    }
    Ok(())
}

/// The bundle of entries that was read last.
#[derive(Default)]
struct Bundle {
    number: Option<u64>,
    bytes: Vec<u8>,
    /// How many entries it was stored with.
    width: u16,
    path: String,
    /// The places of its entries, where not all are kept.
    places: Option<Vec<u64>>,
}

impl Bundle {
    const FULL: u16 = 256;

    fn read<S: Source>(&mut self, source: &mut Cold<S>, number: u64, size: TreeSize) -> Result<(), ProveError> {
        let width = tiles::width_in(size, 0, number);
        let path = TilePath { kind: TileKind::Entries, number, width };
        *self = match read(source, path, tiles::BUNDLE_BYTES_MAX) {
            Err(ProveError::Missing { path }) if width == Self::FULL => {
                let kept = source.kept(number)?.ok_or_else(|| ProveError::Missing { path: path.clone() })?;
                let (mut bytes, mut places) = (Vec::new(), Vec::new());
                for (place, item) in kept.items() {
                    if let Item::Entry(entry) = item {
                        tiles::push_entry(&mut bytes, entry);
                        places.push(place as u64);
                    }
                }
                let width = u16::try_from(places.len()).unwrap_or(Self::FULL);
                Self { number: Some(number), bytes, width, path, places: Some(places) }
            }
            read => {
                let (bytes, width, path) = read?;
                Self { number: Some(number), bytes, width, path: path.path(), places: None }
            }
        };
        Ok(())
    }

    /// Its entries below this size, with their indexes.
    fn entries(&self, size: TreeSize) -> Result<impl Iterator<Item = (u64, &[u8])>, ProveError> {
        let malformed = |source| ProveError::Malformed { path: self.path.clone(), source };
        let entries = tiles::entries(&self.bytes, self.width).map_err(malformed)?;
        let first = self.number.unwrap_or(0).saturating_mul(TILE_WIDTH as u64);
        let place = |at: usize| match &self.places {
            Some(places) => places.get(at).copied().unwrap_or(u64::MAX),
            None => at as u64,
        };
        let indexed = entries.into_iter().enumerate().map(move |(at, entry)| (first.saturating_add(place(at)), entry));
        Ok(indexed.take_while(move |(index, _)| *index < size.0))
    }

    fn entry<S: Source>(
        &mut self,
        source: &mut Cold<S>,
        index: EntryIndex,
        size: TreeSize,
        line: &mut Vec<u8>,
    ) -> Result<(), MakeError> {
        let number = index.0 / TILE_WIDTH as u64;
        if self.number != Some(number) {
            self.read(source, number, size)?;
        }
        if let Some((_, entry)) = self.entries(size)?.find(|(at, _)| *at == index.0) {
            line.extend_from_slice(entry);
        }
        Ok(())
    }
}
