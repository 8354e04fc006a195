//! Reads the entries of a tiles directory that its newest checkpoint covers.
//!
//! Owns file access to `<state>/log`, nothing else: no signature or hash is checked here. That is
//! the verifier's work; readers on the same host trust the directory as far as its owner, root.
//!
//! Of a part that was pruned the kept entries are read, and the caller is told which are not there.
#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use agent_evidence::checkpoint::{Checkpoint, CheckpointError};
use agent_evidence::kept::{self, Item, KEPT_BYTES_MAX, Kept, KeptError};
use agent_evidence::packed;
use agent_evidence::record::{self, Body, TreeSize};
use agent_evidence::tiles::{self, TileKind, TilePath, TilesError};

use crate::log::cold::{self, ColdError};
use crate::log::prune;

/// Entries in a full bundle (C2SP tlog-tiles).
pub const BUNDLE_WIDTH: u64 = 256;

/// Why the sealed log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The checkpoint is none.
    #[error("{path} is not a checkpoint: {source}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Which rule it breaks.
        source: CheckpointError,
    },
    /// A packed segment cannot be read.
    #[error("cannot read the packed segment {path}: {source}")]
    Packed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ColdError,
    },
    /// A file of kept entries is none.
    #[error("{path} does not hold kept entries: {source}")]
    Kept {
        /// The file.
        path: PathBuf,
        /// Which rule it breaks.
        source: KeptError,
    },
    /// A bundle is not what its name says.
    #[error("{path} is not a bundle of entries: {source}")]
    Bundle {
        /// The file.
        path: PathBuf,
        /// Which rule it breaks.
        source: TilesError,
    },
}

impl SealedError {
    /// Whether what was looked for does not exist (a log not created yet, a bundle pruned).
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What the newest checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The log's origin.
    pub origin: String,
    /// How many entries are sealed.
    pub size: u64,
}

/// Which entries of a range are not there any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct Absent {
    /// How many.
    pub count: u64,
    /// The first and the last of them.
    pub between: Option<(u64, u64)>,
}

impl Absent {
    fn add(&mut self, first: u64, count: u64) {
        if count > 0 {
            self.count += count;
            let last = first + count - 1;
            self.between = Some(self.between.map_or((first, last), |(from, _)| (from, last)));
        }
    }

    /// What to tell who asked for the range; nothing when all of it is there.
    #[must_use]
    pub fn note(&self, log: &SealedLog, size: u64) -> Option<String> {
        let (from, to) = self.between?;
        let by = match log.pruned(size) {
            Ok(Some(pruned)) => format!("were pruned by entry {} ({})", pruned.record, pruned.rule),
            _ => "are not there, and no entry that says so was found; run `affiant verify`".to_owned(),
        };
        let kept = to - from + 1 - self.count;
        let kept =
            if kept == 0 { String::new() } else { format!(" of these places; {kept} others between them are kept") };
        Some(match from == to {
            true => format!("1 entry, #{from}, {by}"),
            false => format!("{} entries, #{from} to #{to}, {by}{kept}", self.count),
        })
    }
}

/// What the newest `pruned` entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunedBy {
    /// Its index.
    pub record: u64,
    /// The first entry that is kept whole.
    pub first: u64,
    /// How many before are kept for their kind.
    pub kept: u64,
    /// By which rule.
    pub rule: String,
}

/// What is there of a bundle.
enum Held {
    Whole {
        path: PathBuf,
        bytes: Vec<u8>,
        width: u16,
    },
    /// It was pruned.
    Kept,
}

/// A tiles directory.
#[derive(Debug, Clone)]
pub struct SealedLog {
    directory: PathBuf,
}

