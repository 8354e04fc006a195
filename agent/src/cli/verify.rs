//! `affiant verify`: the verifier of `affiant-verify`, under this command's name.
#![forbid(unsafe_code)]

use std::path::Path;

use agent_evidence::command::{COULD_NOT_CHECK, verify_path};
use agent_evidence::verify::Options;

use crate::cli::args::VerifyArguments;
use crate::cli::exit::Exit;
use crate::cli::output::Output;

/// Verifies a log directory or an evidence bundle and prints the verdict.
///
/// # Errors
/// Nothing could be checked (code 2), or standard output is gone: a verdict that nobody could read
/// is no verdict.
pub fn verify(log: &Path, wish: &VerifyArguments, out: &mut Output) -> Result<u8, Exit> {
    let options = Options { strict: wish.strict };
    let report = verify_path(log, wish.trust.as_deref(), options)
        .map_err(|error| Exit::new(COULD_NOT_CHECK, error.in_full()))?;
    let text = if wish.json { report.to_json() } else { report.to_string() };
    out.bytes(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|exit| Exit { code: COULD_NOT_CHECK, message: exit.message })?;
    Ok(report.verdict.exit_code())
}
