//! What a pruned log leaves out, and whether it may (FORMAT.md, section 18).
//!
//! Owns: which `pruned` entry permits what, the count of entries that are kept for their kind, and where the last statement
//! before a bundle begins. The permission comes long after what it permits, so all of it is judged at the end. What the rules
//! over sessions and numbers make of withheld entries is theirs; a held session asks here who could have permitted a hole.

use crate::record::{Body, BootTime, EntryIndex, Kind, Pruned, Record};
use crate::tree::TILE_WIDTH;

use super::finding::Finding;
use super::report::{Findings, Note, Notes, PrunedReport};

/// Most bundles after the first withheld entry whose state is kept: 24 MiB.
const BOUNDS_MAX: usize = 1 << 20;

/// Most characters of a rule that are kept for the report.
const RULE_SHOWN_MAX: usize = 256;

/// The latest entry that permits to leave something out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Permit {
    index: EntryIndex,
    first: u64,
    /// First entry of the last statement before that one: from there on it lets nothing go.
    statement: u64,
    kept: u64,
    rule: String,
}

/// What stood before a bundle.
#[derive(Debug, Clone, Copy, Default)]
struct Bound {
    /// Entries that are kept for their kind.
    by_kind: u64,
    /// First entry of the last statement.
    statement: Option<u64>,
}

/// What is left out so far, and what permits it.
#[derive(Debug, Default)]
pub(super) struct Pruning {
    /// Entries withheld.
    withheld: u64,
    first: Option<EntryIndex>,
    /// The index after the last of them.
    past: u64,
    permit: Option<Permit>,
    /// How many entries permitted something.
    permits: u64,
    now: Bound,
    /// The boot time that the entries of the present statement have, while it may go on.
    open: Option<BootTime>,
    /// The bounds after the first withheld entry, and the number of the bundle that the first of them stands before.
    bounds: Vec<Bound>,
    base: u64,
    /// Whether it could be judged at the end if what must be kept is there.
    judged: bool,
}

impl Pruning {
    /// Entries are withheld.
    pub(super) fn withheld(&mut self, first: EntryIndex, count: u64) {
        self.bound(first);
        self.first.get_or_insert(first);
        self.withheld = self.withheld.saturating_add(count);
        self.past = first.0.saturating_add(count);
    }

    /// What stands at this index is the next.
    fn bound(&mut self, index: EntryIndex) {
        if index.0.is_multiple_of(TILE_WIDTH as u64) && self.withheld > 0 {
            if self.bounds.is_empty() {
                self.base = index.0 / TILE_WIDTH as u64;
            }
            if self.bounds.len() < BOUNDS_MAX {
                self.bounds.push(self.now);
            }
        }
    }

    /// What stood before entry `first` of a bundle. Nothing is withheld before the first bound; beyond the last there is none.
    fn before(&self, first: u64) -> Option<Bound> {
        match (first / TILE_WIDTH as u64).checked_sub(self.base) {
            Some(place) if !self.bounds.is_empty() => self.bounds.get(usize::try_from(place).ok()?).copied(),
            _ => Some(Bound::default()),
        }
    }

    /// Takes the next entry that is there.
    pub(super) fn entry(&mut self, index: EntryIndex, record: &Record<'_>) {
        let body = record.body();
        self.bound(index);
        let kind = body.kind();
        if kind.is_control() || matches!(kind, Kind::Issued | Kind::Revoked | Kind::Workload | Kind::Process) {
            self.now.by_kind += 1;
        }
        match body {
            Body::Heartbeat(_) | Body::Disarmed(_) => {
                if self.open != Some(record.draft.boot) {
                    self.now.statement = Some(index.0);
                }
                self.open = matches!(body, Body::Heartbeat(_)).then_some(record.draft.boot);
            }
            _ if kind.is_control() => self.open = None,
            _ => {}
        }
        if let Body::Pruned(pruned) = body {
            self.permits(record.index(), pruned);
        }
    }

    fn permits(&mut self, index: EntryIndex, pruned: &Pruned<'_>) {
        let first = pruned.first.0;
        let before = self.permit.as_ref().map_or(0, |permit| permit.first);
        if !first.is_multiple_of(TILE_WIDTH as u64) || first > index.0 || first < before {
            return;
        }
        self.permits += 1;
        let rule = pruned.rule.display().chars().take(RULE_SHOWN_MAX).collect();
        let statement = self.before(first).map_or(first, |bound| bound.statement.unwrap_or(0));
        self.permit = Some(Permit { index, first, statement, kept: pruned.kept, rule });
    }

    /// How many entries permitted something so far, and up to where the latest of them does.
    pub(super) fn permitted(&self) -> (u64, u64) {
        (self.permits, self.permit.as_ref().map_or(0, |permit| permit.statement))
    }

    /// Judges what is left out, but for held sessions; `false` when these need not be judged.
    pub(super) fn finish(&mut self, notes: &mut Notes, findings: &mut Findings) -> bool {
        let Some(first) = self.first else { return false };
        let text = format!(
            "{} entries between entry {} and entry {} are not kept any more; their hashes stand for them",
            self.withheld, first.0, self.past
        );
        notes.push(Note { name: "pruned", index: self.permit.as_ref().map(|permit| permit.index), text });
        let Some(Permit { index, first, statement, kept, .. }) = self.permit.clone() else {
            findings.push(Finding::PrunedUnrecorded { index: first });
            return false;
        };
        if self.past > first {
            findings.push(Finding::PrunedUnrecorded { index: EntryIndex(first) });
            return false;
        }
        let Some(bound) = self.before(first) else {
            let text = format!(
                "the pruned part begins too long before entry {first}: whether all that must be kept is there is not judged"
            );
            notes.push(Note { name: "kept_unjudged", index: Some(index), text });
            return true;
        };
        self.judged = true;
        if bound.by_kind != kept {
            let what = "entries that are kept for their kind: they are not as many as it says";
            findings.push(Finding::KeptOmitted { index, what });
        }
        if self.past > statement {
            let what = "entries from the last statement on, from which everything after goes on";
            findings.push(Finding::KeptOmitted { index, what });
        }
        true
    }

    /// What there is to say of it; nothing of a log that is whole.
    pub(super) fn report(&self, numbers: u64, sessions: u64) -> Option<PrunedReport> {
        Some(PrunedReport {
            withheld: self.withheld,
            first: self.first?,
            last: EntryIndex(self.past.saturating_sub(1)),
            permit: self.permit.as_ref().map(|permit| (permit.index, EntryIndex(permit.first), permit.rule.clone())),
            judged: self.judged,
            numbers,
            sessions,
        })
    }
}
