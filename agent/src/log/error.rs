//! Why the log refuses or fails, sorted by what the caller can do: commit and append again, free space, or stop.

use std::path::PathBuf;

use agent_evidence::blob::BLOB_BYTES_MAX;
use agent_evidence::record::{ENTRY_BYTES_MAX, EntryIndex};

use super::durable::DurableError;
use super::recover::EvidenceFault;
use crate::sign::SignError;

/// Why the log refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The state directory cannot be opened.
    #[error("cannot open the state directory {path}")]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the log open.
    #[error("another process owns this state directory")]
    Locked,
    /// There is no log; it is created by [`Log::create`](super::Log::create) only.
    #[error("the state directory holds no log")]
    NotCreated,
    /// There is a log already.
    #[error("the state directory holds a log already")]
    AlreadyCreated,
    /// The disk is full. Nothing acknowledged is lost; what is pending stays pending. Records of the control chain
    /// and `revoked` are still taken while the reserve lasts.
    #[error("the disk is full: free space on the file system of the state directory")]
    Full(#[source] Option<DurableError>),
    /// The disk failed: evidence fault, never retried.
    #[error(transparent)]
    Disk(DurableError),
    /// The store contradicts itself: evidence fault.
    #[error(transparent)]
    Fault(#[from] EvidenceFault),
    /// The pending buffer is full: commit, then append again.
    #[error("{bytes} bytes are pending, at most {max}: commit first")]
    PendingFull {
        /// Bytes pending.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A draft names a session that is not open.
    #[error("no session is open with the issued entry {0:?}")]
    SessionNotOpen(EntryIndex),
    /// Too many sessions are open.
    #[error("{max} sessions are open, the limit")]
    SessionsFull {
        /// The limit.
        max: usize,
    },
    /// The encoder gave an entry that is too long: a fault of this program, the entry is not appended.
    #[error("an entry of {bytes} bytes, at most {ENTRY_BYTES_MAX}")]
    EntryTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A content is longer than a blob may be.
    #[error("a content of {bytes} bytes, at most {BLOB_BYTES_MAX} are kept beside the log")]
    BlobTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The log has as many entries as an index can name.
    #[error("the log has {0} entries, the most it can have: begin a successor")]
    Exhausted(u64),
    /// A key could not sign or be made. Entries stay durable, and unsigned until it can.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// No epoch has begun since the log was opened, so that nothing can be signed. Entries stay durable.
    #[error("the log cannot be signed yet: its key waits for the TPM")]
    Unsigned,
    /// The system gave no random bytes.
    #[error("no random bytes for an entry: {0}")]
    Random(getrandom::Error),
}

impl LogError {
    /// Whether the evidence itself is in danger: the agent stops with exit code 70 and does not go on by itself.
    #[must_use]
    pub fn is_evidence_fault(&self) -> bool {
        matches!(self, Self::Fault(_) | Self::Disk(_) | Self::Exhausted(_))
    }
}

impl From<DurableError> for LogError {
    fn from(error: DurableError) -> Self {
        match error {
            DurableError::Full { .. } => Self::Full(Some(error)),
            DurableError::Fatal { .. } | DurableError::Poisoned { .. } => Self::Disk(error),
        }
    }
}
