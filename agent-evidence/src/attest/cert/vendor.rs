//! A vendor's word for an attestation key by way of the machine's own identity key.
//!
//! Some machines come with an initial attestation key (IAK) that their vendor certified. It cannot be ours, since it
//! existed before; but the TPM lets it certify that ours is loaded beside it (TPM2_Certify). A restricted key says that
//! of no key that is not there. The certification stands as the first blob of `certificates`, before the certificates
//! of the key that made it.

#![forbid(unsafe_code)]

use der::asn1::{ObjectIdentifier, OctetString};
use der::{Decode as _, Encode as _, Sequence};
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use sha2::{Digest as _, Sha256};

use super::x509::{Certificate, SubjectKey};
use super::{CertError, PURPOSE_ATTESTATION};
use crate::attest::key::Ak;
use crate::attest::tpm::{Attest, Attested, EcdsaSignature, Name, TpmError};

/// Policy of certificates of keys that sign only what their TPM made: tcg-cap-verifiedTPMRestricted (TCG, TPM 2.0 Keys
/// for Device Identity and Attestation).
pub const POLICY_RESTRICTED: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.11.1.3");
/// Version of the form of a certification.
const VERSION: u8 = 1;

/// Why a certification by another key of the TPM says nothing of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertifyError {
    /// Another version of its form.
    #[error("version {seen}, this program knows {VERSION}")]
    Version {
        /// The version.
        seen: u8,
    },
    /// The certifying key is no point of P-256.
    #[error("the certifying key is not on P-256")]
    Key,
    /// The certifying key might sign what no TPM made.
    #[error("the certifying key's certificate does not say that it signs only what its TPM made")]
    NotRestricted,
    /// The signature cannot be read.
    #[error("its signature is not a TPMT_SIGNATURE of ECDSA with SHA-256: {0}")]
    Signature(#[source] TpmError),
    /// The signature does not hold.
    #[error("its signature is not the certifying key's")]
    Forged,
    /// The attestation cannot be read.
    #[error("it is not a TPMS_ATTEST: {0}")]
    Attest(#[source] TpmError),
    /// An attestation of something else.
    #[error("it attests something else than a key")]
    Kind,
    /// It certifies another key.
    #[error("it certifies another key")]
    OtherKey,
    /// It is too long to be written, which none of a TPM is.
    #[error("it has no form in DER")]
    Form(#[source] der::Error),
}

/// TPM2_Certify of an attestation key by an initial attestation key. Untrusted until [`KeyCertification::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCertification {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
}

#[derive(Sequence)]
struct CertificationDer {
    version: u8,
    attest: OctetString,
    signature: OctetString,
}

impl KeyCertification {
    /// Reads one, if these bytes are one: a certificate, which may stand in its place, begins with a sequence where
    /// this has a number.
    ///
    /// # Errors
    /// [`CertifyError::Version`] when it is one of another version.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, CertifyError> {
        let Ok(read) = CertificationDer::from_der(bytes) else { return Ok(None) };
        if read.version != VERSION {
            return Err(CertifyError::Version { seen: read.version });
        }
        let certification =
            Self { attest: read.attest.as_bytes().to_vec(), signature: read.signature.as_bytes().to_vec() };
        Ok(certification.to_der().ok().filter(|written| written == bytes).map(|_| certification))
    }

    /// Splits what stands for a key into a certification, if the first of it is one, and the certificates.
    ///
    /// # Errors
    /// As [`KeyCertification::read`].
    pub fn split<B: AsRef<[u8]>>(shown: &[B]) -> Result<(Option<Self>, &[B]), CertifyError> {
        match shown.split_first() {
            None => Ok((None, shown)),
            Some((first, rest)) => {
                Self::read(first.as_ref()).map(|read| if read.is_some() { (read, rest) } else { (None, shown) })
            }
        }
    }

    /// Name of the key that it says was certified. Untrusted.
    ///
    /// # Errors
    /// [`CertifyError::Attest`], [`CertifyError::Kind`].
    pub fn certified(&self) -> Result<Name, CertifyError> {
        match Attest::parse(&self.attest).map_err(CertifyError::Attest)?.attested {
            Attested::Certify { name, .. } => Ok(name),
            _ => Err(CertifyError::Kind),
        }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// [`CertifyError::Form`].
    pub fn to_der(&self) -> Result<Vec<u8>, CertifyError> {
        let octets = |bytes: &[u8]| OctetString::new(bytes).map_err(CertifyError::Form);
        let form =
            CertificationDer { version: VERSION, attest: octets(&self.attest)?, signature: octets(&self.signature)? };
        form.to_der().map_err(CertifyError::Form)
    }

    /// Whether the key of this certificate certified our key, and was one that cannot certify what is not there.
    pub(super) fn verify(&self, iak: &Certificate, ak: &Ak) -> Result<(), CertError> {
        let refuse = |error| Err(CertError::Certify(error));
        let SubjectKey::P256(key) = iak.key() else { return refuse(CertifyError::Key) };
        if !iak.has_purpose(&PURPOSE_ATTESTATION) && !iak.has_policy(&POLICY_RESTRICTED) {
            return refuse(CertifyError::NotRestricted);
        }
        let read = EcdsaSignature::parse(&self.signature);
        let read = read.map_err(|error| CertError::Certify(CertifyError::Signature(error)))?;
        let forged = |_opaque| CertError::Certify(CertifyError::Forged);
        let signature = p256::ecdsa::Signature::from_scalars(read.r, read.s).map_err(forged)?;
        key.verify_prehash(&Sha256::digest(&self.attest), &signature).map_err(forged)?;
        let attest = Attest::parse(&self.attest).map_err(|error| CertError::Certify(CertifyError::Attest(error)))?;
        match attest.attested {
            Attested::Certify { name, qualified_name }
                if name == *ak.name() && qualified_name == *ak.qualified_name() =>
            {
                Ok(())
            }
            Attested::Certify { .. } => refuse(CertifyError::OtherKey),
            _ => refuse(CertifyError::Kind),
        }
    }
}
