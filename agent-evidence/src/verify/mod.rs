//! Verification of a whole log: pure, streaming, in memory that does not grow with the log.
//!
//! [`verify`] reads a log through a [`Source`], believes nothing in it but what follows from the trust file, and
//! returns a [`Report`]. The one way to a [`Verified`] checkpoint leads through here.
//!
//! | file | what |
//! |---|---|
//! | `cold.rs` | bundles and tiles out of packed segments |
//! | `audit.rs` | the rules over entries, one after the other |
//! | `sessions.rs` | the chains of sessions |
//! | `coverage.rs`, `numbers.rs` | runs of the agent; which kernel numbers are accounted for |
//! | `bundle.rs`, `part.rs` | evidence bundles: the walk over one, and what must not be left out of it |
//! | `witnesses.rs` | what trusted witnesses cosigned |
//! | `entry.rs` | one entry by its proof |
//! | `finding.rs` | one variant per broken rule |
//! | `report.rs`, `text.rs` | the verdict for programs and for people |

mod audit;
mod bundle;
mod cold;
mod coverage;
mod entry;
mod finding;
mod numbers;
mod part;
mod report;
mod sessions;
mod text;
mod witnesses;

#[cfg(test)]
mod tests;

pub use bundle::verify_bundle;
pub use cold::Cold;
pub use entry::{EntryFault, ProvedEntry, verify_entry};
pub use finding::{Claim, FINDINGS, Finding};
pub use report::{BundleReport, ClaimReport, Note, Observed, Outcome, Report, SessionReport, SessionWindow, Verdict};
pub use witnesses::Witnessed;

use crate::checkpoint::{self, Checkpoint};
use crate::note::{KeyName, Note as SignedNote, VerifierKey};
use crate::policy::Policy;
use crate::record::{Body, EntryIndex, LeafHash, PublicKey, TreeSize, decode};
use crate::tiles::{self, TileKind, TilePath};
use crate::tree::{NodeHash, TILE_WIDTH, Tree, leaf_hash};
use crate::trust::{Head, Trust, WitnessPolicy};

use audit::Audit;
use report::{Besides, Findings};
use witnesses::Witnesses;

/// A log as named byte strings: a directory, an archive, a web server. Untrusted.
pub trait Source {
    /// The file of this name below the log's directory, or nothing when there is none. A file longer than
    /// `bytes_max` is an error: nothing of this format is.
    ///
    /// # Errors
    /// When the file exists or may exist and could not be read.
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError>;
}

impl<S: Source + ?Sized> Source for &mut S {
    fn read(&mut self, path: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, SourceError> {
        (**self).read(path, bytes_max)
    }
}

/// A file that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {path}: {reason}")]
pub struct SourceError {
    /// Its name below the log's directory.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Why a log could not be checked at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A file could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Not an evidence bundle.
    #[error("this is not an evidence bundle: {reason}")]
    NotABundle {
        /// What is wrong.
        reason: String,
    },
    /// Neither a checkpoint nor a first entry: not an Affiant log.
    #[error("this is not an Affiant log: {reason}")]
    NotALog {
        /// What is missing or wrong.
        reason: String,
    },
}

/// What was checked and found to hold. Only this module can make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The thing itself.
    #[must_use]
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// How strictly to judge.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether losses that the kernel side counted are findings too.
    pub strict: bool,
}

/// Verifies a log against a trust file, or without one as to whether it agrees with itself.
///
/// # Errors
/// [`VerifyError`] when there is nothing that could be checked; everything else is in the report.
pub fn verify(source: &mut impl Source, trust: Option<&Trust>, options: Options) -> Result<Report, VerifyError> {
    let source = &mut Cold::new(source);
    let mut findings = Findings::new();
    let mut witnesses = Witnesses::read(source, trust, &mut findings)?;
    let Some((checkpoint, note)) = read_checkpoint(source, &mut findings)? else {
        return Ok(Report::without_checkpoint(findings, trust));
    };
    witnesses.checkpoint(trust, &checkpoint, &note, &mut findings);
    let mut walk = Walk {
        size: checkpoint.size,
        tree: Tree::new(),
        tree_complete: true,
        audit: Audit::new(&checkpoint.origin, options),
        heads: trust.map(|trust| trust.heads.as_slice()).unwrap_or_default(),
        policy: trust.and_then(|trust| trust.witnesses.as_ref()).map(WitnessPolicy::policy),
        witnesses,
        findings,
        previous: Some(LeafHash([0; 32])),
        genesis: None,
    };
    let bundles = checkpoint.size.0.div_ceil(TILE_WIDTH as u64);
    for number in 0..bundles {
        let outcome = walk.bundle(source, number);
        for finding in source.malformed() {
            walk.findings.push(finding);
        }
        outcome?;
        // A forged size must not keep the verifier busy with what is not there.
        if !walk.tree_complete {
            break;
        }
    }
    walk.edge(source)?;
    Ok(conclude(walk, checkpoint, &note, trust))
}

