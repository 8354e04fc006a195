//! Which kernel numbers have been recorded, which are missing, and which of those are lost.
//!
//! Every event carries a number that the kernel side took from a counter per (processor, class) *before* it
//! tried to hand the event over. A number that never arrives is therefore a hole that anybody can see. This
//! module keeps, per counter, the prefix that is settled and the ranges received beyond it, and decides when a
//! hole is a loss: only when the kernel's own count of failed reservations explains it, or when it has stayed
//! open for [`HOLE_AGE_MAX`] (a program can be preempted between taking a number and reserving).
//!
//! Pure: counters and times come in as arguments.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use agent_evidence::record::{BootTime, Class, KernelNumber, NumberRange};

/// How long a hole that no failed reservation explains may stay open before it is recorded as unexplained, ns.
/// A preempted program resumes within scheduler latencies (milliseconds); 5 s is far outside.
pub const HOLE_AGE_MAX: u64 = 5_000_000_000;
/// Most separate ranges kept per counter beyond the settled prefix: 64 Ki ranges are 2 MiB. One more, and the
/// stream is reported as needing settlement at once.
pub const RANGES_MAX: usize = 65_536;

/// One of the kernel side's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream {
    /// Processor.
    pub cpu: u32,
    /// Class of events.
    pub class: Class,
}

/// What the kernel side says of one counter at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The next number it will give: how many were given so far.
    pub generated: u64,
    /// How many reservations failed so far.
    pub dropped: u64,
}

/// Whether a number was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Novelty {
    /// Not recorded yet.
    Fresh,
    /// Recorded before: read again after a restart.
    Repeat,
}

/// Why numbers are missing for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// As many reservations failed as numbers are missing.
    RingFull,
    /// No failed reservation explains them.
    Unexplained,
}

/// Numbers of one stream that will never arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// Whose numbers.
    pub stream: Stream,
    /// First and last missing number of each run, in order.
    pub ranges: Vec<(u64, u64)>,
    /// How many numbers the ranges cover.
    pub count: u64,
    /// Why.
    pub cause: Cause,
}

impl Hole {
    /// Its runs as an entry gives them.
    pub fn number_ranges(&self) -> impl Iterator<Item = NumberRange> {
        let Stream { cpu, class } = self.stream;
        self.ranges.iter().map(move |(first, last)| NumberRange { cpu, class, first: *first, last: *last })
    }
}

#[derive(Debug, Default)]
struct StreamState {
    /// Every number below is recorded or was declared lost.
    settled: u64,
    /// Received ranges above `settled`: first number to one past the last.
    ahead: BTreeMap<u64, u64>,
    /// Failed reservations that recorded gaps already explain.
    dropped_accounted: u64,
    /// When the present holes were first seen unexplained.
    open_since: Option<BootTime>,
}

impl StreamState {
    fn note(&mut self, seq: u64) -> Novelty {
        if seq < self.settled {
            return Novelty::Repeat;
        }
        if seq == self.settled && self.ahead.is_empty() {
            self.settled = seq.saturating_add(1);
            return Novelty::Fresh;
        }
        self.note_ahead(seq)
    }

    /// The slow path: out of order, or after a hole.
    fn note_ahead(&mut self, seq: u64) -> Novelty {
        let end = seq.saturating_add(1);
        let before = self.ahead.range(..=seq).next_back().map(|(first, past)| (*first, *past));
        let first = match before {
            Some((_, past)) if seq < past => return Novelty::Repeat,
            Some((first, past)) if past == seq => first,
            _ => seq,
        };
        let past = self.ahead.remove(&end).unwrap_or(end);
        self.ahead.insert(first, past);
        self.absorb();
        Novelty::Fresh
    }

    /// Adds a whole range, whatever it overlaps.
    fn insert_range(&mut self, mut first: u64, mut past: u64) {
        while let Some((other, other_past)) = self.ahead.range(..=past).next_back().map(|(f, p)| (*f, *p)) {
            if other_past < first {
                break;
            }
            self.ahead.remove(&other);
            first = first.min(other);
            past = past.max(other_past);
        }
        self.ahead.insert(first, past);
    }

    /// Moves the settled prefix over ranges that touch it.
    fn absorb(&mut self) {
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > self.settled {
                break;
            }
            self.settled = self.settled.max(entry.remove());
        }
    }

    fn holes_below(&self, limit: u64) -> (Vec<(u64, u64)>, u64) {
        let mut ranges = Vec::new();
        let mut count = 0_u64;
        let mut next = self.settled;
        for (first, past) in &self.ahead {
            let end = (*first).min(limit);
            if next < end {
                ranges.push((next, end - 1));
                count += end - next;
            }
            next = next.max(*past);
            if *first >= limit {
                break;
            }
        }
        if next < limit {
            ranges.push((next, limit - 1));
            count += limit - next;
        }
        (ranges, count)
    }
}

