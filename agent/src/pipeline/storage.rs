//! Room on the disk: when it runs out, what is left out first, and the exact count of what was.
//!
//! Pure: readings in, a change of state or gaps out. An event that is left out is not lost unseen: its kernel number goes
//! into a `gap` of cause `disk_full` before the rings let go of it.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use agent_evidence::record::{
    BootTime, CgroupId, Class, GapCause, KernelNumber, LossShare, NumberRange, Storage, StorageState,
};

use super::losses::{GapDraft, RANGES_PER_GAP_MAX};

/// Every class: on a full disk nothing but the control chain is written.
const CLASSES_ALL: u32 = 0b1_1111;
/// Longest time a number that was left out waits for its gap, in nanoseconds: what a commit is made due by.
const GAP_AFTER_NS: u64 = 1_000_000_000;
/// Scopes that are counted apart in one gap; the rest is counted without a name. 1,000 fit an entry beside the ranges.
const SHARES_MAX: usize = 200;

/// What configuration says of room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageSettings {
    /// Free bytes below which the disk is low.
    pub low_bytes: u64,
    /// Bytes held in reserve for the last records and seals.
    pub reserve_bytes: u64,
    /// Classes left out while it is low: bit *n* for the class of number *n*.
    pub drop_when_low: u32,
}

impl StorageSettings {
    /// Free bytes from which a low disk has room again: a quarter more, so that the state does not flap.
    fn ok_bytes(&self) -> u64 {
        self.low_bytes.saturating_add(self.low_bytes / 4)
    }
}

/// The bit of a class in sums of classes.
#[must_use]
pub fn class_bit(class: Class) -> u32 {
    1 << (class as u32)
}

/// Whether there is room.
#[derive(Debug)]
pub struct Room {
    settings: StorageSettings,
    state: StorageState,
    free: u64,
    skipped: Skipped,
    /// How many events were left out since the daemon began.
    skipped_total: u64,
}

impl Room {
    /// There is, until a reading says otherwise.
    #[must_use]
    pub fn new(settings: StorageSettings) -> Self {
        Self { settings, state: StorageState::Ok, free: u64::MAX, skipped: Skipped::default(), skipped_total: 0 }
    }

    /// The state in force.
    #[must_use]
    pub fn state(&self) -> StorageState {
        self.state
    }

    /// Free bytes when last read.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free
    }

    /// How many events were left out since the daemon began.
    #[must_use]
    pub fn skipped_total(&self) -> u64 {
        self.skipped_total
    }

    /// Takes a reading; the record to write when the state is another now.
    pub fn observe(&mut self, free: u64, reserve_held: bool) -> Option<Storage> {
        self.free = free;
        let has_room = match self.state {
            StorageState::Ok => free >= self.settings.low_bytes,
            StorageState::Low | StorageState::Full => free >= self.settings.ok_bytes(),
        };
        let state = match (reserve_held, has_room) {
            (false, _) => StorageState::Full,
            (true, false) => StorageState::Low,
            (true, true) => StorageState::Ok,
        };
        if state == self.state {
            return None;
        }
        self.state = state;
        let reserve = if reserve_held { self.settings.reserve_bytes } else { 0 };
        Some(Storage { state, free, reserve, classes: self.dropped_classes() })
    }

    /// Whether a full disk may have room again: then the reserve is worth trying for.
    #[must_use]
    pub fn may_regain(&self, free: u64) -> bool {
        self.state == StorageState::Full
            && free >= self.settings.ok_bytes().max(self.settings.reserve_bytes.saturating_mul(2))
    }

    /// Whether events of this class are left out now.
    #[must_use]
    pub fn leaves_out(&self, class: Class) -> bool {
        self.dropped_classes() & class_bit(class) != 0
    }

    fn dropped_classes(&self) -> u32 {
        match self.state {
            StorageState::Ok => 0,
            StorageState::Low => self.settings.drop_when_low,
            StorageState::Full => CLASSES_ALL,
        }
    }

    /// Counts an event that is left out.
    pub fn skip(&mut self, number: KernelNumber, scope: CgroupId, at: BootTime) {
        self.skipped_total = self.skipped_total.saturating_add(1);
        self.skipped.add(number, scope, at);
    }

    /// Whether gaps wait and should not wait longer.
    #[must_use]
    pub fn gap_due(&self, now: BootTime) -> bool {
        self.skipped.since.is_some_and(|since| now.0 >= since.0.saturating_add(GAP_AFTER_NS))
            || self.skipped.ranges.len() >= RANGES_PER_GAP_MAX
    }

    /// The gaps of everything left out since the last call: one per class, split where one record could not hold it.
    pub fn take_gaps(&mut self) -> Vec<GapDraft> {
        std::mem::take(&mut self.skipped).gaps()
    }
}

