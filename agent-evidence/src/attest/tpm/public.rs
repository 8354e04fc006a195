//! Public areas of objects and NV indexes (Part 2, 12.2.4 `TPMT_PUBLIC` and 13 `TPMS_NV_PUBLIC`), and their names.

use super::{
    ALG_ECC, ALG_KEYEDHASH, ALG_NULL, ALG_RSA, CURVE_P256, CURVE_P384, DIGEST_BYTES_MAX, HashAlg, Name, Reader,
    TpmError, put_buffer,
};

/// `TPMA_OBJECT` (8.3): the object can never leave its TPM.
pub const FIXED_TPM: u32 = 1 << 1;
/// It can never have another parent.
pub const FIXED_PARENT: u32 = 1 << 4;
/// The TPM made the secret itself.
pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
/// Its authorization value permits its use.
pub const USER_WITH_AUTH: u32 = 1 << 6;
/// Wrong authorization values are not counted.
pub const NO_DA: u32 = 1 << 10;
/// It signs only what the TPM made itself, or decrypts only what the TPM reads.
pub const RESTRICTED: u32 = 1 << 16;
/// It decrypts.
pub const DECRYPT: u32 = 1 << 17;
/// It signs.
pub const SIGN: u32 = 1 << 18;
/// It signs X.509 certificates that the TPM assembles.
pub const X509_SIGN: u32 = 1 << 19;
/// Bits that have no meaning up to revision 1.83 of the library.
const OBJECT_RESERVED: u32 = !(FIXED_TPM
    | 1 << 2 // stClear
    | FIXED_PARENT
    | SENSITIVE_DATA_ORIGIN
    | USER_WITH_AUTH
    | 1 << 7 // adminWithPolicy
    | 1 << 8 // firmwareLimited
    | 1 << 9 // svnLimited
    | NO_DA
    | 1 << 11 // encryptedDuplication
    | RESTRICTED
    | DECRYPT
    | SIGN
    | X509_SIGN);
/// Bits of `TPMA_NV` (13.4) that have no meaning.
const NV_RESERVED: u32 = 0x01f0_0300;
/// Longest modulus of an RSA key, in bytes: 4096 bits.
const RSA_BYTES_MAX: usize = 512;

/// `TPMT_SYM_DEF_OBJECT` (11.1.7): with what a storage key encrypts its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symmetric {
    /// `TPM_ALG_ID`.
    pub algorithm: u16,
    /// Length of its key in bits.
    pub key_bits: u16,
    /// `TPM_ALG_ID` of its mode.
    pub mode: u16,
}

/// A scheme and the hash it is used with; [`ALG_NULL`] has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheme {
    /// `TPM_ALG_ID` of the scheme.
    pub algorithm: u16,
    /// `TPM_ALG_ID` of the hash; `None` for [`ALG_NULL`] and for schemes without one.
    pub hash: Option<u16>,
}

impl Scheme {
    /// No scheme.
    pub const NULL: Self = Self { algorithm: ALG_NULL, hash: None };
}

/// What depends on the type of an object (12.2.3 `TPMU_PUBLIC_PARMS` and `TPMU_PUBLIC_ID`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameters {
    /// A key on an elliptic curve.
    Ecc {
        /// How children are encrypted; `None` if it has none.
        symmetric: Option<Symmetric>,
        /// How it signs.
        scheme: Scheme,
        /// [`CURVE_P256`] or [`CURVE_P384`].
        curve: u16,
        /// How keys are derived.
        kdf: Scheme,
        /// The point, big-endian, at most as long as the curve's field; not checked to be on the curve. Empty in templates.
        x: Vec<u8>,
        /// Its other coordinate.
        y: Vec<u8>,
    },
    /// An RSA key.
    Rsa {
        /// How children are encrypted; `None` if it has none.
        symmetric: Option<Symmetric>,
        /// How it signs.
        scheme: Scheme,
        /// Length of the modulus in bits.
        bits: u16,
        /// The public exponent; 0 stands for 65537.
        exponent: u32,
        /// The modulus, big-endian.
        modulus: Vec<u8>,
    },
    /// Sealed data, or an HMAC key.
    KeyedHash {
        /// What it does.
        scheme: Scheme,
        /// `TPM_ALG_ID` of the key derivation of XOR obfuscation.
        kdf: Option<u16>,
        /// Digest over the obfuscation value and the data.
        unique: Vec<u8>,
    },
}

/// The public area of an object (12.2.4 `TPMT_PUBLIC`). An SHA-1 `nameAlg`, symmetric objects and other curves are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    /// With what the object is named.
    pub name_alg: HashAlg,
    /// `TPMA_OBJECT`.
    pub attributes: u32,
    /// Policy digest; empty if it has none.
    pub policy: Vec<u8>,
    /// The rest.
    pub parameters: Parameters,
}

