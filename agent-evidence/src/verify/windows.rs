//! The times between runs of the agent: when nothing was observed, and where entries could be missing without a trace.
//!
//! Owns: the list of windows of a report and their sums. A log alone cannot tell a crash from a log that somebody cut and
//! continued, so each run that ends without `disarmed` leaves a window that is listed, whatever the cause.

use crate::record::{Armed, BootTime, EntryIndex, Id128, WallTime};

/// Most windows kept; all are counted and summed.
const WINDOWS_MAX: usize = 1_000;

/// What a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowKind {
    /// From the boot of the host to the first `armed` of the log.
    BeforeFirstRun,
    /// From `disarmed` to the next `armed`, in one boot.
    Stopped,
    /// From `disarmed` to the first `armed` of a later boot: the host was off for some of it.
    Restarted,
    /// From the last sign of life of a run that ended without `disarmed` to the next `armed`.
    RunCut,
    /// The same where the kernel side went on capturing, and its numbers were taken up again.
    Resumed,
    /// Within a run: far longer between two signs of life than the run declared.
    Silent,
    /// Within a run: far longer without an anchor than the run declared.
    Unanchored,
    /// From the latest certification of the TPM's counter to one that was made up for at a later start.
    CountedLate,
    /// The log ends within a run.
    OpenEnd,
    /// The log ends after `disarmed`.
    Ended,
}

impl WindowKind {
    /// Every kind, in the order of the specification.
    pub const ALL: [Self; 10] = [
        Self::BeforeFirstRun,
        Self::Stopped,
        Self::Restarted,
        Self::RunCut,
        Self::Resumed,
        Self::Silent,
        Self::Unanchored,
        Self::CountedLate,
        Self::OpenEnd,
        Self::Ended,
    ];

    /// Its name for machines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeFirstRun => "before_first_run",
            Self::Stopped => "stopped",
            Self::Restarted => "restarted",
            Self::RunCut => "run_cut",
            Self::Resumed => "resumed",
            Self::Silent => "silent",
            Self::Unanchored => "unanchored",
            Self::CountedLate => "counted_late",
            Self::OpenEnd => "open_end",
            Self::Ended => "ended",
        }
    }

    /// Whether nobody observed what happened in it: neither the agent nor the kernel side alone.
    #[must_use]
    pub fn is_unobserved(self) -> bool {
        matches!(self, Self::BeforeFirstRun | Self::Stopped | Self::Restarted | Self::RunCut | Self::Ended)
    }
}

/// One end of a window: an entry, with the times that it states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// The entry; none where it is the boot of the host.
    pub index: Option<EntryIndex>,
    /// By the host's clock.
    pub wall: WallTime,
}

/// A time between two signs of life of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// What it is.
    pub kind: WindowKind,
    /// Its beginning.
    pub from: Edge,
    /// Its end; none where it lasts beyond the log.
    pub to: Option<Edge>,
    /// How long, in nanoseconds: by the boot clock within one boot, else by the wall clock. None where it has no end, or
    /// where the wall clock went back.
    pub length: Option<u64>,
    /// When the host booted within it, by the host's clock.
    pub booted: Option<WallTime>,
    /// The longest time between an entry and its checkpoint that the run before it declared, in milliseconds: what an honest
    /// crash loses at most.
    pub seal_ms: Option<u32>,
    /// Whether entries that were written in it could be missing, for all that the form of the log says: the run before it did
    /// not end with `disarmed`.
    pub may_miss_entries: bool,
}

/// How long nothing was observed, in nanoseconds, by the host's clocks. A time is in one of them only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotObserved {
    /// From a boot to the next `armed`.
    pub boot_to_armed: u64,
    /// From the last sign of life before a boot to that boot: at most this long was the host off.
    pub host_off: u64,
    /// Between runs within one boot.
    pub between_runs: u64,
}

impl NotObserved {
    /// The sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.boot_to_armed.saturating_add(self.host_off).saturating_add(self.between_runs)
    }
}

/// Windows so far.
#[derive(Debug, Clone, Default)]
pub struct Windows {
    /// The first 1,000.
    pub kept: Vec<Window>,
    /// How many there were.
    pub total: u64,
    /// How many of them could miss entries.
    pub may_miss: u64,
    /// Sums of the time not observed.
    pub not_observed: NotObserved,
    /// The longest between two entries.
    pub largest: Option<Window>,
}

/// A sign of life: an entry of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alive {
    pub(super) index: EntryIndex,
    pub(super) boot: BootTime,
    pub(super) wall: WallTime,
}

impl Alive {
    fn edge(self) -> Edge {
        Edge { index: Some(self.index), wall: self.wall }
    }
}

