//! A key of the TPM as it lies on the disk: useless anywhere but in the TPM that made it.
//!
//! Owns the bytes of `keys/ak.tpm` and `keys/log.tpm`; how they get there is [`super::keyfile`]'s. Five fields, each two bytes of length and so many bytes: the word `affiant/tpm/v1`, the parent's name,
//! the public area (TPMT_PUBLIC), the wrapped private part (TPM2B_PRIVATE's content), and what goes with it in clear.
//!
//! Trust: who can replace such a file can make the key unusable, not another's: the name of the AK is in the log, and the
//! log key's public half in `genesis`.
#![forbid(unsafe_code)]

/// First field: what the file is, and the version of its layout.
const TAG: &[u8] = b"affiant/tpm/v1";
/// Longest file: a public area has 88 bytes, a private part below 300.
pub const BYTES_MAX: usize = 4096;

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
}
