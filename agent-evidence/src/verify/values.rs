//! Committed values: each is disclosed by a line that hashes to its commitment, or an `erased` entry says why not.

use std::collections::{HashMap, HashSet};

use crate::record::{Body, Commitment, Disclosure, EntryIndex, Record, TreeSize};
use crate::tiles;
use crate::tree::TILE_WIDTH;

use super::finding::Finding;
use super::report::Findings;

/// Most committed values followed: 200 MiB of them.
pub(super) const VALUES_MAX: usize = 1 << 22;

/// Most erasures remembered.
const ERASED_MAX: usize = 1_000_000;

/// Longest sidecar that is read: 256 entries with a quarter of a mebibyte of committed text each.
pub const SIDECAR_BYTES_MAX: usize = 64 << 20;

/// The committed values of the entries so far, in their order.
#[derive(Debug, Default)]
pub(super) struct Values {
    awaited: Vec<Awaited>,
    /// The first that no line has passed.
    next: usize,
    fields: HashMap<String, u32>,
    /// The index after the last withheld entry: what is disclosed of those cannot be judged.
    withheld: u64,
    erased: HashSet<(EntryIndex, Vec<u8>)>,
}

#[derive(Debug)]
struct Awaited {
    index: EntryIndex,
    field: u32,
    commitment: Commitment,
}

impl Values {
    /// Takes the values of the next entry. `false` when they are too many.
    pub(super) fn entry(&mut self, record: &Record<'_>) -> bool {
        if let Body::Erased(erased) = record.body()
            && self.erased.len() < ERASED_MAX
        {
            self.erased.insert((erased.of, erased.field.as_bytes().to_vec()));
        }
        if record.committed == 0 {
            return true;
        }
        for (field, commitment) in record.commitments() {
            let count = u32::try_from(self.fields.len()).unwrap_or(u32::MAX);
            let field = *self.fields.entry(field).or_insert(count);
            self.awaited.push(Awaited { index: record.index(), field, commitment });
        }
        self.awaited.len() <= VALUES_MAX
    }

    /// Entries before this index are withheld.
    pub(super) fn withheld(&mut self, past: u64) {
        self.withheld = past;
    }

    /// Takes the next line of a sidecar, after all entries.
    pub(super) fn line(&mut self, index: EntryIndex, line: &Disclosure<'_>, findings: &mut Findings) {
        // Of an entry that is withheld, or has no committed value: which, nobody can tell.
        if index.0 < self.withheld && self.awaited.binary_search_by_key(&index, |value| value.index).is_err() {
            return;
        }
        let field = self.fields.get(&line.field).copied();
        // Lines ascend, so that each value is looked at once, and again only within its entry.
        let before = |value: &&Awaited| value.index < index;
        self.absent(self.rest().iter().take_while(before).count(), findings);
        let rest = self.rest();
        let mut here = rest.iter().take_while(|value| value.index == index);
        let Some(skipped) = here.position(|value| Some(value.field) == field) else {
            findings.push(Finding::CommitmentWrong { index, field: shortened(&line.field) });
            return;
        };
        let holds = rest.get(skipped).is_some_and(|value| value.commitment == line.commitment());
        self.absent(skipped, findings);
        self.next = self.next.saturating_add(1);
        if !holds {
            findings.push(Finding::CommitmentWrong { index, field: shortened(&line.field) });
        }
    }

    /// The bundles whose entries committed values, in order.
    pub(super) fn bundles(&self) -> Vec<u64> {
        let mut bundles: Vec<u64> = self.awaited.iter().map(|value| value.index.0 / TILE_WIDTH as u64).collect();
        bundles.dedup();
        bundles
    }

    /// Takes the sidecar of a bundle, in the order of bundles; entries from `size` on are the writer's next ones, and so is
    /// a line without its end.
    pub(super) fn sidecar(&mut self, bundle: u64, size: TreeSize, bytes: &[u8], findings: &mut Findings) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else { return };
            match Disclosure::decode(line) {
                Ok((index, _)) if index.0 >= size.0 => return,
                Ok((index, disclosure)) if index.0 / TILE_WIDTH as u64 == bundle => {
                    self.line(index, &disclosure, findings);
                }
                Ok((index, disclosure)) => {
                    findings.push(Finding::CommitmentWrong { index, field: shortened(&disclosure.field) });
                }
                Err(error) => {
                    let path = tiles::sidecar_path(bundle);
                    findings.push(Finding::SidecarMalformed { path, reason: error.to_string() });
                }
            }
        }
    }

    fn rest(&self) -> &[Awaited] {
        self.awaited.get(self.next..).unwrap_or_default()
    }

    /// What is left has no line.
    pub(super) fn finish(&mut self, findings: &mut Findings) {
        self.absent(self.awaited.len().saturating_sub(self.next), findings);
    }

    /// The next so many values have no line.
    fn absent(&mut self, count: usize, findings: &mut Findings) {
        let past = self.next.saturating_add(count);
        let values = self.awaited.get(self.next..past).unwrap_or_default();
        self.next = past;
        if values.is_empty() {
            return;
        }
        let names: HashMap<u32, &String> = self.fields.iter().map(|(name, field)| (*field, name)).collect();
        for value in values {
            let field = names.get(&value.field).map(|name| (*name).clone()).unwrap_or_default();
            if !self.erased.contains(&(value.index, field.clone().into_bytes())) {
                findings.push(Finding::ValueAbsent { index: value.index, field });
            }
        }
    }
}

/// A field as a finding names it: the longest real one is far shorter.
fn shortened(field: &str) -> String {
    field.chars().take(256).collect()
}
