//! What retention has to know and the log does not say at a glance: which sessions are held, and how old entries are.
//!
//! Owns the file `retention` in the state directory. All of it can be had again: holds by going through the log, which
//! is done a little at a time when the file is not there; ages not, so that a log without the file begins to age anew.
//!
//! # The second clock
//! Wall time is the host's claim, and a clock that is set forward would make everything old at once. So age is counted
//! twice, and both counts must agree: by wall time, and by a clock of the log's own that goes on while the daemon runs
//! (boot time) and over a stop by what the wall clock says of it, at most [`STOP_MAX`] each. A jump of years prunes
//! nothing; a host that is off for weeks keeps its entries for longer.
//!
//! Trust: as the state directory's.

use std::collections::BTreeMap;

use agent_evidence::record::{self, Body, BootTime, Hold, Kind, Nanoseconds, WallTime};
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::durable::{Durable, DurableError};
use super::peek::Peek;
use super::{LogError, Now};

/// The file.
const FILE: &str = "retention";
const SECOND_NS: u64 = 1_000_000_000;
/// How often the size of the log is noted: the grain of ages.
const SAMPLE_EVERY_NS: u64 = 3_600 * SECOND_NS;
/// Most notes. When there are more, those go that are nearer to the one before than a 256th of their age: some 2,000
/// stay of a century.
const SAMPLES_MAX: usize = 4_096;
const GRAIN: u64 = 256;
/// Most time that a stop of the daemon counts, in nanoseconds: a day.
pub const STOP_MAX: u64 = 86_400 * SECOND_NS;
/// Entries after which the file is written again, so that a start has few to go through.
const SEEN_STEP: u64 = 1 << 20;
/// Bundles that are gone through in one step.
pub(super) const LOOK_BUNDLES: u64 = 32;

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// Entries below were gone through.
    seen: u64,
    /// Sessions that are held, with their newest `hold` entries.
    holds: BTreeMap<u64, u64>,
    /// The log's own clock, in nanoseconds.
    clock_ns: u64,
    /// The wall clock at that moment.
    wall_ns: u64,
    /// Size of the log, wall clock and own clock, oldest first.
    samples: Vec<(u64, u64, u64)>,
}

/// Holds and ages.
#[derive(Debug)]
pub(super) struct Retention {
    stored: Stored,
    /// The newest word on each session that had one, as found so far: where, and whether it is held.
    words: BTreeMap<u64, (u64, bool)>,
    /// Where the entries begin that this process appended, and saw.
    appended_from: u64,
    /// When the own clock was looked at last.
    last: Option<BootTime>,
    /// The file should be written.
    dirty: bool,
    /// An entry cannot be read: what stands after it was not gone through, and is not in this run.
    stuck: bool,
}

impl Retention {
    /// For a log that begins.
    pub(super) fn new() -> Self {
        Self {
            stored: Stored::default(),
            words: BTreeMap::new(),
            appended_from: 0,
            last: None,
            dirty: false,
            stuck: false,
        }
    }

    /// For a log of this size.
    pub(super) fn resume<D: Disk>(disk: &mut Durable<D>, size: u64) -> Result<Self, DurableError> {
        let stored = disk.read(FILE)?.and_then(|bytes| match serde_json::from_slice::<Stored>(&bytes) {
            Ok(stored) if stored.seen <= size => Some(stored),
            _ => {
                tracing::warn!("the file {FILE} of the state directory is not of this log: holds are looked up again");
                None
            }
        });
        let stored = stored.unwrap_or_default();
        let words = stored.holds.iter().map(|(session, entry)| (*session, (*entry, true))).collect();
        Ok(Self { stored, words, appended_from: size, last: None, dirty: false, stuck: false })
    }

    /// The entries that have not been gone through for holds yet: up to where this process began to append.
    pub(super) fn unseen(&self) -> Option<std::ops::Range<u64>> {
        (self.stored.seen < self.appended_from).then_some(self.stored.seen..self.appended_from)
    }

    /// What is to be gone through now.
    pub(super) fn to_look_at(&self) -> Option<std::ops::Range<u64>> {
        self.unseen().filter(|_| !self.stuck)
    }

    /// The log cannot be read from here on: nothing is pruned, since nobody knows what is held.
    pub(super) fn stop_looking(&mut self, why: &LogError) {
        tracing::error!(
            why = why as &dyn std::error::Error,
            "the log cannot be gone through for holds; nothing is pruned"
        );
        self.stuck = true;
    }

