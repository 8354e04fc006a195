//! Evidence bundles: the file as it comes, and whole ones around whatever entries come. Verification ends with a report
//! or an error, never with a clean verdict, for nobody signed; and it says the same twice.

#![no_main]

use std::collections::BTreeSet;

use agent_evidence::bundle::{Disclosed, Manifest, withheld, write_blob, write_end, write_entries, write_proof};
use agent_evidence::checkpoint::Checkpoint;
use agent_evidence::note::{KeyName, NoteSigner, VerifierKey};
use agent_evidence::record::{EntryIndex, KeyTier, LeafHash, PublicKey, Signature, TreeSize, decode};
use agent_evidence::tree::{NodeHash, Peaks, Subtrees, TreeError, leaf_hash};
use agent_evidence::trust::{AttestationTrust, Limits, Trust};
use agent_evidence::verify::{Options, Verdict, verify_bundle};
use libfuzzer_sys::fuzz_target;

/// A key that nobody holds.
struct Nobody(&'static str);

impl NoteSigner for Nobody {
    fn verifier(&self) -> VerifierKey {
        VerifierKey::new(KeyName::new(self.0).expect("a name"), PublicKey([3; 32]))
    }

    fn sign(&self, _: &[u8]) -> Signature {
        Signature([0; 64])
    }
}

const ORIGIN: &str = "affiant.example/vectors";

/// What is withheld has no content here.
struct Nothing;

impl Subtrees for Nothing {
    fn subtree(&self, _: u32, _: u64) -> Result<NodeHash, TreeError> {
        Ok([0; 32])
    }
}

#[derive(Debug)]
struct Failed;

impl From<std::io::Error> for Failed {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl From<TreeError> for Failed {
    fn from(_: TreeError) -> Self {
        Self
    }
}

/// A bundle of every line that is an entry and stands behind the one before.
fn around(lines: &[u8], session: u64, head: u64, grow: u64) -> Option<(Vec<u8>, TreeSize)> {
    let mut entries: Vec<(u64, &[u8])> = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Ok(record) = decode(line) else { continue };
        if entries.last().is_none_or(|(last, _)| *last < record.index().0) {
            entries.push((record.index().0, line));
        }
    }
    let size = TreeSize(entries.last()?.0.saturating_add(1 + grow));
    let disclosed: Vec<_> = entries
        .iter()
        .map(|(index, line)| Disclosed { index: EntryIndex(*index), bytes: u32::try_from(line.len()).unwrap_or(0) })
        .collect();
    let heads: Vec<_> = [TreeSize(head)].into_iter().filter(|head| head.0 > 0 && *head < size).collect();
    let mut peaks = Peaks::new();
    let mut rest = entries.iter().peekable();
    for (height, number) in withheld(&disclosed, &heads, size) {
        while let Some((_, line)) = rest.next_if(|(index, _)| *index < number << height) {
            peaks.push(0, leaf_hash(line).0).ok()?;
        }
        peaks.push(height, [0; 32]).ok()?;
    }
    for (_, line) in rest {
        peaks.push(0, leaf_hash(line).0).ok()?;
    }
    assert_eq!(peaks.size(), size);
    let checkpoint = Checkpoint { origin: KeyName::new(ORIGIN).ok()?, size, root: peaks.root() };
    let note = checkpoint.sign(&[&Nobody(ORIGIN), &Nobody("affiant.example/vectors/epoch")]);
    let manifest = Manifest { sessions: vec![EntryIndex(session)], heads };
    let mut out = Vec::new();
    write_proof::<Failed>(&mut out, &manifest, (note.as_bytes(), size), &disclosed, &Nothing).ok()?;
    let mut ordered = entries.iter();
    write_entries::<Failed>(&mut out, &disclosed, |_, line| {
        line.extend_from_slice(ordered.next().ok_or(Failed)?.1);
        Ok(())
    })
    .ok()?;
    let blobs: BTreeSet<_> = entries
        .iter()
        .filter_map(|(_, line)| decode(line).ok())
        .flat_map(|record| record.blobs().map(|blob| blob.sha256).collect::<Vec<_>>())
        .collect();
    // Whatever their contents should be; each other one is absent.
    for digest in blobs.iter().step_by(2) {
        write_blob(&mut out, digest, lines).ok()?;
    }
    write_end(&mut out).ok()?;
    Some((out, size))
}

fuzz_target!(|input: &[u8]| {
    let trust = Trust {
        origin: KeyName::new(ORIGIN).expect("a name"),
        log_key: Nobody(ORIGIN).verifier(),
        genesis: LeafHash([0; 32]),
        first_epoch_key: PublicKey([3; 32]),
        minimum_tier: KeyTier::T0,
        required: Vec::new(),
        heads: Vec::new(),
        limits: Limits::default(),
        attestation: AttestationTrust::default(),
        registers: Vec::new(),
        witnesses: None,
    };
    let check = |bytes: &[u8]| {
        let report = verify_bundle(bytes, Some(&trust), Options::default());
        if let Ok(report) = &report {
            assert_ne!(report.verdict, Verdict::Proved);
        }
        report.map(|report| report.to_json()).map_err(|error| error.to_string())
    };
    assert_eq!(check(input), check(input));
    // The last three bytes say which session it is about, which head it shows, and how far it goes on.
    let Some((lines, &[session, head, grow])) = input.split_last_chunk::<3>() else { return };
    if let Some((bundle, size)) = around(lines, u64::from(session), u64::from(head), u64::from(grow)) {
        let said = check(&bundle).expect("it is a bundle");
        assert!(!said.contains("evb_proof_wrong") && !said.contains("evb_malformed"), "{size:?}: {said}");
        // A shorter one is none.
        if let Some(shorter) = bundle.get(..bundle.len() - 1) {
            assert!(check(shorter).is_ok_and(|said| said.contains("evb_malformed")));
        }
    }
});
