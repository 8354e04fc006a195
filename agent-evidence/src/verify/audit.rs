//! The rules over entries, applied to one entry after the other.
//!
//! An entry that cannot be read, or a missing bundle, ends the rules that count across entries ([`Audit::lose_sight`]):
//! what would follow is one damage told a hundred times. The rules over single entries and over the tree go on.

use std::collections::{HashMap, HashSet};

use crate::chain;
use crate::epoch::EpochStatement;
use crate::note::{KeyName, VerifierKey, verify_ed25519};
use crate::record::{
    Armed, Body, BootTime, ChainHash, Class, ControlNumber, Counter, DisarmCause, Disarmed, EntryIndex, Epoch, Gap,
    GapCause, Genesis, Heartbeat, Id128, Issued, KeyTier, Kind, LeafHash, PublicKey, Record, Recovered, RecoveryCause,
    Revoked, SessionNumber, SessionState, Succession, TreeSize, WallTime, decode_with,
};

use super::Options;
use super::finding::Finding;
use super::numbers::{self, Counters};
use super::report::{Findings, Note, Notes, SessionReport, iso};

/// Smallest step back of the wall clock that is told, in nanoseconds: 100 ms is beyond what NTP slews between two entries
/// and below what anybody would set a clock back for.
const CLOCK_STEP_MIN: i128 = 100_000_000;

/// Most workloads and unknown acts remembered for checking references to them: 8 bytes each.
const REFERENCES_MAX: usize = 4_000_000;

/// Most sessions remembered, at about 300 bytes each.
const SESSIONS_MAX: usize = 200_000;

/// Entries that later ones may refer to.
#[derive(Debug, Default)]
struct Targets(HashSet<EntryIndex>);

impl Targets {
    fn insert(&mut self, index: EntryIndex) {
        if self.0.len() < REFERENCES_MAX {
            self.0.insert(index);
        }
    }

    /// Whether the entry is one of them, or could be one that was too many to remember.
    fn may_have(&self, index: EntryIndex) -> bool {
        self.0.contains(&index) || self.0.len() >= REFERENCES_MAX
    }
}

/// What is known of one session.
#[derive(Debug, Clone)]
struct Session {
    id: String,
    identity: String,
    next: u64,
    hash: ChainHash,
    counts: HashMap<Kind, u64>,
    ended: Option<EntryIndex>,
    wrong: bool,
}

/// The run of the agent that the entries are in.
#[derive(Debug, Clone)]
enum Run {
    /// None yet.
    Before,
    Armed(RunStart),
    Ended {
        capture: Id128,
        wall: WallTime,
        upgrade: bool,
    },
}

#[derive(Debug, Clone)]
struct RunStart {
    index: EntryIndex,
    capture: Id128,
    heartbeat_ms: u32,
    /// The latest of `armed` and `heartbeat`.
    alive: (EntryIndex, BootTime, WallTime),
}

#[derive(Debug)]
pub(super) struct Audit {
    origin: KeyName,
    options: Options,
    scratch: Vec<u8>,
    /// Whether every entry so far could be read.
    sighted: bool,
    /// By how much the last entry's own index differs from its position.
    index_shift: u64,
    control_next: u64,
    sessions: HashMap<EntryIndex, Session>,
    sessions_total: u64,
    /// Ended sessions among those remembered.
    sessions_ended: u64,
    workloads: Targets,
    unknowns: Targets,
    counters: Counters,
    counters_overflowed: bool,
    /// Runs of numbers kept, over all counters.
    runs_kept: usize,
    run: Run,
    log_key: Option<VerifierKey>,
    tier: KeyTier,
    first_epoch_key: Option<PublicKey>,
    epoch: Option<(u64, PublicKey)>,
    pub(super) notes: Notes,
    pub(super) lost: u64,
    pub(super) in_flight: u64,
    /// Captures whose last run ended without `disarmed`.
    cut_off: HashSet<Id128>,
    /// Events that those runs had numbered and never wrote.
    pub(super) cut_off_events: u64,
    pub(super) windows: u64,
    pub(super) runs: u64,
    pub(super) not_covered: Vec<String>,
    pub(super) times: Option<(WallTime, WallTime)>,
    last_wall: WallTime,
    /// Wall time minus boot time of the entry before.
    clock_stand: Option<i128>,
    wall_regressions: u64,
    cuts: u64,
    unknown_acts: u64,
}

