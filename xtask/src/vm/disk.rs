//! The guest's disk: what has to last over its boots, and how the host gets at it between them.
//!
//! Never mounted on the host: it is filled by the guest, and by the tools of the file system, which also read it, so that a
//! host without a loop device will do and a broken image can do no harm. Only while the guest is off.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

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
        self.replay()?;
        fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
        quiet(debugfs(&format!("rdump / {}", to.display())).arg(&self.path), &[0])
    }

    /// Copies one file out. `from` is its path below the top of the disk.
    pub(crate) fn take(&self, from: &str, to: &Path) -> Result<()> {
        self.replay()?;
        quiet(debugfs(&format!("dump /{from} {}", to.display())).arg(&self.path), &[0])?;
        // debugfs ends with 0 whatever happened.
        ensure!(to.is_file(), "the guest left no {from}");
        Ok(())
    }

    /// Copies one file to the top of the disk.
    pub(crate) fn put(&self, from: &Path, name: &str) -> Result<()> {
        self.replay()?;
        quiet(debugfs(&format!("write {} {name}", from.display())).arg("-w").arg(&self.path), &[0])?;
        let back = from.with_extension("back");
        self.take(name, &back)?;
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        ensure!(read(from)? == read(&back)?, "{name} did not reach the disk whole");
        fs::remove_file(&back).with_context(|| format!("cannot remove {}", back.display()))
    }

    fn replay(&self) -> Result<()> {
        quiet(tool("e2fsck").args(["-f", "-y"]).arg(&self.path), &CHECKED)
    }
}

/// debugfs with one request.
fn debugfs(request: &str) -> Command {
    let mut command = tool("debugfs");
    command.args(["-R", request]);
    command
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
    #[test]
    fn a_file_comes_back_as_it_was_put_and_one_that_is_not_there_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let disk = Disk::create(at("disk")).unwrap();
        fs::write(at("sent"), b"a\0b\n").unwrap();
        disk.put(&at("sent"), "kept").unwrap();
        disk.take("kept", &at("taken")).unwrap();
        assert_eq!(fs::read(at("taken")).unwrap(), b"a\0b\n");
        assert!(disk.take("other", &at("other")).is_err());
        // What is there already stays: debugfs says so and ends with 0.
        fs::write(at("sent"), b"other").unwrap();
        assert!(disk.put(&at("sent"), "kept").is_err());
    }
}
