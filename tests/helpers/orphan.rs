//! Leaves its parent and its session as a daemon does, then opens one file: `act-orphan FILE`.
//!
//! Three generations: the first starts the second in a new session (setsid) and ends; the second starts the third and ends; the
//! third waits until it has another parent, then creates FILE. Each generation is this program, told apart by its first argument.

#![forbid(unsafe_code)]

use std::fs::File;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rustix::process::{getppid, setsid};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let own = std::env::current_exe().context("no path to this program")?;
    match arguments.as_slice() {
        ["second", file] => {
            setsid().context("cannot start a session")?;
            let parent = std::process::id().to_string();
            Command::new(own).args(["third", &parent, file]).spawn().context("cannot start")?;
        }
        ["third", parent, file] => {
            let parent: i32 = parent.parse().context("a process id")?;
            while getppid().is_some_and(|now| now.as_raw_nonzero().get() == parent) {
                std::thread::yield_now();
            }
            File::create(file).context("cannot open")?;
        }
        [file] => {
            Command::new(own).args(["second", file]).spawn().context("cannot start")?;
        }
        _ => bail!("FILE?"),
    }
    Ok(())
}