impl Audit {
    pub(super) fn new(origin: &KeyName, options: Options) -> Self {
        Self {
            origin: origin.clone(),
            options,
            scratch: Vec::new(),
            sighted: true,
            index_shift: 0,
            control_next: 0,
            sessions: HashMap::new(),
            sessions_total: 0,
            sessions_ended: 0,
            workloads: Targets::default(),
            unknowns: Targets::default(),
            counters: Counters::default(),
            counters_overflowed: false,
            runs_kept: 0,
            run: Run::Before,
            log_key: None,
            tier: KeyTier::T0,
            first_epoch_key: None,
            epoch: None,
            notes: Notes::default(),
            lost: 0,
            in_flight: 0,
            cut_off: HashSet::new(),
            cut_off_events: 0,
            windows: 0,
            runs: 0,
            not_covered: Vec::new(),
            times: None,
            last_wall: WallTime(0),
            clock_stand: None,
            wall_regressions: 0,
            cuts: 0,
            unknown_acts: 0,
        }
    }

    /// The key that the genesis entry names.
    pub(super) fn log_key(&self) -> Option<&VerifierKey> {
        self.log_key.as_ref()
    }

    /// The key of the epoch that the log ends in.
    pub(super) fn epoch_key(&self) -> Option<PublicKey> {
        self.epoch.map(|(_, key)| key)
    }

    /// The key of the log's first epoch.
    pub(super) fn first_epoch_key(&self) -> Option<PublicKey> {
        self.first_epoch_key
    }

    /// Where the log key lives, as the latest `genesis` or `armed` says: T0 unless attested.
    pub(super) fn tier(&self) -> KeyTier {
        self.tier
    }

    /// Whether every entry could be read.
    pub(super) fn is_sighted(&self) -> bool {
        self.sighted
    }

    /// Whether the log had more counters than are followed.
    pub(super) fn has_overflowed(&self) -> bool {
        self.counters_overflowed
    }

    /// Entries could not be read: what counts across entries is not checked any more.
    pub(super) fn lose_sight(&mut self) {
        self.sighted = false;
    }

    /// Applies every rule to the next entry.
    pub(super) fn entry(
        &mut self,
        index: EntryIndex,
        bytes: &[u8],
        leaf: LeafHash,
        previous: Option<LeafHash>,
        findings: &mut Findings,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        match decode_with(bytes, &mut scratch) {
            Ok(record) => self.record(index, &record, leaf, previous, findings),
            Err(reason) => {
                findings.push(Finding::EntryMalformed { index, reason });
                self.lose_sight();
            }
        }
        self.scratch = scratch;
    }

    fn record(
        &mut self,
        index: EntryIndex,
        record: &Record<'_>,
        leaf: LeafHash,
        previous: Option<LeafHash>,
        findings: &mut Findings,
    ) {
        // Once a removed or added entry has been reported, those after it that go on counting are not reported too.
        let shift = record.index().0.wrapping_sub(index.0);
        if shift != 0 && shift != self.index_shift {
            findings.push(Finding::IndexWrong { index, seen: record.index() });
        }
        self.index_shift = shift;
        if previous.is_some_and(|previous| previous != record.placement.previous) {
            findings.push(Finding::PreviousMismatch { index });
        }
        self.cuts += u64::from(!record.cut.is_empty());
        self.clock(index, record);
        if index.0 == 0 && record.body().kind() != Kind::Genesis {
            findings.push(Finding::GenesisMissing {});
        }
        match record.body() {
            Body::Genesis(genesis) => self.genesis(index, genesis, findings),
            Body::Epoch(epoch) => self.epoch(index, record.index(), epoch, findings),
            _ => {}
        }
        if self.sighted {
            self.control_chain(index, record, findings);
            self.session_chain(index, record, leaf, findings);
            self.kernel_number(index, record, findings);
            self.body(index, record, findings);
        }
    }

