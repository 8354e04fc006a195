//! Pruning: entries of long ago go, what must stay of them is put into `kept/` with the hashes that keep it provable
//! (FORMAT.md, sections 4.2 and 18).
//!
//! Owns what is kept, the steps that keep it safe, and the file `log/pruned`, which tells readers where the newest
//! `pruned` entry is. The bytes of kept entries are `agent_evidence::kept`'s.
//!
//! The steps, and what a crash at each leaves:
//! 1. *Looking.* From where entries are to go, the log is read back to the last heartbeat before: everything from there
//!    on stays, so that numbers and chains can be continued. Then everything that is to go is read, by a thread of its
//!    own, counted, and compared with the tree. What is damaged, or cannot be kept aside, stops it here. Only in
//!    memory.
//! 2. *Saying.* The plan is made durable in `log/pruned`, with the place that the `pruned` entry is about to have; the
//!    entry is appended and sealed. A crash before the entry is durable leaves a plan whose entry is none: the one
//!    before counts.
//! 3. *Doing*, one segment of 256 bundles after the other: it is read again, the kept file is written as every durable
//!    file is and read back, then plain bundles, level-0 tiles and the packed segment are removed, and only when that
//!    is durable the lines of sidecars. A crash leaves some of them: where there is a whole bundle it counts, and has
//!    its lines, so nothing is wrong, and the next start does it again.
//! 4. *Done.* What was removed is made durable, and `log/pruned` says so. A crash before: as in 3.
//!
//! While it works no segment is packed. It stops before the write-ahead log, of which a new segment is begun for it.
//! Unlike packing it may spend the reserve: it takes little and gives much, and is needed most where there is no room.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use agent_evidence::kept::{self, Item, Kept, KeptWriter};
use agent_evidence::packed::{self, Segment};
use agent_evidence::record::{self, Body, BootTime, Disclosure, EntryIndex, Kind};
use agent_evidence::tiles::{self, TileKind, TilePath};
use agent_evidence::tree::{NodeHash, TILE_WIDTH, fold_tile, leaf_hash};
use serde::{Deserialize, Serialize};

use super::LogError;
use super::disk::Disk;
use super::durable::{Durable, DurableError};
use super::peek::{Peek, peek};
use super::recover;
use super::tiling::{self, Buffer, Tiling, in_log};

const WIDTH: u64 = TILE_WIDTH as u64;
const FULL: u16 = 256;
/// Bundles of one segment.
const SEGMENT: u64 = packed::SEGMENT_BUNDLES as u64;
/// Entries of one segment.
const SEGMENT_ENTRIES: u64 = SEGMENT * WIDTH;
/// The file that says where the newest `pruned` entry is.
pub const POINTER: &str = "pruned";
/// Bundles handed to the thread in one step, and most it has at once.
const STEP_BUNDLES: usize = 16;
/// Bundles that are read back in one step when the last heartbeat is looked for.
const STEP_BACK: u64 = 32;
/// Bundles whose files are removed in one step.
const STEP_REMOVED: u64 = 32;
/// zlib level of kept files: small, and read seldom.
const LEVEL: u8 = 6;

/// Whether an entry of this kind is kept wherever it stands (FORMAT.md, section 18.1).
fn is_kept_by_kind(kind: Kind) -> bool {
    kind.is_control() || matches!(kind, Kind::Issued | Kind::Revoked | Kind::Workload | Kind::Process)
}

/// What is about to be pruned, or was: how much stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries that are kept for their kind.
    pub by_kind: u64,
    /// Further ones that are kept for a session that is held or open.
    pub by_session: u64,
    /// Further ones that are kept so that numbers can be continued.
    pub by_place: u64,
    /// Entries that go.
    pub gone: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.by_kind += other.by_kind;
        self.by_session += other.by_session;
        self.by_place += other.by_place;
        self.gone += other.gone;
    }
}

/// A plan that waits for its `pruned` entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// The first entry that stays whole.
    pub first: EntryIndex,
    /// Where entries begin that were whole until now.
    pub from: EntryIndex,
    /// How many entries before `first` are kept for their kind, over the whole log.
    pub kept: u64,
    /// What happens to the entries from `from` on.
    pub counts: Counts,
}

/// How far pruning is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PruningState {
    /// Nothing is being done.
    Idle,
    /// It is being looked at.
    Looking,
    /// The plan is ready, for [`Log::prune`](super::Log::prune).
    Ready(Planned),
    /// Its entry is sealed; entries are being removed.
    Removing,
}

