//! The tamper-evident log: drafts in, durable entries and signed checkpoints out.
//!
//! Owns the state directory: `log/` (a C2SP tiles directory that anyone may serve or copy), `wal/` (entries until
//! their bundles are durable), `head` (the newest checkpoint, durable before it is shown), `tmp/`, `reserve` and
//! `lock`. One [`Log`] per state directory and one owner of the [`Log`]: there is no lock around it, the lock file
//! keeps a second process out.
//!
//! The commit ladder, and what a crash at each step leaves:
//! 1. [`Log::append`]: in memory. A crash forgets it; nobody was told.
//! 2. [`Log::commit`]: one write and one fdatasync in `wal/`. From here on nothing is lost: recovery replays it.
//!    Full bundles and tiles are then put in place, without a sync of their own: they can be made again.
//! 3. [`Log::seal`]: commit, partial bundle and tiles in place, checkpoint signed by the log key and the epoch
//!    key, durable in `head`, then visible in `log/checkpoint`, then partial files of full tiles removed.
//! 4. Later, in the background: everything is synced, and segments of the write-ahead log that are no longer
//!    needed are used again. What is cold is packed, see [`cold`]; what is old goes, if it is told to, see [`prune`].
//!
//! Time is an argument everywhere: [`Log::due`] says what is due, the owner does it.
//!
//! Trust: workloads cannot reach the state directory. Whoever can write it can destroy it but not change what a
//! checkpoint covers unnoticed; recovery checks what it reads and never repairs, see [`recover`](EvidenceFault).

mod blobs;
mod chains;
pub mod cold;
pub mod copy;
pub mod disk;
pub mod durable;
mod error;
mod head;
mod limits;
mod peek;
pub mod prune;
mod recover;
pub mod retention;
mod sidecar;
#[cfg(test)]
pub(crate) mod simdisk;
pub mod succession;
#[cfg(test)]
mod tests;
mod tiling;
mod wal;

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;

use agent_evidence::blob::BLOB_BYTES_MAX;
use agent_evidence::checkpoint::Checkpoint;
use agent_evidence::note::VerifierKey;
use agent_evidence::record::{
    Blob, Body, BootTime, CommitRules, ControlNumber, Digest, Disclosure, Draft, ENTRY_BYTES_MAX, EntryIndex,
    EpochNumber, Genesis, Kind, LeafHash, Nanoseconds, Placement, Predecessor, Pruned, Requester, SessionNumber,
    SessionState, Text, TreeSize, WallTime,
};
use agent_evidence::tree::TILE_WIDTH;

use crate::sign::epoch::{EpochKey, NAME_SUFFIX, Previous};
use crate::sign::{self, Line, Signer};

use chains::{Chains, NotOpen};
use cold::{Allowed, Packer};
use disk::{Disk, OsDisk};
use durable::{Durable, DurableError};
use prune::{Planned, PruneRefused, Pruner, PruningState};
use retention::Retention;
use sidecar::Sidecars;
use tiling::Tiling;
use wal::Wal;

pub use cold::Packing;
pub use error::LogError;
pub use head::{Head, HeadFault};
pub use limits::Limits;
pub use recover::{EvidenceFault, Recovery};
pub use wal::{WalError, WalFault};

/// Name of the lock file.
const LOCK: &str = "lock";
/// Size of a log that was just created: the genesis is entry 0, the first epoch's entry 1.
const CREATED_SIZE: TreeSize = TreeSize(2);
/// Random bytes fetched at once: 256 entries' worth, so that the system call costs an entry next to nothing.
const RANDOM_BLOCK: usize = 4096;
/// Entries in a bundle.
const WIDTH: u64 = TILE_WIDTH as u64;
/// Heartbeats of this run that must stand after what is pruned: whatever the next start looks back for is among them.
const HEARTBEATS_AFTER: usize = 3;

/// Both clocks at one moment, read by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// UTC by the host's clock: a claim.
    pub wall: WallTime,
    /// Since boot.
    pub boot: BootTime,
}

/// What the genesis entry says besides the log's own name and key.
#[derive(Debug, Clone)]
pub struct Birth<'a> {
    /// The kernel's boot id.
    pub boot_id: Text<'a>,
    /// Kernel release, as `uname -r`.
    pub kernel: Text<'a>,
    /// SHA-256 of `/etc/machine-id`.
    pub machine: Option<Digest>,
    /// The log that this one continues.
    pub predecessor: Option<Predecessor<'a>>,
}

/// The kind of an entry of the store, without reading the rest of it.
#[must_use]
pub fn kind_of(entry: &[u8]) -> Option<Kind> {
    peek::peek(entry).map(|peeked| peeked.kind)
}

/// Where an appended entry stands. Not durable yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its index.
    pub index: EntryIndex,
    /// Its leaf hash.
    pub leaf: LeafHash,
    /// Its number in its session's chain.
    pub session_number: Option<SessionNumber>,
    /// Its number in the control chain.
    pub control_number: Option<ControlNumber>,
}

