//! Blobs: contents beside the log that entries refer to by digest and size (FORMAT.md, section 16).
//!
//! Owns: their names and their bound. What is found where a blob should be is judged by `verify`; what a content says, by
//! whoever looks into it.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::record::{Blob, Digest};

/// Longest content, in bytes.
pub const BLOB_BYTES_MAX: usize = 64 << 20;

/// What stands before the digest in a name.
const DIRECTORY: &str = "blob/";

/// The path of a blob, relative to the log's directory.
#[must_use]
pub fn path(digest: &Digest) -> String {
    let mut path = DIRECTORY.to_owned();
    for byte in digest.0 {
        // Writing to a string cannot fail.
        let _written = write!(path, "{byte:02x}");
    }
    path
}

/// The digest that a path names; nothing for any other spelling than that of [`path`].
#[must_use]
pub fn parse(name: &[u8]) -> Option<Digest> {
    let digits = name.strip_prefix(DIRECTORY.as_bytes())?;
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let mut digest = [0; 32];
    if pairs.len() != digest.len() {
        return None;
    }
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(Digest(digest))
}

/// What an entry says that refers to this content.
#[must_use]
pub fn reference(content: &[u8]) -> Blob {
    Blob { sha256: Digest(Sha256::digest(content).into()), size: content.len() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        let empty = reference(b"");
        let name = "blob/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!((path(&empty.sha256).as_str(), empty.size), (name, 0));
        assert_eq!(parse(name.as_bytes()), Some(empty.sha256));
        for wrong in
            ["", "blob/", &name[5..], &name[..68], &format!("{name}0"), &name.to_uppercase(), &format!("{name}00")]
        {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(parse(name.replace("e3", "E3").as_bytes()), None);
    }
}