    fn clock(&mut self, index: EntryIndex, record: &Record<'_>) {
        let wall = record.draft.wall;
        let (first, last) = self.times.unwrap_or((wall, wall));
        self.times = Some((first.min(wall), last.max(wall)));
        // An entry of an act is written after the act and carries its time, so wall times alone go back and forth;
        // what tells a clock that was set is how it stands to the time since boot (which begins anew at a reboot,
        // and then stands later).
        let stand = i128::from(wall.0) - i128::from(record.draft.boot.0);
        if self.clock_stand.is_some_and(|before| stand + CLOCK_STEP_MIN < before) {
            self.wall_regressions += 1;
            if self.wall_regressions == 1 {
                let text = format!("the host's clock goes back at entry {}, to {}", index.0, iso(wall));
                self.notes.push(Note { name: "wall_clock_back", index: Some(index), text });
            }
        }
        self.clock_stand = Some(stand);
        self.last_wall = wall;
    }

    fn genesis(&mut self, index: EntryIndex, genesis: &Genesis<'_>, findings: &mut Findings) {
        if index.0 != 0 {
            findings.push(Finding::GenesisRepeated { index });
            return;
        }
        if genesis.format != 1 {
            findings.push(Finding::GenesisWrong { what: "version of the format" });
        }
        if genesis.origin.as_bytes() != self.origin.as_str().as_bytes() {
            findings.push(Finding::GenesisWrong { what: "origin" });
        }
        let key = genesis.log_key.as_str().and_then(|text| VerifierKey::parse(text).ok());
        match key {
            Some(key) if *key.name() == self.origin => self.log_key = Some(key),
            _ => findings.push(Finding::GenesisWrong { what: "log key" }),
        }
        self.key_tier(genesis.key_tier);
        if let Some(predecessor) = &genesis.predecessor {
            let text = format!(
                "this log continues {} from {} entries on; that log must be verified by itself",
                predecessor.origin.display(),
                predecessor.size.0
            );
            self.notes.push(Note { name: "predecessor", index: Some(index), text });
        }
    }

    /// A tier above T0 needs attestation evidence, of which this version of the format has none.
    fn key_tier(&mut self, claimed: KeyTier) {
        if claimed != KeyTier::T0 && self.tier == KeyTier::T0 {
            let text =
                format!("the log claims tier {} for its key without evidence; it is judged as T0", claimed.as_str());
            self.notes.push_once(Note { name: "tier_claimed", index: None, text });
        }
    }

    fn epoch(&mut self, index: EntryIndex, own: EntryIndex, epoch: &Epoch, findings: &mut Findings) {
        if self.sighted {
            let expected = self.epoch.map_or(0, |(number, _)| number.saturating_add(1));
            if epoch.number.0 != expected {
                findings.push(Finding::EpochWrong { index, what: "number" });
            }
        }
        if epoch.first_size != own.size_including() {
            findings.push(Finding::EpochWrong { index, what: "first size" });
        }
        let is_first = self.first_epoch_key.is_none();
        let how_fits = (epoch.how == Succession::First) == is_first || !self.sighted;
        let signed_fits = (epoch.how == Succession::Continued) == epoch.sig_previous.is_some();
        if !(how_fits && signed_fits) {
            findings.push(Finding::EpochWrong { index, what: "succession" });
        }
        let statement = EpochStatement::of(self.origin.as_str(), epoch).digest();
        if let Some(key) = &self.log_key
            && !key.verifies(&statement, &epoch.sig_log)
        {
            findings.push(Finding::EpochForged { index, number: epoch.number, by: "the log key" });
        }
        if let (Some(signature), Some((_, key)), true) = (&epoch.sig_previous, self.epoch, self.sighted)
            && !verify_ed25519(key, &statement, signature)
        {
            findings.push(Finding::EpochForged { index, number: epoch.number, by: "the previous epoch's key" });
        }
        if epoch.how == Succession::Orphan {
            let text = format!(
                "epoch {} begins at entry {} without the signature of the epoch before: a crash, or a discontinuity that only the log key vouches for",
                epoch.number.0, index.0
            );
            self.notes.push(Note { name: "orphan_epoch", index: Some(index), text });
        }
        if self.sighted {
            self.first_epoch_key.get_or_insert(epoch.public_key);
        }
        self.epoch = Some((epoch.number.0, epoch.public_key));
    }

