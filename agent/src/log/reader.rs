//! Reading a log's directory while another process writes it: for exporters, `tail`, `timeline` and bundles.
//!
//! Owns: finding an entry's bytes. It verifies nothing: what it returns is what the directory says, and whoever
//! can write the directory decides that. Verification is `agent_evidence`'s.
//!
//! Safe beside a sealing writer: only entries below the size of a checkpoint that was read are looked for, a
//! checkpoint becomes visible after everything it covers, and a partial bundle is removed only when the full one
//! is there (C2SP tlog-tiles), so a name that vanished between two calls is found under the full name.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use agent_evidence::checkpoint::{Checkpoint, CheckpointError};
use agent_evidence::record::{EntryIndex, TreeSize};
use agent_evidence::tiles::{TileKind, TilePath, width_in};
use agent_evidence::tree::TILE_WIDTH;

use super::cold::{self, ColdError};
use super::wal;

/// Why a log's directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no checkpoint: not a log, or one that was never sealed.
    #[error("{0} holds no log: it has no checkpoint")]
    NoLog(PathBuf),
    /// The system refused.
    #[error("cannot read {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The checkpoint is malformed.
    #[error("cannot read the checkpoint in {dir}")]
    Checkpoint {
        /// The log's directory.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: CheckpointError,
    },
    /// The log is now smaller than it was.
    #[error("the log had {had} entries and now has {has}: it was rolled back or replaced")]
    Shrunk {
        /// Size read before.
        had: u64,
        /// Size read now.
        has: u64,
    },
    /// The checkpoint covers entries whose bundle is not there.
    #[error("entries from {first} on are not in {path}: the directory is incomplete")]
    Missing {
        /// First entry that is missing.
        first: u64,
        /// Where they should be.
        path: PathBuf,
    },
    /// A packed segment could not be read.
    #[error("cannot read bundle {number} out of its packed segment in {dir}")]
    Packed {
        /// The log's directory.
        dir: PathBuf,
        /// Number of the bundle.
        number: u64,
        /// Why.
        #[source]
        source: ColdError,
    },
    /// A bundle ends inside an entry, or has too few.
    #[error("{path} has {seen} whole entries, {expected} were expected")]
    Bundle {
        /// Which bundle.
        path: PathBuf,
        /// Entries needed.
        expected: usize,
        /// Whole entries found.
        seen: usize,
    },
}

/// A log's directory (`checkpoint`, `tile/...`), as of the checkpoint read last.
#[derive(Debug, Clone)]
pub struct Reader {
    dir: PathBuf,
    checkpoint: Checkpoint,
    note: Vec<u8>,
}

