//! A witness's memory and key: decides, remembers, then cosigns, in this order and as one step.
//!
//! What was cosigned last of a log is `<hex SHA-256 of the origin>/checkpoint` in the state directory, replaced durably
//! **before** the cosignature exists outside. A lock keeps a second process away, `&mut self` a second thread: two
//! requests can never both be judged by the same memory. After a failed write nothing is cosigned any more until a
//! restart has read back what is on the disk. A damaged memory is an error, never "nothing cosigned yet".
//!
//! Trust: the state directory is trusted. Whoever rolls it back can make this witness cosign two histories, so it does not
//! belong on the host whose log it watches.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use agent_evidence::checkpoint::{Checkpoint, CheckpointError};
use agent_evidence::cosignature::{CosignatureError, WitnessKey, cosign};
use agent_evidence::note::{KeyName, NOTE_BYTES_MAX, Note, NoteError, SignatureLine, VerifierKey};
use agent_evidence::record::{PublicKey, Signature};
use agent_evidence::trust::Head;
use agent_evidence::witness::{AddCheckpoint, Refusal, checkpoint_path, head_of, judge};
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{ensure_directory, replace};

/// First line of a key file.
const KEY_HEADER: &str = "affiant-witness-key/v1";
/// Most bytes of a key file: header, a name, a seed in hexadecimal.
const KEY_BYTES_MAX: u64 = 512;
/// Most requests kept as evidence of a log with two histories, for each log.
const CONFLICTS_MAX: usize = 16;

