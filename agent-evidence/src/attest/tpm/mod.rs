//! Structures of the TPM 2.0 Library specification, Part 2 (TCG, revision 1.59): readers and the one writing of each.
//!
//! Readers are strict: a structure is read whole, in the only form that a TPM writes it, within the bounds below, without
//! recursion, and nothing may follow it. What was read is written back as the same bytes. Nothing is verified here.
//!
//! | module | what |
//! |---|---|
//! | [`public`] | `TPMT_PUBLIC`, `TPMS_NV_PUBLIC`, and the names that follow from them |
//! | [`attest`] | `TPMS_ATTEST`: quote, certification, creation, NV certification, time |
//! | [`signature`] | `TPMT_SIGNATURE` |

pub mod attest;
pub mod public;
pub mod signature;

use sha2::{Sha256, Sha384, Sha512};

pub use attest::{Attest, Attested, ClockInfo, PcrSelection};
pub use public::{NvPublic, Parameters, Public};
pub use signature::EcdsaSignature;

/// Longest structure that is read, in bytes: far above any that a TPM of today writes.
pub const STRUCTURE_BYTES_MAX: usize = 4096;
/// Longest name, in bytes: an algorithm and the longest digest (Part 2, 10.5 `TPM2B_NAME`).
pub const NAME_BYTES_MAX: usize = 2 + 64;
/// Longest digest, in bytes (`TPM2B_DIGEST`, with SHA-512).
pub const DIGEST_BYTES_MAX: usize = 64;
/// `TPM_RH_ENDORSEMENT`: the qualified name of the endorsement hierarchy is its handle (Part 1, 16 Names).
pub const ENDORSEMENT: u32 = 0x4000_000b;
/// `TPM_RH_OWNER`.
pub const OWNER: u32 = 0x4000_0001;

/// `TPM_ALG_NULL` (Part 2, 6.3).
pub const ALG_NULL: u16 = 0x0010;
/// `TPM_ALG_RSA`.
pub const ALG_RSA: u16 = 0x0001;
/// `TPM_ALG_KEYEDHASH`.
pub const ALG_KEYEDHASH: u16 = 0x0008;
/// `TPM_ALG_ECC`.
pub const ALG_ECC: u16 = 0x0023;
/// `TPM_ALG_SHA256`.
pub const ALG_SHA256: u16 = 0x000b;
/// `TPM_ALG_SHA384`.
pub const ALG_SHA384: u16 = 0x000c;
/// `TPM_ALG_SHA512`.
pub const ALG_SHA512: u16 = 0x000d;
/// `TPM_ALG_ECDSA`.
pub const ALG_ECDSA: u16 = 0x0018;
/// `TPM_ECC_NIST_P256` (Part 2, 6.4).
pub const CURVE_P256: u16 = 0x0003;
/// `TPM_ECC_NIST_P384`.
pub const CURVE_P384: u16 = 0x0004;

