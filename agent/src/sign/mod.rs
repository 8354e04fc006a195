//! Keys that sign for the log, and what kind of key each is.
//!
//! Owns: the long-lived log key behind [`Signer`] ([`software`] today) and the short-lived [`epoch`] key. It does
//! not decide what is signed: checkpoints are `log`'s, statements are `agent_evidence::epoch`'s.
//!
//! Invariant: a signer says where its key lives ([`Signer::tier`]), the log's genesis and every `armed` record
//! carry the answer under a signature, and no code path turns a lower tier into a higher one.

pub mod epoch;
pub mod software;

use std::io;
use std::path::PathBuf;

use agent_evidence::note::{KeyName, NoteError, NoteSigner, VerifierKey};
use agent_evidence::record::{KeyTier, PublicKey, Signature};

/// A key that signs for the log for as long as the log lives.
pub trait Signer: Send {
    /// Where the key lives.
    fn tier(&self) -> KeyTier;
    /// What verifies its signatures (RFC 8032).
    fn public_key(&self) -> PublicKey;
    /// Signs a message: a checkpoint's text or a statement's digest, never bytes that a caller from outside chose.
    ///
    /// # Errors
    /// [`SignError::Unavailable`] when the key cannot be used now. The log stays durable, and unsigned.
    fn sign(&self, message: &[u8]) -> Result<Signature, SignError>;
}

/// Why a key cannot be made, loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key file is there already: nothing is overwritten.
    #[error("{0} exists: a log key is made once; remove the file only if the log it signed is given up")]
    Exists(PathBuf),
    /// There is no key file.
    #[error("there is no log key at {0}: a log is created on request only")]
    Missing(PathBuf),
    /// Others could read or replace the key.
    #[error(
        "{path} has mode {mode:04o} and owner {owner}: it must be 0600 (its directory 0700) and owned by {expected_owner}"
    )]
    TooOpen {
        /// The file or its directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        owner: u32,
        /// Who should own it: the effective user of this process.
        expected_owner: u32,
    },
    /// Not a key.
    #[error("{path} has {seen} bytes, expected the {expected} bytes of an Ed25519 seed")]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes found.
        seen: usize,
        /// Bytes of a seed.
        expected: usize,
    },
    /// The system refused.
    #[error("cannot use {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("no random bytes for a key: {0}")]
    Random(getrandom::Error),
    /// The origin cannot name a key.
    #[error("the log's origin cannot name a key")]
    Name(#[source] NoteError),
    /// The key cannot be used now.
    #[error("the log key is not available: {why}")]
    Unavailable {
        /// Why.
        why: String,
    },
}

/// The verifier key of a signer under a name.
///
/// # Errors
/// [`SignError::Name`].
pub fn verifier(name: &str, key: PublicKey) -> Result<VerifierKey, SignError> {
    Ok(VerifierKey::new(KeyName::new(name).map_err(SignError::Name)?, key))
}

/// A signature that was made already, as one line of a note: signing can fail, writing the line cannot.
pub(crate) struct Line {
    verifier: VerifierKey,
    signature: Signature,
}

impl Line {
    pub(crate) fn new(verifier: VerifierKey, signature: Signature) -> Self {
        Self { verifier, signature }
    }
}

impl NoteSigner for Line {
    fn verifier(&self) -> VerifierKey {
        self.verifier.clone()
    }

    fn sign(&self, _message: &[u8]) -> Signature {
        self.signature
    }
}
