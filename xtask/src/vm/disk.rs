//! The guest's disk: what has to last over its boots, and how the host gets at it between them.
//!
//! Never mounted on the host: it is filled by the guest and read by the tools of the file system, so that a host without a
//! loop device will do and a broken image can do no harm.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::quiet;

/// Room on the disk, in bytes: beyond what the agent calls little (`storage.low_mib`), and sparse in the host's file.
const BYTES: u64 = 4 << 30;
/// Exit codes of e2fsck that leave a consistent file system: nothing to do, and repaired (a journal replayed included).
const CHECKED: [i32; 2] = [0, 1];

/// One disk image.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// An empty ext4 file system.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        file.set_len(BYTES).context("cannot make the image as large as it is to be")?;
        // Left to the guest, the inode tables would be written while it is being tested.
        quiet(tool("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1"]).arg(&path), &[0])?;
        Ok(Self { path })
    }

    /// The image.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Copies everything on the disk into a fresh directory, after replaying the journal as the next boot would.
    pub(crate) fn copy_out(&self, to: &Path) -> Result<()> {
        quiet(tool("e2fsck").args(["-f", "-y"]).arg(&self.path), &CHECKED)?;
        fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
        let request = format!("rdump / {}", to.display());
        quiet(tool("debugfs").args(["-R", &request]).arg(&self.path), &[0])
    }
}

/// A tool of the file system, which is in PATH for root only.
fn tool(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let mut command = Command::new(name);
    if let Ok(path) = std::env::join_paths(directories) {
        command.env("PATH", path);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_disk_can_be_copied_out() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::create(directory.path().join("disk")).unwrap();
        disk.copy_out(&directory.path().join("copy")).unwrap();
        assert!(directory.path().join("copy/lost+found").is_dir());
    }
}
