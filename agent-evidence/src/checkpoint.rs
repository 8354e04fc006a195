//! C2SP checkpoints (tlog-checkpoint v1.0.0): a signed note that states origin, size and root hash of a tree.
//!
//! This log's checkpoints carry no extension lines and two Ed25519 signatures: by the log key, whose name is the
//! origin, and by the key of the epoch, whose name is the origin followed by `/epoch`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::note::{self, NoteError, NoteSigner};
use crate::record::{EntryIndex, RootHash, TreeSize};

/// What the name of an epoch key has after the origin.
pub const EPOCH_SUFFIX: &str = "/epoch";

/// What a checkpoint states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the log.
    pub origin: String,
    /// How many entries the tree has.
    pub size: TreeSize,
    /// Its root hash.
    pub root: RootHash,
}

/// Why a text is not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not three lines, each ended by a line feed.
    #[error("checkpoint text has not exactly three lines")]
    Lines,
    /// A first line that cannot be a log's name.
    #[error("origin line is malformed")]
    Origin(#[source] NoteError),
    /// A second line that is not a number below 2^53 without leading zeros.
    #[error("size line {seen:?} is not a tree size")]
    Size {
        /// The line, shortened.
        seen: String,
    },
    /// A third line that is not the base64 of 32 bytes.
    #[error("root line {seen:?} is not a root hash")]
    Root {
        /// The line, shortened.
        seen: String,
    },
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size.0, STANDARD.encode(self.root.0))
    }

    /// The whole note, with one signature line per signer in this order.
    #[must_use]
    pub fn sign(&self, signers: &[&dyn NoteSigner]) -> String {
        note::sign(&self.text(), signers)
    }

    /// Reads the text of a note. Accepts only what [`Checkpoint::text`] writes.
    ///
    /// # Errors
    /// [`CheckpointError`] says which line is wrong.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let lines: Vec<&str> = text.strip_suffix('\n').ok_or(CheckpointError::Lines)?.split('\n').collect();
        let [origin, size, root] = lines.as_slice() else { return Err(CheckpointError::Lines) };
        note::check_name(origin).map_err(CheckpointError::Origin)?;
        let shortened = |line: &str| line.chars().take(80).collect::<String>();
        let number = size.parse::<u64>().ok().filter(|number| *number <= EntryIndex::MAX.0 && number.to_string() == **size);
        let number = number.ok_or_else(|| CheckpointError::Size { seen: shortened(size) })?;
        let hash = STANDARD.decode(root).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let hash = hash.ok_or_else(|| CheckpointError::Root { seen: shortened(root) })?;
        Ok(Self { origin: (*origin).to_owned(), size: TreeSize(number), root: RootHash(hash) })
    }
}

/// The name of a log's epoch keys.
#[must_use]
pub fn epoch_key_name(origin: &str) -> String {
    format!("{origin}{EPOCH_SUFFIX}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::empty_root;

    #[test]
    fn the_text_is_that_of_the_specification_and_reads_back() {
        let checkpoint = Checkpoint { origin: "example.com/log".into(), size: TreeSize(0), root: empty_root() };
        assert_eq!(checkpoint.text(), "example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n");
        assert_eq!(Checkpoint::parse(&checkpoint.text()), Ok(checkpoint));
    }

    #[test]
    fn anything_but_three_exact_lines_is_refused() {
        let root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let parse = |text: String| Checkpoint::parse(&text);
        assert_eq!(parse(format!("o\n0\n{root}")), Err(CheckpointError::Lines));
        assert_eq!(parse(format!("o\n0\n{root}\nextension\n")), Err(CheckpointError::Lines));
        for size in ["00", "+1", "-1", " 1", "1 ", "", "9007199254740992", "18446744073709551616"] {
            assert_eq!(parse(format!("o\n{size}\n{root}\n")), Err(CheckpointError::Size { seen: size.into() }));
        }
        // The second differs in bits that base64 does not use.
        for line in ["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=", "AAAA"] {
            assert_eq!(parse(format!("o\n0\n{line}\n")), Err(CheckpointError::Root { seen: line.into() }));
        }
        assert!(matches!(parse(format!("a b\n0\n{root}\n")), Err(CheckpointError::Origin(NoteError::Name { .. }))));
    }
}
