//! The verdict: per claim proved, not proved or failed, with the reasons, and what nobody promises.

use std::collections::BTreeMap;

use crate::checkpoint::Checkpoint;
use crate::note::VerifierKey;
use crate::record::{EntryIndex, KeyTier, LeafHash, PublicKey, WallTime};
use crate::trust::{Head, Trust, WitnessPolicy};

use super::Verified;
use super::attest::{Anchored, AttestationReport, Counted, Standing};
use super::audit::Audit;
use super::challenge::ChallengeReport;
use super::finding::{Claim, Finding};
use super::host::HostState;
use super::walk::Hidden;
use super::windows::Windows;
use super::witnesses::Witnessed;

/// Most findings kept; all are counted.
const FINDINGS_MAX: usize = 1_000;

/// Most notes kept; all are counted.
const NOTES_MAX: usize = 1_000;

/// Findings so far.
#[derive(Debug)]
pub(super) struct Findings {
    kept: Vec<Finding>,
    total: u64,
    /// Claims that failed, also by findings not kept.
    failed: Vec<Claim>,
}

impl Findings {
    pub(super) fn new() -> Self {
        Self { kept: Vec::new(), total: 0, failed: Vec::new() }
    }

    pub(super) fn push(&mut self, finding: Finding) {
        self.total += 1;
        let claim = finding.claim();
        if !self.failed.contains(&claim) && !matches!(finding, Finding::ClaimNotProved { .. }) {
            self.failed.push(claim);
        }
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(finding);
        }
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> &[Finding] {
        &self.kept
    }

    /// The first of them.
    pub(super) fn into_first(self) -> Option<Finding> {
        self.kept.into_iter().next()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    fn first_of(&self, claim: Claim) -> Option<&Finding> {
        self.kept.iter().find(|finding| finding.claim() == claim && !matches!(finding, Finding::ClaimNotProved { .. }))
    }
}

/// Something a reader should know that breaks no rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its name for machines.
    pub name: &'static str,
    /// The entry it is about.
    pub index: Option<EntryIndex>,
    /// For people.
    pub text: String,
}

/// Notes so far.
#[derive(Debug, Default)]
pub(super) struct Notes {
    kept: Vec<Note>,
    total: u64,
}

impl Notes {
    pub(super) fn push(&mut self, note: Note) {
        self.total += 1;
        if self.kept.len() < NOTES_MAX {
            self.kept.push(note);
        }
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> &[Note] {
        &self.kept
    }

    pub(super) fn push_once(&mut self, note: Note) {
        if !self.kept.iter().any(|kept| kept.name == note.name) {
            self.push(note);
        }
    }

    /// Takes over other notes, those that were not kept too.
    pub(super) fn append(&mut self, other: Self) {
        let dropped = other.total.saturating_sub(other.kept.len() as u64);
        self.extend(other.kept);
        self.total = self.total.saturating_add(dropped);
    }

    pub(super) fn extend(&mut self, notes: impl IntoIterator<Item = Note>) {
        for note in notes {
            self.push(note);
        }
    }
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds; how far.
    Proved(String),
    /// Nothing speaks against it, and it does not follow from the evidence; why.
    NotProved(String),
    /// The evidence contradicts it; how.
    Failed(String),
}

/// One claim and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimReport {
    /// Which.
    pub claim: Claim,
    /// Whether the trust file requires it.
    pub required: bool,
    /// What became of it.
    pub outcome: Outcome,
}

/// One session in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReport {
    /// Its id.
    pub id: String,
    /// The identity it was given.
    pub identity: String,
    /// Its `issued` entry.
    pub issued: EntryIndex,
    /// Its `revoked` entry.
    pub revoked: Option<EntryIndex>,
    /// Entries in its chain.
    pub entries: u64,
    /// Whether a finding is about it.
    pub wrong: bool,
    /// How many of them are not there any more.
    pub missing: u64,
    /// What a bundle shows of the time it lasted; none in a whole log.
    pub window: Option<SessionWindow>,
}

/// What a bundle shows of the time that a session lasted, by the control chain over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionWindow {
    /// Whether no entry of the control chain is left out of it.
    pub whole: bool,
    /// Whether it goes on until the agent had accounted for every event of the time.
    pub closed: bool,
    /// The latest entry that states the session's chain.
    pub stated: Option<EntryIndex>,
    /// Events lost in it.
    pub lost: u64,
    /// Those that were counted as the session's own.
    pub own: u64,
    /// Those of which nobody knows whose they were.
    pub unshared: u64,
    /// Acts whose workload could not be told.
    pub unknown: u64,
}

