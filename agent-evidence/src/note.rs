//! Signed notes (C2SP signed-note): text, signature lines, key ids and verifier keys. Ed25519 signatures only.
//!
//! Pure: whoever signs holds the key ([`NoteSigner`]); this module never sees a private one.

#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature as DalekSignature, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::record::{PublicKey, Signature};

/// Largest note that is read, in bytes: a checkpoint with 64 cosignatures is below 16 KiB.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Most signature lines that are read. C2SP asks for at least 16.
pub const SIGNATURES_MAX: usize = 64;
/// Longest key name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Signature type 0x01: Ed25519 over the note's text.
const ED25519: u8 = 0x01;
/// U+2014 and a space: how a signature line begins.
const LINE_START: &str = "\u{2014} ";

/// Why a note, a name or a verifier key is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Larger than [`NOTE_BYTES_MAX`].
    #[error("the note has {seen} bytes, at most {NOTE_BYTES_MAX} are read")]
    TooLarge {
        /// Bytes seen.
        seen: usize,
    },
    /// Not UTF-8, or with a control character other than the line feed.
    #[error("the note has a byte at {offset} that is neither text nor a line feed")]
    NotText {
        /// Where.
        offset: usize,
    },
    /// No empty line separates text and signatures.
    #[error("the note has no empty line between text and signatures")]
    NoSeparator,
    /// A signature line that does not follow the specification.
    #[error("signature line {line} of the note is malformed")]
    SignatureLine {
        /// Which, from 0.
        line: usize,
    },
    /// More than [`SIGNATURES_MAX`] signature lines, or none.
    #[error("the note has {seen} signatures, expected 1 to {SIGNATURES_MAX}")]
    SignatureCount {
        /// How many.
        seen: usize,
    },
    /// A signature by a key that is known does not verify.
    #[error("the signature by {name} does not verify")]
    Forged {
        /// Key name.
        name: String,
    },
    /// A key name the specification does not allow.
    #[error("{0:?} is not a key name: it must be 1 to {NAME_BYTES_MAX} bytes without space, control character or '+'")]
    Name(String),
    /// A verifier key that does not follow the specification.
    #[error("{0:?} is not an Ed25519 verifier key (name+hash+key)")]
    VerifierKey(String),
}

/// The name of a key: not empty, no white space, no `+`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NoteError::Name`].
    pub fn new(name: &str) -> Result<Self, NoteError> {
        let good = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+');
        if good { Ok(Self(name.to_owned())) } else { Err(NoteError::Name(name.chars().take(NAME_BYTES_MAX).collect())) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An Ed25519 key that verifies notes, with its name: a vkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    key: PublicKey,
}

impl VerifierKey {
    /// A key under a name.
    #[must_use]
    pub fn new(name: KeyName, key: PublicKey) -> Self {
        Self { name, key }
    }

    /// Reads `name+hex8(key id)+base64(0x01 || key)`.
    ///
    /// # Errors
    /// [`NoteError::VerifierKey`], also when the key id does not belong to the key, or [`NoteError::Name`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let refused = || NoteError::VerifierKey(text.chars().take(512).collect());
        // Base64 may itself contain '+', so at most three parts.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refused());
        };
        let bytes = STANDARD.decode(key).map_err(|_malformed| refused())?;
        let (kind, key) = bytes.split_first().ok_or_else(refused)?;
        let key = <[u8; 32]>::try_from(key).map_err(|_length| refused())?;
        let parsed = Self { name: KeyName::new(name)?, key: PublicKey(key) };
        if *kind != ED25519 || parsed.to_string() != text || id.len() != 8 {
            return Err(refused());
        }
        Ok(parsed)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The key itself.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// `SHA-256(name || 0x0A || 0x01 || key)[..4]`.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(self.name.0.as_bytes())
            .chain_update([b'\n', ED25519])
            .chain_update(self.key.0)
            .finalize()
            .into();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// Whether `signature` over `message` is this key's (RFC 8032, strict: no small-order keys, canonical S).
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        verify_ed25519(self.key, message, signature)
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut key = [ED25519; 33];
        key[1..].copy_from_slice(&self.key.0);
        write!(out, "{}+{:08x}+{}", self.name.0, u32::from_be_bytes(self.id()), STANDARD.encode(key))
    }
}

