//! From what is on the disk to a log that can go on: always run at start, not only after a crash.
//!
//! Owns the checks that head, tiles and write-ahead log agree. What a check finds is an [`EvidenceFault`]: nothing
//! is repaired, skipped or made anew, because a log that heals itself cannot testify that it was hurt.
//!
//! What is believed of what: full tiles and bundles below the first bundle that begins in the write-ahead log are
//! durable. Everything from there on is written again from the write-ahead log, because after a failed fsync the
//! page cache shows what no disk has. The root over both must be the one that the head's checkpoint signs.

use std::ops::ControlFlow;

use agent_evidence::kept::Item;
use agent_evidence::note::{NoteError, VerifierKey};
use agent_evidence::record::{
    self, Body, BootTime, DecodeError, EntryIndex, Epoch, Kind, LeafHash, Recovered, RecoveryCause, RootHash,
    SessionState, TreeSize,
};
use agent_evidence::tree::{NodeHash, TILE_WIDTH, leaf_hash};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::LogError;
use super::chains::Chains;
use super::disk::Disk;
use super::durable::Durable;
use super::head::{self, Head, HeadFault};
use super::limits::Limits;
use super::peek::{Peek, peek};
use super::tiling::{self, Buffer, RestoreError, Tiling};
use super::wal::{self, Wal, WalError, WalFault};
use crate::sign;
use crate::sign::epoch::NAME_SUFFIX;

const WIDTH: u64 = TILE_WIDTH as u64;

