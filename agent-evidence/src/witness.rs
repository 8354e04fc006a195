//! The witness protocol (C2SP tlog-witness, version 1), without the network: requests and answers as bytes, and the
//! judgment of a witness as a function.
//!
//! A witness cosigns a checkpoint of a log that it knows if the log signed it and it continues the checkpoint that the
//! witness cosigned last. Who keeps that last one, and makes it durable **before** the cosignature is given away, is
//! the caller: [`judge`] only compares.
//!
//! Pure. A request comes from anybody; an answer from whoever answered at the witness's address. Neither is trusted.

#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::{KeyName, NOTE_BYTES_MAX, Note, SIGNATURES_MAX, SignatureLine, VerifierKey};
use crate::proof::{decimal, hash};
use crate::record::{RootHash, TreeSize};
use crate::tree::{NodeHash, PROOF_LEN_MAX, TreeError, empty_root, verify_consistency};
use crate::trust::Head;

/// Largest request that is read, in bytes: the old size, 63 hashes, a checkpoint.
pub const REQUEST_BYTES_MAX: usize = 32 + PROOF_LEN_MAX * 45 + NOTE_BYTES_MAX;
/// Largest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = NOTE_BYTES_MAX;
/// Content type of the answer that says which size the witness knows.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";
/// What a submission is posted to, below the witness's submission prefix.
pub const ADD_CHECKPOINT: &str = "add-checkpoint";

/// Why a request is refused before anything is compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Larger than is read.
    #[error("the request has {seen} bytes, at most {REQUEST_BYTES_MAX} are read")]
    TooLarge {
        /// Bytes seen.
        seen: usize,
    },
    /// A line that does not follow the specification.
    #[error("line {line} of the request is not {expected}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// What follows the empty line is no checkpoint.
    #[error("the request has no usable checkpoint")]
    Checkpoint(#[source] CheckpointError),
}

/// A request for a cosignature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the witness cosigned last, as far as the sender knows.
    pub old: TreeSize,
    /// That the checkpoint continues that size.
    pub proof: Vec<NodeHash>,
    /// What the checkpoint says.
    pub checkpoint: Checkpoint,
    /// The checkpoint with its signatures.
    pub note: Note,
}

impl AddCheckpoint {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(RequestError::TooLarge { seen: bytes.len() });
        }
        let mut rest = bytes;
        let mut number = 0;
        let mut line = |expected| {
            number += 1;
            let wrong = RequestError::Line { line: number, expected };
            let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| wrong.clone())?;
            let (line, after) = rest.split_at_checked(end).ok_or_else(|| wrong.clone())?;
            rest = after.get(1..).unwrap_or_default();
            Ok((line, wrong))
        };
        let (first, wrong) = line("`old` and a size")?;
        let old = first.strip_prefix(b"old ").and_then(decimal).ok_or(wrong)?;
        let mut proof = Vec::new();
        loop {
            let (line, wrong) = line("a hash in base64, at most 63 of them, or the empty line")?;
            if line.is_empty() {
                break;
            }
            proof.push(hash(line).filter(|_| proof.len() < PROOF_LEN_MAX).ok_or(wrong)?);
        }
        let (checkpoint, note) = Checkpoint::parse_any(rest).map_err(RequestError::Checkpoint)?;
        Ok(Self { old: TreeSize(old), proof, checkpoint, note })
    }

    /// The body of the request.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("old {}\n", self.old.0);
        for hash in &self.proof {
            STANDARD.encode_string(hash, &mut text);
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.note.to_text());
        text
    }
}

/// Why a witness does not cosign: one variant for each rule of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not a request.
    #[error("the request is malformed")]
    Malformed(#[from] RequestError),
    /// A log that this witness does not serve.
    #[error("this witness does not know the log {origin:?}")]
    UnknownLog {
        /// Its origin.
        origin: String,
    },
    /// No signature by the log's key, or one that does not hold.
    #[error("the checkpoint is not signed by the key of the log {origin:?} that this witness knows")]
    NotSigned {
        /// The log's origin.
        origin: String,
    },
    /// The old size is beyond the checkpoint's.
    #[error("the old size {old} is larger than the checkpoint's {size}")]
    OldTooLarge {
        /// Old size.
        old: u64,
        /// The checkpoint's.
        size: u64,
    },
    /// The old size is not the one that was cosigned last.
    #[error("the last size that this witness cosigned is {known}, not {old}")]
    Stale {
        /// Old size.
        old: u64,
        /// The witness's.
        known: u64,
    },
    /// The checkpoint is no continuation of the one that was cosigned last.
    #[error("the checkpoint of {size} entries does not continue the one of {known} entries that this witness cosigned")]
    Inconsistent {
        /// The witness's size.
        known: u64,
        /// The checkpoint's.
        size: u64,
        /// How the proof fails.
        #[source]
        source: TreeError,
    },
}

