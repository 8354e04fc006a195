//! The epoch key: a second signature on every checkpoint, by a key that exists in memory only and not for long.
//!
//! Owns: making an epoch key, the statement that introduces it, and when the next one is due. A key that is gone
//! cannot sign another past, so whoever takes the host later cannot rewrite earlier epochs even with the log key.
//!
//! Invariants: the key is never written anywhere and is erased when dropped; it signs only checkpoints of trees
//! that include its own `epoch` entry ([`EpochKey::first_size`]); how it follows the one before is `continued`
//! only with the earlier key's signature. An agent that starts has lost the earlier key, in order or not, so each
//! start is an `orphan`; whether the earlier run ended in order is told by its `disarmed` entry.

use agent_evidence::epoch::EpochStatement;
use agent_evidence::record::{BootTime, Epoch, EpochNumber, Nanoseconds, PublicKey, Signature, Succession, TreeSize};
use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use super::{SignError, Signer};
use crate::sys::locked::Locked;

/// What is appended to the origin to name the epoch key's line of a checkpoint.
pub const NAME_SUFFIX: &str = "/epoch";

/// How long an epoch lasts: one hour by time, whatever the load, so that the entry stream tells nothing by it and
/// a stolen key is good for an hour at most.
pub const EPOCH_LENGTH: Nanoseconds = Nanoseconds(3_600_000_000_000);

/// The key of one epoch, in locked memory. Erased when dropped.
pub struct EpochKey {
    key: Locked<SigningKey>,
    number: EpochNumber,
    first_size: TreeSize,
    began: BootTime,
}

/// What a new epoch follows.
pub enum Previous<'a> {
    /// Nothing: the log begins.
    None,
    /// An epoch whose key is gone.
    Lost(EpochNumber),
    /// An epoch whose key can still sign.
    Held(&'a EpochKey),
}

impl EpochKey {
    /// Makes the key of the next epoch and the body of the `epoch` entry that introduces it. `first_size` is the
    /// size of the tree that ends with that entry; `counter` is the value of the NV counter that was stepped for it.
    ///
    /// # Errors
    /// [`SignError::Random`], or what the log key's signer answers.
    pub fn begin(
        origin: &str,
        previous: &Previous<'_>,
        first_size: TreeSize,
        counter: Option<u64>,
        now: BootTime,
        log_key: &dyn Signer,
    ) -> Result<(Self, Epoch<'static>), SignError> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut()).map_err(SignError::Random)?;
        let key = Locked::new(SigningKey::from_bytes(&seed));
        if !key.is_locked() {
            tracing::warn!("the kernel does not lock the epoch key's memory: raise RLIMIT_MEMLOCK");
        }
        let (number, how) = match previous {
            Previous::None => (EpochNumber(0), Succession::First),
            Previous::Lost(number) => (EpochNumber(number.0 + 1), Succession::Orphan),
            Previous::Held(held) => (EpochNumber(held.number.0 + 1), Succession::Continued),
        };
        let public_key = PublicKey(key.verifying_key().to_bytes());
        let digest = EpochStatement { origin, number, public_key, first_size, how, counter }.digest();
        let sig_log = log_key.sign(&digest)?;
        let sig_previous = match previous {
            Previous::Held(held) => Some(held.sign(&digest)),
            Previous::None | Previous::Lost(_) => None,
        };
        let entry = Epoch {
            number,
            public_key,
            first_size,
            how,
            counter,
            sig_log,
            sig_previous,
            attest: None,
            sig_attest: None,
        };
        Ok((Self { key, number, first_size, began: now }, entry))
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> EpochNumber {
        self.number
    }

    /// The smallest tree it may sign.
    #[must_use]
    pub fn first_size(&self) -> TreeSize {
        self.first_size
    }

    /// What verifies its signatures.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }

    /// When it began, for the one who decides when the next one is due.
    #[must_use]
    pub fn began(&self) -> BootTime {
        self.began
    }

    /// Signs a checkpoint's text or a statement's digest.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.key.sign(message).to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use agent_evidence::note::verify_ed25519;

    use super::super::software::SoftwareKey;
    use super::*;

    fn digest_of(entry: &Epoch<'_>) -> [u8; 32] {
        EpochStatement::of("example.org/log", entry).digest()
    }

    #[test]
    fn a_continued_epoch_is_signed_by_the_log_key_and_by_the_key_before() {
        let log_key = SoftwareKey::from_seed(&[1; 32]);
        let begin = |previous: &Previous<'_>, size| {
            EpochKey::begin("example.org/log", previous, TreeSize(size), None, BootTime(5), &log_key).expect("begin")
        };
        let (first, entry) = begin(&Previous::None, 2);
        assert_eq!((entry.number, entry.how, entry.sig_previous), (EpochNumber(0), Succession::First, None));
        assert!(verify_ed25519(log_key.public_key(), &digest_of(&entry), &entry.sig_log));

        let (second, entry) = begin(&Previous::Held(&first), 9);
        assert_eq!((entry.number, entry.how), (EpochNumber(1), Succession::Continued));
        let by_previous = entry.sig_previous.expect("signed by the key before");
        assert!(verify_ed25519(first.public_key(), &digest_of(&entry), &by_previous));
        assert_ne!(first.public_key(), second.public_key());

        let (_, entry) = begin(&Previous::Lost(second.number()), 12);
        assert_eq!((entry.number, entry.how, entry.sig_previous), (EpochNumber(2), Succession::Orphan, None));
    }
}
