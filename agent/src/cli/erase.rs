//! `affiant log erase`: the text behind a commitment is removed for good, and the log says so.

use std::path::Path;

use super::exit::Exit;
use super::output::{Lines as _, Output};
use crate::session::client::{Client, ClientError};
use crate::session::protocol::{Reply, Request};

/// Asks the daemon to erase a value.
///
/// # Errors
/// No daemon, not root, or no such committed value.
pub fn erase(socket: &Path, index: u64, field: &str, reason: &str, out: &mut Output) -> Result<u8, Exit> {
    let request = Request::Erase { index, field: field.to_owned(), reason: reason.to_owned() };
    match Client::connect(socket)?.ask(&request)? {
        Reply::Done {} => out.line(&format!("{field} of entry {index} is erased; the log says so"))?,
        _ => return Err(ClientError::Mismatch.into()),
    }
    Ok(0)
}
