//! Coverage: the runs of the agent, the kernel numbers they account for, and the time nobody observed.

use std::collections::HashSet;

use crate::record::{
    Armed, BootTime, Class, Counter, DisarmCause, Disarmed, EntryIndex, FileFolded, Gap, GapCause, Heartbeat, Id128,
    NumberRange, Record, WallTime,
};

use super::finding::Finding;
use super::numbers::{self, Counters};
use super::report::{Findings, Note, Notes, iso};

/// The run of the agent that the entries are in.
#[derive(Debug, Clone)]
enum Run {
    /// None yet.
    Before,
    Armed(RunStart),
    Ended {
        capture: Id128,
        wall: WallTime,
        upgrade: bool,
    },
}

#[derive(Debug, Clone)]
struct RunStart {
    index: EntryIndex,
    capture: Id128,
    heartbeat_ms: u32,
    /// The latest of `armed` and `heartbeat`.
    alive: (EntryIndex, BootTime, WallTime),
}

/// What the log says of capture, so far.
#[derive(Debug)]
pub(super) struct Coverage {
    strict: bool,
    /// Whether only a part of the log is seen: then numbers without an entry are not holes.
    partial: bool,
    counters: Counters,
    /// Whether the log had more counters than are followed.
    pub(super) overflowed: bool,
    /// Runs of numbers kept, over all counters.
    runs_kept: usize,
    run: Run,
    /// Captures whose last run ended without `disarmed`.
    cut_off: HashSet<Id128>,
    /// How many runs of the agent.
    pub(super) runs: u64,
    /// How many times nothing was observed between two runs.
    pub(super) windows: u64,
    /// Events that gaps declare lost.
    pub(super) lost: u64,
    /// Events numbered and not yet written at the end of the log.
    pub(super) in_flight: u64,
    /// Events that runs without `disarmed` had numbered and never wrote.
    pub(super) cut_off_events: u64,
    /// What the last run said it does not capture.
    pub(super) not_covered: Vec<String>,
}

impl Coverage {
    pub(super) fn new(strict: bool, partial: bool) -> Self {
        Self {
            strict,
            partial,
            counters: Counters::default(),
            overflowed: false,
            runs_kept: 0,
            run: Run::Before,
            cut_off: HashSet::new(),
            runs: 0,
            windows: 0,
            lost: 0,
            in_flight: 0,
            cut_off_events: 0,
            not_covered: Vec::new(),
        }
    }

    /// An entry's kernel number, or that it has none.
    pub(super) fn kernel_number(&mut self, index: EntryIndex, record: &Record<'_>, findings: &mut Findings) {
        let kind = record.body().kind();
        let Some(number) = record.draft.kernel else {
            if kind.is_kernel_event() {
                findings.push(Finding::KernelNumberWrong { index });
            }
            return;
        };
        if kind.class() != Some(number.class) {
            findings.push(Finding::KernelNumberWrong { index });
            return;
        }
        match self.capture() {
            Some(capture) => self.account(index, capture, number.cpu, number.class, (number.seq, number.seq), findings),
            None => findings.push(Finding::EventOutsideRun { index }),
        }
    }

    fn capture(&self) -> Option<Id128> {
        match &self.run {
            Run::Armed(start) => Some(start.capture),
            Run::Before | Run::Ended { .. } => None,
        }
    }

    fn account(
        &mut self,
        index: EntryIndex,
        capture: Id128,
        cpu: u32,
        class: Class,
        (first, last): (u64, u64),
        findings: &mut Findings,
    ) {
        if self.partial {
            return;
        }
        let Some(numbers) = self.counters.of((capture, cpu, class)) else {
            self.overflowed = true;
            return;
        };
        let runs = numbers.runs();
        if let Err(seq) = numbers.insert(first, last) {
            findings.push(Finding::NumberRepeated { index, cpu, class, seq });
        }
        self.runs_kept = (self.runs_kept + numbers.runs()).saturating_sub(runs);
        if numbers.runs() > numbers::RUNS_MAX || (self.runs_kept > numbers::RUNS_TOTAL_MAX && numbers.runs() > 0) {
            self.runs_kept = self.runs_kept.saturating_sub(numbers.runs());
            for (first, last) in numbers.take_holes(numbers.top()) {
                findings.push(Finding::NumberHole { index, cpu, class, first, last });
            }
        }
    }

