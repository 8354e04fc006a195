//! Turns events, commands and losses into entries: the owner of the log, the sessions and the attribution.
//!
//! Fed by [`super::Pipeline`], which owns the rings; nothing here waits.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use agent_evidence::record::{
    AnchorCause, Body, BootTime, CgroupId, DisarmCause, Draft, EntryIndex, Gap, GapCause, Id128, Identified, Label,
    List, NumberRange, ProcessCookie, Text, Unknown, WallTime, Workload,
};

use super::accounting::{Accounting, Novelty, Reading, Stream};
use super::attest::Attestation;
use super::attribution::{Attribution, Description};
use super::cgroupfs::{SessionCgroup, SessionCgroups, name_of_child};
use super::clock::Clock;
use super::error::PipelineError;
use super::fold::{Folds, Of};
use super::handle::Input;
use super::losses::{LossReading, Losses};
use super::measured::Measured;
use super::resume::readings;
use super::retention::Keeper;
use super::sessions::{EndReason, Sessions};
use super::storage::Room;
use super::{Parts, Readings, Settings, class_of, translate};
use crate::event::{self, DecodeError, Event, Header};
use crate::log::{Due, Log, LogError, Now};
use crate::probe::{Probe, TICK_NS, own_start_ticks};
use crate::workload::{CgroupIndex, Owner};

/// Undecodable messages of one batch that are told one by one in the traces; the rest is only counted.
const TOLD_DECODE_FAILURES_MAX: u64 = 8;

/// Most processes whose start is remembered; the kernel's own limit on a small host is 32,768.
const PROCESSES_MAX: usize = 65_536;

/// See the module.
pub(super) struct Recorder {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) log: Log,
    pub(super) probe: Probe,
    pub(super) cgroups: CgroupIndex,
    /// Where the cgroup file system is mounted.
    cgroup_mount: PathBuf,
    pub(super) session_cgroups: SessionCgroups,
    pub(super) attribution: Attribution,
    pub(super) sessions: Sessions,
    pub(super) accounting: Accounting,
    pub(super) losses: Losses,
    pub(super) capture_id: Id128,
    /// Answers that wait for what was appended to be durable.
    pub(super) waiting: Vec<Box<dyn FnOnce() + Send>>,
    pub(super) armed_at: BootTime,
    /// Wall time minus boot time, read once per batch.
    wall_offset: u64,
    decode_failures: u64,
    /// Whether the kernel side had run for another log before.
    pub(super) took_over_unknown: bool,
    /// Cgroups of ended sessions in which a process is left.
    pub(super) left_over: Vec<(u64, SessionCgroup)>,
    /// Paths of the event at hand, in reading order.
    paths: translate::Paths,
    /// Processes whose start was observed, to name who asks over the control socket.
    processes: HashMap<u32, ProcessCookie>,
    /// Room on the disk, and what is left out for want of it.
    pub(super) room: Room,
    /// The log and the TPM; `None` without one.
    pub(super) attest: Option<Attestation>,
    /// The logs of what was measured; `None` where they are not kept.
    pub(super) measured: Option<Measured>,
    /// What goes of entries of long ago.
    pub(super) keeper: Keeper,
    /// Reads that are only counted, and are in no entry yet.
    folds: Folds,
    /// When this process started, as `/proc` tells it.
    own_start_ticks: Option<u64>,
}

/// Whose act it was: what goes into the common members of its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Session { entry: EntryIndex, scope: u64 },
    Workload(EntryIndex),
}

