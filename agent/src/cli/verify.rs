//! `affiant verify`: the verifier of `affiant-verify`, under this command's name.
#![forbid(unsafe_code)]

use std::path::Path;

use agent_evidence::command::{COULD_NOT_CHECK, CommandError, Reading, verify_path_with, verify_proof};
use agent_evidence::verify::{Challenge, Options};

use crate::cli::args::VerifyArguments;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::export::sealed::SealedLog;
use crate::session::client::{Client, ClientError};
use crate::session::protocol::{Reply, Request};

/// Verifies a log directory, an evidence bundle, or one entry by its proof, and prints the verdict.
///
/// # Errors
/// Nothing could be checked (code 2), or standard output is gone: a verdict that nobody could read
/// is no verdict. With `--live`, also when the daemon does not answer the challenge.
pub fn verify(log: &Path, socket: &Path, wish: &VerifyArguments, out: &mut Output) -> Result<u8, Exit> {
    let could_not = |error: CommandError| Exit::new(COULD_NOT_CHECK, error.in_full());
    let trust = wish.trust.as_deref();
    let (text, code) = match (&wish.proof, &wish.entry) {
        (Some(proof), Some(entry)) => verify_proof(proof, entry, trust).map_err(could_not)?,
        _ => {
            let download_bytes_max = wish.max_download_mib.map(|mebibytes| mebibytes << 20);
            let challenge = if wish.live { Some(ask(log, socket)?) } else { wish.live_challenge };
            let reading = Reading { threads: wish.threads, download_bytes_max };
            let report =
                verify_path_with(log, trust, Options { strict: wish.strict, challenge }, reading).map_err(could_not)?;
            let text = if wish.json { report.to_json() } else { report.to_string() };
            (text, report.verdict.exit_code())
        }
    };
    out.bytes(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|exit| Exit { code: COULD_NOT_CHECK, message: exit.message })?;
    Ok(code)
}

/// Picks a challenge and has the daemon answer it, which it does once a checkpoint covers the answer.
fn ask(log: &Path, socket: &Path) -> Result<Challenge, Exit> {
    let unanswered = |why: String| Exit::new(COULD_NOT_CHECK, format!("the challenge is not answered: {why}"));
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| unanswered(format!("no random bytes: {error}")))?;
    let challenge = Challenge::new(&bytes).map_err(|error| unanswered(error.to_string()))?;
    let asked = Client::connect(socket)?.ask(&Request::Anchor { nonce: Some(challenge.to_string()) })?;
    let Reply::Anchored(anchored) = asked else { return Err(ClientError::Mismatch.into()) };
    let head = SealedLog::new(log.to_owned()).head();
    let size = head.map_err(|error| unanswered(format!("{}: {error}", log.display())))?.size;
    if size <= anchored.index {
        return Err(unanswered(format!(
            "the daemon answered in entry {}, and {} has {size} entries: is this the log of that daemon?",
            anchored.index,
            log.display()
        )));
    }
    Ok(challenge)
}
