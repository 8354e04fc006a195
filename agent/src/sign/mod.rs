//! Keys that sign for the log, and what kind of key each is.
//!
//! Owns: the long-lived log key behind [`Signer`] (in [`software`], or sealed in a [`tpm`]) and the short-lived [`epoch`] key. It does
//! not decide what is signed: checkpoints are `log`'s, statements are `agent_evidence::epoch`'s.
//!
//! Invariant: a signer says where its key lives ([`Signer::tier`]), the log's genesis and every `armed` record
//! carry the answer under a signature, and no code path turns a lower tier into a higher one.

pub mod epoch;
pub mod software;
pub mod tpm;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use agent_evidence::note::{KeyName, NoteError, NoteSigner, VerifierKey};
use agent_evidence::record::{KeyTier, PublicKey, Signature};

/// A key that signs for the log for as long as the log lives.
pub trait Signer: Send {
    /// Where the key lives, as far as somebody vouches for it: what records claim.
    fn tier(&self) -> KeyTier;
    /// Where the key lives, in words for the host's operator.
    fn place(&self) -> &'static str;
    /// Whether it can sign now. What can sign once can sign until it is dropped.
    fn is_available(&self) -> bool;
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
    /// The sealed key is not the one that the blob names.
    #[error("what the TPM unsealed is not the key of {path}: its public half is another")]
    NotThatKey {
        /// The blob.
        path: PathBuf,
    },
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] crate::tpm::TpmError),
    /// The key cannot be used now.
    #[error("the log key is not available: {why}")]
    Unavailable {
        /// Why.
        why: String,
    },
}

/// Makes the directory of keys if it is absent; an open handle to it, for whoever syncs what is made in it.
///
/// # Errors
/// [`SignError::TooOpen`], [`SignError::Io`].
pub fn prepare_keys(keys: &Path) -> Result<File, SignError> {
    let io_at = |source| SignError::Io { path: keys.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(keys) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(io_at(source)),
    }
    let dir = File::open(keys).map_err(io_at)?;
    check_owner(keys, &dir, 0o700)?;
    Ok(dir)
}

/// Refuses a file or directory that others could read, write or own.
fn check_owner(path: &Path, file: &File, widest: u32) -> Result<(), SignError> {
    let metadata = file.metadata().map_err(|source| SignError::Io { path: path.to_owned(), source })?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let expected_owner = rustix::process::geteuid().as_raw();
    if mode & !widest != 0 || owner != expected_owner {
        return Err(SignError::TooOpen { path: path.to_owned(), mode, owner, expected_owner });
    }
    Ok(())
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
