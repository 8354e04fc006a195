//! When the TPM is asked for what: anchors by time and on occasions, steps of the counter, and another try after trouble.
//!
//! Pure: time is passed in, acts come out. The TPM is one slow device that others use too, so at most one act is under way,
//! what comes close together becomes one anchor, and a workload that opens sessions as fast as it can has no say in how
//! often: the number of acts is bounded by time alone.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use agent_evidence::record::{AnchorCause, BootTime, TreeSize};

use super::Trouble;

/// Most nonces that wait for their anchors: each is somebody who waits at the control socket.
pub const NONCES_MAX: usize = 16;
/// How long an act may take before the TPM is called slow.
pub const SLOW_NS: u64 = 30 * SECOND;
/// First pause after a failure; it doubles up to [`RETRY_MAX_NS`].
const RETRY_MIN_NS: u64 = SECOND;
/// Longest pause between two tries.
const RETRY_MAX_NS: u64 = 60 * SECOND;
/// The cap counts the steps of this much time of the TPM's clock, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Width of a slot of the hourly use, and how many there are.
const SLOT_NS: u64 = 60 * SECOND;
const SLOTS: usize = 60;

const SECOND: u64 = 1_000_000_000;

/// What configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time between anchors, ns.
    pub anchor_ns: u64,
    /// Shortest time between the beginnings of two anchors that nobody waits for, ns.
    pub between_ns: u64,
    /// Time between steps of the counter, ns.
    pub counter_ns: u64,
    /// Most steps in 24 hours of the TPM's clock; 0: the counter is not used.
    pub steps_per_day_max: u32,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Open the TPM, look at its keys and its counter.
    Begin,
    /// Step the counter.
    Step,
    /// Say that it is not stepped: the day's cap is reached.
    Capped,
    /// Quote the newest checkpoint.
    Anchor {
        /// Why.
        cause: AnchorCause,
        /// The nonce that somebody handed over, and which of the askers it was.
        nonce: Option<Nonce>,
    },
}

/// A nonce that somebody handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce {
    /// Tells askers apart.
    pub ticket: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// An occasion for an anchor: it must cover what was in the log then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    cause: AnchorCause,
    covers: TreeSize,
}

/// An act under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Busy {
    since: BootTime,
    told: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    begun: bool,
    busy: Option<Busy>,
    /// Acts wait until then, after a failure.
    retry_at: Option<BootTime>,
    retry_ns: u64,
    trouble: Option<Trouble>,
    wish: Option<Wish>,
    nonces: VecDeque<(Nonce, TreeSize)>,
    anchor_at: BootTime,
    last_anchor: Option<BootTime>,
    step_at: BootTime,
    /// Whether the counter can be used at all: it is there and ours.
    has_counter: bool,
    steps: Steps,
    /// When the order was given that the TPM has.
    ordered: Option<BootTime>,
    used: Use,
}

impl Schedule {
    /// Everything is due: a start is an occasion for a step and an anchor.
    #[must_use]
    pub fn new(pace: Pace, now: BootTime) -> Self {
        Self {
            pace,
            begun: false,
            busy: None,
            retry_at: None,
            retry_ns: RETRY_MIN_NS,
            trouble: None,
            wish: None,
            nonces: VecDeque::new(),
            anchor_at: later(now, pace.anchor_ns),
            last_anchor: None,
            step_at: now,
            has_counter: false,
            steps: Steps::default(),
            ordered: None,
            used: Use::default(),
        }
    }

    /// An occasion for an anchor, when the log had this size. The first of several that become one anchor names the cause,
    /// but for a stop, which does not wait for the pace.
    pub fn want(&mut self, cause: AnchorCause, size: TreeSize) {
        let wish = self.wish.get_or_insert(Wish { cause, covers: size });
        wish.covers = wish.covers.max(size);
        if cause == AnchorCause::Stop {
            wish.cause = cause;
        }
    }

    /// Somebody waits for an anchor with a nonce. `false` when too many wait.
    #[must_use]
    pub fn ask(&mut self, nonce: Nonce, size: TreeSize) -> bool {
        if self.nonces.len() >= NONCES_MAX {
            return false;
        }
        self.nonces.push_back((nonce, size));
        true
    }

