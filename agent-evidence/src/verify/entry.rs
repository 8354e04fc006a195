//! Verification of one entry by its proof: that these bytes are the entry of this index in the log that the trust file
//! names. Of the entries around it, nothing is known.

use crate::proof::{Proof, ProofError};
use crate::record::{DecodeError, EntryIndex, TreeSize, decode};
use crate::trust::{Trust, WitnessPolicy};

use super::report::Findings;
use super::witnesses::{Witnessed, Witnesses};
use super::{Claim, Finding};

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// The hashes do not lead from the entry to the checkpoint.
    #[error("{0}")]
    Inclusion(#[from] ProofError),
    /// The entry is not in the one permitted form.
    #[error("the entry is not in the one permitted form: {0}")]
    Malformed(DecodeError),
    /// The entry says that it stands elsewhere.
    #[error("the proof is for entry {}, the entry says that it is {}", proved.0, says.0)]
    Index {
        /// By the proof.
        proved: EntryIndex,
        /// By the entry.
        says: EntryIndex,
    },
    /// The checkpoint is of another log than the trust file's.
    #[error("the proof is of the log {seen:?}, the trust file is for {trusted:?}")]
    Origin {
        /// In the trust file.
        trusted: String,
        /// In the checkpoint.
        seen: String,
    },
    /// The log key of the trust file did not sign the checkpoint.
    #[error("the log key that the trust file names did not sign the checkpoint of the proof")]
    Unsigned,
    /// Its signature does not hold.
    #[error("the signature of the log key on the checkpoint of the proof does not hold")]
    Forged,
    /// The trust file remembers another root at this size.
    #[error("the trust file remembers another root hash at {} entries: the log signed two histories", .0.0)]
    Equivocation(TreeSize),
    /// A cosignature of a trusted witness does not hold.
    #[error("{0}")]
    Cosignature(Finding),
    /// The trust file requires witnesses, and no quorum of them cosigned the checkpoint.
    #[error(
        "the trust file requires non_equivocation, and no quorum of its witnesses cosigned the checkpoint of the proof"
    )]
    NoQuorum,
}

/// What a proof proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvedEntry {
    /// Which entry.
    pub index: EntryIndex,
    /// Of the log of this name.
    pub origin: String,
    /// Under its checkpoint of this size.
    pub size: TreeSize,
    /// Whether a trust file says that it is that log.
    pub trusted: bool,
    /// The quorum of trusted witnesses that cosigned the checkpoint.
    pub witnessed: Option<Witnessed>,
}

/// Verifies that these bytes are the entry that the proof is for.
///
/// Without a trust file nobody says whose log it is, and no signature is judged. With one: the log key's signature, and a
/// quorum of witnesses if the trust file requires `non_equivocation`. The epoch key's signature cannot be judged, because
/// the entry that introduces the key is not there; nor can what the trust file requires of a whole log.
///
/// # Errors
/// [`EntryFault`].
pub fn verify_entry(proof: &Proof, entry: &[u8], trust: Option<&Trust>) -> Result<ProvedEntry, EntryFault> {
    proof.includes(entry)?;
    let record = decode(entry).map_err(EntryFault::Malformed)?;
    if record.index() != proof.index {
        return Err(EntryFault::Index { proved: proof.index, says: record.index() });
    }
    let Proof { checkpoint, note, .. } = proof;
    let mut witnessed = None;
    if let Some(trust) = trust {
        if trust.origin != checkpoint.origin {
            return Err(EntryFault::Origin {
                trusted: trust.origin.as_str().to_owned(),
                seen: checkpoint.origin.as_str().to_owned(),
            });
        }
        match note.signed_by(&trust.log_key) {
            Ok(true) => {}
            Ok(false) => return Err(EntryFault::Unsigned),
            Err(_forged) => return Err(EntryFault::Forged),
        }
        if trust.heads.iter().any(|head| head.size == checkpoint.size && head.root != checkpoint.root) {
            return Err(EntryFault::Equivocation(checkpoint.size));
        }
        let mut findings = Findings::new();
        let (witnesses, policy) = Witnesses::of_checkpoint(Some(trust), checkpoint, note, true, &mut findings);
        if let Some(finding) = findings.into_first() {
            return Err(EntryFault::Cosignature(finding));
        }
        witnessed = policy.and_then(|policy| witnesses.quorum(policy));
        let required = trust.required.contains(&Claim::NonEquivocation);
        let asked = trust.witnesses.as_ref().map(WitnessPolicy::policy).is_none_or(|policy| policy.needs_witnesses());
        if required && asked && witnessed.is_none() {
            return Err(EntryFault::NoQuorum);
        }
    }
    Ok(ProvedEntry {
        index: proof.index,
        origin: checkpoint.origin.as_str().to_owned(),
        size: checkpoint.size,
        trusted: trust.is_some(),
        witnessed,
    })
}