    /// Everything below `index` was gone through.
    pub(super) fn saw(&mut self, index: u64) {
        self.dirty |= index / SEEN_STEP != self.stored.seen / SEEN_STEP || index >= self.appended_from;
        self.stored.seen = self.stored.seen.max(index);
    }

    /// Takes an entry that may be a `hold`.
    pub(super) fn look(&mut self, index: u64, peek: &Peek<'_>, entry: &[u8]) {
        if peek.kind == Kind::Hold
            && let Ok(record) = record::decode(entry)
            && let Body::Hold(hold) = record.body()
        {
            self.note(index, hold);
        }
    }

    /// Takes a `hold` entry; the latest one of a session counts, in whichever order they come.
    pub(super) fn note(&mut self, index: u64, hold: &Hold<'_>) {
        let word = self.words.entry(hold.session.0).or_insert((index, hold.on));
        if word.0 <= index {
            *word = (index, hold.on);
        }
        self.dirty = true;
    }

    /// Sessions that are held, by their `issued` entries. Whole only when nothing is [`unseen`](Self::unseen).
    pub(super) fn held(&self) -> impl Iterator<Item = u64> {
        self.words.iter().filter(|(_, (_, on))| *on).map(|(session, _)| *session)
    }

    /// Whether a session is held, as far as is known.
    #[cfg(test)]
    pub(super) fn is_held(&self, session: record::EntryIndex) -> bool {
        self.words.get(&session.0).is_some_and(|(_, on)| *on)
    }

    /// Moves the own clock on, and notes the size of the log from time to time. Durable sooner or later.
    pub(super) fn tick(&mut self, now: Now, size: u64) {
        let passed = match self.last {
            Some(last) => now.boot.0.saturating_sub(last.0),
            // A stop. The first tick of a log without the file has nothing to count from.
            None if self.stored.wall_ns == 0 => 0,
            None => now.wall.0.saturating_sub(self.stored.wall_ns).min(STOP_MAX),
        };
        self.last = Some(now.boot);
        self.stored.clock_ns = self.stored.clock_ns.saturating_add(passed);
        self.stored.wall_ns = now.wall.0;
        let due = self
            .stored
            .samples
            .last()
            .is_none_or(|(_, _, clock)| self.stored.clock_ns.saturating_sub(*clock) >= SAMPLE_EVERY_NS);
        if due {
            self.stored.samples.push((size, now.wall.0, self.stored.clock_ns));
            thin(&mut self.stored.samples, self.stored.clock_ns);
            self.dirty = true;
        }
        if self.unseen().is_none() {
            self.saw(size);
        }
    }

    /// How many of the first entries are older than this, by both clocks.
    pub(super) fn older_than(&self, age: Nanoseconds, now: WallTime) -> u64 {
        let Stored { clock_ns, samples, .. } = &self.stored;
        let old = |(_, wall, clock): &&(u64, u64, u64)| {
            // A wall time that lies ahead says nothing; the own clock has to do.
            let by_wall = *wall > now.0.saturating_add(STOP_MAX) || now.0.saturating_sub(*wall) >= age.0;
            by_wall && clock_ns.saturating_sub(*clock) >= age.0
        };
        samples.iter().take_while(old).last().map_or(0, |(size, _, _)| *size)
    }

