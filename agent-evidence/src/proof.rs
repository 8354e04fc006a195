//! Transparent proofs (C2SP tlog-proof, version 1): one entry's inclusion in a signed checkpoint, in one small file.
//!
//! Who holds the entry's bytes, the proof and a trust file needs nothing else. The proof carries no entry, and its
//! `extra` line is authenticated by nothing: it is read and never believed.
//!
//! Pure. Untrusted: a proof comes from whoever wants to be believed.

#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::note::{NOTE_BYTES_MAX, Note};
use crate::record::EntryIndex;
use crate::tree::{NodeHash, PROOF_LEN_MAX, TreeError, leaf_hash, verify_inclusion};

/// The first line.
const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Most bytes of extra data that are read.
pub const EXTRA_BYTES_MAX: usize = 64 * 1024;
/// Largest proof that is read, in bytes: the extra data in base64, 63 hashes, a checkpoint, and room for the rest.
pub const TLOG_PROOF_BYTES_MAX: usize = EXTRA_BYTES_MAX / 3 * 4 + PROOF_LEN_MAX * 45 + NOTE_BYTES_MAX + 256;

/// Why a proof is refused, or does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Larger than is read.
    #[error("the proof has {seen} bytes, at most {TLOG_PROOF_BYTES_MAX} are read")]
    TooLarge {
        /// Bytes seen.
        seen: usize,
    },
    /// A line that does not follow the specification.
    #[error("line {line} of the proof is not {expected}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// What follows the empty line is not a signed checkpoint.
    #[error("the proof has no usable checkpoint")]
    Checkpoint(#[source] CheckpointError),
    /// The hashes do not lead from the entry to the root.
    #[error("the proof does not lead from the entry to the checkpoint's root hash")]
    Inclusion(#[source] TreeError),
}

/// A proof that was read; nothing in it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Unauthenticated data for applications.
    pub extra: Option<Vec<u8>>,
    /// Which entry.
    pub index: EntryIndex,
    /// The inclusion proof, leaf sibling first.
    pub hashes: Vec<NodeHash>,
    /// What the checkpoint says.
    pub checkpoint: Checkpoint,
    /// The checkpoint with its signatures.
    pub note: Note,
}

impl Proof {
    /// Reads a proof. The only form accepted is the one that [`Proof::to_text`] writes.
    ///
    /// # Errors
    /// Every [`ProofError`] but [`ProofError::Inclusion`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > TLOG_PROOF_BYTES_MAX {
            return Err(ProofError::TooLarge { seen: bytes.len() });
        }
        let mut lines = Lines { rest: bytes, line: 0 };
        if lines.next()? != HEADER.as_bytes() {
            return Err(lines.wrong("c2sp.org/tlog-proof@v1"));
        }
        let mut line = lines.next()?;
        let mut extra = None;
        if let Some(encoded) = line.strip_prefix(b"extra ") {
            let data = STANDARD.decode(encoded).ok().filter(|data| data.len() <= EXTRA_BYTES_MAX);
            extra = Some(data.ok_or_else(|| lines.wrong("`extra` and at most 64 KiB in base64"))?);
            line = lines.next()?;
        }
        let index = line
            .strip_prefix(b"index ")
            .and_then(decimal)
            .filter(|index| *index < EntryIndex::MAX.0)
            .ok_or_else(|| lines.wrong("`index` and the index of an entry"))?;
        let mut hashes = Vec::new();
        loop {
            let line = lines.next()?;
            if line.is_empty() {
                break;
            }
            if hashes.len() == PROOF_LEN_MAX {
                return Err(lines.wrong("the empty line after at most 63 hashes"));
            }
            hashes.push(hash(line).ok_or_else(|| lines.wrong("a hash in base64, or the empty line after the hashes"))?);
        }
        let (checkpoint, note) = Checkpoint::parse(lines.rest).map_err(ProofError::Checkpoint)?;
        Ok(Self { extra, index: EntryIndex(index), hashes, checkpoint, note })
    }

    /// The text of the proof.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        if let Some(extra) = &self.extra {
            text.push_str(&format!("extra {}\n", STANDARD.encode(extra)));
        }
        text.push_str(&format!("index {}\n", self.index.0));
        for hash in &self.hashes {
            STANDARD.encode_string(hash, &mut text);
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.note.to_text());
        text
    }

    /// Whether the hashes lead from these bytes, as the entry at [`Proof::index`], to the root of the checkpoint. Whose
    /// checkpoint it is, is not judged here.
    ///
    /// # Errors
    /// [`ProofError::Inclusion`].
    pub fn includes(&self, entry: &[u8]) -> Result<(), ProofError> {
        let Checkpoint { origin: _, size, root } = &self.checkpoint;
        verify_inclusion(leaf_hash(entry), self.index, *size, &self.hashes, *root).map_err(ProofError::Inclusion)
    }
}

/// The lines of a text, each of which must be ended.
pub(crate) struct Lines<'a> {
    /// What follows the lines read so far.
    pub(crate) rest: &'a [u8],
    /// Number of the last line, from 1.
    line: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a [u8], ProofError> {
        self.line += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| self.wrong("ended by a line feed"))?;
        let (line, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(line)
    }

    fn wrong(&self, expected: &'static str) -> ProofError {
        ProofError::Line { line: self.line, expected }
    }
}

/// A decimal number without sign or leading zeros.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