impl Public {
    /// Reads a public area, with nothing before or after it.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes)?;
        let kind = reader.u16("the type")?;
        let name_alg = HashAlg::of(reader.u16("nameAlg")?, "nameAlg")?;
        let attributes = reader.u32("objectAttributes")?;
        if attributes & OBJECT_RESERVED != 0 {
            return Err(TpmError::Reserved { what: "objectAttributes", seen: attributes });
        }
        let policy = policy(&mut reader, name_alg)?;
        let parameters = match kind {
            ALG_ECC => ecc(&mut reader)?,
            ALG_RSA => rsa(&mut reader)?,
            ALG_KEYEDHASH => keyed_hash(&mut reader)?,
            seen => return Err(TpmError::Algorithm { what: "the type of the object", seen }),
        };
        reader.end()?;
        Ok(Self { name_alg, attributes, policy, parameters })
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = match self.parameters {
            Parameters::Ecc { .. } => ALG_ECC,
            Parameters::Rsa { .. } => ALG_RSA,
            Parameters::KeyedHash { .. } => ALG_KEYEDHASH,
        };
        let mut out = kind.to_be_bytes().to_vec();
        out.extend_from_slice(&self.name_alg.id().to_be_bytes());
        out.extend_from_slice(&self.attributes.to_be_bytes());
        put_buffer(&mut out, &self.policy);
        match &self.parameters {
            Parameters::Ecc { symmetric, scheme, curve, kdf, x, y } => {
                put_symmetric(&mut out, *symmetric);
                put_scheme(&mut out, *scheme);
                out.extend_from_slice(&curve.to_be_bytes());
                put_scheme(&mut out, *kdf);
                put_buffer(&mut out, x);
                put_buffer(&mut out, y);
            }
            Parameters::Rsa { symmetric, scheme, bits, exponent, modulus } => {
                put_symmetric(&mut out, *symmetric);
                put_scheme(&mut out, *scheme);
                out.extend_from_slice(&bits.to_be_bytes());
                out.extend_from_slice(&exponent.to_be_bytes());
                put_buffer(&mut out, modulus);
            }
            Parameters::KeyedHash { scheme, kdf, unique } => {
                put_scheme(&mut out, *scheme);
                if let Some(kdf) = kdf {
                    out.extend_from_slice(&kdf.to_be_bytes());
                }
                put_buffer(&mut out, unique);
            }
        }
        out
    }

    /// Its name: the digest of all of it.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::over(self.name_alg, &[&self.to_bytes()])
    }
}

fn policy(reader: &mut Reader<'_>, name_alg: HashAlg) -> Result<Vec<u8>, TpmError> {
    let policy = reader.buffer("authPolicy", 0, DIGEST_BYTES_MAX)?;
    if !(policy.is_empty() || policy.len() == name_alg.size()) {
        return Err(TpmError::Size {
            what: "authPolicy",
            seen: policy.len(),
            min: name_alg.size(),
            max: name_alg.size(),
        });
    }
    Ok(policy.to_vec())
}

/// `TPMT_SYM_DEF_OBJECT` (11.1.7): AES, SM4 or Camellia, or none.
fn symmetric(reader: &mut Reader<'_>) -> Result<Option<Symmetric>, TpmError> {
    const CIPHERS: [u16; 3] = [0x0006, 0x0013, 0x0026];
    match reader.u16("the symmetric algorithm")? {
        ALG_NULL => Ok(None),
        algorithm if CIPHERS.contains(&algorithm) => Ok(Some(Symmetric {
            algorithm,
            key_bits: reader.u16("the symmetric key's length")?,
            mode: reader.u16("the symmetric mode")?,
        })),
        seen => Err(TpmError::Algorithm { what: "the symmetric algorithm", seen }),
    }
}

fn put_symmetric(out: &mut Vec<u8>, symmetric: Option<Symmetric>) {
    match symmetric {
        None => out.extend_from_slice(&ALG_NULL.to_be_bytes()),
        Some(Symmetric { algorithm, key_bits, mode }) => {
            [algorithm, key_bits, mode].iter().for_each(|part| out.extend_from_slice(&part.to_be_bytes()));
        }
    }
}

/// A scheme of the given ones, each of which is followed by a hash; `bare` are those that are not.
fn scheme(reader: &mut Reader<'_>, what: &'static str, hashed: &[u16], bare: &[u16]) -> Result<Scheme, TpmError> {
    let algorithm = reader.u16(what)?;
    if algorithm == ALG_NULL || bare.contains(&algorithm) {
        return Ok(Scheme { algorithm, hash: None });
    }
    if !hashed.contains(&algorithm) {
        return Err(TpmError::Algorithm { what, seen: algorithm });
    }
    Ok(Scheme { algorithm, hash: Some(reader.u16(what)?) })
}

