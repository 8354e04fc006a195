//! Reads the entries of a tiles directory that its newest checkpoint covers.
//!
//! Owns file access to `<state>/log`, nothing else: no signature or hash is checked here. That is
//! the verifier's work; readers on the same host trust the directory as far as its owner, root.
#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use agent_evidence::checkpoint::{Checkpoint, CheckpointError};
use agent_evidence::packed;
use agent_evidence::record::TreeSize;
use agent_evidence::tiles::{self, TileKind, TilePath, TilesError};

use crate::log::cold::{self, ColdError};

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

    /// Hands each entry of `range` to `visit` with its index, in order. `size` is the size of a
    /// checkpoint; the range is cut to it.
    ///
    /// # Errors
    /// A bundle cannot be read, or `visit` fails; the entries before it were visited.
    pub fn each<E: From<SealedError>>(
        &self,
        range: Range<u64>,
        size: u64,
        mut visit: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = range.end.min(size);
        let mut index = range.start;
        while index < end {
            let number = index / BUNDLE_WIDTH;
            let first = number * BUNDLE_WIDTH;
            let (path, bytes, width) = self.bundle(number, size)?;
            let entries = tiles::entries(&bytes, width).map_err(|source| SealedError::Bundle { path, source })?;
            let last = end.min(first + BUNDLE_WIDTH);
            for (at, entry) in (first..last).zip(entries) {
                if at >= index {
                    visit(at, entry)?;
                }
            }
            index = last;
        }
        Ok(())
    }

    /// One entry.
    ///
    /// # Errors
    /// Its bundle cannot be read.
    pub fn entry(&self, index: u64, size: u64) -> Result<Option<Vec<u8>>, SealedError> {
        let mut found = None;
        self.each(index..index.saturating_add(1), size, |_, entry| {
            found = Some(entry.to_vec());
            Ok::<(), SealedError>(())
        })?;
        Ok(found)
    }

    /// The bundle that holds at least what a tree of `size` has of it. A partial bundle may have
    /// been replaced by a wider or the full one since the checkpoint was read; the first entries
    /// are the same in all of them.
    fn bundle(&self, number: u64, size: u64) -> Result<(PathBuf, Vec<u8>, u16), SealedError> {
        let wanted = tiles::width_in(TreeSize(size), 0, number);
        let at = |width| self.directory.join(TilePath { kind: TileKind::Entries, number, width }.path());
        let full = u16::try_from(BUNDLE_WIDTH).unwrap_or(u16::MAX);
        let mut missing = None;
        for width in [wanted, full] {
            let path = at(width);
            match read(&path) {
                Ok(bytes) => return Ok((path, bytes, width)),
                Err(error) if error.is_missing() => missing = missing.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        // A bundle is packed before its plain file is removed.
        match cold::read_bundle(&self.directory, number) {
            Ok(Some(unpacked)) => return Ok((at(full), unpacked.bundle, full)),
            Ok(None) => {}
            Err(source) => {
                return Err(SealedError::Packed {
                    path: self.directory.join(packed::path(number / BUNDLE_WIDTH)),
                    source,
                });
            }
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
                return read(&path).map(|bytes| (path, bytes, width));
            }
        }
        match missing {
            Some(error) => Err(error),
            None => read(&at(full)).map(|bytes| (at(full), bytes, full)),
        }
    }
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
        log.each(range, size, |index, entry| {
            seen.push((index, entry.to_vec()));
            Ok::<(), SealedError>(())
        })
        .unwrap();
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