/// The numbers of every stream of one capture.
#[derive(Debug, Default)]
pub struct Accounting {
    streams: HashMap<Stream, StreamState>,
}

impl Accounting {
    /// Notes that an event with this number is being recorded.
    pub fn note(&mut self, number: KernelNumber) -> Novelty {
        self.streams.entry(Stream { cpu: number.cpu, class: number.class }).or_default().note(number.seq)
    }

    /// Continues a capture: everything below `settled` is recorded or accounted for, and `dropped` failed
    /// reservations are explained by gaps in the log.
    pub fn resume(&mut self, stream: Stream, settled: u64, dropped: u64) {
        let state = self.streams.entry(stream).or_default();
        state.settled = state.settled.max(settled);
        state.dropped_accounted = state.dropped_accounted.max(dropped);
        state.absorb();
    }

    /// Takes over a gap that an earlier run recorded.
    pub fn resume_gap(&mut self, stream: Stream, first: u64, last: u64, explained_by_drops: bool) {
        let state = self.streams.entry(stream).or_default();
        if last < state.settled {
            return;
        }
        state.insert_range(first.max(state.settled), last.saturating_add(1));
        state.absorb();
        if explained_by_drops {
            state.dropped_accounted = state.dropped_accounted.saturating_add(last - first + 1);
        }
    }

    /// Whether any stream holds so many ranges that holes must be settled now.
    #[must_use]
    pub fn crowded(&self) -> bool {
        self.streams.values().any(|state| state.ahead.len() > RANGES_MAX)
    }

    /// The settled prefix of each stream and its accounted drops, sorted: what a heartbeat repeats.
    #[must_use]
    pub fn settled(&self) -> Vec<(Stream, u64, u64)> {
        let mut all: Vec<_> =
            self.streams.iter().map(|(stream, state)| (*stream, state.settled, state.dropped_accounted)).collect();
        all.sort_unstable();
        all
    }