impl Refusal {
    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::OldTooLarge { .. } => 400,
            Self::NotSigned { .. } => 403,
            Self::UnknownLog { .. } => 404,
            Self::Stale { .. } => 409,
            Self::Inconsistent { .. } => 422,
        }
    }

    /// The content type and body of the answer.
    #[must_use]
    pub fn answer(&self) -> (&'static str, String) {
        match self {
            Self::Stale { known, .. } => (SIZE_CONTENT_TYPE, format!("{known}\n")),
            other => ("text/plain; charset=utf-8", format!("{}\n", in_full(other))),
        }
    }

    /// Whether the log's own key signed what is refused as another history: evidence worth keeping.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Inconsistent { .. })
    }
}

fn in_full(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Whether a witness that knows these log keys, and cosigned `known` last for the log (nothing: size 0), may cosign.
///
/// # Errors
/// [`Refusal`], the first that applies in the order of the specification.
pub fn judge(request: &AddCheckpoint, logs: &[VerifierKey], known: Option<Head>) -> Result<(), Refusal> {
    let AddCheckpoint { old, proof, checkpoint, note } = request;
    let Checkpoint { origin, size, root } = checkpoint;
    let named = || origin.as_str().to_owned();
    let mut keys = logs.iter().filter(|key| key.name() == origin).peekable();
    if keys.peek().is_none() {
        return Err(Refusal::UnknownLog { origin: named() });
    }
    // A known key under which a signature does not hold spoils the note, whatever other keys say.
    let mut signed = false;
    for key in keys {
        signed |= note.signed_by(key).map_err(|_forged| Refusal::NotSigned { origin: named() })?;
    }
    if !signed {
        return Err(Refusal::NotSigned { origin: named() });
    }
    if old > size {
        return Err(Refusal::OldTooLarge { old: old.0, size: size.0 });
    }
    let known = known.unwrap_or(Head { size: TreeSize(0), root: empty_root() });
    if *old != known.size {
        return Err(Refusal::Stale { old: old.0, known: known.size.0 });
    }
    let inconsistent = |source| Refusal::Inconsistent { known: known.size.0, size: size.0, source };
    verify_consistency((known.size, known.root), (*size, *root), proof).map_err(inconsistent)?;
    // From size 0 everything is consistent, but an empty tree has one root only.
    if size.0 == 0 && *root != empty_root() {
        return Err(inconsistent(TreeError::RootMismatch));
    }
    Ok(())
}

/// What a witness answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Signature lines, none of them verified.
    Cosigned(Vec<SignatureLine>),
    /// It cosigned this size last, not the one that the request named.
    Stale {
        /// The size that it knows.
        known: TreeSize,
    },
    /// It refuses: the checkpoint is no continuation of the one that it knows.
    Conflict {
        /// What it says.
        detail: String,
    },
    /// It refuses for another reason.
    Refused {
        /// HTTP status.
        status: u16,
        /// What it says.
        detail: String,
    },
}

/// Most characters of a refusal's text that are kept.
const DETAIL_CHARS_MAX: usize = 200;

impl Answer {
    /// Understands an answer.
    #[must_use]
    pub fn read(status: u16, content_type: Option<&str>, body: &[u8]) -> Self {
        let detail = || {
            let text = String::from_utf8_lossy(body.get(..4 * DETAIL_CHARS_MAX).unwrap_or(body)).into_owned();
            text.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(DETAIL_CHARS_MAX)
                .collect::<String>()
                .trim()
                .to_owned()
        };
        match status {
            200 => match lines(body) {
                Some(lines) => Self::Cosigned(lines),
                None => Self::Refused { status, detail: "the answer is no list of signature lines".to_owned() },
            },
            409 if content_type == Some(SIZE_CONTENT_TYPE) => match body.strip_suffix(b"\n").and_then(decimal) {
                Some(known) => Self::Stale { known: TreeSize(known) },
                None => Self::Refused { status, detail: "the answer names no size".to_owned() },
            },
            // Without a size: the same size under another root, as some witnesses say it.
            409 | 422 => Self::Conflict { detail: detail() },
            _ => Self::Refused { status, detail: detail() },
        }
    }
}