/// Why nothing is pruned. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PruneRefused {
    /// Pruning is under way.
    #[error("entries are being pruned already; wait until `affiant status` says that it is done")]
    Busy,
    /// Not all of the log has been gone through for holds.
    #[error("the log has been gone through for holds only up to entry {0}; try again later")]
    Unseen(u64),
    /// There is nothing before that could go.
    #[error(
        "nothing can go before entry {asked}: entries below {first} went before, and those from {floor} on are still needed"
    )]
    Nothing {
        /// The entry asked for.
        asked: u64,
        /// The first entry that is whole.
        first: u64,
        /// The last of which the entries before may go.
        floor: u64,
    },
    /// There is no heartbeat from which numbers could be continued.
    #[error("no heartbeat stands before entry {0}: nothing after it could be checked without what is before")]
    NoStatement(u64),
    /// What would go is not what was signed.
    #[error("bundle {bundle} is not what the tree says: it is evidence, and stays; run `affiant verify`")]
    Damaged {
        /// Which.
        bundle: u64,
    },
    /// What has to stay does not fit a kept file.
    #[error("what must be kept of segment {segment} is too much for one file")]
    TooMuch {
        /// Which.
        segment: u64,
    },
    /// A kept file stands for more than the newest `pruned` entry lets go.
    #[error("the kept entries of segment {segment} reach further than the log says: run `affiant verify`")]
    KeptMore {
        /// Which.
        segment: u64,
    },
    /// The system gives no thread.
    #[error("the system gives no thread")]
    NoThread,
}

/// The file `log/pruned`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pointer {
    /// Index of the `pruned` entry. One that is not there, or is another entry: the entry was never made.
    record: u64,
    /// From where on everything stayed.
    place: u64,
    /// The same of the one before it.
    before: Option<(u64, u64)>,
    /// What it does; absent when it is done.
    plan: Option<Plan>,
}

/// What is kept, and of which part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    /// Segments from this one on are looked at.
    segment: u64,
    /// The first entry that stays whole.
    first: u64,
    /// Everything from this entry on stays.
    place: u64,
    /// Sessions of which everything stays.
    sessions: BTreeSet<u64>,
}

impl Plan {
    /// Whether an entry stays, and why.
    fn judge(&self, index: u64, entry: &[u8]) -> Counts {
        let one = |counts: fn(&mut Counts) -> &mut u64| {
            let mut all = Counts::default();
            *counts(&mut all) = 1;
            all
        };
        // What cannot be read is not ours to remove.
        let Some(Peek { kind, session, .. }) = peek(entry) else { return one(|counts| &mut counts.by_session) };
        if is_kept_by_kind(kind) {
            return one(|counts| &mut counts.by_kind);
        }
        if session.is_some_and(|session| self.sessions.contains(&session.0)) {
            return one(|counts| &mut counts.by_session);
        }
        if index >= self.place {
            return one(|counts| &mut counts.by_place);
        }
        one(|counts| &mut counts.gone)
    }

    /// How many bundles of a segment it covers.
    fn bundles(&self, segment: u64) -> u64 {
        (self.first / WIDTH).saturating_sub(segment * SEGMENT).min(SEGMENT)
    }

    fn segments(&self) -> std::ops::Range<u64> {
        self.segment..self.first.div_ceil(SEGMENT_ENTRIES)
    }
}

/// Prunes, a step at a time.
pub(super) struct Pruner {
    in_background: bool,
    /// Entries below are pruned, by an entry that is sealed.
    first: u64,
    /// How many of them are kept for their kind.
    kept: u64,
    /// Everything from here on stayed when they went.
    place: u64,
    /// Index of that entry.
    record: Option<u64>,
    work: Work,
    worker: Option<Worker>,
    refused: Option<PruneRefused>,
}

enum Work {
    None,
    /// Looks for the last statement before `target`, in the bundle before `bundle`.
    Finding {
        target: u64,
        bundle: u64,
        statement: Statement,
        anew: bool,
        sessions: BTreeSet<u64>,
    },
    /// Reads what is to go.
    Counting {
        plan: Plan,
        pass: Pass,
        total: Counts,
        new: Counts,
    },
    Ready {
        plan: Plan,
        planned: Planned,
    },
    /// Reads it again, for the kept file of one segment.
    Gathering {
        plan: Plan,
        pass: Pass,
    },
    /// The kept file waits to be written.
    Writing {
        plan: Plan,
        segment: u64,
        file: Vec<u8>,
    },
    /// The kept file is durable; files of the segment's bundles from `bundle` on are removed.
    Removing {
        plan: Plan,
        segment: u64,
        kept: Kept,
        bundle: u64,
    },
    /// Nothing of the segment's bundles comes back; lines of entries that went are removed.
    Thinning {
        plan: Plan,
        segment: u64,
        kept: Kept,
        bundle: u64,
    },
    /// Names that were removed are made durable.
    Ending {
        plan: Plan,
    },
}

/// One go through a segment.
struct Pass {
    segment: u64,
    /// Bundles of it handed to the thread, and taken back.
    asked: u64,
    answered: u64,
    packed: Option<Arc<Segment>>,
    /// How many bundles the packed segment has.
    blocks: u64,
    /// What an earlier pruning had left of it.
    kept: Option<Arc<Kept>>,
    /// Hashes of its bundles by the tree.
    roots: Vec<NodeHash>,
    finishing: bool,
}

