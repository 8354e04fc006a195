//! Verification of a whole log: pure, streaming, in memory that does not grow with the log.
//!
//! [`verify`] reads a log through a [`Source`], believes nothing in it but what follows from the trust file, and
//! returns a [`Report`]. The one way to a [`Verified`] checkpoint leads through here.
//!
//! | file | what |
//! |---|---|
//! | `walk.rs` | the pass over bundles and tiles, in one thread or several |
//! | `cold.rs` | bundles and tiles out of packed segments, and what is kept of pruned ones |
//! | `audit.rs` | the rules over entries, one after the other |
//! | `sessions.rs` | the chains of sessions |
//! | `coverage.rs`, `numbers.rs` | runs of the agent; which kernel numbers are accounted for |
//! | `boot.rs` | what was booted: quoted registers, event logs, measurement lists |
//! | `bundle.rs`, `part.rs` | evidence bundles: the walk over one, and what must not be left out of it |
//! | `pruned.rs` | what a pruned log leaves out, and whether it may |
//! | `attest.rs` | what a TPM vouches for: anchors, counter, clock |
//! | `witnesses.rs` | what trusted witnesses cosigned |
//! | `entry.rs` | one entry by its proof |
//! | `windows.rs` | the times between runs |
//! | `values.rs` | committed values and what discloses them |
//! | `blobs.rs` | contents beside the log that entries refer to |
//! | `host.rs` | what a report says of that |
//! | `finding.rs` | one variant per broken rule |
//! | `report.rs`, `text.rs` | the verdict for programs and for people |

mod attest;
mod audit;
mod blobs;
mod boot;
mod bundle;
mod challenge;
mod cold;
mod coverage;
mod entry;
mod finding;
mod host;
mod numbers;
mod part;
mod pruned;
mod report;
mod sessions;
mod text;
mod values;
mod walk;
mod windows;
mod witnesses;

#[cfg(test)]
mod tests;

pub use attest::{Anchored, AttestationReport, Counted, KeySeen, Standing};
pub use bundle::verify_bundle;
pub use challenge::{Answer, Challenge, ChallengeError, ChallengeReport};
pub use cold::Cold;
pub use entry::{EntryFault, ProvedEntry, verify_entry};
pub use finding::{Claim, FINDINGS, Finding};
pub use host::{BootReport, HostState, LogState, Said};
pub use report::{
    BundleReport, ClaimReport, Losses, Note, Observed, Outcome, PrunedReport, Report, SessionReport, SessionWindow,
    Verdict,
};
pub use values::SIDECAR_BYTES_MAX;
pub use windows::{Edge, NotObserved, Window, WindowKind, Windows};
pub use witnesses::Witnessed;

use std::num::NonZeroUsize;

use crate::attest::cert::Beginning;
use crate::attest::tpm::Name;
use crate::checkpoint::{self, Checkpoint};
use crate::note::{KeyName, Note as SignedNote, VerifierKey};
use crate::record::{Body, EntryIndex, KeyTier, LeafHash, PublicKey, RECORD_VERSION, decode};
use crate::tiles::{self, TileKind, TilePath};
use crate::tree::TILE_WIDTH;
use crate::trust::{Head, Trust, WitnessPolicy};

use audit::Audit;
use report::{Besides, Findings};
use walk::{Hidden, Known, Walk};
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
    /// The log goes on in a version of the format that this program does not know.
    #[error(
        "entry {} is of version {seen} of the format, this program knows version {RECORD_VERSION}: the log was made by a newer \
         version of Affiant; verify it with a newer affiant-verify", index.0
    )]
    NewerVersion {
        /// The first entry of it.
        index: EntryIndex,
        /// The version.
        seen: u32,
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
    /// What an anchor of the log must carry; that none does is a finding.
    pub challenge: Option<Challenge>,
}

/// Verifies a log against a trust file, or without one as to whether it agrees with itself. In the calling thread.
///
/// # Errors
/// [`VerifyError`] when there is nothing that could be checked; everything else is in the report.
pub fn verify(source: &mut impl Source, trust: Option<&Trust>, options: Options) -> Result<Report, VerifyError> {
    over(source, trust, options, walk::walk)
}

/// The same with several threads: they hash and decode bundles, and judge them in the order of the log. The report is the
/// same, whatever their number; each holds one bundle at a time.
///
/// # Errors
/// As [`verify`].
pub fn verify_in_threads(
    source: &mut (impl Source + Send),
    trust: Option<&Trust>,
    options: Options,
    threads: NonZeroUsize,
) -> Result<Report, VerifyError> {
    match threads.get() {
        1 => verify(source, trust, options),
        several => over(source, trust, options, |source, walk| walk::walk_in_threads(source, walk, several)),
    }
}

fn over<'t, S: Source>(
    source: S,
    trust: Option<&'t Trust>,
    options: Options,
    pass: impl FnOnce(Cold<S>, Walk<'t>) -> Result<Walk<'t>, VerifyError>,
) -> Result<Report, VerifyError> {
    let mut source = Cold::new(source);
    let mut findings = Findings::new();
    let mut witnesses = Witnesses::read(&mut source, trust, &mut findings)?;
    let Some((checkpoint, note)) = read_checkpoint(&mut source, &mut findings)? else {
        return Ok(Report::without_checkpoint(findings, trust));
    };
    witnesses.checkpoint(trust, &checkpoint, &note, &mut findings);
    let known = Known {
        heads: trust.map(|trust| trust.heads.as_slice()).unwrap_or_default(),
        policy: trust.and_then(|trust| trust.witnesses.as_ref()).map(WitnessPolicy::policy),
        registers: trust.map(|trust| trust.registers.as_slice()).unwrap_or_default(),
        witnesses,
    };
    let audit = Audit::new(&checkpoint.origin, options, trust);
    let walk = pass(source, Walk::new(checkpoint.size, audit, known, findings))?;
    Ok(conclude(walk, checkpoint, &note, trust))
}