    /// Forgets who waits, and gives them back: their anchors cannot be made now.
    pub fn take_nonces(&mut self) -> Vec<Nonce> {
        self.nonces.drain(..).map(|(nonce, _)| nonce).collect()
    }

    /// Has the counter stepped as soon as may be, whatever its interval says.
    pub fn step_soon(&mut self, now: BootTime) {
        self.step_at = now;
    }

    /// The next act, if one is due and nothing is under way. It is under way from here on, [`Act::Capped`] aside.
    /// `sealed` is the size of the newest checkpoint, `None` while nothing can be sealed.
    pub fn next(&mut self, now: BootTime, sealed: Option<TreeSize>) -> Option<Act> {
        if self.busy.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        let act = self.choose(now, sealed)?;
        if act != Act::Capped {
            self.busy = Some(Busy { since: now, told: false });
            self.used.at(now).acts += 1;
        }
        if let Act::Anchor { .. } = act {
            self.last_anchor = Some(now);
            self.anchor_at = later(now, self.pace.anchor_ns);
        }
        Some(act)
    }

    fn choose(&mut self, now: BootTime, sealed: Option<TreeSize>) -> Option<Act> {
        if !self.begun {
            return Some(Act::Begin);
        }
        if self.has_counter && now >= self.step_at {
            if self.steps.in_last_day(now) >= self.pace.steps_per_day_max as usize {
                // Said once, and tried again when the interval has passed once more.
                self.step_at = later(now, self.pace.counter_ns);
                return Some(Act::Capped);
            }
            return Some(Act::Step);
        }
        let sealed = sealed?;
        if let Some((nonce, covers)) = self.nonces.front()
            && sealed >= *covers
        {
            let nonce = Some(nonce.clone());
            self.nonces.pop_front();
            self.granted(sealed);
            return Some(Act::Anchor { cause: AnchorCause::Nonce, nonce });
        }
        let is_stop = self.wish.is_some_and(|wish| wish.cause == AnchorCause::Stop);
        if !is_stop && self.last_anchor.is_some_and(|last| now < later(last, self.pace.between_ns)) {
            return None;
        }
        if let Some(wish) = self.wish
            && sealed >= wish.covers
        {
            self.wish = None;
            return Some(Act::Anchor { cause: wish.cause, nonce: None });
        }
        (now >= self.anchor_at).then_some(Act::Anchor { cause: AnchorCause::Interval, nonce: None })
    }

    /// An anchor over this size is what the occasion asked for, whatever it is made for.
    fn granted(&mut self, sealed: TreeSize) {
        if self.wish.is_some_and(|wish| sealed >= wish.covers) {
            self.wish = None;
        }
    }

    /// The TPM is open. `clock_ms` is its clock, `steps` the attested clocks of recent steps, oldest first. Trouble is over
    /// only when it has signed something: a TPM that opens and then refuses is tried ever more slowly all the same.
    pub fn begun(&mut self, now: BootTime, has_counter: bool, clock_ms: u64, steps: Vec<u64>) {
        self.begun = true;
        self.busy = None;
        self.retry_at = None;
        self.has_counter = has_counter && self.pace.steps_per_day_max > 0;
        self.steps = Steps { clocks: steps.into(), read: Some((now, clock_ms)) };
        if self.trouble.is_some() {
            self.anchor_at = now;
        }
    }

    /// What was read and signed of the steps so far, for the next [`Schedule::begun`].
    #[must_use]
    pub fn step_clocks(&self) -> Vec<u64> {
        self.steps.clocks.iter().copied().collect()
    }

    /// An anchor was made.
    pub fn anchored(&mut self) {
        self.succeeded();
    }

    /// The counter was stepped, and its certification says this clock.
    pub fn stepped(&mut self, now: BootTime, clock_ms: u64) {
        self.step_at = later(now, self.pace.counter_ns);
        self.steps.read = Some((now, clock_ms));
        self.steps.clocks.push_back(clock_ms);
        self.succeeded();
    }

