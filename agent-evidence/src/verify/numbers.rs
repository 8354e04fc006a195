//! Which kernel numbers a log accounts for: each at most once, and in the end each at least once.

use std::collections::{BTreeMap, HashMap};

use crate::record::{Class, Id128};

/// Most separate runs of numbers kept per counter. A real log has as many as events overtake each other, a few
/// dozen; one that needs more memory than this is reported with its holes instead.
pub(super) const RUNS_MAX: usize = 65_536;

/// Most runs kept over all counters: about 64 MiB.
pub(super) const RUNS_TOTAL_MAX: usize = 1 << 20;

/// Most counters kept: 8,192 processors with four classes, twice over.
pub(super) const COUNTERS_MAX: usize = 65_536;

/// The numbers of one counter that were accounted for.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Every number below is accounted for.
    settled: u64,
    /// Runs above `settled`, first to last.
    ahead: BTreeMap<u64, u64>,
    /// How many numbers the kernel side had given when it last said so.
    pub(super) generated: u64,
    /// Missing numbers below it may be those of withheld entries.
    pub(super) edge: u64,
    /// How many entries were withheld when the kernel side last said so.
    pub(super) withheld: u64,
}

impl Numbers {
    /// Accounts for `first..=last`.
    ///
    /// # Errors
    /// The first of them that was accounted for before; then nothing is changed.
    pub(super) fn insert(&mut self, first: u64, last: u64) -> Result<(), u64> {
        if first < self.settled {
            return Err(first);
        }
        if let Some((_, end)) = self.ahead.range(..=first).next_back()
            && *end >= first
        {
            return Err(first);
        }
        if let Some((start, _)) = self.ahead.range(first..=last.max(first)).next() {
            return Err(*start);
        }
        if first == self.settled {
            self.settled = last.saturating_add(1);
            self.join_settled();
            return Ok(());
        }
        // Joined with its neighbors, so that runs stay as few as there are holes.
        let mut end = last;
        if let Some(joined) = last.checked_add(1).and_then(|next| self.ahead.remove(&next)) {
            end = joined;
        }
        match self.ahead.range_mut(..first).next_back() {
            Some((_, before)) if before.checked_add(1) == Some(first) => *before = end,
            _ => {
                self.ahead.insert(first, end);
            }
        }
        Ok(())
    }

    fn join_settled(&mut self) {
        while let Some(end) = self.ahead.remove(&self.settled) {
            self.settled = end.saturating_add(1);
        }
    }

    /// How many runs above the settled part are kept.
    pub(super) fn runs(&self) -> usize {
        self.ahead.len()
    }

    /// One past the highest number accounted for.
    pub(super) fn top(&self) -> u64 {
        self.ahead.last_key_value().map_or(self.settled, |(_, last)| last.saturating_add(1))
    }

    /// Takes the holes below `limit`, first and last of each, and counts them as accounted for from now on.
    pub(super) fn take_holes(&mut self, limit: u64) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        while self.settled < limit {
            let hole_end = self.ahead.first_key_value().map_or(limit, |(first, _)| limit.min(*first));
            holes.push((self.settled, hole_end - 1));
            self.settled = hole_end;
            self.join_settled();
        }
        holes
    }

    /// Takes the holes below `limit`: first and last of those that are none of withheld entries, and how many numbers may be.
    pub(super) fn take_holes_beyond_edge(&mut self, limit: u64) -> (Vec<(u64, u64)>, u64) {
        let edge = self.edge.min(limit);
        let at_edge = self.missing_below(edge);
        self.take_holes(edge);
        (self.take_holes(limit), at_edge)
    }

    /// How many numbers below `limit` are not accounted for.
    pub(super) fn missing_below(&self, limit: u64) -> u64 {
        let covered: u64 = self
            .ahead
            .iter()
            .filter(|(first, _)| **first < limit)
            .map(|(first, last)| last.saturating_add(1).min(limit) - first)
            .sum();
        limit.saturating_sub(self.settled).saturating_sub(covered)
    }
}

/// A counter: whose space of numbers, which processor, which class.
pub(super) type Counter = (Id128, u32, Class);

/// The numbers of every counter that a log speaks of.
#[derive(Debug, Default)]
pub(super) struct Counters {
    counters: HashMap<Counter, Numbers>,
}

impl Counters {
    /// The numbers of one counter; none when there are too many counters. `withheld`: how many entries were when its capture
    /// began, asked if this is the first that is told of it.
    pub(super) fn of(&mut self, counter: Counter, withheld: impl FnOnce() -> u64) -> Option<&mut Numbers> {
        if self.counters.len() >= COUNTERS_MAX && !self.counters.contains_key(&counter) {
            return None;
        }
        Some(self.counters.entry(counter).or_insert_with(|| Numbers { withheld: withheld(), ..Numbers::default() }))
    }

    /// Every counter, in a fixed order.
    pub(super) fn sorted(&mut self) -> Vec<(Counter, &mut Numbers)> {
        let mut all: Vec<_> = self.counters.iter_mut().map(|(counter, numbers)| (*counter, numbers)).collect();
        all.sort_by_key(|(counter, _)| *counter);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_order_settle_when_the_hole_between_them_is_filled() {
        let mut numbers = Numbers::default();
        for seq in [0, 3, 1, 5, 2] {
            numbers.insert(seq, seq).unwrap();
        }
        assert_eq!((numbers.settled, numbers.top(), numbers.missing_below(6)), (4, 6, 1));
        assert_eq!(numbers.take_holes(6), [(4, 4)]);
        assert_eq!(numbers.settled, 6);
    }

    #[test]
    fn a_number_is_accounted_for_once() {
        let mut numbers = Numbers::default();
        numbers.insert(0, 9).unwrap();
        numbers.insert(20, 29).unwrap();
        for (first, last, repeated) in [(5, 5, 5), (9, 12, 9), (15, 20, 20), (25, 40, 25), (29, 29, 29), (10, 99, 20)] {
            assert_eq!(numbers.insert(first, last), Err(repeated), "{first} to {last}");
        }
        numbers.insert(10, 19).unwrap();
        assert_eq!((numbers.settled, numbers.ahead.len()), (30, 0));
    }

    #[test]
    fn the_ends_of_the_number_space_do_not_overflow() {
        let mut numbers = Numbers::default();
        numbers.insert(u64::MAX, u64::MAX).unwrap();
        assert_eq!(numbers.insert(u64::MAX, u64::MAX), Err(u64::MAX));
        assert_eq!(numbers.missing_below(u64::MAX), u64::MAX);
        numbers.insert(0, u64::MAX - 1).unwrap();
        assert_eq!(numbers.top(), u64::MAX);
        assert_eq!(numbers.take_holes(u64::MAX), []);
    }
}