/// What is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Committed {
    /// Entries below this size are durable: the rings' positions may advance past them.
    pub size: TreeSize,
    /// The disk is full and the reserve is being used: write the last records, seal and stop, or free space and
    /// call [`Log::regain_reserve`].
    pub full: bool,
}

/// A checkpoint that is durable and visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The epoch whose key signed it.
    pub epoch: EpochNumber,
    /// By how much the host's wall clock went back since the checkpoint before, if it did. Noted, not fatal:
    /// wall time is a claim.
    pub wall_went_back: Option<Nanoseconds>,
    /// Whether this call made it; `false` when there was nothing new.
    pub new: bool,
}

/// What the owner of the log should do now, and when to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// [`Log::commit`] is due.
    pub commit: bool,
    /// [`Log::seal`] is due.
    pub seal: bool,
    /// [`Log::rotate_epoch`] is due.
    pub rotate_epoch: bool,
    /// When the next of them will be due, if nothing is appended until then.
    pub next: BootTime,
}

/// The log. See the module's document for what each step promises.
pub struct Log<D: Disk = OsDisk> {
    disk: Durable<D>,
    limits: Limits,
    origin: String,
    log_key: Box<dyn Signer>,
    log_verifier: VerifierKey,
    epoch: Held,
    wal: Wal<D>,
    tiling: Tiling,
    packer: Packer,
    pruner: Pruner,
    retention: Retention,
    /// Where the newest heartbeats of this run begin, and their moments; oldest first.
    heartbeats: VecDeque<(u64, BootTime)>,
    /// How many entries are durable.
    durable: u64,
    /// Where in the tiling's tail the first pending entry begins.
    pending_from: usize,
    sidecars: Sidecars<D>,
    chains: Chains,
    previous: LeafHash,
    random: RandomBlock,
    head: Option<Head>,
    /// Full bundles and tiles below this index are durable.
    synced: u64,
    /// What a running sync of the file system will have made durable.
    syncing: Option<u64>,
    pending_since: Option<BootTime>,
    unsealed_since: Option<BootTime>,
    _lock: D::Lock,
}

/// The epoch's key.
enum Held {
    /// It signs.
    Key(EpochKey),
    /// The log was opened, and no epoch has begun since: nothing can be sealed. The epoch before, whose key is gone.
    Waiting(Option<EpochNumber>),
}

impl Log<OsDisk> {
    /// Creates a log in a state directory that exists and holds none: genesis, first epoch, first checkpoint, all
    /// durable when it returns. The key must be the one [`Log::open`] will be given.
    ///
    /// # Errors
    /// [`LogError::AlreadyCreated`], [`LogError::Locked`], [`LogError::Sign`], and what the disk answers.
    pub fn create(
        state: &Path,
        limits: Limits,
        origin: &str,
        log_key: Box<dyn Signer>,
        birth: &Birth<'_>,
        now: Now,
    ) -> Result<Self, LogError> {
        Self::create_on(open_state(state)?, limits, origin, log_key, birth, now)
    }

    /// Opens the log of a state directory and recovers it. A new epoch is begun: its entry is appended, and
    /// durable with the next commit. The caller appends `recovered` from the [`Recovery`].
    ///
    /// # Errors
    /// [`LogError::NotCreated`], [`LogError::Locked`], [`LogError::Fault`], [`LogError::Sign`], and what the disk
    /// answers.
    pub fn open(
        state: &Path,
        limits: Limits,
        origin: &str,
        log_key: Box<dyn Signer>,
        now: Now,
    ) -> Result<(Self, Recovery), LogError> {
        Self::open_on(open_state(state)?, limits, origin, log_key, now)
    }

    /// As [`Log::open`], without a new epoch: entries are taken and made durable, and nothing is sealed before
    /// [`Log::begin_epoch`]. The log key need not be available yet.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_unsigned(
        state: &Path,
        limits: Limits,
        origin: &str,
        log_key: Box<dyn Signer>,
    ) -> Result<(Self, Recovery), LogError> {
        Self::open_unsigned_on(open_state(state)?, limits, origin, log_key)
    }
}

fn open_state(state: &Path) -> Result<OsDisk, LogError> {
    OsDisk::open(state).map_err(|source| LogError::State { path: state.to_owned(), source })
}

