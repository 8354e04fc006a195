//! The report as text for people and as JSON for programs.
//!
//! The text is written for somebody who has to rely on it and does not know the format: what is proved, what is not and why,
//! who signed, where entries could be missing. The JSON has the form of `docs/report.schema.json`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::record::{KeyTier, WallTime, shown};

use super::attest::{Anchored, AttestationReport};
use super::challenge::ChallengeReport;
use super::finding::Finding;
use super::report::{Outcome, Report, Verdict, extent, iso, seconds};
use super::windows::{Edge, Window, WindowKind};

/// Version of the JSON report: its names are stable; more may be added without a new version.
pub(super) const REPORT_VERSION: u32 = 1;

/// What no log of this kind promises.
const NOT_PROMISED: &[&str] = &[
    "what happened after somebody became root on the host: from then on entries are only as good as root's honesty",
    "what a compromised kernel kept from the agent",
    "what happened before the agent was armed, while it was not running, or on machines that never ran it",
    "the contents of files and of encrypted traffic",
    "that what a workload says of itself (`claims`) is true",
];

/// Most sessions, notes, windows and findings printed; JSON has the rest.
const LINES_MAX: usize = 20;

impl Outcome {
    /// The outcome as the end of a sentence that begins with the name of the claim.
    fn sentence(&self) -> String {
        match self {
            Self::Proved(text) => format!("PROVED: {text}."),
            Self::NotProved(text) => format!("not proved, because {text}."),
            Self::Failed(text) => format!("FAILED, because {text}."),
        }
    }

