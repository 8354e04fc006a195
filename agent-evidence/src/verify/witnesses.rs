//! What trusted witnesses cosigned of a log, and whether it is the history that the log contains.
//!
//! A cosignature says that its witness saw this root at this size, and nothing that contradicts it. So a quorum of
//! witnesses, each at a size of its own, speaks together for the smallest of these sizes: whoever cosigned a larger one
//! has checked that it continues every smaller one that it cosigned before.
//!
//! Trusted: the policy, which the trust file holds. Not trusted: the files with the cosignatures. Without a file nothing
//! is proved; a false one is a finding.

use crate::checkpoint::Checkpoint;
use crate::cosignature::CosignatureError;
use crate::note::{KeyName, NOTE_BYTES_MAX, Note as SignedNote};
use crate::policy::Policy;
use crate::record::TreeSize;
use crate::tree::Tree;
use crate::trust::{Head, Trust, WitnessPolicy};
use crate::witness::stored_path;

use super::finding::Finding;
use super::report::{Findings, Note};
use super::{Source, SourceError, reason};

/// One cosignature that holds.
#[derive(Debug)]
struct Cosigned {
    /// Place of the witness in the policy.
    witness: usize,
    head: Head,
    /// In seconds since 1970 by the witness's clock.
    timestamp: u64,
    /// Whether the log has this root at this size; unknown until the walk has come there.
    contained: bool,
}

/// What witnesses cosigned, in order of size.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    cosigned: Vec<Cosigned>,
    /// How many were compared.
    compared: usize,
    pub(super) notes: Vec<Note>,
}

/// How far a quorum vouches for a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witnessed {
    /// Up to this size.
    pub size: TreeSize,
    /// Names, in the policy, of the witnesses that the quorum was counted from.
    pub witnesses: Vec<String>,
    /// The earliest of their times, in seconds since 1970.
    pub since: u64,
}

impl Witnesses {
    /// Reads the cosignatures that are kept beside the log. Before the checkpoint, so that those of a log that grows
    /// meanwhile are never newer than it.
    pub(super) fn read(
        source: &mut impl Source,
        trust: Option<&Trust>,
        findings: &mut Findings,
    ) -> Result<Self, SourceError> {
        let mut seen = Self::default();
        let Some((trust, policy)) = trust.and_then(|trust| Some((trust, trust.witnesses.as_ref()?.policy()))) else {
            return Ok(seen);
        };
        let mut names: Vec<&KeyName> = policy.witnesses().iter().map(|witness| witness.key.name()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let path = stored_path(name);
            let Some(bytes) = source.read(&path, NOTE_BYTES_MAX)? else { continue };
            match Checkpoint::parse(&bytes) {
                Ok((checkpoint, note)) if checkpoint.origin == trust.origin => {
                    seen.take(policy, Some(name), &checkpoint, &note, findings);
                }
                Ok((checkpoint, _)) => {
                    seen.unusable(&path, &format!("it is of the log {:?}", checkpoint.origin.as_str()));
                }
                Err(error) => seen.unusable(&path, &reason(&error)),
            }
        }
        Ok(seen)
    }

    /// Takes the cosignatures on the checkpoint of the log itself, too.
    pub(super) fn checkpoint(
        &mut self,
        trust: Option<&Trust>,
        checkpoint: &Checkpoint,
        note: &SignedNote,
        findings: &mut Findings,
    ) {
        if let Some(trust) = trust.filter(|trust| trust.origin == checkpoint.origin)
            && let Some(witnesses) = &trust.witnesses
        {
            self.take(witnesses.policy(), None, checkpoint, note, findings);
        }
        self.cosigned.sort_by_key(|cosigned| cosigned.head.size);
    }