impl Reader {
    /// Opens a log's directory and reads its checkpoint, without verifying it.
    ///
    /// # Errors
    /// [`ReadError::NoLog`], [`ReadError::Io`], [`ReadError::Checkpoint`].
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        let (checkpoint, note) = read_checkpoint(dir)?;
        Ok(Self { dir: dir.to_owned(), checkpoint, note })
    }

    /// Reads the checkpoint again; `true` when the log has grown.
    ///
    /// # Errors
    /// As [`Reader::open`], and [`ReadError::Shrunk`].
    pub fn refresh(&mut self) -> Result<bool, ReadError> {
        let (checkpoint, note) = read_checkpoint(&self.dir)?;
        let (had, has) = (self.checkpoint.size, checkpoint.size);
        if has < had {
            return Err(ReadError::Shrunk { had: had.0, has: has.0 });
        }
        self.checkpoint = checkpoint;
        self.note = note;
        Ok(has > had)
    }

    /// How many entries there are.
    #[must_use]
    pub fn size(&self) -> TreeSize {
        self.checkpoint.size
    }

    /// What the checkpoint says, unverified.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The bytes of the signed checkpoint.
    #[must_use]
    pub fn checkpoint_note(&self) -> &[u8] {
        &self.note
    }

    /// The log's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The entries `from..to`, as far as the checkpoint read last covers them.
    #[must_use]
    pub fn entries(&self, from: EntryIndex, to: TreeSize) -> Entries<'_> {
        let end = to.0.min(self.checkpoint.size.0);
        Entries { reader: self, next: from.0, end, bundle: Vec::new(), position: 0, held: 0 }
    }

    /// Calls `each` for the entries `from..to` in order, until it breaks.
    ///
    /// # Errors
    /// As [`Entries::advance`].
    pub fn for_each(
        &self,
        from: EntryIndex,
        to: TreeSize,
        mut each: impl FnMut(EntryIndex, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut entries = self.entries(from, to);
        while let Some((index, entry)) = entries.advance()? {
            if each(index, entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The bytes of one entry, or `None` when the checkpoint read last does not cover it.
    ///
    /// # Errors
    /// As [`Entries::advance`].
    pub fn entry(&self, index: EntryIndex) -> Result<Option<Vec<u8>>, ReadError> {
        let mut entries = self.entries(index, index.size_including());
        Ok(entries.advance()?.map(|(_, entry)| entry.to_vec()))
    }

    /// The bundle that holds entry `number * 256`, with at least the entries that the checkpoint covers.
    fn bundle(&self, number: u64) -> Result<Vec<u8>, ReadError> {
        let width = width_in(self.checkpoint.size, 0, number);
        let full = TilePath { kind: TileKind::Entries, number, width: FULL };
        let partial = TilePath { width, ..full };
        for tile in if width == FULL { [full, full] } else { [partial, full] } {
            let path = self.dir.join(tile.path());
            match fs::read(&path) {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ReadError::Io { path, source }),
            }
        }
        // A bundle is packed before its plain file is removed.
        match cold::read_bundle(&self.dir, number) {
            Ok(Some(unpacked)) => return Ok(unpacked.bundle),
            Ok(None) => {}
            Err(source) => return Err(ReadError::Packed { dir: self.dir.clone(), number, source }),
        }
        Err(ReadError::Missing { first: number * TILE_WIDTH as u64, path: self.dir.join(partial.path()) })
    }
}

/// Width of a full tile or bundle.
const FULL: u16 = 256;

fn read_checkpoint(dir: &Path) -> Result<(Checkpoint, Vec<u8>), ReadError> {
    let path = dir.join("checkpoint");
    let bytes = fs::read(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReadError::NoLog(dir.to_owned()),
        _ => ReadError::Io { path, source },
    })?;
    let (checkpoint, _) =
        Checkpoint::parse(&bytes).map_err(|source| ReadError::Checkpoint { dir: dir.to_owned(), source })?;
    Ok((checkpoint, bytes))
}

/// Goes through entries, holding one bundle (at most 16 MiB, typically 100 KiB) at a time.
#[derive(Debug)]
pub struct Entries<'r> {
    reader: &'r Reader,
    /// Index of the entry that comes next.
    next: u64,
    end: u64,
    bundle: Vec<u8>,
    /// Where in the bundle the next entry begins.
    position: usize,
    /// Index after the last entry of the bundle that is wanted; 0 when none is held.
    held: u64,
}

impl Entries<'_> {
    /// The next entry and its bytes, which are valid until the next call; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError::Io`], [`ReadError::Missing`], [`ReadError::Bundle`].
    pub fn advance(&mut self) -> Result<Option<(EntryIndex, &[u8])>, ReadError> {
        if self.next >= self.end {
            return Ok(None);
        }
        if self.next >= self.held {
            self.load()?;
        }
        let index = self.next;
        let start = self.position;
        let Some(len) = self.step() else {
            return Err(self.short(index));
        };
        self.next += 1;
        Ok(self.bundle.get(start + 2..start + 2 + len).map(|entry| (EntryIndex(index), entry)))
    }

    /// Loads the bundle of the next entry and skips the entries before it.
    fn load(&mut self) -> Result<(), ReadError> {
        let width = TILE_WIDTH as u64;
        let number = self.next / width;
        self.bundle = self.reader.bundle(number)?;
        self.position = 0;
        self.held = (number + 1) * width;
        for index in number * width..self.next {
            if self.step().is_none() {
                return Err(self.short(index));
            }
        }
        Ok(())
    }

    /// Moves over one entry and gives its length.
    fn step(&mut self) -> Option<usize> {
        let entry = wal::Entries(self.bundle.get(self.position..)?).next()??;
        let len = entry.len();
        self.position += 2 + len;
        Some(len)
    }

    fn short(&self, index: u64) -> ReadError {
        let number = index / TILE_WIDTH as u64;
        let width = width_in(self.reader.size(), 0, number);
        let path = TilePath { kind: TileKind::Entries, number, width };
        ReadError::Bundle {
            path: self.reader.dir.join(path.path()),
            expected: usize::from(width),
            seen: usize::try_from(index % TILE_WIDTH as u64).unwrap_or(0),
        }
    }
}
