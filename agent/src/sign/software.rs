//! The log key of a host without a TPM: an Ed25519 seed in a file. Tier T0, and everything it signs says so.
//!
//! Whoever becomes root can copy this key and sign another past of the same log; only the epoch key, witnesses and
//! heads remembered outside stand against that. The file keeps workloads out: mode 0600 in a directory of mode
//! 0700, both owned by the agent's user, or the key is refused.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use agent_evidence::record::{KeyTier, PublicKey, Signature};
use ed25519_dalek::{Signer as _, SigningKey};
use zeroize::Zeroizing;

use super::{SignError, Signer, check_owner, prepare_keys};
use crate::sys::locked::Locked;

/// Bytes of an Ed25519 seed (RFC 8032, section 5.1.5). The file holds these and nothing else.
const SEED_BYTES: usize = 32;
/// Name of the key file in the directory of keys.
const FILE: &str = "log.ed25519";

/// A log key in locked memory, with its seed on disk. Erased from memory when dropped.
pub struct SoftwareKey {
    key: Locked<SigningKey>,
}

impl SoftwareKey {
    /// Makes the key of a new log. `keys` is made if absent. Durable when it returns.
    ///
    /// # Errors
    /// [`SignError::Exists`] when there is a key already; [`SignError::TooOpen`], [`SignError::Io`],
    /// [`SignError::Random`].
    pub fn create(keys: &Path) -> Result<Self, SignError> {
        let io_at = |path: &Path, source| SignError::Io { path: path.to_owned(), source };
        let dir = prepare_keys(keys)?;
        let path = keys.join(FILE);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = opened.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => SignError::Exists(path.clone()),
            _ => io_at(&path, source),
        })?;
        let mut seed = Zeroizing::new([0_u8; SEED_BYTES]);
        getrandom::fill(seed.as_mut()).map_err(SignError::Random)?;
        file.write_all(seed.as_ref())
            .and_then(|()| file.sync_all())
            .and_then(|()| dir.sync_all())
            .map_err(|source| io_at(&path, source))?;
        Ok(Self::from_seed(&seed))
    }

    /// Loads the key of an existing log.
    ///
    /// # Errors
    /// [`SignError::Missing`], [`SignError::TooOpen`], [`SignError::Length`], [`SignError::Io`].
    pub fn load(keys: &Path) -> Result<Self, SignError> {
        let path = keys.join(FILE);
        let io_at = |path: &Path, source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => SignError::Missing(keys.join(FILE)),
            _ => SignError::Io { path: path.to_owned(), source },
        };
        let dir = File::open(keys).map_err(|source| io_at(keys, source))?;
        check_owner(keys, &dir, 0o700)?;
        let mut file = File::open(&path).map_err(|source| io_at(&path, source))?;
        check_owner(&path, &file, 0o600)?;
        // One byte more than a seed, to see a file that is too long.
        let mut bytes = Zeroizing::new([0_u8; SEED_BYTES + 1]);
        let mut seen = 0;
        loop {
            match file.read(&mut bytes[seen..]) {
                Ok(0) => break,
                Ok(count) => seen += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(io_at(&path, source)),
            }
        }
        match bytes.first_chunk::<SEED_BYTES>() {
            Some(seed) if seen == SEED_BYTES => Ok(Self::from_seed(seed)),
            _ => Err(SignError::Length { path, seen, expected: SEED_BYTES }),
        }
    }

    /// The key of a seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Self {
        Self { key: Locked::new(SigningKey::from_bytes(seed)) }
    }

    /// Where the key of a log with these keys lies.
    #[must_use]
    pub fn path(keys: &Path) -> PathBuf {
        keys.join(FILE)
    }
}

impl Signer for SoftwareKey {
    fn tier(&self) -> KeyTier {
        KeyTier::T0
    }

    fn place(&self) -> &'static str {
        "the log key is a software key on disk; whoever becomes root can sign with it"
    }

    fn is_available(&self) -> bool {
        true
    }

    fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        Ok(Signature(self.key.sign(message).to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("affiant-keys-{}-{name}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        dir
    }

    fn refusal(result: Result<SoftwareKey, SignError>) -> SignError {
        result.err().expect("refused")
    }

    #[test]
    fn a_key_is_made_once_and_loads_as_the_same_key() {
        let keys = scratch("once");
        let made = SoftwareKey::create(&keys).expect("create").public_key();
        assert_eq!(SoftwareKey::load(&keys).expect("load").public_key(), made);
        assert!(matches!(refusal(SoftwareKey::create(&keys)), SignError::Exists(_)));
        std::fs::remove_dir_all(keys).expect("clean up");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let keys = scratch("wide");
        SoftwareKey::create(&keys).expect("create");
        let file = SoftwareKey::path(&keys);
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("widen");
        assert!(matches!(refusal(SoftwareKey::load(&keys)), SignError::TooOpen { mode: 0o640, .. }));
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("narrow");
        std::fs::set_permissions(&keys, Permissions::from_mode(0o750)).expect("widen");
        assert!(matches!(refusal(SoftwareKey::load(&keys)), SignError::TooOpen { mode: 0o750, .. }));
        std::fs::remove_dir_all(keys).expect("clean up");
    }

    #[test]
    fn a_key_of_the_wrong_length_is_refused() {
        let keys = scratch("length");
        SoftwareKey::create(&keys).expect("create");
        let file = SoftwareKey::path(&keys);
        for (bytes, expected_seen) in [(31, 31), (33, 33), (500, 33)] {
            std::fs::write(&file, vec![7; bytes]).expect("replace");
            assert!(
                matches!(refusal(SoftwareKey::load(&keys)), SignError::Length { seen, .. } if seen == expected_seen)
            );
        }
        std::fs::remove_dir_all(keys).expect("clean up");
    }

    #[test]
    fn no_key_is_made_by_loading() {
        let keys = scratch("none");
        assert!(matches!(refusal(SoftwareKey::load(&keys)), SignError::Missing(_)));
        assert!(!keys.exists());
    }
}