impl SealedLog {
    /// A reader of this directory; nothing is opened yet.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn head(&self) -> Result<Head, SealedError> {
        let path = self.directory.join("checkpoint");
        let bytes = read(&path)?;
        let (checkpoint, _note) =
            Checkpoint::parse(&bytes).map_err(|source| SealedError::Checkpoint { path, source })?;
        Ok(Head { origin: checkpoint.origin.as_str().to_owned(), size: checkpoint.size.0 })
    }

    /// Hands each entry of `range` that is there to `visit` with its index, in order, and says which were pruned.
    /// `size` is the size of a checkpoint; the range is cut to it.
    ///
    /// # Errors
    /// A bundle cannot be read, or `visit` fails; the entries before it were visited.
    pub fn each<E: From<SealedError>>(
        &self,
        range: Range<u64>,
        size: u64,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<Absent, E> {
        let end = range.end.min(size);
        let mut index = range.start;
        let mut absent = Absent::default();
        let mut kept: Option<(u64, Kept)> = None;
        while index < end {
            let number = index / BUNDLE_WIDTH;
            let first = number * BUNDLE_WIDTH;
            let last = end.min(first + BUNDLE_WIDTH);
            match self.bundle(number, size, &mut kept)? {
                Held::Whole { path, bytes, width } => {
                    let entries =
                        tiles::entries(&bytes, width).map_err(|source| SealedError::Bundle { path, source })?;
                    for (at, entry) in (first..last).zip(entries) {
                        if at >= index {
                            visit(at, entry)?;
                        }
                    }
                }
                Held::Kept => {
                    let bundle = kept.as_ref().and_then(|(_, kept)| kept.bundle(place_in_segment(number)));
                    for (place, item) in bundle.iter().flat_map(kept::KeptBundle::items) {
                        let at = first + place as u64;
                        match item {
                            Item::Entry(entry) if (index..last).contains(&at) => visit(at, entry)?,
                            Item::Entry(_) => {}
                            Item::Withheld { .. } => {
                                let (from, to) = (at.max(index), (at + item.entries() as u64).min(last));
                                absent.add(from, to.saturating_sub(from));
                            }
                        }
                    }
                }
            }
            index = last;
        }
        Ok(absent)
    }

    /// What the newest `pruned` entry says that a checkpoint of this size covers, by the log's own pointer to it.
    ///
    /// # Errors
    /// The pointer or the entry cannot be read.
    pub fn pruned(&self, size: u64) -> Result<Option<PrunedBy>, SealedError> {
        let pointer = match read(&self.directory.join(prune::POINTER)) {
            Ok(bytes) => bytes,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error),
        };
        for index in prune::candidates(&pointer) {
            let Some(entry) = self.entry(index, size)? else { continue };
            if let Ok(record) = record::decode(&entry)
                && let Body::Pruned(pruned) = record.body()
            {
                return Ok(Some(PrunedBy {
                    record: index,
                    first: pruned.first.0,
                    kept: pruned.kept,
                    rule: pruned.rule.display(),
                }));
            }
        }
        Ok(None)
    }

    /// One entry; nothing when there is none, or it was pruned.
    ///
    /// # Errors
    /// Its bundle cannot be read.
    pub fn entry(&self, index: u64, size: u64) -> Result<Option<Vec<u8>>, SealedError> {
        let mut found = None;
        let _pruned = self.each(index..index.saturating_add(1), size, |_, entry| {
            found = Some(entry.to_vec());
            Ok::<(), SealedError>(())
        })?;
        Ok(found)
    }

    /// The bundle that holds at least what a tree of `size` has of it. A partial bundle may have
    /// been replaced by a wider or the full one since the checkpoint was read; the first entries
    /// are the same in all of them.
    fn bundle(&self, number: u64, size: u64, kept: &mut Option<(u64, Kept)>) -> Result<Held, SealedError> {
        let wanted = tiles::width_in(TreeSize(size), 0, number);
        let at = |width| self.directory.join(TilePath { kind: TileKind::Entries, number, width }.path());
        let full = u16::try_from(BUNDLE_WIDTH).unwrap_or(u16::MAX);
        let mut missing = None;
        for width in [wanted, full] {
            let path = at(width);
            match read(&path) {
                Ok(bytes) => return Ok(Held::Whole { path, bytes, width }),
                Err(error) if error.is_missing() => missing = missing.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        // A bundle is packed before its plain file is removed.
        match cold::read_bundle(&self.directory, number) {
            Ok(Some(unpacked)) => return Ok(Held::Whole { path: at(full), bytes: unpacked.bundle, width: full }),
            Ok(None) => {}
            Err(source) => {
                return Err(SealedError::Packed {
                    path: self.directory.join(packed::path(number / BUNDLE_WIDTH)),
                    source,
                });
            }
        }
        // Kept entries are in their place before what they are of is removed.
        if self.is_kept(number, kept)? {
            return Ok(Held::Kept);
        }
        // `wanted` is a valid width below 256 here, so its path has the directory of the partials.
        if let Some(partials) = at(wanted).parent()
            && let Ok(names) = std::fs::read_dir(partials)
        {
            let wider = names
                .filter_map(|name| name.ok()?.file_name().to_str()?.parse::<u16>().ok())
                .filter(|&width| width >= wanted && width < full)
                .min();
            if let Some(width) = wider {
                let path = at(width);
                return read(&path).map(|bytes| Held::Whole { path, bytes, width });
            }
        }
        match missing {
            Some(error) => Err(error),
            None => read(&at(full)).map(|bytes| Held::Whole { path: at(full), bytes, width: full }),
        }
    }

    /// Whether a file of kept entries stands for a bundle; leaves it in `kept`.
    fn is_kept(&self, number: u64, kept: &mut Option<(u64, Kept)>) -> Result<bool, SealedError> {
        let segment = number / packed::SEGMENT_BUNDLES as u64;
        let reaches = |kept: &Kept| kept.bundle(place_in_segment(number)).is_some();
        if let Some((_, held)) = kept.as_ref().filter(|(held, _)| *held == segment)
            && reaches(held)
        {
            return Ok(true);
        }
        let path = self.directory.join(kept::path(segment));
        let bytes = match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Ok(file) if file.len() > KEPT_BYTES_MAX as u64 => {
                let source = KeptError::TooLarge(usize::try_from(file.len()).unwrap_or(usize::MAX));
                return Err(SealedError::Kept { path, source });
            }
            _ => read(&path)?,
        };
        let parsed = Kept::parse(&bytes).map_err(|source| SealedError::Kept { path, source })?;
        let reached = reaches(&parsed);
        *kept = Some((segment, parsed));
        Ok(reached)
    }
}