    fn json(&self) -> (&'static str, &str) {
        match self {
            Self::Proved(text) => ("proved", text),
            Self::NotProved(text) => ("not_proved", text),
            Self::Failed(text) => ("failed", text),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.headline(out)?;
        writeln!(out, "\nWhat was checked (* required by the trust file):")?;
        for report in &self.claims {
            let mark = if report.required { '*' } else { ' ' };
            writeln!(out, "{mark} {}: {}", report.claim.name(), shown(&report.outcome.sentence()))?;
        }
        if !self.findings.is_empty() {
            writeln!(out, "\nFindings ({}):", self.findings_total)?;
            for finding in self.findings.iter().take(LINES_MAX) {
                writeln!(out, "  {}: {}", finding.name(), shown(&finding.to_string()))?;
            }
            more(out, self.findings_total, "findings")?;
        }
        if let Some(index) = self.sight_lost.filter(|_| self.checkpoint.is_some()) {
            writeln!(
                out,
                "\nFrom entry {} on NOTHING WAS JUDGED but single entries and their hashes: an entry or bundle there could not be \
                 read, so chains, sessions, counters and references beyond it were not followed.",
                index.0
            )?;
        }
        self.attested(out)?;
        self.challenged(out)?;
        self.observation(out)?;
        if !self.host.boots.is_empty() {
            writeln!(out, "\nWhat was booted ({}):", self.host.boots_total)?;
            for boot in self.host.boots.iter().take(LINES_MAX) {
                writeln!(out, "  {boot}")?;
            }
            more(out, self.host.boots_total, "boots")?;
        }
        if !self.sessions.is_empty() {
            writeln!(out, "\nSessions ({}):", self.sessions_total)?;
            for session in self.sessions.iter().take(LINES_MAX) {
                writeln!(out, "  {} {}: {}", session.id, session.identity, session.outcome().sentence())?;
            }
            more(out, self.sessions_total, "sessions")?;
        }
        if !self.notes.is_empty() {
            writeln!(out, "\nNotes ({}):", self.notes_total)?;
            for note in self.notes.iter().take(LINES_MAX) {
                writeln!(out, "  {}: {}", note.name, note.text)?;
            }
            more(out, self.notes_total, "notes")?;
        }
        self.not_proved(out)
    }
}

fn more(out: &mut fmt::Formatter<'_>, total: u64, what: &str) -> fmt::Result {
    let rest = total.saturating_sub(LINES_MAX as u64);
    if rest > 0 { writeln!(out, "  ... and {rest} more {what}: see --json") } else { Ok(()) }
}

impl Report {
    fn headline(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = match &self.checkpoint {
            Some(checkpoint) => format!("{}, {} entries", shown(checkpoint.origin.as_str()), checkpoint.size.0),
            None => "a log without a readable checkpoint".to_owned(),
        };
        writeln!(out, "Log: {log}")?;
        if let Some(checkpoint) = &self.checkpoint {
            writeln!(out, "Root hash: {}", STANDARD.encode(checkpoint.root.0))?;
        }
        if let Some(bundle) = &self.bundle {
            let window = match bundle.window {
                Some((first, last)) => format!(", with the whole control chain from entry {} to {}", first.0, last.0),
                None => String::new(),
            };
            writeln!(out, "Evidence bundle: {} of these entries{window}; the others are withheld", bundle.entries)?;
        }
        if let Some(pruned) = &self.pruned {
            let by = match &pruned.permit {
                Some((index, first, rule)) => format!(
                    "entry {} says that those before entry {} are not kept any more, by rule {:?}",
                    index.0, first.0, rule
                ),
                None => "nothing says that they may be".to_owned(),
            };
            writeln!(
                out,
                "Pruned: {} entries from entry {} to {} are not here, only their hashes; {}",
                pruned.withheld,
                pruned.first.0,
                pruned.last.0,
                shown(&by)
            )?;
        }
        if let Some((first, last)) = self.times {
            writeln!(out, "Time, by the host's own clock: {} to {}", iso(first), iso(last))?;
        }
        match (&self.verified, &self.observed) {
            (Some(_), Some(observed)) => {
                writeln!(
                    out,
                    "Signed by: the key that the trust file names, {}",
                    shown(&observed.log_key.to_string())
                )?;
            }
            (None, Some(observed)) => {
                writeln!(out, "Signed by: not established; the log names {}", shown(&observed.log_key.to_string()))?;
            }
            (Some(_), None) => writeln!(out, "Signed by: the key that the trust file names")?,
            (None, None) => writeln!(out, "Signed by: not established")?,
        }
        match self.verdict {
            // Coverage is asked of whole logs only: a part cannot show that no number is missing.
            Verdict::Proved => writeln!(
                out,
                "\nVerdict: every claim that the trust file requires{} is proved, at tier {}.",
                if self.bundle.is_some() { " of a part of a log" } else { "" },
                self.tier.as_str()
            ),
            Verdict::Findings => writeln!(
                out,
                "\nVerdict: NOT in order: {} finding{}.",
                self.findings_total,
                plural(self.findings_total)
            ),
            Verdict::SelfConsistent => writeln!(
                out,
                "\nVerdict: self-consistent, signer not established: without a trust file nothing says whose log this is."
            ),
        }?;
        if self.tier == KeyTier::T0 {
            let what = if self.attestation.is_some() { "NOT VOUCHED FOR" } else { "SOFTWARE KEY" };
            writeln!(out, "TIER T0 - {what}: {}.", self.standing.lives)?;
            writeln!(out, "What is proved below is proved only as far as that key was in honest hands.")?;
        }
        Ok(())
    }

    /// What a TPM vouches for: where the key lives and who says so, apart.
    fn attested(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(attested) = &self.attestation else { return Ok(()) };
        writeln!(out, "\nAttestation:")?;
        writeln!(out, "  where the log key lives: {}", self.standing.lives)?;
        writeln!(out, "  who vouches for that: {}", shown(&self.standing.vouched))?;
        for seen in attested.keys.iter().take(LINES_MAX) {
            let named = if seen.named { "named by the trust file" } else { "not named by a trust file" };
            writeln!(out, "  attestation key {} (entry {}), {named}", seen.name, seen.index.0)?;
        }
        more(out, attested.keys.len() as u64, "keys")?;
        match &attested.anchored {
            Some(anchored @ Anchored { size, .. }) => {
                writeln!(out, "  {}", extent(anchored, attested))?;
                writeln!(
                    out,
                    "  Entries from {} on are signed by the host and not anchored: whoever took the host over could have replaced them. \
                     At the end of the log up to one anchor interval could be missing.",
                    size.0
                )
            }
            None => writeln!(out, "  NOT ANCHORED: no quote in the log holds and vouches for its history"),
        }
    }