/// Why bytes are not the structure that they should be. Sections are those of Part 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// Longer than anything that is read.
    #[error("{seen} bytes, at most {STRUCTURE_BYTES_MAX} are read")]
    TooLong {
        /// Its length.
        seen: usize,
    },
    /// It ends within a member.
    #[error("it ends at byte {at}, within {what}")]
    Short {
        /// Where the member begins.
        at: usize,
        /// Which.
        what: &'static str,
    },
    /// Something follows it.
    #[error("{bytes} bytes follow it from byte {at}")]
    Trailing {
        /// Where it ends.
        at: usize,
        /// How many bytes follow.
        bytes: usize,
    },
    /// A sized buffer states a size that its kind cannot have (10.4, `TPM2B_*`).
    #[error("{what} has {seen} bytes, {min} to {max} are permitted")]
    Size {
        /// Which buffer.
        what: &'static str,
        /// Its size.
        seen: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// An algorithm that this member cannot have, or that is not read (6.3 `TPM_ALG_ID`).
    #[error("{what} is algorithm {seen:#06x}")]
    Algorithm {
        /// Which member.
        what: &'static str,
        /// The algorithm.
        seen: u16,
    },
    /// A curve that is not read (6.4 `TPM_ECC_CURVE`): P-256 and P-384 are.
    #[error("curve {seen:#06x} is neither P-256 nor P-384")]
    Curve {
        /// The curve.
        seen: u16,
    },
    /// Bits that must be zero are set (8.3 `TPMA_OBJECT`, 13.4 `TPMA_NV`).
    #[error("{what} {seen:#010x} has reserved bits set")]
    Reserved {
        /// Which member.
        what: &'static str,
        /// Its value.
        seen: u32,
    },
    /// Not an NV index (13.1 `TPM_NV_INDEX`: the first byte of its handle is 1).
    #[error("{seen:#010x} is no handle of an NV index")]
    NvHandle {
        /// The handle.
        seen: u32,
    },
    /// Not an attestation of a TPM (6.2 `TPM_GENERATED_VALUE`): no TPM signs other data that begins so.
    #[error("it begins with {seen:#010x} and not with TPM_GENERATED_VALUE, 0xff544347")]
    Magic {
        /// What stands there.
        seen: u32,
    },
    /// An attestation of a kind that is not read (6.9 `TPM_ST`).
    #[error("attestation of type {seen:#06x}")]
    AttestType {
        /// The type.
        seen: u16,
    },
    /// Neither yes nor no (9.2 `TPMI_YES_NO`).
    #[error("{what} is {seen}, neither 0 nor 1")]
    YesNo {
        /// Which member.
        what: &'static str,
        /// Its value.
        seen: u8,
    },
    /// More banks of registers than a TPM can quote at once (10.9.7 `TPML_PCR_SELECTION`).
    #[error("{seen} selections of registers, at most {max}")]
    Selections {
        /// How many.
        seen: u32,
        /// The most.
        max: u32,
    },
    /// A name whose digest is not as long as its algorithm says (Part 1, 16 Names).
    #[error("a name of algorithm {algorithm:#06x} has {seen} bytes")]
    NameSize {
        /// Its algorithm.
        algorithm: u16,
        /// Its length.
        seen: usize,
    },
}

/// A hash function by which objects are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlg {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl HashAlg {
    fn of(seen: u16, what: &'static str) -> Result<Self, TpmError> {
        match seen {
            ALG_SHA256 => Ok(Self::Sha256),
            ALG_SHA384 => Ok(Self::Sha384),
            ALG_SHA512 => Ok(Self::Sha512),
            _ => Err(TpmError::Algorithm { what, seen }),
        }
    }

    /// Its `TPM_ALG_ID`.
    #[must_use]
    pub fn id(self) -> u16 {
        match self {
            Self::Sha256 => ALG_SHA256,
            Self::Sha384 => ALG_SHA384,
            Self::Sha512 => ALG_SHA512,
        }
    }

    /// Length of its digests, in bytes.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of the parts, one after the other.
    #[must_use]
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        fn run<D: sha2::Digest>(parts: &[&[u8]]) -> Vec<u8> {
            let mut hash = D::new();
            parts.iter().for_each(|part| hash.update(part));
            hash.finalize().as_slice().to_vec()
        }
        match self {
            Self::Sha256 => run::<Sha256>(parts),
            Self::Sha384 => run::<Sha384>(parts),
            Self::Sha512 => run::<Sha512>(parts),
        }
    }
}

/// The name of an object or NV index: an algorithm in two bytes and the digest of what it names (Part 1, 16 Names).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Vec<u8>);

