//! `affiant verify`: the verifier of `affiant-verify`, under this command's name.
#![forbid(unsafe_code)]

use std::path::Path;

use agent_evidence::command::{COULD_NOT_CHECK, CommandError, Reading, verify_path_with, verify_proof};
use agent_evidence::verify::Options;

use crate::cli::args::VerifyArguments;
use crate::cli::exit::Exit;
use crate::cli::output::Output;

/// Verifies a log directory, an evidence bundle, or one entry by its proof, and prints the verdict.
///
/// # Errors
/// Nothing could be checked (code 2), or standard output is gone: a verdict that nobody could read
/// is no verdict.
pub fn verify(log: &Path, wish: &VerifyArguments, out: &mut Output) -> Result<u8, Exit> {
    let could_not = |error: CommandError| Exit::new(COULD_NOT_CHECK, error.in_full());
    let trust = wish.trust.as_deref();
    let (text, code) = match (&wish.proof, &wish.entry) {
        (Some(proof), Some(entry)) => verify_proof(proof, entry, trust).map_err(could_not)?,
        _ => {
            let download_bytes_max = wish.max_download_mib.map(|mebibytes| mebibytes << 20);
            let reading = Reading { threads: wish.threads, download_bytes_max };
            let report = verify_path_with(log, trust, Options { strict: wish.strict }, reading).map_err(could_not)?;
            let text = if wish.json { report.to_json() } else { report.to_string() };
            (text, report.verdict.exit_code())
        }
    };
    out.bytes(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|exit| Exit { code: COULD_NOT_CHECK, message: exit.message })?;
    Ok(code)
}