/// What part of the log a bundle holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleReport {
    /// How many entries.
    pub entries: u64,
    /// First and last entry of the control chain over the sessions.
    pub window: Option<(EntryIndex, EntryIndex)>,
    /// Heads of the trust file that it shows no root for.
    pub heads_left: usize,
}

impl SessionReport {
    /// Whether the session is complete as attributed.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let whole = |end: EntryIndex| {
            format!("{} entries from {} to {}, complete as attributed", self.entries, self.issued.0, end.0)
        };
        match (self.revoked, self.window) {
            _ if self.wrong => Outcome::Failed("see the findings".to_owned()),
            _ if self.missing > 0 => Outcome::NotProved(format!(
                "{} of its {} entries are pruned: what they said is not known, nor that the others are all that is left of it",
                self.missing, self.entries
            )),
            (_, Some(window)) if !window.whole => Outcome::Failed("see the findings".to_owned()),
            (None, None) => Outcome::NotProved("still open at the end of the log".to_owned()),
            (None, Some(window)) => Outcome::NotProved(match window.stated {
                Some(stated) => format!(
                    "its end is not in the bundle: it was open, or its last entries were left out; complete as attributed up to what entry {} states",
                    stated.0
                ),
                None => "its end is not in the bundle, and no heartbeat states how far it went".to_owned(),
            }),
            (Some(end), None) => Outcome::Proved(whole(end)),
            (Some(end), Some(window)) if !window.closed => Outcome::NotProved(format!(
                "{}; but the window has no end: another of the sessions is open, or the agent had not yet accounted for every event of its time, so that a loss may come later (make the bundle again after two heartbeats)",
                whole(end)
            )),
            (Some(end), Some(window)) => Outcome::Proved(format!(
                "{}; {} losses, {} unattributed acts in the window (lost: {} counted as its own, {} of which nobody knows whose)",
                whole(end),
                window.lost,
                window.unknown,
                window.own,
                window.unshared
            )),
        }
    }
}

/// What is not kept any more of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunedReport {
    /// How many entries.
    pub withheld: u64,
    /// The first of them.
    pub first: EntryIndex,
    /// The last of them.
    pub last: EntryIndex,
    /// The latest entry that permits it, up to which entry it does, and its rule; none when nothing permits it.
    pub permit: Option<(EntryIndex, EntryIndex, String)>,
    /// Whether it could be judged that what must be kept is there.
    pub judged: bool,
    /// Kernel numbers that are missing and may be those of withheld entries, beyond what was declared settled.
    pub numbers: u64,
    /// Sessions of which entries are missing.
    pub sessions: u64,
}

/// Which events were captured and are not in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losses {
    /// Declared lost by `gap` entries.
    pub events: u64,
    /// The same by cause, as `gap` entries say it.
    pub causes: BTreeMap<&'static str, u64>,
    /// Numbered, and not yet written when the log was sealed.
    pub in_flight: u64,
    /// Numbered, and never written, by runs that ended without `disarmed`.
    pub cut_off: u64,
}

/// What the log says of itself, for pinning it in a new trust file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The log key; its name is the origin.
    pub log_key: VerifierKey,
    /// Leaf hash of entry 0.
    pub genesis: LeafHash,
    /// Public key of the first epoch.
    pub first_epoch_key: PublicKey,
    /// Where the log key lives.
    pub tier: KeyTier,
    /// What a TPM vouches for.
    pub attestation: AttestationReport,
    /// The head.
    pub head: Head,
}

/// What is known besides the entries.
#[derive(Debug)]
pub(super) struct Besides {
    /// How far a quorum of trusted witnesses vouches for the history.
    pub(super) witnessed: Option<Witnessed>,
    /// What there is to say of a bundle, if it was one.
    pub(super) bundle: Option<BundleReport>,
    /// Heads of the trust file within what is pruned.
    pub(super) hidden: Hidden,
    /// Where the log key lives, and who vouches for it.
    pub(super) standing: Standing,
}

/// The verdict in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every claim that the trust file requires is proved.
    Proved,
    /// At least one finding.
    Findings,
    /// No finding, and no trust file that says whose log this is.
    SelfConsistent,
}

impl Verdict {
    /// The exit code of commands that print a report.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Proved => 0,
            Self::Findings => 1,
            Self::SelfConsistent => 2,
        }
    }

    /// Its name for machines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Findings => "findings",
            Self::SelfConsistent => "self_consistent",
        }
    }
}

