//! The log key of a host with a TPM: an Ed25519 seed that is on disk in sealed form only.
//!
//! Whoever copies the disk cannot sign with it; whoever becomes root while the agent runs can read it from memory, or have the
//! TPM unseal it. Nothing about sealing can be shown to a verifier: what it is told of it is the agent's word, and the tier
//! stays T0 until somebody vouches for the attestation key beside it.
//!
//! Invariant: the public half is known from the blob before the TPM is asked, so that a log opens, and takes records, while
//! the TPM is away; what is unsealed later must be of that half, or it is refused.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use agent_evidence::record::{KeyTier, PublicKey, Signature};
use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use super::{SignError, Signer, prepare_keys};
use crate::sys::locked::Locked;
use crate::tpm::blob::BlobError;
use crate::tpm::{Device, TpmError, keyfile};

/// A log key that may still wait for its TPM.
pub struct SealedKey {
    tier: KeyTier,
    public_key: PublicKey,
    slot: Arc<OnceLock<Locked<SigningKey>>>,
}

/// Where the unsealed key goes, for the one who gets it from the TPM.
#[derive(Clone)]
pub struct KeySlot {
    public_key: PublicKey,
    slot: Arc<OnceLock<Locked<SigningKey>>>,
}

impl SealedKey {
    /// Makes the key of a new log and seals it. `keys` is made if absent. Durable when it returns. A blob that lies there is
    /// of a creation that was interrupted: its key is used if the TPM unseals it, and replaced if not.
    ///
    /// # Errors
    /// [`SignError::Tpm`], [`SignError::TooOpen`], [`SignError::Io`], [`SignError::Random`].
    pub fn create(keys: &Path, device: &Device) -> Result<Self, SignError> {
        drop(prepare_keys(keys)?);
        if let Ok(Some(key)) = Self::load(keys)
            && let Ok(Some(seed)) = device.unseal_log_key()
            && key.slot().fill(&seed, keys).is_ok()
        {
            return Ok(key);
        }
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut()).map_err(SignError::Random)?;
        let key = Locked::new(SigningKey::from_bytes(&seed));
        let public_key = PublicKey(key.verifying_key().to_bytes());
        device.seal_log_key(&seed, &public_key.0)?;
        let slot = OnceLock::new();
        // It is empty.
        drop(slot.set(key));
        Ok(Self { tier: KeyTier::T0, public_key, slot: Arc::new(slot) })
    }

    /// Reads the blob of an existing log's key; `None` when there is none. The key waits for [`KeySlot::fill`].
    ///
    /// # Errors
    /// [`SignError::Tpm`] for a blob that is none.
    pub fn load(keys: &Path) -> Result<Option<Self>, SignError> {
        let path = Device::log_key_path(keys);
        let Some(blob) = keyfile::load(&path)? else { return Ok(None) };
        let public_key: [u8; 32] = blob.clear.as_slice().try_into().map_err(|_other_length| {
            SignError::Tpm(TpmError::Blob { path, fault: BlobError::Clear(blob.clear.len()) })
        })?;
        Ok(Some(Self { tier: KeyTier::T0, public_key: PublicKey(public_key), slot: Arc::default() }))
    }

    /// Claims another tier than T0, which is what the voucher of an installed certificate of the attestation key makes it. A
    /// verifier computes the tier by itself.
    #[must_use]
    pub fn claiming(self, tier: KeyTier) -> Self {
        Self { tier, ..self }
    }

    /// Where the unsealed key goes.
    #[must_use]
    pub fn slot(&self) -> KeySlot {
        KeySlot { public_key: self.public_key, slot: Arc::clone(&self.slot) }
    }
}

impl KeySlot {
    /// Puts the key of this seed in its place. From here on the log can be signed. `keys` is only named in errors.
    ///
    /// # Errors
    /// [`SignError::NotThatKey`].
    pub fn fill(&self, seed: &[u8; 32], keys: &Path) -> Result<(), SignError> {
        let key = Locked::new(SigningKey::from_bytes(seed));
        if PublicKey(key.verifying_key().to_bytes()) != self.public_key {
            return Err(SignError::NotThatKey { path: Device::log_key_path(keys) });
        }
        // A second time brings the same key.
        drop(self.slot.set(key));
        Ok(())
    }

    /// Whether it has been filled.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.slot.get().is_some()
    }
}

impl Signer for SealedKey {
    fn tier(&self) -> KeyTier {
        self.tier
    }

    fn place(&self) -> &'static str {
        match self.tier {
            KeyTier::T0 => {
                "the log key is sealed in the TPM, as the agent says; nobody vouches for the TPM's attestation key yet"
            }
            _ => {
                "the log key is sealed in the TPM, as the agent says; whether its voucher is believed is for trust files to say"
            }
        }
    }

    fn is_available(&self) -> bool {
        self.slot.get().is_some()
    }

    fn public_key(&self) -> PublicKey {
        self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        let key = self
            .slot
            .get()
            .ok_or_else(|| SignError::Unavailable { why: "the TPM has not unsealed it yet".to_owned() })?;
        Ok(Signature(key.sign(message).to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::blob::Blob;

    #[test]
    fn a_sealed_key_signs_once_its_slot_has_the_seed_that_it_names() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(SealedKey::load(dir.path()), Ok(None)));
        let public_key = SigningKey::from_bytes(&[3; 32]).verifying_key().to_bytes();
        let blob = Blob { parent: vec![1; 34], public: vec![2; 88], private: vec![3; 100], clear: public_key.to_vec() };
        keyfile::store(&blob, &Device::log_key_path(dir.path())).expect("stored");
        let key = SealedKey::load(dir.path()).expect("a blob").expect("there");
        assert_eq!(key.public_key(), PublicKey(public_key));
        assert!(matches!(key.sign(b"text"), Err(SignError::Unavailable { .. })));
        assert!(matches!(key.slot().fill(&[4; 32], dir.path()), Err(SignError::NotThatKey { .. })));
        assert!(!key.is_available());
        key.slot().fill(&[3; 32], dir.path()).expect("the seed it names");
        let signature = key.sign(b"text").expect("available");
        assert!(agent_evidence::note::verify_ed25519(key.public_key(), b"text", &signature));
    }

    #[test]
    fn a_blob_whose_clear_part_is_no_public_key_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let blob = Blob { parent: Vec::new(), public: Vec::new(), private: Vec::new(), clear: vec![0; 31] };
        keyfile::store(&blob, &Device::log_key_path(dir.path())).expect("stored");
        let refused = SealedKey::load(dir.path()).err().expect("refused");
        assert!(matches!(refused, SignError::Tpm(TpmError::Blob { fault: BlobError::Clear(31), .. })), "{refused}");
    }
}