fn put_scheme(out: &mut Vec<u8>, scheme: Scheme) {
    out.extend_from_slice(&scheme.algorithm.to_be_bytes());
    if let Some(hash) = scheme.hash {
        out.extend_from_slice(&hash.to_be_bytes());
    }
}

/// `TPM_ALG_MGF1`, `KDF1_SP800_56A`, `KDF2`, `KDF1_SP800_108` (11.2.3).
const KDFS: [u16; 4] = [0x0007, 0x0020, 0x0021, 0x0022];

/// `TPMS_ECC_PARMS` (12.2.3.6) and `TPMS_ECC_POINT` (11.2.5.2).
fn ecc(reader: &mut Reader<'_>) -> Result<Parameters, TpmError> {
    // ECDSA, ECDH, SM2, ECSCHNORR, ECMQV. ECDAA, with its counter, is not read.
    const SCHEMES: [u16; 5] = [0x0018, 0x0019, 0x001b, 0x001c, 0x001d];
    let symmetric = symmetric(reader)?;
    let scheme_of_key = scheme(reader, "the scheme of an elliptic curve key", &SCHEMES, &[])?;
    let curve = reader.u16("the curve")?;
    let size = match curve {
        CURVE_P256 => 32,
        CURVE_P384 => 48,
        seen => return Err(TpmError::Curve { seen }),
    };
    Ok(Parameters::Ecc {
        symmetric,
        scheme: scheme_of_key,
        curve,
        kdf: scheme(reader, "the key derivation", &KDFS, &[])?,
        x: reader.buffer("x", 0, size)?.to_vec(),
        y: reader.buffer("y", 0, size)?.to_vec(),
    })
}

/// `TPMS_RSA_PARMS` (12.2.3.5) and `TPM2B_PUBLIC_KEY_RSA` (11.2.4.5).
fn rsa(reader: &mut Reader<'_>) -> Result<Parameters, TpmError> {
    // RSASSA, RSAPSS, OAEP; RSAES has no hash.
    const SCHEMES: [u16; 3] = [0x0014, 0x0016, 0x0017];
    Ok(Parameters::Rsa {
        symmetric: symmetric(reader)?,
        scheme: scheme(reader, "the scheme of an RSA key", &SCHEMES, &[0x0015])?,
        bits: reader.u16("keyBits")?,
        exponent: reader.u32("the exponent")?,
        modulus: reader.buffer("the modulus", 0, RSA_BYTES_MAX)?.to_vec(),
    })
}

/// `TPMS_KEYEDHASH_PARMS` (12.2.3.3): sealed data has no scheme; HMAC a hash; XOR a hash and a key derivation.
fn keyed_hash(reader: &mut Reader<'_>) -> Result<Parameters, TpmError> {
    const XOR: u16 = 0x000a;
    let scheme = scheme(reader, "the scheme of a keyed hash", &[0x0005, XOR], &[])?;
    let kdf = (scheme.algorithm == XOR).then(|| reader.u16("the key derivation")).transpose()?;
    Ok(Parameters::KeyedHash { scheme, kdf, unique: reader.buffer("unique", 0, DIGEST_BYTES_MAX)?.to_vec() })
}

/// The public area of an NV index (Part 2, 13 `TPMS_NV_PUBLIC`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvPublic {
    /// Its handle: the first byte is 1.
    pub index: u32,
    /// With what it is named.
    pub name_alg: HashAlg,
    /// `TPMA_NV`.
    pub attributes: u32,
    /// Policy digest; empty if it has none.
    pub policy: Vec<u8>,
    /// Size of its data in bytes.
    pub size: u16,
}

impl NvPublic {
    /// Attributes of the counter of this format once it was written: type counter, owner and its own authorization read and
    /// write it, no dictionary attack protection, written. Not orderly: such a counter jumps when power is lost, and what jumps
    /// hides what was removed.
    pub const COUNTER_ATTRIBUTES: u32 = 0x2206_0016;

    /// The counter of this format at a handle, once it was written.
    #[must_use]
    pub fn counter(index: u32) -> Self {
        let attributes = Self::COUNTER_ATTRIBUTES;
        Self { index, name_alg: HashAlg::Sha256, attributes, policy: Vec::new(), size: 8 }
    }

