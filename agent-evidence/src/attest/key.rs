//! The attestation key: what it must be, and what was signed with it.
//!
//! A restricted key signs only what its TPM made itself, and everything that a TPM makes begins with a mark that it signs for
//! nobody else. So an attestation under such a key is the TPM's own word, **if the key lives in a TPM**. That it does follows
//! from no public area: a program can write one. Somebody must vouch for the key.

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::tpm::public::{
    DECRYPT, FIXED_PARENT, FIXED_TPM, RESTRICTED, SENSITIVE_DATA_ORIGIN, SIGN, Scheme, X509_SIGN,
};
use super::tpm::signature::padded;
use super::tpm::{
    ALG_ECDSA, ALG_SHA256, Attest, CURVE_P256, EcdsaSignature, HashAlg, Name, Parameters, Public, TpmError,
};

/// Attributes that an attestation key must have.
pub const ATTRIBUTES_SET: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | SIGN;
/// Attributes that it must not have: such a key could be made to decrypt, or to sign what others assemble.
pub const ATTRIBUTES_CLEAR: u32 = DECRYPT | X509_SIGN;

/// Why a public area is not that of an attestation key of this format, or something is not signed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The public area cannot be read.
    #[error("the public area is not a TPMT_PUBLIC")]
    Public(#[source] TpmError),
    /// Another sort of key.
    #[error("the key is not ECDSA with SHA-256 on P-256, named by SHA-256")]
    Kind,
    /// It could sign what no TPM made, or leave the TPM.
    #[error(
        "the key's attributes are {seen:#010x}: fixedTPM, fixedParent, sensitiveDataOrigin, restricted and sign must be set, decrypt and x509sign clear"
    )]
    Attributes {
        /// `TPMA_OBJECT`.
        seen: u32,
    },
    /// Not a point of the curve.
    #[error("the key is not a point of P-256")]
    Point,
    /// The attestation cannot be read.
    #[error("the attestation is not a TPMS_ATTEST: {0}")]
    Attest(#[source] TpmError),
    /// The signature cannot be read.
    #[error("the signature is not a TPMT_SIGNATURE of ECDSA with SHA-256: {0}")]
    Signature(#[source] TpmError),
    /// The signature does not hold.
    #[error("the signature is not this key's over this attestation")]
    Forged,
    /// Signed by a key in another place of the TPM, or in another TPM.
    #[error("the attestation names another key as its signer")]
    Signer,
}

/// An attestation key of the right kind: ECDSA P-256 with SHA-256, restricted, bound to its TPM as far as its own words go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ak {
    key: VerifyingKey,
    name: Name,
    qualified_name: Name,
}

impl Ak {
    /// Reads a public area (`TPMT_PUBLIC`) and checks that it is one of an attestation key. The qualified name is taken as
    /// given: it follows from the key above, which is known only with its certificate.
    ///
    /// # Errors
    /// [`KeyError::Public`], [`KeyError::Kind`], [`KeyError::Attributes`], [`KeyError::Point`].
    pub fn parse(public: &[u8], qualified_name: Name) -> Result<Self, KeyError> {
        let public = Public::parse(public).map_err(KeyError::Public)?;
        let attributes = public.attributes;
        if attributes & ATTRIBUTES_SET != ATTRIBUTES_SET || attributes & ATTRIBUTES_CLEAR != 0 {
            return Err(KeyError::Attributes { seen: attributes });
        }
        let name = public.name();
        let Parameters::Ecc { symmetric: None, scheme, curve: CURVE_P256, kdf: Scheme::NULL, x, y } =
            &public.parameters
        else {
            return Err(KeyError::Kind);
        };
        if *scheme != (Scheme { algorithm: ALG_ECDSA, hash: Some(ALG_SHA256) }) || public.name_alg != HashAlg::Sha256 {
            return Err(KeyError::Kind);
        }
        // SEC 1, 2.3.3: 4 stands for a point in full. What comes back is on the curve and not the neutral element.
        let point = [&[4][..], &padded(x), &padded(y)].concat();
        let key = VerifyingKey::from_sec1_bytes(&point).map_err(|_not_on_the_curve| KeyError::Point)?;
        Ok(Self { key, name, qualified_name })
    }

    /// Its point, for whoever compares it with a certificate's.
    #[must_use]
    pub fn point(&self) -> &VerifyingKey {
        &self.key
    }

    /// Its name, computed from its public area.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its qualified name, as it was given.
    #[must_use]
    pub fn qualified_name(&self) -> &Name {
        &self.qualified_name
    }

