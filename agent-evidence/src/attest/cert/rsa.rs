//! RSA with public numbers only: verifying a signature (PKCS#1 v1.5), and encrypting to an endorsement key (OAEP).
//!
//! One exponentiation each. There is no private operation and no secret number: what is encrypted is the padded
//! message, whose exponentiation runs in constant time in it. A signature is judged by making the one padded text that
//! is right and comparing all of it (RFC 8017 section 8.2.2), so that no parser of paddings can be fooled.

#![forbid(unsafe_code)]

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use sha2::{Digest as _, Sha256, Sha384};

/// Shortest modulus, in bits.
pub const MODULUS_BITS_MIN: usize = 2048;
/// Longest modulus, in bits: what roots of vendors have.
pub const MODULUS_BITS_MAX: usize = 4096;
/// Smallest exponent (NIST SP 800-56B); all keys of TPMs and their vendors have it.
pub const EXPONENT_MIN: u32 = 65_537;

/// Bytes of an OAEP padding with SHA-256 that are not the message: two digests and two bytes.
const OAEP_OVERHEAD: usize = 2 * 32 + 2;
/// DigestInfo up to the digest: SHA-256 (RFC 8017 section 9.2, note 1).
const SHA256_INFO: &[u8] =
    &[0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];
/// The same of SHA-384.
const SHA384_INFO: &[u8] =
    &[0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30];

/// Why a key is refused, a signature is none, or a message cannot be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RsaError {
    /// A modulus of another size than is accepted.
    #[error("an RSA modulus of {bits} bits, expected {MODULUS_BITS_MIN} to {MODULUS_BITS_MAX}")]
    Size {
        /// Its bits.
        bits: usize,
    },
    /// An even modulus.
    #[error("an RSA modulus that is even is no product of large primes")]
    Even,
    /// An exponent that is small or even.
    #[error("an RSA exponent of {exponent}, expected an odd number of at least {EXPONENT_MIN}")]
    Exponent {
        /// The exponent.
        exponent: u32,
    },
    /// A signature of another length than the modulus.
    #[error("an RSA signature of {seen} bytes, expected {expected}")]
    SignatureLength {
        /// Its bytes.
        seen: usize,
        /// Bytes of the modulus.
        expected: usize,
    },
    /// A number that is not below the modulus.
    #[error("an RSA number that is not below the modulus")]
    Range,
    /// Not the signature of this message by this key.
    #[error("the RSA signature is not of this message and key")]
    Signature,
    /// A message that is too long for the key.
    #[error("a message of {seen} bytes, at most {max} can be encrypted with this RSA key")]
    MessageLength {
        /// Its bytes.
        seen: usize,
        /// Most bytes.
        max: usize,
    },
}

/// The hash of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaHash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
}

/// An RSA public key of an accepted size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RsaKey {
    /// Big-endian, the first byte is not zero.
    modulus: Vec<u8>,
    exponent: u32,
}

impl RsaKey {
    /// A key of these numbers, the modulus in big-endian bytes.
    ///
    /// # Errors
    /// [`RsaError::Size`], [`RsaError::Even`], [`RsaError::Exponent`].
    pub fn new(modulus: &[u8], exponent: u32) -> Result<Self, RsaError> {
        let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
        let modulus = modulus.get(zeros..).unwrap_or_default();
        let bits = match modulus.first() {
            None => 0,
            Some(first) => (modulus.len() * 8).saturating_sub(first.leading_zeros() as usize),
        };
        if !(MODULUS_BITS_MIN..=MODULUS_BITS_MAX).contains(&bits) {
            return Err(RsaError::Size { bits });
        }
        if modulus.last().is_none_or(|last| last % 2 == 0) {
            return Err(RsaError::Even);
        }
        if exponent < EXPONENT_MIN || exponent.is_multiple_of(2) {
            return Err(RsaError::Exponent { exponent });
        }
        Ok(Self { modulus: modulus.to_vec(), exponent })
    }

    /// The modulus, big-endian, without zeros before it.
    #[must_use]
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// The public exponent.
    #[must_use]
    pub fn exponent(&self) -> u32 {
        self.exponent
    }

    /// Whether this is a PKCS#1 v1.5 signature of the message.
    ///
    /// # Errors
    /// [`RsaError::SignatureLength`], [`RsaError::Range`], [`RsaError::Signature`].
    pub fn verify(&self, hash: RsaHash, message: &[u8], signature: &[u8]) -> Result<(), RsaError> {
        let expected = self.modulus.len();
        if signature.len() != expected {
            return Err(RsaError::SignatureLength { seen: signature.len(), expected });
        }
        let (info, digest) = match hash {
            RsaHash::Sha256 => (SHA256_INFO, Sha256::digest(message).to_vec()),
            RsaHash::Sha384 => (SHA384_INFO, Sha384::digest(message).to_vec()),
        };
        // 00 01 ff...ff 00 DigestInfo: at least 2048 bits of modulus leave far more than the eight bytes of ff that are
        // asked for.
        let filler = expected.saturating_sub(3 + info.len() + digest.len());
        let mut padded = vec![0x00, 0x01];
        padded.resize(2 + filler, 0xff);
        padded.push(0x00);
        padded.extend_from_slice(info);
        padded.extend_from_slice(&digest);
        if self.raise(signature)? == padded { Ok(()) } else { Err(RsaError::Signature) }
    }

