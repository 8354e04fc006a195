//! The walk over a log: bundle after bundle, with the tiles above it, in one thread or several.
//!
//! What can be said of a bundle alone (the hashes of its entries, whether they have the permitted form, the root of its
//! tile) is worked out by any thread. What depends on the order (chains, counters, the tree) is done for one bundle after
//! the other, by the thread that has it, when all bundles before it are done. So the report does not depend on how many
//! threads there are, and each holds one bundle at a time: at most 16 MiB, usually 0.1 MiB.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::attest::pcr::RegisterPolicy;
use crate::blob;
use crate::kept::Item;
use crate::policy::Policy;
use crate::prove::{ProveError, Tiles};
use crate::record::{Blob, DecodeError, EntryIndex, LeafHash, RECORD_VERSION, Record, TreeSize, decode_with};
use crate::tiles::{self, TileKind, TilePath};
use crate::tree::{NodeHash, TILE_WIDTH, TileView, Tree, fold_tile, leaf_hash, root_of};
use crate::trust::Head;

use super::audit::Audit;
use super::blobs::Told;
use super::cold::Cold;
use super::finding::Finding;
use super::report::Findings;
use super::values::SIDECAR_BYTES_MAX;
use super::witnesses::Witnesses;
use super::{Source, SourceError, VerifyError};

/// The state of one pass over the log.
pub(super) struct Walk<'t> {
    pub(super) size: TreeSize,
    pub(super) tree: Tree,
    /// Whether the tree holds every entry so far: a bundle and its tile may both be missing.
    pub(super) tree_complete: bool,
    pub(super) audit: Audit,
    pub(super) known: Known<'t>,
    pub(super) findings: Findings,
    pub(super) hidden: Hidden,
    /// Leaf hash of the entry before, when known.
    previous: Option<LeafHash>,
    pub(super) genesis: Option<LeafHash>,
}

/// Heads of the trust file that fall within withheld entries, and cannot be compared.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hidden {
    /// How many.
    pub(super) heads: usize,
    /// Those of them after which no other was compared and is equal.
    pub(super) alone: usize,
}

/// What is known of the log from elsewhere.
pub(super) struct Known<'t> {
    /// Heads to compare, those already passed removed.
    pub(super) heads: &'t [Head],
    pub(super) policy: Option<&'t Policy>,
    /// Which values quoted registers may have.
    pub(super) registers: &'t [RegisterPolicy],
    pub(super) witnesses: Witnesses,
}

impl Known<'_> {
    /// The smallest size that is still to be compared.
    fn next(&self) -> Option<TreeSize> {
        let head = self.heads.first().map(|head| head.size);
        head.into_iter().chain(self.witnesses.next()).min()
    }
}

/// One bundle as it was read, with the leaf hashes stored for it.
struct Fetched {
    first: EntryIndex,
    width: u16,
    hashes: Option<Vec<NodeHash>>,
    path: TilePath,
    bytes: Option<(Vec<u8>, u16)>,
    /// What is wrong with the tile.
    findings: Vec<Finding>,
    /// What is wrong with packed segments and kept entries that were looked into for it.
    malformed: Vec<Finding>,
    /// What is kept of it, if it was pruned.
    kept: Option<Vec<Piece>>,
}

/// An item of kept entries.
enum Piece {
    Entry(Vec<u8>),
    Withheld { height: u32, hash: NodeHash },
}

impl From<Item<'_>> for Piece {
    fn from(item: Item<'_>) -> Self {
        match item {
            Item::Entry(bytes) => Self::Entry(bytes.to_vec()),
            Item::Withheld { height, hash } => Self::Withheld { height, hash },
        }
    }
}

/// What can be said of an entry alone. Large, so it is handed on by reference: moving one costs as much as hashing it.
type Alone<'b> = (LeafHash, Result<Record<'b>, DecodeError>);

/// What was worked out of a whole bundle before its turn.
struct Ahead<'b> {
    entries: Vec<Alone<'b>>,
    /// The root of its tile, where it has all leaves.
    root: Option<NodeHash>,
}