impl Recorder {
    pub(super) fn new(parts: Parts, cgroups: CgroupIndex, clock: Clock) -> (Self, Receiver<Input>) {
        let Parts { settings, log, probe, inputs, cgroup_mount, session_cgroups, sinks, recovery: _, tpm } = parts;
        let capture_id = Id128(probe.report().capture_id);
        let room = Room::new(settings.storage);
        let keeper = Keeper::new(settings.retention.clone(), sinks);
        let attribution = Attribution::new(settings.trust_domain.clone());
        let folds = Folds::new(settings.fold.clone());
        let mut recorder = Self {
            settings,
            clock,
            log,
            probe,
            cgroups,
            cgroup_mount,
            session_cgroups,
            attribution,
            sessions: Sessions::default(),
            accounting: Accounting::default(),
            losses: Losses::default(),
            capture_id,
            waiting: Vec::new(),
            armed_at: clock.boot(),
            wall_offset: 0,
            decode_failures: 0,
            took_over_unknown: false,
            left_over: Vec::new(),
            paths: translate::Paths::default(),
            processes: HashMap::new(),
            room,
            measured: tpm.as_ref().and_then(|parts| Measured::new(parts.measured_ns, clock.boot())),
            attest: tpm.map(|parts| Attestation::new(parts, clock.boot())),
            keeper,
            folds,
            own_start_ticks: own_start_ticks(),
        };
        recorder.read_clocks(clock);
        (recorder, inputs)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Notes how the two clocks stand to each other, so that an event's boot time gives its wall time without a
    /// call per event.
    pub(super) fn read_clocks(&mut self, clock: Clock) {
        self.wall_offset = clock.wall().0.saturating_sub(clock.boot().0);
    }

    /// Appends a record about the agent itself, at this moment.
    pub(super) fn append_now(
        &mut self,
        workload: Option<EntryIndex>,
        session: Option<EntryIndex>,
        body: Body<'_>,
    ) -> Result<EntryIndex, PipelineError> {
        let boot = self.clock.boot();
        let draft = Draft {
            wall: self.clock.wall(),
            boot,
            kernel: None,
            process: None,
            workload,
            session,
            verdict: None,
            body,
        };
        append(&mut self.log, &draft)
    }

    /// Whether the cgroup of this message is not in the tree, so that the critical ring should be read first.
    pub(super) fn is_strange(&self, header: &Header<'_>) -> bool {
        let cgroup = if header.scope_id == 0 { header.cgroup_id } else { header.scope_id };
        self.sessions.by_scope(cgroup).is_none()
            && self.attribution.known(cgroup).is_none()
            && self.cgroups.get(cgroup).is_none()
    }

    /// Records one message of a ring.
    pub(super) fn take(&mut self, message: &[u8]) -> Result<(), PipelineError> {
        match event::decode(message) {
            Ok(event) => self.record(&event),
            Err(error) => self.refuse(message, error),
        }
    }

    /// The kernel side wrote something that this version cannot read. Its number, where that can be read, becomes a
    /// gap; else it stays a hole and becomes an unexplained one. Nothing is guessed from the rest.
    pub(super) fn refuse(&mut self, message: &[u8], error: DecodeError) -> Result<(), PipelineError> {
        self.decode_failures = self.decode_failures.saturating_add(1);
        if self.decode_failures <= TOLD_DECODE_FAILURES_MAX {
            tracing::error!(%error, bytes = message.len(), "a message of the kernel side cannot be read");
        }
        let Some(number) = event::number_of(message) else { return Ok(()) };
        if self.accounting.note(number) == Novelty::Repeat {
            return Ok(());
        }
        let ranges = [NumberRange { cpu: number.cpu, class: number.class, first: number.seq, last: number.seq }];
        let gap = Gap {
            cause: GapCause::Decode,
            capture_id: self.capture_id,
            ranges: List::from(ranges.as_slice()),
            count: 1,
            shares: List::default(),
            from: None,
            to: None,
        };
        self.append_now(None, None, Body::Gap(gap))?;
        Ok(())
    }

    /// Records one event.
    pub(super) fn record(&mut self, event: &Event<'_>) -> Result<(), PipelineError> {
        let header = event.header();
        let number = header.number;
        if self.accounting.note(number) == Novelty::Repeat {
            return Ok(());
        }
        self.name_cgroup(event);
        self.follow_cgroups(event);
        if self.room.leaves_out(number.class) {
            self.room.skip(number, CgroupId(header.scope_id), header.boot);
            self.follow_processes(event);
            return self.follow_scope(event);
        }
        let whose = self.whose(header)?;
        let (workload, session) = match whose {
            Whose::Session { entry, .. } => (None, Some(entry)),
            Whose::Workload(entry) => (Some(entry), None),
        };
        let own;
        let event = if self.is_own(event.header()) {
            own = event.of_the_agent_itself();
            &own
        } else {
            event
        };
        self.paths.turn(event);
        if let Event::Open(open) = event
            && self.folds.takes(open, self.paths.path())
        {
            let scope = if let Whose::Session { scope, .. } = whose { scope } else { 0 };
            let of = Of { process: header.cookie(), session, scope, workload };
            self.folds.hold(of, open, self.paths.path());
            return if self.folds.is_crowded() { self.record_folded() } else { Ok(()) };
        }
        let body = translate::body(event, &self.paths);
        let grave = translate::is_grave(&body);
        if let Whose::Session { scope, .. } = whose
            && let Some(session) = self.sessions.by_scope_mut(scope)
        {
            session.totals.count(body.kind());
        }
        let wall = WallTime(header.boot.0.saturating_add(self.wall_offset));
        let process = Some(header.cookie());
        let draft =
            Draft { wall, boot: header.boot, kernel: Some(number), process, workload, session, verdict: None, body };
        append(&mut self.log, &draft)?;
        if grave {
            self.want_anchor(AnchorCause::Act);
        }
        self.follow_processes(event);
        self.follow_scope(event)
    }

    /// Whether this very process acted: number and start, since numbers are used again.
    fn is_own(&self, header: &Header<'_>) -> bool {
        header.tgid == std::process::id() && self.own_start_ticks == Some(header.start.0 / TICK_NS)
    }

    /// Finds the path of a cgroup that the kernel side could not read (lockdown=confidentiality), before it is removed
    /// from the tree. One that was removed already keeps its id for a name in the tree, so that what ran there is still
    /// attributed by its ancestors; its record has no path.
    fn name_cgroup(&mut self, event: &Event<'_>) {
        let (id, parent, path) = match event {
            Event::CgroupCreate(life) => (life.id, Some(life.parent_id), life.path),
            Event::CgroupRemove(life) => (life.id, None, life.path),
            Event::CgroupMove(moved) => (moved.to_id, None, moved.path),
            _ => return,
        };
        if !path.is_empty() {
            return;
        }
        let Some(parent) = parent else {
            let known = self.cgroups.get(id);
            return self.paths.name(known.map(|node| node.path.as_slice()).unwrap_or_default(), true);
        };
        // Without its parent nothing is known of it: the tree gets an empty path, which has no owner.
        let above = self.cgroups.get(parent).map(|node| node.path.as_slice()).unwrap_or_default();
        let found = name_of_child(&self.cgroup_mount, above, id);
        let is_found = found.is_some();
        let name = found.unwrap_or_else(|| format!("[id {id}]").into_bytes());
        let whole = [above.strip_suffix(b"/").unwrap_or(above), b"/", &name].concat();
        self.paths.name(&whole, is_found);
    }

    /// Keeps the cgroup tree as the kernel says it is, before the act is attributed.
    fn follow_cgroups(&mut self, event: &Event<'_>) {
        match event {
            Event::CgroupCreate(create) => {
                self.attribution.forget(create.id);
                let path = if create.path.is_empty() { self.paths.named() } else { create.path };
                if !self.cgroups.insert(create.id, path.to_vec()) {
                    tracing::error!(
                        id = create.id,
                        "too many cgroups: this one's processes will be recorded as unknown"
                    );
                }
            }
            Event::CgroupRemove(remove) => self.cgroups.remove(remove.id),
            _ => {}
        }
    }

    /// Keeps track of processes: who they are, and which were moved out of their session's cgroup.
    fn follow_processes(&mut self, event: &Event<'_>) {
        match event {
            Event::Fork(fork) => {
                if self.processes.len() < PROCESSES_MAX {
                    self.processes.insert(fork.child_tgid, fork.child());
                }
                self.follow_escape(fork.child_scope_id, fork.child_cgroup_id, fork.child(), fork.child_tgid);
            }
            Event::Exit(exit) => {
                self.processes.remove(&exit.header.tgid);
                self.sessions.no_longer_escaped(exit.header.scope_id, exit.header.cookie());
            }
            Event::CgroupMove(moved) => {
                self.follow_escape(moved.scope_after, moved.to_id, moved.process(), moved.moved_tgid);
            }
            _ => {}
        }
    }

    /// Notes whether a process of a scope is in the scope's cgroup or has left it.
    fn follow_escape(&mut self, scope: u64, cgroup: u64, process: ProcessCookie, tgid: u32) {
        if scope == 0 || self.is_within(cgroup, scope) {
            self.sessions.no_longer_escaped(scope, process);
        } else {
            if !self.sessions.escaped(scope, process, tgid) {
                tracing::error!(scope, "too many processes left a session's cgroup to follow each");
            }
            self.want_anchor(AnchorCause::Act);
        }
    }

    /// Whether a cgroup lies at or below the root of a scope, by the paths the kernel gave.
    fn is_within(&self, cgroup: u64, scope: u64) -> bool {
        if cgroup == scope {
            return true;
        }
        let (Some(inner), Some(outer)) = (self.cgroups.get(cgroup), self.cgroups.get(scope)) else { return false };
        inner.path.strip_prefix(outer.path.as_slice()).is_some_and(|rest| rest.first() == Some(&b'/'))
    }

    /// Puts a new container or configured unit in scope.
    fn follow_scope(&mut self, event: &Event<'_>) -> Result<(), PipelineError> {
        let Event::CgroupCreate(create) = event else { return Ok(()) };
        if create.scope_id != 0 || !self.is_wanted(create.id) {
            return Ok(());
        }
        self.probe.scope_set(create.id, create.id, self.settings.families)?;
        Ok(())
    }

    /// Whether configuration wants every event family of this cgroup.
    pub(super) fn is_wanted(&self, cgroup: u64) -> bool {
        match self.cgroups.get(cgroup).map(|node| &node.owner) {
            Some(Owner::Container { .. }) => self.settings.containers,
            Some(Owner::Systemd { unit, .. }) => self.settings.units.iter().any(|pattern| matches_glob(pattern, unit)),
            _ => false,
        }
    }

    /// The cookie of a process whose start was observed.
    pub(super) fn process(&self, tgid: u32) -> Option<ProcessCookie> {
        self.processes.get(&tgid).copied()
    }

    /// Whose act this is; writes the entry that says so when there is none yet.
    fn whose(&mut self, header: &Header<'_>) -> Result<Whose, PipelineError> {
        let scope = header.scope_id;
        if scope != 0
            && let Some(session) = self.sessions.by_scope(scope)
        {
            return Ok(Whose::Session { entry: session.entry, scope });
        }
        let cgroup = if scope == 0 { header.cgroup_id } else { scope };
        if let Some(entry) = self.attribution.known(cgroup) {
            return Ok(Whose::Workload(entry));
        }
        Ok(Whose::Workload(self.workload_of(cgroup)?))
    }

    /// The entry that describes the workload of a cgroup, written if there is none.
    pub(super) fn workload_of(&mut self, cgroup: u64) -> Result<EntryIndex, PipelineError> {
        let description = match self.attribution.describe(cgroup, &self.cgroups) {
            Ok(entry) => return Ok(entry),
            Err(description) => description,
        };
        if let Some(reason) = description.unknown {
            let unknown = Unknown {
                cgroup: CgroupId(cgroup),
                path: (!description.path.is_empty()).then(|| Text::new(&description.path).into()),
                reason: Text::from(reason),
            };
            let entry = self.append_now(None, None, Body::Unknown(unknown))?;
            self.attribution.described_unknown(cgroup, entry);
        }
        let entry = self.append_workload(&description)?;
        self.attribution.described(cgroup, entry, &self.cgroups);
        Ok(entry)
    }

    fn append_workload(&mut self, description: &Description) -> Result<EntryIndex, PipelineError> {
        let labels = description
            .labels
            .iter()
            .map(|(name, value)| Label { name: Text::from(*name), value: Text::new(value.as_bytes()).into() })
            .collect::<Vec<_>>();
        let workload = Workload {
            sort: description.sort,
            id: Text::new(description.id.as_bytes()),
            cgroup: CgroupId(description.cgroup_id),
            path: Text::new(&description.path),
            how: Text::from(description.how),
            labels: List::from(labels),
        };
        self.append_now(None, None, Body::Workload(workload))
    }

    /// Names cgroups that were unknown when they acted and are known now.
    pub(super) fn identify(&mut self) -> Result<(), PipelineError> {
        if self.log.is_full() {
            // Only the control chain has room, and this would need more.
            return Ok(());
        }
        for (cgroup, unknown) in self.attribution.now_known(&self.cgroups) {
            let workload = self.workload_of(cgroup)?;
            self.append_now(None, None, Body::Identified(Identified { of: unknown, workload }))?;
        }
        Ok(())
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.accounting.crowded()
    }

    /// Whether nothing is open or waiting, so that the next look at the rings can be late.
    pub(super) fn is_quiet(&self) -> bool {
        self.sessions.is_empty() && self.waiting.is_empty() && self.log.pending_bytes() == 0 && !self.is_pruning()
    }

    pub(super) fn read_counters(&self) -> Result<Readings, PipelineError> {
        Ok(readings(&self.probe.counters()?))
    }

    pub(super) fn read_losses(&self) -> Result<Vec<LossReading>, PipelineError> {
        Ok(self
            .probe
            .losses()?
            .iter()
            .filter_map(|loss| {
                Some(LossReading {
                    class: class_of(loss.class)?,
                    scope: CgroupId(loss.scope_id),
                    count: loss.count,
                    first: BootTime(loss.first_ns),
                    last: BootTime(loss.last_ns),
                })
            })
            .collect())
    }

    /// Records what is missing below `readings`, everything that was in the rings since having been read.
    pub(super) fn record_losses(
        &mut self,
        readings: &[(Stream, Reading)],
        losses: &[LossReading],
        now: BootTime,
        at_end: bool,
    ) -> Result<(), PipelineError> {
        let holes: Vec<_> = readings
            .iter()
            .filter_map(|(stream, reading)| self.accounting.settle(*stream, *reading, now, at_end))
            .collect();
        if holes.is_empty() {
            return Ok(());
        }
        self.want_anchor(AnchorCause::Act);
        for gap in self.losses.gaps(&holes, losses) {
            tracing::warn!(cause = gap.cause.as_str(), lost = gap.count, "events were lost; the log says which");
            let only = match gap.shares.as_slice() {
                [share] if share.count == gap.count => Some(share.scope.0),
                _ => None,
            };
            let session = only.and_then(|scope| self.sessions.by_scope(scope)).map(|session| session.entry);
            let workload = match (session, only) {
                (None, Some(scope)) if scope != 0 && !self.log.is_full() => Some(self.workload_of(scope)?),
                _ => None,
            };
            let body = Gap {
                cause: gap.cause,
                capture_id: self.capture_id,
                ranges: List::from(gap.ranges),
                count: gap.count,
                shares: List::from(gap.shares),
                from: gap.from,
                to: gap.to,
            };
            self.append_now(workload, session, Body::Gap(body))?;
        }
        Ok(())
    }

    /// What the log wants done; an answer that waits for durability makes a commit due.
    pub(super) fn due(&mut self, now: BootTime) -> Due {
        let mut due = self.log.due(now);
        due.commit |= !self.waiting.is_empty()
            || self.room.gap_due(now)
            || self.folds.is_due(now, u64::from(self.settings.commit_ms) * 1_000_000)
            || self.attest.as_ref().is_some_and(Attestation::wants_commit);
        due
    }

    pub(super) fn commit(&mut self) -> Result<(), PipelineError> {
        self.record_held()?;
        let _durable = self.log.commit()?;
        self.look_at_room()
    }

    /// Writes the entries of everything whose numbers are noted and in no entry: before the rings let go of the events,
    /// and before anything says that they are settled.
    pub(super) fn record_held(&mut self) -> Result<(), PipelineError> {
        self.record_folded()?;
        self.record_skipped()
    }

    /// Writes the entries of reads that are only counted.
    pub(super) fn record_folded(&mut self) -> Result<(), PipelineError> {
        let (boot, wall) = (self.clock.boot(), self.clock.wall());
        while let Some(fold) = self.folds.next() {
            let (body, of) = (fold.body(), fold.of);
            let (body, process, workload, session) = if self.log.is_full() {
                // There is no room but for the agent's own records: which numbers are not told is one of those.
                let gap = Gap {
                    cause: GapCause::DiskFull,
                    capture_id: self.capture_id,
                    ranges: List::from(fold.ranges()),
                    count: fold.count(),
                    shares: List::default(),
                    from: Some(body.from),
                    to: Some(body.to),
                };
                (Body::Gap(gap), None, None, None)
            } else {
                (Body::FileFolded(body), Some(of.process), of.workload, of.session)
            };
            let kind = body.kind();
            let draft = Draft { wall, boot, kernel: None, process, workload, session, verdict: None, body };
            append(&mut self.log, &draft)?;
            if session.is_some()
                && let Some(session) = self.sessions.by_scope_mut(of.scope)
            {
                session.totals.count(kind);
            }
            self.folds.done();
        }
        Ok(())
    }

    /// Says which events were left out for want of room.
    fn record_skipped(&mut self) -> Result<(), PipelineError> {
        for gap in self.room.take_gaps() {
            let body = Gap {
                cause: gap.cause,
                capture_id: self.capture_id,
                ranges: List::from(gap.ranges),
                count: gap.count,
                shares: List::from(gap.shares),
                from: gap.from,
                to: gap.to,
            };
            self.append_now(None, None, Body::Gap(body))?;
        }
        Ok(())
    }

    /// Notes how much room there is; a change is a record of its own, after the gaps of what was left out before it.
    pub(super) fn look_at_room(&mut self) -> Result<(), PipelineError> {
        let Some(free) = self.log.free_bytes() else { return Ok(()) };
        if self.room.may_regain(free) {
            self.log.regain_reserve()?;
        }
        let Some(storage) = self.room.observe(free, !self.log.is_full()) else { return Ok(()) };
        tracing::warn!(state = storage.state.as_str(), free, "room on the disk of the state directory");
        self.append_now(None, None, Body::Storage(storage))?;
        self.keeper.hurry();
        let _durable = self.log.commit()?;
        Ok(())
    }

    /// What the log does beside committing.
    pub(super) fn tend_log(&mut self, now: Now) -> Result<(), PipelineError> {
        Ok(self.log.tend(now)?)
    }

    pub(super) fn seal(&mut self, now: Now) -> Result<(), PipelineError> {
        if let Some(back) = self.log.seal(now)?.wall_went_back {
            tracing::warn!(nanoseconds = back.0, "the host's wall clock went back");
        }
        self.give_anchors()
    }

    pub(super) fn rotate_epoch(&mut self, now: Now) -> Result<(), PipelineError> {
        self.log.rotate_epoch(now)?;
        Ok(())
    }

    /// Whether no number below the last reading is missing.
    pub(super) fn is_settled(&self) -> bool {
        self.read_counters().is_ok_and(|readings| {
            let settled = self.accounting.settled();
            readings.iter().all(|(stream, reading)| {
                reading.generated == 0
                    || settled.iter().any(|(of, until, _)| of == stream && *until >= reading.generated)
            })
        })
    }

    /// Gives the answers that waited for durability.
    pub(super) fn give_answers(&mut self) {
        for answer in self.waiting.drain(..) {
            answer();
        }
    }

    pub(super) fn expire_sessions(&mut self, now: BootTime) -> Result<(), PipelineError> {
        for session in self.sessions.expiring(now) {
            session.expiring = true;
            if let Some(cgroup) = &session.cgroup
                && let Err(error) = cgroup.kill()
            {
                tracing::warn!(
                    session = session.id,
                    error = &error as &dyn std::error::Error,
                    "an expired session's processes could not be ended"
                );
            }
        }
        Ok(())
    }

    pub(super) fn sessions_over(&mut self, now: BootTime) -> Vec<(u64, EndReason)> {
        self.sessions.forget_dead_escapees(|tgid| std::path::Path::new("/proc").join(tgid.to_string()).exists());
        self.sessions.over(now)
    }

    /// Removes the cgroups of ended sessions whose last process is gone now.
    pub(super) fn clear_left_over(&mut self) -> Result<(), PipelineError> {
        for (scope, cgroup) in std::mem::take(&mut self.left_over) {
            if cgroup.remove().is_ok() {
                self.probe.scope_remove(scope)?;
            } else {
                self.left_over.push((scope, cgroup));
            }
        }
        Ok(())
    }

    /// Ends the run on a full disk: the control chain still has room in the log's reserve. Hooks and rings stay, so
    /// that what happens now can be read once there is space.
    pub(super) fn last_words(mut self, now: Now) -> Result<(), PipelineError> {
        self.record_held()?;
        self.record_disarmed(DisarmCause::Fault)?;
        let _full = self.log.commit()?;
        if self.log.epoch().is_some() {
            self.log.seal(now)?;
        }
        Ok(self.probe.disarm(true)?)
    }

    /// Ends the log's run in order.
    pub(super) fn close(mut self, now: Now) -> Result<(), PipelineError> {
        if self.log.epoch().is_none() && self.log.has_log_key() {
            // It had waited for the counter until now.
            self.log.begin_epoch(now, None)?;
        }
        match self.log.epoch() {
            Some(_) => self.seal(now)?,
            None => {
                let _durable = self.log.commit()?;
                tracing::error!(
                    "the log's last entries are durable and not signed: its key is in a TPM that did not give it"
                );
            }
        }
        self.probe.disarm(self.settings.keep_pins)?;
        self.session_cgroups.remove_if_empty();
        Ok(())
    }
}

/// Appends to the log; a full buffer is committed first. That lets go of nothing: the rings advance only with
/// [`super::Pipeline`]'s own commit.
pub(super) fn append(log: &mut Log, draft: &Draft<'_>) -> Result<EntryIndex, PipelineError> {
    match log.append(draft) {
        Err(LogError::PendingFull { .. }) => {
            let _durable = log.commit()?;
            Ok(log.append(draft)?.index)
        }
        other => Ok(other?.index),
    }
}

/// Whether `name` has the shape of `pattern`, in which `*` stands for any run of characters.
fn matches_glob(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::matches_glob;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("nginx.service", "nginx.service", true),
            ("nginx.service", "nginx.service2", false),
            ("*", "anything", true),
            ("jupyter-*.service", "jupyter-ada.service", true),
            ("jupyter-*.service", "jupyter-ada.scope", false),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xbxxa", false),
            ("a*", "", false),
            ("", "", true),
        ] {
            assert_eq!(matches_glob(pattern, name), expected, "{pattern} {name}");
        }
    }
}