/// Why a witness cannot work, or does not cosign.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The request breaks a rule of the protocol.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A file could not be used.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What is remembered of a log is damaged.
    #[error("{path} is not a checkpoint: what this witness cosigned last is not known, and it must not guess")]
    Memory {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CheckpointError,
    },
    /// A key file that is none, or that others may read.
    #[error("{path} cannot be used as a witness's key: {why}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A name that no key can have.
    #[error(transparent)]
    Name(#[from] NoteError),
    /// The cosignature could not be made.
    #[error(transparent)]
    Cosign(#[from] CosignatureError),
    /// Another process uses the state directory.
    #[error("{0} is in use by another witness")]
    Locked(PathBuf),
    /// A write failed before: what is on the disk is not known.
    #[error("an earlier write failed; restart the witness, so that it reads back what it remembers")]
    Poisoned,
    /// No randomness for a new key.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

fn io_at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeepError {
    let path = path.to_owned();
    move |source| KeepError::Io { what, path, source }
}

/// A witness's private key, with its name.
pub struct SigningWitness {
    name: KeyName,
    key: SigningKey,
}

impl SigningWitness {
    /// Makes a new key in a file that must not exist, mode 0600.
    ///
    /// # Errors
    /// [`KeepError`].
    pub fn create(path: &Path, name: &str) -> Result<Self, KeepError> {
        let name = KeyName::new(name)?;
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut()).map_err(KeepError::Random)?;
        let hex: Zeroizing<String> = Zeroizing::new(seed.iter().map(|byte| format!("{byte:02x}")).collect());
        let text = Zeroizing::new(format!("{KEY_HEADER}\n{}\n{}\n", name.as_str(), hex.as_str()));
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io_at("create", path))?;
        io::Write::write_all(&mut file, text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(io_at("write", path))?;
        Ok(Self { name, key: SigningKey::from_bytes(&seed) })
    }

    /// Loads a key. A file that others may read is refused.
    ///
    /// # Errors
    /// [`KeepError::Io`], [`KeepError::Key`], [`KeepError::Name`].
    pub fn load(path: &Path) -> Result<Self, KeepError> {
        let wrong = |why| KeepError::Key { path: path.to_owned(), why };
        let file = File::open(path).map_err(io_at("open", path))?;
        let metadata = file.metadata().map_err(io_at("look at", path))?;
        if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
            return Err(wrong("it must be a file that nobody but its owner may read (chmod 600)"));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(KEY_BYTES_MAX).read_to_string(&mut text).map_err(io_at("read", path))?;
        let mut lines = text.split('\n');
        let (header, name, hex) = (lines.next(), lines.next(), lines.next());
        if header != Some(KEY_HEADER) || lines.next() != Some("") || lines.next().is_some() {
            return Err(wrong("expected a file that `affiant witness init` made"));
        }
        let seed = hex.and_then(seed_of).ok_or_else(|| wrong("its seed is not 64 hexadecimal digits"))?;
        Ok(Self { name: KeyName::new(name.unwrap_or_default())?, key: SigningKey::from_bytes(&seed) })
    }

    /// The key that verifies what it cosigns.
    #[must_use]
    pub fn verifier(&self) -> WitnessKey {
        WitnessKey::ed25519(self.name.clone(), PublicKey(self.key.verifying_key().to_bytes()))
    }
}

fn seed_of(hex: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(seed)
}

/// The witness.
pub struct Keeper {
    directory: PathBuf,
    witness: SigningWitness,
    logs: Vec<VerifierKey>,
    /// By origin: what was cosigned last. Read from the disk once.
    memory: BTreeMap<KeyName, Option<Head>>,
    poisoned: bool,
    _lock: File,
}

impl Keeper {
    /// Opens the memory of a witness for these logs.
    ///
    /// # Errors
    /// [`KeepError`]; also when what it remembers of one of the logs is damaged.
    pub fn open(directory: &Path, witness: SigningWitness, logs: Vec<VerifierKey>) -> Result<Self, KeepError> {
        ensure_directory(directory).map_err(io_at("make", directory))?;
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io_at("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(KeepError::Locked(directory.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(io_at("lock", &path)(source)),
        }
        let mut memory = BTreeMap::new();
        for log in &logs {
            if !memory.contains_key(log.name()) {
                let path = directory.join(checkpoint_path(log.name()));
                let known = read_checkpoint(&path)?.map(|(checkpoint, _)| head_of(&checkpoint));
                memory.insert(log.name().clone(), known);
            }
        }
        Ok(Self { directory: directory.to_owned(), witness, logs, memory, poisoned: false, _lock: lock })
    }

    /// The key that verifies what it cosigns.
    #[must_use]
    pub fn verifier(&self) -> WitnessKey {
        self.witness.verifier()
    }

    /// Judges a request and, if it is good, remembers the checkpoint durably and cosigns it. `now_s`: seconds since 1970.
    ///
    /// # Errors
    /// [`KeepError::Refused`] for a request that breaks a rule; others when this witness cannot work.
    pub fn add(&mut self, request: &AddCheckpoint, now_s: u64) -> Result<SignatureLine, KeepError> {
        if self.poisoned {
            return Err(KeepError::Poisoned);
        }
        let origin = &request.checkpoint.origin;
        let known = self.memory.get(origin).copied().flatten();
        if let Err(refusal) = judge(request, &self.logs, known) {
            if refusal.is_conflict() {
                self.keep_conflict(request)?;
            }
            return Err(refusal.into());
        }
        let line = cosign(&self.witness.verifier(), now_s, &request.note.text, |message| {
            Signature(self.witness.key.sign(message).to_bytes())
        })?;
        // Other people's lines are not this witness's to show.
        let mut note = request.note.clone();
        note.signatures.retain(|line| self.logs.iter().any(|key| line.name == *key.name() && line.id == key.id()));
        note.signatures.push(line.clone());
        let path = self.directory.join(checkpoint_path(origin));
        let written =
            path.parent().map_or(Ok(()), ensure_directory).and_then(|()| replace(&path, note.to_text().as_bytes()));
        if let Err(source) = written {
            self.poisoned = true;
            return Err(io_at("replace", &path)(source));
        }
        self.memory.insert(origin.clone(), Some(head_of(&request.checkpoint)));
        Ok(line)
    }

    /// Keeps a request that the log's key signed and that is no continuation: proof that the log has two histories.
    fn keep_conflict(&self, request: &AddCheckpoint) -> Result<(), KeepError> {
        let path = self.directory.join(checkpoint_path(&request.checkpoint.origin));
        let Some(directory) = path.parent() else { return Ok(()) };
        ensure_directory(directory).map_err(io_at("make", directory))?;
        let digest: [u8; 32] = Sha256::digest(&request.note.text).into();
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let path = directory.join(format!("conflict-{name}"));
        let kept = fs::read_dir(directory)
            .map_err(io_at("list", directory))?
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("conflict-"))
            .count();
        if kept < CONFLICTS_MAX && !path.exists() {
            replace(&path, request.to_text().as_bytes()).map_err(io_at("keep", &path))?;
        }
        Ok(())
    }

    /// The bytes that it shows to monitors under this path, if there are any.
    ///
    /// # Errors
    /// [`KeepError::Io`].
    pub fn shown(&self, path: &str) -> Result<Option<Vec<u8>>, KeepError> {
        // Only paths of logs that are served: nothing of the request gets into a path.
        let Some(known) = self.logs.iter().map(|log| checkpoint_path(log.name())).find(|known| known == path) else {
            return Ok(None);
        };
        let path = self.directory.join(known);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_at("read", &path)(source)),
        }
    }
}

/// A checkpoint in a file; nothing when there is none.
pub(super) fn read_checkpoint(path: &Path) -> Result<Option<(Checkpoint, Note)>, KeepError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_at("open", path))?,
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(NOTE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(io_at("read", path))?;
    let read = Checkpoint::parse_any(&bytes).map_err(|source| KeepError::Memory { path: path.to_owned(), source })?;
    Ok(Some(read))
}

#[cfg(test)]
pub(super) mod tests {
    use agent_evidence::record::{RootHash, TreeSize};
    use agent_evidence::tree::{NodeHash, Subtrees, TreeError, consistency_proof, fold_tile, leaf_hash, root_of};