    /// The counter cannot be used until the TPM is opened again.
    pub fn without_counter(&mut self) {
        self.has_counter = false;
    }

    /// Whether steps are to be expected.
    #[must_use]
    pub fn has_counter(&self) -> bool {
        self.has_counter
    }

    fn succeeded(&mut self) {
        self.busy = None;
        self.retry_at = None;
        self.retry_ns = RETRY_MIN_NS;
        self.trouble = None;
    }

    /// An act failed. `Some` when the trouble is another than before, and should be told. The TPM is opened anew after a pause.
    pub fn failed(&mut self, now: BootTime, trouble: Trouble) -> Option<Trouble> {
        self.busy = None;
        self.begun = false;
        self.retry_at = Some(later(now, self.retry_ns));
        self.retry_ns = self.retry_ns.saturating_mul(2).min(RETRY_MAX_NS);
        let is_new = self.trouble != Some(trouble);
        self.trouble = Some(trouble);
        is_new.then_some(trouble)
    }

    /// The TPM was reset: it is opened anew at once. Once in a row: a TPM that goes on like that is in trouble.
    pub fn reset(&mut self, now: BootTime) {
        self.busy = None;
        self.begun = false;
        self.retry_at = (self.retry_ns > RETRY_MIN_NS).then(|| later(now, self.retry_ns));
        self.retry_ns = self.retry_ns.saturating_mul(2).min(RETRY_MAX_NS);
    }

    /// Whether the act under way has taken too long; said once for each.
    pub fn is_slow(&mut self, now: BootTime) -> bool {
        match &mut self.busy {
            Some(busy) if !busy.told && now >= later(busy.since, SLOW_NS) => {
                busy.told = true;
                self.trouble = Some(Trouble::Slow);
                true
            }
            _ => false,
        }
    }

    /// Whether an act is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// Whether an occasion, or somebody, waits for an anchor.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wish.is_some() || !self.nonces.is_empty()
    }

    /// Whether a step is due that can be made.
    #[must_use]
    pub fn is_step_due(&self, now: BootTime) -> bool {
        self.has_counter && now >= self.step_at
    }

    /// Whether the TPM is open.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.begun
    }

    /// Whether it was not opened yet, and nothing is known to be wrong.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        !self.begun && self.trouble.is_none()
    }

    /// Whether the TPM is open and well.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.begun && self.trouble.is_none()
    }

    /// What is wrong, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// Steps in the last 24 hours of the TPM's clock.
    #[must_use]
    pub fn steps_in_last_day(&mut self, now: BootTime) -> usize {
        self.steps.in_last_day(now)
    }

    /// The TPM was given an order.
    pub fn ordered(&mut self, now: BootTime) {
        self.ordered = Some(now);
    }

    /// It has answered.
    pub fn answered(&mut self, now: BootTime) {
        if let Some(since) = self.ordered.take() {
            self.used.at(now).busy_ns += now.0.saturating_sub(since.0);
        }
    }

    /// Acts in the last hour.
    #[must_use]
    pub fn acts_in_last_hour(&self, now: BootTime) -> u64 {
        self.used.in_last_hour(now).map(|slot| slot.acts).sum()
    }

    /// Nanoseconds in which the TPM had an order, of those that it answered in the last hour. An answer is counted when the
    /// pipeline takes it, which makes it a little longer than it was.
    #[must_use]
    pub fn busy_in_last_hour(&self, now: BootTime) -> u64 {
        self.used.in_last_hour(now).fold(0, |sum, slot| sum.saturating_add(slot.busy_ns))
    }
}

fn later(at: BootTime, ns: u64) -> BootTime {
    BootTime(at.0.saturating_add(ns))
}

/// Which steps were in the last 24 hours, by the TPM's own clock: nobody on the host can put it forward or back, and it
/// goes on across restarts. It stands still while the host is off, which makes the day longer and the cap stricter.
#[derive(Debug, Default)]
struct Steps {
    clocks: VecDeque<u64>,
    /// The TPM's clock at a moment.
    read: Option<(BootTime, u64)>,
}

