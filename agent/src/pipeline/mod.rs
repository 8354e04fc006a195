//! The one task that owns the log: kernel events in, durable and sealed entries out.
//!
//! # Order of things
//! 1. A message is read from a ring (the kernel's position does not move), decoded, numbered off, attributed,
//!    appended to the log.
//! 2. The log commits: everything appended so far is durable.
//! 3. Only then do the rings' positions advance, and only then are waiting answers given. A crash before this line
//!    leaves the messages in the rings; they are read again and recognized by their kernel numbers.
//! 4. The log seals: a signed checkpoint covers the durable entries.
//!
//! The critical ring is always read before the bulk ring, so that a cgroup's creation is known before the opens made
//! in it. One thread, no locks; what wakes it is the closed list [`Input`] and its own timer.

pub mod accounting;
mod attest;
pub mod attribution;
pub mod cgroupfs;
pub mod clock;
mod control;
mod error;
mod fold;
pub mod handle;
pub mod holds;
pub mod losses;
mod measured;
mod recorder;
pub mod replay;
mod requests;
mod resume;
pub mod retention;
pub mod sessions;
pub mod storage;
mod translate;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use agent_evidence::record::{AnchorCause, BootTime, Class, DisarmCause, Id128};

use crate::event;
use crate::log::{Log, Now, Recovery};
use crate::probe::{Probe, Rings};
use crate::workload::CgroupIndex;

pub(crate) use attest::{Standing, standing};
pub use attest::{TpmParts, VouchedKey};
pub use cgroupfs::SessionCgroups;
pub use clock::Clock;
pub use error::PipelineError;
pub use fold::FoldRoot;
pub use handle::{Input, PipelineHandle};

use accounting::{Reading, Stream};
use handle::AskSinks;
use recorder::Recorder;
use retention::RetentionSettings;
use storage::StorageSettings;

/// Most messages read from one ring before inputs and due dates are looked at: at 2 us each, below 10 ms.
const BATCH_MAX: usize = 4_096;
/// How long to wait when the rings are empty and something is open or uncommitted.
const POLL_BUSY: Duration = Duration::from_millis(5);
/// How long to wait when nothing happens: 50 wake-ups a second cost below 0.1 % of a core.
const POLL_IDLE: Duration = Duration::from_millis(20);
/// How often losses are settled, ns.
const LOSS_TICK: u64 = 1_000_000_000;
/// How often an orderly stop looks again for numbers in the hands of preempted programs.
const SETTLE_ROUNDS_MAX: usize = 20;
/// Longest time that an orderly stop waits for the TPM, ns: a step and a quote of a slow discrete one.
const STOP_WAIT: u64 = 10_000_000_000;
/// How often open sessions are checked for their end, ns.
const SESSION_TICK: u64 = 100_000_000;

/// What the pipeline is told at start and does not change.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Random name of this run of the daemon.
    pub run: Id128,
    /// The kernel's boot id.
    pub boot_id: String,
    /// SHA-256 of the running executable.
    pub agent_digest: [u8; 32],
    /// SHA-256 of the effective configuration.
    pub config_digest: [u8; 32],
    /// Longest time an entry waits to be durable, ms: declared in `armed`.
    pub commit_ms: u32,
    /// Longest time an entry waits for a checkpoint, ms: declared in `armed`.
    pub seal_ms: u32,
    /// Time between heartbeats, ms: declared in `armed`.
    pub heartbeat_ms: u32,
    /// Time between anchors, ms, where there is a TPM: declared in `armed`.
    pub anchor_ms: Option<u32>,
    /// Time between steps of the NV counter, ms, where there is one: declared in `armed`.
    pub counter_ms: Option<u32>,
    /// Whether containers and pods are in scope.
    pub containers: bool,
    /// Units in scope; `*` stands for any run of characters.
    pub units: Vec<String>,
    /// Families captured in scope (`agent_common::stats::family`).
    pub families: u32,
    /// Directories whose files' plain reads are only counted.
    pub fold: Vec<FoldRoot>,
    /// Identity of a session that asked for none; `{uid}` stands for the asker.
    pub identity_default: String,
    /// Most sessions open at once.
    pub sessions_max: u32,
    /// Trust domain of ids that are made from names.
    pub trust_domain: String,
    /// Whether hooks and rings stay pinned when the daemon stops in order.
    pub keep_pins: bool,
    /// Room on the disk.
    pub storage: StorageSettings,
    /// When entries of long ago go.
    pub retention: RetentionSettings,
}

