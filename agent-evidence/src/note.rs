//! C2SP signed notes v1.0.0: text, signature lines, and verifier keys, with Ed25519 only.
//!
//! A note is untrusted until [`Note::verify`] has found the signature of a key that the caller trusts.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::record::{PublicKey, Signature};

/// Longest note read, in bytes. A checkpoint with 100 signature lines takes less than a quarter.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;

/// Most signature lines read; the specification asks for at least 16.
pub const SIGNATURES_MAX: usize = 100;

/// Longest key name in bytes: what C2SP cosignatures allow.
pub const NAME_BYTES_MAX: usize = 255;

/// Signature type of Ed25519 in key ids and verifier keys.
const ED25519: u8 = 0x01;

/// Why bytes are not a note, a text not a verifier key, or a note not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Longer than is read.
    #[error("note of {len} bytes, at most {NOTE_BYTES_MAX} are read")]
    TooLong {
        /// How long it is.
        len: usize,
    },
    /// Not UTF-8, or with a control character other than a line feed.
    #[error("note is not UTF-8 text without control characters")]
    Text,
    /// No empty line between text and signatures, or no line feed at the end.
    #[error("note does not end with an empty line and signature lines")]
    Layout,
    /// A signature line that is not `— name base64`.
    #[error("signature line {line} is malformed")]
    SignatureLine {
        /// Which signature line, 1-based.
        line: usize,
    },
    /// More signature lines than are read.
    #[error("more than {SIGNATURES_MAX} signature lines")]
    TooManySignatures,
    /// Not a verifier key.
    #[error("{key:?} is not a verifier key: {rule}")]
    VerifierKey {
        /// The text, shortened.
        key: String,
        /// The rule broken.
        rule: &'static str,
    },
    /// A name that no key can have.
    #[error("{name:?} cannot be the name of a key: empty, too long, or with a space, `+` or control character")]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// No signature by this key.
    #[error("no signature by {name}")]
    NotSigned {
        /// The key's name.
        name: String,
    },
    /// A signature by this key that does not hold.
    #[error("the signature by {name} does not hold")]
    BadSignature {
        /// The key's name.
        name: String,
    },
    /// Not a point of the curve that can be a key.
    #[error("the public key of {name} is not a usable Ed25519 key")]
    BadKey {
        /// The key's name.
        name: String,
    },
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Whether a key, and so a log, can have this name.
///
/// # Errors
/// [`NoteError::Name`].
pub fn check_name(name: &str) -> Result<(), NoteError> {
    let allowed = |character: char| !character.is_whitespace() && !character.is_control() && character != '+';
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(NoteError::Name { name: shortened(name) })
    }
}

/// A name and Ed25519 public key, as `name+id+base64` in text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    key: PublicKey,
}

impl VerifierKey {
    /// The verifier key of this name and public key.
    ///
    /// # Errors
    /// [`NoteError::Name`] when no key can have this name; [`NoteError::BadKey`] when it is not a usable point.
    pub fn new(name: &str, key: PublicKey) -> Result<Self, NoteError> {
        check_name(name)?;
        let point = VerifyingKey::from_bytes(&key.0).ok().filter(|point| !point.is_weak());
        if point.is_none() {
            return Err(NoteError::BadKey { name: name.to_owned() });
        }
        Ok(Self { id: key_id(name, &key), name: name.to_owned(), key })
    }

    /// Reads `name+id+base64`.
    ///
    /// # Errors
    /// [`NoteError`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let wrong = |rule| NoteError::VerifierKey { key: shortened(text), rule };
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("expected name+id+base64"));
        };
        let bytes = STANDARD.decode(encoded).or(Err(wrong("the third part is not base64")))?;
        let Some((&ED25519, key)) = bytes.split_first() else {
            return Err(wrong("not an Ed25519 key"));
        };
        let key = PublicKey(key.try_into().or(Err(wrong("an Ed25519 key has 32 bytes")))?);
        let parsed = Self::new(name, key)?;
        if parsed.to_string() == text { Ok(parsed) } else { Err(wrong(if id.len() == 8 { "the id is not that of this name and key" } else { "the id has 8 digits" })) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.key
    }

    /// Checks a signature over these bytes. Strict: no weak keys, no second encoding of a signature.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`].
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), NoteError> {
        verify_bytes(self.key, message, signature)
            .then_some(())
            .ok_or_else(|| NoteError::BadSignature { name: self.name.clone() })
    }
}

