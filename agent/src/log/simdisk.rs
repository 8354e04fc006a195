//! A disk for tests that forgets: it models which bytes and which names would survive a power cut, and makes any
//! one operation fail.
//!
//! The model is stricter than any real file system: a name survives only after its directory's sync, bytes only
//! after the file's sync, in any order and in pieces of one sector. After a failed sync the unsynced bytes are
//! gone for good although reads still show them, as Linux's page cache has it. What passes here does not rely on
//! ext4's kindness.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use super::disk::{Disk, DiskOp};

/// Unit in which a write reaches the medium.
const SECTOR: usize = 512;

/// What goes wrong with one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails and did not happen.
    Failed,
    /// It fails although it happened.
    FailedButPersisted,
    /// A write stops in the middle and fails; other operations: as `Failed`.
    Torn,
    /// There is no space, from this operation on, until the reserve is removed. Only for operations that need space.
    NoSpace,
    /// It happens; then the power goes: everything after it fails.
    CrashAfter,
}

/// What of the unsynced survives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survival {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Each sector and each name by a throw of this seed.
    Some(u64),
}

/// Xorshift, so that a test is repeated from its printed seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }
}

#[derive(Debug, Clone)]
enum Change {
    Bytes { offset: usize, bytes: Vec<u8> },
    Len(usize),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    /// What reads see.
    current: Vec<u8>,
    /// Since the last sync, with the number of the operation.
    unsynced: Vec<(u64, Change)>,
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Len(len) => bytes.resize(*len, 0),
        Change::Bytes { offset, bytes: new } => {
            if bytes.len() < offset + new.len() {
                bytes.resize(offset + new.len(), 0);
            }
            bytes[*offset..offset + new.len()].copy_from_slice(new);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Dir,
}

/// A change of names: all of it or nothing.
#[derive(Debug, Clone)]
struct Naming {
    number: u64,
    dir: String,
    unlink: Option<String>,
    link: Option<(String, Node)>,
    /// A directory that is renamed with everything in it: old and new path. Durable with the sync of its new parent,
    /// at once, as journaling file systems have it.
    moved: Option<(String, String)>,
}

#[derive(Debug, Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    durable: BTreeMap<String, Node>,
    current: BTreeMap<String, Node>,
    unsynced: Vec<Naming>,
    operations: u64,
    trace: Vec<(DiskOp, String)>,
    fault: Option<(u64, Fault)>,
    no_space: bool,
    crashed: bool,
    locked: bool,
    sync_started: Option<u64>,
}

/// A handle; clones share the disk.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Rc<RefCell<State>>);

/// Unlocks when dropped, unless the power went in between.
pub(crate) struct SimLock {
    disk: Rc<RefCell<State>>,
    released: Cell<bool>,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        if !self.released.replace(true) {
            self.disk.borrow_mut().locked = false;
        }
    }
}

impl DiskOp {
    /// Whether a full disk makes this operation fail.
    pub(crate) fn needs_space(self) -> bool {
        matches!(self, Self::CreateDir | Self::CreateNew | Self::Write | Self::Allocate | Self::Rename)
    }
}

fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn os(kind: io::ErrorKind) -> io::Error {
    io::Error::from(kind)
}

impl State {
    fn dir_exists(&self, dir: &str) -> bool {
        dir.is_empty() || self.current.get(dir) == Some(&Node::Dir)
    }

    fn file(&self, path: &str) -> io::Result<usize> {
        match self.current.get(path) {
            Some(Node::File(inode)) if self.dir_exists(dir_of(path)) => Ok(*inode),
            _ => Err(os(io::ErrorKind::NotFound)),
        }
    }

    fn name(&mut self, dir: &str, unlink: Option<&str>, link: Option<(&str, Node)>) {
        let naming = Naming {
            number: self.operations,
            dir: dir.to_owned(),
            unlink: unlink.map(str::to_owned),
            link: link.map(|(path, node)| (path.to_owned(), node)),
            moved: None,
        };
        rename_in(&mut self.current, &naming);
        self.unsynced.push(naming);
    }

    fn sync_names(&mut self, dir: Option<&str>, until: u64) {
        let (now, later) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|naming: &Naming| naming.number <= until && dir.is_none_or(|dir| naming.dir == dir));
        self.unsynced = later;
        let now: Vec<Naming> = now;
        for naming in &now {
            rename_in(&mut self.durable, naming);
        }
    }

    fn sync_bytes(&mut self, inode: usize, until: u64) {
        let inode = &mut self.inodes[inode];
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut inode.unsynced).into_iter().partition(|(number, _)| *number <= until);
        inode.unsynced = later;
        for (_, change) in &now {
            apply(&mut inode.durable, change);
        }
    }
}