/// Everything that verification found out.
#[derive(Debug, Clone)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// Every claim.
    pub claims: Vec<ClaimReport>,
    /// Findings, the first 1,000.
    pub findings: Vec<Finding>,
    /// How many there were.
    pub findings_total: u64,
    /// Notes, the first 1,000.
    pub notes: Vec<Note>,
    /// How many there were.
    pub notes_total: u64,
    /// Sessions, in order of issue.
    pub sessions: Vec<SessionReport>,
    /// How many there were.
    pub sessions_total: u64,
    /// What the log says of itself, as far as it could be read.
    pub observed: Option<Observed>,
    /// The checkpoint as read.
    pub checkpoint: Option<Checkpoint>,
    /// How far a quorum of the trusted witnesses vouches for this history.
    pub witnessed: Option<Witnessed>,
    /// The checkpoint, when the entries have its root and the trusted keys signed it.
    pub verified: Option<Verified<Checkpoint>>,
    /// Where the log key lives.
    pub tier: KeyTier,
    /// The same in words, and who vouches for it.
    pub standing: Standing,
    /// What a TPM vouches for; none where the log introduces no attestation key.
    pub attestation: Option<AttestationReport>,
    /// What came of the challenge, if one was given and the log could be gone through.
    pub challenge: Option<ChallengeReport>,
    /// Earliest and latest time by the host's clock.
    pub times: Option<(WallTime, WallTime)>,
    /// What the last run of the agent said it does not capture.
    pub not_covered: Vec<String>,
    /// What part of the log was seen, when it was a bundle.
    pub bundle: Option<BundleReport>,
    /// What of the log is not kept any more.
    pub pruned: Option<PrunedReport>,
    /// The times between runs of the agent.
    pub windows: Windows,
    /// Which events were captured and are not in the log.
    pub losses: Losses,
    /// What is known of the host.
    pub host: HostState,
    /// From where on not every entry could be read: the rules across entries were not applied from there on.
    pub sight_lost: Option<EntryIndex>,
}

impl Report {
    /// The report on a log whose checkpoint could not be read.
    pub(super) fn without_checkpoint(findings: Findings, trust: Option<&Trust>) -> Self {
        Self::stopped(findings, trust, "there is no checkpoint to check the entries against")
    }

    /// The report on a bundle that could not be read to its end.
    pub(super) fn unread(findings: Findings, trust: Option<&Trust>) -> Self {
        Self::stopped(findings, trust, "the bundle could not be read to its end")
    }

    fn stopped(findings: Findings, trust: Option<&Trust>, reason: &str) -> Self {
        let claims = Claim::ALL.map(|claim| ClaimReport {
            claim,
            required: trust.is_some_and(|trust| trust.required.contains(&claim)),
            outcome: match findings.first_of(claim) {
                Some(finding) => Outcome::Failed(finding.to_string()),
                None => Outcome::NotProved(reason.to_owned()),
            },
        });
        Self {
            verdict: Verdict::Findings,
            claims: claims.to_vec(),
            findings_total: findings.total,
            findings: findings.kept,
            notes: Vec::new(),
            notes_total: 0,
            sessions: Vec::new(),
            sessions_total: 0,
            observed: None,
            checkpoint: None,
            witnessed: None,
            verified: None,
            tier: KeyTier::T0,
            standing: Standing::unattested(),
            attestation: None,
            challenge: None,
            times: None,
            not_covered: Vec::new(),
            bundle: None,
            pruned: None,
            windows: Windows::default(),
            losses: Losses::default(),
            host: HostState::default(),
            sight_lost: Some(EntryIndex(0)),
        }
    }

