//! Coverage: the runs of the agent, the kernel numbers they account for, and the time nobody observed.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use crate::record::{
    Armed, Class, Counter, DisarmCause, Disarmed, EntryIndex, FileFolded, Gap, GapCause, Heartbeat, Id128, NumberRange,
    Record,
};

use crate::trust::Limits;

use super::finding::Finding;
use super::numbers::{self, Counters};
use super::report::{Findings, Losses, Note, Notes, seconds};
use super::windows::{Alive, Before, Windows};

/// The latest run of the agent.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// What a window after it begins with.
    last: Before,
    heartbeat_ms: u32,
    /// The latest of `armed` and `heartbeat`.
    alive: Alive,
    /// Whether it was disarmed for a newer agent, which takes the rings over.
    upgrade: bool,
}

/// How many entries were withheld when a capture began, and when the next one did.
type Spans = HashMap<Id128, (u64, Option<u64>)>;

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
    run: Option<Run>,
    /// Captures whose last run ended without `disarmed`.
    cut_off: HashSet<Id128>,
    /// Entries withheld so far.
    withheld: u64,
    spans: Spans,
    /// Numbers that are missing and may be those of withheld entries.
    pub(super) at_edge: u64,
    /// How many runs of the agent.
    pub(super) runs: u64,
    /// The times between runs, and between signs of life.
    pub(super) windows: Windows,
    /// Which events are not in the log.
    pub(super) losses: Losses,
    /// What the last run said it does not capture.
    pub(super) not_covered: Vec<String>,
    /// What some run said it does not capture: the first entry that says so, a digest, the beginning of the words.
    uncovered: Vec<(EntryIndex, [u8; 32], String)>,
    /// The first entry that said more than is kept.
    uncovered_more: Option<EntryIndex>,
}

/// Most things kept that runs said they do not capture.
const UNCOVERED_MAX: usize = 1_000;

/// Most characters of each.
const UNCOVERED_SHOWN_MAX: usize = 256;

impl Coverage {
    pub(super) fn new(strict: bool, partial: bool) -> Self {
        Self {
            strict,
            partial,
            counters: Counters::default(),
            overflowed: false,
            runs_kept: 0,
            run: None,
            cut_off: HashSet::new(),
            withheld: 0,
            spans: HashMap::new(),
            at_edge: 0,
            runs: 0,
            windows: Windows::default(),
            losses: Losses::default(),
            not_covered: Vec::new(),
            uncovered: Vec::new(),
            uncovered_more: None,
        }
    }