fn rename_in(names: &mut BTreeMap<String, Node>, naming: &Naming) {
    if let Some((from, to)) = &naming.moved {
        let inside = format!("{from}/");
        let below: Vec<String> =
            names.keys().filter(|path| *path == from || path.starts_with(&inside)).cloned().collect();
        for path in below {
            if let Some(node) = names.remove(&path) {
                names.insert(path.replacen(from.as_str(), to, 1), node);
            }
        }
    }
    if let Some(path) = &naming.unlink {
        names.remove(path);
    }
    if let Some((path, node)) = &naming.link {
        names.insert(path.clone(), *node);
    }
}

impl SimDisk {
    /// How many operations were asked for.
    pub(crate) fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// Each operation asked for, in order.
    pub(crate) fn trace(&self) -> Vec<(DiskOp, String)> {
        self.0.borrow().trace.clone()
    }

    /// Lets the operation with this number (from 0, counting all) go wrong.
    pub(crate) fn set_fault(&self, number: u64, fault: Fault) {
        self.0.borrow_mut().fault = Some((number, fault));
    }

    /// Fills or frees the disk, whatever is removed.
    pub(crate) fn set_no_space(&self, no_space: bool) {
        self.0.borrow_mut().no_space = no_space;
    }

    /// Flips one bit of a file, durably.
    pub(crate) fn flip(&self, path: &str, offset: usize) {
        let mut state = self.0.borrow_mut();
        let inode = state.file(path).expect("file to damage");
        state.inodes[inode].current[offset] ^= 1;
        let current = state.inodes[inode].current.clone();
        state.inodes[inode].durable = current;
        state.inodes[inode].unsynced.clear();
    }

    /// Removes a file, durably and uncounted.
    pub(crate) fn lose(&self, path: &str) {
        let mut state = self.0.borrow_mut();
        state.current.remove(path);
        state.durable.remove(path);
        state.unsynced.retain(|naming| naming.link.as_ref().is_none_or(|(name, _)| name != path));
    }

    /// Replaces or makes a file, durably and uncounted.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        let mut state = self.0.borrow_mut();
        let inode = Inode { durable: bytes.to_vec(), current: bytes.to_vec(), unsynced: Vec::new() };
        state.inodes.push(inode);
        let node = Node::File(state.inodes.len() - 1);
        state.current.insert(path.to_owned(), node);
        state.durable.insert(path.to_owned(), node);
    }

    /// Every file with this prefix, as a running system sees it.
    pub(crate) fn files(&self, prefix: &str) -> Vec<String> {
        let state = self.0.borrow();
        let files = state.current.iter().filter(|(path, node)| path.starts_with(prefix) && **node != Node::Dir);
        files.map(|(path, _)| path.clone()).collect()
    }

    /// Every file and its length, as a running system sees them; uncounted.
    pub(crate) fn lengths(&self) -> Vec<(String, usize)> {
        let state = self.0.borrow();
        let files = state.current.iter().filter_map(|(path, node)| match node {
            Node::File(inode) => Some((path.clone(), state.inodes[*inode].current.len())),
            Node::Dir => None,
        });
        files.collect()
    }

    /// The disk after the process died and another one starts: nothing is lost, no operation fails.
    pub(crate) fn after_kill(&self) -> Self {
        let mut state = self.0.borrow().clone();
        state.fault = None;
        state.no_space = false;
        state.crashed = false;
        state.locked = false;
        state.sync_started = None;
        Self(Rc::new(RefCell::new(state)))
    }

    /// The disk after a power cut.
    pub(crate) fn after_power_cut(&self, survival: Survival) -> Self {
        if survival == Survival::All {
            let disk = self.after_kill();
            let until = u64::MAX;
            {
                let mut state = disk.0.borrow_mut();
                state.sync_names(None, until);
                for inode in 0..state.inodes.len() {
                    state.sync_bytes(inode, until);
                    let durable = state.inodes[inode].durable.clone();
                    state.inodes[inode].current = durable;
                }
            }
            return disk;
        }
        let mut dice = match survival {
            Survival::Some(seed) => Some(Dice(seed | 1)),
            _ => None,
        };
        let state = self.0.borrow();
        let mut names = state.durable.clone();
        let mut inodes = Vec::new();
        for inode in &state.inodes {
            let mut bytes = inode.durable.clone();
            if let Some(dice) = &mut dice {
                for (_, change) in &inode.unsynced {
                    match change {
                        Change::Bytes { offset, bytes: new } => {
                            let mut start = 0;
                            while start < new.len() {
                                let end = ((offset + start) / SECTOR + 1) * SECTOR - offset;
                                let end = end.min(new.len());
                                if dice.below(2) == 0 {
                                    let part = new[start..end].to_vec();
                                    apply(&mut bytes, &Change::Bytes { offset: offset + start, bytes: part });
                                }
                                start = end;
                            }
                        }
                        Change::Len(_) if dice.below(2) == 0 => apply(&mut bytes, change),
                        Change::Len(_) => {}
                    }
                }
            }
            inodes.push(Inode { durable: bytes.clone(), current: bytes, unsynced: Vec::new() });
        }
        if let Some(dice) = &mut dice {
            for naming in &state.unsynced {
                if dice.below(2) == 0 {
                    rename_in(&mut names, naming);
                }
            }
        }
        // A name under a directory that did not survive cannot be reached.
        let mut reachable: BTreeMap<String, Node> = BTreeMap::new();
        for (path, node) in &names {
            let dir = dir_of(path);
            if dir.is_empty() || reachable.get(dir) == Some(&Node::Dir) {
                reachable.insert(path.clone(), *node);
            }
        }
        let fresh = State { inodes, durable: reachable.clone(), current: reachable, ..State::default() };
        Self(Rc::new(RefCell::new(fresh)))
    }

    /// Counts the operation and decides how it goes: `Ok(true)` do it, `Ok(false)` do it and fail, `Err` fail.
    fn begin(&self, op: DiskOp, path: &str) -> io::Result<Verdict> {
        let mut state = self.0.borrow_mut();
        if state.crashed {
            return Err(io::Error::other("the power is gone"));
        }
        let number = state.operations;
        state.operations += 1;
        state.trace.push((op, path.to_owned()));
        if let Some((at, fault)) = state.fault
            && at == number
        {
            match fault {
                Fault::Failed => return Ok(Verdict::Fail),
                Fault::FailedButPersisted => return Ok(Verdict::DoAndFail),
                Fault::Torn => return Ok(Verdict::Tear),
                Fault::NoSpace => state.no_space = true,
                Fault::CrashAfter => {
                    state.crashed = true;
                    return Ok(Verdict::Do);
                }
            }
        }
        if state.no_space && op == DiskOp::Remove && path == "reserve" && state.fault.is_some() {
            state.no_space = false;
        }
        if state.no_space && op.needs_space() {
            return Err(os(io::ErrorKind::StorageFull));
        }
        Ok(Verdict::Do)
    }

    fn run<T>(&self, op: DiskOp, path: &str, action: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        match self.begin(op, path)? {
            Verdict::Do => action(&mut self.0.borrow_mut()),
            Verdict::DoAndFail => {
                drop(action(&mut self.0.borrow_mut()));
                Err(io::Error::other("injected after the fact"))
            }
            Verdict::Fail | Verdict::Tear => Err(io::Error::other("injected")),
        }
    }
}

