//! Every bound and interval of the log, with its unit and derivation.

use agent_evidence::record::Nanoseconds;

use super::cold::Packing;
use crate::sign::epoch::EPOCH_LENGTH;

/// Bounds and intervals. The defaults are what the agent runs with; tests use smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest time an appended entry waits to be durable.
    pub commit_interval: Nanoseconds,
    /// Longest time a durable entry waits for a checkpoint.
    pub seal_interval: Nanoseconds,
    /// How long one key epoch lasts.
    pub epoch_length: Nanoseconds,
    /// A commit is due when this many bytes are pending. 2 MiB is about 4,000 entries and is written and synced in
    /// about 2 ms on the reference host, so that syncing costs little per entry and delays little.
    pub commit_bytes: usize,
    /// Most bytes pending; appends are refused above it. Four due commits.
    pub pending_bytes_max: usize,
    /// A seal is due when this many entries are unsealed: bounds what recovery replays.
    pub seal_entries: u64,
    /// Bytes after which another segment of the write-ahead log is begun.
    pub segment_bytes: u64,
    /// Most segments of the write-ahead log before a commit waits for the disk: bounds its space.
    pub segments_max: usize,
    /// Bytes kept aside for the last records on a full disk: one full pending buffer written twice (write-ahead
    /// log, bundles), a new segment's slack, tiles and checkpoints.
    pub reserve_bytes: u64,
    /// How the cold part of the log is packed; `None`: it stays plain.
    pub packing: Option<Packing>,
    /// Most sessions open at once; each costs about 64 bytes.
    pub sessions_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            commit_interval: Nanoseconds(50_000_000),
            seal_interval: Nanoseconds(1_000_000_000),
            epoch_length: EPOCH_LENGTH,
            commit_bytes: 2 << 20,
            pending_bytes_max: 8 << 20,
            seal_entries: 1 << 18,
            segment_bytes: 32 << 20,
            segments_max: 16,
            reserve_bytes: 24 << 20,
            packing: Some(Packing::default()),
            sessions_max: 1 << 16,
        }
    }
}
