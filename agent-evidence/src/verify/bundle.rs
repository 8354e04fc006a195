//! Verification of an evidence bundle: one pass over the file, in memory that grows with its hashes alone.
//!
//! The rules over entries are those of a whole log as far as a part shows them; `part.rs` adds those over what must be
//! there. Entries that are withheld are no finding: their hashes stand for them.

use std::convert::Infallible;
use std::io::Read;
use std::iter::Peekable;
use std::vec;

use crate::blob;
use crate::bundle::{BundleError, BundleReader, Manifest};
use crate::checkpoint::Checkpoint;
use crate::note::Note as SignedNote;
use crate::record::{Disclosure, EntryIndex, LeafHash, RootHash, TreeSize, decode_with};
use crate::tree::{NodeHash, Peaks, complete_subtrees, empty_root, leaf_hash};
use crate::trust::Trust;

use super::audit::Audit;
use super::blobs::Told;
use super::boot::Kept;
use super::finding::Finding;
use super::report::{BundleReport, Findings, Report};
use super::values::{VALUES_MAX, Values};
use super::walk::Hidden;
use super::witnesses::Witnesses;
use super::{Options, SourceError, VerifyError, judge};

/// Verifies an evidence bundle against a trust file, or without one as to whether it agrees with itself.
///
/// # Errors
/// [`VerifyError`] when it could not be read or is no bundle; everything else is in the report.
pub fn verify_bundle(input: impl Read, trust: Option<&Trust>, options: Options) -> Result<Report, VerifyError> {
    let mut findings = Findings::new();
    let read =
        BundleReader::open(input).and_then(|(reader, manifest)| read(reader, manifest, options, trust, &mut findings));
    match read {
        Ok(Some((walk, checkpoint, note))) => Ok(conclude(walk, checkpoint, &note, findings, trust)),
        Ok(None) => Ok(Report::unread(findings, trust)),
        Err(error @ BundleError::Malformed { .. }) => {
            findings.push(Finding::EvbMalformed { reason: error.to_string() });
            Ok(Report::unread(findings, trust))
        }
        Err(BundleError::NotABundle) => Err(VerifyError::NotABundle { reason: BundleError::NotABundle.to_string() }),
        Err(BundleError::Read { reason }) => {
            Err(VerifyError::Source(SourceError { path: "the bundle".to_owned(), reason }))
        }
    }
}

/// The walk over the whole file; nothing, with a finding, when its checkpoint is none.
fn read(
    mut reader: BundleReader<impl Read>,
    manifest: Manifest,
    options: Options,
    trust: Option<&Trust>,
    findings: &mut Findings,
) -> Result<Option<(Walk, Checkpoint, SignedNote)>, BundleError> {
    let (checkpoint, note) = match Checkpoint::parse(&reader.checkpoint()?) {
        Ok(read) => read,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            findings.push(Finding::CheckpointMalformed { reason: format!("{error}{cause}") });
            return Ok(None);
        }
    };
    if manifest.heads.last().is_some_and(|head| *head >= checkpoint.size) {
        return Err(malformed("manifest.json", "names a head that is not below the checkpoint"));
    }
    let hashes = reader.hashes()?;
    let mut walk = Walk {
        size: checkpoint.size,
        peaks: Peaks::new(),
        hashes: hashes.into_iter(),
        heads: manifest.heads.into_iter().peekable(),
        roots: Vec::new(),
        previous: None,
        genesis: None,
        entries: 0,
        values: Values::default(),
        audit: Audit::of_bundle(&checkpoint.origin, options, &manifest.sessions, trust),
        contents: Kept::default(),
    };
    let (mut line, mut scratch) = (Vec::new(), Vec::new());
    while reader.entry(&mut line)? {
        walk.entry(&line, &mut scratch, findings)?;
    }
    walk.finish()?;
    while reader.disclosure(&mut line)? {
        let (index, disclosure) = Disclosure::decode(&line).map_err(|error| malformed("sidecar", error.to_string()))?;
        walk.values.line(index, &disclosure, findings);
    }
    walk.values.finish(findings);
    let mut kept = walk.audit.host_contents();
    let mut blobs = walk.audit.take_blobs();
    let mut told = Told { findings, notes: &mut walk.audit.notes };
    while let Some((digest, content)) = reader.blob()? {
        let attested = &mut walk.audit.attested;
        let mut take = |digest, content: &[u8]| {
            attested.blob(digest, content);
            kept.take(digest, content);
        };
        if !blobs.member(digest, &content, &mut told, &mut take) {
            return Err(malformed("blob", format!("no entry refers to {}", blob::path(&digest))));
        }
    }
    blobs.finish(&mut told);
    walk.contents = kept;
    Ok(Some((walk, checkpoint, note)))
}

fn malformed(member: &'static str, reason: impl Into<String>) -> BundleError {
    BundleError::Malformed { member, reason: reason.into() }
}

/// The state of the pass over a bundle.
struct Walk {
    size: TreeSize,
    /// The tree over the entries so far, and over what was withheld between them.
    peaks: Peaks,
    hashes: vec::IntoIter<NodeHash>,
    /// Sizes of the manifest not reached yet.
    heads: Peekable<vec::IntoIter<TreeSize>>,
    /// The root hash at each that was.
    roots: Vec<(TreeSize, RootHash)>,
    /// Leaf hash of the disclosed entry before, with its index.
    previous: Option<(EntryIndex, LeafHash)>,
    genesis: Option<LeafHash>,
    entries: u64,
    values: Values,
    audit: Audit,
    /// Logs of what was measured.
    contents: Kept,
}

