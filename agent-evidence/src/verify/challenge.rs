//! A live challenge: a value that its picker alone knew before, which an anchor of the log must carry.
//!
//! Owns: what a challenge is, and what its answer shows. An answer shows that the holder of the attestation key signed the
//! challenge together with a root of this log, so not before the challenge was picked; that it is a TPM that holds the key is
//! for the trust file to say, and when the challenge was picked is known to its picker only.

use std::fmt;
use std::str::FromStr;

use crate::attest::statement::{NONCE_BYTES_MAX, NONCE_BYTES_MIN};
use crate::attest::tpm::{ClockInfo, Name};
use crate::record::{EntryIndex, TreeSize};

/// The bytes of a challenge: 16 to 32 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    bytes: [u8; NONCE_BYTES_MAX],
    length: usize,
}

impl Challenge {
    /// A challenge of these bytes.
    ///
    /// # Errors
    /// [`ChallengeError::Length`] when they are too few to be unguessable, or more than an anchor carries.
    pub fn new(bytes: &[u8]) -> Result<Self, ChallengeError> {
        let length = bytes.len();
        let mut room = [0; NONCE_BYTES_MAX];
        match room.get_mut(..length) {
            Some(place) if length >= NONCE_BYTES_MIN => place.copy_from_slice(bytes),
            _ => return Err(ChallengeError::Length(length)),
        }
        Ok(Self { bytes: room, length })
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl FromStr for Challenge {
    type Err = ChallengeError;

    fn from_str(text: &str) -> Result<Self, ChallengeError> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes =
            pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<Vec<u8>>>();
        match bytes {
            Some(bytes) if rest.is_empty() => Self::new(&bytes),
            _ => Err(ChallengeError::Digits),
        }
    }
}

/// Why something is not a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// Other characters than digits, or an odd number of them.
    #[error("a challenge is written as hexadecimal digits, two for each byte")]
    Digits,
    /// Too short or too long.
    #[error("the challenge has {0} bytes; it must have {NONCE_BYTES_MIN} to {NONCE_BYTES_MAX} that nobody could guess")]
    Length(usize),
}

/// The first anchor that carries the challenge, whose quote holds and whose root is the log's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its entry.
    pub index: EntryIndex,
    /// The size of the tree that was signed together with the challenge.
    pub size: TreeSize,
    /// The TPM's clock when it was.
    pub clock: ClockInfo,
    /// Name of the attestation key.
    pub key: Name,
    /// Whether the trust file names that key, or certificates that it believes vouch for it.
    pub is_believed: bool,
}

/// What came of a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChallengeReport {
    /// The challenge.
    pub challenge: Challenge,
    /// Its answer, if the log has one.
    pub answer: Option<Answer>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_16_to_32_bytes_and_reads_back() {
        for length in 0..40 {
            let bytes: Vec<u8> = (0..length).collect();
            match Challenge::new(&bytes) {
                Ok(challenge) => {
                    assert!((16..=32).contains(&length));
                    assert_eq!(challenge.as_bytes(), bytes);
                    assert_eq!(challenge.to_string().to_uppercase().parse(), Ok(challenge));
                }
                Err(error) => assert_eq!(error, ChallengeError::Length(usize::from(length))),
            }
        }
        for text in ["0", "00112233445566778899aabbccddeefg", "+0112233445566778899aabbccddeeff"] {
            assert_eq!(text.parse::<Challenge>(), Err(ChallengeError::Digits), "{text}");
        }
    }
}
