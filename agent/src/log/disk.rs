//! The file operations that the log is allowed to use, and the operating system's way of doing them.
//!
//! Owns: the [`Disk`] trait, every operation of which can fail, so that tests can make each one fail; and
//! [`OsDisk`]. In which order operations promise anything, and what a failure means, is for `durable.rs`.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};

/// Which operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskOp {
    /// Make a directory.
    CreateDir,
    /// Make a file that must not exist.
    CreateNew,
    /// Open a file that must exist.
    Open,
    /// Write bytes at an offset.
    Write,
    /// Cut or extend a file.
    SetLen,
    /// Reserve blocks for a file.
    Allocate,
    /// `fdatasync`.
    SyncData,
    /// `fsync` of a directory.
    SyncDir,
    /// `syncfs`.
    SyncAll,
    /// Rename within the state directory.
    Rename,
    /// Remove a name.
    Remove,
    /// Read a file.
    Read,
    /// List a directory.
    List,
    /// Take the lock of the state directory.
    Lock,
}

impl fmt::Display for DiskOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateDir => "create directory",
            Self::CreateNew => "create",
            Self::Open => "open",
            Self::Write => "write",
            Self::SetLen => "set length of",
            Self::Allocate => "allocate",
            Self::SyncData => "sync",
            Self::SyncDir => "sync directory",
            Self::SyncAll => "sync the file system of",
            Self::Rename => "rename to",
            Self::Remove => "remove",
            Self::Read => "read",
            Self::List => "list",
            Self::Lock => "lock",
        })
    }
}

/// The operations the log needs of a disk. Paths are relative to the state directory, with `/` between parts.
///
/// Contract: an operation that returns `Ok` happened, but survives a crash only after the sync that covers it:
/// [`sync_data`](Self::sync_data) for the bytes and length of a file, [`sync_dir`](Self::sync_dir) for the names
/// in a directory, [`finish_sync_all`](Self::finish_sync_all) for everything done before
/// [`start_sync_all`](Self::start_sync_all). An operation that returns `Err` may or may not have happened.
/// Called by one thread at a time.
pub trait Disk {
    /// An open file. Dropping it closes it and promises nothing.
    type File;
    /// Held while a log is open; dropping it lets another process open the log.
    type Lock;

    /// Takes the lock of the state directory, or fails with [`io::ErrorKind::WouldBlock`] when another has it.
    fn lock(&mut self, path: &str) -> io::Result<Self::Lock>;
    /// Makes a directory; fails if it exists.
    fn create_dir(&mut self, path: &str) -> io::Result<()>;
    /// Makes a file for writing; fails if the name exists.
    fn create_new(&mut self, path: &str) -> io::Result<Self::File>;
    /// Opens a file for writing; fails if the name does not exist.
    fn open(&mut self, path: &str) -> io::Result<Self::File>;
    /// Writes all parts, one after the other, at the offset.
    fn write_at(&mut self, file: &mut Self::File, offset: u64, parts: &[&[u8]]) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros.
    fn set_len(&mut self, file: &mut Self::File, len: u64) -> io::Result<()>;
    /// Makes sure that the first `len` bytes have blocks.
    fn allocate(&mut self, file: &mut Self::File, len: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable.
    fn sync_data(&mut self, file: &mut Self::File) -> io::Result<()>;
    /// Makes the names in the directory durable.
    fn sync_dir(&mut self, dir: &str) -> io::Result<()>;
    /// Starts to make everything done so far durable, without waiting. One at a time.
    fn start_sync_all(&mut self) -> io::Result<()>;
    /// Whether what was started has ended; with `wait`, does not return before it has.
    fn finish_sync_all(&mut self, wait: bool) -> io::Result<bool>;
    /// Renames, replacing the target.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, path: &str) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&mut self, path: &str) -> io::Result<()>;
    /// The bytes of a file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Bytes that may still be written by anybody.
    fn free(&self) -> io::Result<u64>;
}

/// The operating system's disk, under one directory that is opened once and kept, so that a directory moved or
/// replaced under a running agent cannot split the log in two.
pub struct OsDisk {
    root: OwnedFd,
    /// Directories that are synced again and again, kept open.
    dirs: HashMap<String, OwnedFd>,
    sync: Option<SyncThread>,
}

/// The thread that waits for `syncfs`, so that other programs' dirty pages delay the recycling of the
/// write-ahead log and not the capture.
struct SyncThread {
    /// Asks for one sync. Closed when the disk is dropped, which ends the thread.
    requests: SyncSender<()>,
    /// One answer per request. Closed when the thread is gone.
    answers: Receiver<io::Result<()>>,
    running: bool,
}

/// Files may be read by the group that may read entries; the umask can only take away.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
const DIR_MODE: Mode = Mode::from_raw_mode(0o750);

impl OsDisk {
    /// Opens the state directory, which must exist.
    ///
    /// # Errors
    /// As the system says: not found, not a directory, no permission.
    pub fn open(state: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(state, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, dirs: HashMap::new(), sync: None })
    }

    fn open_at(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        Ok(rustix::fs::openat(&self.root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, FILE_MODE)?)
    }
}

impl Disk for OsDisk {
    type File = File;
    type Lock = File;

    fn lock(&mut self, path: &str) -> io::Result<File> {
        let file = File::from(self.open_at(path, OFlags::RDWR | OFlags::CREATE)?);
        file.try_lock().map_err(io::Error::from)?;
        Ok(file)
    }

