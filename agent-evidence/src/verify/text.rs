//! The report as text for people and as JSON for programs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::record::{KeyTier, shown};

use super::finding::Finding;
use super::report::{Outcome, Report, Verdict, iso, tier_in_words};

/// What no log of this kind promises.
const NOT_PROMISED: &[&str] = &[
    "what happened after somebody became root on the host: from then on entries are only as good as root's honesty",
    "what a compromised kernel kept from the agent",
    "what happened before the agent was armed, while it was not running, or on machines that never ran it",
    "the contents of files and of encrypted traffic",
    "that what a workload says of itself (`claims`) is true",
];

/// Most sessions, notes and findings printed; JSON has the rest.
const LINES_MAX: usize = 20;

impl Outcome {
    fn words(&self) -> (&'static str, &str) {
        match self {
            Self::Proved(text) => ("proved", text),
            Self::NotProved(text) => ("not proved", text),
            Self::Failed(text) => ("FAILED", text),
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
        if self.tier == KeyTier::T0 {
            writeln!(out, "\nTIER T0 - SOFTWARE KEY: {}.", tier_in_words(KeyTier::T0))?;
            writeln!(out, "What is proved below is proved only as far as that key was in honest hands.")?;
        }
        if !self.findings.is_empty() {
            writeln!(out, "\nFindings ({}):", self.findings_total)?;
            for finding in self.findings.iter().take(LINES_MAX) {
                writeln!(out, "  {}: {}", finding.name(), shown(&finding.to_string()))?;
            }
            more(out, self.findings_total, "findings")?;
        }
        writeln!(out, "\nClaims (* required by the trust file):")?;
        for report in &self.claims {
            let (word, text) = report.outcome.words();
            let mark = if report.required { '*' } else { ' ' };
            writeln!(out, "{mark} {:<17} {word:<11} {text}", report.claim.name())?;
        }
        if !self.sessions.is_empty() {
            writeln!(out, "\nSessions ({}):", self.sessions_total)?;
            for session in self.sessions.iter().take(LINES_MAX) {
                let outcome = session.outcome();
                let (word, text) = outcome.words();
                writeln!(out, "  {} {}: {word}: {text}", session.id, session.identity)?;
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
        if let Some((first, last)) = self.times {
            writeln!(out, "Time, by the host's own clock: {} to {}", iso(first), iso(last))?;
        }
        match self.verdict {
            Verdict::Proved => writeln!(
                out,
                "Verdict: every claim that the trust file requires is proved, at tier {}.",
                self.tier.as_str()
            ),
            Verdict::Findings => {
                writeln!(out, "Verdict: NOT in order: {} finding{}.", self.findings_total, plural(self.findings_total))
            }
            Verdict::SelfConsistent => writeln!(
                out,
                "Verdict: self-consistent, signer not established: without a trust file nothing says whose log this is."
            ),
        }
    }

    /// The report as one JSON object. Names are stable; more may be added.
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
        let report = json!({
            "bundle": bundle,
            "verdict": self.verdict.name(),
            "exit": self.verdict.exit_code(),
            "tier": self.tier.as_str(),
            "checkpoint": checkpoint,
            "checkpoint_verified": self.verified.is_some(),
            "findings": findings,
            "findings_total": self.findings_total,
            "claims": claims,
            "sessions": sessions,
            "sessions_total": self.sessions_total,
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

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
