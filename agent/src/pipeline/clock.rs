//! The two clocks of a record, read in one place.

use agent_evidence::record::{BootTime, WallTime};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Reads the host's clocks. The only place of the agent that does, so that everything else takes time as an
/// argument.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock;

impl Clock {
    /// Nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`, the clock of `bpf_ktime_get_boot_ns`).
    #[must_use]
    pub fn boot(self) -> BootTime {
        BootTime(nanoseconds(clock_gettime(ClockId::Boottime)))
    }

    /// UTC by the host's clock, which root can set: recorded as the host's claim.
    #[must_use]
    pub fn wall(self) -> WallTime {
        WallTime(nanoseconds(clock_gettime(ClockId::Realtime)))
    }
}

/// A host whose clock stands before 1970 is told as 1970: the wall time is a claim, and the boot time orders.
fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}