impl<D: Disk> Log<D> {
    /// As [`Log::create`], on any disk.
    ///
    /// # Errors
    /// As [`Log::create`].
    pub fn create_on(
        disk: D,
        limits: Limits,
        origin: &str,
        log_key: Box<dyn Signer>,
        birth: &Birth<'_>,
        now: Now,
    ) -> Result<Self, LogError> {
        let log_verifier = sign::verifier(origin, log_key.public_key())?;
        let mut disk = Durable::new(disk);
        let lock = lock(&mut disk)?;
        disk.ensure_dir(tiling::DIR)?;
        disk.ensure_dir(wal::DIR)?;
        disk.prepare_temp()?;
        disk.sync_dir("")?;
        disk.take_reserve(limits.reserve_bytes)?;
        match recover::recover(&mut disk, &limits, &log_verifier)? {
            None => {}
            // A creation that a crash ended before it was acknowledged: its two entries were never shown to anyone.
            Some(begun) if begun.head.is_none() && begun.recovery.size <= CREATED_SIZE => {
                Wal::discard(&mut disk)?;
            }
            Some(_) => return Err(LogError::AlreadyCreated),
        }
        // What is left of an unfinished creation has no whole group now.
        let (wal, _) = Wal::recover(&mut disk, limits.segment_bytes, |_, _, _| Ok::<(), LogError>(()))?;
        let packer = Packer::resume(limits.packing, &mut disk)?;
        let sidecars = Sidecars::new();
        let (epoch, entry) = EpochKey::begin(origin, &Previous::None, CREATED_SIZE, None, now.boot, log_key.as_ref())?;
        let mut log = Self {
            disk,
            limits,
            origin: origin.to_owned(),
            log_verifier,
            epoch: Held::Key(epoch),
            wal,
            packer,
            pruner: Pruner::new(pruning_in_background(&limits)),
            retention: Retention::new(),
            heartbeats: VecDeque::new(),
            tiling: Tiling::new(),
            sidecars,
            durable: 0,
            pending_from: 0,
            chains: Chains::default(),
            previous: LeafHash([0; 32]),
            random: RandomBlock::default(),
            head: None,
            synced: 0,
            syncing: None,
            pending_since: None,
            unsealed_since: None,
            log_key,
            _lock: lock,
        };
        let vkey = log.log_verifier.to_string();
        let genesis = Genesis {
            format: 1,
            origin: Text::new(origin.as_bytes()),
            log_key: Text::new(vkey.as_bytes()),
            key_tier: log.log_key.tier(),
            boot_id: birth.boot_id.borrow(),
            kernel: birth.kernel.borrow(),
            machine: birth.machine,
            predecessor: birth.predecessor.clone(),
        };
        log.append(&agent_draft(now, Body::Genesis(genesis)))?;
        log.append(&agent_draft(now, Body::Epoch(entry)))?;
        log.seal(now)?;
        Ok(log)
    }

