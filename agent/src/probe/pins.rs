//! The pin directory: one sub-directory per version of what is pinned, so that nothing incompatible is reused.
//!
//! `<root>/v<wire version>-<16 hex digits>/` holds the maps under their names, `links/` and `progs/`. The digits
//! are of the SHA-256 over the object and the offsets it was loaded with. Only root can write there; what is found is
//! checked before it is used.
#![forbid(unsafe_code)]

use agent_common::WIRE_VERSION;
use sha2::{Digest as _, Sha256};
use std::io;
use std::path::{Path, PathBuf};

/// Every map that is pinned; all of them or the set is not whole.
pub(super) const MAPS: &[&str] = &[
    "RING_CRIT",
    "RING_BULK",
    "SEQ",
    "DROPS",
    "LOSS",
    "SCOPE",
    "SETTINGS",
    "META",
    "WAKES",
    "CALLS",
    "PENDING",
    "TASKS",
    "SCRATCH",
    "CLAIMS",
    "FLOWS",
    "SENDS",
    "BEFORE",
    "OURS",
    "MODULES",
    "OPENS",
    "EXECS",
    "HASHES",
];

/// One versioned directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinSet {
    dir: PathBuf,
}

impl PinSet {
    /// The directory for this object and these offsets.
    pub(super) fn of(root: &Path, object_digest: &[u8; 32], offsets_digest: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"affiant/pins/v1");
        hash.update(object_digest);
        hash.update(offsets_digest);
        let digest: [u8; 32] = hash.finalize().into();
        let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { dir: root.join(format!("v{WIRE_VERSION}-{digits}")) }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.dir.join("links").join(name)
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join("progs").join(name)
    }

    pub(super) fn create(&self) -> io::Result<()> {
        std::fs::create_dir_all(self.dir.join("links"))?;
        std::fs::create_dir_all(self.dir.join("progs"))
    }

    /// Removes the set: links first, which detaches the programs, then programs and maps.
    ///
    /// # Errors
    /// What the kernel says; then a part of it is left, and another call goes on.
    pub fn remove(&self) -> io::Result<()> {
        for dir in [self.dir.join("links"), self.dir.join("progs"), self.dir.clone()] {
            match std::fs::read_dir(&dir) {
                Ok(entries) => {
                    for entry in entries {
                        let entry = entry?;
                        if entry.file_type()?.is_dir() {
                            continue;
                        }
                        std::fs::remove_file(entry.path())?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            std::fs::remove_dir(&dir)?;
        }
        Ok(())
    }

    /// The other sets under the same root, of other versions.
    pub(super) fn others(&self, root: &Path) -> io::Result<Vec<Self>> {
        let mut others = Self::all(root)?;
        others.retain(|other| other != self);
        Ok(others)
    }

    /// Every set under a root, of whatever version, by name.
    ///
    /// # Errors
    /// The root is there and cannot be listed.
    pub fn all(root: &Path) -> io::Result<Vec<Self>> {
        let mut sets = Vec::new();
        let entries = match std::fs::read_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(sets),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_set_name) && entry.file_type()?.is_dir() {
                sets.push(Self { dir: entry.path() });
            }
        }
        sets.sort_unstable_by(|one, other| one.dir.cmp(&other.dir));
        Ok(sets)
    }

    /// How many links, programs and maps are pinned in it.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let files = |dir: &Path| {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir())).count()
        };
        (files(&self.dir.join("links")), files(&self.dir.join("progs")), files(&self.dir))
    }
}

/// Whether a directory name is one that this module gives.
fn is_set_name(name: &str) -> bool {
    let Some((version, digits)) = name.strip_prefix('v').and_then(|rest| rest.split_once('-')) else { return false };
    !version.is_empty()
        && version.bytes().all(|byte| byte.is_ascii_digit())
        && digits.len() == 16
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_object_or_other_offsets_give_another_directory() {
        let root = Path::new("/r");
        let set = PinSet::of(root, &[1; 32], &[2; 32]);
        assert_eq!(set, PinSet::of(root, &[1; 32], &[2; 32]));
        assert_ne!(set, PinSet::of(root, &[3; 32], &[2; 32]));
        assert_ne!(set, PinSet::of(root, &[1; 32], &[3; 32]));
    }

    #[test]
    fn every_set_of_a_root_is_found_counted_and_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(PinSet::all(&root.path().join("none")).unwrap(), []);
        let sets = [[2; 32], [1; 32]].map(|digest| PinSet::of(root.path(), &digest, &[0; 32]));
        for set in &sets {
            set.create().unwrap();
            for file in [set.map("META"), set.map("SEQ"), set.link("exec"), set.program("exec")] {
                std::fs::write(file, "").unwrap();
            }
        }
        std::fs::create_dir(root.path().join("somebody's")).unwrap();
        let found = PinSet::all(root.path()).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(sets[0].others(root.path()).unwrap(), [sets[1].clone()]);
        for set in found {
            assert_eq!(set.counts(), (1, 1, 2));
            set.remove().unwrap();
        }
        let left: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["somebody's"]);
    }

    #[test]
    fn only_directories_named_by_us_are_taken_for_sets() {
        assert!(is_set_name("v1-0123456789abcdef"));
        for name in ["v1", "v1-", "v1-0123456789abcdeg", "x1-0123456789abcdef", "v-0123456789abcdef", "lost+found"] {
            assert!(!is_set_name(name), "{name}");
        }
    }
}