/// What the pipeline is built from.
pub struct Parts {
    /// Settings.
    pub settings: Settings,
    /// The log, open and recovered.
    pub log: Log,
    /// The kernel side, armed.
    pub probe: Probe,
    /// Commands.
    pub inputs: Receiver<Input>,
    /// The cgroup2 mount.
    pub cgroup_mount: PathBuf,
    /// Where sessions have their cgroups.
    pub session_cgroups: SessionCgroups,
    /// How far the sinks are.
    pub sinks: AskSinks,
    /// What the log found when it was opened; none for a log that was just created.
    pub recovery: Option<Recovery>,
    /// The TPM, where one is to be used.
    pub tpm: Option<TpmParts>,
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

/// The task: rings and commands on one side, the recorder on the other.
pub struct Pipeline {
    clock: Clock,
    rings: Rings,
    inputs: Receiver<Input>,
    recorder: Recorder,
    next_loss_tick: BootTime,
    next_session_tick: BootTime,
    next_heartbeat: BootTime,
}

impl Pipeline {
    /// Records the beginning of this run: what was recovered, what is armed, what is in scope. When this returns,
    /// `armed` is durable and everything the kernel had kept from an earlier run has been read.
    ///
    /// # Errors
    /// An evidence fault, or a kernel side that cannot be read.
    pub fn begin(parts: Parts) -> Result<Self, PipelineError> {
        let clock = Clock;
        let now = clock.boot();
        // Mapped and positioned before the cgroup tree is read: a cgroup made in between is in the ring.
        let rings = parts.probe.rings()?;
        let cgroups = CgroupIndex::walk(&parts.cgroup_mount)?;
        let recovery = parts.recovery;
        let (recorder, inputs) = Recorder::new(parts, cgroups, clock);
        let pipeline = Self {
            clock,
            rings,
            inputs,
            recorder,
            next_loss_tick: BootTime(now.0.saturating_add(LOSS_TICK)),
            next_session_tick: now,
            next_heartbeat: now,
        };
        // Only a log whose reserve is spent cannot say as much as that.
        pipeline.begun(recovery).map_err(|error| if error.is_disk_full() { PipelineError::DiskFull } else { error })
    }

    fn begun(mut self, recovery: Option<Recovery>) -> Result<Self, PipelineError> {
        self.recorder.resume_attestation();
        self.recorder.take_over(recovery)?;
        self.recorder.record_armed()?;
        self.recorder.want_anchor(AnchorCause::Start);
        // Before anything is recorded that a full disk has no room for.
        self.recorder.look_at_room()?;
        self.recorder.scope_existing()?;
        self.recorder.record_backfill()?;
        self.read_all()?;
        self.recorder.record_numbers_before()?;
        self.commit()?;
        Ok(self)
    }