    /// What trusted witnesses cosigned on one checkpoint, and the policy that trusts them. `root_holds`: whether what was
    /// read has the root hash of the checkpoint; if not, nobody vouches for it.
    pub(super) fn of_checkpoint<'t>(
        trust: Option<&'t Trust>,
        checkpoint: &Checkpoint,
        note: &SignedNote,
        root_holds: bool,
        findings: &mut Findings,
    ) -> (Self, Option<&'t Policy>) {
        let mut seen = Self::default();
        seen.checkpoint(trust, checkpoint, note, findings);
        for cosigned in &mut seen.cosigned {
            cosigned.contained = root_holds;
        }
        (seen, trust.and_then(|trust| trust.witnesses.as_ref()).map(WitnessPolicy::policy))
    }

    /// Takes what the witnesses, or those of one name, cosigned on a checkpoint.
    fn take(
        &mut self,
        policy: &Policy,
        only: Option<&KeyName>,
        checkpoint: &Checkpoint,
        note: &SignedNote,
        findings: &mut Findings,
    ) {
        let Checkpoint { origin: _, size, root } = checkpoint;
        for (witness, known) in policy.witnesses().iter().enumerate() {
            if only.is_some_and(|only| only != known.key.name()) {
                continue;
            }
            match known.key.cosigned(note) {
                Ok(Some(cosignature)) => self.cosigned.push(Cosigned {
                    witness,
                    head: Head { size: *size, root: *root },
                    timestamp: cosignature.timestamp,
                    contained: false,
                }),
                Ok(None) => {}
                Err(CosignatureError::Forged { name }) => {
                    findings.push(Finding::CosignatureForged { witness: name, size: *size });
                }
                Err(error) => {
                    let text = format!("a cosignature was not counted: {error}");
                    self.notes.push(Note { name: "cosignature_not_judged", index: None, text });
                }
            }
        }
    }

    fn unusable(&mut self, path: &str, why: &str) {
        let text = format!("{path} was not counted as a cosigned checkpoint: {why}");
        self.notes.push(Note { name: "cosignature_unusable", index: None, text });
    }

    /// Compares what was cosigned at the size that the tree has now. `tree` is `None` where entries are missing: then
    /// nothing is compared.
    pub(super) fn compare(
        &mut self,
        size: TreeSize,
        tree: Option<&Tree>,
        policy: Option<&Policy>,
        findings: &mut Findings,
    ) {
        while let Some(cosigned) = self.cosigned.get_mut(self.compared)
            && cosigned.head.size <= size
        {
            self.compared += 1;
            if tree.is_some() && cosigned.head.size < size {
                let text = format!(
                    "a witness cosigned {} entries, a size within entries that are pruned: it cannot be compared and counts for nothing",
                    cosigned.head.size.0
                );
                self.notes.push(Note { name: "cosignature_pruned", index: None, text });
            }
            let Some(tree) = tree.filter(|_| cosigned.head.size == size) else { continue };
            cosigned.contained = tree.root() == cosigned.head.root;
            if !cosigned.contained {
                let known = policy.and_then(|policy| policy.witnesses().get(cosigned.witness));
                findings.push(Finding::SplitView {
                    witness: known.map_or_else(String::new, |known| known.key.name().as_str().to_owned()),
                    size,
                });
            }
        }
    }

    /// The smallest size that is still to be compared.
    pub(super) fn next(&self) -> Option<TreeSize> {
        self.cosigned.get(self.compared).map(|cosigned| cosigned.head.size)
    }

    /// The largest size that a trusted witness cosigned.
    pub(super) fn largest(&self) -> Option<TreeSize> {
        self.cosigned.last().map(|cosigned| cosigned.head.size)
    }

    /// How far a quorum vouches for what the log contains.
    pub(super) fn quorum(&self, policy: &Policy) -> Option<Witnessed> {
        if !policy.needs_witnesses() {
            return None;
        }
        let mut counted = vec![false; policy.witnesses().len()];
        let mut since = u64::MAX;
        // From the largest size down: as soon as there is a quorum, the size reached is the largest for which there is one.
        for cosigned in self.cosigned.iter().rev().filter(|cosigned| cosigned.contained && cosigned.head.size.0 > 0) {
            if let Some(counted) = counted.get_mut(cosigned.witness) {
                *counted = true;
            }
            since = since.min(cosigned.timestamp);
            if policy.is_met(|at| counted.get(at).copied().unwrap_or(false)) {
                let named = policy.witnesses().iter().zip(&counted).filter(|(_, counted)| **counted);
                let witnesses = named.map(|(witness, _)| witness.name.clone()).collect();
                return Some(Witnessed { size: cosigned.head.size, witnesses, since });
            }
        }
        None
    }
}