    /// A run begins.
    pub(super) fn armed(
        &mut self,
        index: EntryIndex,
        armed: &Armed<'_>,
        boot: BootTime,
        wall: WallTime,
        notes: &mut Notes,
    ) {
        self.runs += 1;
        self.window_before(index, armed, wall, notes);
        if let Run::Armed(start) = &self.run {
            self.cut_off.insert(start.capture);
        }
        self.cut_off.remove(&armed.capture_id);
        self.not_covered =
            armed.not_covered.iter().map(|item| format!("{} ({})", item.what.display(), item.why.display())).collect();
        self.run = Run::Armed(RunStart {
            index,
            capture: armed.capture_id,
            heartbeat_ms: armed.cadence.heartbeat_ms,
            alive: (index, boot, wall),
        });
    }

    /// Says for which time before this run nothing was observed.
    fn window_before(&mut self, index: EntryIndex, armed: &Armed<'_>, wall: WallTime, notes: &mut Notes) {
        let (since, ended, same) = match &self.run {
            Run::Before if self.partial => return,
            Run::Before => {
                let text = format!("nothing was observed before entry {}, {}", index.0, iso(wall));
                notes.push(Note { name: "not_observed_before", index: Some(index), text });
                return;
            }
            Run::Armed(start) => (start.alive.2, false, start.capture == armed.capture_id),
            Run::Ended { capture, wall, .. } => (*wall, true, *capture == armed.capture_id),
        };
        let (name, what) = match (ended, same && armed.resumed) {
            (_, true) => {
                ("capture_resumed", "the kernel side captured alone, and what it had kept was read afterwards")
            }
            (true, false) => ("not_observed", "nothing was observed"),
            (false, false) => (
                "run_cut",
                "nothing was observed after the run stopped without a word, and its last entries may be missing",
            ),
        };
        self.windows += u64::from(name != "capture_resumed");
        let text = format!("from {} to {} (entry {}) {what}", iso(since), iso(wall), index.0);
        notes.push(Note { name, index: Some(index), text });
    }

    /// A run lives.
    pub(super) fn heartbeat(
        &mut self,
        index: EntryIndex,
        heartbeat: &Heartbeat<'_>,
        boot: BootTime,
        wall: WallTime,
        notes: &mut Notes,
        findings: &mut Findings,
    ) {
        self.counters_stated(index, heartbeat.capture_id, &heartbeat.counters, findings);
        if !heartbeat.hooks_ok {
            findings.push(Finding::HooksNotAttached { index });
        }
        let Run::Armed(start) = &mut self.run else { return };
        let silent = boot.0.saturating_sub(start.alive.1.0);
        // Three missed heartbeats and a second for a busy host.
        let limit = u64::from(start.heartbeat_ms).saturating_mul(3_000_000).saturating_add(1_000_000_000);
        let since = start.alive;
        start.alive = (index, boot, wall);
        if silent > limit {
            let text = format!(
                "no sign of life for {}.{:03} s between entries {} and {}",
                silent / 1_000_000_000,
                silent / 1_000_000 % 1000,
                since.0.0,
                index.0
            );
            notes.push(Note { name: "heartbeat_late", index: Some(index), text });
        }
    }

    /// A run ends.
    pub(super) fn disarmed(
        &mut self,
        index: EntryIndex,
        disarmed: &Disarmed<'_>,
        wall: WallTime,
        findings: &mut Findings,
    ) {
        self.counters_stated(index, disarmed.capture_id, &disarmed.counters, findings);
        let upgrade = disarmed.cause == DisarmCause::Upgrade;
        self.run = Run::Ended { capture: disarmed.capture_id, wall, upgrade };
    }