    /// Writes the file if there is something new. It can wait: it gets no space from the reserve.
    pub(super) fn save<D: Disk>(&mut self, disk: &mut Durable<D>) -> Result<(), LogError> {
        if !self.dirty {
            return Ok(());
        }
        self.stored.holds =
            self.words.iter().filter(|(_, (_, on))| *on).map(|(session, (entry, _))| (*session, *entry)).collect();
        // Numbers only: it always serializes.
        let bytes = serde_json::to_vec(&self.stored).unwrap_or_default();
        match disk.keeping_reserve(|disk| disk.publish(FILE, &bytes)) {
            Ok(()) => self.dirty = false,
            Err(DurableError::Full { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn thin(samples: &mut Vec<(u64, u64, u64)>, now: u64) {
    if samples.len() > SAMPLES_MAX {
        let mut before: Option<u64> = None;
        samples.retain(|(_, _, clock)| {
            let wanted = before.is_none_or(|before| clock.saturating_sub(before) >= now.saturating_sub(*clock) / GRAIN);
            if wanted {
                before = Some(*clock);
            }
            wanted
        });
    }
}

#[cfg(test)]
mod tests {
    use agent_evidence::record::EntryIndex;

    use super::*;
    use crate::log::simdisk::SimDisk;

    const HOUR: u64 = 3_600 * SECOND_NS;
    const DAY: u64 = 24 * HOUR;
    /// 2026.
    const THEN: u64 = 1_770_000_000 * SECOND_NS;

    fn now(wall: u64, boot: u64) -> Now {
        Now { wall: WallTime(wall), boot: BootTime(boot) }
    }

    /// Runs for so many hours, with a thousand entries in each; the hour after the last.
    fn run(retention: &mut Retention, hours: std::ops::Range<u64>, ahead: u64) -> u64 {
        for hour in hours.clone() {
            retention.tick(now(THEN + hour * HOUR + ahead, hour * HOUR), hour * 1_000);
        }
        hours.end
    }

    #[test]
    fn entries_age_by_the_hour() {
        let mut retention = Retention::new();
        let hour = run(&mut retention, 0..100, 0);
        let at = WallTime(THEN + (hour - 1) * HOUR);
        assert_eq!(retention.older_than(Nanoseconds(DAY), at), (hour - 1 - 24) * 1_000);
        assert_eq!(retention.older_than(Nanoseconds(200 * DAY), at), 0);
    }

    #[test]
    fn a_clock_that_is_set_forward_makes_nothing_old_and_one_set_back_neither() {
        let mut retention = Retention::new();
        let hour = run(&mut retention, 0..48, 0);
        let years = 3_650 * DAY;
        let hour = run(&mut retention, hour..hour + 2, years);
        assert_eq!(retention.older_than(Nanoseconds(30 * DAY), WallTime(THEN + hour * HOUR + years)), 0);
        assert_eq!(retention.older_than(Nanoseconds(30 * DAY), WallTime(0)), 0);
        // Set right again: what was written meanwhile is of a time to come, and ages by the own clock.
        let hour = run(&mut retention, hour..hour + 31 * 24, 0);
        let at = WallTime(THEN + (hour - 1) * HOUR);
        assert_eq!(retention.older_than(Nanoseconds(30 * DAY), at), (hour - 1 - 30 * 24) * 1_000);
    }

    #[test]
    fn a_stop_counts_a_day_at_most() {
        let sim = SimDisk::default();
        let mut disk = Durable::new(sim);
        disk.prepare_temp().expect("a directory");
        let mut retention = Retention::new();
        let hour = run(&mut retention, 0..10, 0);
        retention.save(&mut disk).expect("saved");
        // Half a day, then ten years.
        for (stop, counted) in [(DAY / 2, DAY / 2), (3_650 * DAY, DAY)] {
            let mut again = Retention::resume(&mut disk, hour * 1_000).expect("read");
            let before = again.stored.clock_ns;
            again.tick(now(again.stored.wall_ns + stop, 5), hour * 1_000);
            assert_eq!(again.stored.clock_ns - before, counted);
        }
    }

    #[test]
    fn notes_of_many_years_stay_few() {
        let mut retention = Retention::new();
        run(&mut retention, 0..20_000, 0);
        assert!(retention.stored.samples.len() <= SAMPLES_MAX);
        let at = WallTime(THEN + 19_999 * HOUR);
        assert_eq!(retention.older_than(Nanoseconds(DAY), at), (19_999 - 24) * 1_000, "what is new keeps its grain");
        let old = retention.older_than(Nanoseconds(700 * DAY), at);
        assert!((3_199_000 - 100_000..=3_199_000).contains(&old), "{old}");
    }

    #[test]
    fn the_latest_word_on_a_session_counts_in_whichever_order_it_is_heard() {
        use agent_evidence::record::{Requester, Text};
        let hold = |on| Hold {
            session: EntryIndex(7),
            on,
            reason: Text::new(b"case"),
            by: Requester { process: None, tgid: 1, uid: 0, gid: 0 },
        };
        let mut retention = Retention::new();
        retention.note(50, &hold(false));
        retention.note(20, &hold(true));
        assert!(!retention.is_held(EntryIndex(7)));
        retention.note(60, &hold(true));
        assert_eq!(retention.held().collect::<Vec<_>>(), [7]);
    }
}