    /// So many entries are withheld.
    pub(super) fn withheld(&mut self, count: u64) {
        self.withheld = self.withheld.saturating_add(count);
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
            Some(capture) => {
                self.sign_of_life(Alive { index, boot: record.draft.boot, wall: record.draft.wall });
                self.account(index, capture, number.cpu, number.class, (number.seq, number.seq), findings);
            }
            None => findings.push(Finding::EventOutsideRun { index }),
        }
    }

    fn capture(&self) -> Option<Id128> {
        self.run.as_ref().filter(|run| !run.last.disarmed).map(|run| run.last.capture)
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
        let withheld = || withheld_before(&self.spans, capture);
        let Some(numbers) = self.counters.of((capture, cpu, class), withheld) else {
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
            let (holes, at_edge) = numbers.take_holes_beyond_edge(numbers.top());
            self.at_edge = self.at_edge.saturating_add(at_edge);
            for (first, last) in holes {
                findings.push(Finding::NumberHole { index, cpu, class, first, last });
            }
        }
    }

    /// A run begins.
    pub(super) fn armed(&mut self, armed: &Armed<'_>, now: Alive) {
        self.runs += 1;
        let boot_id: [u8; 32] = Sha256::digest(armed.boot_id.as_bytes()).into();
        let before = self.run.map(|run| run.last);
        // What was before the first run that a bundle shows, it does not show.
        if before.is_some() || !self.partial {
            self.windows.before_run(before.as_ref(), armed, boot_id, now);
        }
        if let Some(before) = before.filter(|before| !before.disarmed) {
            self.cut_off.insert(before.capture);
        }
        self.cut_off.remove(&armed.capture_id);
        if let Some(span) = before.and_then(|before| self.spans.get_mut(&before.capture)) {
            span.1 = Some(self.withheld);
        }
        self.spans.entry(armed.capture_id).or_insert((self.withheld, None)).1 = None;
        self.not_covered(now.index, armed);
        let seal_ms = armed.cadence.seal_ms;
        self.run = Some(Run {
            last: Before { capture: armed.capture_id, boot_id, alive: now, seal_ms, disarmed: false },
            heartbeat_ms: armed.cadence.heartbeat_ms,
            alive: now,
            upgrade: false,
        });
    }

    /// What this run does not capture.
    fn not_covered(&mut self, index: EntryIndex, armed: &Armed<'_>) {
        self.not_covered =
            armed.not_covered.iter().map(|item| format!("{} ({})", item.what.display(), item.why.display())).collect();
        for item in armed.not_covered.iter() {
            let digest: [u8; 32] = Sha256::digest(item.what.as_bytes()).into();
            if self.uncovered.iter().any(|(_, known, _)| *known == digest) {
                continue;
            }
            if self.uncovered.len() >= UNCOVERED_MAX {
                self.uncovered_more.get_or_insert(index);
                return;
            }
            let what = item.what.display().chars().take(UNCOVERED_SHOWN_MAX).collect();
            self.uncovered.push((index, digest, what));
        }
    }

    /// Compares what is missing with what the trust file allows.
    pub(super) fn compare(&self, limits: &Limits, findings: &mut Findings) {
        if let (Some(allowed), Some(window)) = (limits.largest_gap_seconds, &self.windows.largest) {
            let too_long = window.length.is_none_or(|length| length > allowed.saturating_mul(1_000_000_000));
            if let Some(index) = window.to.and_then(|to| to.index).filter(|_| too_long) {
                let seen = window.length.map_or_else(|| "an unknown time".to_owned(), seconds);
                findings.push(Finding::GapTooLong { index, seen, allowed });
            }
        }
        if let Some(allowed) = limits.largest_loss_events {
            let seen = self.losses.events.saturating_add(self.losses.cut_off);
            if seen > allowed {
                findings.push(Finding::LossTooLarge { seen, allowed });
            }
        }
        if let Some(accepted) = &limits.accepted_not_covered {
            let accepted: HashSet<[u8; 32]> = accepted.iter().map(|what| Sha256::digest(what).into()).collect();
            for (index, _, what) in self.uncovered.iter().filter(|(_, digest, _)| !accepted.contains(digest)) {
                findings.push(Finding::NotCoveredUnaccepted { index: *index, what: what.clone() });
            }
            if let Some(index) = self.uncovered_more {
                let what = format!("more than {UNCOVERED_MAX} things");
                findings.push(Finding::NotCoveredUnaccepted { index, what });
            }
        }
    }

    /// An entry made from a kernel event: a sign of life of the run that read it.
    fn sign_of_life(&mut self, now: Alive) {
        if let Some(run) = &mut self.run {
            run.last.alive = now;
        }
    }

    /// A run lives.
    pub(super) fn heartbeat(&mut self, heartbeat: &Heartbeat<'_>, now: Alive, findings: &mut Findings) {
        self.counters_stated(now.index, heartbeat.capture_id, &heartbeat.counters, findings);
        if !heartbeat.hooks_ok {
            findings.push(Finding::HooksNotAttached { index: now.index });
        }
        let Some(run) = self.run.as_mut().filter(|run| !run.last.disarmed) else { return };
        let silent = now.boot.0.saturating_sub(run.alive.boot.0);
        // Three missed heartbeats and a second for a busy host.
        let limit = u64::from(run.heartbeat_ms).saturating_mul(3_000_000).saturating_add(1_000_000_000);
        let since = run.alive;
        run.alive = now;
        run.last.alive = now;
        if silent > limit {
            self.windows.silent(since, now, run.last.seal_ms);
        }
    }

    /// A run ends.
    pub(super) fn disarmed(&mut self, disarmed: &Disarmed<'_>, now: Alive, findings: &mut Findings) {
        self.counters_stated(now.index, disarmed.capture_id, &disarmed.counters, findings);
        if let Some(run) = &mut self.run {
            run.last = Before { capture: disarmed.capture_id, alive: now, disarmed: true, ..run.last };
            run.upgrade = disarmed.cause == DisarmCause::Upgrade;
        }
    }

    fn counters_stated(&mut self, index: EntryIndex, capture: Id128, rows: &[Counter], findings: &mut Findings) {
        if self.capture() != Some(capture) {
            findings.push(Finding::EventOutsideRun { index });
            return;
        }
        for row in rows {
            let withheld = || withheld_before(&self.spans, capture);
            let Some(numbers) = self.counters.of((capture, row.cpu, row.class), withheld) else {
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
            if self.withheld > numbers.withheld {
                // Numbers below were settled by entries that may be withheld; those from there on may still be theirs.
                numbers.take_holes(row.settled);
                numbers.edge = numbers.edge.max(row.next);
                numbers.withheld = self.withheld;
            }
            let (holes, at_edge) = numbers.take_holes_beyond_edge(row.settled);
            self.at_edge = self.at_edge.saturating_add(at_edge);
            for (first, last) in holes {
                findings.push(Finding::NumberHole { index, cpu: row.cpu, class: row.class, first, last });
            }
            self.runs_kept = (self.runs_kept + numbers.runs()).saturating_sub(runs);
        }
    }

    /// Events are declared lost.
    pub(super) fn gap(&mut self, index: EntryIndex, gap: &Gap<'_>, notes: &mut Notes, findings: &mut Findings) {
        self.ranges(index, gap.capture_id, &gap.ranges, gap.count, findings);
        self.losses.events = self.losses.events.saturating_add(gap.count);
        let of_cause = self.losses.causes.entry(gap.cause.as_str()).or_default();
        *of_cause = of_cause.saturating_add(gap.count);
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
    pub(super) fn finish(&mut self, last: EntryIndex, findings: &mut Findings) {
        if self.partial {
            return;
        }
        // A newer agent takes the rings over, with what is in them.
        let current = self.run.filter(|run| !run.last.disarmed || run.upgrade).map(|run| run.last.capture);
        self.windows.end(self.run.map(|run| run.last).as_ref());
        for ((capture, cpu, class), numbers) in self.counters.sorted() {
            let end = numbers.generated.max(numbers.top());
            let withheld = self.spans.get(&capture).map_or(0, |(_, until)| until.unwrap_or(self.withheld));
            if withheld > numbers.withheld {
                numbers.edge = end;
            }
            let at_edge = numbers.missing_below(numbers.edge.min(end));
            self.at_edge = self.at_edge.saturating_add(at_edge);
            numbers.take_holes(numbers.edge.min(end));
            if Some(capture) == current {
                // The rings still held these when the log was sealed.
                self.losses.in_flight = self.losses.in_flight.saturating_add(numbers.missing_below(end));
                continue;
            }
            if self.cut_off.contains(&capture) {
                // Within a window that is listed: the power failed, or somebody made it look so.
                self.losses.cut_off = self.losses.cut_off.saturating_add(numbers.missing_below(end));
                continue;
            }
            for (first, last_number) in numbers.take_holes(end) {
                findings.push(Finding::NumberHole { index: last, cpu, class, first, last: last_number });
            }
        }
    }
}

/// How many entries were withheld when this capture began. One that never was armed has nothing withheld.
fn withheld_before(spans: &Spans, capture: Id128) -> u64 {
    spans.get(&capture).map_or(u64::MAX, |(before, _)| *before)
}
