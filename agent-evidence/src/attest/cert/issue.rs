//! Certificates made: a small authority's own, and those of attestation keys.
//!
//! Pure: keys, serial numbers and times come in. Signatures are ECDSA P-256 with SHA-256 and deterministic (RFC 6979),
//! so that no randomness is asked for; the serial number has to be random (RFC 5280 and CA/B Forum: at least 64 bits of
//! it). P-256 and not Ed25519, because the programs that read certificates of TPM keys do not read the latter.

#![forbid(unsafe_code)]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::{Any, BitString, ObjectIdentifier, OctetString, Utf8StringRef};
use der::{Decode as _, Encode as _, Sequence};
use hmac::{Hmac, Mac as _};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use super::x509::{
    BASIC_CONSTRAINTS, CURVE_P256, Certificate, CertificateError, EC_KEY, ECDSA_SHA256, EXTENDED_KEY_USAGE, KEY_USAGE,
    SUBJECT_ALT_NAME, SUBJECT_KEY_ID, SubjectKey,
};
use super::{ENROLMENT, PURPOSE_ATTESTATION, Tie, TieError};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const KEY_BEGIN: &str = "-----BEGIN EC PRIVATE KEY-----";
const KEY_END: &str = "-----END EC PRIVATE KEY-----";
/// Largest time of a certificate: the last second of the year 9999 (RFC 5280 section 4.1.2.5).
pub const TIME_MAX: u64 = 253_402_300_799;

/// Why a certificate cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// A value that DER has no form for.
    #[error("a certificate cannot be written")]
    Form(#[source] der::Error),
    /// The extension cannot be written.
    #[error("the extension of a certificate cannot be written")]
    Tie(#[source] TieError),
    /// The authority's certificate is of another key.
    #[error("the authority's certificate is of another key than the one that signs")]
    OtherKey,
    /// A text that is no key of an authority.
    #[error("not a key of an authority: expected one block EC PRIVATE KEY (RFC 5915) with a key on P-256")]
    Key,
    /// What was made is refused.
    #[error("the certificate that was made is refused")]
    Refused(#[source] CertificateError),
}

/// First and last second of a certificate's validity, in seconds since 1970; at most [`TIME_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// The first second.
    pub from: u64,
    /// The last second.
    pub until: u64,
}

/// The key of a small authority. Erased from memory when it is dropped.
pub struct AuthorityKey(SigningKey);

/// `ECPrivateKey` of RFC 5915.
#[derive(Sequence)]
struct EcPrivateKey {
    version: u8,
    key: OctetString,
    #[asn1(context_specific = "0", optional = "true")]
    curve: Option<ObjectIdentifier>,
    #[asn1(context_specific = "1", optional = "true")]
    point: Option<BitString>,
}

impl AuthorityKey {
    /// A key of 32 random bytes; absent if they are no key, which of 2^32 one is not.
    #[must_use]
    pub fn from_random(bytes: &[u8; 32]) -> Option<Self> {
        SigningKey::from_slice(bytes).ok().map(Self)
    }

    /// Reads a key in PEM: a block `EC PRIVATE KEY`, as [`AuthorityKey::to_pem`] and OpenSSL write it.
    ///
    /// # Errors
    /// [`IssueError::Key`].
    pub fn parse_pem(text: &str) -> Result<Self, IssueError> {
        let body = text.trim().strip_prefix(KEY_BEGIN).and_then(|rest| rest.strip_suffix(KEY_END));
        let body: String = body.ok_or(IssueError::Key)?.split_whitespace().collect();
        let bytes = STANDARD.decode(body).map_err(|_error| IssueError::Key)?;
        let read = EcPrivateKey::from_der(&bytes).map_err(|_error| IssueError::Key)?;
        if read.version != 1 || read.curve.is_some_and(|curve| curve != CURVE_P256) {
            return Err(IssueError::Key);
        }
        SigningKey::from_slice(read.key.as_bytes()).map(Self).map_err(|_opaque| IssueError::Key)
    }

    /// The key in PEM. Secret.
    ///
    /// # Errors
    /// [`IssueError::Form`], which no key causes.
    pub fn to_pem(&self) -> Result<String, IssueError> {
        let point = self.0.verifying_key().to_sec1_point(false);
        let form = EcPrivateKey {
            version: 1,
            key: OctetString::new(self.0.to_bytes().as_slice()).map_err(IssueError::Form)?,
            curve: Some(CURVE_P256),
            point: Some(BitString::from_bytes(point.as_bytes()).map_err(IssueError::Form)?),
        };
        let mut text = format!("{KEY_BEGIN}\n");
        for (position, character) in STANDARD.encode(form.to_der().map_err(IssueError::Form)?).chars().enumerate() {
            if position > 0 && position.is_multiple_of(64) {
                text.push('\n');
            }
            text.push(character);
        }
        text.push_str(&format!("\n{KEY_END}\n"));
        Ok(text)
    }

    /// From which the secrets of this authority's challenges follow, so that it remembers none.
    #[must_use]
    pub fn secrets(&self) -> [u8; 32] {
        let mut block = [0; 64];
        block.iter_mut().zip(self.0.to_bytes()).for_each(|(to, from)| *to = from);
        let mac = <Hmac<Sha256> as hmac::KeyInit>::new(&block.into());
        mac.chain_update("affiant/enroll/secrets/v1").finalize().into_bytes().into()
    }

    /// The key itself, for [`authority`] and [`attestation_key`].
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.0
    }
}

