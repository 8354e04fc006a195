//! `affiant log`: copies of the log, for other disks and for plain C2SP readers.
#![forbid(unsafe_code)]

use std::io;
use std::path::Path;

use agent_evidence::command::Directory;
use serde_json::json;

use crate::app;
use crate::cli::exit::{self, Exit};
use crate::cli::output::{Lines as _, Output, printable};
use crate::config::Config;
use crate::log::copy::{self, CopyError, Form};
use crate::log::disk::OsDisk;

/// Puts the log of a stopped daemon aside.
///
/// # Errors
/// There is no log, a daemon owns it (69), or it contradicts itself (70).
pub fn freeze(config: &Config, out: &mut Output) -> Result<u8, Exit> {
    let ended = app::freeze(config).map_err(|error| Exit::in_full(error.exit_code(), &error))?;
    out.line(&format!(
        "{} ended with {} entries and is in {}; the next start of the daemon begins its successor",
        printable(&ended.origin),
        ended.size.0,
        config.paths.state.join(&ended.directory).display()
    ))?;
    Ok(0)
}

/// Copies the log at `from` into the directory `to`, or goes on with a copy that is there.
///
/// # Errors
/// The source or the copy is not what it should be (65), or a disk failed (70).
pub fn export(from: &Path, to: &Path, form: Form, json: bool, out: &mut Output) -> Result<u8, Exit> {
    let mut source = Directory::open(from).map_err(|error| Exit::in_full(exit::DATA, &error))?;
    let failed = |error: io::Error| Exit::new(exit::DATA, format!("cannot use {}: {error}", to.display()));
    match std::fs::create_dir(to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let disk = OsDisk::open(to).map_err(failed)?;
    let copied = copy::copy(&mut source, disk, form).map_err(|error| {
        let code = if matches!(error, CopyError::Durable(_) | CopyError::ReadBack { .. }) {
            exit::SOFTWARE
        } else {
            exit::DATA
        };
        Exit::in_full(code, &error)
    })?;
    if json {
        let facts = json!({"from": copied.from.0, "to": copied.to.0, "files": copied.files, "directory": to});
        out.line(&facts.to_string())?;
    } else {
        let new = copied.to.0 - copied.from.0;
        out.line(&format!(
            "{new} entries copied, {} in {}; check it with: affiant-verify {} --trust FILE",
            copied.to.0,
            to.display(),
            to.display()
        ))?;
    }
    Ok(0)
}
