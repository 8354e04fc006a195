//! A gate for workloads: a shell waits at it without doing anything, until the test lets it go on.
//!
//! A loop that looks for a file would start a process each time, and fill the rings on a slow machine before the test begins.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::{Errno, write};

use crate::{Host, until};

/// A named pipe that nobody has written to yet.
#[derive(Debug)]
pub struct Gate {
    path: PathBuf,
}

impl Gate {
    /// A closed gate that every user may wait at.
    ///
    /// # Errors
    /// When the pipe cannot be made.
    pub fn new(host: &Host) -> Result<Self> {
        let path = host.open_directory("gate")?.join("gate");
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0)
            .with_context(|| format!("cannot make the pipe {}", path.display()))?;
        Ok(Self { path })
    }

    /// Shell words that wait until the gate opens.
    #[must_use]
    pub fn pass(&self) -> String {
        format!("read -r _ <{}", self.path.display())
    }

    /// Lets one waiting shell through. Waits for it to arrive, so that none is missed.
    ///
    /// # Errors
    /// When the pipe cannot be written.
    pub fn open(self) -> Result<()> {
        // Without a reader the pipe is refused rather than waited for: a workload that is gone must not hang the test.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = until("the workload waits at the gate", || match open(&self.path, flags, Mode::empty()) {
            Ok(pipe) => Ok(Some(pipe)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error).context("cannot open the gate"),
        })?;
        write(&pipe, b"go\n").context("cannot write to the gate")?;
        fs::remove_file(&self.path).context("cannot remove the gate")
    }
}
