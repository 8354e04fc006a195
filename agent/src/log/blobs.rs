//! Blobs: contents beside the log, durable before an entry refers to them (FORMAT.md, section 16).
//!
//! Owns: the file of a content under its digest. A crash before the entry leaves a file that nobody refers to, which every
//! reader ignores; the same content stored again is the same file.

use agent_evidence::blob;
use agent_evidence::record::Blob;

use super::disk::Disk;
use super::durable::{Durable, DurableError};
use super::tiling;

/// Makes a content durable; gives what an entry says of it. After [`DurableError::Full`] it may be called again.
pub(super) fn store<D: Disk>(disk: &mut Durable<D>, content: &[u8]) -> Result<Blob, DurableError> {
    let reference = blob::reference(content);
    let path = format!("{}/{}", tiling::DIR, blob::path(&reference.sha256));
    // A content may be as large as the reserve, which is for the last entries.
    disk.keeping_reserve(|disk| {
        if disk.read(&path)?.as_deref() == Some(content) {
            // Its bytes were durable before it got its name; the name perhaps not, if a crash came between.
            return disk.sync_dir(path.rsplit_once('/').map_or("", |(directory, _)| directory));
        }
        disk.make_dirs_durably(&path)?;
        disk.publish(&path, content)
    })?;
    Ok(reference)
}