/// A row of heartbeats, found from behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Statement {
    /// Its first entry as far as is known, and its boot time.
    first: Option<(u64, BootTime)>,
    /// The next entry of the control chain, looking back, is a heartbeat of the same moment or ends it.
    whole: bool,
}

impl Statement {
    /// Takes the entry before. `true`: it is whole.
    fn back(&mut self, index: u64, entry: &[u8]) -> bool {
        let Some(peeked) = peek(entry).filter(|peeked| peeked.control_number.is_some()) else { return false };
        let boot = matches!(peeked.kind, Kind::Heartbeat | Kind::Disarmed)
            .then(|| record::decode(entry).ok().map(|record| record.draft.boot))
            .flatten();
        match (self.first, boot) {
            (None, Some(boot)) => self.first = Some((index, boot)),
            // Heartbeats stand before a `disarmed`, never after one.
            (Some((_, same)), Some(boot)) if same == boot && peeked.kind == Kind::Heartbeat => {
                self.first = Some((index, boot));
            }
            (Some(_), _) => self.whole = true,
            (None, None) => {}
        }
        self.whole
    }
}

impl Pruner {
    /// For a log that begins.
    pub(super) fn new(in_background: bool) -> Self {
        Self { in_background, first: 0, kept: 0, place: 0, record: None, work: Work::None, worker: None, refused: None }
    }

    /// Continues where the newest `pruned` entry left off.
    pub(super) fn resume<D: Disk>(
        in_background: bool,
        disk: &mut Durable<D>,
        tiling: &Tiling,
    ) -> Result<Self, LogError> {
        let mut pruner = Self::new(in_background);
        let Some(bytes) = disk.read(&pointer_path())? else { return Ok(pruner) };
        let pointer: Pointer = serde_json::from_slice(&bytes)
            .map_err(|error| recover::EvidenceFault::Pointer { path: pointer_path(), reason: error.to_string() })?;
        let mut newest = None;
        for (index, place) in [Some((pointer.record, pointer.place)), pointer.before].into_iter().flatten() {
            if let Some(found) = pruned_at(disk, tiling, index)? {
                newest = Some((index, place, found));
                break;
            }
        }
        let Some((record, place, (first, kept))) = newest else { return Ok(pruner) };
        (pruner.first, pruner.kept, pruner.place, pruner.record) = (first, kept, place, Some(record));
        if let Some(plan) = pointer.plan.filter(|plan| record == pointer.record && plan.first == first) {
            pruner.work = Work::Gathering { pass: Pass::of(disk, tiling, &plan, plan.segment)?, plan };
        }
        Ok(pruner)
    }

    /// The first entry that is kept whole.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// How many entries below are kept for their kind.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// Index of the newest `pruned` entry.
    pub(super) fn record(&self) -> Option<u64> {
        self.record
    }

    pub(super) fn is_busy(&self) -> bool {
        !matches!(self.work, Work::None | Work::Ready { .. })
    }

    pub(super) fn state(&self) -> PruningState {
        match &self.work {
            Work::None => PruningState::Idle,
            Work::Finding { .. } | Work::Counting { .. } => PruningState::Looking,
            Work::Ready { planned, .. } => PruningState::Ready(*planned),
            Work::Gathering { .. }
            | Work::Writing { .. }
            | Work::Removing { .. }
            | Work::Thinning { .. }
            | Work::Ending { .. } => PruningState::Removing,
        }
    }

    /// Why the last look ended without a plan.
    pub(super) fn refused(&mut self) -> Option<PruneRefused> {
        self.refused.take()
    }

    /// Begins to look at what would go before `target`, a multiple of 256. With `anew`, what earlier prunings kept is
    /// judged again. What is kept of `sessions` is all.
    pub(super) fn look(&mut self, target: u64, anew: bool, sessions: BTreeSet<u64>) {
        self.refused = None;
        self.work = Work::Finding { target, bundle: target / WIDTH, statement: Statement::default(), anew, sessions };
    }

    /// Forgets a plan that has no entry yet.
    pub(super) fn forget(&mut self) {
        if matches!(self.work, Work::Finding { .. } | Work::Counting { .. } | Work::Ready { .. }) {
            self.end();
        }
    }

    /// Sessions of which everything stays, by the plan at hand.
    pub(super) fn sessions(&self) -> Option<&BTreeSet<u64>> {
        match &self.work {
            Work::Ready { plan, .. } => Some(&plan.sessions),
            _ => None,
        }
    }

    /// Makes the plan durable, before its entry is appended at `record`.
    pub(super) fn say<D: Disk>(&mut self, disk: &mut Durable<D>, record: u64) -> Result<(), DurableError> {
        let Work::Ready { plan, .. } = &self.work else { return Ok(()) };
        let before = self.record.map(|record| (record, self.place));
        point(disk, &Pointer { record, place: plan.place, before, plan: Some(plan.clone()) })
    }