    /// Reads the public area of an NV index, with nothing before or after it.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes)?;
        let index = reader.u32("nvIndex")?;
        if index >> 24 != 1 {
            return Err(TpmError::NvHandle { seen: index });
        }
        let name_alg = HashAlg::of(reader.u16("nameAlg")?, "nameAlg")?;
        let attributes = reader.u32("the attributes")?;
        if attributes & NV_RESERVED != 0 {
            return Err(TpmError::Reserved { what: "the attributes", seen: attributes });
        }
        let policy = policy(&mut reader, name_alg)?;
        let size = reader.u16("dataSize")?;
        reader.end()?;
        Ok(Self { index, name_alg, attributes, policy, size })
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.index.to_be_bytes().to_vec();
        out.extend_from_slice(&self.name_alg.id().to_be_bytes());
        out.extend_from_slice(&self.attributes.to_be_bytes());
        put_buffer(&mut out, &self.policy);
        out.extend_from_slice(&self.size.to_be_bytes());
        out
    }

    /// Its name: the digest of all of it, with the bit that tells whether it was written.
    #[must_use]
    pub fn name(&self) -> Name {
        Name::over(self.name_alg, &[&self.to_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::testdata;

    const ALL: [&[u8]; 8] = [
        testdata::EK_PUBLIC,
        testdata::EK_RSA_PUBLIC,
        testdata::AK_PUBLIC,
        testdata::AK_RSA_PUBLIC,
        testdata::OWNER_AK_PUBLIC,
        testdata::SRK_PUBLIC,
        testdata::SEALED_PUBLIC,
        testdata::P384_PUBLIC,
    ];

    #[test]
    fn what_a_tpm_wrote_is_read_and_written_back() {
        for bytes in ALL {
            let public = Public::parse(bytes).unwrap();
            assert_eq!(public.to_bytes(), bytes);
        }
        let ek = Public::parse(testdata::EK_PUBLIC).unwrap();
        assert_eq!(ek.attributes, 0x0003_00b2);
        assert_eq!(ek.policy.len(), 32);
        assert!(matches!(ek.parameters, Parameters::Ecc { symmetric: Some(_), curve: CURVE_P256, .. }));
    }

    #[test]
    fn every_shorter_or_longer_public_area_is_refused() {
        for bytes in ALL {
            for length in 0..bytes.len() {
                assert!(matches!(Public::parse(&bytes[..length]), Err(TpmError::Short { .. })), "{length}");
            }
            let longer = [bytes, &[0]].concat();
            assert_eq!(Public::parse(&longer), Err(TpmError::Trailing { at: bytes.len(), bytes: 1 }));
        }
        assert_eq!(Public::parse(&[0; 5000]), Err(TpmError::TooLong { seen: 5000 }));
    }

    #[test]
    fn each_rule_has_its_refusal() {
        let with = |at: usize, byte: u8| {
            let mut bytes = testdata::AK_PUBLIC.to_vec();
            bytes[at] = byte;
            Public::parse(&bytes)
        };
        assert_eq!(with(1, 0x25), Err(TpmError::Algorithm { what: "the type of the object", seen: 0x25 }));
        assert_eq!(with(3, 4), Err(TpmError::Algorithm { what: "nameAlg", seen: 4 }));
        assert_eq!(with(7, 0x73), Err(TpmError::Reserved { what: "objectAttributes", seen: 0x0005_0473 }));
        assert_eq!(with(9, 1), Err(TpmError::Size { what: "authPolicy", seen: 1, min: 32, max: 32 }));
        assert_eq!(with(11, 0x25), Err(TpmError::Algorithm { what: "the symmetric algorithm", seen: 0x25 }));
        assert_eq!(
            with(13, 0x1a),
            Err(TpmError::Algorithm { what: "the scheme of an elliptic curve key", seen: 0x1a })
        );
        assert_eq!(with(17, 5), Err(TpmError::Curve { seen: 5 }));
        assert_eq!(with(19, 0x23), Err(TpmError::Algorithm { what: "the key derivation", seen: 0x23 }));
        assert_eq!(with(21, 33), Err(TpmError::Size { what: "x", seen: 33, min: 0, max: 32 }));
    }

    #[test]
    fn the_counter_has_the_name_that_a_tpm_computes() {
        let counter = NvPublic::counter(0x0150_0100);
        assert_eq!(counter.name().as_bytes(), testdata::COUNTER_NAME);
        let bytes = counter.to_bytes();
        assert_eq!(NvPublic::parse(&bytes), Ok(counter));
        for length in 0..bytes.len() {
            assert!(matches!(NvPublic::parse(&bytes[..length]), Err(TpmError::Short { .. })), "{length}");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            NvPublic::parse(&bytes)
        };
        assert_eq!(with(0, 0x81), Err(TpmError::NvHandle { seen: 0x8150_0100 }));
        assert_eq!(with(8, 1), Err(TpmError::Reserved { what: "the attributes", seen: 0x2206_0116 }));
        assert_eq!(NvPublic::parse(&[&bytes[..], &[0]].concat()), Err(TpmError::Trailing { at: 14, bytes: 1 }));
    }
}