impl Walk {
    fn entry(&mut self, line: &[u8], scratch: &mut Vec<u8>, findings: &mut Findings) -> Result<(), BundleError> {
        let wrong = |reason: String| malformed("entries", format!("line {}: {reason}", self.entries));
        let record = decode_with(line, scratch).map_err(|error| wrong(error.to_string()))?;
        let index = record.index();
        if index.0 < self.peaks.size().0 {
            return Err(wrong(format!("entry {} does not follow the one before", index.0)));
        }
        if index.0 >= self.size.0 {
            return Err(wrong(format!("entry {} is not below the checkpoint's {}", index.0, self.size.0)));
        }
        if self.entries == 0 && index.0 != 0 {
            findings.push(Finding::GenesisMissing {});
        }
        self.withheld(index.0)?;
        let leaf = leaf_hash(line);
        if index.0 == 0 {
            self.genesis = Some(leaf);
        }
        let follows = |(before, _): &(EntryIndex, LeafHash)| before.0.checked_add(1) == Some(index.0);
        let previous = match self.previous.filter(follows) {
            Some((_, leaf)) => Some(leaf),
            None => (index.0 == 0).then_some(LeafHash([0; 32])),
        };
        if !self.values.entry(&record) {
            return Err(malformed("entries", format!("more than {VALUES_MAX} committed values")));
        }
        self.audit.disclosed(&record, leaf, previous, findings);
        self.push(0, leaf.0)?;
        self.previous = Some((index, leaf));
        self.entries = self.entries.saturating_add(1);
        Ok(())
    }

    /// Takes the hashes of the withheld entries up to this one.
    fn withheld(&mut self, past: u64) -> Result<(), BundleError> {
        while self.peaks.size().0 < past {
            let first = self.peaks.size().0;
            let stop = self.heads.peek().map_or(past, |head| head.0.min(past));
            for (height, _) in complete_subtrees(first, stop) {
                let hash = self.hashes.next().ok_or_else(|| malformed("hashes", "too few for what is withheld"))?;
                self.push(height, hash)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, height: u32, hash: NodeHash) -> Result<(), BundleError> {
        self.peaks.push(height, hash).map_err(|error| malformed("hashes", error.to_string()))?;
        if let Some(head) = self.heads.next_if(|head| *head <= self.peaks.size()) {
            self.roots.push((head, self.peaks.root()));
        }
        Ok(())
    }

    /// What is withheld behind the last entry.
    fn finish(&mut self) -> Result<(), BundleError> {
        self.withheld(self.size.0)?;
        match self.hashes.len() {
            0 => Ok(()),
            left => Err(malformed("hashes", format!("{left} more than what is withheld needs"))),
        }
    }
}

/// The judgment over the whole: root, heads, signatures, trust.
fn conclude(
    walk: Walk,
    checkpoint: Checkpoint,
    note: &SignedNote,
    mut findings: Findings,
    trust: Option<&Trust>,
) -> Report {
    let Walk { peaks, roots, genesis, entries, mut audit, contents, .. } = walk;
    if entries == 0 {
        findings.push(Finding::GenesisMissing {});
    }
    audit.finish(checkpoint.size, &mut findings);
    let registers = trust.map(|trust| trust.registers.as_slice()).unwrap_or_default();
    let Ok(()) = audit.judge_host(registers, |wanted| Ok::<_, Infallible>(contents.get(&wanted)), &mut findings);
    audit.host.overflowed |= contents.overflowed();
    let root_holds = peaks.root() == checkpoint.root;
    if !root_holds {
        findings.push(Finding::EvbProofWrong { size: checkpoint.size });
    }
    let shown = |size: TreeSize| match size {
        TreeSize(0) => Some(empty_root()),
        size if size == checkpoint.size => Some(peaks.root()),
        size => roots.binary_search_by_key(&size, |(size, _)| *size).ok().and_then(|at| roots.get(at)).map(|at| at.1),
    };
    let anchored: Vec<_> = audit.attested.pending().map(|pending| shown(pending.size)).collect();
    audit.attested.settle(anchored, &mut findings);
    let mut heads_left = 0;
    for head in trust.map(|trust| trust.heads.as_slice()).unwrap_or_default() {
        match shown(head.size) {
            None => heads_left += 1,
            Some(root) if root == head.root => {}
            Some(_) if head.size == checkpoint.size => findings.push(Finding::Equivocation { size: head.size }),
            Some(_) => findings.push(Finding::HeadMismatch { remembered: head.size }),
        }
    }
    let (witnesses, policy) = Witnesses::of_checkpoint(trust, &checkpoint, note, root_holds, &mut findings);
    let witnessed = policy.and_then(|policy| witnesses.quorum(policy));
    audit.notes.extend(witnesses.notes);
    let window = audit.part.as_ref().and_then(super::part::Part::window);
    let bundle = Some(BundleReport { entries, window, heads_left });
    // Heads that it does not show are in what it says of itself.
    let hidden = Hidden::default();
    judge(super::Read { checkpoint, note, root_holds, audit, findings, genesis, witnessed, bundle, hidden }, trust)
}