    /// The entry is sealed at `record`: it is done from here on.
    pub(super) fn begin<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        tiling: &Tiling,
        record: u64,
    ) -> Result<(), LogError> {
        if let Work::Ready { plan, planned } = std::mem::replace(&mut self.work, Work::None) {
            (self.first, self.kept, self.place) = (plan.first, planned.kept, plan.place);
            self.record = Some(record);
            self.work = Work::Gathering { pass: Pass::of(disk, tiling, &plan, plan.segment)?, plan };
        }
        Ok(())
    }

    /// Does a little of what there is to do; with `wait`, waits for the thread. `false` when there is nothing to do.
    ///
    /// # Errors
    /// What the disk answers. After [`DurableError::Full`] it is gone on with at another time.
    pub(super) fn step<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        tiling: &Tiling,
        wait: bool,
    ) -> Result<bool, LogError> {
        let wait = wait || !self.in_background;
        match std::mem::replace(&mut self.work, Work::None) {
            Work::None => return Ok(false),
            Work::Ready { plan, planned } => {
                self.work = Work::Ready { plan, planned };
                return Ok(false);
            }
            Work::Finding { target, bundle, statement, anew, sessions } => {
                self.find(disk, tiling, (target, bundle, statement), anew, sessions)?;
            }
            Work::Counting { plan, pass, total, new } => self.count(disk, tiling, plan, pass, (total, new), wait)?,
            Work::Gathering { plan, pass } => self.gather(disk, tiling, plan, pass, wait)?,
            Work::Writing { plan, segment, file } => {
                let path = in_log_kept(segment);
                let written = write(disk, &path, &file);
                match (written, Kept::parse(&file)) {
                    (Ok(()), Ok(kept)) => self.work = Work::Removing { plan, segment, kept, bundle: 0 },
                    // What the writer gave was read again before.
                    (Ok(()), Err(_)) => self.end(),
                    (Err(error), _) => {
                        self.work = Work::Writing { plan, segment, file };
                        return Err(error.into());
                    }
                }
            }
            Work::Removing { plan, segment, kept, bundle } => {
                self.remove(disk, plan, (segment, kept, bundle))?;
            }
            Work::Thinning { plan, segment, kept, bundle } => self.thin(disk, tiling, plan, (segment, kept, bundle))?,
            Work::Ending { plan } => {
                sync_removed(disk, &plan)?;
                if let Some(record) = self.record {
                    match point(disk, &Pointer { record, place: self.place, before: None, plan: None }) {
                        Ok(()) => {}
                        Err(error) => {
                            self.work = Work::Ending { plan };
                            return Err(error.into());
                        }
                    }
                }
                tracing::info!(first = self.first, kept = self.kept, "the entries before were pruned");
                self.end();
            }
        }
        Ok(true)
    }

    fn end(&mut self) {
        self.work = Work::None;
        self.worker = None;
    }

    fn refuse(&mut self, why: PruneRefused) {
        self.refused = Some(why);
        self.end();
    }

    /// Begins with a segment of what is to go; `None`, and refused, when the tree above it is not there.
    fn pass<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        tiling: &Tiling,
        plan: &Plan,
        segment: u64,
    ) -> Result<Option<Pass>, LogError> {
        match Pass::of(disk, tiling, plan, segment) {
            Err(LogError::Fault(_)) => {
                self.refuse(PruneRefused::Damaged { bundle: segment * SEGMENT });
                Ok(None)
            }
            pass => pass.map(Some),
        }
    }

    /// Reads back to the last statement before the target.
    fn find<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        tiling: &Tiling,
        (target, mut bundle, mut statement): (u64, u64, Statement),
        anew: bool,
        sessions: BTreeSet<u64>,
    ) -> Result<(), LogError> {
        let mut buffer = Buffer::default();
        for _ in 0..STEP_BACK {
            if statement.whole || bundle == 0 {
                break;
            }
            bundle -= 1;
            let entries = match recover::bundle(disk, tiling, bundle, &mut buffer) {
                // Found here, it stays for whoever looks into it; the log goes on as it would have without pruning.
                Err(LogError::Fault(_)) => {
                    self.refuse(PruneRefused::Damaged { bundle });
                    return Ok(());
                }
                entries => entries?,
            };
            for (index, entry) in entries.into_iter().rev() {
                if statement.back(index, entry) {
                    break;
                }
            }
        }
        if !statement.whole && bundle > 0 {
            self.work = Work::Finding { target, bundle, statement, anew, sessions };
            return Ok(());
        }
        let Some((place, _)) = statement.first else {
            self.refuse(PruneRefused::NoStatement(target));
            return Ok(());
        };
        // Between the statement and the target everything would have to stay anyway.
        let mut first = (place + 1).next_multiple_of(WIDTH);
        let segment = first / SEGMENT_ENTRIES;
        if first % SEGMENT_ENTRIES / WIDTH < packed_blocks(disk, segment)? && !first.is_multiple_of(SEGMENT_ENTRIES) {
            first = (segment + 1) * SEGMENT_ENTRIES;
        }
        if first > target || first < self.first || (first == self.first && !anew) {
            self.refuse(PruneRefused::Nothing { asked: target, first: self.first, floor: target });
            return Ok(());
        }
        // What had stayed for its place only may go now.
        let segment = if anew { 0 } else { self.place.min(self.first) / SEGMENT_ENTRIES };
        let plan = Plan { segment, first, place, sessions };
        let Some(pass) = self.pass(disk, tiling, &plan, segment)? else { return Ok(()) };
        self.work = Work::Counting { plan, pass, total: Counts::default(), new: Counts::default() };
        Ok(())
    }

    fn count<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        tiling: &Tiling,
        plan: Plan,
        mut pass: Pass,
        (mut total, mut new): (Counts, Counts),
        wait: bool,
    ) -> Result<(), LogError> {
        let whole_from = self.first / WIDTH;
        let Some(answers) = self.exchange(disk, &plan, &mut pass, false, wait)? else { return Ok(()) };
        for (bundle, answer) in answers {
            let Answer::Bundle(counts) = answer else { continue };
            total.add(counts);
            if bundle >= whole_from {
                new.add(counts);
            }
        }
        if pass.answered < plan.bundles(pass.segment) {
            self.work = Work::Counting { plan, pass, total, new };
            return Ok(());
        }
        let segment = pass.segment + 1;
        if plan.segments().contains(&segment) {
            let Some(pass) = self.pass(disk, tiling, &plan, segment)? else { return Ok(()) };
            self.work = Work::Counting { plan, pass, total, new };
            return Ok(());
        }
        // A second look at everything that was kept before found all of that too.
        let kept = self.kept + new.by_kind;
        let planned = Planned { first: EntryIndex(plan.first), from: EntryIndex(self.first), kept, counts: new };
        if total.gone == 0 {
            self.refuse(PruneRefused::Nothing { asked: plan.first, first: self.first, floor: plan.first });
            return Ok(());
        }
        self.work = Work::Ready { plan, planned };
        self.worker = None;
        Ok(())
    }

    fn gather<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        tiling: &Tiling,
        plan: Plan,
        mut pass: Pass,
        wait: bool,
    ) -> Result<(), LogError> {
        let segment = pass.segment;
        if plan.bundles(segment) == 0 {
            self.work = Work::Ending { plan };
            return Ok(());
        }
        let Some(answers) = self.exchange(disk, &plan, &mut pass, true, wait)? else {
            tracing::error!(segment, "what was to go cannot be kept aside any more, and stays as it is");
            self.refused = None;
            return self.next(disk, tiling, plan, segment);
        };
        for (_, answer) in answers {
            if let Answer::File(file) = answer {
                self.work = Work::Writing { plan, segment, file };
                return Ok(());
            }
        }
        self.work = Work::Gathering { plan, pass };
        Ok(())
    }

    /// Hands bundles to the thread and takes its answers. `None` when it cannot be gone on; why is in `refused`.
    fn exchange<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        plan: &Plan,
        pass: &mut Pass,
        finish: bool,
        wait: bool,
    ) -> Result<Option<Vec<(u64, Answer)>>, LogError> {
        if pass.asked == 0 || self.worker.is_none() {
            // A thread for each segment: what an earlier one still has is forgotten with it.
            (pass.asked, pass.answered, pass.finishing) = (0, 0, false);
            self.worker = Worker::start(plan.clone());
        }
        let Some(worker) = &mut self.worker else {
            self.refuse(PruneRefused::NoThread);
            return Ok(None);
        };
        let bundles = plan.bundles(pass.segment);
        let mut failed = pass
            .kept
            .as_ref()
            .filter(|kept| kept.bundles() as u64 > bundles)
            .map(|_| PruneRefused::KeptMore { segment: pass.segment });
        while failed.is_none() && worker.in_flight < STEP_BUNDLES && pass.asked < bundles {
            let number = pass.segment * SEGMENT + pass.asked;
            let (Some(input), Some(root)) = (pass.input(disk, number)?, pass.root()) else {
                failed = Some(PruneRefused::Damaged { bundle: number });
                break;
            };
            if worker.jobs.send(Job::Bundle { number, input, root }).is_err() {
                failed = Some(PruneRefused::NoThread);
                break;
            }
            worker.in_flight += 1;
            pass.asked += 1;
        }
        if failed.is_none()
            && finish
            && pass.asked == bundles
            && !pass.finishing
            && worker.in_flight < STEP_BUNDLES
            && worker.jobs.send(Job::Finish).is_ok()
        {
            pass.finishing = true;
            worker.in_flight += 1;
        }
        let mut answers = Vec::new();
        while worker.in_flight > 0 && failed.is_none() {
            let answer = if wait {
                worker.answers.recv().ok()
            } else {
                match worker.answers.try_recv() {
                    Err(TryRecvError::Empty) => break,
                    answer => answer.ok(),
                }
            };
            worker.in_flight -= 1;
            let number = pass.segment * SEGMENT + pass.answered;
            match answer {
                Some(Answer::Damaged) => failed = Some(PruneRefused::Damaged { bundle: number }),
                Some(Answer::TooMuch) => failed = Some(PruneRefused::TooMuch { segment: pass.segment }),
                Some(answer @ Answer::Bundle(_)) => {
                    answers.push((number, answer));
                    pass.answered += 1;
                }
                Some(answer @ Answer::File(_)) => answers.push((number, answer)),
                None => failed = Some(PruneRefused::NoThread),
            }
        }
        if let Some(why) = failed {
            tracing::error!(%why, "entries are not pruned");
            self.refuse(why);
            return Ok(None);
        }
        Ok(Some(answers))
    }

    fn remove<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        plan: Plan,
        (segment, kept, from): (u64, Kept, u64),
    ) -> Result<(), LogError> {
        let bundles = plan.bundles(segment);
        let until = (from + STEP_REMOVED).min(bundles);
        for bundle in from..until {
            for path in of_bundle(segment * SEGMENT + bundle).into_iter().take(2) {
                disk.remove(&path)?;
            }
        }
        if until < bundles {
            self.work = Work::Removing { plan, segment, kept, bundle: until };
            return Ok(());
        }
        let blocks = packed_blocks(disk, segment)?;
        if blocks > 0 && blocks <= bundles {
            disk.remove(&in_log_packed(segment))?;
        }
        // A whole bundle that came back without its lines would look robbed.
        disk.sync_dir_if_there(&parent(&in_log_packed(segment)))?;
        let last = segment * SEGMENT + bundles.saturating_sub(1);
        for thousand in segment * SEGMENT / THOUSAND..=last / THOUSAND {
            for path in of_bundle(thousand * THOUSAND).into_iter().take(2) {
                disk.sync_dir_if_there(&parent(&path))?;
            }
        }
        self.work = Work::Thinning { plan, segment, kept, bundle: 0 };
        Ok(())
    }

    fn thin<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        tiling: &Tiling,
        plan: Plan,
        (segment, kept, from): (u64, Kept, u64),
    ) -> Result<(), LogError> {
        let bundles = plan.bundles(segment);
        let until = (from + STEP_REMOVED).min(bundles);
        for bundle in from..until {
            if let Err(error) = thin_sidecar(disk, segment * SEGMENT + bundle, bundle, &kept) {
                self.work = Work::Thinning { plan, segment, kept, bundle };
                return Err(error.into());
            }
        }
        if until < bundles {
            self.work = Work::Thinning { plan, segment, kept, bundle: until };
            return Ok(());
        }
        self.next(disk, tiling, plan, segment)
    }

    /// Goes on with the segment after this one.
    fn next<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        tiling: &Tiling,
        plan: Plan,
        segment: u64,
    ) -> Result<(), LogError> {
        self.worker = None;
        self.work = if plan.segments().contains(&(segment + 1)) {
            Work::Gathering { pass: Pass::of(disk, tiling, &plan, segment + 1)?, plan }
        } else {
            Work::Ending { plan }
        };
        Ok(())
    }
}