/// The run before a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) capture: Id128,
    /// SHA-256 of its boot id, which may be long.
    pub(super) boot_id: [u8; 32],
    pub(super) alive: Alive,
    pub(super) seal_ms: u32,
    /// Whether it ended with `disarmed`.
    pub(super) disarmed: bool,
}

impl Windows {
    /// The window before a run that begins at `now`.
    pub(super) fn before_run(&mut self, before: Option<&Before>, armed: &Armed<'_>, boot_id: [u8; 32], now: Alive) {
        let booted = WallTime(now.wall.0.saturating_sub(now.boot.0));
        let Some(before) = before else {
            self.not_observed.boot_to_armed = self.not_observed.boot_to_armed.saturating_add(now.boot.0);
            return self.push(Window {
                kind: WindowKind::BeforeFirstRun,
                from: Edge { index: None, wall: booted },
                to: Some(now.edge()),
                length: Some(now.boot.0),
                booted: None,
                seal_ms: None,
                may_miss_entries: false,
            });
        };
        let same_boot = before.boot_id == boot_id;
        let kind = match (before.disarmed, armed.resumed && before.capture == armed.capture_id) {
            (_, true) => WindowKind::Resumed,
            (false, false) => WindowKind::RunCut,
            (true, false) if same_boot => WindowKind::Stopped,
            (true, false) => WindowKind::Restarted,
        };
        let length = if same_boot {
            now.boot.0.checked_sub(before.alive.boot.0)
        } else {
            now.wall.0.checked_sub(before.alive.wall.0)
        };
        if kind.is_unobserved() {
            let sums = &mut self.not_observed;
            if same_boot {
                sums.between_runs = sums.between_runs.saturating_add(length.unwrap_or(0));
            } else {
                sums.boot_to_armed = sums.boot_to_armed.saturating_add(now.boot.0);
                let off = booted.0.saturating_sub(before.alive.wall.0);
                sums.host_off = sums.host_off.saturating_add(off);
            }
        }
        self.push(Window {
            kind,
            from: before.alive.edge(),
            to: Some(now.edge()),
            length,
            booted: (!same_boot).then_some(booted),
            seal_ms: Some(before.seal_ms),
            may_miss_entries: !before.disarmed,
        });
    }

    /// A run was silent for longer than it declared.
    pub(super) fn silent(&mut self, since: Alive, now: Alive, seal_ms: u32) {
        self.push(Window {
            kind: WindowKind::Silent,
            from: since.edge(),
            to: Some(now.edge()),
            length: now.boot.0.checked_sub(since.boot.0),
            booted: None,
            seal_ms: Some(seal_ms),
            may_miss_entries: false,
        });
    }

    /// No anchor was made in a run for longer than it declared, `length` in nanoseconds.
    pub(super) fn unanchored(&mut self, since: Alive, until: Alive, length: u64) {
        self.keep(Window {
            kind: WindowKind::Unanchored,
            from: since.edge(),
            to: Some(until.edge()),
            length: Some(length),
            booted: None,
            seal_ms: None,
            may_miss_entries: true,
        });
    }

    /// A step of the counter was certified only at a later start.
    pub(super) fn counted_late(&mut self, since: Alive, now: Alive) {
        self.keep(Window {
            kind: WindowKind::CountedLate,
            from: since.edge(),
            to: Some(now.edge()),
            length: now.wall.0.checked_sub(since.wall.0),
            booted: None,
            seal_ms: None,
            may_miss_entries: true,
        });
    }

    /// The log ends.
    pub(super) fn end(&mut self, last: Option<&Before>) {
        let Some(last) = last else { return };
        let kind = if last.disarmed { WindowKind::Ended } else { WindowKind::OpenEnd };
        self.push(Window {
            kind,
            from: last.alive.edge(),
            to: None,
            length: None,
            booted: None,
            seal_ms: Some(last.seal_ms),
            may_miss_entries: !last.disarmed,
        });
    }

    /// Keeps a window in which the agent was heard of: it does not count as a time that it was not.
    fn keep(&mut self, window: Window) {
        self.total += 1;
        self.may_miss += u64::from(window.may_miss_entries);
        if self.kept.len() < WINDOWS_MAX {
            self.kept.push(window);
        }
    }

    fn push(&mut self, window: Window) {
        let between_entries = window.from.index.is_some() && window.to.is_some();
        // A clock that went back hides how long it was.
        let length = |window: &Window| window.length.unwrap_or(u64::MAX);
        if between_entries && self.largest.as_ref().is_none_or(|largest| length(&window) > length(largest)) {
            self.largest = Some(window);
        }
        self.keep(window);
    }
}
