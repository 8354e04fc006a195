//! Turns holes in the kernel numbers, and the kernel side's own loss counts, into `gap` records.
//!
//! Pure: readings in, gaps out. The holes say *which* numbers are missing, the loss counts say *whose* they were;
//! the two are counted apart in the kernel, so a gap names the shares it knows and never more than were counted.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use agent_evidence::record::{BootTime, CgroupId, Class, GapCause, LossShare, NumberRange};

use super::accounting::{Cause, Hole};

/// Most ranges in one `gap` record: a range is at most 50 bytes encoded, so that a record stays below 55 KB.
pub const RANGES_PER_GAP_MAX: usize = 1_000;

/// The kernel side's count of lost events of one scope and class, since its maps were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossReading {
    /// Class of the events.
    pub class: Class,
    /// Root of the scope; 0 for the host outside every scope.
    pub scope: CgroupId,
    /// How many so far.
    pub count: u64,
    /// When the first was lost.
    pub first: BootTime,
    /// When the latest was lost.
    pub last: BootTime,
}

/// One `gap` record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapDraft {
    /// Why.
    pub cause: GapCause,
    /// Missing numbers.
    pub ranges: Vec<NumberRange>,
    /// How many.
    pub count: u64,
    /// Whose, as far as counted.
    pub shares: Vec<LossShare>,
    /// Earliest loss, as far as known.
    pub from: Option<BootTime>,
    /// Latest loss, as far as known.
    pub to: Option<BootTime>,
}

/// Remembers which loss counts have been reported.
#[derive(Debug, Default)]
pub struct Losses {
    reported: HashMap<(Class, CgroupId), u64>,
}

impl Losses {
    /// Continues after an earlier run: what was counted before is not reported again.
    pub fn resume(&mut self, class: Class, scope: CgroupId, reported: u64) {
        let so_far = self.reported.entry((class, scope)).or_insert(0);
        *so_far = so_far.saturating_add(reported);
    }

    /// The gaps that these holes make, one per class and cause, split where one record could not hold the ranges.
    pub fn gaps(&mut self, holes: &[Hole], readings: &[LossReading]) -> Vec<GapDraft> {
        let mut gaps = Vec::new();
        for class in Class::ALL {
            for (cause, word) in [(Cause::RingFull, GapCause::RingFull), (Cause::Unexplained, GapCause::Unexplained)] {
                let ranges: Vec<NumberRange> = holes
                    .iter()
                    .filter(|hole| hole.stream.class == class && hole.cause == cause)
                    .flat_map(Hole::number_ranges)
                    .collect();
                if ranges.is_empty() {
                    continue;
                }
                let mut lost_now = match cause {
                    Cause::RingFull => self.take(class, readings),
                    Cause::Unexplained => Vec::new(),
                };
                for ranges in ranges.chunks(RANGES_PER_GAP_MAX) {
                    gaps.push(Self::gap(word, ranges, &mut lost_now));
                }
                // Counted, but more than the missing numbers of this moment: the next gap's.
                for (reading, left) in lost_now {
                    let reported = self.reported.entry((class, reading.scope)).or_insert(0);
                    *reported = reported.saturating_sub(left);
                }
            }
        }
        gaps
    }

    /// What each scope lost since it was last reported.
    fn take(&mut self, class: Class, readings: &[LossReading]) -> Vec<(LossReading, u64)> {
        let mut lost = Vec::new();
        for reading in readings.iter().filter(|reading| reading.class == class) {
            let reported = self.reported.entry((class, reading.scope)).or_insert(0);
            let since = reading.count.saturating_sub(*reported);
            if since > 0 {
                *reported = reading.count;
                lost.push((*reading, since));
            }
        }
        lost
    }

