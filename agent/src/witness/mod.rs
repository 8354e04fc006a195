//! Witnesses: a small one for a site, and the log's side of asking one.
//!
//! | file | what |
//! |---|---|
//! | `keeper.rs` | a witness's memory: what it cosigned last of each log, durable before a cosignature is given |
//! | `server.rs` | the keeper behind HTTP (C2SP tlog-witness) |
//! | `submit.rs` | asks witnesses to cosign this host's log, and keeps what they say; also by files |
//! | `client.rs` | one HTTP request |
//!
//! HTTP without TLS, on purpose: what is exchanged carries its own signatures, so a network attacker can withhold it and not
//! falsify it; and no TLS stack is without C or assembly. Where addresses must not be seen, a TLS proxy goes in front.

pub mod client;
pub mod keeper;
pub mod server;
pub mod submit;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Makes a directory if it is not there, and its name durable.
fn ensure_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o750).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Puts a whole file in the place of another, atomically, and durable when it returns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    #[expect(clippy::disallowed_methods, reason = "the directory's fsync follows")]
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