    /// Reads an attestation, once its signature was found to be this key's and its signer this key at its place.
    ///
    /// # Errors
    /// [`KeyError::Signature`], [`KeyError::Forged`], [`KeyError::Attest`], [`KeyError::Signer`], in this order.
    pub fn verify(&self, attest: &[u8], signature: &[u8]) -> Result<Attest, KeyError> {
        let signature = EcdsaSignature::parse(signature).map_err(KeyError::Signature)?;
        // r and s must be 1 up to the group order; s need not be in its lower half, and TPMs do not put it there.
        let signature = Signature::from_scalars(signature.r, signature.s).map_err(|_range| KeyError::Forged)?;
        let digest = Sha256::digest(attest);
        self.key.verify_prehash(&digest, &signature).map_err(|_does_not_hold| KeyError::Forged)?;
        let attest = Attest::parse(attest).map_err(KeyError::Attest)?;
        if attest.qualified_signer != self.qualified_name {
            return Err(KeyError::Signer);
        }
        Ok(attest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::testdata;

    fn name(bytes: &[u8]) -> Name {
        Name::parse(bytes).unwrap()
    }

    fn ak() -> Ak {
        Ak::parse(testdata::AK_PUBLIC, name(testdata::AK_QUALIFIED_NAME)).unwrap()
    }

    #[test]
    fn what_the_tpm_signed_verifies_and_a_flipped_bit_does_not() {
        let ak = ak();
        assert_eq!(ak.name().as_bytes(), testdata::AK_NAME);
        for (attest, signature) in [
            (testdata::QUOTE_ATTEST, testdata::QUOTE_SIG),
            (testdata::NV_ATTEST, testdata::NV_SIG),
            (testdata::CERTIFY_ATTEST, testdata::CERTIFY_SIG),
            (testdata::CREATION_ATTEST, testdata::CREATION_SIG),
            (testdata::TIME_ATTEST, testdata::TIME_SIG),
        ] {
            assert_eq!(ak.verify(attest, signature).unwrap().to_bytes(), attest);
            for at in [0, 45, attest.len() - 1] {
                let mut other = attest.to_vec();
                other[at] ^= 1;
                assert_eq!(ak.verify(&other, signature), Err(KeyError::Forged));
            }
            let mut other = signature.to_vec();
            other[71] ^= 1;
            assert_eq!(ak.verify(attest, &other), Err(KeyError::Forged));
        }
        assert_eq!(ak.verify(testdata::QUOTE_ATTEST, testdata::NV_SIG), Err(KeyError::Forged));
    }

    #[test]
    fn a_signature_of_zero_or_beyond_the_group_order_is_forged_and_not_an_error() {
        for number in [[0; 32], [0xff; 32]] {
            let signature = EcdsaSignature { r: number, s: number }.to_bytes();
            assert_eq!(ak().verify(testdata::QUOTE_ATTEST, &signature), Err(KeyError::Forged));
        }
    }

    #[test]
    fn a_key_of_the_owner_hierarchy_does_not_pass_for_one_under_the_endorsement_key() {
        let at_its_place = Ak::parse(testdata::OWNER_AK_PUBLIC, name(testdata::OWNER_AK_QUALIFIED_NAME)).unwrap();
        let (attest, signature) = (testdata::OWNER_QUOTE_ATTEST, testdata::OWNER_QUOTE_SIG);
        assert!(at_its_place.verify(attest, signature).is_ok());
        let claimed = at_its_place.name().qualified_under(&name(testdata::EK_QUALIFIED_NAME));
        let elsewhere = Ak::parse(testdata::OWNER_AK_PUBLIC, claimed).unwrap();
        assert_eq!(elsewhere.verify(attest, signature), Err(KeyError::Signer));
    }

    #[test]
    fn keys_that_could_sign_what_no_tpm_made_are_refused() {
        let parse = |public: &[u8]| Ak::parse(public, name(testdata::AK_QUALIFIED_NAME)).map(|_ak| ());
        for bit in [FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN, RESTRICTED, SIGN, DECRYPT, X509_SIGN] {
            let mut public = Public::parse(testdata::AK_PUBLIC).unwrap();
            public.attributes ^= bit;
            assert_eq!(parse(&public.to_bytes()), Err(KeyError::Attributes { seen: public.attributes }));
        }
        assert_eq!(parse(testdata::AK_RSA_PUBLIC), Err(KeyError::Kind));
        assert!(matches!(parse(testdata::EK_PUBLIC), Err(KeyError::Attributes { .. })));
        assert!(matches!(parse(&testdata::AK_PUBLIC[1..]), Err(KeyError::Public(_))));
        let mut public = testdata::AK_PUBLIC.to_vec();
        *public.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&public), Err(KeyError::Point));
    }
}