    fn control_chain(&mut self, index: EntryIndex, record: &Record<'_>, findings: &mut Findings) {
        let seen = record.placement.control_number;
        let expected = record.body().kind().is_control().then_some(ControlNumber(self.control_next));
        if seen != expected {
            findings.push(Finding::ControlNumberWrong { index, expected, seen });
        }
        if let Some(number) = seen.or(expected) {
            self.control_next = number.0.saturating_add(1);
        }
    }

    fn session_chain(&mut self, index: EntryIndex, record: &Record<'_>, leaf: LeafHash, findings: &mut Findings) {
        let seen = record.placement.session_number;
        if let Body::Issued(issued) = record.body() {
            self.issued(index, issued, record, leaf, findings);
            return;
        }
        let Some(named) = record.draft.session else {
            if seen.is_some() {
                findings.push(Finding::SessionNumberWrong { index, expected: None, seen });
            }
            return;
        };
        let Some(session) = self.sessions.get_mut(&named) else {
            findings.push(Finding::SessionUnknown { index, session: named });
            return;
        };
        if session.ended.is_some() {
            session.wrong = true;
            findings.push(Finding::SessionEnded { index, session: named });
        }
        let expected = Some(SessionNumber(session.next));
        if seen != expected {
            session.wrong = true;
            findings.push(Finding::SessionNumberWrong { index, expected, seen });
        }
        if let Body::Revoked(revoked) = record.body() {
            session.check_revoked(index, named, revoked, findings);
            self.sessions_ended += u64::from(session.ended.is_none());
            session.ended = Some(index);
        }
        session.next = seen.map_or(session.next, |number| number.0).saturating_add(1);
        session.hash = chain::step(session.hash, leaf);
        session.count(record.body().kind());
    }

    fn issued(
        &mut self,
        index: EntryIndex,
        issued: &Issued<'_>,
        record: &Record<'_>,
        leaf: LeafHash,
        findings: &mut Findings,
    ) {
        let seen = record.placement.session_number;
        let expected = Some(SessionNumber(0));
        if seen != expected {
            findings.push(Finding::SessionNumberWrong { index, expected, seen });
        }
        if let Some(session) = record.draft.session.filter(|session| *session != record.index()) {
            findings.push(Finding::SessionUnknown { index, session });
        }
        self.sessions_total += 1;
        if self.sessions.len() >= SESSIONS_MAX {
            // Entries of a session that is forgotten, or never followed, are findings, not passed over.
            if self.sessions_ended == 0 {
                return;
            }
            self.sessions.retain(|_, session| session.ended.is_none());
            self.sessions_ended = 0;
        }
        let shortened = |text: String| text.chars().take(256).collect();
        let session = Session {
            id: shortened(issued.id.display()),
            identity: shortened(issued.identity.display()),
            next: 1,
            hash: chain::session_start(leaf),
            counts: HashMap::new(),
            ended: None,
            wrong: false,
        };
        self.sessions.insert(record.index(), session);
    }

    fn kernel_number(&mut self, index: EntryIndex, record: &Record<'_>, findings: &mut Findings) {
        let kind = record.body().kind();
        let Some(number) = record.draft.kernel else {
            if kind.is_kernel_event() {
                findings.push(Finding::KernelNumberWrong { index });
            }
            return;
        };
        if class_of(kind) != Some(number.class) {
            findings.push(Finding::KernelNumberWrong { index });
            return;
        }
        match self.capture() {
            Some(capture) => self.account(index, capture, number.cpu, number.class, (number.seq, number.seq), findings),
            None => findings.push(Finding::EventOutsideRun { index }),
        }
    }

    fn capture(&self) -> Option<Id128> {
        match &self.run {
            Run::Armed(start) => Some(start.capture),
            Run::Before | Run::Ended { .. } => None,
        }
    }

