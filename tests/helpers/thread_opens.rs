//! Opens N files while another thread shares the file table: `act-thread-opens N DIRECTORY`.
//!
//! The other thread lives until the last file is open, so that every open happens under a shared file table.

#![forbid(unsafe_code)]

use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let count: u64 = arguments.next().context("N?")?.to_string_lossy().parse().context("N is a number")?;
    let directory = PathBuf::from(arguments.next().context("DIRECTORY?")?);
    let (started, has_started) = sync_channel::<()>(0);
    let (end, may_end) = sync_channel::<()>(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Either end of the channel may be gone when the other thread failed; then there is nothing to wait for.
            if started.send(()).is_ok() && may_end.recv().is_ok() {}
        });
        has_started.recv().context("the other thread did not start")?;
        for number in 0..count {
            File::create(directory.join(number.to_string())).with_context(|| format!("cannot open file {number}"))?;
        }
        drop(end);
        Ok(())
    })
}