    /// What came of the challenge, and what its answer does not show.
    fn challenged(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(asked) = &self.challenge else { return Ok(()) };
        let Some(answer) = &asked.answer else {
            return writeln!(out, "\nChallenge {}: NOT ANSWERED", asked.challenge);
        };
        writeln!(out, "\nChallenge {}: answered by entry {}", asked.challenge, answer.index.0)?;
        writeln!(
            out,
            "  Attestation key {} signed it together with the root of the first {} entries, at {} ms of the TPM's clock after {} resets.",
            answer.key, answer.size.0, answer.clock.clock, answer.clock.reset_count
        )?;
        if answer.is_believed && self.findings_total == 0 {
            writeln!(
                out,
                "  So these entries were there, and the key was in use, after the challenge was picked; when that was, and that nobody knew \
                 it before, is known to whoever picked it."
            )?;
        } else {
            writeln!(
                out,
                "  NOT PROVED by it, as long as there are findings or the key is not believed: anything of this log."
            )?;
        }
        writeln!(
            out,
            "  It does not show: entries from {} on; which machine the TPM is in; that there is no second log under the same TPM.",
            answer.size.0
        )
    }

    /// What was lost, when nothing was observed, and where entries could be missing.
    fn observation(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.windows.total == 0 {
            return Ok(());
        }
        write!(out, "\nEvents declared lost: {}", self.losses.events)?;
        let causes: Vec<String> = self.losses.causes.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        writeln!(out, "{}", if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) })?;
        if self.losses.in_flight > 0 {
            writeln!(
                out,
                "  {} more were numbered and not yet written when the log was sealed",
                self.losses.in_flight
            )?;
        }
        if self.losses.cut_off > 0 {
            writeln!(out, "  {} more were numbered and never written by runs that were cut off", self.losses.cut_off)?;
        }
        let sums = &self.windows.not_observed;
        writeln!(
            out,
            "Time not observed, by the host's clocks: {} ({} from boot to armed, {} between runs, at most {} host off)",
            seconds(sums.total()),
            seconds(sums.boot_to_armed),
            seconds(sums.between_runs),
            seconds(sums.host_off)
        )?;
        writeln!(out, "Windows ({}), of which {} could miss entries (!):", self.windows.total, self.windows.may_miss)?;
        for window in self.windows.kept.iter().take(LINES_MAX) {
            let mark = if window.may_miss_entries { '!' } else { ' ' };
            writeln!(out, "{mark} {}: {}", window.kind.name(), window.text())?;
        }
        more(out, self.windows.total, "windows")
    }

    /// What the reader must not take for proved.
    fn not_proved(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "\nNot proved by this report:")?;
        for report in &self.claims {
            if let Outcome::NotProved(reason) = &report.outcome {
                writeln!(out, "  {}: {reason}", report.claim.name())?;
            }
        }
        if !self.not_covered.is_empty() {
            writeln!(out, "\nNot captured on this host, as its agent says:")?;
            for item in &self.not_covered {
                writeln!(out, "  {item}")?;
            }
        }
        writeln!(out, "\nNot promised by any such log:")?;
        for item in NOT_PROMISED {
            writeln!(out, "  {item}")?;
        }
        Ok(())
    }

    /// The report as one JSON object, of the form of `docs/report.schema.json`. Names are stable; more may be added.
    #[must_use]
    pub fn to_json(&self) -> String {
        let claims: Vec<Value> = self
            .claims
            .iter()
            .map(|report| {
                let (outcome, reason) = report.outcome.json();
                json!({"claim": report.claim.name(), "required": report.required, "outcome": outcome, "reason": reason})
            })
            .collect();
        let sessions: Vec<Value> = self
            .sessions
            .iter()
            .map(|session| {
                let outcome = session.outcome();
                let (word, reason) = outcome.json();
                json!({
                    "id": session.id, "identity": session.identity, "issued": session.issued.0,
                    "revoked": session.revoked.map(|index| index.0), "entries": session.entries,
                    "entries_pruned": session.missing,
                    "outcome": word, "reason": reason,
                    "window": session.window.map(|window| json!({
                        "whole": window.whole, "closed": window.closed, "lost": window.lost, "lost_own": window.own,
                        "lost_of_nobody_known": window.unshared, "unattributed": window.unknown,
                    })),
                })
            })
            .collect();
        let notes: Vec<Value> = self
            .notes
            .iter()
            .map(|note| json!({"name": note.name, "index": note.index.map(|index| index.0), "text": note.text}))
            .collect();
        let findings: Vec<Value> = self.findings.iter().map(finding_json).collect();
        let checkpoint = self.checkpoint.as_ref().map(|checkpoint| {
            json!({
                "origin": checkpoint.origin.as_str(), "size": checkpoint.size.0,
                "root": STANDARD.encode(checkpoint.root.0),
            })
        });
        let bundle = self.bundle.as_ref().map(|bundle| {
            json!({
                "entries": bundle.entries, "window": bundle.window.map(|(first, last)| [first.0, last.0]),
                "heads_not_shown": bundle.heads_left,
            })
        });
        let pruned = self.pruned.as_ref().map(|pruned| {
            json!({
                "entries": pruned.withheld, "first": pruned.first.0, "last": pruned.last.0,
                "by": pruned.permit.as_ref().map(|(index, first, rule)| json!({
                    "index": index.0, "first": first.0, "rule": rule,
                })),
                "kept_judged": pruned.judged, "numbers_at_edge": pruned.numbers, "sessions": pruned.sessions,
            })
        });
        let sums = &self.windows.not_observed;
        let report = json!({
            "report": REPORT_VERSION,
            "bundle": bundle,
            "pruned": pruned,
            "verdict": self.verdict.name(),
            "exit": self.verdict.exit_code(),
            "tier": self.tier.as_str(),
            "key_lives": self.standing.lives,
            "vouched_by": self.standing.vouched,
            "attestation": self.attestation.as_ref().map(attestation_json),
            "challenge": self.challenge.as_ref().map(challenge_json),
            "checkpoint": checkpoint,
            "checkpoint_verified": self.verified.is_some(),
            "log_key": self.observed.as_ref().map(|observed| observed.log_key.to_string()),
            "witnessed": self.witnessed.as_ref().map(|witnessed| json!({
                "size": witnessed.size.0, "witnesses": witnessed.witnesses,
                "since": iso(WallTime(witnessed.since.saturating_mul(1_000_000_000))),
            })),
            "times": self.times.map(|(first, last)| json!({"first": iso(first), "last": iso(last)})),
            "findings": findings,
            "findings_total": self.findings_total,
            "sight_lost": self.sight_lost.map(|index| index.0),
            "claims": claims,
            "sessions": sessions,
            "sessions_total": self.sessions_total,
            "losses": {
                "events": self.losses.events, "causes": self.losses.causes, "in_flight": self.losses.in_flight,
                "cut_off": self.losses.cut_off,
            },
            "not_observed": {
                "total_ns": sums.total().to_string(), "boot_to_armed_ns": sums.boot_to_armed.to_string(),
                "between_runs_ns": sums.between_runs.to_string(), "host_off_ns": sums.host_off.to_string(),
            },
            "host": self.host.json(),
            "windows": self.windows.kept.iter().map(window_json).collect::<Vec<_>>(),
            "windows_total": self.windows.total,
            "windows_may_miss_entries": self.windows.may_miss,
            "notes": notes,
            "notes_total": self.notes_total,
            "not_covered": self.not_covered,
            "not_promised": NOT_PROMISED,
        });
        let mut text = report.to_string();
        text.push('\n');
        text
    }
}

