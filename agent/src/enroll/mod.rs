//! Enrolment: how an authority comes to vouch for this host's attestation key, by files.
//!
//! | file | what |
//! |---|---|
//! | `authority.rs` | the authority's side: its directory, vendors' roots, what it issues; no TPM, daemon or network |
//! | `host.rs` | the host's side: what the TPM signs and opens, and the certificate that comes back |
//!
//! The files themselves, and what is verified of them, are [`agent_evidence::attest::enroll`]; this reads and writes
//! them.

pub mod authority;
pub mod host;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use agent_evidence::attest::enroll::FILE_BYTES_MAX;

/// Reads a file of at most [`FILE_BYTES_MAX`] bytes; of a longer one, one byte more, which its reader refuses.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
