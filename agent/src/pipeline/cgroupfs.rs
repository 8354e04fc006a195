//! The daemon's own cgroups: one directory above all sessions, one below it per session.
//!
//! File system calls only; which session a directory belongs to is `sessions`' business.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt};
use std::path::{Path, PathBuf};

/// A call on the cgroup file system that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub struct CgroupError {
    /// What was tried.
    pub what: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError { what, path, source }
}

/// The directory below which sessions have theirs.
#[derive(Debug, Clone)]
pub struct SessionCgroups {
    base: PathBuf,
}

impl SessionCgroups {
    /// Makes sure that `name` exists below the cgroup2 mount.
    ///
    /// # Errors
    /// When the directory can neither be made nor is there.
    pub fn prepare(mount: &Path, name: &str) -> Result<Self, CgroupError> {
        let base = mount.join(name);
        match std::fs::create_dir(&base) {
            Ok(()) => {}
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(CgroupError { what: "create the cgroup", path: base, source }),
        }
        Ok(Self { base })
    }

    /// The directory that an earlier run made, if it is there.
    #[must_use]
    pub fn existing(mount: &Path, name: &str) -> Option<Self> {
        let base = mount.join(name);
        base.is_dir().then_some(Self { base })
    }

    /// Every session's cgroup that is there, by name.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn all(&self) -> Result<Vec<SessionCgroup>, CgroupError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.base).map_err(failed("list", &self.base))? {
            let entry = entry.map_err(failed("list", &self.base))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(SessionCgroup { path: entry.path() });
            }
        }
        found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// Removes the directory, below which nothing may be left.
    ///
    /// # Errors
    /// When something is.
    pub fn remove(&self) -> Result<(), CgroupError> {
        std::fs::remove_dir(&self.base).map_err(failed("remove the cgroup", &self.base))
    }

    /// The directory itself.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Makes a session's cgroup and gives its id.
    ///
    /// # Errors
    /// When it exists already (session ids are random: somebody else made it) or cannot be made.
    pub fn create(&self, session: &str) -> Result<(SessionCgroup, u64), CgroupError> {
        let path = self.base.join(session);
        std::fs::create_dir(&path).map_err(failed("create the cgroup", &path))?;
        let id = std::fs::metadata(&path).map_err(failed("read the id of the cgroup", &path))?.ino();
        Ok((SessionCgroup { path }, id))
    }

    /// A session's cgroup that an earlier run made, when it is still there under the same id.
    #[must_use]
    pub fn reopen(&self, session: &str, id: u64) -> Option<SessionCgroup> {
        let path = self.base.join(session);
        (std::fs::metadata(&path).ok()?.ino() == id).then_some(SessionCgroup { path })
    }

    /// Removes the base directory when nothing is left below it.
    pub fn remove_if_empty(&self) -> bool {
        std::fs::remove_dir(&self.base).is_ok()
    }
}

/// The name of the cgroup with this id in the directory of its parent, whose path below `mount` is `parent`. For kernels
/// whose programs may not read it (lockdown=confidentiality); none once it is gone. A cgroup keeps its name for life.
#[must_use]
pub fn name_of_child(mount: &Path, parent: &[u8], id: u64) -> Option<Vec<u8>> {
    let below = parent.strip_prefix(b"/").unwrap_or(parent);
    let entries = std::fs::read_dir(mount.join(OsStr::from_bytes(below))).ok()?;
    let found = entries.flatten().find(|entry| entry.ino() == id && entry.file_type().is_ok_and(|kind| kind.is_dir()));
    found.map(|entry| entry.file_name().into_vec())
}

/// One session's cgroup.
#[derive(Debug)]
pub struct SessionCgroup {
    path: PathBuf,
}

impl SessionCgroup {
    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process into it, all threads at once.
    ///
    /// # Errors
    /// When the process is gone or the kernel refuses.
    pub fn adopt(&self, tgid: u32) -> Result<(), CgroupError> {
        let procs = self.path.join("cgroup.procs");
        std::fs::write(&procs, tgid.to_string()).map_err(failed("move a process through", &procs))
    }

    /// Whether a live process is in it or below it.
    ///
    /// # Errors
    /// When `cgroup.events` cannot be read, for instance because the cgroup was removed from outside.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        let events = self.path.join("cgroup.events");
        let text = std::fs::read_to_string(&events).map_err(failed("read", &events))?;
        Ok(text.lines().any(|line| line == "populated 1"))
    }

    /// Kills every process in it and below it (`cgroup.kill`, kernel 5.14 and newer).
    ///
    /// # Errors
    /// When the kernel has no `cgroup.kill`.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let file = self.path.join("cgroup.kill");
        std::fs::write(&file, "1").map_err(failed("kill through", &file))
    }

    /// Removes the directory and the cgroups that the workload made below it.
    ///
    /// # Errors
    /// When a process is still in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let mut directories = vec![self.path.clone()];
        let mut next = 0;
        while let Some(directory) = directories.get(next).cloned() {
            next += 1;
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            directories
                .extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        }
        // Children stand after their parents, so backwards is from the leaves.
        for directory in directories.iter().rev() {
            match std::fs::remove_dir(directory) {
                Ok(()) => {}
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(CgroupError { what: "remove the cgroup", path: directory.clone(), source }),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_by_its_id_in_the_directory_of_its_parent() {
        let mount = tempfile::tempdir().unwrap();
        let child = mount.path().join("slice/app");
        std::fs::create_dir_all(&child).unwrap();
        let id = std::fs::metadata(&child).unwrap().ino();
        assert_eq!(name_of_child(mount.path(), b"/slice", id), Some(b"app".to_vec()));
        assert_eq!(name_of_child(mount.path(), b"/", id), None, "not a child of the root");
        std::fs::remove_dir(&child).unwrap();
        assert_eq!(name_of_child(mount.path(), b"/slice", id), None);
        assert_eq!(name_of_child(mount.path(), b"/gone", id), None);
    }
}