fn finding_json(finding: &Finding) -> Value {
    json!({"name": finding.name(), "claim": finding.claim().name(), "index": finding.index().map(|index| index.0), "text": finding.to_string()})
}

fn challenge_json(asked: &ChallengeReport) -> Value {
    json!({
        "challenge": asked.challenge.to_string(),
        "answer": asked.answer.as_ref().map(|answer| json!({
            "index": answer.index.0, "size": answer.size.0, "clock_ms": answer.clock.clock.to_string(),
            "reset_count": answer.clock.reset_count, "key": answer.key.to_string(), "believed": answer.is_believed,
        })),
    })
}

fn attestation_json(attested: &AttestationReport) -> Value {
    json!({
        "keys": attested.keys.iter().map(|seen| json!({
            "index": seen.index.0, "name": seen.name.to_string(), "named": seen.named,
        })).collect::<Vec<_>>(),
        "anchors": attested.anchors,
        "anchored": attested.anchored.map(|anchored| json!({
            "index": anchored.index.0, "size": anchored.size.0, "clock_ms": anchored.clock.clock.to_string(),
            "reset_count": anchored.clock.reset_count, "restart_count": anchored.clock.restart_count,
        })),
        "counted": attested.counted.map(|counted| json!({"size": counted.size.0, "value": counted.value.to_string()})),
        "epochs": attested.epochs,
        "epochs_bound": attested.epochs_bound,
        "counter_name": attested.counter.as_ref().map(|(name, _)| name.to_string()),
        "counter_first_value": attested.counter.as_ref().map(|(_, value)| value.to_string()),
        "first_reset_count": attested.reset_count,
        "longest_unanchored_ns": attested.longest_unanchored.map(|(length, _)| length.to_string()),
    })
}