/// The verdict in words.
impl std::fmt::Display for ProvedEntry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { index, origin, size, trusted, witnessed } = self;
        if *trusted {
            writeln!(
                out,
                "proved: these bytes are entry {} of the log {origin:?}, under its checkpoint of {} entries, signed by the log key that the trust file names",
                index.0, size.0
            )?;
        } else {
            writeln!(
                out,
                "self-consistent: these bytes are entry {} under a checkpoint of {} entries that says it is of the log {origin:?}; without a trust file no signature was judged and the signer is not established",
                index.0, size.0
            )?;
        }
        if let Some(witnessed) = witnessed {
            writeln!(
                out,
                "witnessed: a quorum of the trusted witnesses cosigned that checkpoint ({})",
                witnessed.witnesses.join(", ")
            )?;
        }
        writeln!(
            out,
            "not judged: the entries around it, whether any were left out or lost, the key of the epoch, and what the entry claims"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Builder, FixedSigner};
    use crate::note::Note;
    use crate::prove::prove;

    fn proved() -> (Builder, Proof, Vec<u8>) {
        let log = Builder::new().unwrap();
        let (proof, entry) = prove(&mut log.files().unwrap(), EntryIndex(1)).unwrap();
        (log, proof, entry)
    }

    #[test]
    fn an_entry_is_proved_by_the_key_that_the_trust_file_names_and_by_no_other() {
        let (log, proof, entry) = proved();
        let trust = log.trust().unwrap();
        assert!(verify_entry(&proof, &entry, Some(&trust)).unwrap().trusted);
        assert!(!verify_entry(&proof, &entry, None).unwrap().trusted);
        let mut other = trust.clone();
        other.log_key = crate::note::NoteSigner::verifier(&FixedSigner::new(trust.origin.as_str(), 99).unwrap());
        assert_eq!(verify_entry(&proof, &entry, Some(&other)), Err(EntryFault::Unsigned));
        let mut forged = proof.clone();
        for line in &mut forged.note.signatures {
            line.signature[9] ^= 1;
        }
        assert_eq!(verify_entry(&forged, &entry, Some(&trust)), Err(EntryFault::Forged));
        let mut remembers = trust.clone();
        remembers.heads[0].root.0[0] ^= 1;
        let size = proof.checkpoint.size;
        assert_eq!(verify_entry(&proof, &entry, Some(&remembers)), Err(EntryFault::Equivocation(size)));
        let mut altered = entry;
        altered[10] ^= 1;
        assert!(matches!(verify_entry(&proof, &altered, Some(&trust)), Err(EntryFault::Inclusion(_))));
    }

    #[test]
    fn required_witnesses_must_have_cosigned_the_checkpoint_of_the_proof() {
        let (log, mut proof, entry) = proved();
        let witness = FixedSigner::new("witness.example", 50).unwrap();
        let mut trust = log.trust().unwrap();
        trust.believe(&format!("witness w {}\nquorum w\n", witness.witness_key())).unwrap();
        assert_eq!(verify_entry(&proof, &entry, Some(&trust)), Err(EntryFault::NoQuorum));
        proof.note = Note::parse(&log.cosigned(&witness, 5).unwrap().1).unwrap();
        let report = verify_entry(&proof, &entry, Some(&trust)).unwrap();
        assert_eq!(report.witnessed.unwrap().witnesses, ["w"]);
        let last = proof.note.signatures.last_mut().unwrap();
        last.signature[20] ^= 1;
        assert!(matches!(verify_entry(&proof, &entry, Some(&trust)), Err(EntryFault::Cosignature(_))));
    }
}