    fn account(
        &mut self,
        index: EntryIndex,
        capture: Id128,
        cpu: u32,
        class: Class,
        (first, last): (u64, u64),
        findings: &mut Findings,
    ) {
        let Some(numbers) = self.counters.of((capture, cpu, class)) else {
            self.counters_overflowed = true;
            return;
        };
        let runs = numbers.runs();
        if let Err(seq) = numbers.insert(first, last) {
            findings.push(Finding::NumberRepeated { index, cpu, class, seq });
        }
        self.runs_kept = (self.runs_kept + numbers.runs()).saturating_sub(runs);
        if numbers.runs() > numbers::RUNS_MAX || (self.runs_kept > numbers::RUNS_TOTAL_MAX && numbers.runs() > 0) {
            self.runs_kept = self.runs_kept.saturating_sub(numbers.runs());
            for (first, last) in numbers.take_holes(numbers.top()) {
                findings.push(Finding::NumberHole { index, cpu, class, first, last });
            }
        }
    }

    fn body(&mut self, index: EntryIndex, record: &Record<'_>, findings: &mut Findings) {
        let draft = &record.draft;
        if let Some(workload) = draft.workload
            && !self.workloads.may_have(workload)
        {
            findings.push(Finding::ReferenceWrong { index, to: workload });
        }
        match record.body() {
            Body::Armed(armed) => self.armed(index, armed, draft.boot, draft.wall),
            Body::Heartbeat(heartbeat) => self.heartbeat(index, heartbeat, draft.boot, draft.wall, findings),
            Body::Disarmed(disarmed) => self.disarmed(index, disarmed, draft.wall, findings),
            Body::Gap(gap) => self.gap(index, gap, findings),
            Body::Recovered(recovered) => self.recovered(index, recovered),
            Body::Workload(_) => self.workloads.insert(record.index()),
            Body::Unknown(_) => {
                self.unknown_acts += 1;
                self.unknowns.insert(record.index());
            }
            Body::Identified(identified) => {
                if !self.unknowns.may_have(identified.of) {
                    findings.push(Finding::ReferenceWrong { index, to: identified.of });
                }
                if !self.workloads.may_have(identified.workload) {
                    findings.push(Finding::ReferenceWrong { index, to: identified.workload });
                }
            }
            Body::Revoked(_) if draft.session.is_none() => {
                findings.push(Finding::RevokedWrong { index, what: "session: it names none" });
            }
            _ => {}
        }
    }

    fn armed(&mut self, index: EntryIndex, armed: &Armed<'_>, boot: BootTime, wall: WallTime) {
        self.runs += 1;
        self.key_tier(armed.key_tier);
        self.window_before(index, armed, wall);
        if let Run::Armed(start) = &self.run {
            self.cut_off.insert(start.capture);
        }
        self.cut_off.remove(&armed.capture_id);
        self.not_covered =
            armed.not_covered.iter().map(|item| format!("{} ({})", item.what.display(), item.why.display())).collect();
        self.run = Run::Armed(RunStart {
            index,
            capture: armed.capture_id,
            heartbeat_ms: armed.cadence.heartbeat_ms,
            alive: (index, boot, wall),
        });
    }

    /// Says for which time before this run nothing was observed.
    fn window_before(&mut self, index: EntryIndex, armed: &Armed<'_>, wall: WallTime) {
        let (since, ended, same) = match &self.run {
            Run::Before => {
                let text = format!("nothing was observed before entry {}, {}", index.0, iso(wall));
                self.notes.push(Note { name: "not_observed_before", index: Some(index), text });
                return;
            }
            Run::Armed(start) => (start.alive.2, false, start.capture == armed.capture_id),
            Run::Ended { capture, wall, .. } => (*wall, true, *capture == armed.capture_id),
        };
        let (name, what) = match (ended, same && armed.resumed) {
            (_, true) => {
                ("capture_resumed", "the kernel side captured alone, and what it had kept was read afterwards")
            }
            (true, false) => ("not_observed", "nothing was observed"),
            (false, false) => (
                "run_cut",
                "nothing was observed after the run stopped without a word, and its last entries may be missing",
            ),
        };
        self.windows += u64::from(name != "capture_resumed");
        let text = format!("from {} to {} (entry {}) {what}", iso(since), iso(wall), index.0);
        self.notes.push(Note { name, index: Some(index), text });
    }