/// Where bundles are read from, in order.
struct Stage<S> {
    source: Cold<S>,
    next: u64,
    bundles: u64,
}

/// Whose turn it is.
struct Turn<'t> {
    next: u64,
    walk: Walk<'t>,
    error: Option<VerifyError>,
}

struct Shared<'t, S> {
    size: TreeSize,
    stage: Mutex<Stage<S>>,
    turn: Mutex<Turn<'t>>,
    moved: Condvar,
    /// Set once nothing more is to be read.
    ended: AtomicBool,
}

/// Ends the walk for the other threads when one of them panics, so that none waits for its turn forever.
struct Guard<'s, 't, S>(&'s Shared<'t, S>);

impl<S> Drop for Guard<'_, '_, S> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked takes the whole verification with it; what it left is not used.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Shared<'_, S> {
    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        // With the lock, or a thread that is about to wait would not hear of it.
        let _turn = lock(&self.turn);
        self.moved.notify_all();
    }
}

/// Goes over the whole log in the calling thread.
pub(super) fn walk<'t, S: Source>(source: Cold<S>, walk: Walk<'t>) -> Result<Walk<'t>, VerifyError> {
    let shared = Shared::new(source, walk);
    shared.work(false);
    shared.finish()
}

/// Goes over the whole log with this many threads besides the calling one, which waits.
pub(super) fn walk_in_threads<'t, S: Source + Send>(
    source: Cold<S>,
    walk: Walk<'t>,
    threads: usize,
) -> Result<Walk<'t>, VerifyError> {
    let shared = Shared::new(source, walk);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| shared.work(true));
        }
    });
    shared.finish()
}

impl<'t, S: Source> Shared<'t, S> {
    fn new(source: Cold<S>, walk: Walk<'t>) -> Self {
        let bundles = walk.size.0.div_ceil(TILE_WIDTH as u64);
        Self {
            size: walk.size,
            stage: Mutex::new(Stage { source, next: 0, bundles }),
            turn: Mutex::new(Turn { next: 0, walk, error: None }),
            moved: Condvar::new(),
            ended: AtomicBool::new(false),
        }
    }

    /// Takes bundles until there are no more. `ahead`: works out what it can before it waits for its turn.
    fn work(&self, ahead: bool) {
        let _guard = Guard(self);
        let mut scratch = Vec::new();
        while let Some((number, fetched)) = self.fetch() {
            let mut fetched = match fetched {
                Ok(fetched) => fetched,
                Err(error) => return self.fail(number, error.into()),
            };
            let bytes = fetched.bytes.take();
            let entries = split(bytes.as_ref());
            let ahead = match &entries {
                Some(Ok(entries)) if ahead => Some(Ahead::of(entries, fetched.hashes.as_deref(), &mut scratch)),
                _ => None,
            };
            let Some(mut turn) = self.wait(number) else { return };
            let outcome = turn.walk.bundle(self, fetched, entries, ahead, &mut scratch);
            // A forged size must not keep the verifier busy with what is not there.
            let done = outcome.is_err() || !turn.walk.tree_complete;
            turn.error = outcome.err();
            turn.next += 1;
            if done {
                // While it is this thread's turn, or the next would take its own before it hears of it.
                self.ended.store(true, Ordering::Release);
            }
            drop(turn);
            if done {
                return self.end();
            }
            self.moved.notify_all();
        }
    }

    /// Reads the next bundle.
    fn fetch(&self) -> Option<(u64, Result<Fetched, SourceError>)> {
        let mut stage = lock(&self.stage);
        let number = stage.next;
        if number >= stage.bundles || self.ended.load(Ordering::Acquire) {
            return None;
        }
        stage.next += 1;
        let fetched = Fetched::read(&mut stage.source, self.size, number);
        Some((number, fetched))
    }