/// The checkpoint and its signatures, not verified; nothing when it is missing or damaged in what is a log.
fn read_checkpoint<S: Source>(
    source: &mut Cold<S>,
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
fn has_genesis<S: Source>(source: &mut Cold<S>) -> Result<bool, VerifyError> {
    let full = u16::try_from(TILE_WIDTH).unwrap_or(u16::MAX);
    for width in (1..=full).rev() {
        let path = TilePath { kind: TileKind::Entries, number: 0, width }.path();
        let Some(bundle) = source.read(&path, tiles::BUNDLE_BYTES_MAX)? else { continue };
        let first = tiles::entries(&bundle, width).ok().and_then(|entries| decode_genesis(entries.first()?));
        if first.is_some() {
            return Ok(true);
        }
    }
    let kept = source.kept(0)?;
    Ok(kept.and_then(|bundle| bundle.entry(0)).and_then(decode_genesis).is_some())
}

fn decode_genesis(entry: &[u8]) -> Option<()> {
    matches!(decode(entry).ok()?.body(), Body::Genesis(_)).then_some(())
}

/// The judgment over the whole: root, signatures, trust.
fn conclude(walk: Walk<'_>, checkpoint: Checkpoint, note: &SignedNote, trust: Option<&Trust>) -> Report {
    let Walk { tree, tree_complete, mut audit, mut findings, genesis, known, hidden, .. } = walk;
    let Known { policy, mut witnesses, .. } = known;
    audit.notes.extend(std::mem::take(&mut witnesses.notes));
    if hidden.heads > 0 {
        let text = format!(
            "{} heads that the trust file remembers fall within what is pruned, and were not compared",
            hidden.heads
        );
        audit.notes.push(Note { name: "head_pruned", index: None, text });
    }
    let witnessed = policy.and_then(|policy| witnesses.quorum(policy));
    audit.finish(checkpoint.size, &mut findings);
    let root_holds = tree_complete && tree.root() == checkpoint.root;
    if tree_complete && !root_holds {
        findings.push(Finding::RootMismatch { size: checkpoint.size });
    }
    judge(Read { checkpoint, note, root_holds, audit, findings, genesis, witnessed, bundle: None, hidden }, trust)
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
    hidden: Hidden,
}

fn judge(read: Read<'_>, trust: Option<&Trust>) -> Report {
    let Read { checkpoint, note, root_holds, mut audit, mut findings, genesis, witnessed, bundle, hidden } = read;
    // In a part of a log the counter may be withheld; what the trust file says of it then has to do.
    let pinned = trust.and_then(|trust| trust.attestation.counter_name.clone()).filter(|_| bundle.is_some());
    let counter = audit.attested.report.counter.as_ref().map(|(name, _)| name.clone()).or(pinned);
    let beginning = match (audit.log_key(), genesis, audit.first_epoch_key()) {
        (Some(key), Some(genesis), Some(first_epoch_key)) => Some((key.key(), genesis, first_epoch_key)),
        _ => None,
    };
    let beginning = beginning.map(|(log_key, genesis, first_epoch_key)| Beginning {
        origin: checkpoint.origin.as_str(),
        log_key,
        genesis,
        first_epoch_key,
        counter_name: counter.as_ref().map(Name::as_bytes),
    });
    let claimed = audit.tier_claimed;
    let standing = audit.attested.standing(trust, beginning.as_ref(), claimed);
    audit.take_notes();
    audit.attested.challenged(standing.tier, trust.is_some(), &mut findings);
    if claimed > standing.tier {
        let (claimed, judged) = (claimed.as_str(), standing.tier.as_str());
        let text = format!(
            "the log claims tier {claimed} for its key, which what this trust file believes does not show; it is judged as {judged}"
        );
        audit.notes.push(Note { name: "tier_claimed", index: None, text });
    }
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
        compare_with_trust(trust, &checkpoint, own_key.as_ref(), genesis, &audit, standing.tier, &mut findings);
    }
    let observed = match (own_key, genesis, audit.first_epoch_key()) {
        (Some(log_key), Some(genesis), Some(first_epoch_key)) if bundle.is_none() => Some(Observed {
            log_key,
            genesis,
            first_epoch_key,
            tier: standing.tier,
            attestation: audit.attested.report.clone(),
            head: Head { size: checkpoint.size, root: checkpoint.root },
        }),
        _ => None,
    };
    let holds = root_holds && log_signed && epoch_signed && trust.is_some();
    let verified = holds.then(|| Verified(checkpoint.clone()));
    Report::new(checkpoint, verified, observed, audit, findings, trust, Besides { witnessed, bundle, hidden, standing })
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
    tier: KeyTier,
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
    if tier < trust.minimum_tier {
        findings.push(Finding::TierTooLow { tier: tier.as_str(), required: trust.minimum_tier.as_str() });
    }
    if audit.is_sighted() {
        audit.attested.compare(trust, findings);
        audit.coverage.compare(&trust.limits, findings);
    }
}
