//! The logs of what was measured into the TPM, as the kernel gives them: the firmware's event log and the measurement list
//! (IMA), cut into parts that become blobs and `measured` entries.
//!
//! Owns reading and cutting, and nothing of the log of evidence: whoever calls it stores the parts. The bytes are not
//! looked at here; a verifier replays them against quoted registers.
//!
//! The event log does not change after boot and is read once. The measurement list grows without end, and making the kernel
//! list it again costs time under its lock: so the file is opened once and read on. The kernel gives a descriptor that has
//! come to the end what was added since (seq_file; seen with Linux 6.12).
//!
//! Invariant: the parts of one log follow each other without a gap from byte 0 on, each of at most [`PART_BYTES_MAX`].

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use agent_evidence::attest::{event_log, ima};
use agent_evidence::record::MeasuredLog;

/// Where securityfs is mounted.
const SECURITYFS: &str = "/sys/kernel/security";
/// The event log, below it.
const EVENT_LOG: &str = "tpm0/binary_bios_measurements";
/// The measurement list, below it.
const IMA: &str = "ima/binary_runtime_measurements";

/// Most bytes of one part: what is held in memory at a time.
pub const PART_BYTES_MAX: usize = 1 << 20;
/// Longest event log that is read. Usual ones have less than 0.2 MiB.
pub const EVENT_LOG_BYTES_MAX: u64 = 16 << 20;
/// Longest measurement list of one run that is read: what a verifier reads of it.
pub const IMA_BYTES_MAX: u64 = ima::LIST_BYTES_MAX;

const _: () = assert!(EVENT_LOG_BYTES_MAX <= event_log::LOG_BYTES_MAX as u64);

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasuredError {
    /// The file could not be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is longer than is kept.
    #[error("{} has more than {bytes_max} bytes: what follows is not kept", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
        /// How much is kept.
        bytes_max: u64,
    },
}

/// A part of a log: content and place of a `measured` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which log.
    pub log: MeasuredLog,
    /// The content.
    pub bytes: Vec<u8>,
    /// Where in the log it begins, in bytes.
    pub from: u64,
    /// Whether the log was read to its end of that moment.
    pub complete: bool,
}

/// Reads one log, part after part.
#[derive(Debug)]
pub struct Reader {
    log: MeasuredLog,
    path: PathBuf,
    file: Option<File>,
    bytes_max: u64,
    from: u64,
    /// Whether the latest part was complete: then an empty one says nothing new.
    said_complete: bool,
}

impl Reader {
    /// Of the firmware's event log.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn event_log() -> Result<Self, MeasuredError> {
        Self::open(MeasuredLog::EventLog, &Path::new(SECURITYFS).join(EVENT_LOG), EVENT_LOG_BYTES_MAX)
    }

    /// Of the kernel's measurement list.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn ima() -> Result<Self, MeasuredError> {
        Self::open(MeasuredLog::Ima, &Path::new(SECURITYFS).join(IMA), IMA_BYTES_MAX)
    }

    /// Of a file that may not be there: then nothing comes out of it. At most `bytes_max` are read.
    ///
    /// # Errors
    /// [`MeasuredError::Read`] when the file is there and cannot be opened.
    pub fn open(log: MeasuredLog, path: &Path, bytes_max: u64) -> Result<Self, MeasuredError> {
        let file = match File::open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(MeasuredError::Read { path: path.to_owned(), source }),
        };
        Ok(Self { log, path: path.to_owned(), file, bytes_max, from: 0, said_complete: false })
    }

    /// Whether the host has this log.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.file.is_some()
    }

    /// What was added since the last part; nothing when there is nothing new. Call it again until it gives nothing or a
    /// part that is complete.
    ///
    /// # Errors
    /// [`MeasuredError`]. After one, nothing more comes out of it: a part that is missing must not be followed by another.
    pub fn read_on(&mut self) -> Result<Option<Part>, MeasuredError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let mut bytes = Vec::new();
        let limit = PART_BYTES_MAX as u64;
        if let Err(source) = file.by_ref().take(limit).read_to_end(&mut bytes) {
            self.file = None;
            return Err(MeasuredError::Read { path: self.path.clone(), source });
        }
        let len = bytes.len() as u64;
        let complete = len < limit;
        if self.from.saturating_add(len) > self.bytes_max {
            self.file = None;
            return Err(MeasuredError::TooLong { path: self.path.clone(), bytes_max: self.bytes_max });
        }
        if bytes.is_empty() && (self.said_complete || self.from == 0) {
            return Ok(None);
        }
        let part = Part { log: self.log, bytes, from: self.from, complete };
        self.from += len;
        self.said_complete = complete;
        Ok(Some(part))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn reader(path: &Path, bytes_max: u64) -> Reader {
        Reader::open(MeasuredLog::Ima, path, bytes_max).unwrap()
    }

    #[test]
    fn only_what_was_added_is_read() {
        let mut list = tempfile::NamedTempFile::new().unwrap();
        let mut reader = reader(list.path(), IMA_BYTES_MAX);
        assert!(reader.is_there());
        assert_eq!(reader.read_on().unwrap(), None, "a list without entries");
        let mut parts = Vec::new();
        for text in ["one", "two, longer", ""] {
            list.write_all(text.as_bytes()).unwrap();
            parts.extend(reader.read_on().unwrap());
        }
        let part = |bytes: &str, from| Part { log: MeasuredLog::Ima, bytes: bytes.into(), from, complete: true };
        assert_eq!(parts, [part("one", 0), part("two, longer", 3)]);
        assert_eq!(reader.read_on().unwrap(), None);
    }

    #[test]
    fn a_long_log_comes_in_parts_that_follow_each_other() {
        let mut list = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..2 * PART_BYTES_MAX).map(|at| u8::try_from(at % 251).unwrap()).collect();
        list.write_all(&content).unwrap();
        let mut reader = reader(list.path(), IMA_BYTES_MAX);
        let parts: Vec<Part> = std::iter::from_fn(|| reader.read_on().unwrap()).collect();
        let shape: Vec<_> = parts.iter().map(|part| (part.from, part.bytes.len(), part.complete)).collect();
        let size = PART_BYTES_MAX;
        // An empty part says that the end was there, where the parts before it could not.
        assert_eq!(shape, [(0, size, false), (size as u64, size, false), (2 * size as u64, 0, true)]);
        assert_eq!(parts.into_iter().flat_map(|part| part.bytes).collect::<Vec<u8>>(), content);
    }

    #[test]
    fn a_log_without_end_is_given_up_and_not_kept_with_a_hole() {
        let mut list = tempfile::NamedTempFile::new().unwrap();
        list.write_all(&[0; 10]).unwrap();
        let mut reader = reader(list.path(), 12);
        assert_eq!(reader.read_on().unwrap().map(|part| part.bytes.len()), Some(10));
        list.write_all(&[0; 10]).unwrap();
        assert!(matches!(reader.read_on(), Err(MeasuredError::TooLong { bytes_max: 12, .. })));
        assert_eq!(reader.read_on().unwrap(), None);
    }

    #[test]
    fn a_host_without_the_log_has_none() {
        let mut missing = reader(Path::new("/nonexistent/list"), IMA_BYTES_MAX);
        assert!(!missing.is_there());
        assert_eq!(missing.read_on().unwrap(), None);
        let directory = tempfile::tempdir().unwrap();
        let mut reader = reader(directory.path(), IMA_BYTES_MAX);
        assert!(matches!(reader.read_on(), Err(MeasuredError::Read { .. })));
        assert_eq!(reader.read_on().unwrap(), None);
    }
}