    /// As [`Log::open`], on any disk.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_on(
        disk: D,
        limits: Limits,
        origin: &str,
        log_key: Box<dyn Signer>,
        now: Now,
    ) -> Result<(Self, Recovery), LogError> {
        let (mut log, recovery) = Self::open_unsigned_on(disk, limits, origin, log_key)?;
        log.begin_epoch(now, None)?;
        Ok((log, recovery))
    }

    /// As [`Log::open_unsigned`], on any disk.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_unsigned_on(
        disk: D,
        limits: Limits,
        origin: &str,
        log_key: Box<dyn Signer>,
    ) -> Result<(Self, Recovery), LogError> {
        let log_verifier = sign::verifier(origin, log_key.public_key())?;
        let mut disk = Durable::new(disk);
        let lock = lock(&mut disk)?;
        disk.prepare_temp()?;
        disk.take_reserve(limits.reserve_bytes)?;
        let state = recover::recover(&mut disk, &limits, &log_verifier)?.ok_or(LogError::NotCreated)?;
        if let Some(head) = &state.head {
            // Read back from a rename whose sync may have failed; durable for certain now.
            head::publish(&mut disk, &head.note)?;
        }
        let packer = Packer::resume(limits.packing, &mut disk)?;
        let size = state.tiling.size();
        let pruner = Pruner::resume(pruning_in_background(&limits), &mut disk, &state.tiling)?;
        let retention = Retention::resume(&mut disk, size)?;
        let sidecars = Sidecars::resume(&mut disk, size)?;
        let log = Self {
            disk,
            limits,
            origin: origin.to_owned(),
            log_verifier,
            epoch: Held::Waiting(state.epoch.as_ref().map(|epoch| epoch.number)),
            wal: state.wal,
            packer,
            pruner,
            retention,
            heartbeats: VecDeque::new(),
            pending_from: state.tiling.tail().len(),
            tiling: state.tiling,
            sidecars,
            durable: size,
            chains: state.chains,
            previous: state.previous,
            random: RandomBlock::default(),
            head: state.head,
            synced: 0,
            syncing: None,
            pending_since: None,
            unsealed_since: None,
            log_key,
            _lock: lock,
        };
        Ok((log, state.recovery))
    }

    /// Begins the epoch of a log that was opened without one: an `orphan`, since the key before is gone. `counter` is the
    /// value of the NV counter that was stepped for it. The entry is durable with the next commit.
    ///
    /// # Errors
    /// [`LogError::Sign`] when the log key is not available; as [`Log::append`]. The log then stays as it was.
    pub fn begin_epoch(&mut self, now: Now, counter: Option<u64>) -> Result<(), LogError> {
        let Held::Waiting(before) = &self.epoch else { return Ok(()) };
        let previous = before.map_or(Previous::None, Previous::Lost);
        let first_size = TreeSize(self.tiling.size() + 1);
        let log_key = self.log_key.as_ref();
        let (epoch, entry) = EpochKey::begin(&self.origin, &previous, first_size, counter, now.boot, log_key)?;
        self.append(&agent_draft(now, Body::Epoch(entry)))?;
        self.epoch = Held::Key(epoch);
        Ok(())
    }

    /// Writes the values that these rules name as commitments, from the next entry on, and their texts to sidecars.
    pub fn commit_values(&mut self, rules: CommitRules) {
        self.sidecars.set_rules(rules);
    }

    /// Gives a draft its place and encodes it into the pending buffer. Not durable before [`Log::commit`].
    ///
    /// # Errors
    /// [`LogError::PendingFull`], [`LogError::Full`], [`LogError::SessionNotOpen`], [`LogError::SessionsFull`]:
    /// nothing was appended, the log goes on. [`LogError::Disk`] after a failure of the disk.
    pub fn append(&mut self, draft: &Draft<'_>) -> Result<Appended, LogError> {
        self.may_append(draft)?;
        let numbers = self.chains.numbers(draft).map_err(|NotOpen(session)| LogError::SessionNotOpen(session))?;
        let placement = Placement {
            index: EntryIndex(self.tiling.size()),
            session_number: numbers.session,
            control_number: numbers.control,
            previous: self.previous,
            random: self.random.take()?,
        };
        let disclosures =
            if self.sidecars.rules().is_empty() { None } else { Some(self.encode_committed(draft, &placement)?) };
        let pushed = match &disclosures {
            None => self.tiling.push(|out| draft.encode(&placement, out)),
            Some((entry, _)) => self.tiling.push(|out| out.extend_from_slice(entry)),
        };
        let leaf = pushed.map_err(|bytes| LogError::EntryTooLong { bytes })?;
        if let Some((_, disclosures)) = disclosures {
            self.sidecars.push(placement.index, &disclosures);
        }
        self.previous = leaf;
        self.chains.step(draft, numbers, placement.index, leaf);
        match &draft.body {
            Body::Hold(hold) => self.retention.note(placement.index.0, hold),
            Body::Heartbeat(_) if self.heartbeats.back().is_none_or(|(_, boot)| *boot != draft.boot) => {
                if self.heartbeats.len() == HEARTBEATS_AFTER {
                    self.heartbeats.pop_front();
                }
                self.heartbeats.push_back((placement.index.0, draft.boot));
            }
            _ => {}
        }
        Ok(Appended { index: placement.index, leaf, session_number: numbers.session, control_number: numbers.control })
    }

    /// The entry with the values that the rules name as commitments, and the lines that disclose these.
    fn encode_committed(
        &mut self,
        draft: &Draft<'_>,
        placement: &Placement,
    ) -> Result<(Vec<u8>, Vec<Disclosure<'static>>), LogError> {
        let (mut entry, mut failed) = (Vec::new(), None);
        let random = &mut self.random;
        let mut salts = || {
            random.take().unwrap_or_else(|error| {
                failed = Some(error);
                [0; 16]
            })
        };
        let disclosures = draft.encode_committed(placement, self.sidecars.rules(), &mut salts, &mut entry);
        failed.map_or(Ok((entry, disclosures)), Err)
    }

    fn may_append(&self, draft: &Draft<'_>) -> Result<(), LogError> {
        if let Some(first) = self.disk.poisoned() {
            return Err(LogError::Disk(DurableError::Poisoned { first: first.to_owned() }));
        }
        let kind = draft.body.kind();
        if !self.disk.reserve_held() && !kind.is_control() && kind != Kind::Revoked {
            return Err(LogError::Full(None));
        }
        let bytes = self.pending_bytes() + self.sidecars.pending_bytes();
        if bytes + ENTRY_BYTES_MAX + 2 > self.limits.pending_bytes_max {
            return Err(LogError::PendingFull { bytes, max: self.limits.pending_bytes_max });
        }
        if kind == Kind::Issued && self.chains.open_sessions() >= self.limits.sessions_max {
            return Err(LogError::SessionsFull { max: self.limits.sessions_max });
        }
        if self.tiling.size() >= EntryIndex::MAX.0 {
            return Err(LogError::Exhausted(self.tiling.size()));
        }
        Ok(())
    }

    /// Makes everything appended durable: acknowledged when it returns `Ok`.
    ///
    /// # Errors
    /// [`LogError::Full`]: nothing of what is pending is durable, all of it stays pending; free space and call
    /// again. [`LogError::Disk`]: it is not known what is durable; stop.
    pub fn commit(&mut self) -> Result<Committed, LogError> {
        let size = self.tiling.size();
        // First what entries cannot be read without, then the entries.
        self.sidecars.write(&mut self.disk)?;
        let body = self.tiling.tail().get(self.pending_from..).unwrap_or_default();
        if !body.is_empty() {
            // Bounded by the pending buffer.
            let count = u32::try_from(size - self.durable).unwrap_or(u32::MAX);
            self.wal.append(&mut self.disk, self.durable, count, body)?;
            self.durable = size;
            self.pending_from = self.tiling.tail().len();
            self.pending_since = None;
        }
        match self.write_full() {
            // The entries are durable where they are; the bundles are written when there is space again.
            Ok(()) | Err(DurableError::Full { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.recycle()?;
        // Of entries that are durable.
        self.retention.save(&mut self.disk)?;
        Ok(Committed { size: TreeSize(size), full: !self.disk.reserve_held() })
    }

    /// Makes everything appended durable and covers it with a signed checkpoint, which is durable, then visible
    /// when this returns `Ok`. With nothing new it gives the checkpoint that there is.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Sign`], [`LogError::Unsigned`]: what was appended may be durable and is not sealed;
    /// call again. [`LogError::Disk`]: stop.
    pub fn seal(&mut self, now: Now) -> Result<Sealed, LogError> {
        let _durable = self.commit()?;
        let Held::Key(epoch) = &self.epoch else { return Err(LogError::Unsigned) };
        let epoch = epoch.number();
        let size = TreeSize(self.tiling.size());
        if let Some(head) = self.head.as_ref().filter(|head| head.checkpoint.size == size) {
            let checkpoint = head.checkpoint.clone();
            return Ok(Sealed { checkpoint, epoch, wall_went_back: None, new: false });
        }
        self.write_full()?;
        self.tiling.write_partials(&mut self.disk)?;
        let origin = self.log_verifier.name().clone();
        let checkpoint = Checkpoint { origin, size, root: self.tiling.root() };
        let note = self.sign(&checkpoint)?;
        head::publish(&mut self.disk, &note)?;
        let signed_before = self.head.as_ref().and_then(|head| head.signed);
        let wall_went_back =
            signed_before.and_then(|before| before.0.checked_sub(now.wall.0)).filter(|back| *back > 0).map(Nanoseconds);
        self.head = Some(Head { checkpoint: checkpoint.clone(), note, signed: Some(now.wall) });
        self.unsealed_since = None;
        self.tiling.remove_partials(&mut self.disk, size)?;
        self.recycle()?;
        Ok(Sealed { checkpoint, epoch, wall_went_back, new: true })
    }

    /// Whether the text behind a commitment is in its sidecar.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Disk`], as [`Log::commit`].
    pub fn discloses(&mut self, of: EntryIndex, field: &str) -> Result<bool, LogError> {
        Ok(self.sidecars.holds(&mut self.disk, of, field)?)
    }

    /// Erases the text behind a commitment from its sidecar; whether it was there. The caller has appended, and sealed, an
    /// `erased` entry that says so.
    ///
    /// # Errors
    /// [`LogError::Full`]: nothing was erased. [`LogError::Disk`]: it is not known; stop.
    pub fn erase(&mut self, of: EntryIndex, field: &str) -> Result<bool, LogError> {
        Ok(self.sidecars.erase(&mut self.disk, of, field)?)
    }

    /// Keeps a content beside the log, durable when this returns: what the entry that is appended next may refer to. The same
    /// content again is the same blob.
    ///
    /// # Errors
    /// [`LogError::BlobTooLong`]; [`LogError::Full`]: it is not there, free space and call again; the reserve is not touched for
    /// it. [`LogError::Disk`]: stop.
    pub fn store_blob(&mut self, content: &[u8]) -> Result<Blob, LogError> {
        if content.len() > BLOB_BYTES_MAX {
            return Err(LogError::BlobTooLong { bytes: content.len() });
        }
        Ok(blobs::store(&mut self.disk, content)?)
    }

    /// Ends the epoch and begins the next: everything is sealed under the present key, then an `epoch` entry
    /// signed by it and by the log key is appended. The old key is erased.
    ///
    /// # Errors
    /// As [`Log::seal`] and [`Log::append`]; the epoch then goes on.
    pub fn rotate_epoch(&mut self, now: Now) -> Result<Appended, LogError> {
        self.seal(now)?;
        let Held::Key(held) = &self.epoch else { return Err(LogError::Unsigned) };
        let first_size = TreeSize(self.tiling.size() + 1);
        let (previous, log_key) = (Previous::Held(held), self.log_key.as_ref());
        let (epoch, entry) = EpochKey::begin(&self.origin, &previous, first_size, None, now.boot, log_key)?;
        let appended = self.append(&agent_draft(now, Body::Epoch(entry)))?;
        self.epoch = Held::Key(epoch);
        Ok(appended)
    }

    /// What is due at this moment. Call it after each batch: the intervals count from the first call that sees
    /// something pending.
    pub fn due(&mut self, now: BootTime) -> Due {
        let limits = &self.limits;
        let bytes = self.pending_bytes();
        let began = match &self.epoch {
            Held::Key(epoch) => Some(epoch.began()),
            // Nothing can be sealed before an epoch begins.
            Held::Waiting(_) => None,
        };
        let unsealed = began.map_or(0, |_| self.tiling.size() - self.sealed_size().0);
        let commit_at = deadline(&mut self.pending_since, bytes > 0, now, limits.commit_interval);
        let seal_at = deadline(&mut self.unsealed_since, unsealed > 0, now, limits.seal_interval);
        let rotate_at = began.map(|began| BootTime(began.0.saturating_add(limits.epoch_length.0)));
        let reached = |at: Option<BootTime>| at.is_some_and(|at| at <= now);
        let next = [commit_at, seal_at, rotate_at].into_iter().flatten().min();
        Due {
            commit: reached(commit_at) || bytes >= limits.commit_bytes,
            seal: reached(seal_at) || unsealed >= limits.seal_entries,
            rotate_epoch: reached(rotate_at),
            next: next.unwrap_or(now),
        }
    }

    /// Tries to set the reserve aside again after space was freed; `true` when the log takes every kind again.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn regain_reserve(&mut self) -> Result<bool, LogError> {
        Ok(self.disk.take_reserve(self.limits.reserve_bytes)?)
    }

    /// Free bytes on the disk of the state directory, when the system says how many.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        self.disk.free()
    }

    /// Calls `each` for the entries from `from` on, in order, until it breaks: those of the store and those only
    /// appended so far. Reads one bundle at a time.
    ///
    /// # Errors
    /// [`LogError::Fault`] when a bundle is missing or not whole; [`LogError::Disk`].
    pub fn entries_from(
        &mut self,
        from: EntryIndex,
        mut each: impl FnMut(EntryIndex, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), LogError> {
        recover::entries_from(&mut self.disk, &self.tiling, from.0, |index, entry| Ok(each(EntryIndex(index), entry)))
    }

    /// Calls `each` for the entries from the newest backwards, until it breaks.
    ///
    /// # Errors
    /// As [`Log::entries_from`].
    pub fn entries_back(&mut self, mut each: impl FnMut(EntryIndex, &[u8]) -> ControlFlow<()>) -> Result<(), LogError> {
        recover::entries_back(&mut self.disk, &self.tiling, |index, entry| Ok(each(EntryIndex(index), entry)))
    }

    /// How many entries were appended, durable or not.
    #[must_use]
    pub fn size(&self) -> TreeSize {
        TreeSize(self.tiling.size())
    }

    /// How many entries are durable.
    #[must_use]
    pub fn durable_size(&self) -> TreeSize {
        TreeSize(self.durable)
    }

    /// How many entries the newest checkpoint covers.
    #[must_use]
    pub fn sealed_size(&self) -> TreeSize {
        head::size(self.head.as_ref())
    }

    /// The newest checkpoint.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The newest checkpoint and its epoch, when the checkpoint's tree holds that epoch's entry: what an anchor is made over.
    #[must_use]
    pub fn anchorable(&self) -> Option<(&Checkpoint, EpochNumber)> {
        let (Held::Key(epoch), Some(head)) = (&self.epoch, &self.head) else { return None };
        (head.checkpoint.size >= epoch.first_size()).then_some((&head.checkpoint, epoch.number()))
    }

    /// Bytes that a commit would write now.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.tiling.tail().len() - self.pending_from
    }

    /// Whether only control records and `revoked` are taken, because the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.disk.reserve_held()
    }

    /// Where every open session stands, in order of issuance: what a heartbeat repeats. Rows that do not fit one
    /// entry go into several heartbeats with the same boot time and nothing of the control chain between them.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionState> {
        self.chains.sessions()
    }

    /// Where one session stands; `None` when it is not open.
    #[must_use]
    pub fn session(&self, issued: EntryIndex) -> Option<SessionState> {
        self.chains.session(issued)
    }

    /// The log's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The log key as a C2SP verifier key.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.log_verifier
    }

    /// The epoch in force; `None` when none has begun since the log was opened.
    #[must_use]
    pub fn epoch(&self) -> Option<EpochNumber> {
        match &self.epoch {
            Held::Key(epoch) => Some(epoch.number()),
            Held::Waiting(_) => None,
        }
    }

    /// Whether the log key can sign now.
    #[must_use]
    pub fn has_log_key(&self) -> bool {
        self.log_key.is_available()
    }

    /// Where the log key lives, in words.
    #[must_use]
    pub fn key_place(&self) -> &'static str {
        self.log_key.place()
    }

    /// Where the log key lives.
    #[must_use]
    pub fn key_tier(&self) -> agent_evidence::record::KeyTier {
        self.log_key.tier()
    }

    fn sign(&self, checkpoint: &Checkpoint) -> Result<Vec<u8>, LogError> {
        let Held::Key(epoch) = &self.epoch else { return Err(LogError::Unsigned) };
        let text = checkpoint.text();
        let by_log = Line::new(self.log_verifier.clone(), self.log_key.sign(text.as_bytes())?);
        let epoch_name = format!("{}{NAME_SUFFIX}", self.origin);
        let epoch_verifier = sign::verifier(&epoch_name, epoch.public_key())?;
        let by_epoch = Line::new(epoch_verifier, epoch.sign(text.as_bytes()));
        Ok(checkpoint.sign(&[&by_log, &by_epoch]).into_bytes())
    }

    fn write_full(&mut self) -> Result<(), DurableError> {
        let before = self.tiling.tail().len();
        let outcome = self.tiling.write_full(&mut self.disk);
        self.pending_from -= before - self.tiling.tail().len();
        outcome
    }

    /// Lets the file system catch up in the background, and gives up segments of the write-ahead log that are
    /// durable elsewhere.
    fn recycle(&mut self) -> Result<(), LogError> {
        if let Some(until) = self.syncing {
            // Bounds the space of the write-ahead log when the disk cannot follow.
            let wait = self.wal.segments() > self.limits.segments_max;
            if self.disk.finish_sync_all(wait)? {
                self.synced = until;
                self.syncing = None;
                self.wal.recycle(&mut self.disk, self.synced)?;
            }
        }
        // Recovery begins at a full bundle that a durable checkpoint covers and needs all of it on disk.
        let whole = self.sealed_size().0 & !(WIDTH - 1);
        let whole = whole.min(self.tiling.first());
        if self.syncing.is_none() && self.wal.oldest_end().is_some_and(|end| end <= whole) {
            self.disk.start_sync_all()?;
            self.syncing = Some(whole);
        }
        // Packing makes room in the end, but needs some first; so does pruning.
        self.work()
    }

    /// Does a little of packing or pruning, never of both: a segment that is being packed is not pruned.
    fn step_old(&mut self, wait: bool) -> Result<bool, LogError> {
        let pruning = self.pruner.is_busy();
        if pruning && self.packer.is_idle() {
            let worked = self.pruner.step(&mut self.disk, &self.tiling, wait)?;
            if self.pruner.state() == PruningState::Idle {
                // An old segment of the write-ahead log still has some of what went.
                self.wal.drop_spare(&mut self.disk)?;
            }
            return Ok(worked);
        }
        let allowed = Allowed { sealed: self.sealed_size().0, pruned: self.pruner.first(), begin: !pruning };
        Ok(self.packer.step(&mut self.disk, allowed, wait)? || pruning)
    }

    /// Packs everything that is cold enough, and returns when it is done. The log packs by itself, a little with each
    /// commit; this is for those who want it now.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::Disk`].
    pub fn pack(&mut self) -> Result<(), LogError> {
        while self.step_old(true)? {}
        Ok(())
    }

    /// Begins to look at what would go before an entry, rounded down to what can. With `anew`, what earlier prunings
    /// kept is judged again, so that what a hold had kept that is over goes too. The log looks a little with each
    /// commit; [`Log::pruning`] says when there is a plan, [`Log::refused`] why there is none.
    ///
    /// # Errors
    /// [`PruneRefused`]: nothing is begun.
    pub fn plan_pruning(&mut self, before: EntryIndex, anew: bool) -> Result<(), PruneRefused> {
        if self.pruner.state() != PruningState::Idle {
            return Err(PruneRefused::Busy);
        }
        if let Some(unseen) = self.retention.unseen() {
            return Err(PruneRefused::Unseen(unseen.start));
        }
        let heartbeat = self.heartbeats.front().filter(|_| self.heartbeats.len() == HEARTBEATS_AFTER);
        let statement = heartbeat.map_or(0, |(index, _)| *index);
        let whole = self.sealed_size().0.min(self.tiling.first()).min(statement);
        // Recovery begins here, and compares with the leaf hashes of the bundle before.
        let replayed = self.wal.oldest().unwrap_or(0).next_multiple_of(WIDTH).saturating_sub(WIDTH);
        if replayed < before.0.min(whole) && self.wal.segments() == 1 {
            // Too late for this time.
            self.wal.turn_over();
        }
        let floor = whole.min(replayed) & !(WIDTH - 1);
        let target = before.0.min(floor) & !(WIDTH - 1);
        if target < self.pruner.first() || (target == self.pruner.first() && (!anew || target == 0)) {
            return Err(PruneRefused::Nothing { asked: before.0, first: self.pruner.first(), floor });
        }
        let sessions = self.protected();
        self.pruner.look(target, anew, sessions);
        Ok(())
    }

    /// Sessions of which nothing goes: those that are held, and those that are open, whose totals the log has to know.
    fn protected(&self) -> BTreeSet<u64> {
        self.retention.held().chain(self.chains.sessions().into_iter().map(|state| state.session.0)).collect()
    }

    /// How far pruning is.
    #[must_use]
    pub fn pruning(&self) -> PruningState {
        self.pruner.state()
    }

    /// Why the last look ended without a plan, if it did since the last call.
    pub fn refused(&mut self) -> Option<PruneRefused> {
        self.pruner.refused()
    }

    /// Forgets a plan.
    pub fn forget_pruning(&mut self) {
        self.pruner.forget();
    }

    /// Carries a plan out: says so in the log, seals that, and from then on removes a little with each commit. `None`,
    /// and the plan forgotten, when it is not good any more, because a session was held since.
    ///
    /// # Errors
    /// As [`Log::seal`] and [`Log::append`]; nothing was removed.
    pub fn prune(&mut self, now: Now, rule: &str, by: Option<Requester>) -> Result<Option<Planned>, LogError> {
        let PruningState::Ready(planned) = self.pruner.state() else { return Ok(None) };
        let protected = self.protected();
        let mut affected = protected.range(..planned.first.0);
        if !self.pruner.sessions().is_some_and(|sessions| affected.all(|session| sessions.contains(session))) {
            self.pruner.forget();
            return Ok(None);
        }
        self.commit().map(drop)?;
        let record = self.tiling.size();
        self.pruner.say(&mut self.disk, record)?;
        let body =
            Pruned { first: TreeSize(planned.first.0), kept: planned.kept, rule: Text::new(rule.as_bytes()), by };
        self.append(&agent_draft(now, Body::Pruned(body)))?;
        self.seal(now)?;
        self.pruner.begin(&mut self.disk, &self.tiling, record)?;
        Ok(Some(planned))
    }

    /// Does a little of what there is to do, without a commit.
    ///
    /// # Errors
    /// [`LogError::Disk`], [`LogError::Fault`].
    pub fn work(&mut self) -> Result<(), LogError> {
        match self.step_old(false) {
            Ok(_) | Err(LogError::Full(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The first entry that is kept whole; the entries before it were pruned.
    #[must_use]
    pub fn pruned_before(&self) -> EntryIndex {
        EntryIndex(self.pruner.first())
    }

    /// The newest `pruned` entry, and how many entries it says are kept for their kind.
    #[must_use]
    pub fn pruned_by(&self) -> Option<(EntryIndex, u64)> {
        self.pruner.record().map(|record| (EntryIndex(record), self.pruner.kept()))
    }

    /// Looks after what retention has to know: the time that passed, and holds of earlier runs. To be called every
    /// second or so.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn tend(&mut self, now: Now) -> Result<(), LogError> {
        if let Some(unseen) = self.retention.to_look_at() {
            let until = unseen.end.min((unseen.start / WIDTH + retention::LOOK_BUNDLES) * WIDTH);
            let retention = &mut self.retention;
            let looked = recover::entries_from(&mut self.disk, &self.tiling, unseen.start, |index, entry| {
                if index >= until {
                    return Ok(ControlFlow::Break(()));
                }
                if let Some(peeked) = peek::peek(entry) {
                    retention.look(index, &peeked, entry);
                }
                Ok(ControlFlow::Continue(()))
            });
            match looked {
                Ok(()) => self.retention.saw(until),
                Err(error @ LogError::Fault(_)) => self.retention.stop_looking(&error),
                Err(error) => return Err(error),
            }
        }
        self.retention.tick(now, self.durable);
        Ok(())
    }

    /// The first entry that is younger than this, by the wall clock and by the log's own: see [`retention`].
    #[must_use]
    pub fn older_than(&self, age: Nanoseconds, now: WallTime) -> EntryIndex {
        EntryIndex(self.retention.older_than(age, now))
    }

    /// Whether a session is held, by its `issued` entry.
    #[cfg(test)]
    pub(super) fn is_held(&self, session: EntryIndex) -> bool {
        self.retention.is_held(session)
    }

    /// How many sessions are held, as far as the log has been gone through.
    #[must_use]
    pub fn held(&self) -> usize {
        self.retention.held().count()
    }
}

/// Tests that count operations have everything happen in its place.
fn pruning_in_background(limits: &Limits) -> bool {
    limits.packing.is_none_or(|packing| packing.in_background)
}

/// When something that waits since `since` is due; `since` begins when there is something.
fn deadline(since: &mut Option<BootTime>, waits: bool, now: BootTime, interval: Nanoseconds) -> Option<BootTime> {
    if !waits {
        *since = None;
        return None;
    }
    // A clock that went back must not put off what is due.
    let from = since.map_or(now, |since| since.min(now));
    *since = Some(from);
    Some(BootTime(from.0.saturating_add(interval.0)))
}

fn lock<D: Disk>(disk: &mut Durable<D>) -> Result<D::Lock, LogError> {
    disk.lock(LOCK).map_err(|error| match error {
        DurableError::Fatal { source, .. } if source.kind() == std::io::ErrorKind::WouldBlock => LogError::Locked,
        error => error.into(),
    })
}

/// A draft of something that the agent itself says.
fn agent_draft(now: Now, body: Body<'_>) -> Draft<'_> {
    Draft {
        wall: now.wall,
        boot: now.boot,
        kernel: None,
        process: None,
        workload: None,
        session: None,
        verdict: None,
        body,
    }
}

/// Random bytes, fetched in blocks.
#[derive(Default)]
struct RandomBlock {
    bytes: Vec<u8>,
    used: usize,
}

impl RandomBlock {
    fn take(&mut self) -> Result<[u8; 16], LogError> {
        if self.used + 16 > self.bytes.len() {
            self.bytes.resize(RANDOM_BLOCK, 0);
            getrandom::fill(&mut self.bytes).map_err(LogError::Random)?;
            self.used = 0;
        }
        let mut random = [0; 16];
        random.copy_from_slice(&self.bytes[self.used..self.used + 16]);
        self.used += 16;
        Ok(random)
    }
}