    pub(super) fn new(
        checkpoint: Checkpoint,
        verified: Option<Verified<Checkpoint>>,
        observed: Option<Observed>,
        audit: Audit,
        mut findings: Findings,
        trust: Option<&Trust>,
        Besides { witnessed, bundle, hidden, standing }: Besides,
    ) -> Self {
        let (mut sessions, sessions_total) = audit.sessions.reports();
        for session in &mut sessions {
            session.window = audit.part.as_ref().and_then(|part| part.session(session.issued));
        }
        let pruned = audit.pruning.report(audit.coverage.at_edge, audit.sessions.pruned());
        let facts = Facts {
            bundle,
            pruned: pruned.as_ref(),
            hidden,
            standing: &standing,
            checkpoint: &checkpoint,
            audit: &audit,
            witnessed: witnessed.as_ref(),
            trust,
            sessions: &sessions,
            sessions_total,
        };
        let mut claims = Vec::new();
        for claim in Claim::ALL {
            let outcome = match (findings.failed.contains(&claim), findings.first_of(claim)) {
                (true, Some(finding)) => Outcome::Failed(finding.to_string()),
                (true, None) => Outcome::Failed("see the findings".to_owned()),
                (false, _) if claim != Claim::Integrity && findings.failed.contains(&Claim::Integrity) => {
                    Outcome::NotProved("the integrity of the log failed".to_owned())
                }
                (false, _) => facts.outcome(claim),
            };
            // No part of a log can prove coverage: it is required of whole logs.
            let asked = bundle.is_none() || claim != Claim::Coverage;
            let required = asked && trust.is_some_and(|trust| trust.required.contains(&claim));
            claims.push(ClaimReport { claim, required, outcome });
        }
        // Beside other findings this would only repeat them.
        let unbroken = findings.total == 0;
        for report in claims.iter().filter(|report| report.required && unbroken) {
            if let Outcome::NotProved(reason) = &report.outcome {
                findings.push(Finding::ClaimNotProved { claim: report.claim.name(), reason: reason.clone() });
            }
        }
        let verdict = match (findings.total, trust.is_some()) {
            (0, true) => Verdict::Proved,
            (0, false) => Verdict::SelfConsistent,
            _ => Verdict::Findings,
        };
        Self {
            verdict,
            claims,
            findings: findings.kept,
            findings_total: findings.total,
            sessions,
            sessions_total,
            observed,
            witnessed,
            verified,
            tier: standing.tier,
            standing,
            challenge: audit.attested.challenge,
            attestation: (!audit.attested.report.keys.is_empty()).then_some(audit.attested.report),
            times: audit.times,
            notes_total: audit.notes.total,
            notes: audit.notes.kept,
            not_covered: audit.coverage.not_covered,
            bundle,
            pruned,
            sight_lost: audit.sight_lost,
            windows: audit.coverage.windows,
            losses: audit.coverage.losses,
            host: audit.host,
            checkpoint: Some(checkpoint),
        }
    }
}

/// What claims are judged by when no finding breaks them.
struct Facts<'f> {
    checkpoint: &'f Checkpoint,
    audit: &'f Audit,
    witnessed: Option<&'f Witnessed>,
    trust: Option<&'f Trust>,
    sessions: &'f [SessionReport],
    sessions_total: u64,
    bundle: Option<BundleReport>,
    pruned: Option<&'f PrunedReport>,
    hidden: Hidden,
    standing: &'f Standing,
}