/// The base64 of 32 bytes.
pub(crate) fn hash(encoded: &[u8]) -> Option<NodeHash> {
    // 32 bytes are 44 digits; a longer line is refused without being decoded.
    (encoded.len() == 44).then(|| STANDARD.decode(encoded).ok())??.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::KeyName;
    use crate::record::{RootHash, TreeSize};
    use crate::tree::node_hash;

    fn proof() -> (Proof, &'static [u8]) {
        let entry = b"second".as_slice();
        let first = leaf_hash(b"first").0;
        let checkpoint = Checkpoint {
            origin: KeyName::new("example.com/log").unwrap(),
            size: TreeSize(2),
            root: RootHash(node_hash(&first, &leaf_hash(entry).0)),
        };
        let note = format!("{}\n\u{2014} example.com/log AAAAAAE=\n", checkpoint.text());
        let note = Note::parse(note.as_bytes()).unwrap();
        (Proof { extra: None, index: EntryIndex(1), hashes: vec![first], checkpoint, note }, entry)
    }

    #[test]
    fn a_proof_is_written_as_the_specification_shows_it_and_read_back() {
        let (proof, entry) = proof();
        let text = proof.to_text();
        assert!(text.starts_with("c2sp.org/tlog-proof@v1\nindex 1\n"));
        assert!(text.contains("=\n\nexample.com/log\n2\n"));
        assert_eq!(Proof::parse(text.as_bytes()), Ok(proof.clone()));
        let extra = Proof { extra: Some(b"more".to_vec()), ..proof.clone() };
        assert!(extra.to_text().starts_with("c2sp.org/tlog-proof@v1\nextra bW9yZQ==\nindex 1\n"));
        assert_eq!(Proof::parse(extra.to_text().as_bytes()), Ok(extra));
        assert_eq!(proof.includes(entry), Ok(()));
        assert_eq!(proof.includes(b"third"), Err(ProofError::Inclusion(TreeError::RootMismatch)));
        let moved = Proof { index: EntryIndex(0), ..proof.clone() };
        assert_eq!(moved.includes(entry), Err(ProofError::Inclusion(TreeError::RootMismatch)));
        let beyond = Proof { index: EntryIndex(2), ..proof };
        assert_eq!(beyond.includes(entry), Err(ProofError::Inclusion(TreeError::NotInTree { index: 2, size: 2 })));
    }

    /// The example of the tlog-proof specification up to its elided signatures; its `extra` line is not base64 of any
    /// length, which the specification's own text requires.
    #[test]
    fn the_example_of_the_specification_is_read() {
        let example = "c2sp.org/tlog-proof@v1\nextra YWdlLXYxLjIuMS1kYXJ3aW4=\nindex 73894\n\
            gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\nB95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=\n\
            EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=\nRoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=\n\
            AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=\n\n\
            example.com/fancylog\n109482\nsFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=\n\n\
            \u{2014} example.com/fancylog hI2DJ1roloI=\n\u{2014} witness1.example mJirIklj\n";
        let proof = Proof::parse(example.as_bytes()).unwrap();
        assert_eq!(
            (proof.index, proof.hashes.len(), proof.checkpoint.size),
            (EntryIndex(73_894), 5, TreeSize(109_482))
        );
        assert_eq!(proof.to_text(), example);
        // Five hashes cannot prove anything in a tree of that size.
        assert_eq!(proof.includes(b"x"), Err(ProofError::Inclusion(TreeError::ProofLength { expected: 17, seen: 5 })));
    }

    #[test]
    fn every_other_form_is_refused_by_line() {
        let good = proof().0.to_text();
        #[track_caller]
        fn refused(text: &str) -> usize {
            match Proof::parse(text.as_bytes()) {
                Err(ProofError::Line { line, .. }) => line,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(refused(""), 1);
        assert_eq!(refused(&good.replacen("@v1", "@v2", 1)), 1);
        assert_eq!(refused(&good.replacen("\nindex", "\r\nindex", 1)), 1);
        assert_eq!(refused(&good.replacen("index", "extra !\nindex", 1)), 2);
        assert_eq!(refused(&good.replacen("index", "extra YQ==\nextra YQ==\nindex", 1)), 3);
        for index in ["01", "+1", "", "-1", " 1", "9007199254740991", "99999999999999999999"] {
            assert_eq!(refused(&good.replacen("index 1", &format!("index {index}"), 1)), 2, "{index:?}");
        }
        assert_eq!(refused(&good.replacen("=\n\n", "\n\n", 1)), 3);
        assert_eq!(refused(&good.replacen("\n\n", " \n\n", 1)), 3);
        assert_eq!(refused("c2sp.org/tlog-proof@v1\nindex 0\n"), 3);
        let many = "gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n".repeat(64);
        assert_eq!(refused(&format!("c2sp.org/tlog-proof@v1\nindex 0\n{many}\n")), 66);
        let checkpoint = Proof::parse(good.replacen("\n2\n", "\n02\n", 1).as_bytes());
        assert!(matches!(checkpoint, Err(ProofError::Checkpoint(CheckpointError::Line { line: 2, .. }))));
        let large = vec![b'a'; TLOG_PROOF_BYTES_MAX + 1];
        assert_eq!(Proof::parse(&large), Err(ProofError::TooLarge { seen: TLOG_PROOF_BYTES_MAX + 1 }));
    }
}