    /// Runs until told to stop. On return the log is sealed and closed in order.
    ///
    /// # Errors
    /// An evidence fault: what cannot be recorded must not be claimed, so the daemon ends.
    pub fn run(mut self) -> Result<(), PipelineError> {
        loop {
            match self.turn() {
                Ok(Flow::Continue) => {}
                Ok(Flow::Stop) => return self.finish(),
                Err(error) if error.is_disk_full() => {
                    tracing::error!("the disk is full: capture goes on in the kernel's rings, the daemon stops");
                    self.give_up()?;
                    return Err(PipelineError::DiskFull);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn turn(&mut self) -> Result<Flow, PipelineError> {
        let read = self.read_batch()?;
        if self.take_inputs()? == Flow::Stop {
            return Ok(Flow::Stop);
        }
        let now = self.clock.boot();
        self.look_after(now)?;
        self.recorder.attend_tpm(now)?;
        self.recorder.attend_measured(now)?;
        self.settle_due(now)?;
        if read == 0 { self.wait() } else { Ok(Flow::Continue) }
    }

    /// Waits for a command or the next look at the rings.
    fn wait(&mut self) -> Result<Flow, PipelineError> {
        let pause = if self.recorder.is_quiet() { POLL_IDLE } else { POLL_BUSY };
        match self.inputs.recv_timeout(pause) {
            Ok(input) => self.take_input(input),
            Err(RecvTimeoutError::Timeout) => Ok(Flow::Continue),
            Err(RecvTimeoutError::Disconnected) => Ok(Flow::Stop),
        }
    }

    fn take_inputs(&mut self) -> Result<Flow, PipelineError> {
        loop {
            match self.inputs.try_recv() {
                Ok(input) => {
                    if self.take_input(input)? == Flow::Stop {
                        return Ok(Flow::Stop);
                    }
                }
                Err(TryRecvError::Empty) => return Ok(Flow::Continue),
                Err(TryRecvError::Disconnected) => return Ok(Flow::Stop),
            }
        }
    }

    fn take_input(&mut self, input: Input) -> Result<Flow, PipelineError> {
        match input {
            Input::Command(command) => {
                self.recorder.answer(command)?;
                Ok(Flow::Continue)
            }
            Input::Tpm(outcome) => {
                self.recorder.tpm_answered(outcome)?;
                Ok(Flow::Continue)
            }
            Input::Shutdown => Ok(Flow::Stop),
        }
    }

    /// What is due by the clock besides committing.
    fn look_after(&mut self, now: BootTime) -> Result<(), PipelineError> {
        if now >= self.next_session_tick {
            self.next_session_tick = BootTime(now.0.saturating_add(SESSION_TICK));
            self.end_sessions(now)?;
        }
        if now >= self.next_loss_tick || self.recorder.is_crowded() {
            self.next_loss_tick = BootTime(now.0.saturating_add(LOSS_TICK));
            self.settle_losses(false)?;
            self.recorder.identify()?;
            self.recorder.clear_left_over()?;
            self.recorder.tend_log(Now { wall: self.clock.wall(), boot: now })?;
        }
        self.recorder.tend_retention(Now { wall: self.clock.wall(), boot: now })?;
        if now >= self.next_heartbeat {
            // What a heartbeat settles must be in the log.
            self.recorder.record_held()?;
            self.next_heartbeat =
                BootTime(now.0.saturating_add(u64::from(self.recorder.settings().heartbeat_ms) * 1_000_000));
            self.recorder.record_heartbeat()?;
        }
        Ok(())
    }

    /// Commits, seals and changes keys as is due; an answer that waits makes a commit due at once.
    fn settle_due(&mut self, now: BootTime) -> Result<(), PipelineError> {
        let due = self.recorder.due(now);
        if due.commit || due.seal {
            self.commit()?;
        }
        let now = Now { wall: self.clock.wall(), boot: now };
        if due.seal {
            self.recorder.seal(now)?;
        }
        if due.rotate_epoch {
            self.recorder.rotate_epoch(now)?;
        }
        Ok(())
    }

    /// Makes everything appended durable, and only then lets go of what it was made from.
    fn commit(&mut self) -> Result<(), PipelineError> {
        let (crit, bulk) = (self.rings.crit.position(), self.rings.bulk.position());
        self.recorder.commit()?;
        self.rings.crit.release(crit)?;
        self.rings.bulk.release(bulk)?;
        self.recorder.give_answers();
        Ok(())
    }

    /// Reads at most a batch of each ring.
    fn read_batch(&mut self) -> Result<usize, PipelineError> {
        self.recorder.read_clocks(self.clock);
        Ok(self.read_crit(BATCH_MAX)? + self.read_bulk(BATCH_MAX)?)
    }

    /// Reads everything that is in the rings now; what arrives meanwhile is left for the next batch once both
    /// rings have been gone through.
    fn read_all(&mut self) -> Result<(), PipelineError> {
        self.recorder.read_clocks(self.clock);
        let crit = self.rings.crit.position().saturating_add(self.rings.crit.unread_bytes()?);
        let bulk = self.rings.bulk.position().saturating_add(self.rings.bulk.unread_bytes()?);
        while self.rings.crit.position() < crit && self.read_crit(BATCH_MAX)? > 0 {
            self.commit_if_large()?;
        }
        while self.rings.bulk.position() < bulk && self.read_bulk(BATCH_MAX)? > 0 {
            self.commit_if_large()?;
        }
        Ok(())
    }

    fn commit_if_large(&mut self) -> Result<(), PipelineError> {
        if self.recorder.due(self.clock.boot()).commit { self.commit() } else { Ok(()) }
    }

    fn read_crit(&mut self, limit: usize) -> Result<usize, PipelineError> {
        let mut read = 0;
        while read < limit {
            let Some(message) = self.rings.crit.next_message()? else { break };
            self.recorder.take(message)?;
            read += 1;
        }
        Ok(read)
    }

    fn read_bulk(&mut self, limit: usize) -> Result<usize, PipelineError> {
        let mut read = 0;
        while read < limit {
            let Some(message) = self.rings.bulk.next_message()? else { break };
            match event::decode(message) {
                Ok(event) => {
                    if self.recorder.is_strange(event.header()) {
                        // Its cgroup may have been made after the critical ring was read: read that again first.
                        while let Some(earlier) = self.rings.crit.next_message()? {
                            self.recorder.take(earlier)?;
                        }
                    }
                    self.recorder.record(&event)?;
                }
                Err(error) => self.recorder.refuse(message, error)?,
            }
            read += 1;
        }
        Ok(read)
    }

    /// Reads the kernel's counters, then everything in the rings, and records what is then still missing.
    fn settle_losses(&mut self, at_end: bool) -> Result<(), PipelineError> {
        let readings = self.recorder.read_counters()?;
        let losses = self.recorder.read_losses()?;
        self.read_all()?;
        self.recorder.record_losses(&readings, &losses, self.clock.boot(), at_end)
    }

    /// Ends the sessions of which nothing is left. Their last events are read first, so that `revoked` is last.
    fn end_sessions(&mut self, now: BootTime) -> Result<(), PipelineError> {
        self.recorder.expire_sessions(now)?;
        let over = self.recorder.sessions_over(now);
        if over.is_empty() {
            return Ok(());
        }
        self.settle_losses(false)?;
        for (scope, reason) in over {
            self.recorder.end_session(scope, reason, now)?;
        }
        Ok(())
    }

    /// Stops in order: what the kernel has is read and recorded, `disarmed` ends the run, the log is sealed.
    fn finish(mut self) -> Result<(), PipelineError> {
        // First, because it takes its time, and what happens meanwhile is captured.
        self.attest_stop()?;
        // After the last anchor, so that it is explained.
        self.recorder.record_all_measured()?;
        for _ in 0..SETTLE_ROUNDS_MAX {
            self.settle_losses(false)?;
            if self.recorder.is_settled() {
                break;
            }
            // A preempted program holds a number: it needs the processor to go on.
            std::thread::sleep(POLL_BUSY);
        }
        self.recorder.record_held()?;
        self.recorder.record_disarmed(DisarmCause::Operator)?;
        self.commit()?;
        self.recorder.close(Now { wall: self.clock.wall(), boot: self.clock.boot() })
    }

    /// The last step of the counter and the last anchor, as long as the TPM gives them in time. Capture goes on, and what
    /// is asked meanwhile is answered as before.
    fn attest_stop(&mut self) -> Result<(), PipelineError> {
        let deadline = BootTime(self.clock.boot().0.saturating_add(STOP_WAIT));
        self.recorder.attest_stop(self.clock.boot());
        loop {
            let now = self.clock.boot();
            self.recorder.attend_tpm(now)?;
            if self.recorder.attest_is_done(now) {
                return Ok(());
            }
            self.read_batch()?;
            self.settle_due(now)?;
            if now >= deadline {
                tracing::warn!("the TPM did not give the last anchor in time");
                return Ok(());
            }
            match self.inputs.recv_timeout(POLL_BUSY) {
                Ok(input) => {
                    self.take_input(input)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// The last words of a run whose disk is full: the control chain still has room in the log's reserve.
    fn give_up(self) -> Result<(), PipelineError> {
        self.recorder.last_words(Now { wall: self.clock.wall(), boot: self.clock.boot() })
    }
}

/// One reading of every counter of the kernel side.
type Readings = Vec<(Stream, Reading)>;

/// The class that a number on the wire names; numbers beyond are not of this version.
fn class_of(number: u8) -> Option<Class> {
    Class::from_number(u32::from(number))
}