/// The body of an answer with cosignatures.
#[must_use]
pub fn cosigned_body(lines: &[SignatureLine]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn lines(body: &[u8]) -> Option<Vec<SignatureLine>> {
    if body.len() > ANSWER_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?.strip_suffix('\n')?;
    let lines: Option<Vec<SignatureLine>> =
        text.split('\n').take(SIGNATURES_MAX + 1).map(|line| SignatureLine::parse(line).ok()).collect();
    lines.filter(|lines| lines.len() <= SIGNATURES_MAX)
}

/// Where, below its monitoring prefix, a witness shows the last checkpoint of a log that it cosigned; and where, below
/// `witness/`, a log keeps what a witness of that key name cosigned.
#[must_use]
pub fn checkpoint_path(name: &KeyName) -> String {
    let digest: [u8; 32] = Sha256::digest(name.as_str().as_bytes()).into();
    let mut path = String::with_capacity(75);
    for byte in digest {
        path.push_str(&format!("{byte:02x}"));
    }
    path.push_str("/checkpoint");
    path
}

/// Where a log's directory keeps the newest checkpoint that a witness cosigned.
#[must_use]
pub fn stored_path(witness: &KeyName) -> String {
    format!("witness/{}", checkpoint_path(witness))
}

/// The head that a checkpoint states.
#[must_use]
pub fn head_of(checkpoint: &Checkpoint) -> Head {
    let Checkpoint { origin: _, size, root } = checkpoint;
    Head { size: *size, root: RootHash(root.0) }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::note::NoteSigner;
    use crate::record::{PublicKey, Signature};
    use crate::tree::{Subtrees, consistency_proof, fold_tile, leaf_hash, root_of};

    const ORIGIN: &str = "example.com/behind-the-sofa";

    struct Key(u8);

    impl NoteSigner for Key {
        fn verifier(&self) -> VerifierKey {
            let key = SigningKey::from_bytes(&[self.0; 32]).verifying_key().to_bytes();
            VerifierKey::new(KeyName::new(ORIGIN).unwrap(), PublicKey(key))
        }
        fn sign(&self, message: &[u8]) -> Signature {
            Signature(SigningKey::from_bytes(&[self.0; 32]).sign(message).to_bytes())
        }
    }

    /// A history: every entry holds its byte.
    struct History(u8);

    impl Subtrees for History {
        fn subtree(&self, height: u32, _number: u64) -> Result<NodeHash, TreeError> {
            let leaves = vec![leaf_hash(&[self.0]).0; 1 << height];
            fold_tile(&leaves).ok_or(TreeError::RootMismatch)
        }
    }

    impl History {
        fn head(&self, size: u64) -> Head {
            Head { size: TreeSize(size), root: root_of(self, TreeSize(size)).unwrap() }
        }

        fn request(&self, old: u64, size: u64) -> AddCheckpoint {
            let Head { size, root } = self.head(size);
            let checkpoint = Checkpoint { origin: KeyName::new(ORIGIN).unwrap(), size, root };
            let note = Note::parse(checkpoint.sign(&[&Key(1)]).as_bytes()).unwrap();
            let proof = consistency_proof(self, TreeSize(old.min(size.0)), size).unwrap();
            AddCheckpoint { old: TreeSize(old), proof, checkpoint, note }
        }
    }

    fn judged(request: &AddCheckpoint, known: Option<Head>) -> Result<(), Refusal> {
        judge(request, &[Key(9).verifier(), Key(1).verifier()], known)
    }

    /// The example of the tlog-witness specification; the log's keys are not published.
    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let body = "old 20852014\n\
            PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\njrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
            5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\n\
            example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
            \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
            \u{2014} example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
        let request = AddCheckpoint::parse(body.as_bytes()).unwrap();
        assert_eq!(
            (request.old, request.proof.len(), request.checkpoint.size),
            (TreeSize(20_852_014), 4, TreeSize(20_852_163))
        );
        assert_eq!(request.to_text(), body);
        let answer = "\u{2014} witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==\n\
            \u{2014} witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==\n";
        let Answer::Cosigned(lines) = Answer::read(200, None, answer.as_bytes()) else { panic!() };
        assert_eq!(lines.len(), 2);
        assert_eq!(cosigned_body(&lines), answer);
    }

    #[test]
    fn a_log_that_only_grows_is_cosigned() {
        let history = History(1);
        assert_eq!(judged(&history.request(0, 0), None), Ok(()));
        assert_eq!(judged(&history.request(0, 7), None), Ok(()));
        assert_eq!(judged(&history.request(7, 7), Some(history.head(7))), Ok(()));
        assert_eq!(judged(&history.request(7, 90), Some(history.head(7))), Ok(()));
    }

    #[test]
    fn each_rule_has_its_status() {
        let history = History(1);
        let known = Some(history.head(7));
        let refused = |request: &AddCheckpoint, known| judged(request, known).unwrap_err();
        // 404, 403
        let good = history.request(7, 9);
        assert_eq!(judge(&good, &[], known).unwrap_err().status(), 404);
        assert_eq!(judge(&good, &[Key(9).verifier()], known).unwrap_err().status(), 403);
        let mut forged = good.clone();
        forged.note.signatures[0].signature[5] ^= 1;
        assert_eq!(refused(&forged, known), Refusal::NotSigned { origin: ORIGIN.to_owned() });
        // 400
        assert_eq!(refused(&history.request(10, 9), known), Refusal::OldTooLarge { old: 10, size: 9 });
        assert_eq!(Refusal::from(RequestError::TooLarge { seen: 1 }).status(), 400);
        // 409, with the size
        let stale = refused(&history.request(5, 9), known);
        assert_eq!((stale.status(), stale.answer()), (409, (SIZE_CONTENT_TYPE, "7\n".to_owned())));
        assert_eq!(refused(&history.request(0, 9), known).status(), 409);
        assert_eq!(refused(&history.request(5, 9), None), Refusal::Stale { old: 5, known: 0 });
        // 422
        let fork = History(2);
        for request in [fork.request(7, 9), fork.request(7, 7)] {
            let refusal = refused(&request, known);
            assert_eq!((refusal.status(), refusal.is_conflict()), (422, true), "{refusal}");
        }
        let mut extra = history.request(0, 9);
        extra.proof.push([0; 32]);
        assert_eq!(refused(&extra, None).status(), 422);
        let mut empty = history.request(0, 0);
        empty.checkpoint.root.0[0] ^= 1;
        empty.note = Note::parse(empty.checkpoint.sign(&[&Key(1)]).as_bytes()).unwrap();
        assert_eq!(refused(&empty, None).status(), 422);
    }

    #[test]
    fn answers_are_understood_and_others_are_refusals() {
        let stale = |body: &str, kind| Answer::read(409, kind, body.as_bytes());
        assert_eq!(stale("50\n", Some(SIZE_CONTENT_TYPE)), Answer::Stale { known: TreeSize(50) });
        for body in ["", "50", "050\n", "-1\n", "50\n\n"] {
            assert!(matches!(stale(body, Some(SIZE_CONTENT_TYPE)), Answer::Refused { status: 409, .. }), "{body:?}");
        }
        assert_eq!(stale("other\troot\n", None), Answer::Conflict { detail: "other root".to_owned() });
        assert!(matches!(Answer::read(422, None, b"no"), Answer::Conflict { .. }));
        assert!(matches!(Answer::read(503, None, &[0xff; 5_000]), Answer::Refused { status: 503, .. }));
        for body in ["", "\n", "x\n", "\u{2014} a AAAAAAE="] {
            assert!(
                matches!(Answer::read(200, None, body.as_bytes()), Answer::Refused { status: 200, .. }),
                "{body:?}"
            );
        }
        let many = "\u{2014} a AAAAAAE=\n".repeat(65);
        assert!(matches!(Answer::read(200, None, many.as_bytes()), Answer::Refused { status: 200, .. }));
    }

    #[test]
    fn every_other_form_of_a_request_is_refused_by_line() {
        let good = History(1).request(3, 9).to_text();
        assert!(AddCheckpoint::parse(good.as_bytes()).is_ok());
        #[track_caller]
        fn line(text: &str) -> usize {
            match AddCheckpoint::parse(text.as_bytes()) {
                Err(RequestError::Line { line, .. }) => line,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(line(""), 1);
        assert_eq!(line(&good.replacen("old 3", "old 03", 1)), 1);
        assert_eq!(line(&good.replacen("old 3", "Old 3", 1)), 1);
        assert_eq!(line(&good.replacen("=\n", "\n", 1)), 2);
        let many = "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n".repeat(64);
        assert_eq!(line(&format!("old 1\n{many}\n")), 65);
        assert!(matches!(AddCheckpoint::parse(b"old 1\n\n"), Err(RequestError::Checkpoint(_))));
        // Other logs may have extension lines, which are not empty.
        let extended = good.replacen("\n\n\u{2014}", "\nmore\n\n\u{2014}", 1);
        assert_eq!(AddCheckpoint::parse(extended.as_bytes()).map(|request| request.to_text()), Ok(extended.clone()));
        assert!(AddCheckpoint::parse(extended.replacen("\nmore\n", "\n\nmore\n", 1).as_bytes()).is_err());
    }

    #[test]
    fn a_witness_shows_a_log_under_the_hash_of_its_origin() {
        let path = checkpoint_path(&KeyName::new("witness.example").unwrap());
        assert_eq!(path.len(), 64 + "/checkpoint".len());
        assert_eq!(stored_path(&KeyName::new("witness.example").unwrap()), format!("witness/{path}"));
    }
}