impl Steps {
    fn in_last_day(&mut self, now: BootTime) -> usize {
        let Some((at, clock)) = self.read else { return self.clocks.len() };
        let clock = clock.saturating_add(now.0.saturating_sub(at.0) / 1_000_000);
        // A clock ahead of the present one is of before a clear: it counts until it is passed, which only makes fewer steps.
        while self.clocks.front().is_some_and(|step| step.saturating_add(DAY_MS) <= clock) {
            self.clocks.pop_front();
        }
        self.clocks.len()
    }
}

/// What was asked of the TPM in one minute.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    acts: u64,
    busy_ns: u64,
}

/// The same for each minute of the last hour.
#[derive(Debug)]
struct Use {
    slots: [Slot; SLOTS],
    /// Number of the present minute since boot.
    slot: u64,
}

impl Default for Use {
    fn default() -> Self {
        Self { slots: [Slot::default(); SLOTS], slot: 0 }
    }
}

impl Use {
    /// The present minute, after those that passed were emptied. Time that went back stays in the newest.
    fn at(&mut self, now: BootTime) -> &mut Slot {
        let slot = now.0 / SLOT_NS;
        for _ in 0..slot.saturating_sub(self.slot).min(SLOTS as u64) {
            self.slots.rotate_right(1);
            self.slots[0] = Slot::default();
        }
        self.slot = self.slot.max(slot);
        &mut self.slots[0]
    }