/// Whether an Ed25519 signature holds (RFC 8032, strict verification).
#[must_use]
pub fn verify_ed25519(key: PublicKey, message: &[u8], signature: &Signature) -> bool {
    VerifyingKey::from_bytes(&key.0)
        .is_ok_and(|key| key.verify_strict(message, &DalekSignature::from_bytes(&signature.0)).is_ok())
}

/// Whatever can sign a note's text under a name.
pub trait NoteSigner {
    /// The key that verifies what it signs.
    fn verifier(&self) -> VerifierKey;
    /// Signs `message`.
    fn sign(&self, message: &[u8]) -> Signature;
}

/// Signs `text`, which ends with a line feed, with each of `signers`.
#[must_use]
pub fn sign(text: &str, signers: &[&dyn NoteSigner]) -> String {
    let mut note = String::with_capacity(text.len() + 1 + signers.len() * 200);
    note.push_str(text);
    note.push('\n');
    for signer in signers {
        let verifier = signer.verifier();
        let mut blob = [0_u8; 68];
        blob[..4].copy_from_slice(&verifier.id());
        blob[4..].copy_from_slice(&signer.sign(text.as_bytes()).0);
        note.push_str(LINE_START);
        note.push_str(verifier.name().as_str());
        note.push(' ');
        STANDARD.encode_string(blob, &mut note);
        note.push('\n');
    }
    note
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    /// Key name.
    pub name: KeyName,
    /// Key id.
    pub id: [u8; 4],
    /// What follows the key id.
    pub signature: Vec<u8>,
}

impl SignatureLine {
    /// Reads one line, without its line feed.
    ///
    /// # Errors
    /// [`NoteError::SignatureLine`], as line 0.
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        let parts = || -> Option<Self> {
            let (name, blob) = line.strip_prefix(LINE_START)?.split_once(' ')?;
            let name = KeyName::new(name).ok()?;
            let bytes = STANDARD.decode(blob).ok()?;
            let (id, signature) = bytes.split_first_chunk::<4>()?;
            (!signature.is_empty()).then(|| Self { name, id: *id, signature: signature.to_vec() })
        };
        parts().ok_or(NoteError::SignatureLine { line: 0 })
    }
}

/// The line as notes have it, without its line feed.
impl std::fmt::Display for SignatureLine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut blob = self.id.to_vec();
        blob.extend_from_slice(&self.signature);
        write!(out, "{LINE_START}{} {}", self.name.0, STANDARD.encode(blob))
    }
}

/// A note that was read; its signatures are not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The text, with its final line feed.
    pub text: String,
    /// The signature lines, in order.
    pub signatures: Vec<SignatureLine>,
}

