//! Opens N distinct files of a directory once each, creating them: `act-opens N DIRECTORY`.
//!
//! The files are `DIRECTORY/0` to `DIRECTORY/N-1`. One open(2) per file and no other call on it, so N is exact.

#![forbid(unsafe_code)]

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tests::timed;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let count: u64 = arguments.next().context("N?")?.to_string_lossy().parse().context("N is a number")?;
    let directory = PathBuf::from(arguments.next().context("DIRECTORY?")?);
    timed(count, || {
        for number in 0..count {
            File::create(directory.join(number.to_string())).with_context(|| format!("cannot open file {number}"))?;
        }
        Ok(())
    })
}