    fn counters_stated(&mut self, index: EntryIndex, capture: Id128, rows: &[Counter], findings: &mut Findings) {
        if self.capture() != Some(capture) {
            findings.push(Finding::EventOutsideRun { index });
            return;
        }
        for row in rows {
            let Some(numbers) = self.counters.of((capture, row.cpu, row.class)) else {
                self.overflowed = true;
                continue;
            };
            if row.next < numbers.generated || row.settled > row.next {
                findings.push(Finding::CounterWrong { index, cpu: row.cpu, class: row.class });
                continue;
            }
            numbers.generated = row.next;
            if self.partial {
                continue;
            }
            let runs = numbers.runs();
            for (first, last) in numbers.take_holes(row.settled) {
                findings.push(Finding::NumberHole { index, cpu: row.cpu, class: row.class, first, last });
            }
            self.runs_kept = (self.runs_kept + numbers.runs()).saturating_sub(runs);
        }
    }

    /// Events are declared lost.
    pub(super) fn gap(&mut self, index: EntryIndex, gap: &Gap<'_>, notes: &mut Notes, findings: &mut Findings) {
        self.ranges(index, gap.capture_id, &gap.ranges, gap.count, findings);
        self.lost = self.lost.saturating_add(gap.count);
        if gap.cause == GapCause::Unexplained {
            findings.push(Finding::LossUnexplained { index, count: gap.count });
        } else if self.strict {
            findings.push(Finding::LossAccounted { index, count: gap.count });
        }
        let text = format!("entry {}: {} events lost, cause {}", index.0, gap.count, gap.cause.as_str());
        notes.push(Note { name: "gap", index: Some(index), text });
    }

    /// Acts that were folded into one entry: their numbers are of the capture of the run.
    pub(super) fn folded(&mut self, index: EntryIndex, folded: &FileFolded<'_>, findings: &mut Findings) {
        if folded.ranges.iter().any(|range| range.class != Class::File) {
            findings.push(Finding::KernelNumberWrong { index });
            return;
        }
        match self.capture() {
            Some(capture) => self.ranges(index, capture, &folded.ranges, folded.count, findings),
            None => findings.push(Finding::EventOutsideRun { index }),
        }
    }

    /// Accounts for ranges, which must hold `count` numbers.
    fn ranges(
        &mut self,
        index: EntryIndex,
        capture: Id128,
        ranges: &[NumberRange],
        count: u64,
        findings: &mut Findings,
    ) {
        let mut counted = Some(0_u64);
        for range in ranges {
            let length = range.last.checked_sub(range.first).and_then(|distance| distance.checked_add(1));
            counted = counted.zip(length).and_then(|(sum, length)| sum.checked_add(length));
            if length.is_some() {
                self.account(index, capture, range.cpu, range.class, (range.first, range.last), findings);
            }
        }
        if counted != Some(count) {
            findings.push(Finding::GapCountWrong { index });
        }
    }

    /// What can only be judged at the last entry.
    pub(super) fn finish(&mut self, last: EntryIndex, wall: WallTime, notes: &mut Notes, findings: &mut Findings) {
        if self.partial {
            return;
        }
        // A newer agent takes the rings over, with what is in them.
        let current = match &self.run {
            Run::Ended { capture, upgrade: true, .. } => Some(*capture),
            _ => self.capture(),
        };
        if let Run::Armed(start) = &self.run {
            let text = format!(
                "the log ends within the run of entry {}: the agent was still running, or it stopped without a word after entry {}, {}",
                start.index.0,
                last.0,
                iso(wall)
            );
            notes.push(Note { name: "open_end", index: Some(last), text });
        }
        for ((capture, cpu, class), numbers) in self.counters.sorted() {
            let end = numbers.generated.max(numbers.top());
            if Some(capture) == current {
                // The rings still held these when the log was sealed.
                self.in_flight = self.in_flight.saturating_add(numbers.missing_below(end));
                continue;
            }
            if self.cut_off.contains(&capture) {
                // Within the window that a note tells of: the power failed, or somebody made it look so.
                self.cut_off_events = self.cut_off_events.saturating_add(numbers.missing_below(end));
                continue;
            }
            for (first, last_number) in numbers.take_holes(end) {
                findings.push(Finding::NumberHole { index: last, cpu, class, first, last: last_number });
            }
        }
    }
}