enum Verdict {
    Do,
    DoAndFail,
    Fail,
    Tear,
}

/// An open file of the model.
pub(crate) struct SimFile {
    inode: usize,
    path: String,
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn lock(&mut self, path: &str) -> io::Result<SimLock> {
        self.run(DiskOp::Lock, path, |state| {
            if state.locked {
                return Err(os(io::ErrorKind::WouldBlock));
            }
            state.locked = true;
            Ok(())
        })?;
        Ok(SimLock { disk: Rc::clone(&self.0), released: Cell::new(false) })
    }

    fn create_dir(&mut self, path: &str) -> io::Result<()> {
        self.run(DiskOp::CreateDir, path, |state| {
            if !state.dir_exists(dir_of(path)) {
                return Err(os(io::ErrorKind::NotFound));
            }
            if state.current.contains_key(path) {
                return Err(os(io::ErrorKind::AlreadyExists));
            }
            state.name(dir_of(path), None, Some((path, Node::Dir)));
            Ok(())
        })
    }

    fn create_new(&mut self, path: &str) -> io::Result<SimFile> {
        self.run(DiskOp::CreateNew, path, |state| {
            if !state.dir_exists(dir_of(path)) {
                return Err(os(io::ErrorKind::NotFound));
            }
            if state.current.contains_key(path) {
                return Err(os(io::ErrorKind::AlreadyExists));
            }
            state.inodes.push(Inode::default());
            let inode = state.inodes.len() - 1;
            state.name(dir_of(path), None, Some((path, Node::File(inode))));
            Ok(SimFile { inode, path: path.to_owned() })
        })
    }

    fn open(&mut self, path: &str) -> io::Result<SimFile> {
        self.run(DiskOp::Open, path, |state| {
            let inode = state.file(path)?;
            Ok(SimFile { inode, path: path.to_owned() })
        })
    }

    fn write_at(&mut self, file: &mut SimFile, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut bytes = parts.concat();
        let offset = usize::try_from(offset).expect("small files");
        let verdict = self.begin(DiskOp::Write, &file.path)?;
        let failure = match verdict {
            Verdict::Fail => return Err(io::Error::other("injected")),
            Verdict::Do => None,
            Verdict::DoAndFail => Some("injected after the fact"),
            Verdict::Tear => {
                bytes.truncate(bytes.len() / 2);
                Some("injected in the middle")
            }
        };
        let mut state = self.0.borrow_mut();
        let number = state.operations;
        let inode = &mut state.inodes[file.inode];
        let change = Change::Bytes { offset, bytes };
        apply(&mut inode.current, &change);
        inode.unsynced.push((number, change));
        failure.map_or(Ok(()), |why| Err(io::Error::other(why)))
    }