impl Pass {
    fn of<D: Disk>(disk: &mut Durable<D>, tiling: &Tiling, plan: &Plan, segment: u64) -> Result<Self, LogError> {
        let packed = disk.read(&in_log_packed(segment))?;
        let blocks = packed.as_deref().map_or(0, blocks_of);
        let packed = packed.and_then(|bytes| Segment::parse(bytes).ok()).map(Arc::new);
        let kept = disk.read(&in_log_kept(segment))?.and_then(|bytes| Kept::parse(&bytes).ok()).map(Arc::new);
        let roots = if plan.bundles(segment) == 0 {
            Vec::new()
        } else {
            tiling.bundle_roots(disk, segment).map_err(recover::restore_error)?
        };
        Ok(Self { segment, asked: 0, answered: 0, packed, blocks, kept, roots, finishing: false })
    }

    /// The bundle that comes next, as it is there.
    fn input<D: Disk>(&self, disk: &mut Durable<D>, number: u64) -> Result<Option<Input>, DurableError> {
        let path = in_log(TilePath { kind: TileKind::Entries, number, width: FULL });
        if let Some(bytes) = disk.read(&path)? {
            return Ok(Some(Input::Plain(bytes)));
        }
        let block = usize::try_from(self.asked).unwrap_or(usize::MAX);
        if let Some(packed) = &self.packed
            && self.asked < self.blocks
        {
            return Ok(Some(Input::Packed(Arc::clone(packed), block)));
        }
        let kept = self.kept.as_ref().filter(|kept| kept.bundle(block).is_some());
        Ok(kept.map(|kept| Input::Kept(Arc::clone(kept), block)))
    }