impl Facts<'_> {
    fn outcome(&self, claim: Claim) -> Outcome {
        match self.bundle.and_then(|bundle| self.of_bundle(bundle, claim)) {
            Some(outcome) => outcome,
            None => self.of_log(claim),
        }
    }

    /// What a bundle shows otherwise than a whole log.
    fn of_bundle(&self, bundle: BundleReport, claim: Claim) -> Option<Outcome> {
        let BundleReport { entries, heads_left, .. } = bundle;
        match claim {
            Claim::Integrity => Some(Outcome::Proved(format!(
                "{entries} entries are in the one permitted form and stand in the log of {} entries whose root hash the checkpoint states; the others are withheld",
                self.checkpoint.size.0
            ))),
            Claim::Continuity if self.trust.is_some() && heads_left > 0 => Some(Outcome::NotProved(format!(
                "the bundle does not show that it continues {heads_left} of the heads that the trust file remembers: have it made again with that trust file (`affiant bundle --trust`)"
            ))),
            Claim::Continuity => self.trust.map(|trust| {
                let (anchored, alone) = beyond(trust, &self.audit.attested.report);
                Outcome::Proved(format!(
                    "one history from the genesis entry that the trust file names, through {} remembered heads{anchored}; entries from {alone} to {} rest on the log key alone; runs that ended without a word outside the time of the sessions are withheld",
                    trust.heads.len(),
                    self.checkpoint.size.0
                ))
            }),
            Claim::Coverage => Some(Outcome::NotProved(format!(
                "the kernel numbers of other workloads' events are withheld, so that a hole in the numbering cannot show: the bundle has what the agent itself declared ({} lost, {} windows); the whole log proves more",
                self.audit.coverage.losses.events, self.audit.coverage.windows.total
            ))),
            Claim::Sessions => Some(self.sessions_of_bundle()),
            _ => None,
        }
    }

    fn sessions_of_bundle(&self) -> Outcome {
        for session in self.sessions {
            if let Outcome::NotProved(reason) | Outcome::Failed(reason) = session.outcome() {
                return Outcome::NotProved(format!("session {}: {reason}", session.id));
            }
        }
        Outcome::Proved(format!(
            "{} sessions, each complete as attributed, with the whole control chain over their time",
            self.sessions_total
        ))
    }

    fn of_log(&self, claim: Claim) -> Outcome {
        let size = self.checkpoint.size.0;
        let no_trust = "no trust file says whose log this is";
        match claim {
            Claim::Integrity => Outcome::Proved(match self.pruned {
                None => format!(
                    "all {size} entries are in the one permitted form, follow each other, and have the root hash of the checkpoint"
                ),
                Some(pruned) => format!(
                    "{} of {size} entries are here and in the one permitted form; with the hashes of the others, which are pruned, they have the root hash of the checkpoint; the control chain is whole, and {}",
                    size.saturating_sub(pruned.withheld),
                    if pruned.judged {
                        "so is what else must be kept"
                    } else {
                        "whether what else must be kept is there was not judged"
                    }
                ),
            }),
            Claim::Authenticity => match self.trust {
                None => Outcome::NotProved(format!("{no_trust}: the signer is not established")),
                Some(trust) => Outcome::Proved(format!(
                    "signed by the log key that the trust file names ({}) and by the key of the epoch; tier {}; where that key lives: {}; who vouches for it: {}",
                    trust.log_key,
                    self.standing.tier.as_str(),
                    self.standing.lives,
                    self.standing.vouched
                )),
            },
            Claim::Continuity => match self.trust {
                None => Outcome::NotProved(no_trust.to_owned()),
                Some(_) if self.hidden.alone > 0 => Outcome::NotProved(format!(
                    "{} heads that the trust file remembers fall within what is pruned, and no later one of it shows that this is the same history",
                    self.hidden.alone
                )),
                Some(trust) => {
                    let may_miss = self.audit.coverage.windows.may_miss;
                    Outcome::Proved(continuity(trust, size, self.hidden.heads, may_miss, &self.audit.attested.report))
                }
            },
            Claim::NonEquivocation => self.non_equivocation(size),
            Claim::HostState => self.host_state(),
            Claim::TimeBounds => {
                Outcome::NotProved("the only clock in the log is the host's own, which root can set".to_owned())
            }
            Claim::Coverage => self.coverage(),
            Claim::Sessions => self.sessions(),
        }
    }

    fn host_state(&self) -> Outcome {
        if !self.audit.is_sighted() {
            return Outcome::NotProved("not every entry could be read".to_owned());
        }
        let policy = self.trust.map(|trust| trust.registers.as_slice()).unwrap_or_default();
        // Named by the trust file, or vouched for by certificates that it believes: each of the keys.
        let is_believed = self.audit.attested.report.is_believed() || self.standing.tier > KeyTier::T0;
        self.audit.host.outcome(policy, is_believed.then_some(self.standing.vouched.as_str()))
    }

    fn non_equivocation(&self, size: u64) -> Outcome {
        let could = if self.audit.attested.report.keys.is_empty() {
            "whoever holds its key could keep a second one"
        } else {
            "whoever holds its key could keep a second one; a TPM alone does not show a second log beside this one, nor a state \
             directory and the state of a (virtual) TPM that were put back together"
        };
        let Some(policy) = self.trust.and_then(|trust| trust.witnesses.as_ref()).map(WitnessPolicy::policy) else {
            return Outcome::NotProved(format!(
                "the trust file names no witness that would have seen this log: {could}"
            ));
        };
        if !policy.needs_witnesses() {
            return Outcome::NotProved(format!("the trust file asks for no witness (quorum none): {could}"));
        }
        let Some(Witnessed { size: up_to, witnesses, since }) = self.witnessed else {
            return Outcome::NotProved(format!(
                "no quorum of the witnesses that the trust file names cosigned a checkpoint that this log contains: {could}"
            ));
        };
        let after = if up_to.0 == size {
            String::new()
        } else {
            format!("; entries from {} to {size} have been seen by no quorum yet", up_to.0)
        };
        Outcome::Proved(format!(
            "a quorum of the trusted witnesses ({}) cosigned this history up to {} entries, the earliest of them at {} by its clock{after}",
            witnesses.join(", "),
            up_to.0,
            iso(WallTime(since.saturating_mul(1_000_000_000)))
        ))
    }

    fn coverage(&self) -> Outcome {
        let audit = self.audit;
        let coverage = &audit.coverage;
        if !audit.is_sighted() {
            return Outcome::NotProved("not every entry could be read".to_owned());
        }
        if coverage.overflowed {
            return Outcome::NotProved("the log speaks of more counters than are followed".to_owned());
        }
        if coverage.runs == 0 {
            return Outcome::NotProved("no run of the agent is in the log".to_owned());
        }
        let from = match self.pruned {
            None => String::new(),
            Some(pruned) => format!(
                "before entry {} {} entries are pruned, and that they account for what was declared settled is not shown; from there on, ",
                pruned.last.0.saturating_add(1),
                pruned.withheld
            ),
        };
        let mut text = format!(
            "{from}while the agent ran, every event that its hooks numbered is in the log or counted as lost; {} counted as lost",
            coverage.losses.events
        );
        if coverage.losses.in_flight > 0 {
            text.push_str(&format!(
                ", {} numbered but not yet written when the log was sealed",
                coverage.losses.in_flight
            ));
        }
        if coverage.losses.cut_off > 0 {
            text.push_str(&format!(
                ", {} numbered and never written by runs that were cut off",
                coverage.losses.cut_off
            ));
        }
        if coverage.at_edge > 0 {
            text.push_str(&format!(", {} that may be among the pruned entries", coverage.at_edge));
        }
        text.push_str(&format!("; nothing was observed for {} in all", seconds(coverage.windows.not_observed.total())));
        Outcome::Proved(text)
    }

    fn sessions(&self) -> Outcome {
        if !self.audit.is_sighted() {
            return Outcome::NotProved("not every entry could be read".to_owned());
        }
        let open = self.sessions.iter().filter(|session| session.revoked.is_none()).count();
        let total = self.sessions_total;
        Outcome::Proved(match self.pruned.map_or(0, |pruned| pruned.sessions) {
            0 => format!("{total} sessions, {open} of them still open at the end; the others complete as attributed"),
            pruned => format!(
                "{total} sessions, {open} of them still open at the end; entries of {pruned} are pruned, and these are not shown to be complete; the others complete as attributed"
            ),
        })
    }
}