    /// Waits until all bundles before this one are done; nothing when the walk has ended before it.
    fn wait(&self, number: u64) -> Option<MutexGuard<'_, Turn<'t>>> {
        let mut turn = lock(&self.turn);
        while turn.next != number {
            if self.ended.load(Ordering::Acquire) {
                return None;
            }
            turn = self.moved.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        (!self.ended.load(Ordering::Acquire)).then_some(turn)
    }

    fn fail(&self, number: u64, error: VerifyError) {
        if let Some(mut turn) = self.wait(number) {
            turn.error = Some(error);
            drop(turn);
            self.end();
        }
    }

    /// What is above the bundles, when all are done.
    fn finish(self) -> Result<Walk<'t>, VerifyError> {
        let Turn { mut walk, error, .. } = self.turn.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = error {
            return Err(error);
        }
        let mut stage = self.stage.into_inner().unwrap_or_else(PoisonError::into_inner);
        walk.edge(&mut stage.source)?;
        Ok(walk)
    }
}

/// The entries of a bundle that is there.
fn split(bytes: Option<&(Vec<u8>, u16)>) -> Option<Result<Vec<&[u8]>, tiles::TilesError>> {
    bytes.map(|(bytes, width)| tiles::entries(bytes, *width))
}

impl Fetched {
    fn read<S: Source>(source: &mut Cold<S>, size: TreeSize, number: u64) -> Result<Self, SourceError> {
        let width = tiles::width_in(size, 0, number);
        let mut findings = Vec::new();
        let first = EntryIndex(number * TILE_WIDTH as u64);
        let path = TilePath { kind: TileKind::Entries, number, width };
        // The tile first: a writer that prunes removes the bundle before it.
        let mut hashes = tile(source, TilePath { kind: TileKind::Hashes { level: 0 }, number, width }, &mut findings)?;
        let bytes = read_with_full(source, path, tiles::BUNDLE_BYTES_MAX)?;
        let kept: Option<Vec<Piece>> = match &bytes {
            None if usize::from(width) == TILE_WIDTH => {
                source.kept(number)?.map(|bundle| bundle.items().map(|(_, item)| item.into()).collect())
            }
            _ => None,
        };
        if kept.is_some() {
            // Of a pruned bundle it is not needed.
            hashes = None;
            findings.clear();
        }
        Ok(Self { first, width, hashes, path, bytes, findings, malformed: source.malformed(), kept })
    }
}

impl<'b> Ahead<'b> {
    fn of(entries: &[&'b [u8]], hashes: Option<&[NodeHash]>, scratch: &mut Vec<u8>) -> Self {
        let entries: Vec<Alone<'b>> = entries.iter().map(|entry| alone(entry, scratch)).collect();
        let root = match hashes {
            Some(hashes) => fold_full(hashes),
            None => fold_full(&entries.iter().map(|(own, _)| own.0).collect::<Vec<_>>()),
        };
        Self { entries, root }
    }
}

fn fold_full(leaves: &[NodeHash]) -> Option<NodeHash> {
    if leaves.len() == TILE_WIDTH { fold_tile(leaves) } else { None }
}

fn alone<'b>(entry: &'b [u8], scratch: &mut Vec<u8>) -> Alone<'b> {
    (leaf_hash(entry), decode_with(entry, scratch))
}

impl<'t> Walk<'t> {
    pub(super) fn new(size: TreeSize, audit: Audit, known: Known<'t>, findings: Findings) -> Self {
        Self {
            size,
            tree: Tree::new(),
            tree_complete: true,
            audit,
            known,
            findings,
            hidden: Hidden::default(),
            previous: Some(LeafHash([0; 32])),
            genesis: None,
        }
    }

