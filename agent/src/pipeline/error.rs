//! Why the pipeline ended.

use crate::log::LogError;
use crate::probe::{ProbeError, RingError};
use crate::workload::IndexError;

/// What the pipeline cannot go on after. Input that cannot be read is counted and recorded instead.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The log could not be written, or does not agree with itself.
    #[error("evidence fault: {0}")]
    Log(#[from] LogError),
    /// The kernel side could not be asked or told something.
    #[error("the kernel side failed: {0}")]
    Probe(#[from] ProbeError),
    /// A ring's own bookkeeping is broken, which only a foreign write to its pages explains.
    #[error("a ring of the kernel side is corrupt: {0}")]
    Ring(#[from] RingError),
    /// The cgroup tree could not be read.
    #[error("the cgroup tree cannot be read: {0}")]
    Cgroups(#[from] IndexError),
    /// The state directory's disk is full.
    #[error(
        "the disk of the state directory is full: free space and start again; events since wait in the kernel's rings, and what they cannot hold is counted"
    )]
    DiskFull,
    /// The NV counter is not where the log says, and configuration wants to halt then.
    #[error(
        "evidence fault: {0}; the log may have been replaced by an older one. tpm.on_counter_gap = \"record\" goes on and says so in the log"
    )]
    CounterGap(String),
    /// The system's random source failed.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

impl PipelineError {
    /// Whether the disk is full, which leaves room for last words.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull | Self::Log(LogError::Full(_)))
    }
}