/// The store contradicts itself, or was changed by somebody else. Exit code 70; freeze the log and begin a
/// successor, or restore the state directory as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceFault {
    /// In the write-ahead log.
    #[error(transparent)]
    Wal(#[from] WalFault),
    /// Between the copies of the newest checkpoint.
    #[error(transparent)]
    Head(#[from] HeadFault),
    /// The checkpoint is another log's.
    #[error("the store holds the log {stored}, configured is {configured}")]
    Origin {
        /// Origin in the checkpoint.
        stored: String,
        /// Origin asked for.
        configured: String,
    },
    /// The newest checkpoint is not signed by our log key.
    #[error("the newest checkpoint is not signed by this host's log key")]
    NotSigned,
    /// The newest checkpoint is not signed by its epoch's key.
    #[error("the newest checkpoint is not signed by the key of epoch {epoch}")]
    NotSignedByEpoch {
        /// The epoch in force at its size.
        epoch: u64,
    },
    /// A signature of the newest checkpoint does not hold.
    #[error("the newest checkpoint was changed after it was signed")]
    Forged(#[source] NoteError),
    /// The write-ahead log is empty although the log is not.
    #[error("the write-ahead log is missing, the newest checkpoint covers {size} entries")]
    WalMissing {
        /// Size of the checkpoint.
        size: u64,
    },
    /// The write-ahead log begins after entries that are nowhere else.
    #[error("the write-ahead log begins with entry {first}, the newest checkpoint covers {size} entries")]
    WalLate {
        /// Its first entry.
        first: u64,
        /// Size of the checkpoint.
        size: u64,
    },
    /// Entries that a checkpoint covers are gone.
    #[error("the newest checkpoint covers {checkpoint} entries, the store has {store}: the log was truncated")]
    Truncated {
        /// Size of the checkpoint.
        checkpoint: u64,
        /// Entries found.
        store: u64,
    },
    /// The entries are not those that were signed.
    #[error("the tree of the store's first {size} entries has another root than the newest checkpoint")]
    Root {
        /// Size of the checkpoint.
        size: u64,
        /// Root that was signed.
        signed: RootHash,
        /// Root of what is stored.
        stored: RootHash,
    },
    /// A full tile that must be there is not.
    #[error("{path} is missing or not whole")]
    Tile {
        /// Its path in the state directory.
        path: String,
    },
    /// The file that names the newest `pruned` entry cannot be read.
    #[error("{path} cannot be read: {reason}")]
    Pointer {
        /// Its path in the state directory.
        path: String,
        /// Why.
        reason: String,
    },
    /// An entry of the write-ahead log is not the one in the tiles.
    #[error("entry {index} of the write-ahead log is not the entry in the tiles")]
    Leaf {
        /// Which.
        index: u64,
    },
    /// An entry does not say the index or previous hash of its place.
    #[error("entry {index} does not follow the entry before it")]
    Sequence {
        /// Its place.
        index: u64,
    },
    /// An entry is not a record.
    #[error("entry {index} cannot be read")]
    Record {
        /// Which.
        index: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The numbers of a session or of the control chain have a hole.
    #[error("entry {index} is not the next one of its chain")]
    Chain {
        /// Which.
        index: u64,
    },
}

/// What was found at start, for the `recovered` record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the previous writer had ended in order: its last entry is `disarmed`, sealed, and nothing was torn.
    pub cause: RecoveryCause,
    /// How many entries there were.
    pub size: TreeSize,
    /// How many of them the newest checkpoint covered.
    pub sealed: TreeSize,
    /// How many entries were in the write-ahead log and not covered by a checkpoint.
    pub replayed: u64,
    /// Bytes of an unfinished group that were discarded: never acknowledged, shown to nobody.
    pub torn_bytes: u64,
}

impl Recovery {
    /// The body of the `recovered` record.
    #[must_use]
    pub fn record(&self) -> Recovered {
        Recovered { cause: self.cause, size: self.size, replayed: self.replayed, torn_bytes: self.torn_bytes }
    }

    /// Index of the last entry that was found.
    #[must_use]
    pub fn last(&self) -> Option<EntryIndex> {
        self.size.0.checked_sub(1).map(EntryIndex)
    }
}

/// A log that can go on.
pub(super) struct State<D: Disk> {
    pub(super) wal: Wal<D>,
    pub(super) tiling: Tiling,
    pub(super) chains: Chains,
    pub(super) head: Option<Head>,
    /// Leaf hash of the last entry.
    pub(super) previous: LeafHash,
    /// The newest epoch of the log.
    pub(super) epoch: Option<Epoch<'static>>,
    pub(super) recovery: Recovery,
}

/// Recovers. `Ok(None)`: there is no log, and none was begun.
pub(super) fn recover<D: Disk>(
    disk: &mut Durable<D>,
    limits: &Limits,
    log_key: &VerifierKey,
) -> Result<Option<State<D>>, LogError> {
    let head = head::read(disk)?.map_err(EvidenceFault::from)?;
    if let Some((head, note)) = &head {
        let (stored, configured) = (&head.checkpoint.origin, log_key.name());
        if stored != configured {
            let (stored, configured) = (stored.as_str().to_owned(), configured.as_str().to_owned());
            return Err(EvidenceFault::Origin { stored, configured }.into());
        }
        if !note.signed_by(log_key).map_err(EvidenceFault::Forged)? {
            return Err(EvidenceFault::NotSigned.into());
        }
    }
    let checkpoint = head.as_ref().map(|(head, _)| &head.checkpoint);
    let sealed = checkpoint.map_or(0, |checkpoint| checkpoint.size.0);
    let mut replay = Replay {
        sealed,
        root: checkpoint.map(|checkpoint| checkpoint.root),
        tiling: None,
        base: 0,
        base_leaves: Vec::new(),
        previous: LeafHash([0; 32]),
    };
    let (wal, tail) = Wal::recover(disk, limits.segment_bytes, |disk, first, body| replay.group(disk, first, body))?;
    let (Some(tail), Some(mut tiling)) = (tail, replay.tiling) else {
        return match sealed {
            0 if head.is_none() => Ok(None),
            _ => Err(EvidenceFault::WalMissing { size: sealed }.into()),
        };
    };
    if tiling.size() < sealed {
        return Err(EvidenceFault::Truncated { checkpoint: sealed, store: tiling.size() }.into());
    }
    tiling.find_partials(disk, replay.base)?;
    let (chains, epoch, last) = Chained::find(disk, &tiling, head.as_ref())?;
    let clean = last == Kind::Disarmed && tail.torn_bytes == 0 && sealed == tiling.size();
    let recovery = Recovery {
        cause: if clean { RecoveryCause::Clean } else { RecoveryCause::Crash },
        size: TreeSize(tiling.size()),
        sealed: TreeSize(sealed),
        replayed: tiling.size() - sealed,
        torn_bytes: tail.torn_bytes,
    };
    let head = head.map(|(head, _)| head);
    Ok(Some(State { wal, tiling, chains, head, previous: replay.previous, epoch, recovery }))
}

/// Puts the groups of the write-ahead log into the tree.
struct Replay {
    sealed: u64,
    root: Option<RootHash>,
    tiling: Option<Tiling>,
    /// Index from which entries are taken from the write-ahead log.
    base: u64,
    /// Leaf hashes of the full tile just below `base`.
    base_leaves: Vec<NodeHash>,
    previous: LeafHash,
}

impl Replay {
    fn group<D: Disk>(&mut self, disk: &mut Durable<D>, first: u64, body: &[u8]) -> Result<(), LogError> {
        let mut tiling = match self.tiling.take() {
            Some(tiling) => tiling,
            None => self.begin(disk, first)?,
        };
        for (index, entry) in (first..).zip(wal::Entries(body).flatten()) {
            if index < self.base {
                let below = usize::try_from(index % WIDTH).ok().and_then(|at| self.base_leaves.get(at));
                if below != Some(&leaf_hash(entry).0) {
                    return Err(EvidenceFault::Leaf { index }.into());
                }
                continue;
            }
            let follows =
                peek(entry).is_some_and(|peek| peek.index.0 == index && is_base64_of(peek.previous, &self.previous.0));
            if !follows {
                return Err(EvidenceFault::Sequence { index }.into());
            }
            // An entry that was read from a frame of 16 bits fits one.
            let pushed = tiling.push(|out| out.extend_from_slice(entry));
            self.previous = pushed.map_err(|_len| EvidenceFault::Sequence { index })?;
            if tiling.size() == self.sealed {
                self.check_root(tiling.root())?;
                tiling.write_full(disk)?;
                // What readers were promised with that checkpoint may be torn.
                tiling.write_partials(disk)?;
            }
        }
        tiling.write_full(disk)?;
        self.tiling = Some(tiling);
        Ok(())
    }

    fn begin<D: Disk>(&mut self, disk: &mut Durable<D>, first: u64) -> Result<Tiling, LogError> {
        self.base = first.next_multiple_of(WIDTH);
        if self.base > self.sealed {
            return Err(EvidenceFault::WalLate { first, size: self.sealed }.into());
        }
        let tiling = Tiling::restore(disk, self.base).map_err(restore_error)?;
        if let Some(number) = (self.base / WIDTH).checked_sub(1) {
            self.base_leaves = tiling::leaf_hashes(disk, number).map_err(restore_error)?;
            self.previous = LeafHash(self.base_leaves.last().copied().unwrap_or_default());
        }
        if self.base == self.sealed && self.sealed > 0 {
            self.check_root(tiling.root())?;
        }
        Ok(tiling)
    }

    fn check_root(&self, stored: RootHash) -> Result<(), EvidenceFault> {
        match self.root {
            Some(signed) if signed != stored => Err(EvidenceFault::Root { size: self.sealed, signed, stored }),
            _ => Ok(()),
        }
    }
}

pub(super) fn restore_error(error: RestoreError) -> LogError {
    match error {
        RestoreError::Durable(error) => error.into(),
        RestoreError::Tree(error) => EvidenceFault::Tile { path: error.to_string() }.into(),
        RestoreError::Tile { path } => EvidenceFault::Tile { path }.into(),
    }
}

fn is_base64_of(text: &str, hash: &[u8; 32]) -> bool {
    // 44 characters are what 32 bytes take.
    let mut encoded = [0_u8; 44];
    STANDARD.encode_slice(hash, &mut encoded) == Ok(encoded.len()) && encoded == text.as_bytes()
}

/// Goes back through the log to where the open sessions, the control chain and the epochs are told.
#[derive(Default)]
struct Chained {
    last: Option<Kind>,
    next_control: Option<u64>,
    epoch: Option<Epoch<'static>>,
    /// Whether the epoch in force at the head has been found, and the head's signature checked.
    head_checked: bool,
    /// Sessions as heartbeats tell them, the newest word on each.
    sessions: Vec<SessionState>,
    snapshot: Snapshot,
}

#[derive(Default, PartialEq, Eq)]
enum Snapshot {
    #[default]
    Wanted,
    /// A part of one is found; earlier parts have the same boot time and nothing of the control chain between.
    Parts { boot: BootTime, first: u64 },
    /// Entries from `first` on have to be followed.
    Whole { first: u64 },
}

impl Chained {
    fn find<D: Disk>(
        disk: &mut Durable<D>,
        tiling: &Tiling,
        head: Option<&(Head, agent_evidence::note::Note)>,
    ) -> Result<(Chains, Option<Epoch<'static>>, Kind), LogError> {
        let mut found = Self { head_checked: head.is_none(), ..Self::default() };
        entries_back(disk, tiling, |index, entry| found.look(index, entry, head))?;
        let first = match found.snapshot {
            Snapshot::Whole { first } | Snapshot::Parts { first, .. } => first,
            Snapshot::Wanted => 0,
        };
        let mut chains = Chains::resume(found.sessions, found.next_control.unwrap_or(0));
        entries_from(disk, tiling, first, |index, entry| {
            let Some(Peek { kind, session: Some(session), session_number: Some(number), .. }) = peek(entry) else {
                return Ok(ControlFlow::Continue(()));
            };
            if !chains.step_session(kind, session, number, leaf_hash(entry)) {
                return Err(EvidenceFault::Chain { index }.into());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((chains, found.epoch, found.last.unwrap_or(Kind::Genesis)))
    }

    fn look(
        &mut self,
        index: u64,
        entry: &[u8],
        head: Option<&(Head, agent_evidence::note::Note)>,
    ) -> Result<ControlFlow<()>, LogError> {
        let peeked = peek(entry).ok_or(EvidenceFault::Sequence { index })?;
        self.last.get_or_insert(peeked.kind);
        let Some(control) = peeked.control_number else { return Ok(ControlFlow::Continue(())) };
        self.next_control.get_or_insert(control.0 + 1);
        match peeked.kind {
            Kind::Heartbeat | Kind::Disarmed | Kind::Epoch | Kind::Genesis => self.read(index, entry, head)?,
            _ => self.end_snapshot(),
        }
        let done = self.epoch.is_some() && self.head_checked && matches!(self.snapshot, Snapshot::Whole { .. });
        Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn read(
        &mut self,
        index: u64,
        entry: &[u8],
        head: Option<&(Head, agent_evidence::note::Note)>,
    ) -> Result<(), LogError> {
        let record = record::decode(entry).map_err(|source| EvidenceFault::Record { index, source })?;
        match &record.draft.body {
            Body::Heartbeat(heartbeat) => self.snapshot(index, record.draft.boot, &heartbeat.sessions),
            Body::Disarmed(disarmed) => self.snapshot(index, record.draft.boot, &disarmed.sessions),
            Body::Epoch(epoch) => {
                self.end_snapshot();
                if let (false, Some((head, note))) = (self.head_checked, head)
                    && epoch.first_size <= head.checkpoint.size
                {
                    let name = format!("{}{NAME_SUFFIX}", head.checkpoint.origin.as_str());
                    let key = sign::verifier(&name, epoch.public_key)?;
                    if !note.signed_by(&key).map_err(EvidenceFault::Forged)? {
                        return Err(EvidenceFault::NotSignedByEpoch { epoch: epoch.number.0 }.into());
                    }
                    self.head_checked = true;
                }
                self.epoch.get_or_insert_with(|| epoch.clone().into_owned());
            }
            _ => {
                self.end_snapshot();
                self.snapshot = match self.snapshot {
                    // Nothing was ever told: every session is found by following the log from its beginning.
                    Snapshot::Wanted => Snapshot::Whole { first: 0 },
                    Snapshot::Parts { first, .. } | Snapshot::Whole { first } => Snapshot::Whole { first },
                };
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, index: u64, boot: BootTime, sessions: &[SessionState]) {
        match self.snapshot {
            Snapshot::Wanted => {}
            Snapshot::Parts { boot: same, .. } if same == boot => {}
            _ => return self.end_snapshot(),
        }
        self.snapshot = Snapshot::Parts { boot, first: index };
        for state in sessions {
            if !self.sessions.iter().any(|known| known.session == state.session) {
                self.sessions.push(*state);
            }
        }
    }

    fn end_snapshot(&mut self) {
        if let Snapshot::Parts { first, .. } = self.snapshot {
            self.snapshot = Snapshot::Whole { first };
        }
    }
}

/// Calls `each` for the entries from `from` on, in order, until it breaks.
pub(super) fn entries_from<D: Disk>(
    disk: &mut Durable<D>,
    tiling: &Tiling,
    from: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>, LogError>,
) -> Result<(), LogError> {
    let mut buffer = Buffer::default();
    let mut number = from / WIDTH;
    while number * WIDTH < tiling.size() {
        for (index, entry) in bundle(disk, tiling, number, &mut buffer)? {
            if index >= from && each(index, entry)?.is_break() {
                return Ok(());
            }
        }
        number += 1;
    }
    Ok(())
}

/// Calls `each` for the entries from the newest backwards, until it breaks.
pub(super) fn entries_back<D: Disk>(
    disk: &mut Durable<D>,
    tiling: &Tiling,
    mut each: impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>, LogError>,
) -> Result<(), LogError> {
    let mut buffer = Buffer::default();
    for number in (0..tiling.size().div_ceil(WIDTH)).rev() {
        for (index, entry) in bundle(disk, tiling, number, &mut buffer)?.into_iter().rev() {
            if each(index, entry)?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The entries of a bundle with their indexes: all of them, or those that are kept of one that was pruned.
pub(super) fn bundle<'a, D: Disk>(
    disk: &mut Durable<D>,
    tiling: &'a Tiling,
    number: u64,
    buffer: &'a mut Buffer,
) -> Result<Vec<(u64, &'a [u8])>, LogError> {
    let damaged = || EvidenceFault::Tile { path: format!("bundle {number} of {}/tile/entries", tiling::DIR) };
    let first = number * WIDTH;
    if !tiling.fill(disk, number, buffer)? {
        buffer.kept.load(disk, number)?;
        let kept = buffer.kept.bundle(number).ok_or_else(damaged)?;
        let entries = kept.items().filter_map(|(place, item)| match item {
            Item::Entry(entry) => Some((first + place as u64, entry)),
            Item::Withheld { .. } => None,
        });
        return Ok(entries.collect());
    }
    let Some((bytes, end)) = tiling.filled(number, buffer) else { return Err(damaged().into()) };
    match wal::Entries(bytes).collect::<Option<Vec<&[u8]>>>() {
        Some(entries) if entries.len() as u64 == end - first => Ok((first..).zip(entries).collect()),
        _ => Err(damaged().into()),
    }
}

impl From<WalError> for LogError {
    fn from(error: WalError) -> Self {
        match error {
            WalError::Durable(error) => error.into(),
            WalError::Fault(fault) => Self::Fault(fault.into()),
        }
    }
}