/// Makes the certificate of an authority that certifies attestation keys, and no other authority.
///
/// # Errors
/// [`IssueError`].
pub fn authority(
    key: &SigningKey,
    name: &str,
    serial: &[u8; 16],
    lifetime: Lifetime,
) -> Result<Certificate, IssueError> {
    let name = common_name(name).map_err(IssueError::Form)?;
    let point = key.verifying_key().to_sec1_point(false);
    let extensions = vec![
        basic_constraints(true, Some(0))?,
        key_usage(KeyUsages::KeyCertSign | KeyUsages::CRLSign)?,
        extension(SUBJECT_KEY_ID, false, &key_id(point.as_bytes())?)?,
    ];
    let draft = Draft { issuer: name.clone(), subject: name, point: point.as_bytes().to_vec(), lifetime, extensions };
    finish(draft.sign(key, serial)?)
}

/// Makes the certificate of an attestation key, tied to a log.
///
/// # Errors
/// [`IssueError`].
pub fn attestation_key(
    key: &SigningKey,
    authority: &Certificate,
    ak: &VerifyingKey,
    tie: &Tie,
    serial: &[u8; 16],
    lifetime: Lifetime,
) -> Result<Certificate, IssueError> {
    if *authority.key() != SubjectKey::P256(*key.verifying_key()) {
        return Err(IssueError::OtherKey);
    }
    let point = ak.to_sec1_point(false).as_bytes().to_vec();
    let name = common_name(&tie.origin).map_err(IssueError::Form)?;
    let mut extensions = vec![
        basic_constraints(false, None)?,
        key_usage(KeyUsages::DigitalSignature.into())?,
        extension(EXTENDED_KEY_USAGE, false, &ExtendedKeyUsage(vec![PURPOSE_ATTESTATION]))?,
        extension(SUBJECT_ALT_NAME, false, &SubjectAltName(vec![GeneralName::DirectoryName(name.clone())]))?,
        extension(SUBJECT_KEY_ID, false, &key_id(&point)?)?,
    ];
    if let Some(id) = authority.key_id() {
        let id = OctetString::new(id).map_err(IssueError::Form)?;
        let above = AuthorityKeyIdentifier { key_identifier: Some(id), ..AuthorityKeyIdentifier::default() };
        extensions.push(extension(AUTHORITY_KEY_ID, false, &above)?);
    }
    extensions.push(Extension {
        extn_id: ENROLMENT,
        // Readers that do not know it may still use the certificate for what X.509 says of the key.
        critical: false,
        extn_value: OctetString::new(tie.to_der().map_err(IssueError::Tie)?).map_err(IssueError::Form)?,
    });
    let draft = Draft { issuer: authority.subject().clone(), subject: name, point, lifetime, extensions };
    finish(draft.sign(key, serial)?)
}