    /// Its hash by the tree.
    fn root(&self) -> Option<NodeHash> {
        usize::try_from(self.asked).ok().and_then(|at| self.roots.get(at)).copied()
    }
}

/// Removes the lines of entries of one bundle that are not kept.
fn thin_sidecar<D: Disk>(disk: &mut Durable<D>, number: u64, bundle: u64, kept: &Kept) -> Result<(), DurableError> {
    let path = format!("{}/{}", tiling::DIR, tiles::sidecar_path(number));
    let Some(bytes) = disk.read(&path)? else { return Ok(()) };
    let Some(held) = usize::try_from(bundle).ok().and_then(|bundle| kept.bundle(bundle)) else { return Ok(()) };
    let places: BTreeSet<u64> = held
        .items()
        .filter(|(_, item)| matches!(item, Item::Entry(_)))
        .map(|(place, _)| number * WIDTH + place as u64)
        .collect();
    let mut lines = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if Disclosure::decode(text).is_ok_and(|(index, _)| places.contains(&index.0)) {
            lines.extend_from_slice(line);
        }
    }
    if lines.is_empty() {
        return disk.remove(&path);
    }
    if lines != bytes {
        disk.publish(&path, &lines)?;
    }
    Ok(())
}

/// Makes the names that were removed of these segments durable, and removes directories that are empty for good.
fn sync_removed<D: Disk>(disk: &mut Durable<D>, plan: &Plan) -> Result<(), DurableError> {
    let past = plan.first / WIDTH;
    for thousand in plan.segment * SEGMENT / THOUSAND..past.div_ceil(THOUSAND) {
        for path in of_bundle(thousand * THOUSAND) {
            let dir = parent(&path);
            // The first thousand bundles have no directory of their own.
            if thousand > 0 && (thousand + 1) * THOUSAND <= past && disk.list(&dir)?.is_empty() {
                disk.remove_dir(&dir)?;
                disk.sync_dir_if_there(&parent(&dir))?;
            } else {
                disk.sync_dir_if_there(&dir)?;
            }
        }
    }
    let dirs: BTreeSet<String> = plan.segments().map(|segment| parent(&in_log_packed(segment))).collect();
    for dir in dirs {
        disk.sync_dir_if_there(&dir)?;
    }
    Ok(())
}