/// The checkpoint and its signatures, not verified; nothing when it is missing or damaged in what is a log.
fn read_checkpoint(
    source: &mut impl Source,
    findings: &mut Findings,
) -> Result<Option<(Checkpoint, SignedNote)>, VerifyError> {
    let bytes = source.read("checkpoint", crate::note::NOTE_BYTES_MAX)?;
    let (finding, reason) = match bytes.as_deref().map(Checkpoint::parse) {
        Some(Ok(read)) => return Ok(Some(read)),
        Some(Err(error)) => {
            let reason = reason(&error);
            (Finding::CheckpointMalformed { reason: reason.clone() }, reason)
        }
        None => (Finding::CheckpointMissing {}, "it has no file `checkpoint`".to_owned()),
    };
    if has_genesis(source)? {
        findings.push(finding);
        Ok(None)
    } else {
        Err(VerifyError::NotALog { reason })
    }
}

/// An error with its cause, in one line.
fn reason(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Whether the directory holds the first entries of a log, whatever its size.
fn has_genesis(source: &mut impl Source) -> Result<bool, VerifyError> {
    let full = u16::try_from(TILE_WIDTH).unwrap_or(u16::MAX);
    for width in (1..=full).rev() {
        let path = TilePath { kind: TileKind::Entries, number: 0, width }.path();
        let Some(bundle) = source.read(&path, tiles::BUNDLE_BYTES_MAX)? else { continue };
        let first = tiles::entries(&bundle, width).ok().and_then(|entries| decode_genesis(entries.first()?));
        if first.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn decode_genesis(entry: &[u8]) -> Option<()> {
    matches!(decode(entry).ok()?.body(), Body::Genesis(_)).then_some(())
}

/// The state of one pass over the log.
struct Walk<'t> {
    size: TreeSize,
    tree: Tree,
    /// Whether the tree holds every entry so far: a bundle and its tile may both be missing.
    tree_complete: bool,
    audit: Audit,
    /// Heads to compare, those already passed removed.
    heads: &'t [Head],
    policy: Option<&'t Policy>,
    witnesses: Witnesses,
    findings: Findings,
    /// Leaf hash of the entry before, when known.
    previous: Option<LeafHash>,
    genesis: Option<LeafHash>,
}

impl Walk<'_> {
    fn bundle(&mut self, source: &mut impl Source, number: u64) -> Result<(), VerifyError> {
        let width = tiles::width_in(self.size, 0, number);
        let first = EntryIndex(number * TILE_WIDTH as u64);
        let hashes = self.tile(source, 0, number, width)?;
        let path = TilePath { kind: TileKind::Entries, number, width };
        let bytes = read_with_full(source, path, tiles::BUNDLE_BYTES_MAX)?;
        let entries = match &bytes {
            None => {
                self.findings.push(Finding::BundleMissing { path: path.path(), first });
                None
            }
            Some((bytes, stored_width)) => match tiles::entries(bytes, *stored_width) {
                Ok(entries) => Some(entries),
                Err(error) => {
                    let reason = error.to_string();
                    self.findings.push(Finding::BundleMalformed { path: path.path(), first, reason });
                    None
                }
            },
        };
        if entries.is_none() {
            self.audit.lose_sight();
            self.previous = None;
        }
        for position in 0..usize::from(width) {
            let index = EntryIndex(first.0 + position as u64);
            let stored = hashes.as_ref().and_then(|hashes| hashes.get(position)).map(|hash| LeafHash(*hash));
            let entry = entries.as_ref().and_then(|entries| entries.get(position)).copied();
            self.entry(source, index, entry, stored)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        source: &mut impl Source,
        index: EntryIndex,
        entry: Option<&[u8]>,
        stored: Option<LeafHash>,
    ) -> Result<(), VerifyError> {
        self.compare_head();
        let own = entry.map(leaf_hash);
        if let (Some(own), Some(stored)) = (own, stored)
            && own != stored
        {
            self.findings.push(Finding::EntryAltered { index });
        }
        // The stored hash goes on where there is one, so that an altered entry is told from a rewritten tree.
        let leaf = stored.or(own);
        if let (Some(entry), Some(leaf)) = (entry, leaf) {
            self.audit.entry(index, entry, leaf, self.previous, &mut self.findings);
        }
        if index.0 == 0 {
            self.genesis = leaf;
        }
        self.previous = leaf;
        match leaf {
            Some(leaf) if self.tree_complete => {
                let mut full = Vec::new();
                self.tree.append(leaf, |tile| {
                    if tile.level > 0 {
                        full.push((tile.level, tile.number, tile.hashes.to_vec()));
                    }
                });
                for (level, number, hashes) in full {
                    self.compare_tile(source, level, number, &hashes)?;
                }
            }
            _ => self.tree_complete = false,
        }
        Ok(())
    }

    /// Compares the heads that the trust file remembers, and that witnesses cosigned, at the present size.
    fn compare_head(&mut self) {
        let tree = self.tree_complete.then_some(&self.tree);
        self.witnesses.compare(self.tree.size(), tree, self.policy, &mut self.findings);
        while let Some((head, rest)) = self.heads.split_first()
            && head.size <= self.tree.size()
        {
            self.heads = rest;
            if self.tree_complete && head.size == self.tree.size() && head.root != self.tree.root() {
                let same_size = head.size == self.size;
                self.findings.push(if same_size {
                    Finding::Equivocation { size: head.size }
                } else {
                    Finding::HeadMismatch { remembered: head.size }
                });
            }
        }
    }

    /// The unfinished tiles above the lowest level, and the last head.
    fn edge(&mut self, source: &mut impl Source) -> Result<(), VerifyError> {
        self.compare_head();
        let remembered = self.heads.last().map(|head| head.size).max(self.witnesses.largest());
        if let Some(remembered) = remembered.filter(|remembered| *remembered > self.size) {
            self.findings.push(Finding::LogTruncated { size: self.size, remembered });
        }
        if !self.tree_complete {
            return Ok(());
        }
        let edge: Vec<_> = self
            .tree
            .partial_tiles()
            .filter(|tile| tile.level > 0)
            .map(|tile| (tile.level, tile.number, tile.hashes.to_vec()))
            .collect();
        for (level, number, hashes) in edge {
            self.compare_tile(source, level, number, &hashes)?;
        }
        Ok(())
    }

    fn compare_tile(
        &mut self,
        source: &mut impl Source,
        level: u32,
        number: u64,
        expected: &[NodeHash],
    ) -> Result<(), VerifyError> {
        let width = u16::try_from(expected.len()).unwrap_or(u16::MAX);
        if let Some(stored) = self.tile(source, level, number, width)?
            && stored.as_slice() != expected
        {
            let path = TilePath { kind: TileKind::Hashes { level }, number, width }.path();
            self.findings.push(Finding::TileDiffers { path });
        }
        Ok(())
    }

    /// The hashes of a tile; nothing, and a finding, when it is missing or of another length.
    fn tile(
        &mut self,
        source: &mut impl Source,
        level: u32,
        number: u64,
        width: u16,
    ) -> Result<Option<Vec<NodeHash>>, VerifyError> {
        let path = TilePath { kind: TileKind::Hashes { level }, number, width };
        let Some((bytes, stored_width)) = read_with_full(source, path, tiles::TILE_BYTES)? else {
            self.findings.push(Finding::TileMissing { path: path.path() });
            return Ok(None);
        };
        match tiles::hashes(&bytes, stored_width) {
            Ok(mut hashes) => {
                hashes.truncate(usize::from(width));
                Ok(Some(hashes))
            }
            Err(_) => {
                self.findings.push(Finding::TileDiffers { path: path.path() });
                Ok(None)
            }
        }
    }
}

/// A tile or bundle of at least this width, with the width it is stored in: a log that has grown since its
/// checkpoint may keep the full one only.
fn read_with_full(
    source: &mut impl Source,
    path: TilePath,
    bytes_max: usize,
) -> Result<Option<(Vec<u8>, u16)>, SourceError> {
    if let Some(bytes) = source.read(&path.path(), bytes_max)? {
        return Ok(Some((bytes, path.width)));
    }
    let full = u16::try_from(TILE_WIDTH).unwrap_or(u16::MAX);
    if path.width == full {
        return Ok(None);
    }
    let bytes = source.read(&TilePath { width: full, ..path }.path(), bytes_max)?;
    Ok(bytes.map(|bytes| (bytes, full)))
}

/// The judgment over the whole: root, signatures, trust.
fn conclude(walk: Walk<'_>, checkpoint: Checkpoint, note: &SignedNote, trust: Option<&Trust>) -> Report {
    let Walk { tree, tree_complete, mut audit, mut findings, genesis, policy, mut witnesses, .. } = walk;
    audit.notes.extend(std::mem::take(&mut witnesses.notes));
    let witnessed = policy.and_then(|policy| witnesses.quorum(policy));
    audit.finish(checkpoint.size, &mut findings);
    let root_holds = tree_complete && tree.root() == checkpoint.root;
    if tree_complete && !root_holds {
        findings.push(Finding::RootMismatch { size: checkpoint.size });
    }
    judge(Read { checkpoint, note, root_holds, audit, findings, genesis, witnessed, bundle: None }, trust)
}

/// What was read of a log or bundle, all but signatures and trust judged.
struct Read<'n> {
    checkpoint: Checkpoint,
    note: &'n SignedNote,
    /// Whether the entries have the root hash of the checkpoint.
    root_holds: bool,
    audit: Audit,
    findings: Findings,
    /// Leaf hash of entry 0.
    genesis: Option<LeafHash>,
    /// How far a quorum of trusted witnesses vouches for it.
    witnessed: Option<Witnessed>,
    bundle: Option<BundleReport>,
}

fn judge(read: Read<'_>, trust: Option<&Trust>) -> Report {
    let Read { checkpoint, note, root_holds, audit, mut findings, genesis, witnessed, bundle } = read;
    let own_key = audit.log_key().cloned();
    let log_key = trust.map(|trust| trust.log_key.clone()).or_else(|| own_key.clone());
    let log_signed = log_key.as_ref().is_some_and(|key| signed(note, key, &mut findings));
    let epoch_signed = match (audit.epoch_key(), epoch_name(&checkpoint)) {
        // The epoch that signed may be among the entries that could not be read.
        _ if !audit.is_sighted() => false,
        (Some(key), Some(name)) => signed(note, &VerifierKey::new(name, key), &mut findings),
        _ => {
            findings.push(Finding::EpochMissing {});
            false
        }
    };
    if let Some(trust) = trust {
        compare_with_trust(trust, &checkpoint, own_key.as_ref(), genesis, &audit, &mut findings);
    }
    let observed = match (own_key, genesis, audit.first_epoch_key()) {
        (Some(log_key), Some(genesis), Some(first_epoch_key)) if bundle.is_none() => Some(Observed {
            log_key,
            genesis,
            first_epoch_key,
            tier: audit.tier(),
            head: Head { size: checkpoint.size, root: checkpoint.root },
        }),
        _ => None,
    };
    let holds = root_holds && log_signed && epoch_signed && trust.is_some();
    let verified = holds.then(|| Verified(checkpoint.clone()));
    Report::new(checkpoint, verified, observed, audit, findings, trust, Besides { witnessed, bundle })
}

fn epoch_name(checkpoint: &Checkpoint) -> Option<KeyName> {
    KeyName::new(&format!("{}{}", checkpoint.origin.as_str(), checkpoint::EPOCH_SUFFIX)).ok()
}

fn signed(note: &SignedNote, key: &VerifierKey, findings: &mut Findings) -> bool {
    let name = || key.name().as_str().to_owned();
    match note.signed_by(key) {
        Ok(true) => return true,
        Ok(false) => findings.push(Finding::CheckpointUnsigned { key: name() }),
        Err(_) => findings.push(Finding::CheckpointForged { key: name() }),
    }
    false
}

fn compare_with_trust(
    trust: &Trust,
    checkpoint: &Checkpoint,
    own_key: Option<&VerifierKey>,
    genesis: Option<LeafHash>,
    audit: &Audit,
    findings: &mut Findings,
) {
    if trust.origin != checkpoint.origin {
        findings.push(Finding::OriginUntrusted {
            trusted: trust.origin.as_str().to_owned(),
            seen: checkpoint.origin.as_str().to_owned(),
        });
    }
    if own_key.is_some_and(|key| *key != trust.log_key) {
        findings.push(Finding::LogKeyUntrusted {});
    }
    if genesis.is_some_and(|genesis| genesis != trust.genesis) {
        findings.push(Finding::GenesisUntrusted {});
    }
    let differs = |key: PublicKey| key != trust.first_epoch_key;
    if audit.first_epoch_key().is_some_and(differs) {
        findings.push(Finding::FirstEpochUntrusted {});
    }
    if audit.tier() < trust.minimum_tier {
        findings.push(Finding::TierTooLow { tier: audit.tier().as_str(), required: trust.minimum_tier.as_str() });
    }
}
