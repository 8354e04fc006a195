//! What a new run takes over from the log: which numbers of a still living capture are recorded, and which sessions
//! are still open.
//!
//! Always run, also after an orderly stop. The log is the only memory: nothing else is kept between runs.

use std::collections::HashMap;
use std::ops::ControlFlow;

use agent_evidence::record::{
    Body, BootTime, CgroupOp, Class, EntryIndex, Gap, GapCause, Heartbeat, ProcessCookie, SessionState, WallTime,
    decode,
};

use super::accounting::{Novelty, Stream};
use super::error::PipelineError;
use super::recorder::Recorder;
use super::sessions::{CommandState, EndReason, Session, Totals};
use crate::log::Recovery;

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
        let Some(recovery) = recovery else { return Ok(()) };
        let tail = self.read_tail()?;
        let open = self.log.sessions();
        self.append_now(None, None, Body::Recovered(recovery.record()))?;
        self.resume_numbers(&tail)?;
        let same_boot = tail.boot_id.as_deref() == Some(self.settings.boot_id.as_bytes());
        self.resume_sessions(&open, same_boot)
    }

    /// Reads the log backwards until every counter of this capture is known to be settled before.
    fn read_tail(&mut self) -> Result<Tail, PipelineError> {
        let capture = self.capture_id;
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
                Body::Gap(gap) if gap.capture_id == capture && !tail.stopped => tail.note_gap(gap),
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
        for (stream, (settled, next, dropped)) in &tail.counters {
            // As many holes as were open then may still be explained by drops counted then.
            self.accounting.resume(*stream, *settled, dropped.saturating_sub(next.saturating_sub(*settled)));
        }
        for number in &tail.numbers {
            let _seen: Novelty = self.accounting.note(*number);
        }
        for (stream, first, last, by_drops) in &tail.gaps {
            self.accounting.resume_gap(*stream, *first, *last, *by_drops);
        }
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
                        task: body.claims.task.as_ref().map(text),
                        labels: body
                            .claims
                            .labels
                            .iter()
                            .map(|label| (text(&label.name), text(&label.value)))
                            .collect(),
                        uid: body.uid,
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

impl Tail {
    fn note_gap(&mut self, gap: &Gap<'_>) {
        for range in gap.ranges.iter() {
            let stream = Stream { cpu: range.cpu, class: range.class };
            self.gaps.push((stream, range.first, range.last, gap.cause == GapCause::RingFull));
        }
    }
}