    fn set_len(&mut self, file: &mut SimFile, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).expect("small files");
        self.run(DiskOp::SetLen, &file.path, |state| {
            let number = state.operations;
            let inode = &mut state.inodes[file.inode];
            apply(&mut inode.current, &Change::Len(len));
            inode.unsynced.push((number, Change::Len(len)));
            Ok(())
        })
    }

    fn allocate(&mut self, file: &mut SimFile, _len: u64) -> io::Result<()> {
        self.run(DiskOp::Allocate, &file.path, |_| Ok(()))
    }

    fn sync_data(&mut self, file: &mut SimFile) -> io::Result<()> {
        let failed = self.run(DiskOp::SyncData, &file.path, |state| {
            state.sync_bytes(file.inode, u64::MAX);
            Ok(())
        });
        if failed.is_err() && !self.0.borrow().crashed {
            // The pages are clean now and will never be written: lost at the next power cut, whatever is synced.
            self.0.borrow_mut().inodes[file.inode].unsynced.clear();
        }
        failed
    }

    fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        self.run(DiskOp::SyncDir, dir, |state| {
            if !state.dir_exists(dir) {
                return Err(os(io::ErrorKind::NotFound));
            }
            state.sync_names(Some(dir), u64::MAX);
            Ok(())
        })
    }

    fn start_sync_all(&mut self) -> io::Result<()> {
        self.run(DiskOp::SyncAll, "start", |state| {
            if state.sync_started.is_some() {
                return Err(os(io::ErrorKind::ResourceBusy));
            }
            state.sync_started = Some(state.operations);
            Ok(())
        })
    }

    fn finish_sync_all(&mut self, _wait: bool) -> io::Result<bool> {
        if self.0.borrow().sync_started.is_none() {
            return Ok(false);
        }
        self.run(DiskOp::SyncAll, "finish", |state| {
            if let Some(until) = state.sync_started.take() {
                state.sync_names(None, until);
                for inode in 0..state.inodes.len() {
                    state.sync_bytes(inode, until);
                }
            }
            Ok(true)
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.run(DiskOp::Rename, to, |state| {
            if state.current.get(from) == Some(&Node::Dir) {
                if !state.dir_exists(dir_of(to)) {
                    return Err(os(io::ErrorKind::NotFound));
                }
                let moved = Some((from.to_owned(), to.to_owned()));
                let naming =
                    Naming { number: state.operations, dir: dir_of(to).to_owned(), unlink: None, link: None, moved };
                rename_in(&mut state.current, &naming);
                state.unsynced.push(naming);
                return Ok(());
            }
            let inode = state.file(from)?;
            if !state.dir_exists(dir_of(to)) {
                return Err(os(io::ErrorKind::NotFound));
            }
            if dir_of(from) == dir_of(to) {
                state.name(dir_of(to), Some(from), Some((to, Node::File(inode))));
            } else {
                state.name(dir_of(to), None, Some((to, Node::File(inode))));
                state.name(dir_of(from), Some(from), None);
            }
            Ok(())
        })
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.run(DiskOp::Remove, path, |state| {
            state.file(path)?;
            state.name(dir_of(path), Some(path), None);
            Ok(())
        })
    }

    fn remove_dir(&mut self, path: &str) -> io::Result<()> {
        self.run(DiskOp::Remove, path, |state| {
            if !state.current.contains_key(path) {
                return Err(os(io::ErrorKind::NotFound));
            }
            let inside = format!("{path}/");
            if state.current.keys().any(|name| name.starts_with(&inside)) {
                return Err(os(io::ErrorKind::DirectoryNotEmpty));
            }
            state.name(dir_of(path), Some(path), None);
            Ok(())
        })
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.run(DiskOp::Read, path, |state| {
            let inode = state.file(path)?;
            Ok(state.inodes[inode].current.clone())
        })
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.run(DiskOp::List, dir, |state| {
            if !state.dir_exists(dir) {
                return Err(os(io::ErrorKind::NotFound));
            }
            let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
            let names: BTreeSet<String> = state
                .current
                .keys()
                .filter_map(|path| path.strip_prefix(&prefix))
                .filter(|name| !name.contains('/'))
                .map(str::to_owned)
                .collect();
            Ok(names.into_iter().collect())
        })
    }

    fn free(&self) -> io::Result<u64> {
        Ok(if self.0.borrow().no_space { 0 } else { u64::MAX })
    }
}