    use super::*;

    /// A log of one entry over and over; two of different bytes are two histories.
    pub(in crate::witness) struct History(pub(in crate::witness) u8);

    impl Subtrees for History {
        fn subtree(&self, height: u32, _number: u64) -> Result<NodeHash, TreeError> {
            fold_tile(&vec![leaf_hash(&[self.0]).0; 1 << height]).ok_or(TreeError::RootMismatch)
        }
    }

    pub(in crate::witness) fn log_key() -> VerifierKey {
        let key = SigningKey::from_bytes(&[3; 32]);
        VerifierKey::new(KeyName::new("log.example").unwrap(), PublicKey(key.verifying_key().to_bytes()))
    }

    impl History {
        pub(in crate::witness) fn request(&self, old: u64, size: u64) -> AddCheckpoint {
            let size = TreeSize(size);
            let root = RootHash(root_of(self, size).unwrap().0);
            let checkpoint = Checkpoint { origin: log_key().name().clone(), size, root };
            let signature = SigningKey::from_bytes(&[3; 32]).sign(checkpoint.text().as_bytes()).to_bytes();
            let line =
                SignatureLine { name: log_key().name().clone(), id: log_key().id(), signature: signature.to_vec() };
            let proof = consistency_proof(self, TreeSize(old), size).unwrap();
            let note = Note { text: checkpoint.text(), signatures: vec![line] };
            AddCheckpoint { old: TreeSize(old), proof, checkpoint, note }
        }
    }

    pub(in crate::witness) fn keeper(at: &Path) -> Result<Keeper, KeepError> {
        let path = at.join("key");
        let witness = match SigningWitness::load(&path) {
            Err(KeepError::Io { .. }) => SigningWitness::create(&path, "witness.example")?,
            loaded => loaded?,
        };
        Keeper::open(&at.join("state"), witness, vec![log_key()])
    }

    #[test]
    fn what_was_cosigned_is_remembered_across_restarts_and_never_contradicted() {
        let at = tempfile::tempdir().unwrap();
        let mut first = keeper(at.path()).unwrap();
        let request = History(1).request(0, 7);
        let line = first.add(&request, 1_000).unwrap();
        let mut note = request.note.clone();
        note.signatures.push(line);
        assert_eq!(first.verifier().cosigned(&note).unwrap().unwrap().timestamp, 1_000);
        assert!(matches!(keeper(at.path()), Err(KeepError::Locked(_))));
        drop(first);
        let mut again = keeper(at.path()).unwrap();
        let stale = again.add(&History(1).request(0, 9), 1_001).unwrap_err();
        assert!(matches!(stale, KeepError::Refused(Refusal::Stale { known: 7, .. })));
        for fork in [History(2).request(7, 9), History(2).request(7, 7)] {
            let refused = again.add(&fork, 1_002).unwrap_err();
            assert!(matches!(refused, KeepError::Refused(Refusal::Inconsistent { .. })), "{refused}");
        }
        again.add(&History(1).request(7, 9), 1_003).unwrap();
        let shown = again.shown(&checkpoint_path(log_key().name())).unwrap().unwrap();
        assert_eq!(Checkpoint::parse(&shown).unwrap().0.size, TreeSize(9));
        assert_eq!(again.shown("../key").unwrap(), None);
        // Both requests of the other history are kept as they came.
        let directory = at.path().join("state").join(checkpoint_path(log_key().name()));
        let kept = fs::read_dir(directory.parent().unwrap())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("conflict-"));
        assert_eq!(kept.count(), 2);
    }

    #[test]
    fn a_memory_that_is_damaged_or_cannot_be_written_stops_the_witness() {
        let at = tempfile::tempdir().unwrap();
        let mut first = keeper(at.path()).unwrap();
        first.add(&History(1).request(0, 7), 1).unwrap();
        let path = at.path().join("state").join(checkpoint_path(log_key().name()));
        // A directory in the place of the temporary file: the write fails.
        fs::create_dir(path.with_extension("tmp")).unwrap();
        assert!(matches!(first.add(&History(1).request(7, 8), 2), Err(KeepError::Io { .. })));
        fs::remove_dir(path.with_extension("tmp")).unwrap();
        assert!(matches!(first.add(&History(1).request(7, 8), 3), Err(KeepError::Poisoned)));
        drop(first);
        keeper(at.path()).unwrap().add(&History(1).request(7, 8), 4).unwrap();
        fs::write(&path, b"nothing\n").unwrap();
        assert!(matches!(keeper(at.path()), Err(KeepError::Memory { .. })));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_and_none_is_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("key");
        let made = SigningWitness::create(&path, "witness.example").unwrap();
        assert_eq!(SigningWitness::load(&path).unwrap().verifier(), made.verifier());
        assert!(matches!(SigningWitness::create(&path, "witness.example"), Err(KeepError::Io { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SigningWitness::load(&path), Err(KeepError::Key { .. })));
    }
}