    fn gap(cause: GapCause, ranges: &[NumberRange], lost: &mut Vec<(LossReading, u64)>) -> GapDraft {
        let count = ranges.iter().map(|range| range.last - range.first + 1).sum();
        let (mut shares, mut from, mut to) = (Vec::new(), None, None);
        let mut left: u64 = count;
        for (reading, since) in lost.iter_mut() {
            let share = (*since).min(left);
            if share == 0 {
                continue;
            }
            *since -= share;
            left -= share;
            shares.push(LossShare { scope: reading.scope, count: share });
            from = Some(from.map_or(reading.first, |from: BootTime| from.min(reading.first)));
            to = Some(to.map_or(reading.last, |to: BootTime| to.max(reading.last)));
        }
        lost.retain(|(_, since)| *since > 0);
        GapDraft { cause, ranges: ranges.to_vec(), count, shares, from, to }
    }
}

#[cfg(test)]
mod tests {
    use super::super::accounting::Stream;
    use super::*;

    fn hole(cpu: u32, ranges: &[(u64, u64)], cause: Cause) -> Hole {
        let count = ranges.iter().map(|(first, last)| last - first + 1).sum();
        Hole { stream: Stream { cpu, class: Class::File }, ranges: ranges.to_vec(), count, cause }
    }

    fn reading(scope: u64, count: u64) -> LossReading {
        LossReading {
            class: Class::File,
            scope: CgroupId(scope),
            count,
            first: BootTime(10 + scope),
            last: BootTime(20 + scope),
        }
    }

    #[test]
    fn one_gap_lists_the_holes_of_every_processor_and_whose_they_were() {
        let mut losses = Losses::default();
        let holes = [hole(0, &[(3, 4)], Cause::RingFull), hole(1, &[(7, 7)], Cause::RingFull)];
        let gaps = losses.gaps(&holes, &[reading(5, 2), reading(6, 1)]);
        assert_eq!(gaps.len(), 1);
        let gap = &gaps[0];
        assert_eq!((gap.cause, gap.count, gap.ranges.len()), (GapCause::RingFull, 3, 2));
        assert_eq!(
            gap.shares,
            [LossShare { scope: CgroupId(5), count: 2 }, LossShare { scope: CgroupId(6), count: 1 }]
        );
        assert_eq!((gap.from, gap.to), (Some(BootTime(15)), Some(BootTime(26))));
    }

    #[test]
    fn shares_never_exceed_the_missing_numbers_and_the_rest_is_told_with_the_next_gap() {
        let mut losses = Losses::default();
        let first = losses.gaps(&[hole(0, &[(0, 0)], Cause::RingFull)], &[reading(5, 3)]);
        assert_eq!(first[0].shares, [LossShare { scope: CgroupId(5), count: 1 }]);
        let second = losses.gaps(&[hole(0, &[(1, 2)], Cause::RingFull)], &[reading(5, 3)]);
        assert_eq!(second[0].shares, [LossShare { scope: CgroupId(5), count: 2 }]);
        assert_eq!(losses.gaps(&[], &[reading(5, 3)]), []);
    }

    #[test]
    fn unexplained_holes_are_nobodys() {
        let mut losses = Losses::default();
        let gaps = losses.gaps(&[hole(0, &[(0, 0)], Cause::Unexplained)], &[reading(5, 1)]);
        assert_eq!((gaps[0].cause, gaps[0].shares.len()), (GapCause::Unexplained, 0));
    }

    #[test]
    fn many_ranges_are_split_over_records_and_none_is_dropped() {
        let ranges: Vec<(u64, u64)> = (0..2_500).map(|i| (2 * i, 2 * i)).collect();
        let gaps = Losses::default().gaps(&[hole(0, &ranges, Cause::RingFull)], &[reading(5, 2_500)]);
        assert_eq!(gaps.iter().map(|gap| gap.ranges.len()).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        assert_eq!(gaps.iter().map(|gap| gap.count).sum::<u64>(), 2_500);
        assert_eq!(gaps.iter().flat_map(|gap| &gap.shares).map(|share| share.count).sum::<u64>(), 2_500);
    }

    #[test]
    fn what_an_earlier_run_reported_is_not_reported_again() {
        let mut losses = Losses::default();
        losses.resume(Class::File, CgroupId(5), 4);
        let gaps = losses.gaps(&[hole(0, &[(9, 9)], Cause::RingFull)], &[reading(5, 5)]);
        assert_eq!(gaps[0].shares, [LossShare { scope: CgroupId(5), count: 1 }]);
    }
}
