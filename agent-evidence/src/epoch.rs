//! The statement by which a signing key is introduced.
//!
//! What is signed is a digest over a tag and length-prefixed fields, so that no signature of this kind can be read
//! as one of another kind, and no caller's bytes are signed raw.

use sha2::{Digest as _, Sha256};

use crate::record::{Epoch, EpochNumber, PublicKey, Succession, TreeSize};

/// First bytes of the digest's input.
pub const EPOCH_TAG: &[u8] = b"affiant/epoch/v1";

/// What the log key, and the previous epoch key where it still exists, sign to begin an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStatement<'a> {
    /// Origin of the log.
    pub origin: &'a str,
    /// Number of the epoch.
    pub number: EpochNumber,
    /// Its public key.
    pub public_key: PublicKey,
    /// The tree size from which it signs.
    pub first_size: TreeSize,
    /// How it follows the one before.
    pub how: Succession,
    /// Value of the NV counter, where there is one.
    pub counter: Option<u64>,
}

impl<'a> EpochStatement<'a> {
    /// The statement that an `epoch` entry repeats.
    #[must_use]
    pub fn of(origin: &'a str, epoch: &Epoch<'_>) -> Self {
        Self {
            origin,
            number: epoch.number,
            public_key: epoch.public_key,
            first_size: epoch.first_size,
            how: epoch.how,
            counter: epoch.counter,
        }
    }

    /// The 32 bytes that are signed: SHA-256 over the tag, then origin, number, public key, first size, `how` and the
    /// counter, each as a 4-byte big-endian length and its bytes; numbers are 8 bytes big-endian, no counter is no bytes.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(EPOCH_TAG);
        let counter = self.counter.map(u64::to_be_bytes);
        let fields: [&[u8]; 6] = [
            self.origin.as_bytes(),
            &self.number.0.to_be_bytes(),
            &self.public_key.0,
            &self.first_size.0.to_be_bytes(),
            self.how.as_str().as_bytes(),
            counter.as_ref().map_or(&[], |bytes| bytes.as_slice()),
        ];
        for field in fields {
            // Origins are limited far below 4 GiB by the note format.
            hash.update(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(field);
        }
        hash.finalize().into()
    }
}