    fn bundle<'b, S: Source>(
        &mut self,
        shared: &Shared<'_, S>,
        fetched: Fetched,
        entries: Option<Result<Vec<&'b [u8]>, tiles::TilesError>>,
        ahead: Option<Ahead<'b>>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), VerifyError> {
        let Fetched { first, width, hashes, path, findings, malformed, kept, bytes: _ } = fetched;
        for finding in findings {
            self.findings.push(finding);
        }
        if let Some(pieces) = kept {
            self.kept(shared, first, pieces, scratch)?;
            malformed.into_iter().for_each(|finding| self.findings.push(finding));
            return Ok(());
        }
        let entries = match entries {
            None => {
                self.findings.push(Finding::BundleMissing { path: path.path(), first });
                None
            }
            Some(Err(error)) => {
                let reason = error.to_string();
                self.findings.push(Finding::BundleMalformed { path: path.path(), first, reason });
                None
            }
            Some(Ok(entries)) => Some(entries),
        };
        if entries.is_none() {
            self.audit.lose_sight(first);
            self.previous = None;
        }
        let (known, root) = match ahead {
            Some(ahead) => (Some(ahead.entries), ahead.root),
            None => (None, None),
        };
        self.compare_head();
        // A head within the bundle needs the tree leaf by leaf.
        let past = first.0 + u64::from(width);
        let has_head = self.known.next().is_some_and(|size| size.0 < past);
        let whole = root.filter(|_| usize::from(width) == TILE_WIDTH && self.tree_complete && !has_head);
        let mut leaves = Vec::new();
        for position in 0..usize::from(width) {
            if whole.is_none() {
                self.compare_head();
            }
            let index = EntryIndex(first.0 + position as u64);
            let stored = hashes.as_ref().and_then(|hashes| hashes.get(position)).map(|hash| LeafHash(*hash));
            let here;
            let entry = match (&known, &entries) {
                (Some(known), _) => known.get(position),
                (None, Some(entries)) => {
                    here = entries.get(position).map(|entry| alone(entry, scratch));
                    here.as_ref()
                }
                (None, None) => None,
            };
            let leaf = self.entry(index, entry, stored)?;
            match leaf {
                Some(leaf) if whole.is_some() => leaves.push(leaf.0),
                Some(leaf) if self.tree_complete => {
                    let mut full = Vec::new();
                    self.tree.append(leaf, |tile| keep_upper(tile, &mut full));
                    self.compare_tiles(shared, full)?;
                }
                _ => self.tree_complete = false,
            }
        }
        if let Some(root) = whole {
            let mut full = Vec::new();
            self.tree.append_tile(&leaves, root, |tile| keep_upper(tile, &mut full));
            self.compare_tiles(shared, full)?;
        }
        for finding in malformed {
            self.findings.push(finding);
        }
        Ok(())
    }

    /// Goes over what is kept of a pruned bundle.
    fn kept<S: Source>(
        &mut self,
        shared: &Shared<'_, S>,
        first: EntryIndex,
        pieces: Vec<Piece>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), VerifyError> {
        let mut index = first;
        for piece in pieces {
            self.compare_head();
            let mut full = Vec::new();
            match piece {
                Piece::Entry(bytes) => {
                    let leaf = self.entry(index, Some(&alone(&bytes, scratch)), None)?;
                    if let Some(leaf) = leaf {
                        self.tree.append(leaf, |tile| keep_upper(tile, &mut full));
                    }
                    index = EntryIndex(index.0.saturating_add(1));
                }
                Piece::Withheld { height, hash } => {
                    let count = 1_u64 << height;
                    self.audit.withheld(index, count, &mut self.findings);
                    self.previous = (height == 0).then_some(LeafHash(hash));
                    if index.0 == 0 {
                        self.genesis = self.previous;
                    }
                    // The decoder has seen that it begins where it may.
                    let appended = self.tree.append_subtree(height, hash, |tile| keep_upper(tile, &mut full));
                    self.tree_complete &= appended.is_ok();
                    index = EntryIndex(index.0.saturating_add(count));
                }
            }
            self.compare_tiles(shared, full)?;
        }
        Ok(())
    }

    /// Judges one entry, of which its own hash or a stored one is known, or neither, and gives the leaf to go on with.
    fn entry(
        &mut self,
        index: EntryIndex,
        entry: Option<&Alone<'_>>,
        stored: Option<LeafHash>,
    ) -> Result<Option<LeafHash>, VerifyError> {
        let own = entry.map(|(own, _)| *own);
        let altered = own.zip(stored).is_some_and(|(own, stored)| own != stored);
        if altered {
            self.findings.push(Finding::EntryAltered { index });
        }
        // The stored hash goes on where there is one, so that an altered entry is told from a rewritten tree.
        let leaf = stored.or(own);
        if let (Some((_, record)), Some(leaf)) = (entry, leaf) {
            if let Err(DecodeError::Version { seen }) = record
                && *seen > RECORD_VERSION
                && !altered
                && self.findings.is_empty()
            {
                // Nothing speaks against the log so far: it is for a newer verifier to judge.
                return Err(VerifyError::NewerVersion { index, seen: *seen });
            }
            self.audit.entry(index, record, leaf, self.previous, &mut self.findings);
        }
        if index.0 == 0 {
            self.genesis = leaf;
        }
        self.previous = leaf;
        Ok(leaf)
    }

    /// Compares the heads that the trust file remembers, and that witnesses cosigned, at the present size.
    fn compare_head(&mut self) {
        let tree = self.tree_complete.then_some(&self.tree);
        let Known { witnesses, policy, .. } = &mut self.known;
        witnesses.compare(self.tree.size(), tree, *policy, &mut self.findings);
        while let Some((head, rest)) = self.known.heads.split_first()
            && head.size <= self.tree.size()
        {
            self.known.heads = rest;
            if self.tree_complete && head.size < self.tree.size() {
                // Within withheld entries.
                self.hidden.heads += 1;
                self.hidden.alone += 1;
            } else if self.tree_complete && head.root == self.tree.root() {
                self.hidden.alone = 0;
            } else if self.tree_complete {
                let same_size = head.size == self.size;
                self.findings.push(if same_size {
                    Finding::Equivocation { size: head.size }
                } else {
                    Finding::HeadMismatch { remembered: head.size }
                });
            }
        }
    }

    /// The unfinished tiles above the lowest level, and the last head.
    fn edge<S: Source>(&mut self, source: &mut Cold<S>) -> Result<(), VerifyError> {
        self.compare_head();
        let remembered = self.known.heads.last().map(|head| head.size).max(self.known.witnesses.largest());
        if let Some(remembered) = remembered.filter(|remembered| *remembered > self.size) {
            self.findings.push(Finding::LogTruncated { size: self.size, remembered });
        }
        if !self.tree_complete {
            return Ok(());
        }
        let mut edge = Vec::new();
        self.tree.partial_tiles().for_each(|tile| keep_upper(tile, &mut edge));
        for tile in edge {
            self.compare_tile(source, tile)?;
        }
        self.anchors(source)?;
        self.values(source)?;
        self.blobs(source)?;
        self.host(source)
    }

    /// What was booted: logs that lie beside the entries, replayed against what was quoted.
    fn host<S: Source>(&mut self, source: &mut Cold<S>) -> Result<(), VerifyError> {
        let Self { audit, known, findings, .. } = self;
        // They were compared with their digests once; what is read here may have changed since.
        let read = |wanted: Blob| {
            let content = source.read(&blob::path(&wanted.sha256), blob::BLOB_BYTES_MAX)?;
            Ok::<_, SourceError>(content.filter(|content| blob::reference(content) == wanted))
        };
        Ok(audit.judge_host(known.registers, read, findings)?)
    }

    /// The roots that anchors name, looked up in the tiles: those that are there hold what the tree was made of.
    fn anchors<S: Source>(&mut self, source: &mut Cold<S>) -> Result<(), VerifyError> {
        let tiles = Tiles::new(source, self.size);
        let mut roots = Vec::with_capacity(self.audit.attested.pending().len());
        for pending in self.audit.attested.pending() {
            let root = if pending.size > self.size {
                None
            } else {
                match tiles.finish(root_of(&tiles, pending.size)) {
                    Ok(root) => Some(root),
                    Err(ProveError::Source(error)) => return Err(error.into()),
                    // Reported as missing or damaged where it is.
                    Err(_) => None,
                }
            };
            roots.push(root);
        }
        self.audit.attested.settle(roots, &mut self.findings);
        Ok(())
    }

    /// The texts behind committed values, which are judged last: what was erased is told by later entries.
    fn values<S: Source>(&mut self, source: &mut Cold<S>) -> Result<(), VerifyError> {
        let Some(mut values) = self.audit.take_values() else { return Ok(()) };
        for bundle in values.bundles() {
            let path = tiles::sidecar_path(bundle);
            let sidecar = source.read(&path, SIDECAR_BYTES_MAX)?.unwrap_or_default();
            values.sidecar(bundle, self.size, &sidecar, &mut self.findings);
        }
        values.finish(&mut self.findings);
        Ok(())
    }

    /// The contents that entries refer to, which are not the log's and may be large: last.
    fn blobs<S: Source>(&mut self, source: &mut Cold<S>) -> Result<(), VerifyError> {
        let mut blobs = self.audit.take_blobs();
        let mut told = Told { findings: &mut self.findings, notes: &mut self.audit.notes };
        let attested = &mut self.audit.attested;
        Ok(blobs.read(source, &mut told, &mut |digest, content| attested.blob(digest, content))?)
    }

    fn compare_tiles<S: Source>(
        &mut self,
        shared: &Shared<'_, S>,
        tiles: Vec<(u32, u64, Vec<NodeHash>)>,
    ) -> Result<(), VerifyError> {
        for tile in tiles {
            self.compare_tile(&mut lock(&shared.stage).source, tile)?;
        }
        Ok(())
    }

    fn compare_tile<S: Source>(
        &mut self,
        source: &mut Cold<S>,
        (level, number, expected): (u32, u64, Vec<NodeHash>),
    ) -> Result<(), VerifyError> {
        let width = u16::try_from(expected.len()).unwrap_or(u16::MAX);
        let path = TilePath { kind: TileKind::Hashes { level }, number, width };
        let mut findings = Vec::new();
        let stored = tile(source, path, &mut findings)?;
        for finding in findings {
            self.findings.push(finding);
        }
        if stored.is_some_and(|stored| stored != expected) {
            self.findings.push(Finding::TileDiffers { path: path.path() });
        }
        Ok(())
    }
}