    /// Newest first.
    fn in_last_hour(&self, now: BootTime) -> impl Iterator<Item = &Slot> {
        let passed = (now.0 / SLOT_NS).saturating_sub(self.slot);
        self.slots.iter().take(SLOTS.saturating_sub(usize::try_from(passed).unwrap_or(SLOTS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace =
        Pace { anchor_ns: 60 * SECOND, between_ns: 2 * SECOND, counter_ns: 3_600 * SECOND, steps_per_day_max: 48 };

    fn at(seconds: u64) -> BootTime {
        BootTime(1_000_000 * SECOND + seconds * SECOND)
    }

    fn size(size: u64) -> TreeSize {
        TreeSize(size)
    }

    /// Open, the step of the start made.
    fn begun() -> Schedule {
        let mut schedule = Schedule::new(PACE, at(0));
        assert_eq!(schedule.next(at(0), None), Some(Act::Begin));
        schedule.begun(at(0), true, 5_000, Vec::new());
        assert_eq!(schedule.next(at(0), None), Some(Act::Step));
        schedule.stepped(at(0), 5_100);
        schedule
    }

    fn anchor(cause: AnchorCause) -> Option<Act> {
        Some(Act::Anchor { cause, nonce: None })
    }

    #[test]
    fn a_start_begins_steps_and_anchors_in_that_order_and_one_at_a_time() {
        let mut schedule = Schedule::new(PACE, at(0));
        schedule.want(AnchorCause::Start, size(9));
        assert_eq!(schedule.next(at(0), Some(size(9))), Some(Act::Begin));
        assert_eq!(schedule.next(at(1), Some(size(9))), None, "one at a time");
        schedule.begun(at(2), true, 0, Vec::new());
        assert_eq!(schedule.next(at(2), Some(size(9))), Some(Act::Step));
        schedule.stepped(at(3), 10);
        assert_eq!(schedule.next(at(3), Some(size(8))), None, "not yet covered by a checkpoint");
        assert_eq!(schedule.next(at(3), Some(size(9))), anchor(AnchorCause::Start));
    }

    #[test]
    fn a_thousand_sessions_a_second_make_no_more_anchors_than_one_in_two_seconds() {
        let mut schedule = begun();
        let mut acts = 0;
        let mut sealed = 100;
        let mut done_at = None;
        // A TPM that takes 300 ms for a quote, and a minute in milliseconds.
        for millisecond in 0..60_000 {
            let now = BootTime(at(10).0 + millisecond * 1_000_000);
            sealed += 2;
            schedule.want(AnchorCause::SessionStart, size(sealed));
            schedule.want(AnchorCause::SessionEnd, size(sealed));
            if done_at.is_some_and(|done| now >= done) {
                schedule.anchored();
                done_at = None;
            }
            // A checkpoint is up to a second old, but covers what a wish of before it named.
            if let Some(act) = schedule.next(now, Some(size(sealed))) {
                assert_eq!(Some(act), anchor(AnchorCause::SessionStart));
                acts += 1;
                done_at = Some(BootTime(now.0 + 300 * 1_000_000));
            }
        }
        assert_eq!(acts, 30, "one each two seconds");
        assert_eq!(schedule.acts_in_last_hour(at(70)), 32);
    }

    /// What a TPM was made to do in a day by sessions that open without pause.
    struct Day {
        anchors: u64,
        /// When it was stepped.
        steps: Vec<u64>,
        capped: u64,
        busy_ns_hour: u64,
    }

    /// A day in turns of 100 ms, in each of which a hundred sessions begin, act at high risk and end. `takes`: ms for an
    /// order; `restarts`: seconds between two starts of the agent, which each want a step.
    fn day(pace: Pace, takes: u64, restarts: Option<u64>) -> Day {
        const TURN_MS: u64 = 100;
        let now_at = |ms: u64| BootTime(at(0).0 + ms * 1_000_000);
        let mut day = Day { anchors: 0, steps: Vec::new(), capped: 0, busy_ns_hour: 0 };
        let mut schedule = Schedule::new(pace, now_at(0));
        let (mut sealed, mut done) = (0, None);
        for ms in (0..DAY_MS / TURN_MS).map(|turn| turn * TURN_MS) {
            let now = now_at(ms);
            if restarts.is_some_and(|every| ms > 0 && ms % (every * 1_000) == 0) {
                // What the log says of the steps so far is all that a start knows.
                let steps = schedule.step_clocks();
                schedule = Schedule::new(pace, now);
                assert_eq!(schedule.next(now, Some(size(sealed))), Some(Act::Begin));
                schedule.begun(now, true, ms, steps);
                done = None;
            }
            for cause in [AnchorCause::SessionStart, AnchorCause::Act, AnchorCause::SessionEnd] {
                sealed += 100;
                schedule.want(cause, size(sealed));
            }
            if let Some((act, at)) = done.take_if(|(_, at)| now >= *at) {
                schedule.answered(at);
                match act {
                    Act::Begin => schedule.begun(now, true, ms, Vec::new()),
                    Act::Step => schedule.stepped(now, ms),
                    _ => schedule.anchored(),
                }
            }
            match schedule.next(now, Some(size(sealed))) {
                None => continue,
                Some(Act::Capped) => day.capped += 1,
                Some(act) => {
                    assert!(done.is_none(), "one at a time");
                    match act {
                        Act::Step => day.steps.push(ms),
                        Act::Anchor { .. } => day.anchors += 1,
                        _ => {}
                    }
                    schedule.ordered(now);
                    done = Some((act, now_at(ms + takes)));
                }
            }
        }
        day.busy_ns_hour = schedule.busy_in_last_hour(now_at(DAY_MS));
        day
    }

    #[test]
    fn a_thousand_sessions_a_second_for_a_day_leave_the_tpm_most_of_its_time() {
        let Day { anchors, steps, capped, busy_ns_hour } = day(PACE, 300, None);
        // One in two seconds, but for the steps that two of them waited for.
        assert!((43_150..=43_200).contains(&anchors), "{anchors}");
        assert_eq!((steps.len(), capped), (24, 0), "by time alone, whatever the sessions do");
        assert!((530..=545).contains(&(busy_ns_hour / SECOND)), "300 ms in each 2 s: {busy_ns_hour}");
    }

    #[test]
    fn a_tpm_that_is_slower_than_the_pace_is_asked_one_thing_at_a_time() {
        let Day { anchors, steps, .. } = day(PACE, 5_000, None);
        assert!((17_200..=17_280).contains(&anchors), "{anchors}");
        assert_eq!(steps.len(), 24);
    }

    #[test]
    fn restarts_without_pause_do_not_step_beyond_the_cap() {
        let Day { steps, capped, .. } = day(PACE, 300, Some(20));
        assert_eq!(steps.len(), 48, "the cap");
        assert!(capped > 4_000, "each start after that: {capped}");
        assert!(steps.last().is_some_and(|last| *last < 20 * 60 * 1_000), "the first starts had them all: {steps:?}");
    }

    #[test]
    fn what_was_asked_an_hour_ago_is_not_counted() {
        let mut used = Use::default();
        used.at(at(0)).acts += 1;
        used.at(at(59 * 60)).acts += 2;
        let acts = |used: &Use, seconds| used.in_last_hour(at(seconds)).map(|slot| slot.acts).sum::<u64>();
        assert_eq!((acts(&used, 59 * 60), acts(&used, 60 * 60), acts(&used, 119 * 60)), (3, 2, 0));
        used.at(at(200 * 60)).acts += 4;
        assert_eq!(acts(&used, 200 * 60), 4);
    }

    #[test]
    fn anchors_come_by_time_and_any_anchor_puts_the_next_off() {
        let mut schedule = begun();
        assert_eq!(schedule.next(at(59), Some(size(1))), None);
        assert_eq!(schedule.next(at(60), Some(size(1))), anchor(AnchorCause::Interval));
        schedule.anchored();
        schedule.want(AnchorCause::Act, size(2));
        assert_eq!(schedule.next(at(61), Some(size(2))), None, "too close to the one before");
        assert_eq!(schedule.next(at(100), Some(size(2))), anchor(AnchorCause::Act));
        schedule.anchored();
        assert_eq!(schedule.next(at(159), Some(size(2))), None);
        assert_eq!(schedule.next(at(160), Some(size(2))), anchor(AnchorCause::Interval));
    }

    #[test]
    fn a_stop_does_not_wait_for_the_pace() {
        let mut schedule = begun();
        schedule.want(AnchorCause::SessionEnd, size(5));
        assert_eq!(schedule.next(at(10), Some(size(5))), anchor(AnchorCause::SessionEnd));
        schedule.anchored();
        schedule.want(AnchorCause::SessionEnd, size(6));
        schedule.want(AnchorCause::Stop, size(7));
        assert_eq!(schedule.next(at(10), Some(size(6))), None, "not covered");
        assert_eq!(schedule.next(at(10), Some(size(7))), anchor(AnchorCause::Stop));
    }

    #[test]
    fn a_nonce_does_not_wait_for_the_pace_and_grants_what_else_was_wanted() {
        let mut schedule = begun();
        schedule.want(AnchorCause::SessionEnd, size(5));
        assert_eq!(schedule.next(at(10), Some(size(5))), anchor(AnchorCause::SessionEnd));
        schedule.anchored();
        schedule.want(AnchorCause::SessionEnd, size(6));
        let nonce = |ticket| Nonce { ticket, bytes: vec![7; 16] };
        assert!(schedule.ask(nonce(1), size(6)) && schedule.ask(nonce(2), size(6)));
        assert_eq!(schedule.next(at(10), Some(size(5))), None, "not covered");
        let first = Act::Anchor { cause: AnchorCause::Nonce, nonce: Some(nonce(1)) };
        assert_eq!(schedule.next(at(11), Some(size(6))), Some(first));
        schedule.anchored();
        let second = Act::Anchor { cause: AnchorCause::Nonce, nonce: Some(nonce(2)) };
        assert_eq!(schedule.next(at(11), Some(size(6))), Some(second));
        schedule.anchored();
        assert_eq!(schedule.next(at(20), Some(size(6))), None, "the session's end is covered");
        for ticket in 0..NONCES_MAX as u64 {
            assert!(schedule.ask(nonce(ticket), size(6)));
        }
        assert!(!schedule.ask(nonce(99), size(6)));
        assert_eq!(schedule.take_nonces().len(), NONCES_MAX);
    }

    #[test]
    fn the_days_cap_holds_by_the_tpms_clock_across_a_restart() {
        let mut schedule = Schedule::new(Pace { steps_per_day_max: 3, ..PACE }, at(0));
        schedule.next(at(0), None);
        // Two hours and a minute after the oldest of three steps of the last day; one is older.
        let clock = 100_000_000;
        schedule.begun(at(0), true, clock, vec![clock - DAY_MS, clock - DAY_MS + 60_000, clock - 2, clock - 1]);
        assert_eq!(schedule.steps_in_last_day(at(0)), 3);
        assert_eq!(schedule.next(at(0), None), Some(Act::Capped));
        assert_eq!(schedule.next(at(59), None), None, "said once");
        assert_eq!(schedule.steps_in_last_day(at(61)), 2, "a day has passed for one of them");
        assert_eq!(schedule.next(at(3_600), None), Some(Act::Step));
        schedule.stepped(at(3_600), clock + 3_600_000);
        schedule.step_soon(at(3_601));
        assert_eq!(schedule.next(at(3_601), None), Some(Act::Capped));
    }

    #[test]
    fn trouble_is_told_once_and_retried_ever_more_slowly() {
        let mut schedule = Schedule::new(PACE, at(0));
        let mut now = at(0);
        let mut pauses = Vec::new();
        for round in 0..9 {
            assert_eq!(schedule.next(now, None), Some(Act::Begin), "{round}");
            let told = schedule.failed(now, Trouble::Absent);
            assert_eq!(told.is_some(), round == 0);
            let mut pause = 0;
            while schedule.retry_at.is_some_and(|at| now < at) {
                now = later(now, SECOND);
                pause += 1;
            }
            pauses.push(pause);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        schedule.next(now, None);
        assert_eq!(schedule.failed(now, Trouble::LockedOut), Some(Trouble::LockedOut), "another trouble is told");
        now = later(now, 60 * SECOND);
        schedule.next(now, None);
        schedule.begun(now, false, 0, Vec::new());
        assert!(!schedule.is_ready() && !schedule.has_counter(), "it has signed nothing yet");
        assert_eq!(schedule.next(now, Some(size(1))), anchor(AnchorCause::Interval), "tried at once");
        assert_eq!(schedule.failed(now, Trouble::LockedOut), None);
        now = later(now, 60 * SECOND);
        schedule.next(now, None);
        schedule.begun(now, false, 0, Vec::new());
        schedule.next(now, Some(size(1)));
        schedule.anchored();
        assert!(schedule.is_ready());
        assert_eq!(schedule.failed(now, Trouble::LockedOut), Some(Trouble::LockedOut), "it was well in between");
    }

    #[test]
    fn a_tpm_that_hangs_is_called_slow_once_and_is_given_nothing_else() {
        let mut schedule = begun();
        schedule.want(AnchorCause::Act, size(1));
        assert!(schedule.next(at(10), Some(size(1))).is_some());
        assert!(!schedule.is_slow(at(39)));
        assert!(schedule.is_slow(at(40)) && !schedule.is_slow(at(41)));
        assert_eq!((schedule.trouble(), schedule.next(at(10_000), Some(size(9)))), (Some(Trouble::Slow), None));
        schedule.anchored();
        assert!(schedule.is_ready());
    }

    #[test]
    fn a_reset_begins_anew_at_once_but_not_again_and_again() {
        let mut schedule = begun();
        schedule.want(AnchorCause::Act, size(1));
        schedule.next(at(10), Some(size(1)));
        schedule.reset(at(10));
        assert_eq!(schedule.next(at(10), Some(size(1))), Some(Act::Begin));
        schedule.reset(at(10));
        assert_eq!(schedule.next(at(10), Some(size(1))), None);
        assert_eq!(schedule.next(at(13), Some(size(1))), Some(Act::Begin));
    }

    #[test]
    fn a_pace_without_steps_never_steps() {
        let mut schedule = Schedule::new(Pace { steps_per_day_max: 0, ..PACE }, at(0));
        schedule.next(at(0), None);
        schedule.begun(at(0), true, 0, Vec::new());
        assert_eq!(schedule.next(at(9_999), None), None);
    }
}