/// Whether this key signed these bytes.
#[must_use]
pub fn verify_bytes(key: PublicKey, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    VerifyingKey::from_bytes(&key.0).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = vec![ED25519];
        typed.extend_from_slice(&self.key.0);
        write!(out, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id), STANDARD.encode(typed))
    }
}

fn key_id(name: &str, key: &PublicKey) -> [u8; 4] {
    let hash: [u8; 32] =
        Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key.0).finalize().into();
    let [a, b, c, d, ..] = hash;
    [a, b, c, d]
}

/// Somebody who can sign notes under a name.
pub trait NoteSigner {
    /// The name and public key.
    fn verifier_key(&self) -> &VerifierKey;

    /// An Ed25519 signature over these bytes.
    fn sign(&self, message: &[u8]) -> Signature;
}

/// A signer whose private key is in memory, erased when dropped.
pub struct MemorySigner {
    verifier_key: VerifierKey,
    key: SigningKey,
}

impl MemorySigner {
    /// The signer of this name with this Ed25519 seed.
    ///
    /// # Errors
    /// [`NoteError::Name`] when no key can have this name.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let key = SigningKey::from_bytes(seed);
        let verifier_key = VerifierKey::new(name, PublicKey(key.verifying_key().to_bytes()))?;
        Ok(Self { verifier_key, key })
    }
}

impl fmt::Debug for MemorySigner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MemorySigner").field("verifier_key", &self.verifier_key).finish_non_exhaustive()
    }
}

impl NoteSigner for MemorySigner {
    fn verifier_key(&self) -> &VerifierKey {
        &self.verifier_key
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.key.sign(message).to_bytes())
    }
}

/// Signs a text, which must end with a line feed, and gives the whole note.
#[must_use]
pub fn sign(text: &str, signers: &[&dyn NoteSigner]) -> String {
    let mut note = format!("{text}\n");
    for signer in signers {
        let key = signer.verifier_key();
        let mut blob = key.id.to_vec();
        blob.extend_from_slice(&signer.sign(text.as_bytes()).0);
        note.push_str(&format!("\u{2014} {} {}\n", key.name, STANDARD.encode(blob)));
    }
    note
}

/// A note as read: text and signature lines, nothing verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note<'a> {
    text: &'a str,
    signatures: Vec<SignatureLine<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct SignatureLine<'a> {
    name: &'a str,
    id: [u8; 4],
    blob: Vec<u8>,
}

impl<'a> Note<'a> {
    /// Reads a note.
    ///
    /// # Errors
    /// [`NoteError`] says which rule is broken.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong { len: bytes.len() });
        }
        let all = std::str::from_utf8(bytes).or(Err(NoteError::Text))?;
        if all.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::Text);
        }
        let split = all.rfind("\n\n").ok_or(NoteError::Layout)?;
        let (text, rest) = all.split_at(split + 1);
        let lines = rest.strip_prefix('\n').and_then(|rest| rest.strip_suffix('\n')).ok_or(NoteError::Layout)?;
        let mut signatures = Vec::new();
        for (position, line) in lines.split('\n').enumerate() {
            if position >= SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            let wrong = NoteError::SignatureLine { line: position + 1 };
            signatures.push(SignatureLine::parse(line).ok_or(wrong)?);
        }
        Ok(Self { text, signatures })
    }

    /// The text, not verified.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Checks that this key signed the text. Lines of other keys are ignored; every line of this key must hold.
    ///
    /// # Errors
    /// [`NoteError::NotSigned`] or [`NoteError::BadSignature`].
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let mut found = false;
        for line in self.signatures.iter().filter(|line| line.name == key.name && line.id == key.id) {
            let bad = || NoteError::BadSignature { name: key.name.clone() };
            let signature = <[u8; 64]>::try_from(line.blob.as_slice()).or(Err(bad()))?;
            key.verify(self.text.as_bytes(), &Signature(signature))?;
            found = true;
        }
        if found { Ok(()) } else { Err(NoteError::NotSigned { name: key.name.clone() }) }
    }
}

impl<'a> SignatureLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        check_name(name).ok()?;
        let blob = STANDARD.decode(encoded).ok()?;
        let (id, signature) = blob.split_first_chunk::<4>()?;
        (!signature.is_empty()).then(|| Self { name, id: *id, blob: signature.to_vec() })
    }
}

#[cfg(test)]
mod tests;
