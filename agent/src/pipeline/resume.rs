//! What a new run takes over from the log: which numbers of a still living capture are recorded, and which sessions
//! are still open.
//!
//! Always run, also after an orderly stop. The log is the only memory: nothing else is kept between runs.

use std::collections::HashMap;
use std::ops::ControlFlow;

use agent_evidence::record::{
    Body, BootTime, CgroupOp, Class, EntryIndex, Gap, GapCause, Heartbeat, Id128, List, NumberRange, ProcessCookie,
    SessionState, Value, WallTime, decode,
};

use super::accounting::{Accounting, Hole, Novelty, Reading, Stream};
use super::error::PipelineError;
use super::losses::RANGES_PER_GAP_MAX;
use super::recorder::Recorder;
use super::sessions::{CommandState, EndReason, Session, Totals};
use super::{Readings, class_of};
use crate::log::Recovery;
use crate::probe::Counters;

/// What one pass backwards over the log's end finds.
#[derive(Debug, Default)]
struct Tail {
    /// Settled prefix and drops of each counter, from the newest record that gives them.
    counters: HashMap<Stream, (u64, u64, u64)>,
    numbers: Vec<agent_evidence::record::KernelNumber>,
    gaps: Vec<(Stream, u64, u64, bool)>,
    boot_id: Option<Vec<u8>>,
    /// Everything further back is settled.
    stopped: bool,
    /// Whether a run of this capture is in the log.
    known: bool,
}

/// An `issued` entry, as far as the registry needs it.
#[derive(Debug)]
struct IssuedBefore {
    id: String,
    identity: String,
    task: Option<String>,
    labels: Vec<(String, String)>,
    uid: u32,
    cgroup_id: u64,
    wall: WallTime,
    expires: Option<BootTime>,
}

impl Recorder {
    /// Takes over what earlier runs left, and records `recovered`.
    pub(super) fn take_over(&mut self, recovery: Option<Recovery>) -> Result<(), PipelineError> {
        let tail = self.read_tail(self.capture_id)?;
        self.took_over_unknown = self.probe.report().resumed && !tail.known;
        let Some(recovery) = recovery else { return Ok(()) };
        let open = self.log.sessions();
        self.append_now(None, None, Body::Recovered(recovery.record()))?;
        self.record_removed_sets()?;
        self.resume_numbers(&tail)?;
        let same_boot = tail.boot_id.as_deref() == Some(self.settings.boot_id.as_bytes());
        self.resume_sessions(&open, same_boot)
    }

    /// Events that a set of another version of the kernel side still held went with it: says which numbers. What the
    /// set itself could not tell any more shows as numbers that its last record states and no entry has.
    fn record_removed_sets(&mut self) -> Result<(), PipelineError> {
        for set in self.probe.report().removed.clone() {
            let (Some(id), Some(counters)) = (set.capture_id, set.counters) else { continue };
            let capture = Id128(id);
            let tail = self.read_tail(capture)?;
            if !tail.known {
                // Of another log: its numbers mean nothing here.
                continue;
            }
            let mut accounting = tail.accounting();
            let holes = settle_all(&mut accounting, &readings(&counters), self.clock.boot());
            self.record_not_observed(capture, &holes)?;
        }
        Ok(())
    }

    /// Numbers that were given before this log knew of the capture, and whose events nobody can read any more, are
    /// of a time that this log does not observe.
    pub(super) fn record_numbers_before(&mut self) -> Result<(), PipelineError> {
        if !self.took_over_unknown {
            return Ok(());
        }
        let readings = self.read_counters()?;
        let now = self.clock.boot();
        let holes = settle_all(&mut self.accounting, &readings, now);
        self.record_not_observed(self.capture_id, &holes)
    }

    fn record_not_observed(&mut self, capture_id: Id128, holes: &[Hole]) -> Result<(), PipelineError> {
        let ranges: Vec<NumberRange> = holes.iter().flat_map(Hole::number_ranges).collect();
        for ranges in ranges.chunks(RANGES_PER_GAP_MAX) {
            let gap = Gap {
                cause: GapCause::NotObserved,
                capture_id,
                ranges: List::from(ranges),
                count: ranges.iter().map(|range| range.last - range.first + 1).sum(),
                shares: List::default(),
                from: None,
                to: None,
            };
            self.append_now(None, None, Body::Gap(gap))?;
        }
        Ok(())
    }