/// Bundles that share a directory, in C2SP's spelling.
const THOUSAND: u64 = 1_000;

/// The directory of a file of the state directory.
fn parent(path: &str) -> String {
    path.rsplit_once('/').map_or(String::new(), |(dir, _)| dir.to_owned())
}

/// The files of a bundle: itself, its tile, its sidecar.
fn of_bundle(number: u64) -> [String; 3] {
    [
        in_log(TilePath { kind: TileKind::Entries, number, width: FULL }),
        in_log(TilePath { kind: TileKind::Hashes { level: 0 }, number, width: FULL }),
        format!("{}/{}", tiling::DIR, tiles::sidecar_path(number)),
    ]
}

/// Writes a kept file.
fn write<D: Disk>(disk: &mut Durable<D>, path: &str, file: &[u8]) -> Result<(), DurableError> {
    disk.make_dirs_durably(path)?;
    disk.publish_checked(path, file)
}

fn point<D: Disk>(disk: &mut Durable<D>, pointer: &Pointer) -> Result<(), DurableError> {
    // Numbers only: it always serializes.
    disk.publish(&pointer_path(), &serde_json::to_vec(pointer).unwrap_or_default())
}

fn pointer_path() -> String {
    format!("{}/{POINTER}", tiling::DIR)
}

fn in_log_kept(segment: u64) -> String {
    format!("{}/{}", tiling::DIR, kept::path(segment))
}

fn in_log_packed(segment: u64) -> String {
    format!("{}/{}", tiling::DIR, packed::path(segment))
}

/// How many blocks a packed segment has; none when it is not there.
fn packed_blocks<D: Disk>(disk: &mut Durable<D>, segment: u64) -> Result<u64, DurableError> {
    Ok(disk.read(&in_log_packed(segment))?.as_deref().map_or(0, blocks_of))
}

fn blocks_of(segment: &[u8]) -> u64 {
    packed::Index::parse(segment, segment.len() as u64).map_or(0, |index| index.blocks() as u64)
}

/// What the entry at `index` says, when it is `pruned`: its `first` and `kept`.
fn pruned_at<D: Disk>(disk: &mut Durable<D>, tiling: &Tiling, index: u64) -> Result<Option<(u64, u64)>, LogError> {
    if index >= tiling.size() {
        return Ok(None);
    }
    let mut buffer = Buffer::default();
    let entries = recover::bundle(disk, tiling, index / WIDTH, &mut buffer)?;
    let entry = entries.into_iter().find(|(at, _)| *at == index);
    Ok(entry.and_then(|(_, entry)| says(entry)))
}

/// What an entry says, when it is `pruned`: its `first` and `kept`.
fn says(entry: &[u8]) -> Option<(u64, u64)> {
    match record::decode(entry).ok()?.body() {
        Body::Pruned(pruned) => Some((pruned.first.0, pruned.kept)),
        _ => None,
    }
}

