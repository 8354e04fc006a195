//! Opens, reads and closes one file N times: `act-rereads N FILE`.
//!
//! The file is in the page cache after the first time: what is left is the cost of the calls.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use tests::timed;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let count: u64 = arguments.next().context("N?")?.to_string_lossy().parse().context("N is a number")?;
    let file = arguments.next().context("FILE?")?;
    let mut buffer = [0_u8; 64];
    timed(count, || {
        for _ in 0..count {
            let read = File::open(&file).context("cannot open")?.read(&mut buffer).context("cannot read")?;
            std::hint::black_box(read);
        }
        Ok(())
    })
}
