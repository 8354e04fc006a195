//! The cold part of the log: full bundles of long ago, packed 256 at a time into one compressed file.
//!
//! Owns when a segment is packed, the steps that keep it safe, and how bundles are found again. The bytes of a
//! segment are `agent_evidence::packed`'s.
//!
//! The steps, and what a crash at each leaves:
//! 1. Bundles and their level-0 tiles are read and packed by a thread of its own, which unpacks each block again and
//!    compares both. Only in memory: a crash forgets it.
//! 2. The segment is written as every durable file is (temporary file, fsync, rename, fsync of the directory) and read
//!    back. A crash leaves a temporary file, which the next start removes, or the whole segment beside the plain files.
//! 3. The plain files are removed. A crash leaves some of them: where there is a plain file it counts, so nothing is
//!    wrong; the next start compares what is left with the newest segment and goes on removing.
//!
//! A bundle whose tile is not of its entries, or that is damaged, is evidence: its segment is never packed.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use agent_evidence::packed::{self, PackedError, Segment, Unpacked};
use agent_evidence::tiles::{TileKind, TilePath};
use agent_evidence::tree::TILE_WIDTH;

use super::disk::Disk;
use super::durable::{Durable, DurableError};
use super::tiling::{self, in_log};

const WIDTH: u64 = TILE_WIDTH as u64;
const FULL: u16 = 256;
/// Bundles handed to the thread in one step, and most it has at once: about 2 MiB.
const STEP_BUNDLES: usize = 16;
/// Bundles whose plain files are removed in one step.
const STEP_REMOVED: u64 = 64;
/// Segments that this version names: a thousand directories of a thousand, for 65 thousand million entries. Later ones
/// stay plain.
const SEGMENTS_MAX: u64 = 1_000_000;

/// How the cold part is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// How many entries below the newest checkpoint stay plain: the hot window.
    pub hot_entries: u64,
    /// zlib level, 0 to 10. Above 6 little is won.
    pub level: u8,
    /// Bundles in a segment, 1 to 256; other than 256 in tests only.
    pub bundles: u16,
    /// Whether a commit goes on while the thread compresses, or waits for it.
    pub in_background: bool,
}

impl Default for Packing {
    fn default() -> Self {
        // About 450 MB of plain files; what is looked at most is the last day.
        Self { hot_entries: 1 << 20, level: 6, bundles: FULL, in_background: true }
    }
}

/// Packs segment after segment, a step at a time.
pub(super) struct Packer {
    packing: Option<Packing>,
    /// Number of the segment that is being packed, or comes next.
    next: u64,
    work: Work,
    worker: Option<Worker>,
}

enum Work {
    /// Waits for enough entries.
    None,
    Packing {
        blocks: Vec<Vec<u8>>,
        asked: u64,
    },
    /// The segment is durable. Plain files of the blocks from `from` on are removed, after a comparison with the
    /// segment if an earlier process wrote it.
    Removing {
        from: u64,
        compare: Option<Segment>,
    },
}

/// What may be packed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    /// Entries below are under a checkpoint.
    pub(super) sealed: u64,
    /// Entries below are pruned.
    pub(super) pruned: u64,
    /// Whether another segment may be begun.
    pub(super) begin: bool,
}

/// The thread that compresses, so that a second of work delays nobody.
struct Worker {
    jobs: SyncSender<Job>,
    /// A block, or nothing when the bundle must stay as it is.
    blocks: Receiver<Option<Vec<u8>>>,
    in_flight: usize,
}

struct Job {
    bundle: Vec<u8>,
    tile: Vec<u8>,
    level: u8,
}

impl Job {
    fn run(&self) -> Option<Vec<u8>> {
        let block = packed::pack(&self.bundle, self.level).ok()?;
        let unpacked = packed::unpack(&block, 0).ok()?;
        (unpacked.bundle == self.bundle && unpacked.leaves.as_flattened() == self.tile).then_some(block)
    }
}

impl Worker {
    /// `None` when the system gives no thread: packing waits for a better time.
    fn start() -> Option<Self> {
        let (jobs, incoming) = sync_channel::<Job>(STEP_BUNDLES);
        let (outgoing, blocks) = sync_channel(STEP_BUNDLES);
        let thread = std::thread::Builder::new().name("affiant-pack".to_owned()).spawn(move || {
            for job in incoming {
                if outgoing.send(job.run()).is_err() {
                    return;
                }
            }
        });
        thread.ok().map(|_detached| Self { jobs, blocks, in_flight: 0 })
    }
}