fn continuity(trust: &Trust, size: u64, hidden: usize, may_miss: u64, attested: &AttestationReport) -> String {
    let pruned = match hidden {
        0 => String::new(),
        _ => format!(" ({hidden} more fall within what is pruned, and rest on the later ones)"),
    };
    let windows = match may_miss {
        0 => "no run ended without a word".to_owned(),
        1 => "in 1 window, listed below, entries could be missing".to_owned(),
        several => format!("in {several} windows, listed below, entries could be missing"),
    };
    let heads = trust.heads.len().saturating_sub(hidden);
    let (anchored, alone) = beyond(trust, attested);
    format!(
        "one history from the genesis entry that the trust file names, through {heads} remembered heads{pruned}{anchored}; entries from {alone} to {size} rest on the log key alone; {windows}"
    )
}

/// How far the history is anchored, and from where on neither a remembered head nor an anchor holds it.
fn beyond(trust: &Trust, attested: &AttestationReport) -> (String, u64) {
    let last = trust.heads.last().map_or(0, |head| head.size.0);
    match attested.anchored {
        None => (String::new(), last),
        Some(anchored) => (format!("; {}", extent(&anchored, attested)), last.max(anchored.size.0)),
    }
}

/// How far the history is anchored and counted.
pub(super) fn extent(anchored: &Anchored, attested: &AttestationReport) -> String {
    let Anchored { size, clock, .. } = anchored;
    let counted = match attested.counted {
        Some(Counted { size, value }) => {
            format!("counted up to {} entries by the value {value} of its counter", size.0)
        }
        None => "not counted".to_owned(),
    };
    format!(
        "anchored up to {} entries by {} quotes of the attestation key, the last at {} ms of the TPM's clock after {} resets; {counted}; {} of {} epochs are bound to that key",
        size.0, attested.anchors, clock.clock, clock.reset_count, attested.epochs_bound, attested.epochs
    )
}

/// A time in seconds and milliseconds.
pub(super) fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:03} s", nanoseconds / 1_000_000_000, nanoseconds / 1_000_000 % 1000)
}

/// A time as RFC 3339 to the millisecond. Days to date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
pub(super) fn iso(time: WallTime) -> String {
    let seconds = time.0 / 1_000_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        time.0 / 1_000_000 % 1000
    )
}