impl Note {
    /// Reads a note.
    ///
    /// # Errors
    /// Every [`NoteError`] but [`NoteError::Forged`] and [`NoteError::VerifierKey`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLarge { seen: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| NoteError::NotText { offset: error.valid_up_to() })?;
        if let Some(offset) = text.bytes().position(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::NotText { offset });
        }
        // The last empty line separates: the text may hold empty lines of its own.
        let at = text.rfind("\n\n").ok_or(NoteError::NoSeparator)?;
        let (text, lines) = (text.get(..=at).unwrap_or_default(), text.get(at + 2..).unwrap_or_default());
        let mut signatures = Vec::new();
        let Some(lines) = lines.strip_suffix('\n') else {
            return Err(if lines.is_empty() {
                NoteError::SignatureCount { seen: 0 }
            } else {
                NoteError::SignatureLine { line: lines.matches('\n').count() }
            });
        };
        for (number, line) in lines.split('\n').enumerate() {
            if number >= SIGNATURES_MAX {
                return Err(NoteError::SignatureCount { seen: number + 1 });
            }
            signatures
                .push(SignatureLine::parse(line).map_err(|_malformed| NoteError::SignatureLine { line: number })?);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The bytes of the note: what [`Note::parse`] reads.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut note = format!("{}\n", self.text);
        for line in &self.signatures {
            note.push_str(&format!("{line}\n"));
        }
        note
    }

    /// Whether `key` signed this note: `Ok(false)` when no line carries its name and id.
    ///
    /// # Errors
    /// [`NoteError::Forged`] when a line does, and the signature does not hold.
    pub fn signed_by(&self, key: &VerifierKey) -> Result<bool, NoteError> {
        let id = key.id();
        let mut found = false;
        for line in self.signatures.iter().filter(|line| line.name == key.name && line.id == id) {
            let holds = <[u8; 64]>::try_from(line.signature.as_slice())
                .is_ok_and(|signature| key.verifies(self.text.as_bytes(), &Signature(signature)));
            if !holds {
                return Err(NoteError::Forged { name: key.name.0.clone() });
            }
            found = true;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    struct Fixed(SigningKey, &'static str);

    impl NoteSigner for Fixed {
        fn verifier(&self) -> VerifierKey {
            VerifierKey::new(KeyName::new(self.1).expect("a good name"), PublicKey(self.0.verifying_key().to_bytes()))
        }
        fn sign(&self, message: &[u8]) -> Signature {
            Signature(self.0.sign(message).to_bytes())
        }
    }

    fn signer(name: &'static str) -> Fixed {
        Fixed(SigningKey::from_bytes(&[7; 32]), name)
    }

    /// The key and note of the signed-note specification's predecessor, golang.org/x/mod/sumdb/note.
    #[test]
    fn a_note_of_the_go_implementation_verifies() {
        let key =
            VerifierKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").expect("a vkey");
        let note = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n\
                    \n\
                    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let note = Note::parse(note.as_bytes()).expect("a note");
        assert_eq!(note.signed_by(&key), Ok(true));
    }

    #[test]
    fn what_is_signed_is_read_back_and_verifies() {
        let (first, second) = (signer("log.example/a"), signer("log.example/a/epoch"));
        let note = Note::parse(sign("a\n\nb\n", &[&first, &second]).as_bytes()).expect("just signed");
        assert_eq!(note.text, "a\n\nb\n");
        assert_eq!(note.signed_by(&first.verifier()), Ok(true));
        assert_eq!(note.signed_by(&second.verifier()), Ok(true));
        assert_eq!(note.signed_by(&signer("someone").verifier()), Ok(false));
    }

    #[test]
    fn a_changed_text_is_a_forgery() {
        let key = signer("log.example/a");
        let note = sign("size 1\n", &[&key]).replace("size 1", "size 2");
        let note = Note::parse(note.as_bytes()).expect("still a note");
        assert_eq!(note.signed_by(&key.verifier()), Err(NoteError::Forged { name: "log.example/a".to_owned() }));
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        assert_eq!(Note::parse(b"text\n"), Err(NoteError::NoSeparator));
        assert_eq!(Note::parse(b"text\n\n"), Err(NoteError::SignatureCount { seen: 0 }));
        assert_eq!(Note::parse(b"a\tb\n\n"), Err(NoteError::NotText { offset: 1 }));
        assert_eq!(Note::parse(b"\xff"), Err(NoteError::NotText { offset: 0 }));
        assert_eq!(Note::parse(&vec![b'a'; NOTE_BYTES_MAX + 1]), Err(NoteError::TooLarge { seen: NOTE_BYTES_MAX + 1 }));
        for line in
            ["x", "\u{2014} a", "\u{2014} a b", "\u{2014} a+b AAAAAAA=", "\u{2014} a AAAAAA==", "\u{2014}  a AAAAAAA="]
        {
            let note = format!("text\n\n{line}\n");
            assert_eq!(Note::parse(note.as_bytes()), Err(NoteError::SignatureLine { line: 0 }), "{line}");
        }
        assert_eq!(Note::parse("text\n\n\u{2014} a AAAAAAA=".as_bytes()), Err(NoteError::SignatureLine { line: 0 }));
    }

    #[test]
    fn a_verifier_key_whose_id_is_not_its_own_is_refused() {
        let good = signer("log.example/a").verifier().to_string();
        assert_eq!(VerifierKey::parse(&good).map(|key| key.to_string()), Ok(good.clone()));
        for bad in [
            good.replacen('+', "+0", 1),
            good.replace("log", "lag"),
            "a+b".to_owned(),
            String::new(),
            format!("{good} "),
        ] {
            assert_eq!(VerifierKey::parse(&bad), Err(NoteError::VerifierKey(bad.clone())));
        }
    }
}