impl Packer {
    /// Whether no segment is being packed.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.work, Work::None)
    }

    /// Continues after the newest segment there is.
    pub(super) fn resume<D: Disk>(packing: Option<Packing>, disk: &mut Durable<D>) -> Result<Self, DurableError> {
        let mut packer = Self { packing, next: 0, work: Work::None, worker: None };
        let Some(newest) = newest_segment(disk)? else { return Ok(packer) };
        packer.next = newest + 1;
        let path = in_log_packed(newest);
        let segment = disk.read(&path)?.and_then(|bytes| Segment::parse(bytes).ok());
        if packing.is_some()
            && let Some(segment) = segment
        {
            // Its name may be one that no sync vouches for yet.
            disk.keeping_reserve(|disk| disk.make_dirs_durably(&path))?;
            disk.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir))?;
            packer.next = newest;
            packer.work = Work::Removing { from: 0, compare: Some(segment) };
        }
        Ok(packer)
    }

    /// Does a little of what there is to do, with `wait`, waits
    /// for the thread. `false` when there is nothing to do.
    ///
    /// # Errors
    /// What the disk answers. After [`DurableError::Full`] it is begun again at another time.
    pub(super) fn step<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        Allowed { sealed, pruned, begin }: Allowed,
        wait: bool,
    ) -> Result<bool, DurableError> {
        let Some(packing) = self.packing else { return Ok(false) };
        let bundles = u64::from(packing.bundles);
        match &mut self.work {
            Work::None => {
                // What was pruned in part stays plain.
                self.next = self.next.max(pruned.div_ceil(packed::SEGMENT_BUNDLES as u64 * WIDTH));
                if !begin {
                    return Ok(false);
                }
                let end = (self.next * packed::SEGMENT_BUNDLES as u64 + bundles) * WIDTH;
                if end > sealed.saturating_sub(packing.hot_entries) || self.next >= SEGMENTS_MAX {
                    return Ok(false);
                }
                if self.worker.is_none() {
                    self.worker = Worker::start();
                }
                if self.worker.is_none() {
                    return Ok(false);
                }
                self.work = Work::Packing { blocks: Vec::new(), asked: 0 };
            }
            Work::Packing { .. } => match self.pack(disk, packing, wait || !packing.in_background) {
                Ok(()) => {}
                Err(error) => {
                    self.give_up();
                    return Err(error);
                }
            },
            Work::Removing { from, compare } => {
                let until = (*from + STEP_REMOVED).min(bundles);
                let first = self.next * packed::SEGMENT_BUNDLES as u64;
                let mut kept = false;
                for block in *from..until {
                    kept |= !remove_plain(disk, first + block, block, compare.as_ref())?;
                }
                if kept || until == bundles {
                    self.work = Work::None;
                    self.next += 1;
                } else {
                    *from = until;
                }
            }
        }
        Ok(true)
    }

    /// Hands bundles to the thread and takes blocks from it; writes the segment when all are there.
    fn pack<D: Disk>(&mut self, disk: &mut Durable<D>, packing: Packing, wait: bool) -> Result<(), DurableError> {
        let (Work::Packing { blocks, asked }, Some(worker)) = (&mut self.work, &mut self.worker) else { return Ok(()) };
        let bundles = u64::from(packing.bundles);
        let mut damaged = false;
        while worker.in_flight < STEP_BUNDLES && *asked < bundles {
            let number = self.next * packed::SEGMENT_BUNDLES as u64 + *asked;
            let [bundle, tile] = plain_paths(number);
            let (Some(bundle), Some(tile)) = (disk.read(&bundle)?, disk.read(&tile)?) else {
                damaged = true;
                break;
            };
            if worker.jobs.send(Job { bundle, tile, level: packing.level }).is_err() {
                damaged = true;
                break;
            }
            worker.in_flight += 1;
            *asked += 1;
        }
        while worker.in_flight > 0 && !damaged {
            let answer = if wait {
                worker.blocks.recv().ok()
            } else {
                match worker.blocks.try_recv() {
                    Err(TryRecvError::Empty) => break,
                    answer => answer.ok(),
                }
            };
            worker.in_flight -= 1;
            match answer.flatten() {
                Some(block) => blocks.push(block),
                None => damaged = true,
            }
        }
        let whole = blocks.len() as u64 == bundles;
        let segment = if whole { packed::join(blocks).ok() } else { None };
        if damaged || (whole && segment.is_none()) {
            tracing::warn!(
                segment = self.next,
                "bundles are not packed: they are damaged, not there, or larger than a segment can be"
            );
            self.give_up();
            self.next += 1;
            return Ok(());
        }
        if let Some(segment) = segment {
            let path = in_log_packed(self.next);
            disk.keeping_reserve(|disk| {
                disk.make_dirs_durably(&path)?;
                disk.publish_checked(&path, &segment)
            })?;
            self.work = Work::Removing { from: 0, compare: None };
        }
        Ok(())
    }

    /// Forgets what was begun, and the thread with what it still has.
    fn give_up(&mut self) {
        self.work = Work::None;
        self.worker = None;
    }
}