    fn heartbeat(
        &mut self,
        index: EntryIndex,
        heartbeat: &Heartbeat<'_>,
        boot: BootTime,
        wall: WallTime,
        findings: &mut Findings,
    ) {
        self.counters_stated(index, heartbeat.capture_id, &heartbeat.counters, findings);
        self.sessions_stated(index, &heartbeat.sessions, findings);
        if !heartbeat.hooks_ok {
            findings.push(Finding::HooksNotAttached { index });
        }
        let Run::Armed(start) = &mut self.run else { return };
        let silent = boot.0.saturating_sub(start.alive.1.0);
        // Three missed heartbeats and a second for a busy host.
        let limit = u64::from(start.heartbeat_ms).saturating_mul(3_000_000).saturating_add(1_000_000_000);
        let since = start.alive;
        start.alive = (index, boot, wall);
        if silent > limit {
            let text = format!(
                "no sign of life for {}.{:03} s between entries {} and {}",
                silent / 1_000_000_000,
                silent / 1_000_000 % 1000,
                since.0.0,
                index.0
            );
            self.notes.push(Note { name: "heartbeat_late", index: Some(index), text });
        }
    }

    fn disarmed(&mut self, index: EntryIndex, disarmed: &Disarmed<'_>, wall: WallTime, findings: &mut Findings) {
        self.counters_stated(index, disarmed.capture_id, &disarmed.counters, findings);
        self.sessions_stated(index, &disarmed.sessions, findings);
        let upgrade = disarmed.cause == DisarmCause::Upgrade;
        self.run = Run::Ended { capture: disarmed.capture_id, wall, upgrade };
    }

    fn counters_stated(&mut self, index: EntryIndex, capture: Id128, rows: &[Counter], findings: &mut Findings) {
        if self.capture() != Some(capture) {
            findings.push(Finding::EventOutsideRun { index });
            return;
        }
        for row in rows {
            let Some(numbers) = self.counters.of((capture, row.cpu, row.class)) else {
                self.counters_overflowed = true;
                continue;
            };
            if row.next < numbers.generated || row.settled > row.next {
                findings.push(Finding::CounterWrong { index, cpu: row.cpu, class: row.class });
                continue;
            }
            numbers.generated = row.next;
            let runs = numbers.runs();
            for (first, last) in numbers.take_holes(row.settled) {
                findings.push(Finding::NumberHole { index, cpu: row.cpu, class: row.class, first, last });
            }
            self.runs_kept = (self.runs_kept + numbers.runs()).saturating_sub(runs);
        }
    }

    fn sessions_stated(&mut self, index: EntryIndex, rows: &[SessionState], findings: &mut Findings) {
        for row in rows {
            match self.sessions.get_mut(&row.session) {
                None => findings.push(Finding::SessionUnknown { index, session: row.session }),
                Some(session) => {
                    let number = row.number.0.checked_add(1);
                    if number != Some(session.next) || row.hash != session.hash || session.ended.is_some() {
                        session.wrong = true;
                        findings.push(Finding::SessionHashWrong { index, session: row.session });
                    }
                }
            }
        }
    }

    fn gap(&mut self, index: EntryIndex, gap: &Gap<'_>, findings: &mut Findings) {
        let mut counted = Some(0_u64);
        for range in gap.ranges.iter() {
            let length = range.last.checked_sub(range.first).and_then(|distance| distance.checked_add(1));
            counted = counted.zip(length).and_then(|(sum, length)| sum.checked_add(length));
            if length.is_some() {
                self.account(index, gap.capture_id, range.cpu, range.class, (range.first, range.last), findings);
            }
        }
        if counted != Some(gap.count) {
            findings.push(Finding::GapCountWrong { index });
        }
        self.lost = self.lost.saturating_add(gap.count);
        if gap.cause == GapCause::Unexplained {
            findings.push(Finding::LossUnexplained { index, count: gap.count });
        } else if self.options.strict {
            findings.push(Finding::LossAccounted { index, count: gap.count });
        }
        let text = format!("entry {}: {} events lost, cause {}", index.0, gap.count, gap.cause.as_str());
        self.notes.push(Note { name: "gap", index: Some(index), text });
    }

    fn recovered(&mut self, index: EntryIndex, recovered: &Recovered) {
        if recovered.cause == RecoveryCause::Crash {
            let text = format!(
                "entry {}: the log was recovered after a crash at {} entries; {} entries replayed, {} unfinished bytes discarded",
                index.0, recovered.size.0, recovered.replayed, recovered.torn_bytes
            );
            self.notes.push(Note { name: "recovered", index: Some(index), text });
        }
    }