fn keep_upper(tile: TileView<'_>, upper: &mut Vec<(u32, u64, Vec<NodeHash>)>) {
    if tile.level > 0 {
        upper.push((tile.level, tile.number, tile.hashes.to_vec()));
    }
}

/// The hashes of a tile; nothing, and a finding, when it is missing or of another length.
fn tile(
    source: &mut impl Source,
    path: TilePath,
    findings: &mut Vec<Finding>,
) -> Result<Option<Vec<NodeHash>>, SourceError> {
    let Some((bytes, stored_width)) = read_with_full(source, path, tiles::TILE_BYTES)? else {
        findings.push(Finding::TileMissing { path: path.path() });
        return Ok(None);
    };
    match tiles::hashes(&bytes, stored_width) {
        Ok(mut hashes) => {
            hashes.truncate(usize::from(path.width));
            Ok(Some(hashes))
        }
        Err(_) => {
            findings.push(Finding::TileDiffers { path: path.path() });
            Ok(None)
        }
    }
}

/// A tile or bundle of at least this width, with the width it is stored in: a log that has grown since its
/// checkpoint may keep the full one only.
fn read_with_full(
    source: &mut impl Source,
    path: TilePath,
    bytes_max: usize,
) -> Result<Option<(Vec<u8>, u16)>, SourceError> {
    if let Some(bytes) = source.read(&path.path(), bytes_max)? {
        return Ok(Some((bytes, path.width)));
    }
    let full = u16::try_from(TILE_WIDTH).unwrap_or(u16::MAX);
    if path.width == full {
        return Ok(None);
    }
    let bytes = source.read(&TilePath { width: full, ..path }.path(), bytes_max)?;
    Ok(bytes.map(|bytes| (bytes, full)))
}