/// Which bundle of its segment a bundle is.
fn place_in_segment(number: u64) -> usize {
    usize::try_from(number % packed::SEGMENT_BUNDLES as u64).unwrap_or(0)
}

fn read(path: &Path) -> Result<Vec<u8>, SealedError> {
    std::fs::read(path).map_err(|source| SealedError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
pub(crate) mod testlog {
    //! A tiles directory for tests: entries and a checkpoint that nobody has signed properly.
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use super::*;

    /// Writes the bundles of `entries` and a checkpoint over the first `size` of them.
    pub(crate) fn write(directory: &Path, origin: &str, entries: &[Vec<u8>], size: u64) {
        for (number, chunk) in entries.chunks(256).enumerate() {
            let mut bundle = Vec::new();
            for entry in chunk {
                tiles::push_entry(&mut bundle, entry);
            }
            let tile =
                TilePath { kind: TileKind::Entries, number: number as u64, width: u16::try_from(chunk.len()).unwrap() };
            let path = directory.join(tile.path());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bundle).unwrap();
        }
        // A signature line of the right form; this reader does not check it.
        let note = format!(
            "{origin}\n{size}\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\u{2014} {origin} {}\n",
            base64_of_zeros()
        );
        std::fs::write(directory.join("checkpoint"), note).unwrap();
    }

    /// Base64 of 68 zero bytes: a key id and an Ed25519 signature.
    fn base64_of_zeros() -> String {
        let mut text = "A".repeat(91);
        text.push('=');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visited(log: &SealedLog, range: Range<u64>, size: u64) -> Vec<(u64, Vec<u8>)> {
        let mut seen = Vec::new();
        let absent = log.each(range, size, |index, entry| {
            seen.push((index, entry.to_vec()));
            Ok::<(), SealedError>(())
        });
        assert_eq!(absent.unwrap(), Absent::default());
        seen
    }

    fn numbered(count: u64) -> Vec<Vec<u8>> {
        (0..count).map(|n| n.to_string().into_bytes()).collect()
    }

    #[test]
    fn a_range_across_bundles_is_read_in_order() {
        let directory = tempfile::tempdir().unwrap();
        testlog::write(directory.path(), "o", &numbered(600), 600);
        let log = SealedLog::new(directory.path().into());
        assert_eq!(log.head().unwrap(), Head { origin: "o".into(), size: 600 });
        let seen = visited(&log, 250..600, 600);
        assert_eq!(seen.len(), 350);
        assert!(seen.iter().all(|(index, entry)| *entry == index.to_string().into_bytes()));
        assert_eq!(log.entry(599, 600).unwrap().unwrap(), b"599");
    }

    #[test]
    fn what_the_checkpoint_does_not_cover_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        testlog::write(directory.path(), "o", &numbered(10), 7);
        let log = SealedLog::new(directory.path().into());
        let head = log.head().unwrap();
        assert_eq!(visited(&log, 0..u64::MAX, head.size).len(), 7);
        assert_eq!(log.entry(8, head.size).unwrap(), None);
    }

    #[test]
    fn a_partial_bundle_that_became_full_since_is_still_read() {
        let directory = tempfile::tempdir().unwrap();
        testlog::write(directory.path(), "o", &numbered(256), 256);
        let log = SealedLog::new(directory.path().into());
        assert_eq!(visited(&log, 0..256, 100).len(), 100);
    }

    #[test]
    fn a_directory_without_a_log_is_missing_and_garbage_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let log = SealedLog::new(directory.path().into());
        assert!(log.head().unwrap_err().is_missing());
        std::fs::write(directory.path().join("checkpoint"), "garbage").unwrap();
        assert!(matches!(log.head().unwrap_err(), SealedError::Checkpoint { .. }));
    }
}