fn window_json(window: &Window) -> Value {
    let edge = |edge: &Edge| json!({"index": edge.index.map(|index| index.0), "time": iso(edge.wall)});
    json!({
        "kind": window.kind.name(),
        "from": edge(&window.from),
        "to": window.to.as_ref().map(edge),
        "length_ns": window.length.map(|length| length.to_string()),
        "booted": window.booted.map(iso),
        "seal_ms": window.seal_ms,
        "unobserved": window.kind.is_unobserved(),
        "may_miss_entries": window.may_miss_entries,
        "text": window.text(),
    })
}

impl Window {
    /// What it is, for people.
    #[must_use]
    pub fn text(&self) -> String {
        let edge = |edge: &Edge| match edge.index {
            Some(index) => format!("{} (entry {})", iso(edge.wall), index.0),
            None => format!("{} (boot)", iso(edge.wall)),
        };
        let from = edge(&self.from);
        let span = match (&self.to, self.length) {
            (Some(to), Some(length)) => format!("from {from} to {}, {}", edge(to), seconds(length)),
            (Some(to), None) => format!("from {from} to {}, while the host's clock went back", edge(to)),
            (None, _) => format!("from {from} on"),
        };
        let booted = self.booted.map(|time| format!(", with a boot at {}", iso(time))).unwrap_or_default();
        let crash = match (self.may_miss_entries, self.seal_ms) {
            (true, Some(seal_ms)) => format!(
                "; a crash loses at most the {seal_ms} ms of entries before it, but whoever holds the keys could have cut the \
                 log here and made it look like a crash"
            ),
            _ => String::new(),
        };
        let what = match self.kind {
            WindowKind::BeforeFirstRun => "nothing was observed before the first run of the agent",
            WindowKind::Stopped => "the agent was stopped in order, and nothing was observed until it ran again",
            WindowKind::Restarted => "the agent was stopped in order, and nothing was observed until it ran again",
            WindowKind::RunCut => {
                "the run stopped without a word and nothing was observed until the next: entries of this time could be missing"
            }
            WindowKind::Resumed if self.may_miss_entries => {
                "the run stopped without a word; the kernel side captured alone and its numbers were taken up again, so that \
                 no numbered event is missing unseen, but other entries could be"
            }
            WindowKind::Resumed => "one agent handed over to the next; the kernel side captured meanwhile",
            WindowKind::Silent => "the agent gave no sign of life for longer than it had declared",
            WindowKind::Unanchored => {
                "the TPM vouched for nothing for longer than the agent had declared: whoever has the keys could have removed or \
                 replaced entries of this time"
            }
            WindowKind::CountedLate => {
                "a step of the TPM's counter was made up for at a later start: what the log held in between is NOT PROVED, a copy \
                 of an earlier state could have been put in its place"
            }
            WindowKind::OpenEnd => "the log ends within a run: later entries are not here yet, or were removed",
            WindowKind::Ended => "the agent was stopped in order, and nothing was observed since",
        };
        format!("{span}{booted}: {what}{crash}")
    }
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