/// Everything that is made is read back: what this crate would refuse must not leave it.
fn finish(bytes: Vec<u8>) -> Result<Certificate, IssueError> {
    Certificate::parse(&bytes).map_err(IssueError::Refused)
}

/// A certificate before it is signed.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) issuer: Name,
    pub(crate) subject: Name,
    /// The key: an uncompressed point of P-256.
    pub(crate) point: Vec<u8>,
    pub(crate) lifetime: Lifetime,
    pub(crate) extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct SignedPart {
    #[asn1(context_specific = "0")]
    version: u8,
    serial: SerialNumber,
    algorithm: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity,
    subject: Name,
    key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3")]
    extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Whole {
    part: SignedPart,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

impl Draft {
    /// Signs it. The first bit of the serial number is cleared, since it has to be positive.
    pub(crate) fn sign(self, key: &SigningKey, serial: &[u8; 16]) -> Result<Vec<u8>, IssueError> {
        let algorithm = AlgorithmIdentifierOwned { oid: ECDSA_SHA256, parameters: None };
        let mut serial = *serial;
        if let Some(first) = serial.first_mut() {
            // Neither negative nor, by a zero at its beginning, of another length.
            *first = (*first & 0x7f) | 0x40;
        }
        let curve = Any::encode_from(&CURVE_P256).map_err(IssueError::Form)?;
        let part = SignedPart {
            version: 2,
            serial: SerialNumber::new(&serial).map_err(IssueError::Form)?,
            algorithm: algorithm.clone(),
            issuer: self.issuer,
            validity: Validity::new(time(self.lifetime.from)?, time(self.lifetime.until)?),
            subject: self.subject,
            key: SubjectPublicKeyInfoOwned {
                algorithm: AlgorithmIdentifierOwned { oid: EC_KEY, parameters: Some(curve) },
                subject_public_key: BitString::from_bytes(&self.point).map_err(IssueError::Form)?,
            },
            extensions: self.extensions,
        };
        let signature: p256::ecdsa::Signature = key.sign(&part.to_der().map_err(IssueError::Form)?);
        let signature = BitString::from_bytes(signature.to_der().as_bytes()).map_err(IssueError::Form)?;
        Whole { part, algorithm, signature }.to_der().map_err(IssueError::Form)
    }
}

fn time(seconds: u64) -> Result<Time, IssueError> {
    let seconds = Duration::from_secs(seconds.min(TIME_MAX));
    der::DateTime::from_unix_duration(seconds).map(Time::from).map_err(IssueError::Form)
}

/// A name that is one common name.
pub(crate) fn common_name(text: &str) -> Result<Name, der::Error> {
    let value = Any::encode_from(&Utf8StringRef::new(text)?)?;
    let mut names = RdnSequence::default();
    names.push(RelativeDistinguishedName::try_from(vec![AttributeTypeAndValue { oid: COMMON_NAME, value }])?);
    Name::from_der(&names.to_der()?)
}

pub(crate) fn extension<T: der::Encode>(
    oid: ObjectIdentifier,
    critical: bool,
    content: &T,
) -> Result<Extension, IssueError> {
    let content = content.to_der().map_err(IssueError::Form)?;
    Ok(Extension { extn_id: oid, critical, extn_value: OctetString::new(content).map_err(IssueError::Form)? })
}

pub(crate) fn basic_constraints(ca: bool, path_len_constraint: Option<u8>) -> Result<Extension, IssueError> {
    extension(BASIC_CONSTRAINTS, true, &BasicConstraints { ca, path_len_constraint })
}

pub(crate) fn key_usage(usages: der::flagset::FlagSet<KeyUsages>) -> Result<Extension, IssueError> {
    extension(KEY_USAGE, true, &KeyUsage(usages))
}

/// An identifier of a key: the first 160 bits of its SHA-256 (RFC 7093 section 2, method 1).
fn key_id(point: &[u8]) -> Result<OctetString, IssueError> {
    let digest = Sha256::digest(point);
    OctetString::new(digest.get(..20).unwrap_or_default()).map_err(IssueError::Form)
}
