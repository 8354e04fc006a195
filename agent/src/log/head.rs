//! The newest checkpoint: signed, made durable, then shown.
//!
//! Owns two copies. `head`, outside the log's directory, is durable before `log/checkpoint` changes, so nobody is
//! ever shown a checkpoint that a power cut could take back. After a crash `log/checkpoint` may be one behind; one
//! that is ahead of `head`, or differs at the same size, means that files were exchanged: a fault.

use agent_evidence::checkpoint::{Checkpoint, CheckpointError};
use agent_evidence::note::Note;
use agent_evidence::record::{TreeSize, WallTime};

use super::disk::Disk;
use super::durable::{Durable, DurableError};

/// The durable copy.
pub(super) const HEAD: &str = "head";
/// The copy that readers see.
pub(super) const VISIBLE: &str = "log/checkpoint";

/// A checkpoint and its signed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The signed note, as stored.
    pub note: Vec<u8>,
    /// When it was signed, by the host's clock; `None` for one that an earlier process signed.
    pub signed: Option<WallTime>,
}

/// Why the stored head cannot be believed. Always an evidence fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// A copy is not a checkpoint.
    #[error("{path} is not a checkpoint: {reason}")]
    Malformed {
        /// Which copy.
        path: &'static str,
        /// What is wrong with it.
        #[source]
        reason: CheckpointError,
    },
    /// Readers were shown a checkpoint that the durable copy does not know.
    #[error("log/checkpoint covers {visible} entries, head {durable}: one of them was exchanged or rolled back")]
    Ahead {
        /// Size of the visible checkpoint.
        visible: u64,
        /// Size of the durable one; 0 when there is none.
        durable: u64,
    },
    /// Two checkpoints of one size.
    #[error("log/checkpoint and head say different things about the tree of {size} entries")]
    Differs {
        /// The size.
        size: u64,
    },
}

/// Reads both copies. `None` when there is neither.
pub(super) fn read<D: Disk>(disk: &mut Durable<D>) -> Result<Result<Option<(Head, Note)>, HeadFault>, DurableError> {
    let durable = disk.read(HEAD)?;
    let visible = disk.read(VISIBLE)?;
    Ok(compare(durable, visible))
}

fn compare(durable: Option<Vec<u8>>, visible: Option<Vec<u8>>) -> Result<Option<(Head, Note)>, HeadFault> {
    let visible = visible.map(|bytes| parse(VISIBLE, &bytes)).transpose()?;
    let Some(bytes) = durable else {
        return match visible {
            None => Ok(None),
            Some((visible, _)) => Err(HeadFault::Ahead { visible: visible.size.0, durable: 0 }),
        };
    };
    let (checkpoint, note) = parse(HEAD, &bytes)?;
    if let Some((visible, _)) = visible {
        if visible.size > checkpoint.size {
            return Err(HeadFault::Ahead { visible: visible.size.0, durable: checkpoint.size.0 });
        }
        if visible.size == checkpoint.size && visible != checkpoint {
            return Err(HeadFault::Differs { size: checkpoint.size.0 });
        }
    }
    Ok(Some((Head { checkpoint, note: bytes, signed: None }, note)))
}

/// Makes a signed checkpoint durable, then visible.
pub(super) fn publish<D: Disk>(disk: &mut Durable<D>, note: &[u8]) -> Result<(), DurableError> {
    disk.publish(HEAD, note)?;
    disk.publish(VISIBLE, note)
}

/// The size a head covers; 0 without one.
pub(super) fn size(head: Option<&Head>) -> TreeSize {
    head.map_or(TreeSize(0), |head| head.checkpoint.size)
}

fn parse(path: &'static str, bytes: &[u8]) -> Result<(Checkpoint, Note), HeadFault> {
    Checkpoint::parse(bytes).map_err(|reason| HeadFault::Malformed { path, reason })
}
