//! The rules over entries, applied to one entry after the other: place, order, keys and references here, sessions and
//! coverage in their own modules.
//!
//! An entry that cannot be read, or a missing bundle, ends the rules that count across entries ([`Audit::lose_sight`]):
//! what would follow is one damage told a hundred times. The rules over single entries and over the tree go on.

use std::collections::HashSet;

use crate::attest::pcr::RegisterPolicy;
use crate::epoch::EpochStatement;
use crate::note::{KeyName, VerifierKey, verify_ed25519};
use crate::record::{
    Blob, Body, ControlNumber, DecodeError, EntryIndex, Epoch, Erased, Genesis, KeyTier, Kind, LeafHash, PublicKey,
    RECORD_VERSION, Record, Recovered, RecoveryCause, SecretUse, Succession, TreeSize, WallTime,
};

use crate::trust::Trust;

use super::Options;
use super::attest::Attested;
use super::blobs::Blobs;
use super::boot::{Boots, Kept};
use super::coverage::Coverage;
use super::finding::Finding;
use super::host::HostState;
use super::part::Part;
use super::pruned::Pruning;
use super::report::{Findings, Note, Notes, iso};
use super::sessions::Sessions;
use super::values::Values;
use super::windows::Alive;

/// Smallest step back of the wall clock that is told, in nanoseconds: 100 ms is beyond what NTP slews between two entries
/// and below what anybody would set a clock back for.
const CLOCK_STEP_MIN: i128 = 100_000_000;

/// Most workloads and unknown acts remembered for checking references to them: 8 bytes each.
const REFERENCES_MAX: usize = 4_000_000;

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

#[derive(Debug)]
pub(super) struct Audit {
    origin: KeyName,
    /// From where on not every entry could be read.
    pub(super) sight_lost: Option<EntryIndex>,
    /// Whether an entry of a newer version was reported.
    newer_version: bool,
    /// By how much the last entry's own index differs from its position.
    index_shift: u64,
    control_next: u64,
    pub(super) sessions: Sessions,
    pub(super) coverage: Coverage,
    /// What a TPM vouches for.
    pub(super) attested: Attested,
    workloads: Targets,
    unknowns: Targets,
    policies: Targets,
    /// Committed values; nothing once they are too many to follow.
    values: Option<Values>,
    blobs: Blobs,
    log_key: Option<VerifierKey>,
    /// The highest tier that `genesis` or `armed` claims for the log key.
    pub(super) tier_claimed: KeyTier,
    first_epoch_key: Option<PublicKey>,
    epoch: Option<(u64, PublicKey)>,
    /// What was quoted and measured, until it is judged.
    boots: Boots,
    /// What it says of the host.
    pub(super) host: HostState,
    pub(super) notes: Notes,
    pub(super) times: Option<(WallTime, WallTime)>,
    /// Wall time minus boot time of the entry before.
    clock_stand: Option<i128>,
    wall_regressions: u64,
    cuts: u64,
    unknown_acts: u64,
    /// What of the log is seen, when it is a bundle.
    pub(super) part: Option<Part>,
    /// What was pruned.
    pub(super) pruning: Pruning,
}

impl Audit {
    /// Of the sessions of a bundle.
    pub(super) fn of_bundle(
        origin: &KeyName,
        options: Options,
        sessions: &[EntryIndex],
        trust: Option<&Trust>,
    ) -> Self {
        Self {
            attested: Attested::new(origin, true, trust, options.challenge),
            sessions: Sessions::of_bundle(),
            coverage: Coverage::new(options.strict, true),
            part: Some(Part::new(sessions)),
            boots: Boots::of_part(),
            ..Self::new(origin, options, trust)
        }
    }