/// Numbers that were left out and are in no gap yet.
#[derive(Debug, Default)]
struct Skipped {
    /// First number of each run of a counter, and its last.
    ranges: BTreeMap<(Class, u32, u64), u64>,
    scopes: HashMap<(Class, u64), u64>,
    since: Option<BootTime>,
    until: Option<BootTime>,
}

impl Skipped {
    fn add(&mut self, number: KernelNumber, scope: CgroupId, at: BootTime) {
        let KernelNumber { cpu, class, seq } = number;
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
        self.until = Some(self.until.map_or(at, |until| until.max(at)));
        *self.scopes.entry((class, scope.0)).or_default() += 1;
        let end = seq.checked_add(1).and_then(|next| self.ranges.remove(&(class, cpu, next))).unwrap_or(seq);
        match self.ranges.range_mut((class, cpu, 0)..(class, cpu, seq)).next_back() {
            Some((_, last)) if last.checked_add(1) == Some(seq) => *last = end,
            _ => {
                self.ranges.insert((class, cpu, seq), end);
            }
        }
    }

    fn gaps(self) -> Vec<GapDraft> {
        let mut gaps = Vec::new();
        for class in Class::ALL {
            let ranges: Vec<NumberRange> = self
                .ranges
                .iter()
                .filter(|((of, _, _), _)| *of == class)
                .map(|((_, cpu, first), last)| NumberRange { cpu: *cpu, class, first: *first, last: *last })
                .collect();
            let mut scopes: Vec<(u64, u64)> = self
                .scopes
                .iter()
                .filter(|((of, _), _)| *of == class)
                .map(|((_, scope), count)| (*scope, *count))
                .collect();
            // The largest first; what does not fit stays without a name.
            scopes.sort_by_key(|(scope, count)| (std::cmp::Reverse(*count), *scope));
            scopes.truncate(SHARES_MAX);
            let mut scopes = scopes.into_iter().peekable();
            for ranges in ranges.chunks(RANGES_PER_GAP_MAX) {
                let count = ranges.iter().map(|range| range.last - range.first + 1).sum();
                let mut left: u64 = count;
                let mut shares = Vec::new();
                while let Some((scope, since)) = scopes.peek_mut() {
                    let share = (*since).min(left);
                    if share == 0 {
                        break;
                    }
                    shares.push(LossShare { scope: CgroupId(*scope), count: share });
                    left -= share;
                    *since -= share;
                    if *since == 0 {
                        scopes.next();
                    }
                }
                let (from, to) = (self.since, self.until);
                gaps.push(GapDraft { cause: GapCause::DiskFull, ranges: ranges.to_vec(), count, shares, from, to });
            }
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Room {
        Room::new(StorageSettings {
            low_bytes: 1_000,
            reserve_bytes: 100,
            drop_when_low: class_bit(Class::File) | class_bit(Class::Network),
        })
    }

    fn number(cpu: u32, class: Class, seq: u64) -> KernelNumber {
        KernelNumber { cpu, class, seq }
    }

    #[test]
    fn the_state_changes_once_and_comes_back_later_than_it_went() {
        let mut room = room();
        assert_eq!(room.observe(5_000, true), None);
        let low =
            room.observe(999, true).map(|storage| (storage.state, storage.free, storage.reserve, storage.classes));
        assert_eq!(low, Some((StorageState::Low, 999, 100, 0b1100)));
        assert_eq!(room.observe(1_249, true), None, "not enough to come back");
        assert_eq!(
            room.observe(1_250, true).map(|storage| (storage.state, storage.classes)),
            Some((StorageState::Ok, 0))
        );
        assert_eq!(room.observe(1_000, true), None);
        let full = room.observe(0, false).map(|storage| (storage.state, storage.reserve, storage.classes));
        assert_eq!(full, Some((StorageState::Full, 0, 0b1_1111)));
        assert!(!room.may_regain(1_249) && room.may_regain(1_250));
        assert_eq!(room.observe(1_100, true).map(|storage| storage.state), Some(StorageState::Low));
        assert_eq!(room.observe(9_000, true).map(|storage| storage.state), Some(StorageState::Ok));
    }

    #[test]
    fn only_what_configuration_lets_go_is_left_out_while_it_is_low_and_everything_when_it_is_full() {
        let mut room = room();
        assert!(Class::ALL.into_iter().all(|class| !room.leaves_out(class)));
        room.observe(1, true);
        let out: Vec<Class> = Class::ALL.into_iter().filter(|class| room.leaves_out(*class)).collect();
        assert_eq!(out, [Class::Network, Class::File]);
        room.observe(1, false);
        assert!(Class::ALL.into_iter().all(|class| room.leaves_out(class)));
    }

    #[test]
    fn what_is_left_out_is_counted_exactly_and_once() {
        let mut room = room();
        for seq in [5, 7, 6, 9] {
            room.skip(number(1, Class::File, seq), CgroupId(40), BootTime(seq));
        }
        room.skip(number(0, Class::File, 6), CgroupId(41), BootTime(3));
        room.skip(number(1, Class::Network, 6), CgroupId(40), BootTime(30));
        assert!(room.gap_due(BootTime(3 + GAP_AFTER_NS)) && !room.gap_due(BootTime(2 + GAP_AFTER_NS)));
        let gaps = room.take_gaps();
        let range = |cpu, class, first, last| NumberRange { cpu, class, first, last };
        let expected = [
            (1, vec![range(1, Class::Network, 6, 6)], vec![(40, 1)]),
            (
                5,
                vec![range(0, Class::File, 6, 6), range(1, Class::File, 5, 7), range(1, Class::File, 9, 9)],
                vec![(40, 4), (41, 1)],
            ),
        ];
        let seen: Vec<_> = gaps
            .iter()
            .map(|gap| {
                (
                    gap.count,
                    gap.ranges.clone(),
                    gap.shares.iter().map(|share| (share.scope.0, share.count)).collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(seen, expected);
        assert!(gaps.iter().all(|gap| gap.cause == GapCause::DiskFull
            && gap.from == Some(BootTime(3))
            && gap.to == Some(BootTime(30))));
        assert_eq!(room.skipped_total(), 6);
        assert!(room.take_gaps().is_empty() && !room.gap_due(BootTime(u64::MAX)));
    }

    #[test]
    fn many_ranges_become_several_gaps_whose_shares_add_up() {
        let mut room = room();
        for seq in 0..2_500 {
            room.skip(number(0, Class::File, seq * 2), CgroupId(seq % 3), BootTime(1));
        }
        let gaps = room.take_gaps();
        assert_eq!(gaps.iter().map(|gap| gap.count).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        for gap in &gaps {
            assert_eq!(gap.shares.iter().map(|share| share.count).sum::<u64>(), gap.count);
        }
    }
}
