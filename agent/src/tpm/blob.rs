//! A key of the TPM as it lies on the disk: useless anywhere but in the TPM that made it.
//!
//! Owns the bytes of `keys/ak.tpm` and `keys/log.tpm` and how they get there (mode 0600 in a directory of mode 0700, durable
//! before they count). Five fields, each two bytes of length and so many bytes: the word `affiant/tpm/v1`, the parent's name,
//! the public area (TPMT_PUBLIC), the wrapped private part (TPM2B_PRIVATE's content), and what goes with it in clear.
//!
//! Trust: who can replace such a file can make the key unusable, not another's: the name of the AK is in the log, and the
//! log key's public half in `genesis`.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::TpmError;

/// First field: what the file is, and the version of its layout.
const TAG: &[u8] = b"affiant/tpm/v1";
/// Longest file: a public area has 88 bytes, a private part below 300.
const BYTES_MAX: usize = 4096;

/// Why a file is not a key blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// Longer than any.
    #[error("it has more than {BYTES_MAX} bytes")]
    TooLong,
    /// It ends inside a field.
    #[error("it ends inside field {0}")]
    Short(usize),
    /// It goes on after the last field.
    #[error("it has {0} bytes after the last field")]
    Trailing(usize),
    /// It is something else.
    #[error("it does not begin with {:?}", String::from_utf8_lossy(TAG))]
    Tag,
    /// What goes with the key has another length than it must have.
    #[error("its clear part has {0} bytes")]
    Clear(usize),
    /// The TPM library cannot read a part.
    #[error("its {0} is not of a TPM")]
    Part(&'static str),
}

/// A key blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Name of the parent that can load it.
    pub parent: Vec<u8>,
    /// Its public area (TPMT_PUBLIC).
    pub public: Vec<u8>,
    /// Its private part, encrypted by the TPM.
    pub private: Vec<u8>,
    /// What goes with it in clear: the log key's public half; nothing for the AK.
    pub clear: Vec<u8>,
}

impl Blob {
    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// [`BlobError`] for anything but exactly the five fields.
    pub fn parse(bytes: &[u8]) -> Result<Self, BlobError> {
        if bytes.len() > BYTES_MAX {
            return Err(BlobError::TooLong);
        }
        let mut rest = bytes;
        let mut number = 0;
        let mut field = || {
            number += 1;
            let (length, after) = rest.split_first_chunk::<2>().ok_or(BlobError::Short(number))?;
            let (value, after) =
                after.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(BlobError::Short(number))?;
            rest = after;
            Ok(value.to_vec())
        };
        if field()? != TAG {
            return Err(BlobError::Tag);
        }
        let blob = Self { parent: field()?, public: field()?, private: field()?, clear: field()? };
        if rest.is_empty() { Ok(blob) } else { Err(BlobError::Trailing(rest.len())) }
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`BlobError::TooLong`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        for field in [TAG, &self.parent, &self.public, &self.private, &self.clear] {
            let length = u16::try_from(field.len()).map_err(|_longer| BlobError::TooLong)?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(field);
        }
        if bytes.len() <= BYTES_MAX { Ok(bytes) } else { Err(BlobError::TooLong) }
    }

    /// Reads a file; `None` when there is none.
    ///
    /// # Errors
    /// [`TpmError::Io`], [`TpmError::Blob`].
    pub fn load(path: &Path) -> Result<Option<Self>, TpmError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TpmError::Io { path: path.to_owned(), source }),
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| TpmError::Io { path: path.to_owned(), source })?;
        let blob = Self::parse(&bytes).map_err(|fault| TpmError::Blob { path: path.to_owned(), fault })?;
        Ok(Some(blob))
    }

    /// Writes a file in the place of an earlier one: durable when it returns. The directory exists.
    ///
    /// # Errors
    /// [`TpmError::Io`], [`TpmError::Blob`].
    pub fn store(&self, path: &Path) -> Result<(), TpmError> {
        let bytes = self.to_bytes().map_err(|fault| TpmError::Blob { path: path.to_owned(), fault })?;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob() -> Blob {
        Blob { parent: vec![1; 34], public: vec![2; 88], private: vec![3; 126], clear: vec![4; 32] }
    }

    #[test]
    fn a_blob_is_read_as_it_was_written_and_nothing_else_is() {
        let bytes = blob().to_bytes().expect("short");
        assert_eq!(Blob::parse(&bytes), Ok(blob()));
        for end in 0..bytes.len() {
            assert!(matches!(Blob::parse(&bytes[..end]), Err(BlobError::Short(_))), "{end}");
        }
        assert_eq!(Blob::parse(&[&bytes[..], &[0]].concat()), Err(BlobError::Trailing(1)));
        assert_eq!(Blob::parse(&vec![0; BYTES_MAX + 1]), Err(BlobError::TooLong));
        let mut other = bytes;
        other[2] ^= 1;
        assert_eq!(Blob::parse(&other), Err(BlobError::Tag));
    }

    #[test]
    fn a_stored_blob_is_the_owners_alone_and_replaces_the_one_before() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ak.tpm");
        assert_eq!(Blob::load(&path).expect("readable"), None);
        blob().store(&path).expect("stored");
        let other = Blob { clear: Vec::new(), ..blob() };
        other.store(&path).expect("stored");
        assert_eq!(Blob::load(&path).expect("readable"), Some(other));
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
    }
}
