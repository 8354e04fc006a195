//! A source that also finds what is in packed segments and files of kept entries (FORMAT.md, sections 4.1 and 4.2).
//!
//! Owns: where a plain full bundle or level-0 tile is not there, the one that the packed segment gives. What a plain file says
//! goes before what a segment says. What is kept of a pruned bundle is asked for by itself, by whoever found no bundle. A file
//! that is malformed gives nothing, and says so once.

use crate::kept::{self, KEPT_BYTES_MAX, Kept, KeptBundle};
use crate::packed::{self, PackedError, Segment, Unpacked};
use crate::record::EntryIndex;
use crate::tiles::{TileKind, TilePath};
use crate::tree::TILE_WIDTH;

use super::{Finding, Source, SourceError};

/// A source and the segment that was looked into last: a verifier goes through a log from one end to the other.
#[derive(Debug)]
pub struct Cold<S> {
    source: S,
    segment: Option<(u64, Option<Segment>)>,
    bundle: Option<(u64, Option<Unpacked>)>,
    kept: Option<(u64, Option<Kept>)>,
    malformed: Vec<Finding>,
}

impl<S: Source> Cold<S> {
    /// This source, and what is in its packed segments.
    pub fn new(source: S) -> Self {
        Self { source, segment: None, bundle: None, kept: None, malformed: Vec::new() }
    }

    /// What is wrong with the segments that were looked into since the last call.
    pub(super) fn malformed(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.malformed)
    }

    /// What is kept of the bundle of this number. Whoever asks has found it neither plain nor packed.
    ///
    /// # Errors
    /// When the file exists or may exist and could not be read.
    pub fn kept(&mut self, number: u64) -> Result<Option<KeptBundle<'_>>, SourceError> {
        let (file, bundle) = (number / kept::KEPT_BUNDLES as u64, number % kept::KEPT_BUNDLES as u64);
        if self.kept.as_ref().is_none_or(|(held, _)| *held != file) {
            // The one before is not needed beside the new one.
            self.kept = None;
            let path = kept::path(file);
            let read = match self.source.read(&path, KEPT_BYTES_MAX)?.map(|bytes| Kept::parse(&bytes)) {
                Some(Err(error)) => {
                    let first = EntryIndex(file.saturating_mul((kept::KEPT_BUNDLES * TILE_WIDTH) as u64));
                    self.malformed.push(Finding::KeptMalformed { path, first, reason: error.to_string() });
                    None
                }
                Some(Ok(kept)) => Some(kept),
                None => None,
            };
            self.kept = Some((file, read));
        }
        let kept = self.kept.as_ref().and_then(|(_, kept)| kept.as_ref());
        Ok(kept.and_then(|kept| kept.bundle(usize::try_from(bundle).ok()?)))
    }

    /// The bundle of this number, if a segment holds it.
    fn bundle(&mut self, number: u64) -> Result<Option<&Unpacked>, SourceError> {
        if self.bundle.as_ref().is_none_or(|(held, _)| *held != number) {
            let bundles = packed::SEGMENT_BUNDLES as u64;
            let block = usize::try_from(number % bundles).unwrap_or(0);
            let unpacked = match self.segment(number / bundles)?.map(|segment| segment.bundle(block)) {
                Some(Err(error)) => {
                    self.report(number / bundles, number, &error);
                    None
                }
                Some(Ok(unpacked)) => unpacked,
                None => None,
            };
            self.bundle = Some((number, unpacked));
        }
        Ok(self.bundle.as_ref().and_then(|(_, unpacked)| unpacked.as_ref()))
    }

    fn segment(&mut self, number: u64) -> Result<Option<&Segment>, SourceError> {
        if self.segment.as_ref().is_none_or(|(held, _)| *held != number) {
            let bytes = self.source.read(&packed::path(number), packed::SEGMENT_BYTES_MAX)?;
            let segment = match bytes.map(Segment::parse) {
                Some(Err(error)) => {
                    self.report(number, number * packed::SEGMENT_BUNDLES as u64, &error);
                    None
                }
                Some(Ok(segment)) => Some(segment),
                None => None,
            };
            self.segment = Some((number, segment));
        }
        Ok(self.segment.as_ref().and_then(|(_, segment)| segment.as_ref()))
    }

    fn report(&mut self, segment: u64, bundle: u64, error: &PackedError) {
        let first = EntryIndex(bundle.saturating_mul(TILE_WIDTH as u64));
        self.malformed.push(Finding::SegmentMalformed {
            path: packed::path(segment),
            first,
            reason: super::reason(error),
        });
    }
}

impl<S: Source> Source for Cold<S> {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        if let Some(bytes) = self.source.read(path, bytes_max)? {
            return Ok(Some(bytes));
        }
        let Ok(TilePath { kind, number, width }) = TilePath::parse(path) else { return Ok(None) };
        if usize::from(width) < TILE_WIDTH {
            return Ok(None);
        }
        Ok(match kind {
            TileKind::Entries => self.bundle(number)?.map(|unpacked| unpacked.bundle.clone()),
            TileKind::Hashes { level: 0 } => self.bundle(number)?.map(|unpacked| unpacked.leaves.concat()),
            TileKind::Hashes { .. } => None,
        })
    }
}