    /// Encrypts with OAEP, SHA-256 for both of its hashes (RFC 8017 section 7.1.1). The label is hashed as it is: a
    /// TPM's has a zero byte at its end. The seed is random and never used twice.
    ///
    /// # Errors
    /// [`RsaError::MessageLength`].
    pub fn encrypt_oaep(&self, message: &[u8], label: &[u8], seed: &[u8; 32]) -> Result<Vec<u8>, RsaError> {
        let max = self.modulus.len().saturating_sub(OAEP_OVERHEAD);
        if message.len() > max {
            return Err(RsaError::MessageLength { seen: message.len(), max });
        }
        let mut block = Sha256::digest(label).to_vec();
        block.resize(block.len() + (max - message.len()), 0);
        block.push(0x01);
        block.extend_from_slice(message);
        mask(&mut block, seed);
        let mut masked_seed = *seed;
        mask(&mut masked_seed, &block);
        let mut padded = vec![0x00];
        padded.extend_from_slice(&masked_seed);
        padded.extend_from_slice(&block);
        self.raise(&padded)
    }

    /// A number to the power of the exponent, as long as the modulus.
    fn raise(&self, number: &[u8]) -> Result<Vec<u8>, RsaError> {
        // Whole limbs on every platform, so that both numbers have one precision.
        let bits = u32::try_from(self.modulus.len().next_multiple_of(8) * 8)
            .map_err(|_overflow| RsaError::Size { bits: self.modulus.len() * 8 })?;
        let parse = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, bits).map_err(|_too_long| RsaError::Range);
        let modulus = parse(&self.modulus)?;
        let number = parse(number)?;
        if number >= modulus {
            return Err(RsaError::Range);
        }
        let modulus = Option::<Odd<BoxedUint>>::from(Odd::new(modulus)).ok_or(RsaError::Even)?;
        // The modulus is public; the number goes through operations that take the same time for all numbers.
        let params = BoxedMontyParams::new_vartime(modulus);
        let power = BoxedMontyForm::new(number, &params).pow(&BoxedUint::from(self.exponent)).retrieve();
        let bytes = power.to_be_bytes();
        Ok(bytes.get(bytes.len().saturating_sub(self.modulus.len())..).unwrap_or_default().to_vec())
    }
}

/// Adds MGF1 with SHA-256 of a seed to bytes (RFC 8017 appendix B.2.1).
fn mask(bytes: &mut [u8], seed: &[u8]) {
    for (counter, chunk) in (0_u32..).zip(bytes.chunks_mut(32)) {
        let pad = Sha256::new().chain_update(seed).chain_update(counter.to_be_bytes()).finalize();
        for (byte, pad) in chunk.iter_mut().zip(pad) {
            *byte ^= pad;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_sizes_are_refused() {
        let size = |bits: usize| {
            let mut modulus = vec![0xff; bits.div_ceil(8)];
            modulus[0] = 0xff >> (modulus.len() * 8 - bits);
            RsaKey::new(&modulus, 65_537)
        };
        assert_eq!(size(2047), Err(RsaError::Size { bits: 2047 }));
        assert!(size(2048).is_ok());
        assert!(size(4096).is_ok());
        assert_eq!(size(4097), Err(RsaError::Size { bits: 4097 }));
        assert_eq!(RsaKey::new(&[], 65_537), Err(RsaError::Size { bits: 0 }));
        assert_eq!(RsaKey::new(&[0xfe; 256], 65_537), Err(RsaError::Even));
        assert_eq!(RsaKey::new(&[0xff; 256], 3), Err(RsaError::Exponent { exponent: 3 }));
        assert_eq!(RsaKey::new(&[0xff; 256], 65_538), Err(RsaError::Exponent { exponent: 65_538 }));
        // A zero before the modulus is how DER writes a positive number.
        assert_eq!(RsaKey::new(&[&[0][..], &[0xff; 256]].concat(), 65_537).unwrap().modulus(), [0xff; 256]);
    }

    #[test]
    fn numbers_outside_the_modulus_are_refused() {
        let key = RsaKey::new(&[0xff; 256], 65_537).unwrap();
        assert_eq!(key.verify(RsaHash::Sha256, b"", &[0xff; 256]), Err(RsaError::Range));
        let length = RsaError::SignatureLength { seen: 255, expected: 256 };
        assert_eq!(key.verify(RsaHash::Sha256, b"", &[0x01; 255]), Err(length));
        let message = RsaError::MessageLength { seen: 191, max: 190 };
        assert_eq!(key.encrypt_oaep(&[0; 191], b"", &[0; 32]), Err(message));
        assert_eq!(key.encrypt_oaep(&[0; 190], b"", &[0; 32]).unwrap().len(), 256);
    }
}
