//! Qualifying data: the statements of this format that a TPM signs.
//!
//! Each is SHA-256 over a tag of its own and length-prefixed fields, so that no attestation of one sort can be read as one of
//! another, and no caller's bytes are ever signed as they came. Always 32 bytes: some TPMs take no more than 48.

use sha2::{Digest as _, Sha256};

use crate::checkpoint::Checkpoint;
use crate::record::{CounterOp, EpochNumber};

/// First bytes of what an anchor's digest is over.
pub const ANCHOR_TAG: &[u8] = b"affiant/anchor/v1";
/// First bytes of what a counter step's digest is over.
pub const COUNTER_TAG: &[u8] = b"affiant/counter/v1";
/// Shortest nonce that is taken, in bytes.
pub const NONCE_BYTES_MIN: usize = 16;
/// Longest nonce that is taken, in bytes.
pub const NONCE_BYTES_MAX: usize = 32;
/// What stands for the attestation before the first one.
pub const NO_ATTESTATION: [u8; 32] = [0; 32];

/// What a quote is made over: a checkpoint of the log, at its place among all attestations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnchorStatement<'a> {
    /// The checkpoint, which names the origin of the log.
    pub checkpoint: &'a Checkpoint,
    /// The epoch whose key signed it.
    pub epoch: EpochNumber,
    /// Number of the anchor, from 0 over the whole log.
    pub number: u64,
    /// SHA-256 of the attestation before ([`attestation_digest`]), [`NO_ATTESTATION`] for the first.
    pub previous: [u8; 32],
    /// What somebody asked the anchor to contain: [`NONCE_BYTES_MIN`] to [`NONCE_BYTES_MAX`] bytes.
    pub nonce: Option<&'a [u8]>,
}

impl AnchorStatement<'_> {
    /// The 32 bytes that are quoted.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let checkpoint: [u8; 32] = Sha256::digest(self.checkpoint.text().as_bytes()).into();
        digest(
            ANCHOR_TAG,
            &[
                self.checkpoint.origin.as_str().as_bytes(),
                &self.epoch.0.to_be_bytes(),
                &self.number.to_be_bytes(),
                &self.previous,
                &checkpoint,
                self.nonce.unwrap_or_default(),
            ],
        )
    }
}

/// What a certification of the NV counter is made over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterStatement<'a> {
    /// Origin of the log.
    pub origin: &'a str,
    /// `step` or `late`: the only ones that are certified.
    pub op: CounterOp,
    /// Handle of the NV index.
    pub index: u32,
    /// The value that the counter then has.
    pub value: u64,
    /// SHA-256 of the attestation before ([`attestation_digest`]), [`NO_ATTESTATION`] for the first.
    pub previous: [u8; 32],
}

impl CounterStatement<'_> {
    /// The 32 bytes that are certified.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        digest(
            COUNTER_TAG,
            &[
                self.origin.as_bytes(),
                self.op.as_str().as_bytes(),
                &self.index.to_be_bytes(),
                &self.value.to_be_bytes(),
                &self.previous,
            ],
        )
    }
}

/// What the next attestation names as the one before: SHA-256 of the bytes of a `TPMS_ATTEST`.
#[must_use]
pub fn attestation_digest(attest: &[u8]) -> [u8; 32] {
    Sha256::digest(attest).into()
}

/// SHA-256 over the tag and each field after its length in 4 bytes, big-endian.
fn digest(tag: &[u8], fields: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(tag);
    for field in fields {
        // Origins have at most 255 bytes, nonces 32; whatever else a caller hands over stays far below 4 GiB.
        hash.update(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::KeyName;
    use crate::record::{RootHash, TreeSize};

    fn hex(bytes: [u8; 32]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The expected digests were computed with Python's hashlib from the words of FORMAT.md.
    #[test]
    fn statements_have_the_bytes_that_the_format_says() {
        let checkpoint = Checkpoint {
            origin: KeyName::new("host.example/log").unwrap(),
            size: TreeSize(4711),
            root: RootHash([0x22; 32]),
        };
        let anchor = AnchorStatement {
            checkpoint: &checkpoint,
            epoch: EpochNumber(3),
            number: 7,
            previous: [0x11; 32],
            nonce: None,
        };
        assert_eq!(hex(anchor.digest()), "f4261ccd014c152dbb8a6cd2c81db790ba34e842f3879a5cc6495ef97aa74405");
        let asked = AnchorStatement { nonce: Some(&[0x33; 16]), ..anchor };
        assert_eq!(hex(asked.digest()), "6db6b2676fafef5889689777fc5b77301b81eda125b40b58d175aab74ad48e76");
        let counter = CounterStatement {
            origin: "host.example/log",
            op: CounterOp::Step,
            index: 0x0150_0100,
            value: 9,
            previous: NO_ATTESTATION,
        };
        assert_eq!(hex(counter.digest()), "0e02cc5bc7dfb84d73460d2a98313dc424001968de77b0883425bb1f3ce2feba");
        assert_ne!(CounterStatement { op: CounterOp::Late, ..counter }.digest(), counter.digest());
    }
}