    /// What can only be judged at the end of the log.
    pub(super) fn finish(&mut self, size: TreeSize, findings: &mut Findings) {
        let last = EntryIndex(size.0.saturating_sub(1));
        let count_note = |name, count: u64, text: String| (count > 0).then_some(Note { name, index: None, text });
        let cuts = self.cuts;
        let unknown = self.unknown_acts;
        for note in [
            count_note("cut", cuts, format!("{cuts} entries were shortened to fit; each says in which members")),
            count_note("unknown", unknown, format!("{unknown} entries record that a workload could not be told")),
        ] {
            self.notes.extend(note);
        }
        if size.0 == 0 {
            findings.push(Finding::GenesisMissing {});
        }
        if !self.sighted {
            return;
        }
        // A newer agent takes the rings over, with what is in them.
        let current = match &self.run {
            Run::Ended { capture, upgrade: true, .. } => Some(*capture),
            _ => self.capture(),
        };
        if let Run::Armed(start) = &self.run {
            let text = format!(
                "the log ends within the run of entry {}: the agent was still running, or it stopped without a word after entry {}, {}",
                start.index.0,
                last.0,
                iso(self.last_wall)
            );
            self.notes.push(Note { name: "open_end", index: Some(last), text });
        }
        for ((capture, cpu, class), numbers) in self.counters.sorted() {
            let end = numbers.generated.max(numbers.top());
            if Some(capture) == current {
                // The rings still held these when the log was sealed.
                self.in_flight = self.in_flight.saturating_add(numbers.missing_below(end));
                continue;
            }
            if self.cut_off.contains(&capture) {
                // Within the window that a note tells of: the power failed, or somebody made it look so.
                self.cut_off_events = self.cut_off_events.saturating_add(numbers.missing_below(end));
                continue;
            }
            for (first, last_number) in numbers.take_holes(end) {
                findings.push(Finding::NumberHole { index: last, cpu, class, first, last: last_number });
            }
        }
    }

    /// Every session, in the order of issue, with how many there were.
    pub(super) fn sessions(&self) -> (Vec<SessionReport>, u64) {
        let mut all: Vec<_> = self.sessions.iter().collect();
        all.sort_by_key(|(index, _)| **index);
        let sessions = all.into_iter().map(|(index, session)| SessionReport {
            id: session.id.clone(),
            identity: session.identity.clone(),
            issued: *index,
            revoked: session.ended,
            entries: session.next,
            wrong: session.wrong,
        });
        (sessions.collect(), self.sessions_total)
    }
}

impl Session {
    fn count(&mut self, kind: Kind) {
        if kind.is_kernel_event() {
            *self.counts.entry(kind).or_default() += 1;
        }
    }

    fn check_revoked(&mut self, index: EntryIndex, named: EntryIndex, revoked: &Revoked<'_>, findings: &mut Findings) {
        let mut wrong = |what| findings.push(Finding::RevokedWrong { index, what });
        let mut bad = false;
        let id: String = revoked.id.display().chars().take(256).collect();
        if id != self.id {
            bad = true;
            wrong("session id");
        }
        if revoked.entries != self.next {
            bad = true;
            wrong("number of entries");
        }
        let stated: HashMap<Kind, u64> = revoked.acts.iter().map(|act| (act.kind, act.count)).collect();
        if stated != self.counts || stated.len() != revoked.acts.len() {
            bad = true;
            wrong("count of acts by kind");
        }
        if revoked.hash != self.hash {
            bad = true;
            findings.push(Finding::SessionHashWrong { index, session: named });
        }
        self.wrong |= bad;
    }
}

/// The class that numbers events of this kind.
fn class_of(kind: Kind) -> Option<Class> {
    match kind {
        Kind::Fork | Kind::Exec | Kind::Exit => Some(Class::Process),
        Kind::Cgroup => Some(Class::Cgroup),
        Kind::Connect | Kind::ConnectDone => Some(Class::Network),
        Kind::Open => Some(Class::File),
        _ => None,
    }
}
