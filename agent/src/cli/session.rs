//! `affiant session` and `affiant whoami`: what the daemon answers about sessions, printed.
#![forbid(unsafe_code)]

use std::path::Path;

use serde::Serialize;

use crate::cli::clock::show_utc;
use crate::cli::duration::show_ns;
use crate::cli::exit::Exit;
use crate::cli::output::{Lines as _, Output, printable};
use crate::session::client::{Client, ClientError};
use crate::session::protocol::{Reply, Request, SessionInfo, SessionState, WhoAmI};

/// Prints the sessions that the asker may see: the open ones, or with `all` also those that ended a
/// short while ago.
///
/// # Errors
/// No daemon, or standard output is gone.
pub fn list(socket: &Path, all: bool, json: bool, out: &mut Output) -> Result<u8, Exit> {
    let mut sessions = ask_sessions(socket)?;
    sessions.retain(|session| all || session.state != SessionState::Revoked);
    if json {
        out.json(&sessions)?;
        return Ok(0);
    }
    if sessions.is_empty() {
        out.line("no open sessions")?;
    }
    for session in &sessions {
        out.line(&format!(
            "{}  {:<9}  uid {:<6}  {}  {}",
            session.id,
            state(session.state),
            session.uid,
            show_utc(session.issued_wall_ns),
            printable(&session.identity)
        ))?;
    }
    Ok(0)
}

/// Prints one session.
///
/// # Errors
/// No daemon, no such session (code 1), or standard output is gone.
pub fn show(socket: &Path, id: &str, json: bool, out: &mut Output) -> Result<u8, Exit> {
    let sessions = ask_sessions(socket)?;
    let Some(session) = sessions.iter().find(|session| session.id == id) else {
        return Err(Exit::new(
            1,
            format!("no session {id} is open; `affiant timeline {id}` shows it if it is in the log"),
        ));
    };
    if json {
        out.json(session)?;
        return Ok(0);
    }
    out.line(&format!("session   {}", session.id))?;
    out.line(&format!("state     {}", state(session.state)))?;
    out.line(&format!("identity  {}", printable(&session.identity)))?;
    if let Some(task) = &session.task {
        out.line(&format!("task      {} (the requester's words)", printable(task)))?;
    }
    for (key, value) in &session.labels {
        out.line(&format!("label     {}={}", printable(key), printable(value)))?;
    }
    out.line(&format!("uid       {}", session.uid))?;
    out.line(&format!("issued    {} UTC, entry {}", show_utc(session.issued_wall_ns), session.entry))?;
    if let Some(left_ns) = session.expires_in_ns {
        out.line(&format!("expires   in {}", show_ns(left_ns)))?;
    }
    if let Some(cgroup) = session.cgroup {
        out.line(&format!("cgroup    {cgroup}"))?;
    }
    Ok(0)
}

/// Revokes a session.
///
/// # Errors
/// No daemon, no such session, or it belongs to another user.
pub fn revoke(socket: &Path, id: &str, out: &mut Output) -> Result<u8, Exit> {
    match Client::connect(socket)?.ask(&Request::Revoke { id: id.to_owned() })? {
        Reply::Done {} => out.line(&format!("session {id} is revoked"))?,
        _ => return Err(ClientError::Mismatch.into()),
    }
    Ok(0)
}

fn ask_sessions(socket: &Path) -> Result<Vec<SessionInfo>, Exit> {
    match Client::connect(socket)?.ask(&Request::Sessions {})? {
        Reply::Sessions(sessions) => Ok(sessions),
        _ => Err(ClientError::Mismatch.into()),
    }
}

fn state(state: SessionState) -> &'static str {
    match state {
        SessionState::Issued => "issued",
        SessionState::Running => "running",
        SessionState::Lingering => "lingering",
        SessionState::Revoked => "revoked",
    }
}

/// Prints which session and identity the kernel gives this process.
///
/// # Errors
/// No daemon, or standard output is gone.
pub fn whoami(socket: &Path, json: bool, out: &mut Output) -> Result<u8, Exit> {
    /// The answer, with "none" spelled out.
    #[derive(Serialize)]
    struct Answer<'a> {
        workload: Option<&'a WhoAmI>,
    }
    let answer = match Client::connect(socket)?.ask(&Request::Whoami {})? {
        Reply::Whoami(answer) => answer,
        _ => return Err(ClientError::Mismatch.into()),
    };
    let in_session = answer.as_ref().is_some_and(|answer| answer.session.is_some());
    if json {
        out.json(&Answer { workload: answer.as_ref() })?;
    } else {
        match &answer {
            None => out.line("no session; the kernel names no workload for this process")?,
            Some(who) => {
                out.line(&format!("session      {}", who.session.as_deref().unwrap_or("none")))?;
                out.line(&format!("identity     {}", printable(&who.identity)))?;
                out.line(&format!("cgroup       {}", who.cgroup))?;
                out.line(&format!("established  {}", printable(&who.established_how)))?;
            }
        }
    }
    Ok(u8::from(!in_session))
}