    pub(super) fn new(origin: &KeyName, options: Options, trust: Option<&Trust>) -> Self {
        Self {
            origin: origin.clone(),
            sight_lost: None,
            newer_version: false,
            index_shift: 0,
            control_next: 0,
            sessions: Sessions::default(),
            coverage: Coverage::new(options.strict, false),
            attested: Attested::new(origin, false, trust, options.challenge),
            part: None,
            workloads: Targets::default(),
            unknowns: Targets::default(),
            policies: Targets::default(),
            values: Some(Values::default()),
            blobs: Blobs::new(options.strict),
            log_key: None,
            tier_claimed: KeyTier::T0,
            first_epoch_key: None,
            epoch: None,
            boots: Boots::default(),
            host: HostState::default(),
            notes: Notes::default(),
            times: None,
            clock_stand: None,
            wall_regressions: 0,
            cuts: 0,
            unknown_acts: 0,
            pruning: Pruning::default(),
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

    /// Whether every entry could be read.
    pub(super) fn is_sighted(&self) -> bool {
        self.sight_lost.is_none()
    }

    /// Entries from here on could not be read: what counts across entries is not checked any more.
    pub(super) fn lose_sight(&mut self, index: EntryIndex) {
        self.sight_lost.get_or_insert(index);
    }

    /// Takes over the notes about what a TPM attests.
    pub(super) fn take_notes(&mut self) {
        self.notes.append(std::mem::take(&mut self.attested.notes));
    }

    /// The committed values of all entries, when these could be followed.
    pub(super) fn take_values(&mut self) -> Option<Values> {
        self.values.take()
    }

    /// Entries from `first` on are withheld, so many.
    pub(super) fn withheld(&mut self, first: EntryIndex, count: u64, findings: &mut Findings) {
        if first.0 == 0 {
            findings.push(Finding::GenesisMissing {});
        }
        if let Some(values) = &mut self.values {
            values.withheld(first.0.saturating_add(count));
        }
        self.pruning.withheld(first, count);
        self.sessions.withheld(count);
        self.coverage.withheld(count);
    }

    /// The contents that judging what was booted will ask for.
    pub(super) fn host_contents(&self) -> Kept {
        self.boots.contents()
    }

    /// Judges what was booted, with contents that lie beside the entries: nothing where one is not there.
    ///
    /// # Errors
    /// What `read` answers.
    pub(super) fn judge_host<E>(
        &mut self,
        policy: &[RegisterPolicy],
        read: impl FnMut(Blob) -> Result<Option<Vec<u8>>, E>,
        findings: &mut Findings,
    ) -> Result<(), E> {
        self.host = std::mem::take(&mut self.boots).judge(policy, read, &mut self.notes, findings)?;
        Ok(())
    }

    /// The blobs that all entries refer to.
    pub(super) fn take_blobs(&mut self) -> Blobs {
        std::mem::replace(&mut self.blobs, Blobs::new(false))
    }

    /// Applies every rule to the next entry.
    pub(super) fn entry(
        &mut self,
        index: EntryIndex,
        record: &Result<Record<'_>, DecodeError>,
        leaf: LeafHash,
        previous: Option<LeafHash>,
        findings: &mut Findings,
    ) {
        match record {
            Ok(record) => self.record(index, record, leaf, previous, findings),
            Err(reason) => {
                // All that follow are of the newer version too: once is enough.
                let newer = matches!(reason, DecodeError::Version { seen } if *seen > RECORD_VERSION);
                if !(newer && self.newer_version) {
                    findings.push(Finding::EntryMalformed { index, reason: reason.clone() });
                }
                self.newer_version |= newer;
                self.lose_sight(index);
            }
        }
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
        if let Some(values) = &mut self.values
            && !values.entry(record)
        {
            self.values = None;
            let text =
                format!("from entry {} on there are too many committed values to follow: none is judged", index.0);
            self.notes.push(Note { name: "values_unjudged", index: Some(index), text });
        }
        self.blobs.entry(record);
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
        if self.is_sighted() {
            self.pruning.entry(index, record);
            self.control_chain(index, record, findings);
            self.sessions.entry(index, record, leaf, findings);
            self.coverage.kernel_number(index, record, findings);
            self.body(index, record, findings);
        }
    }

    /// Applies the rules of a bundle to its next entry.
    pub(super) fn disclosed(
        &mut self,
        record: &Record<'_>,
        leaf: LeafHash,
        previous: Option<LeafHash>,
        findings: &mut Findings,
    ) {
        let index = record.index();
        if previous.is_some_and(|previous| previous != record.placement.previous) {
            findings.push(Finding::PreviousMismatch { index });
        }
        match record.body() {
            Body::Genesis(genesis) => self.genesis(index, genesis, findings),
            Body::Epoch(epoch) => self.epoch(index, index, epoch, findings),
            _ => {}
        }
        self.blobs.entry(record);
        let Some(part) = &mut self.part else { return };
        if !part.entry(record, findings) {
            return;
        }
        let session = part.session_of(record);
        // What follows an `issued` that was left out would only repeat that.
        let begun = session.is_none_or(|session| session >= index || part.is_issued(session));
        self.cuts += u64::from(!record.cut.is_empty());
        self.clock(index, record);
        if begun && (session.is_some() || record.draft.session.is_none()) {
            self.sessions.entry(index, record, leaf, findings);
        }
        self.coverage.kernel_number(index, record, findings);
        self.statements(index, record, findings);
        let rows = match record.body() {
            Body::Heartbeat(heartbeat) => &heartbeat.sessions,
            Body::Disarmed(disarmed) => &disarmed.sessions,
            _ => return,
        };
        if let Some(part) = &mut self.part {
            rows.iter().for_each(|row| part.stated(index, row.session));
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
        self.tier_claimed = self.tier_claimed.max(genesis.key_tier);
        self.boots.genesis(index, genesis.boot_id.as_bytes());
        if let Some(predecessor) = &genesis.predecessor {
            let text = format!(
                "this log continues {} from {} entries on; that log must be verified by itself",
                predecessor.origin.display(),
                predecessor.size.0
            );
            self.notes.push(Note { name: "predecessor", index: Some(index), text });
        }
    }

    fn epoch(&mut self, index: EntryIndex, own: EntryIndex, epoch: &Epoch<'_>, findings: &mut Findings) {
        if self.is_sighted() {
            let expected = self.epoch.map_or(0, |(number, _)| number.saturating_add(1));
            if epoch.number.0 != expected {
                findings.push(Finding::EpochWrong { index, what: "number" });
            }
        }
        if epoch.first_size != own.size_including() {
            findings.push(Finding::EpochWrong { index, what: "first size" });
        }
        let is_first = self.first_epoch_key.is_none();
        let how_fits = (epoch.how == Succession::First) == is_first || !self.is_sighted();
        let signed_fits = (epoch.how == Succession::Continued) == epoch.sig_previous.is_some();
        if epoch.attest.is_some() != epoch.sig_attest.is_some() {
            findings.push(Finding::EpochWrong { index, what: "attestation" });
        }
        if !(how_fits && signed_fits) {
            findings.push(Finding::EpochWrong { index, what: "succession" });
        }
        let statement = EpochStatement::of(self.origin.as_str(), epoch).digest();
        if let Some(key) = &self.log_key
            && !key.verifies(&statement, &epoch.sig_log)
        {
            findings.push(Finding::EpochForged { index, number: epoch.number, by: "the log key" });
        }
        if let (Some(signature), Some((_, key)), true) = (&epoch.sig_previous, self.epoch, self.is_sighted())
            && !verify_ed25519(key, &statement, signature)
        {
            findings.push(Finding::EpochForged { index, number: epoch.number, by: "the previous epoch's key" });
        }
        if epoch.how == Succession::Orphan {
            let vouchers = match self.attested.step_for(epoch).filter(|_| self.is_sighted()) {
                Some(value) => format!("the log key vouches for, and a step of the TPM's counter to {value}"),
                None => "only the log key vouches for".to_owned(),
            };
            let text = format!(
                "epoch {} begins at entry {} without the signature of the epoch before: a start of the agent, or a discontinuity that {vouchers}",
                epoch.number.0, index.0
            );
            self.notes.push(Note { name: "orphan_epoch", index: Some(index), text });
        }
        if self.is_sighted() {
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

    fn body(&mut self, index: EntryIndex, record: &Record<'_>, findings: &mut Findings) {
        let draft = &record.draft;
        if let Some(workload) = draft.workload
            && !self.workloads.may_have(workload)
        {
            findings.push(Finding::ReferenceWrong { index, to: workload });
        }
        if let Some(verdict) = &draft.verdict
            && !self.policies.may_have(verdict.set)
        {
            findings.push(Finding::ReferenceWrong { index, to: verdict.set });
        }
        self.statements(index, record, findings);
        match record.body() {
            Body::Policy(_) => self.policies.insert(record.index()),
            Body::Hold(hold) => self.sessions.hold(index, hold, self.pruning.permitted(), findings),
            Body::Workload(_) => self.workloads.insert(record.index()),
            Body::Unknown(_) => self.unknowns.insert(record.index()),
            Body::Identified(identified) => {
                if !self.unknowns.may_have(identified.of) {
                    findings.push(Finding::ReferenceWrong { index, to: identified.of });
                }
                if !self.workloads.may_have(identified.workload) {
                    findings.push(Finding::ReferenceWrong { index, to: identified.workload });
                }
            }
            _ => {}
        }
    }

    /// What the agent says of itself.
    fn statements(&mut self, index: EntryIndex, record: &Record<'_>, findings: &mut Findings) {
        let draft = &record.draft;
        let now = Alive { index, boot: draft.boot, wall: draft.wall };
        self.attested.entry(index, record, &mut self.coverage.windows, findings);
        if let Body::Anchor(anchor) = record.body()
            && self.attested.quoted == Some(index)
        {
            self.boots.quoted(index, &anchor.pcrs);
        }
        match record.body() {
            // What is erased, or is said of an act, comes after it.
            Body::Erased(Erased { of, .. }) | Body::Secret(SecretUse { of, .. }) if *of >= record.index() => {
                findings.push(Finding::ReferenceWrong { index, to: *of });
            }
            Body::FileFolded(folded) => self.coverage.folded(index, folded, findings),
            Body::Armed(armed) => {
                self.boots.armed(index, armed);
                self.tier_claimed = self.tier_claimed.max(armed.key_tier);
                self.coverage.armed(armed, now);
            }
            Body::Heartbeat(heartbeat) => {
                self.coverage.heartbeat(heartbeat, now, findings);
                self.sessions.stated(index, &heartbeat.sessions, findings);
            }
            Body::Disarmed(disarmed) => {
                self.coverage.disarmed(disarmed, now, findings);
                self.sessions.stated(index, &disarmed.sessions, findings);
            }
            Body::Measured(measured) => self.boots.measured(index, measured),
            Body::Gap(gap) => self.coverage.gap(index, gap, &mut self.notes, findings),
            Body::Recovered(recovered) => self.recovered(index, recovered),
            Body::Unknown(_) => self.unknown_acts += 1,
            Body::Revoked(_) if draft.session.is_none() => {
                findings.push(Finding::RevokedWrong { index, what: "session: it names none" });
            }
            _ => {}
        }
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

    /// What can only be judged at the end of the log, or of the bundle.
    pub(super) fn finish(&mut self, size: TreeSize, findings: &mut Findings) {
        if let Some(part) = &mut self.part {
            part.finish(findings);
        }
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
        if !self.is_sighted() {
            return;
        }
        self.attested.finish(&mut self.coverage.windows);
        self.coverage.finish(last, findings);
        if self.part.is_none() {
            if self.pruning.finish(&mut self.notes, findings) {
                self.sessions.finish(self.pruning.permitted().0, findings);
            }
            if self.coverage.at_edge > 0 {
                let text = format!(
                    "{} kernel numbers at the edge of the pruned part cannot be followed: their entries may be pruned",
                    self.coverage.at_edge
                );
                self.notes.push(Note { name: "pruned_numbers", index: None, text });
            }
        }
    }
}
