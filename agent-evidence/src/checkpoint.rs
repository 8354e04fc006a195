//! Checkpoints (C2SP tlog-checkpoint): origin, tree size and root hash, signed as a note. Without extension lines.

#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::note::{self, KeyName, Note, NoteError, NoteSigner};
use crate::record::{EntryIndex, RootHash, TreeSize};

/// Why a checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is not a signed note.
    #[error("the checkpoint is not a signed note")]
    Note(#[source] NoteError),
    /// The text is not origin, size and root.
    #[error("line {line} of the checkpoint is not {expected}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What should be there.
        expected: &'static str,
    },
}

/// What the name of a log's epoch keys has after the origin.
pub const EPOCH_SUFFIX: &str = "/epoch";

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name; also the name of its key.
    pub origin: KeyName,
    /// Tree size.
    pub size: TreeSize,
    /// Root hash.
    pub root: RootHash,
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin.as_str(), self.size.0, STANDARD.encode(self.root.0))
    }

    /// The signed note.
    #[must_use]
    pub fn sign(&self, signers: &[&dyn NoteSigner]) -> String {
        note::sign(&self.text(), signers)
    }

    /// Reads the text of a checkpoint; the only form accepted is the one [`Checkpoint::text`] writes.
    ///
    /// # Errors
    /// [`CheckpointError::Line`].
    pub fn parse_text(text: &str) -> Result<Self, CheckpointError> {
        let wrong = |line, expected| CheckpointError::Line { line, expected };
        let mut lines = text.split('\n');
        let origin = lines.next().and_then(|line| KeyName::new(line).ok()).ok_or(wrong(1, "an origin"))?;
        let size = lines
            .next()
            .and_then(|line| line.parse::<u64>().ok().filter(|size| size.to_string() == line))
            .filter(|size| *size <= EntryIndex::MAX.0)
            .ok_or(wrong(2, "a tree size below 2^53 in decimal digits"))?;
        let root = lines
            .next()
            .and_then(|line| STANDARD.decode(line).ok())
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or(wrong(3, "a root hash in base64"))?;
        if lines.next() != Some("") || lines.next().is_some() {
            return Err(wrong(4, "the end: this log writes no extension lines"));
        }
        Ok(Self { origin, size: TreeSize(size), root: RootHash(root) })
    }

    /// Reads a signed checkpoint of any log: with extension lines, which say nothing to this program, after the root.
    /// For witnesses, which serve other logs too. Its signatures are not verified.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn parse_any(bytes: &[u8]) -> Result<(Self, Note), CheckpointError> {
        let note = Note::parse(bytes).map_err(CheckpointError::Note)?;
        let own = note.text.match_indices('\n').nth(2).map_or(note.text.len(), |(at, _)| at + 1);
        let (text, extensions) = note.text.split_at_checked(own).unwrap_or((&note.text, ""));
        let checkpoint = Self::parse_text(text)?;
        // C2SP tlog-checkpoint: extension lines are not empty. The note's text ends with a line feed.
        if extensions.starts_with('\n') || extensions.contains("\n\n") {
            return Err(CheckpointError::Line { line: 4, expected: "extension lines that are not empty" });
        }
        Ok((checkpoint, note))
    }

    /// Reads a signed checkpoint. Its signatures are not verified: see [`Note::signed_by`].
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, Note), CheckpointError> {
        let note = Note::parse(bytes).map_err(CheckpointError::Note)?;
        Ok((Self::parse_text(&note.text)?, note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::empty_root;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: KeyName::new("affiant.example/host").expect("a name"),
            size: TreeSize(0),
            root: empty_root(),
        }
    }

    #[test]
    fn the_empty_tree_has_the_text_of_the_specification() {
        let text = "affiant.example/host\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
        assert_eq!(checkpoint().text(), text);
        assert_eq!(Checkpoint::parse_text(text), Ok(checkpoint()));
    }

    #[test]
    fn every_other_form_of_a_line_is_refused_by_number() {
        let good = checkpoint().text();
        #[track_caller]
        fn line_of(text: &str) -> usize {
            match Checkpoint::parse_text(text) {
                Err(CheckpointError::Line { line, .. }) => line,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(line_of(""), 1);
        assert_eq!(line_of(&good.replacen("affiant", "aff iant", 1)), 1);
        assert_eq!(line_of(&good.replacen("\n0\n", "\n00\n", 1)), 2);
        assert_eq!(line_of(&good.replacen("\n0\n", "\n+0\n", 1)), 2);
        assert_eq!(line_of(&good.replacen("\n0\n", "\n99999999999999999999\n", 1)), 2);
        assert_eq!(line_of(&good.replacen("U=\n", "U\n", 1)), 3);
        assert_eq!(line_of(&good.replacen("U=\n", "V=\n", 1)), 3, "bits beyond the hash are not zero");
        assert_eq!(line_of(&format!("{good}extension\n")), 4);
        assert_eq!(line_of(good.trim_end()), 4);
    }
}
