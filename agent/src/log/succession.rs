//! Succession: a log that ends is put aside, never changed, and its successor's genesis names its head.
//!
//! Owns `frozen/` in the state directory, one numbered directory for each log that ended there, and `succession`, a marker
//! that is there from the decision until the successor is durable. The marker makes every step repeatable: a crash at any
//! point leaves it, and the next start goes on where it says.
//!
//! A log ends because the operator says so, or because the store contradicts itself and configuration prefers a successor
//! to a halt. What led to the fault stays in the frozen directory for whoever looks into it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use agent_evidence::checkpoint::{Checkpoint, CheckpointError};
use agent_evidence::record::{RootHash, SuccessionCause, TreeSize};

use super::disk::{Disk, OsDisk};
use super::durable::{Durable, DurableError};
use super::{head, tiling, wal};

/// Where logs that ended are.
const FROZEN: &str = "frozen";
/// The marker.
const MARKER: &str = "succession";
/// First line of the marker.
const MAGIC: &str = "affiant succession v1";
/// Name of the file in a frozen directory that says why the log ended.
const WHY: &str = "why";
/// Most logs put aside in one state directory.
const FROZEN_MAX: u64 = 1_000;
/// Most logs that may have ended by a fault before an operator has looked at them (and moved them away): a disk that damages
/// every log must not be given a new one at each start.
pub const FAULTS_MAX: usize = 3;

/// A log that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its origin.
    pub origin: String,
    /// Size that its newest checkpoint covers.
    pub size: TreeSize,
    /// Root hash at that size.
    pub root: RootHash,
    /// Why it ended.
    pub why: SuccessionCause,
    /// Where it is, below the state directory: `log/`, `wal/` and `head` as they were.
    pub directory: String,
}

/// Why a log was not put aside, or not wholly: the next call goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuccessionError {
    /// The state directory cannot be opened.
    #[error("cannot open the state directory")]
    State(#[source] std::io::Error),
    /// A daemon has the log open.
    #[error("another process owns this state directory: stop the daemon first")]
    Locked,
    /// There is no head that a successor could name.
    #[error(
        "the state directory has no checkpoint that a successor could name: keep a copy of it and begin with an empty one"
    )]
    NoHead,
    /// The head is none.
    #[error("the newest checkpoint cannot be read, so no successor can name it")]
    Head(#[source] CheckpointError),
    /// Too many logs ended by a fault.
    #[error("{0} logs ended here by a fault already: look into them, move {FROZEN}/ to another place, and start again")]
    TooManyFaults(usize),
    /// Too many logs ended here.
    #[error("{FROZEN}/ is full: move it to another place")]
    Full,
    /// The marker is not one.
    #[error("the file `{MARKER}` in the state directory is not one of this program: move it away")]
    Marker,
    /// The disk failed.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Parts may be in the state directory or in the frozen one.
    Moving,
    /// Everything is in the frozen directory, durably; what is in the state directory is the successor's.
    Moved,
}

struct Marker {
    phase: Phase,
    why: SuccessionCause,
    directory: String,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::Moving => "moving",
            Phase::Moved => "moved",
        };
        writeln!(f, "{MAGIC}\n{phase}\n{}\n{}", self.why.as_str(), self.directory)
    }
}

impl FromStr for Marker {
    type Err = SuccessionError;

    fn from_str(text: &str) -> Result<Self, SuccessionError> {
        let mut lines = text.lines();
        let (magic, phase, why, directory) = (lines.next(), lines.next(), lines.next(), lines.next());
        let phase = match phase {
            Some("moving") => Phase::Moving,
            Some("moved") => Phase::Moved,
            _ => return Err(SuccessionError::Marker),
        };
        let why = why.and_then(SuccessionCause::parse).ok_or(SuccessionError::Marker)?;
        let numbered = |name: &&str| {
            name.strip_prefix("frozen/").is_some_and(|number| number.len() == 3 && number.parse::<u64>().is_ok())
        };
        let directory = directory.filter(numbered).ok_or(SuccessionError::Marker)?.to_owned();
        match (magic, lines.next()) {
            (Some(MAGIC), None) => Ok(Self { phase, why, directory }),
            _ => Err(SuccessionError::Marker),
        }
    }
}

/// Puts the log of a state directory aside. Nothing of it is read but its head.
///
/// # Errors
/// [`SuccessionError`].
pub fn freeze(state: &Path, why: SuccessionCause) -> Result<Ended, SuccessionError> {
    freeze_on(OsDisk::open(state).map_err(SuccessionError::State)?, why)
}

/// Goes on with a succession that was begun; nothing when none was.
///
/// # Errors
/// [`SuccessionError`].
pub fn resume(state: &Path) -> Result<Option<Ended>, SuccessionError> {
    resume_on(OsDisk::open(state).map_err(SuccessionError::State)?)
}