/// The newest `pruned` entry by the pointer of a log's directory: its index is one of these two, the later first. For
/// readers beside a running writer; whether there is such an entry they see for themselves.
#[must_use]
pub fn candidates(pointer: &[u8]) -> Vec<u64> {
    serde_json::from_slice::<Pointer>(pointer)
        .map(|pointer| [Some(pointer.record), pointer.before.map(|(record, _)| record)].into_iter().flatten().collect())
        .unwrap_or_default()
}

/// The thread that reads, judges, hashes and compresses, so that a second of work delays nobody.
struct Worker {
    jobs: SyncSender<Job>,
    answers: Receiver<Answer>,
    in_flight: usize,
}

enum Input {
    Plain(Vec<u8>),
    Packed(Arc<Segment>, usize),
    Kept(Arc<Kept>, usize),
}

enum Job {
    Bundle { number: u64, input: Input, root: NodeHash },
    Finish,
}

enum Answer {
    Bundle(Counts),
    File(Vec<u8>),
    Damaged,
    TooMuch,
}

impl Worker {
    fn start(plan: Plan) -> Option<Self> {
        let (jobs, incoming) = sync_channel::<Job>(STEP_BUNDLES);
        let (outgoing, answers) = sync_channel(STEP_BUNDLES);
        let thread = std::thread::Builder::new().name("affiant-prune".to_owned()).spawn(move || {
            let mut writer = KeptWriter::new();
            for job in incoming {
                let answer = match job {
                    Job::Bundle { number, input, root } => judge(&plan, &mut writer, number, &input, root),
                    Job::Finish => match std::mem::take(&mut writer).finish(LEVEL) {
                        Ok(file) => Answer::File(file),
                        Err(_) => Answer::TooMuch,
                    },
                };
                if outgoing.send(answer).is_err() {
                    return;
                }
            }
        });
        thread.ok().map(|_detached| Self { jobs, answers, in_flight: 0 })
    }
}

/// Puts what stays of a bundle into the kept file, after comparing it with the tree.
fn judge(plan: &Plan, writer: &mut KeptWriter, number: u64, input: &Input, root: NodeHash) -> Answer {
    let first = number * WIDTH;
    let mut counts = Counts::default();
    let unpacked;
    let bytes = match input {
        Input::Plain(bytes) => bytes,
        Input::Packed(segment, block) => match segment.bundle(*block) {
            Ok(Some(bundle)) => {
                unpacked = bundle.bundle;
                &unpacked
            }
            _ => return Answer::Damaged,
        },
        Input::Kept(kept, bundle) => {
            let Some(held) = kept.bundle(*bundle) else { return Answer::Damaged };
            if held.subtree(8, 0) != Some(root) {
                return Answer::Damaged;
            }
            let items = held.items().map(|(place, item)| match item {
                Item::Entry(entry) => item_of(plan, first + place as u64, entry, &mut counts),
                withheld @ Item::Withheld { .. } => withheld,
            });
            let items: Vec<Item<'_>> = items.collect();
            return if writer.bundle(items).is_ok() { Answer::Bundle(counts) } else { Answer::TooMuch };
        }
    };
    let Ok(entries) = tiles::entries(bytes, FULL) else { return Answer::Damaged };
    let leaves: Vec<NodeHash> = entries.iter().map(|entry| leaf_hash(entry).0).collect();
    if fold_tile(&leaves) != Some(root) {
        return Answer::Damaged;
    }
    let items: Vec<Item<'_>> =
        (first..).zip(&entries).map(|(index, entry)| item_of(plan, index, entry, &mut counts)).collect();
    if writer.bundle(items).is_ok() { Answer::Bundle(counts) } else { Answer::TooMuch }
}

fn item_of<'e>(plan: &Plan, index: u64, entry: &'e [u8], counts: &mut Counts) -> Item<'e> {
    let judged = plan.judge(index, entry);
    counts.add(judged);
    if judged.gone == 0 { Item::Entry(entry) } else { Item::Withheld { height: 0, hash: leaf_hash(entry).0 } }
}

/// The kept files that were looked into last.
#[derive(Default)]
pub(super) struct KeptCache(Option<(u64, Option<Kept>)>);

impl KeptCache {
    /// The kept file of the segment that a bundle is in; nothing when there is none, or it is damaged.
    pub(super) fn load<D: Disk>(&mut self, disk: &mut Durable<D>, number: u64) -> Result<(), DurableError> {
        let segment = number / SEGMENT;
        if self.0.as_ref().is_none_or(|(held, _)| *held != segment) {
            let bytes = disk.read(&in_log_kept(segment))?;
            self.0 = Some((segment, bytes.and_then(|bytes| Kept::parse(&bytes).ok())));
        }
        Ok(())
    }

    /// What is kept of a bundle, if its file was loaded and reaches that far.
    pub(super) fn bundle(&self, number: u64) -> Option<kept::KeptBundle<'_>> {
        let (segment, kept) = self.0.as_ref()?;
        let bundle = usize::try_from(number.checked_sub(segment * SEGMENT)?).ok()?;
        kept.as_ref()?.bundle(bundle)
    }
}
