//! `affiant log`: copies of the log, for other disks and for plain C2SP readers; its end; and what must be kept of it.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use agent_evidence::command::Directory;
use agent_evidence::record::{self, Body};
use serde_json::json;

use crate::app;
use crate::cli::exit::{self, Exit};
use crate::cli::output::{Lines as _, Output, complain, printable};
use crate::config::Config;
use crate::export::sealed::{SealedError, SealedLog};
use crate::log::copy::{self, CopyError, Form};
use crate::log::disk::OsDisk;
use crate::session::client::{Client, ClientError};
use crate::session::protocol::{Reply, Request};

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

/// Asks the daemon to record that a session is held, or no longer.
///
/// # Errors
/// No such session (65), no daemon, not root.
pub fn hold(log: &SealedLog, socket: &Path, id: &str, on: bool, reason: String, out: &mut Output) -> Result<u8, Exit> {
    let mut issued = None;
    sessions_and_holds(log, |index, body| {
        if let Body::Issued(session) = body
            && session.id.as_bytes() == id.as_bytes()
        {
            issued = Some(index);
        }
    })?;
    let session = issued.ok_or_else(|| Exit::new(exit::DATA, format!("the log has no session {}", printable(id))))?;
    match Client::connect(socket)?.ask(&Request::Hold { session, on, reason })? {
        Reply::Done {} => {
            out.line(&format!("session {} is {}", printable(id), if on { "held" } else { "not held" }))?
        }
        _ => return Err(ClientError::Mismatch.into()),
    }
    if on && let Some(note) = gone_before(log, session)? {
        complain(&note);
    }
    Ok(0)
}

/// What a hold comes too late for; nothing when all of the session is there.
fn gone_before(log: &SealedLog, session: u64) -> Result<Option<String>, Exit> {
    let size = log.head()?.size;
    let Some(pruned) = log.pruned(size)?.filter(|pruned| session < pruned.first) else { return Ok(None) };
    let (mut there, mut last) = (0_u64, 0_u64);
    let absent = log.each(session..size, size, |index, bytes| {
        if let Ok(record) = record::decode(bytes)
            && (index == session || record.draft.session.is_some_and(|issued| issued.0 == session))
        {
            there += 1;
            last = last.max(record.placement.session_number.map_or(0, |number| number.0));
        }
        Ok::<(), SealedError>(())
    })?;
    // A session numbers its entries from 0.
    let gone = (last + 1).saturating_sub(there);
    if gone == 0 || absent.count == 0 {
        return Ok(None);
    }
    let left = if there <= 2 {
        "nothing is left of it but its beginning and end".to_owned()
    } else {
        format!("{there} are left")
    };
    Ok(Some(format!(
        "{gone} entries of the session were pruned before it was held (entry {}, {}): {left}",
        pruned.record,
        printable(&pruned.rule)
    )))
}

/// Lists the sessions that are held.
///
/// # Errors
/// The log cannot be read.
pub fn held(log: &SealedLog, json: bool, out: &mut Output) -> Result<u8, Exit> {
    let mut ids: HashMap<u64, String> = HashMap::new();
    let mut holds: BTreeMap<u64, (u64, String)> = BTreeMap::new();
    sessions_and_holds(log, |index, body| match body {
        Body::Issued(session) => drop(ids.insert(index, session.id.display())),
        Body::Hold(hold) if hold.on => drop(holds.insert(hold.session.0, (index, hold.reason.display()))),
        Body::Hold(hold) => drop(holds.remove(&hold.session.0)),
        _ => {}
    })?;
    for (session, (since, reason)) in holds {
        let id = ids.remove(&session).unwrap_or_default();
        if json {
            let facts = json!({"session": id, "issued": session, "since": since, "reason": reason});
            out.line(&facts.to_string())?;
        } else {
            out.line(&format!("{}  since entry {since}: {}", printable(&id), printable(&reason)))?;
        }
    }
    Ok(0)
}

/// Hands every `issued` and `hold` entry to `each`.
fn sessions_and_holds(log: &SealedLog, mut each: impl FnMut(u64, &Body<'_>)) -> Result<(), Exit> {
    let size = log.head()?.size;
    // Both stay when others are pruned.
    let _others = log.each(0..size, size, |index, bytes| {
        // Decoding every entry of a long log costs; what the kind is stands near the beginning.
        let head = bytes.get(..64).unwrap_or(bytes);
        let may_be = |kind: &[u8]| head.windows(kind.len()).any(|window| window == kind);
        if (may_be(b"\"issued\"") || may_be(b"\"hold\""))
            && let Ok(record) = record::decode(bytes)
        {
            each(index, record.body());
        }
        Ok::<(), SealedError>(())
    })?;
    Ok(())
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
    // After the copy's own checkpoint: none that is newer may stand beside it.
    let cosigned = crate::witness::submit::copy_cosigned(from, to, copied.to)
        .map_err(|error| Exit::in_full(exit::SOFTWARE, &error))?;
    if json {
        let files = copied.files + cosigned;
        let pruned = copied.pruned;
        let facts =
            json!({"from": copied.from.0, "to": copied.to.0, "pruned": pruned, "files": files, "directory": to});
        out.line(&facts.to_string())?;
    } else {
        let new = copied.to.0 - copied.from.0 - copied.pruned;
        if copied.pruned > 0 {
            complain(&format!(
                "{} entries were pruned; the copy has what is kept of them, with the hashes",
                copied.pruned
            ));
        }
        out.line(&format!(
            "{new} entries copied, {} in {}; check it with: affiant-verify {} --trust FILE",
            copied.to.0,
            to.display(),
            to.display()
        ))?;
    }
    Ok(0)
}
