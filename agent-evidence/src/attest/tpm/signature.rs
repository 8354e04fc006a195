//! Signatures of a TPM (Part 2, 11.3.4 `TPMT_SIGNATURE`), of which ECDSA over P-256 with SHA-256 is read: what the attestation
//! keys of this format sign with. Other algorithms are refused by name, not misread.

use super::{ALG_ECDSA, ALG_SHA256, Reader, TpmError, put_buffer};

/// An ECDSA signature (11.3.2 `TPMS_SIGNATURE_ECC`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EcdsaSignature {
    /// r, big-endian, padded on the left.
    pub r: [u8; 32],
    /// s, the same.
    pub s: [u8; 32],
}

impl EcdsaSignature {
    /// Reads a signature, with nothing before or after it. Some TPMs leave out leading zeros of r and s; zero and numbers not
    /// below the group order are for verification to refuse.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::Algorithm`] for any but ECDSA with SHA-256.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes)?;
        let algorithm = reader.u16("sigAlg")?;
        if algorithm != ALG_ECDSA {
            return Err(TpmError::Algorithm { what: "sigAlg", seen: algorithm });
        }
        let hash = reader.u16("the hash of the signature")?;
        if hash != ALG_SHA256 {
            return Err(TpmError::Algorithm { what: "the hash of the signature", seen: hash });
        }
        let r = padded(reader.buffer("r", 1, 32)?);
        let s = padded(reader.buffer("s", 1, 32)?);
        reader.end()?;
        Ok(Self { r, s })
    }

    /// Its bytes, with r and s padded.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = ALG_ECDSA.to_be_bytes().to_vec();
        out.extend_from_slice(&ALG_SHA256.to_be_bytes());
        put_buffer(&mut out, &self.r);
        put_buffer(&mut out, &self.s);
        out
    }
}

/// A big-endian number of at most 32 bytes, with zeros before it.
pub(crate) fn padded(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.iter_mut().rev().zip(bytes.iter().rev()).for_each(|(to, from)| *to = *from);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::testdata;

    #[test]
    fn what_a_tpm_signed_is_read_and_written_back() {
        for bytes in [testdata::QUOTE_SIG, testdata::NV_SIG, testdata::TIME_SIG] {
            assert_eq!(EcdsaSignature::parse(bytes).unwrap().to_bytes(), bytes);
            for length in 0..bytes.len() {
                assert!(matches!(EcdsaSignature::parse(&bytes[..length]), Err(TpmError::Short { .. })), "{length}");
            }
            let longer = [bytes, &[0]].concat();
            assert_eq!(EcdsaSignature::parse(&longer), Err(TpmError::Trailing { at: 72, bytes: 1 }));
        }
    }

    #[test]
    fn each_rule_has_its_refusal() {
        let parse = EcdsaSignature::parse;
        assert_eq!(parse(testdata::RSA_QUOTE_SIG), Err(TpmError::Algorithm { what: "sigAlg", seen: 0x14 }));
        let with = |at: usize, byte: u8| {
            let mut bytes = testdata::QUOTE_SIG.to_vec();
            bytes[at] = byte;
            parse(&bytes)
        };
        assert_eq!(with(3, 4), Err(TpmError::Algorithm { what: "the hash of the signature", seen: 4 }));
        assert_eq!(with(5, 33), Err(TpmError::Size { what: "r", seen: 33, min: 1, max: 32 }));
        assert_eq!(with(5, 0), Err(TpmError::Size { what: "r", seen: 0, min: 1, max: 32 }));
    }

    #[test]
    fn numbers_without_their_leading_zeros_are_the_same_numbers() {
        let short = [0, 0x18, 0, 0x0b, 0, 1, 7, 0, 2, 1, 2];
        let signature = EcdsaSignature::parse(&short).unwrap();
        assert_eq!((signature.r[31], signature.s[30], signature.s[31]), (7, 1, 2));
        assert_eq!(signature.to_bytes().len(), 72);
    }
}
