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
use crate::attest::tpm::{Attest, Attested, EcdsaSignature, TpmError};

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

    /// Its bytes.
    ///
    /// # Errors
    /// When it is too long for DER, which none of a TPM is.
    pub fn to_der(&self) -> Result<Vec<u8>, der::Error> {
        let attest = OctetString::new(self.attest.as_slice())?;
        CertificationDer { version: VERSION, attest, signature: OctetString::new(self.signature.as_slice())? }.to_der()
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