/// Ends the succession: to be called when the successor is durable.
///
/// # Errors
/// [`SuccessionError`].
pub fn finish(state: &Path) -> Result<(), SuccessionError> {
    finish_on(OsDisk::open(state).map_err(SuccessionError::State)?)
}

/// As [`freeze`], on any disk.
///
/// # Errors
/// As [`freeze`].
pub fn freeze_on<D: Disk>(disk: D, why: SuccessionCause) -> Result<Ended, SuccessionError> {
    let mut disk = Durable::new(disk);
    let _lock = lock(&mut disk)?;
    if disk.read(MARKER)?.is_none() {
        newest_head(&mut disk, "")?;
        let directory = next_directory(&mut disk, why)?;
        disk.prepare_temp()?;
        disk.publish(MARKER, Marker { phase: Phase::Moving, why, directory }.to_string().as_bytes())?;
    }
    go_on(&mut disk)?.ok_or(SuccessionError::NoHead)
}

/// As [`resume`], on any disk.
///
/// # Errors
/// As [`resume`].
pub fn resume_on<D: Disk>(disk: D) -> Result<Option<Ended>, SuccessionError> {
    let mut disk = Durable::new(disk);
    if disk.read(MARKER)?.is_none() {
        return Ok(None);
    }
    let _lock = lock(&mut disk)?;
    disk.prepare_temp()?;
    go_on(&mut disk)
}

/// As [`finish`], on any disk.
///
/// # Errors
/// As [`finish`].
pub fn finish_on<D: Disk>(disk: D) -> Result<(), SuccessionError> {
    let mut disk = Durable::new(disk);
    disk.remove(MARKER)?;
    Ok(disk.sync_dir("")?)
}

fn lock<D: Disk>(disk: &mut Durable<D>) -> Result<D::Lock, SuccessionError> {
    disk.lock(super::LOCK).map_err(|error| match error {
        DurableError::Fatal { source, .. } if source.kind() == std::io::ErrorKind::WouldBlock => {
            SuccessionError::Locked
        }
        error => error.into(),
    })
}

/// Moves what is not moved yet, by the marker.
fn go_on<D: Disk>(disk: &mut Durable<D>) -> Result<Option<Ended>, SuccessionError> {
    let Some(bytes) = disk.read(MARKER)? else { return Ok(None) };
    let mut marker: Marker = std::str::from_utf8(&bytes).map_err(|_not_text| SuccessionError::Marker)?.parse()?;
    // Perhaps only renamed, not yet durable, when an earlier process ended.
    disk.sync_dir("")?;
    let to = &marker.directory;
    if marker.phase == Phase::Moving {
        let why = format!("{to}/{WHY}");
        disk.make_dirs_durably(&why)?;
        disk.publish(&why, format!("{}\n", marker.why.as_str()).as_bytes())?;
        for name in [wal::DIR, tiling::DIR, head::HEAD] {
            disk.rename_if_there(name, &format!("{to}/{name}"))?;
        }
        disk.sync_dir(to)?;
        disk.sync_dir("")?;
        marker.phase = Phase::Moved;
        disk.publish(MARKER, marker.to_string().as_bytes())?;
    }
    let Marker { why, directory, .. } = marker;
    let checkpoint = newest_head(disk, &format!("{directory}/"))?;
    let Checkpoint { origin, size, root } = checkpoint;
    Ok(Some(Ended { origin: origin.as_str().to_owned(), size, root, why, directory }))
}

/// The newest checkpoint of the log in this directory.
fn newest_head<D: Disk>(disk: &mut Durable<D>, prefix: &str) -> Result<Checkpoint, SuccessionError> {
    for name in [head::HEAD, head::VISIBLE] {
        if let Some(bytes) = disk.read(&format!("{prefix}{name}"))? {
            return Checkpoint::parse(&bytes).map(|(checkpoint, _)| checkpoint).map_err(SuccessionError::Head);
        }
    }
    Err(SuccessionError::NoHead)
}

fn next_directory<D: Disk>(disk: &mut Durable<D>, why: SuccessionCause) -> Result<String, SuccessionError> {
    let mut next = 0;
    let mut faults = 0;
    for name in disk.list(FROZEN)? {
        let Ok(number) = name.parse::<u64>() else { continue };
        next = next.max(number + 1);
        let ended = disk.read(&format!("{FROZEN}/{name}/{WHY}"))?.unwrap_or_default();
        faults += usize::from(ended.starts_with(SuccessionCause::Fault.as_str().as_bytes()));
    }
    if why == SuccessionCause::Fault && faults >= FAULTS_MAX {
        return Err(SuccessionError::TooManyFaults(faults));
    }
    if next >= FROZEN_MAX {
        return Err(SuccessionError::Full);
    }
    Ok(format!("{FROZEN}/{next:03}"))
}
