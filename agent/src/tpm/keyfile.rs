//! Key blobs on the disk: mode 0600 in a directory of mode 0700, durable before they count.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::TpmError;
use super::blob::{BYTES_MAX, Blob};

/// Reads a key file; `None` when there is none.
///
/// # Errors
/// [`TpmError::Io`], [`TpmError::Blob`].
pub fn load(path: &Path) -> Result<Option<Blob>, TpmError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(TpmError::Io { path: path.to_owned(), source }),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| TpmError::Io { path: path.to_owned(), source })?;
    let blob = Blob::parse(&bytes).map_err(|fault| TpmError::Blob { path: path.to_owned(), fault })?;
    Ok(Some(blob))
}

/// Writes a key file in the place of an earlier one: durable when it returns. The directory exists.
///
/// # Errors
/// [`TpmError::Io`], [`TpmError::Blob`].
pub fn store(blob: &Blob, path: &Path) -> Result<(), TpmError> {
    let bytes = blob.to_bytes().map_err(|fault| TpmError::Blob { path: path.to_owned(), fault })?;
    let next = path.with_extension("next");
    let write = || -> io::Result<()> {
        match std::fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        // A rename within one directory, synced on the next line.
        rustix::fs::rename(&next, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| TpmError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob() -> Blob {
        Blob { parent: vec![1; 34], public: vec![2; 88], private: vec![3; 126], clear: vec![4; 32] }
    }

    #[test]
    fn a_stored_blob_is_the_owners_alone_and_replaces_the_one_before() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ak.tpm");
        assert_eq!(load(&path).expect("readable"), None);
        store(&blob(), &path).expect("stored");
        let other = Blob { clear: Vec::new(), ..blob() };
        store(&other, &path).expect("stored");
        assert_eq!(load(&path).expect("readable"), Some(other));
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
    }
}