impl Name {
    /// Reads a name, with nothing after it.
    ///
    /// # Errors
    /// [`TpmError::Short`], [`TpmError::Algorithm`], [`TpmError::NameSize`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let (algorithm, digest) =
            bytes.split_first_chunk::<2>().ok_or(TpmError::Short { at: 0, what: "the algorithm of a name" })?;
        let algorithm = HashAlg::of(u16::from_be_bytes(*algorithm), "the algorithm of a name")?;
        if digest.len() != algorithm.size() {
            return Err(TpmError::NameSize { algorithm: algorithm.id(), seen: bytes.len() });
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The name of the structure with these bytes.
    fn over(algorithm: HashAlg, parts: &[&[u8]]) -> Self {
        let mut name = algorithm.id().to_be_bytes().to_vec();
        name.extend(algorithm.digest(parts));
        Self(name)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> HashAlg {
        // Names are only made with one of these.
        match self.0.get(1) {
            Some(0x0c) => HashAlg::Sha384,
            Some(0x0d) => HashAlg::Sha512,
            _ => HashAlg::Sha256,
        }
    }

    /// The qualified name of a primary object of a hierarchy, whose own qualified name is its handle ([`ENDORSEMENT`],
    /// [`OWNER`]).
    #[must_use]
    pub fn qualified_in(&self, hierarchy: u32) -> Self {
        Self::over(self.algorithm(), &[&hierarchy.to_be_bytes(), &self.0])
    }

    /// The qualified name of an object under a parent with this qualified name.
    #[must_use]
    pub fn qualified_under(&self, parent: &Self) -> Self {
        Self::over(self.algorithm(), &[&parent.0, &self.0])
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The place in a structure that is being read.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, TpmError> {
        if bytes.len() > STRUCTURE_BYTES_MAX {
            return Err(TpmError::TooLong { seen: bytes.len() });
        }
        Ok(Self { rest: bytes, at: 0 })
    }

    pub(crate) fn bytes(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], TpmError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(TpmError::Short { at: self.at, what })?;
        self.rest = rest;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], TpmError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(TpmError::Short { at: self.at, what })?;
        self.rest = rest;
        self.at += N;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, TpmError> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, TpmError> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, TpmError> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, TpmError> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// A sized buffer (10.4 `TPM2B_*`): its size in two bytes, then that many.
    pub(crate) fn buffer(&mut self, what: &'static str, min: usize, max: usize) -> Result<&'a [u8], TpmError> {
        let seen = usize::from(self.u16(what)?);
        if !(min..=max).contains(&seen) {
            return Err(TpmError::Size { what, seen, min, max });
        }
        self.bytes(seen, what)
    }

    pub(crate) fn name(&mut self, what: &'static str) -> Result<Name, TpmError> {
        Name::parse(self.buffer(what, 2 + 32, NAME_BYTES_MAX)?)
    }

    pub(crate) fn end(self) -> Result<(), TpmError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(TpmError::Trailing { at: self.at, bytes }),
        }
    }
}

/// Appends a sized buffer. What was read has at most [`STRUCTURE_BYTES_MAX`] bytes; longer ones are cut there, so that what is
/// written can be read.
pub(crate) fn put_buffer(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.get(..STRUCTURE_BYTES_MAX).unwrap_or(bytes);
    out.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::testdata;

    #[test]
    fn names_and_qualified_names_are_those_that_a_tpm_computes() {
        let ek = Public::parse(testdata::EK_PUBLIC).unwrap().name();
        assert_eq!(ek.as_bytes(), testdata::EK_NAME);
        let ek_qualified = ek.qualified_in(ENDORSEMENT);
        assert_eq!(ek_qualified.as_bytes(), testdata::EK_QUALIFIED_NAME);
        let ak = Public::parse(testdata::AK_PUBLIC).unwrap().name();
        assert_eq!(ak.as_bytes(), testdata::AK_NAME);
        assert_eq!(ak.qualified_under(&ek_qualified).as_bytes(), testdata::AK_QUALIFIED_NAME);
        let owned = Public::parse(testdata::OWNER_AK_PUBLIC).unwrap().name();
        assert_eq!(owned.qualified_in(OWNER).as_bytes(), testdata::OWNER_AK_QUALIFIED_NAME);
        assert_eq!(Public::parse(testdata::EK_RSA_PUBLIC).unwrap().name().as_bytes(), testdata::EK_RSA_NAME);
    }

    #[test]
    fn a_name_has_the_length_of_its_algorithm() {
        let good = testdata::AK_NAME;
        assert_eq!(Name::parse(good).unwrap().as_bytes(), good);
        assert_eq!(Name::parse(&good[..33]), Err(TpmError::NameSize { algorithm: ALG_SHA256, seen: 33 }));
        assert_eq!(Name::parse(&good[..1]), Err(TpmError::Short { at: 0, what: "the algorithm of a name" }));
        let sha1 = [&[0, 4][..], &[0; 20]].concat();
        assert_eq!(Name::parse(&sha1), Err(TpmError::Algorithm { what: "the algorithm of a name", seen: 4 }));
    }
}