    fn create_dir(&mut self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.root, path, DIR_MODE)?)
    }

    fn create_new(&mut self, path: &str) -> io::Result<File> {
        Ok(File::from(self.open_at(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?))
    }

    fn open(&mut self, path: &str) -> io::Result<File> {
        Ok(File::from(self.open_at(path, OFlags::WRONLY)?))
    }

    fn write_at(&mut self, file: &mut File, mut offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        // A partial write continues where it stopped.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match rustix::io::pwritev(&*file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn set_len(&mut self, file: &mut File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn allocate(&mut self, file: &mut File, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, len)?)
    }

    fn sync_data(&mut self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        if !self.dirs.contains_key(dir) {
            let opened = self.open_at(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
            self.dirs.insert(dir.to_owned(), opened);
        }
        match self.dirs.get(dir) {
            Some(opened) => Ok(rustix::fs::fsync(opened)?),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn start_sync_all(&mut self) -> io::Result<()> {
        if self.sync.is_none() {
            // Opened before any write it vouches for: syncfs reports write-back errors since the descriptor was
            // opened (fs/sync.c, errseq on the superblock, Linux 5.8; before that it reports none).
            let root = self.root.as_fd().try_clone_to_owned()?;
            let (requests, incoming) = sync_channel::<()>(1);
            let (outgoing, answers) = sync_channel(1);
            std::thread::Builder::new().name("affiant-sync".to_owned()).spawn(move || {
                for () in incoming {
                    if outgoing.send(rustix::fs::syncfs(&root).map_err(io::Error::from)).is_err() {
                        return;
                    }
                }
            })?;
            self.sync = Some(SyncThread { requests, answers, running: false });
        }
        match &mut self.sync {
            Some(sync) if !sync.running => {
                sync.requests.send(()).map_err(|_gone| io::Error::from(io::ErrorKind::BrokenPipe))?;
                sync.running = true;
                Ok(())
            }
            _ => Err(io::ErrorKind::ResourceBusy.into()),
        }
    }

    fn finish_sync_all(&mut self, wait: bool) -> io::Result<bool> {
        let Some(sync) = self.sync.as_mut().filter(|sync| sync.running) else { return Ok(false) };
        let answer = if wait {
            sync.answers.recv().map_err(|_gone| io::Error::from(io::ErrorKind::BrokenPipe))?
        } else {
            match sync.answers.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        };
        sync.running = false;
        answer.map(|()| true)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.root, from, &self.root, to)?)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.root, path, AtFlags::empty())?)
    }

    fn remove_dir(&mut self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.root, path, AtFlags::REMOVEDIR)?)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut file = File::from(self.open_at(path, OFlags::RDONLY)?);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let opened = self.open_at(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&opened)? {
            // Names that are not UTF-8 are not ours; no reader looks at them.
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn free(&self) -> io::Result<u64> {
        let status = rustix::fs::fstatvfs(&self.root)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("affiant-disk-{}-{name}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir_all(&dir).expect("scratch directory");
        dir
    }

    #[test]
    fn parts_are_written_one_after_the_other_at_the_offset() {
        let dir = scratch("parts");
        let mut disk = OsDisk::open(&dir).expect("open");
        let mut file = disk.create_new("file").expect("create");
        disk.write_at(&mut file, 0, &[b"0123456789"]).expect("write");
        disk.write_at(&mut file, 2, &[b"ab", b"", b"cde"]).expect("write parts");
        disk.sync_data(&mut file).expect("sync");
        disk.sync_dir("").expect("sync directory");
        assert_eq!(disk.read("file").expect("read"), b"01abcde789");
        assert_eq!(disk.create_new("file").err().map(|error| error.kind()), Some(io::ErrorKind::AlreadyExists));
        std::fs::remove_dir_all(dir).expect("clean up");
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let dir = scratch("lock");
        let mut disk = OsDisk::open(&dir).expect("open");
        let held = disk.lock("lock").expect("first");
        assert_eq!(disk.lock("lock").err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(held);
        disk.lock("lock").expect("after the first is gone");
        std::fs::remove_dir_all(dir).expect("clean up");
    }

    #[test]
    fn a_sync_of_everything_ends_once_and_is_not_started_twice() {
        let dir = scratch("syncfs");
        let mut disk = OsDisk::open(&dir).expect("open");
        assert!(!disk.finish_sync_all(true).expect("nothing was started"));
        disk.start_sync_all().expect("start");
        assert_eq!(disk.start_sync_all().err().map(|error| error.kind()), Some(io::ErrorKind::ResourceBusy));
        assert!(disk.finish_sync_all(true).expect("wait"));
        assert!(!disk.finish_sync_all(true).expect("nothing is running any more"));
        std::fs::remove_dir_all(dir).expect("clean up");
    }

    #[test]
    fn names_are_listed_without_the_directory_itself() {
        let dir = scratch("list");
        let mut disk = OsDisk::open(&dir).expect("open");
        disk.create_dir("sub").expect("directory");
        disk.create_new("sub/one").expect("file");
        disk.rename("sub/one", "sub/two").expect("rename");
        assert_eq!(disk.list("sub").expect("list"), ["two"]);
        disk.remove("sub/two").expect("remove");
        disk.remove_dir("sub").expect("remove directory");
        assert_eq!(disk.list("sub").err().map(|error| error.kind()), Some(io::ErrorKind::NotFound));
        std::fs::remove_dir_all(dir).expect("clean up");
    }
}
