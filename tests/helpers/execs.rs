//! Starts a program N times, one after the other: `act-execs N PROGRAM [ARGUMENT]...`.
//!
//! Ends with 0 only when every start and every end succeeded, so that N is exact.

#![forbid(unsafe_code)]

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tests::timed;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let count: u64 = arguments.next().context("N?")?.to_string_lossy().parse().context("N is a number")?;
    let program = arguments.next().context("PROGRAM?")?;
    let rest: Vec<_> = arguments.collect();
    timed(count, || {
        for _ in 0..count {
            let status = Command::new(&program).args(&rest).status().context("cannot start")?;
            ensure!(status.success(), "{status}");
        }
        Ok(())
    })
}
