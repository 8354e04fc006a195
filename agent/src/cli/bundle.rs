//! `affiant bundle`: an evidence bundle of sessions, written, synced and read back.
//!
//! A bundle holds arguments and paths, so its file is for its owner alone; whoever may read the log may make one. It is
//! written in place, also on a file system without links or renames that keep what is there: half a bundle is none, and
//! no verifier takes it for one.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use agent_evidence::bundle::{Made, MakeError, make, make_under};
use agent_evidence::command::{self, Directory};
use agent_evidence::record::TreeSize;
use agent_evidence::verify::{Options, Verdict};

use crate::cli::args::BundleArguments;
use crate::cli::exit::{self, Exit};
use crate::cli::output::{Lines as _, Output, complain, printable};
use crate::cli::prove::newest_witnessed;
use crate::export::sealed::SealedLog;

/// Writes the bundle of the sessions and says what it holds.
///
/// # Errors
/// The log cannot be read, has no such session (65), or the file exists or cannot be written (64).
pub fn bundle(log: &Path, wish: &BundleArguments, out: &mut Output) -> Result<u8, Exit> {
    // Who may not read the log is told so in the same words as by `tail`.
    SealedLog::new(log.to_owned()).head()?;
    let mut heads: Vec<TreeSize> = wish.heads.iter().copied().map(TreeSize).collect();
    if let Some(path) = &wish.trust {
        let trust = command::read_trust(path).map_err(|error| Exit::new(exit::DATA, error.in_full()))?;
        heads.extend(trust.heads.iter().map(|head| head.size));
    }
    let made = match create(log, wish, &heads) {
        Ok(made) => made,
        Err(Failed::Exists(error)) => return Err(error),
        Err(Failed::Written(error)) => {
            // What was written is no bundle; nobody needs it.
            let _gone = fs::remove_file(&wish.output);
            return Err(error);
        }
    };
    let report = command::verify_path(&wish.output, None, Options::default(), None)
        .map_err(|error| Exit::new(exit::SOFTWARE, error.in_full()))?;
    say(&made, wish, out)?;
    if report.verdict == Verdict::Findings {
        let first = report.findings.first().map(|finding| format!(": {finding}")).unwrap_or_default();
        complain(&format!(
            "{} has {} findings{}; they are the log's: run `affiant verify`",
            wish.output.display(),
            report.findings_total,
            printable(&first)
        ));
        return Ok(1);
    }
    Ok(0)
}

/// Why there is no bundle.
enum Failed {
    /// Nothing was written.
    Exists(Exit),
    /// A part was.
    Written(Exit),
}

fn create(log: &Path, wish: &BundleArguments, heads: &[TreeSize]) -> Result<Made, Failed> {
    let path = &wish.output;
    let unwritable = |error: io::Error| Exit::new(exit::USAGE, format!("cannot write {}: {error}", path.display()));
    let mut source = Directory::open(log).map_err(|error| Failed::Exists(Exit::new(exit::DATA, error.in_full())))?;
    let note = match wish.witnessed {
        true => Some(newest_witnessed(log, &mut source).map_err(Failed::Exists)?.1),
        false => None,
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = BufWriter::with_capacity(1 << 16, file.map_err(|error| Failed::Exists(unwritable(error)))?);
    let ids = wish.sessions.iter().map(|id| id.as_bytes().to_vec());
    let heads = heads.iter().copied();
    let made = match &note {
        Some(note) => make_under(&mut source, note.to_text().as_bytes(), ids, heads, &mut file),
        None => make(&mut source, ids, heads, &mut file),
    };
    let made = made.map_err(|error| {
        Failed::Written(match error {
            MakeError::Write(error) => unwritable(error),
            error => Exit::in_full(exit::DATA, &error),
        })
    })?;
    let synced = file.flush().and_then(|()| file.get_ref().sync_all()).and_then(|()| sync_parent(path));
    synced.map_err(|error| Failed::Written(unwritable(error)))?;
    Ok(made)
}

/// Makes the file's name durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn say(made: &Made, wish: &BundleArguments, out: &mut Output) -> Result<(), Exit> {
    let Made { selected, checkpoint, heads } = made;
    out.line(&format!(
        "{}: {} of {} entries of {}, for {} session{}",
        wish.output.display(),
        selected.disclosed.len(),
        checkpoint.size.0,
        printable(checkpoint.origin.as_str()),
        selected.sessions.len(),
        if selected.sessions.len() == 1 { "" } else { "s" }
    ))?;
    if heads.is_empty() {
        complain(
            "it does not show that the log continues a head that the receiver remembers: pass the receiver's trust file with --trust",
        );
    }
    if !selected.open.is_empty() {
        complain("a session has not ended: nothing proves a part of one complete");
    } else if !selected.closed {
        complain(
            "the agent has not yet accounted for everything up to the session's end: make it again after two heartbeats",
        );
    }
    Ok(())
}
