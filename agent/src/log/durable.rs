//! What survives a power cut: the order of file operations, and the rules about their failure.
//!
//! Owns [`Durable`], which puts the operations of a [`Disk`] in the only order that promises anything: temporary
//! file, write, fsync, rename, fsync of the directory. It knows nothing of entries, tiles or checkpoints.
//!
//! Invariant: after a failed fsync, rename or read-back nothing is tried again. Linux marks pages clean after a
//! failed write-back, so a second fsync that succeeds proves nothing ("Can Applications Recover from fsync
//! Failures?", Rebello et al., USENIX ATC 2020; <https://wiki.postgresql.org/wiki/Fsync_Errors>). A [`Durable`]
//! that saw such a failure is poisoned for good; only a new process, which reads back what is there and writes
//! again what no fsync vouches for, goes on. The one failure that is not fatal is "no space": nothing was
//! promised, and the same bytes are written again.
//!
//! Trust: the state directory is trusted against the workloads (mode 0750, owned by root), not against root.

use std::io;

use super::disk::{Disk, DiskOp};

/// Why something could not be made durable.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// No space, quota or inode is left, also after the reserve was given up. Nothing was promised: the same
    /// operation may be tried again.
    #[error("no space to {op} {path}: free space on the file system of the state directory")]
    Full {
        /// What was tried.
        op: DiskOp,
        /// On which file.
        path: String,
        /// As the system says it.
        #[source]
        source: io::Error,
    },
    /// The state of the disk is not known any more. Never retried: stop, and let the next start read back.
    #[error("cannot {op} {path}: what is on the disk is not known any more")]
    Fatal {
        /// What was tried.
        op: DiskOp,
        /// On which file.
        path: String,
        /// As the system says it.
        #[source]
        source: io::Error,
    },
    /// An earlier failure was fatal.
    #[error("refused after an earlier failure: {first}")]
    Poisoned {
        /// The failure.
        first: String,
    },
}

/// Name of the reserve file: blocks given up when the disk is full, so that the last records can be written.
const RESERVE: &str = "reserve";
/// Where temporary files are made: beside the log, not in it, so that a copy of the log has none.
pub(super) const TMP: &str = "tmp";

/// A disk with the recipe and the rules on top. See the module's document.
pub struct Durable<D: Disk> {
    disk: D,
    poisoned: Option<String>,
    /// Number of the next temporary file of this process.
    temp_next: u64,
    reserve_held: bool,
    /// Whether what runs now is worth the reserve.
    reserve_kept: bool,
}

impl<D: Disk> Durable<D> {
    /// Wraps a disk; touches nothing.
    pub fn new(disk: D) -> Self {
        Self { disk, poisoned: None, temp_next: 0, reserve_held: false, reserve_kept: false }
    }

    /// The failure after which everything is refused, if there was one.
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Whether the reserve is still there.
    pub fn reserve_held(&self) -> bool {
        self.reserve_held
    }

    /// Takes the lock of the state directory. A lock held by another is reported as
    /// [`DurableError::Fatal`] with [`io::ErrorKind::WouldBlock`] and poisons nothing that exists.
    pub fn lock(&mut self, path: &str) -> Result<D::Lock, DurableError> {
        self.check()?;
        let lock = self.disk.lock(path);
        lock.map_err(|source| self.fail(DiskOp::Lock, path, source))
    }

    /// Makes a directory if it is not there. Its name is durable after the parent's `sync_dir`.
    pub fn ensure_dir(&mut self, path: &str) -> Result<(), DurableError> {
        self.check()?;
        match self.with_reserve(|disk| disk.create_dir(path)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(|source| self.fail(DiskOp::CreateDir, path, source)),
        }
    }

    /// Makes the names in a directory durable.
    pub fn sync_dir(&mut self, dir: &str) -> Result<(), DurableError> {
        self.check()?;
        let done = self.disk.sync_dir(dir);
        done.map_err(|source| self.fail_always(DiskOp::SyncDir, dir, source))
    }