    /// Reads the log backwards until every counter of this capture is known to be settled before.
    fn read_tail(&mut self, capture: Id128) -> Result<Tail, PipelineError> {
        let mut tail = Tail::default();
        self.log.entries_back(|_, bytes| {
            // Recovery has decoded what it replays; an entry that cannot be read here is found by it or a verifier.
            let Ok(record) = decode(bytes) else { return ControlFlow::Break(()) };
            if let Some(number) = record.draft.kernel
                && !tail.stopped
            {
                tail.numbers.push(number);
            }
            match record.body() {
                Body::Gap(gap) if gap.capture_id == capture && !tail.stopped => {
                    tail.note_ranges(&gap.ranges, gap.cause == GapCause::RingFull);
                }
                Body::FileFolded(folded) if !tail.stopped => tail.note_ranges(&folded.ranges, false),
                Body::Heartbeat(Heartbeat { capture_id, counters, .. })
                | Body::Disarmed(agent_evidence::record::Disarmed { capture_id, counters, .. })
                    if *capture_id == capture && !counters.is_empty() =>
                {
                    let mut settled = true;
                    for counter in counters.iter() {
                        let stream = Stream { cpu: counter.cpu, class: counter.class };
                        tail.counters.entry(stream).or_insert((counter.settled, counter.next, counter.dropped));
                        settled &= counter.settled >= counter.next;
                    }
                    // Numbers above a settled prefix stand before the record that gives it: then read on.
                    if settled && tail.boot_id.is_some() {
                        return ControlFlow::Break(());
                    }
                    if settled {
                        tail.stopped = true;
                    }
                }
                Body::Armed(armed) => {
                    tail.known |= armed.capture_id == capture;
                    tail.boot_id.get_or_insert_with(|| armed.boot_id.as_bytes().to_vec());
                    let other = armed.capture_id != capture || !armed.resumed;
                    if other || tail.stopped {
                        return ControlFlow::Break(());
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        Ok(tail)
    }

    /// Numbers recorded before are recognized when they are read again, and holes are holes since then.
    fn resume_numbers(&mut self, tail: &Tail) -> Result<(), PipelineError> {
        if !self.probe.report().resumed {
            return Ok(());
        }
        self.accounting = tail.accounting();
        let accounted: HashMap<Stream, u64> =
            self.accounting.settled().into_iter().map(|(stream, _, dropped)| (stream, dropped)).collect();
        let readings = self.read_counters()?;
        let losses = self.read_losses()?;
        for class in Class::ALL {
            let open: u64 = readings
                .iter()
                .filter(|(stream, _)| stream.class == class)
                .map(|(stream, reading)| reading.dropped.saturating_sub(accounted.get(stream).copied().unwrap_or(0)))
                .sum();
            let of_class: Vec<_> = losses.iter().filter(|loss| loss.class == class).collect();
            for loss in &of_class {
                // Whose the losses between the runs were can be said when only one scope ever lost; otherwise the
                // gap names nobody, which is less than guessing and not wrong.
                let reported = if of_class.len() == 1 { loss.count.saturating_sub(open) } else { loss.count };
                self.losses.resume(class, loss.scope, reported);
            }
        }
        Ok(())
    }

    /// Sessions of this boot whose cgroup is still there go on; the others have ended with the host or behind the
    /// daemon's back.
    fn resume_sessions(&mut self, open: &[SessionState], same_boot: bool) -> Result<(), PipelineError> {
        let Some(first) = open.iter().map(|state| state.session).min() else { return Ok(()) };
        let mut issued: HashMap<EntryIndex, IssuedBefore> = HashMap::new();
        let mut totals: HashMap<EntryIndex, Totals> = HashMap::new();
        let mut away: HashMap<EntryIndex, HashMap<ProcessCookie, u32>> = HashMap::new();
        let is_open = |index: EntryIndex| open.iter().any(|state| state.session == index);
        self.log.entries_from(first, |index, bytes| {
            let Ok(record) = decode(bytes) else { return ControlFlow::Break(()) };
            if let Body::Issued(body) = record.body()
                && is_open(index)
            {
                let text = |text: &agent_evidence::record::Text<'_>| text.as_str().unwrap_or_default().to_owned();
                issued.insert(
                    index,
                    IssuedBefore {
                        id: text(&body.id),
                        identity: text(&body.identity),
                        task: body.claims.task.as_ref().and_then(Value::clear).map(text),
                        labels: body
                            .claims
                            .labels
                            .iter()
                            .map(|label| (text(&label.name), label.value.clear().map(text).unwrap_or_default()))
                            .collect(),
                        // Nobody's: no user id is this one (setresuid(2) takes it for "leave as it is").
                        uid: body.uid.unwrap_or(u32::MAX),
                        cgroup_id: body.cgroup.0,
                        wall: record.draft.wall,
                        expires: body.ttl.map(|ttl| BootTime(record.draft.boot.0.saturating_add(ttl.0))),
                    },
                );
            }
            if let Some(session) = record.draft.session.filter(|session| is_open(*session)) {
                totals.entry(session).or_default().count(record.body().kind());
            }
            match record.body() {
                Body::Cgroup(moved) if moved.op == CgroupOp::Move => {
                    let session =
                        issued.iter().find(|(_, session)| Some(session.cgroup_id) == moved.scope_after.map(|id| id.0));
                    if let (Some((entry, session)), Some(process), Some(tgid)) =
                        (session, moved.moved, moved.moved_tgid)
                    {
                        let processes = away.entry(*entry).or_default();
                        if moved.id.0 == session.cgroup_id {
                            processes.remove(&process);
                        } else {
                            processes.insert(process, tgid);
                        }
                    }
                }
                Body::Exit(_) => {
                    if let Some(process) = record.draft.process {
                        for processes in away.values_mut() {
                            processes.remove(&process);
                        }
                    }
                }
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        for (entry, before) in issued {
            let cgroup = same_boot.then(|| self.session_cgroups.reopen(&before.id, before.cgroup_id)).flatten();
            let gone = cgroup.is_none();
            if !gone {
                self.probe.scope_set(before.cgroup_id, before.cgroup_id, self.settings.families)?;
            }
            self.sessions.insert(Session {
                id: before.id,
                entry,
                identity: before.identity,
                task: before.task,
                labels: before.labels,
                uid: before.uid,
                issued_wall: before.wall,
                expires: before.expires,
                cgroup_id: before.cgroup_id,
                cgroup,
                // Its `affiant run` lost the connection with the earlier daemon: nobody will tell how it ended.
                command: CommandState::Abandoned,
                token: None,
                escaped: if gone { HashMap::new() } else { away.remove(&entry).unwrap_or_default() },
                totals: totals.remove(&entry).unwrap_or_default(),
                expiring: false,
            });
            if gone {
                self.end_session(before.cgroup_id, EndReason::HostStop, self.clock.boot())?;
            }
        }
        Ok(())
    }
}

/// The kernel side's counters by stream; classes of another version are left out.
pub(super) fn readings(counters: &Counters) -> Readings {
    counters
        .by_cpu
        .iter()
        .filter_map(|counter| {
            let stream = Stream { cpu: counter.cpu, class: class_of(counter.class)? };
            Some((stream, Reading { generated: counter.generated, dropped: counter.dropped }))
        })
        .collect()
}

/// Every hole below these readings, nothing being waited for.
fn settle_all(accounting: &mut Accounting, readings: &[(Stream, Reading)], now: BootTime) -> Vec<Hole> {
    readings.iter().filter_map(|(stream, reading)| accounting.settle(*stream, *reading, now, true)).collect()
}

impl Tail {
    /// What is recorded or accounted for, as far as this tail tells.
    fn accounting(&self) -> Accounting {
        let mut accounting = Accounting::default();
        for (stream, (settled, next, dropped)) in &self.counters {
            // As many holes as were open then may still be explained by drops counted then.
            accounting.resume(*stream, *settled, dropped.saturating_sub(next.saturating_sub(*settled)));
        }
        for number in &self.numbers {
            let _seen: Novelty = accounting.note(*number);
        }
        for (stream, first, last, by_drops) in &self.gaps {
            accounting.resume_gap(*stream, *first, *last, *by_drops);
        }
        accounting
    }

    fn note_ranges(&mut self, ranges: &List<'_, NumberRange>, by_drops: bool) {
        for range in ranges.iter() {
            let stream = Stream { cpu: range.cpu, class: range.class };
            self.gaps.push((stream, range.first, range.last, by_drops));
        }
    }
}