    /// Compares one counter's `reading` with what arrived, and gives the holes that are losses. The caller read
    /// the counter first and then everything that was in the rings, so that what is still missing below
    /// `reading.generated` is lost or in the hands of a preempted program. `at_end` says that nothing more can
    /// come (hooks detached): every hole is then settled.
    pub fn settle(&mut self, stream: Stream, reading: Reading, now: BootTime, at_end: bool) -> Option<Hole> {
        let state = self.streams.entry(stream).or_default();
        let (ranges, count) = state.holes_below(reading.generated);
        if count == 0 {
            state.open_since = None;
            return None;
        }
        let unexplained_drops = reading.dropped.saturating_sub(state.dropped_accounted);
        let since = *state.open_since.get_or_insert(now);
        let cause = if count <= unexplained_drops {
            Cause::RingFull
        } else if at_end || now.0.saturating_sub(since.0) >= HOLE_AGE_MAX {
            Cause::Unexplained
        } else {
            return None;
        };
        state.open_since = None;
        state.dropped_accounted = state.dropped_accounted.saturating_add(count.min(unexplained_drops));
        state.settled = state.settled.max(reading.generated);
        state.absorb();
        Some(Hole { stream, ranges, count, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Stream = Stream { cpu: 1, class: Class::File };

    fn number(seq: u64) -> KernelNumber {
        KernelNumber { cpu: FILE.cpu, class: FILE.class, seq }
    }

    fn received(numbers: impl IntoIterator<Item = u64>) -> Accounting {
        let mut accounting = Accounting::default();
        for seq in numbers {
            assert_eq!(accounting.note(number(seq)), Novelty::Fresh, "{seq}");
        }
        accounting
    }

    #[test]
    fn numbers_in_order_leave_no_hole() {
        let mut accounting = received(0..1000);
        assert_eq!(accounting.settle(FILE, Reading { generated: 1000, dropped: 0 }, BootTime(0), false), None);
        assert_eq!(accounting.settled(), [(FILE, 1000, 0)]);
    }

    #[test]
    fn numbers_out_of_order_settle_once_the_hole_is_filled() {
        let mut accounting = received([0, 2, 3, 5, 1]);
        assert_eq!(accounting.settled(), [(FILE, 4, 0)]);
        assert_eq!(accounting.note(number(4)), Novelty::Fresh);
        assert_eq!(accounting.settled(), [(FILE, 6, 0)]);
    }

    #[test]
    fn every_number_read_twice_is_a_repeat() {
        let mut accounting = received([0, 1, 4, 5, 8]);
        for seq in [0, 1, 4, 5, 8] {
            assert_eq!(accounting.note(number(seq)), Novelty::Repeat, "{seq}");
        }
    }

    #[test]
    fn a_hole_that_failed_reservations_explain_is_lost_at_once_and_exactly() {
        let mut accounting = received([0, 1, 4, 5, 8]);
        let hole = accounting.settle(FILE, Reading { generated: 10, dropped: 5 }, BootTime(0), false);
        assert_eq!(
            hole,
            Some(Hole { stream: FILE, ranges: vec![(2, 3), (6, 7), (9, 9)], count: 5, cause: Cause::RingFull })
        );
        assert_eq!(accounting.settled(), [(FILE, 10, 5)]);
        assert_eq!(accounting.settle(FILE, Reading { generated: 10, dropped: 5 }, BootTime(1), false), None);
    }

    #[test]
    fn a_hole_in_the_hands_of_a_preempted_program_is_waited_for() {
        let mut accounting = received([0, 2]);
        let reading = Reading { generated: 3, dropped: 0 };
        assert_eq!(accounting.settle(FILE, reading, BootTime(0), false), None);
        assert_eq!(accounting.settle(FILE, reading, BootTime(HOLE_AGE_MAX - 1), false), None);
        assert_eq!(accounting.note(number(1)), Novelty::Fresh);
        assert_eq!(accounting.settle(FILE, reading, BootTime(HOLE_AGE_MAX), false), None);
    }

    #[test]
    fn a_hole_that_nothing_explains_becomes_a_gap_after_its_age() {
        let mut accounting = received([0, 2]);
        let reading = Reading { generated: 3, dropped: 0 };
        assert_eq!(accounting.settle(FILE, reading, BootTime(7), false), None);
        let hole = accounting.settle(FILE, reading, BootTime(7 + HOLE_AGE_MAX), false);
        assert_eq!(hole, Some(Hole { stream: FILE, ranges: vec![(1, 1)], count: 1, cause: Cause::Unexplained }));
    }

    #[test]
    fn at_the_end_nothing_is_waited_for() {
        let mut accounting = received([0, 2]);
        let hole = accounting.settle(FILE, Reading { generated: 4, dropped: 1 }, BootTime(7), true);
        assert_eq!(
            hole,
            Some(Hole { stream: FILE, ranges: vec![(1, 1), (3, 3)], count: 2, cause: Cause::Unexplained })
        );
    }

    #[test]
    fn numbers_above_the_reading_are_kept_for_the_next() {
        let mut accounting = received([0, 5]);
        let hole = accounting.settle(FILE, Reading { generated: 3, dropped: 2 }, BootTime(0), false);
        assert_eq!(hole, Some(Hole { stream: FILE, ranges: vec![(1, 2)], count: 2, cause: Cause::RingFull }));
        assert_eq!(accounting.note(number(3)), Novelty::Fresh);
        assert_eq!(accounting.note(number(4)), Novelty::Fresh);
        assert_eq!(accounting.settled(), [(FILE, 6, 2)]);
    }

    #[test]
    fn a_resumed_capture_knows_what_was_recorded_and_lost_before() {
        let mut accounting = Accounting::default();
        accounting.resume(FILE, 10, 3);
        assert_eq!(accounting.note(number(9)), Novelty::Repeat);
        assert_eq!(accounting.note(number(12)), Novelty::Fresh);
        accounting.resume_gap(FILE, 10, 11, true);
        assert_eq!(accounting.settled(), [(FILE, 13, 5)]);
        assert_eq!(accounting.settle(FILE, Reading { generated: 13, dropped: 5 }, BootTime(0), false), None);
    }

    /// Whatever the order and the losses: recorded plus lost is what was generated.
    #[test]
    fn generated_is_recorded_plus_lost_for_random_orders() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        println!("seed {state:#x}");
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..200 {
            let generated = 1 + random(300);
            let mut numbers: Vec<u64> = (0..generated).filter(|_| random(4) != 0).collect();
            for i in (1..numbers.len()).rev() {
                numbers.swap(i, usize::try_from(random(i as u64 + 1)).expect("small"));
            }
            let mut accounting = received(numbers.iter().copied());
            let lost = generated - numbers.len() as u64;
            let hole = accounting.settle(FILE, Reading { generated, dropped: lost }, BootTime(0), false);
            assert_eq!(hole.as_ref().map_or(0, |hole| hole.count), lost);
            let listed: u64 = hole.iter().flat_map(|hole| &hole.ranges).map(|(first, last)| last - first + 1).sum();
            assert_eq!(listed, lost);
            assert_eq!(accounting.settled()[0].1, generated);
        }
    }
}