/// Removes the plain bundle of this number and its tile; `false`, and nothing removed, when they are not what the
/// segment holds.
fn remove_plain<D: Disk>(
    disk: &mut Durable<D>,
    number: u64,
    block: u64,
    compare: Option<&Segment>,
) -> Result<bool, DurableError> {
    let [bundle, tile] = plain_paths(number);
    if let Some(segment) = compare {
        let plain = (disk.read(&bundle)?, disk.read(&tile)?);
        if plain == (None, None) {
            return Ok(true);
        }
        let unpacked = usize::try_from(block).ok().and_then(|block| segment.bundle(block).ok().flatten());
        let same = unpacked.is_some_and(|unpacked| {
            plain.0.is_none_or(|plain| plain == unpacked.bundle)
                && plain.1.is_none_or(|plain| plain == unpacked.leaves.as_flattened())
        });
        if !same {
            return Ok(false);
        }
    }
    disk.remove(&bundle)?;
    disk.remove(&tile)?;
    Ok(true)
}

fn plain_paths(number: u64) -> [String; 2] {
    [TileKind::Entries, TileKind::Hashes { level: 0 }].map(|kind| in_log(TilePath { kind, number, width: FULL }))
}

fn in_log_packed(number: u64) -> String {
    format!("{}/{}", tiling::DIR, packed::path(number))
}

/// Number of the newest segment.
fn newest_segment<D: Disk>(disk: &mut Durable<D>) -> Result<Option<u64>, DurableError> {
    let root = format!("{}/packed", tiling::DIR);
    let number = |name: &String| name.parse::<u64>().ok().filter(|_| name.len() == 3);
    let names = disk.list(&root)?;
    // Sorted, so the last directory has the highest numbers; it may be empty after a crash.
    for dir in names.iter().rev().filter(|name| name.starts_with('x')) {
        let Some(thousands) = dir.get(1..).and_then(|digits| digits.parse::<u64>().ok()) else { continue };
        let newest = disk.list(&format!("{root}/{dir}"))?.iter().filter_map(number).max();
        if let Some(newest) = newest {
            return Ok(Some(thousands * 1000 + newest));
        }
    }
    Ok(names.iter().filter_map(number).max())
}

/// The segment that was looked into last.
#[derive(Default)]
pub(super) struct ColdCache(Option<(u64, Option<Segment>)>);

impl ColdCache {
    /// What the packed segment holds of a bundle; nothing when there is none, or it is damaged.
    pub(super) fn bundle<D: Disk>(
        &mut self,
        disk: &mut Durable<D>,
        number: u64,
    ) -> Result<Option<Unpacked>, DurableError> {
        let (segment, block) = place(number);
        if self.0.as_ref().is_none_or(|(held, _)| *held != segment) {
            let bytes = disk.read(&in_log_packed(segment))?;
            self.0 = Some((segment, bytes.and_then(|bytes| Segment::parse(bytes).ok())));
        }
        let held = self.0.as_ref().and_then(|(_, held)| held.as_ref());
        Ok(held.and_then(|held| held.bundle(block).ok().flatten()))
    }
}

/// The segment that holds a bundle, and which block of it.
fn place(number: u64) -> (u64, usize) {
    let bundles = packed::SEGMENT_BUNDLES as u64;
    (number / bundles, usize::try_from(number % bundles).unwrap_or(0))
}

/// Why a packed segment of a log's directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is malformed.
    #[error(transparent)]
    Packed(#[from] PackedError),
}

/// What the packed segments below a log's directory hold of a bundle; nothing when no segment has it. For readers beside
/// a running writer: reads the segment's header and one block.
///
/// # Errors
/// [`ColdError`].
pub fn read_bundle(directory: &Path, number: u64) -> Result<Option<Unpacked>, ColdError> {
    use std::os::unix::fs::FileExt as _;
    let (segment, block) = place(number);
    let file = match std::fs::File::open(directory.join(packed::path(segment))) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let size = file.metadata()?.len();
    let mut header = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(packed::HEADER_BYTES_MAX)];
    file.read_exact_at(&mut header, 0)?;
    let Some(range) = packed::Index::parse(&header, size)?.range(block) else { return Ok(None) };
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    if length > packed::SEGMENT_BYTES_MAX {
        return Err(PackedError::TooLarge(length).into());
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(Some(packed::unpack(&bytes, block)?))
}