    /// Makes the names in a directory durable; one that is not there is fine.
    pub fn sync_dir_if_there(&mut self, dir: &str) -> Result<(), DurableError> {
        self.check()?;
        match self.disk.sync_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| self.fail_always(DiskOp::SyncDir, dir, source)),
        }
    }

    /// Prepares the directory of temporary files and removes what a crash left in it.
    pub fn prepare_temp(&mut self) -> Result<(), DurableError> {
        self.ensure_dir(TMP)?;
        for name in self.list(TMP)? {
            self.remove(&format!("{TMP}/{name}"))?;
        }
        Ok(())
    }

    /// Puts a whole file under a name, atomically for readers, and **not** durably: for what can be made again
    /// from the write-ahead log. Directories on the way are made.
    pub fn place(&mut self, path: &str, bytes: &[u8]) -> Result<(), DurableError> {
        let temp = self.write_temp(bytes, false)?;
        self.rename_making_dirs(&temp, path)
    }

    /// Puts a whole file under a name, atomically and durably: durable when it returns `Ok`.
    pub fn publish(&mut self, path: &str, bytes: &[u8]) -> Result<(), DurableError> {
        let temp = self.write_temp(bytes, true)?;
        self.rename_making_dirs(&temp, path)?;
        self.sync_dir(parent(path))
    }

    /// As [`Self::publish`], then reads the file back: for what replaces something that is removed afterwards.
    pub fn publish_checked(&mut self, path: &str, bytes: &[u8]) -> Result<(), DurableError> {
        self.publish(path, bytes)?;
        if self.read(path)?.as_deref() != Some(bytes) {
            let differs = io::Error::new(io::ErrorKind::InvalidData, "other bytes than were written");
            return Err(self.fail_always(DiskOp::Read, path, differs));
        }
        Ok(())
    }

    /// Runs something that can wait: it gets no space from the reserve.
    pub fn keeping_reserve<T>(&mut self, run: impl FnOnce(&mut Self) -> T) -> T {
        self.reserve_kept = true;
        let outcome = run(self);
        self.reserve_kept = false;
        outcome
    }

    /// Makes the directories on the way to a file, and their names durable.
    pub fn make_dirs_durably(&mut self, path: &str) -> Result<(), DurableError> {
        let mut end = 0;
        while let Some(more) = path.get(end..).and_then(|rest| rest.find('/')) {
            end += more;
            let dir = path.get(..end).unwrap_or_default();
            self.ensure_dir(dir)?;
            self.sync_dir(parent(dir))?;
            end += 1;
        }
        Ok(())
    }

    /// Creates a file for appending that must not exist. Its name is durable after `sync_dir`.
    pub fn create_new(&mut self, path: &str) -> Result<D::File, DurableError> {
        self.check()?;
        let file = self.with_reserve(|disk| disk.create_new(path));
        file.map_err(|source| self.fail(DiskOp::CreateNew, path, source))
    }

    /// Opens a file that must exist for writing.
    pub fn open(&mut self, path: &str) -> Result<D::File, DurableError> {
        self.check()?;
        let file = self.disk.open(path);
        file.map_err(|source| self.fail(DiskOp::Open, path, source))
    }

    /// Writes the parts at the offset and makes them durable: durable when it returns `Ok`. After
    /// [`DurableError::Full`] the same call may be made again.
    pub fn write_durably(
        &mut self,
        path: &str,
        file: &mut D::File,
        offset: u64,
        parts: &[&[u8]],
    ) -> Result<(), DurableError> {
        self.check()?;
        let written = self.with_reserve(|disk| disk.write_at(file, offset, parts));
        written.map_err(|source| self.fail(DiskOp::Write, path, source))?;
        let synced = self.disk.sync_data(file);
        synced.map_err(|source| self.fail_always(DiskOp::SyncData, path, source))
    }

    /// Cuts a file to a length, appends bytes there and makes both durable.
    pub fn cut_durably(&mut self, path: &str, len: u64, then: &[u8]) -> Result<(), DurableError> {
        let mut file = self.open(path)?;
        let cut = self.disk.set_len(&mut file, len);
        cut.map_err(|source| self.fail(DiskOp::SetLen, path, source))?;
        self.write_durably(path, &mut file, len, &[then])
    }

    /// Renames within one directory. Durable after `sync_dir`.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), DurableError> {
        self.check()?;
        let renamed = self.with_reserve(|disk| disk.rename(from, to));
        renamed.map_err(|source| self.fail(DiskOp::Rename, to, source))
    }

    /// Renames a file or directory into another directory; one that is not there is fine. Durable after `sync_dir` of both.
    pub fn rename_if_there(&mut self, from: &str, to: &str) -> Result<(), DurableError> {
        self.check()?;
        match self.with_reserve(|disk| disk.rename(from, to)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| self.fail(DiskOp::Rename, to, source)),
        }
    }

    /// Removes a file; one that is not there is fine.
    pub fn remove(&mut self, path: &str) -> Result<(), DurableError> {
        self.check()?;
        match self.disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| self.fail_always(DiskOp::Remove, path, source)),
        }
    }

    /// Removes an empty directory; one that is not there is fine.
    pub fn remove_dir(&mut self, path: &str) -> Result<(), DurableError> {
        self.check()?;
        match self.disk.remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| self.fail_always(DiskOp::Remove, path, source)),
        }
    }

    /// The bytes of a file, or `None` when there is no such file.
    pub fn read(&mut self, path: &str) -> Result<Option<Vec<u8>>, DurableError> {
        self.check()?;
        match self.disk.read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.fail_always(DiskOp::Read, path, source)),
        }
    }

    /// The names in a directory, sorted; none when there is no such directory.
    pub fn list(&mut self, dir: &str) -> Result<Vec<String>, DurableError> {
        self.check()?;
        match self.disk.list(dir) {
            Ok(mut names) => {
                names.sort_unstable();
                Ok(names)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(self.fail_always(DiskOp::List, dir, source)),
        }
    }

    /// Free bytes, when the system says how many; nothing depends on it but what is captured.
    pub fn free(&self) -> Option<u64> {
        self.disk.free().ok()
    }

    /// Starts to make everything done so far durable, in the background.
    pub fn start_sync_all(&mut self) -> Result<(), DurableError> {
        self.check()?;
        let started = self.disk.start_sync_all();
        started.map_err(|source| self.fail_always(DiskOp::SyncAll, ".", source))
    }

    /// Whether what was started is durable now; with `wait`, returns only when it is.
    pub fn finish_sync_all(&mut self, wait: bool) -> Result<bool, DurableError> {
        self.check()?;
        let finished = self.disk.finish_sync_all(wait);
        finished.map_err(|source| self.fail_always(DiskOp::SyncAll, ".", source))
    }

    /// Makes sure that the reserve of `len` bytes is there. `false` when there is no space for it: the log is
    /// then run as a full one.
    pub fn take_reserve(&mut self, len: u64) -> Result<bool, DurableError> {
        self.check()?;
        if self.reserve_held {
            return Ok(true);
        }
        let disk = &mut self.disk;
        let mut attempt = || -> Result<(), (DiskOp, io::Error)> {
            let mut file = match disk.open(RESERVE) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    disk.create_new(RESERVE).map_err(|error| (DiskOp::CreateNew, error))?
                }
                opened => opened.map_err(|error| (DiskOp::Open, error))?,
            };
            disk.allocate(&mut file, len).map_err(|error| (DiskOp::Allocate, error))
        };
        match attempt() {
            Ok(()) => {
                self.reserve_held = true;
                Ok(true)
            }
            Err((_, error)) if is_full(&error) => {
                // What was got of it would only make a full disk fuller.
                self.remove(RESERVE)?;
                Ok(false)
            }
            Err((op, error)) => Err(self.fail_always(op, RESERVE, error)),
        }
    }

    fn check(&self) -> Result<(), DurableError> {
        match &self.poisoned {
            Some(first) => Err(DurableError::Poisoned { first: first.clone() }),
            None => Ok(()),
        }
    }

    /// Runs an operation and, when there is no space for it, gives up the reserve and runs it once more.
    fn with_reserve<T>(&mut self, mut run: impl FnMut(&mut D) -> io::Result<T>) -> io::Result<T> {
        match run(&mut self.disk) {
            Err(error) if is_full(&error) && self.reserve_held && !self.reserve_kept => {
                self.reserve_held = false;
                self.disk.remove(RESERVE)?;
                // ext4 gives the blocks back when the removal is in its journal.
                self.disk.sync_dir("")?;
                run(&mut self.disk)
            }
            result => result,
        }
    }

    fn write_temp(&mut self, bytes: &[u8], durable: bool) -> Result<String, DurableError> {
        let path = format!("{TMP}/{}", self.temp_next);
        self.temp_next += 1;
        let mut file = self.create_new(&path)?;
        let written = self.with_reserve(|disk| disk.write_at(&mut file, 0, &[bytes]));
        if let Err(source) = written {
            let failure = self.fail(DiskOp::Write, &path, source);
            if matches!(failure, DurableError::Full { .. }) {
                self.remove(&path)?;
            }
            return Err(failure);
        }
        if durable {
            let synced = self.disk.sync_data(&mut file);
            synced.map_err(|source| self.fail_always(DiskOp::SyncData, &path, source))?;
        }
        Ok(path)
    }

    fn rename_making_dirs(&mut self, temp: &str, path: &str) -> Result<(), DurableError> {
        // The directory is nearly always there: try first, make it on the way out.
        let renamed = match self.with_reserve(|disk| disk.rename(temp, path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut end = 0;
                while let Some(more) = path.get(end..).and_then(|rest| rest.find('/')) {
                    end += more;
                    self.ensure_dir(&path[..end])?;
                    end += 1;
                }
                self.with_reserve(|disk| disk.rename(temp, path))
            }
            result => result,
        };
        if let Err(source) = renamed {
            let failure = self.fail(DiskOp::Rename, path, source);
            if matches!(failure, DurableError::Full { .. }) {
                self.remove(temp)?;
            }
            return Err(failure);
        }
        Ok(())
    }

    /// "No space" is an answer; anything else poisons.
    fn fail(&mut self, op: DiskOp, path: &str, source: io::Error) -> DurableError {
        if is_full(&source) {
            return DurableError::Full { op, path: path.to_owned(), source };
        }
        self.fail_always(op, path, source)
    }

    /// Poisons, whatever the failure: after a sync even "no space" means that written bytes are gone.
    fn fail_always(&mut self, op: DiskOp, path: &str, source: io::Error) -> DurableError {
        let failure = DurableError::Fatal { op, path: path.to_owned(), source };
        if self.poisoned.is_none() {
            self.poisoned = Some(match &failure {
                DurableError::Fatal { source, .. } => format!("{failure}: {source}"),
                _ => failure.to_string(),
            });
        }
        failure
    }
}

/// Whether the system says that there is no room (ENOSPC, EDQUOT).
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The directory part of a relative path; empty for the state directory itself.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
