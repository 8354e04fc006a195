//! One X.509 certificate (RFC 5280): read strictly, and its signature judged with an issuer's key.
//!
//! Owns which forms, algorithms and extensions are understood; not whom to believe (`path`) nor what a certificate is
//! for (`super`). Invariant: a [`Certificate`] is the one DER encoding of what was read, has no critical extension that
//! is not understood, and no signature on it has been checked.

#![forbid(unsafe_code)]

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::{ObjectIdentifier, OctetString, UintRef};
use der::{Decode as _, Encode as _, Sequence};
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use sha2::{Digest as _, Sha256, Sha384};
use x509_cert::ext::pkix::name::GeneralNames;
use x509_cert::ext::pkix::{BasicConstraints, CertificatePolicies, ExtendedKeyUsage, KeyUsage, SubjectAltName};
use x509_cert::name::Name;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::rsa::{RsaError, RsaHash, RsaKey};
use crate::record::WallTime;

/// Largest certificate that is read, in bytes. Certificates of endorsement keys have one to two thousand.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// Most extensions of a certificate.
pub const EXTENSIONS_MAX: usize = 32;
/// Largest text with certificates in PEM that is read, in bytes.
pub const PEM_BYTES_MAX: usize = 1 << 20;

pub(super) const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
pub(super) const EC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(super) const CURVE_P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const CURVE_P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

pub(super) const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
pub(super) const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
pub(super) const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
pub(super) const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
pub(super) const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
/// Understood in so far as that nothing here depends on them: the issuer key's identifier, where to find other
/// certificates and revocations (neither is fetched), attributes of the subject.
const WITHOUT_EFFECT: &[ObjectIdentifier] = &[
    ObjectIdentifier::new_unwrap("2.5.29.35"),
    ObjectIdentifier::new_unwrap("2.5.29.31"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.1"),
    ObjectIdentifier::new_unwrap("2.5.29.9"),
];

/// Why bytes are not a certificate that is understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Larger than is read.
    #[error("a certificate of {seen} bytes, at most {CERTIFICATE_BYTES_MAX} are read")]
    TooLarge {
        /// Its bytes.
        seen: usize,
    },
    /// Not DER, or not a certificate.
    #[error("not an X.509 certificate in DER")]
    Form(#[source] der::Error),
    /// Readable, and not in the one encoding that DER has for it.
    #[error("a certificate that is not in DER's one encoding of it")]
    NotCanonical,
    /// Of another version than 3.
    #[error("a certificate of X.509 version {seen}, expected 3")]
    Version {
        /// The version.
        seen: u8,
    },
    /// The algorithm inside the signed part is another than beside it.
    #[error("a certificate that names two signature algorithms, {inside} inside and {beside} beside the signed part")]
    TwoAlgorithms {
        /// Inside.
        inside: String,
        /// Beside.
        beside: String,
    },
    /// An algorithm of signatures that is not accepted.
    #[error(
        "the signature algorithm {oid} with these parameters; expected ECDSA or RSA (PKCS#1 v1.5), SHA-256 or SHA-384"
    )]
    Algorithm {
        /// Its object identifier.
        oid: String,
    },
    /// A key that is not of an accepted sort.
    #[error("a public key of the sort {oid}; expected RSA, or a point of P-256 or P-384")]
    KeySort {
        /// The object identifier of its algorithm or curve.
        oid: String,
    },
    /// A key of an accepted sort that is none.
    #[error("a public key that is no point of its curve in uncompressed form")]
    Point,
    /// An RSA key that is refused.
    #[error("a public key that is refused")]
    Rsa(#[source] RsaError),
    /// A subject that nothing names.
    #[error("a certificate without the name of its issuer")]
    NoIssuer,
    /// More extensions than are read.
    #[error("a certificate with {seen} extensions, at most {EXTENSIONS_MAX} are read")]
    TooManyExtensions {
        /// How many.
        seen: usize,
    },
    /// An extension twice.
    #[error("a certificate with the extension {oid} twice")]
    ExtensionRepeated {
        /// Its object identifier.
        oid: String,
    },
    /// An extension whose content is not what it must be.
    #[error("a certificate whose extension {oid} is malformed")]
    Extension {
        /// Its object identifier.
        oid: String,
        /// What is wrong with it.
        #[source]
        source: der::Error,
    },
    /// An extension that must be understood and is not.
    #[error("a certificate with the critical extension {oid}, which is not understood")]
    CriticalUnknown {
        /// Its object identifier.
        oid: String,
    },
    /// Constraints on names, which are not judged.
    #[error("a certificate with constraints on names, which are not judged")]
    NameConstraints,
    /// It ends before it begins.
    #[error("a certificate that ends before it begins")]
    Backwards,
    /// A text that is not PEM.
    #[error("line {line} of a PEM text: {expected}")]
    Pem {
        /// Which line, from 1.
        line: usize,
        /// What was expected.
        expected: &'static str,
    },
    /// A PEM text that is larger than is read.
    #[error("a PEM text of {seen} bytes, at most {PEM_BYTES_MAX} are read")]
    PemTooLarge {
        /// Its bytes.
        seen: usize,
    },
}

/// Why a signature on a certificate is not one of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The algorithm is of another sort than the issuer's key.
    #[error("the signature's algorithm is not one for the issuer's sort of key")]
    Sort,
    /// No signature of this key.
    #[error("the signature is not the issuer's")]
    Wrong,
    /// No signature of this RSA key.
    #[error("the signature is not the issuer's")]
    Rsa(#[source] RsaError),
}

/// A public key of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectKey {
    /// A point of P-256.
    P256(p256::ecdsa::VerifyingKey),
    /// A point of P-384.
    P384(p384::ecdsa::VerifyingKey),
    /// An RSA key.
    Rsa(RsaKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    EcdsaSha256,
    EcdsaSha384,
    RsaSha256,
    RsaSha384,
}

/// One certificate as it was read; nothing about it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    /// The part that the signature is over.
    signed: Vec<u8>,
    subject: Name,
    issuer: Name,
    /// Seconds since 1970.
    not_before: u64,
    not_after: u64,
    key: SubjectKey,
    /// The whole SubjectPublicKeyInfo.
    key_info: Vec<u8>,
    algorithm: Algorithm,
    signature: Vec<u8>,
    authority: Option<Authority>,
    usage: Option<KeyUsage>,
    extended_usage: Vec<ObjectIdentifier>,
    /// The extension with the policies, read when it is asked for.
    policies: Option<Vec<u8>>,
    alt_names: Option<Vec<u8>>,
    key_id: Option<Vec<u8>>,
    /// Extensions that are not critical and not understood here.
    others: Vec<(ObjectIdentifier, Vec<u8>)>,
}

/// A certificate that may stand above others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority {
    /// How many authorities may stand between it and the key's own certificate; absent: any number.
    pub below_max: Option<u8>,
}

/// `RSAPublicKey` of RFC 8017.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

impl Certificate {
    /// Reads one certificate in DER.
    ///
    /// # Errors
    /// [`CertificateError`] names the rule that it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::TooLarge { seen: bytes.len() });
        }
        let read = x509_cert::Certificate::from_der(bytes).map_err(CertificateError::Form)?;
        // The parser is strict; this is what makes sure of it, and that what was signed is what was understood.
        if read.to_der().map_err(CertificateError::Form)? != bytes {
            return Err(CertificateError::NotCanonical);
        }
        let inner = read.tbs_certificate();
        if inner.version() != x509_cert::Version::V3 {
            return Err(CertificateError::Version { seen: (inner.version() as u8).saturating_add(1) });
        }
        let beside = read.signature_algorithm();
        if inner.signature() != beside {
            return Err(CertificateError::TwoAlgorithms {
                inside: inner.signature().oid.to_string(),
                beside: beside.oid.to_string(),
            });
        }
        if inner.issuer().is_empty() {
            return Err(CertificateError::NoIssuer);
        }
        let validity = inner.validity();
        let not_before = validity.not_before.to_unix_duration().as_secs();
        let not_after = validity.not_after.to_unix_duration().as_secs();
        if not_after < not_before {
            return Err(CertificateError::Backwards);
        }
        let signature = read.signature().as_bytes().ok_or(CertificateError::NotCanonical)?.to_vec();
        let info = inner.subject_public_key_info();
        let mut certificate = Self {
            der: bytes.to_vec(),
            signed: inner.to_der().map_err(CertificateError::Form)?,
            subject: inner.subject().clone(),
            issuer: inner.issuer().clone(),
            not_before,
            not_after,
            key: subject_key(info)?,
            key_info: info.to_der().map_err(CertificateError::Form)?,
            algorithm: algorithm(beside)?,
            signature,
            authority: None,
            usage: None,
            extended_usage: Vec::new(),
            policies: None,
            alt_names: None,
            key_id: None,
            others: Vec::new(),
        };
        certificate.read_extensions(inner.extensions().map_or(&[], Vec::as_slice))?;
        Ok(certificate)
    }

    /// Reads every certificate of a PEM text (RFC 7468). What stands outside the blocks is a comment, and blocks of
    /// another sort are refused: a private key has no business among certificates.
    ///
    /// # Errors
    /// [`CertificateError::Pem`] where it is none, and as [`Certificate::parse`].
    pub fn parse_pem(text: &str) -> Result<Vec<Self>, CertificateError> {
        if text.len() > PEM_BYTES_MAX {
            return Err(CertificateError::PemTooLarge { seen: text.len() });
        }
        let mut found = Vec::new();
        let mut open: Option<String> = None;
        let mut line_number = 0;
        for (line, content) in (1..).zip(text.lines()) {
            let refuse = |expected| CertificateError::Pem { line, expected };
            line_number = line;
            let content = content.trim_end();
            match &mut open {
                None if content == "-----BEGIN CERTIFICATE-----" => open = Some(String::new()),
                None if content.starts_with("-----") => return Err(refuse("expected only blocks of CERTIFICATE")),
                None => {}
                Some(body) if content == "-----END CERTIFICATE-----" => {
                    let bytes =
                        STANDARD.decode(&*body).map_err(|_error| refuse("expected base64 in the block above"))?;
                    found.push(Self::parse(&bytes)?);
                    open = None;
                }
                Some(body) => {
                    if body.len() > CERTIFICATE_BYTES_MAX * 2 {
                        return Err(CertificateError::TooLarge { seen: body.len() / 4 * 3 });
                    }
                    body.push_str(content);
                }
            }
        }
        if open.is_some() {
            return Err(CertificateError::Pem { line: line_number, expected: "expected an end of the certificate" });
        }
        Ok(found)
    }

    /// The certificate as PEM, 64 characters a line.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let body = STANDARD.encode(&self.der);
        let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
        for (position, character) in body.chars().enumerate() {
            if position > 0 && position.is_multiple_of(64) {
                text.push('\n');
            }
            text.push(character);
        }
        text.push_str("\n-----END CERTIFICATE-----\n");
        text
    }

    /// Its bytes, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whom it is for. It may be empty.
    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// Who issued it, as it says.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        &self.issuer
    }

    /// The key that it is about.
    #[must_use]
    pub fn key(&self) -> &SubjectKey {
        &self.key
    }

    /// That key with its algorithm, in DER (SubjectPublicKeyInfo).
    #[must_use]
    pub fn key_info(&self) -> &[u8] {
        &self.key_info
    }

    /// Whether it may stand above others.
    #[must_use]
    pub fn authority(&self) -> Option<Authority> {
        self.authority
    }

    /// What the key is for, if it says.
    #[must_use]
    pub fn usage(&self) -> Option<KeyUsage> {
        self.usage
    }

    /// Purposes of the key.
    #[must_use]
    pub fn has_purpose(&self, purpose: &ObjectIdentifier) -> bool {
        self.extended_usage.contains(purpose)
    }

    /// Whether it was issued under a policy. A path needs none.
    #[must_use]
    pub fn has_policy(&self, policy: &ObjectIdentifier) -> bool {
        let policies = self.policies.as_deref().and_then(|content| CertificatePolicies::from_der(content).ok());
        policies.is_some_and(|policies| policies.0.iter().any(|own| own.policy_identifier == *policy))
    }

    /// The identifier that it gives its key, if any: a hint for whoever searches for issuers.
    #[must_use]
    pub fn key_id(&self) -> Option<&[u8]> {
        self.key_id.as_deref()
    }

    /// Other names of its subject.
    ///
    /// # Errors
    /// [`CertificateError::Extension`] when they are malformed. Not read before they are asked for, because names of
    /// sorts that nobody asks for are none of our business.
    pub fn alt_names(&self) -> Result<GeneralNames, CertificateError> {
        match &self.alt_names {
            None => Ok(GeneralNames::new()),
            Some(bytes) => extension::<SubjectAltName>(&SUBJECT_ALT_NAME, bytes).map(|names| names.0),
        }
    }

    /// The content of an extension that is not one of X.509's own.
    #[must_use]
    pub fn extension(&self, oid: &ObjectIdentifier) -> Option<&[u8]> {
        self.others.iter().find(|(own, _)| own == oid).map(|(_, content)| content.as_slice())
    }

    /// First and last second of its validity, in seconds since 1970.
    #[must_use]
    pub fn validity(&self) -> (u64, u64) {
        (self.not_before, self.not_after)
    }

    /// Whether it was valid at a time, which is whatever the caller believes it to be.
    #[must_use]
    pub fn is_valid_at(&self, time: WallTime) -> bool {
        (self.not_before..=self.not_after).contains(&(time.0 / 1_000_000_000))
    }

    /// Whether this key made the signature on it.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify_signature(&self, issuer: &SubjectKey) -> Result<(), SignatureError> {
        let message = self.signed.as_slice();
        match (issuer, self.algorithm) {
            (SubjectKey::P256(key), Algorithm::EcdsaSha256 | Algorithm::EcdsaSha384) => {
                let signature =
                    p256::ecdsa::Signature::from_der(&self.signature).map_err(|_opaque| SignatureError::Wrong)?;
                key.verify_prehash(&self.digest(message), &signature).map_err(|_opaque| SignatureError::Wrong)
            }
            (SubjectKey::P384(key), Algorithm::EcdsaSha256 | Algorithm::EcdsaSha384) => {
                let signature =
                    p384::ecdsa::Signature::from_der(&self.signature).map_err(|_opaque| SignatureError::Wrong)?;
                key.verify_prehash(&self.digest(message), &signature).map_err(|_opaque| SignatureError::Wrong)
            }
            (SubjectKey::Rsa(key), Algorithm::RsaSha256) => {
                key.verify(RsaHash::Sha256, message, &self.signature).map_err(SignatureError::Rsa)
            }
            (SubjectKey::Rsa(key), Algorithm::RsaSha384) => {
                key.verify(RsaHash::Sha384, message, &self.signature).map_err(SignatureError::Rsa)
            }
            _ => Err(SignatureError::Sort),
        }
    }

    fn digest(&self, message: &[u8]) -> Vec<u8> {
        match self.algorithm {
            Algorithm::EcdsaSha256 | Algorithm::RsaSha256 => Sha256::digest(message).to_vec(),
            Algorithm::EcdsaSha384 | Algorithm::RsaSha384 => Sha384::digest(message).to_vec(),
        }
    }

    fn read_extensions(&mut self, extensions: &[x509_cert::ext::Extension]) -> Result<(), CertificateError> {
        if extensions.len() > EXTENSIONS_MAX {
            return Err(CertificateError::TooManyExtensions { seen: extensions.len() });
        }
        let mut seen: Vec<ObjectIdentifier> = Vec::with_capacity(extensions.len());
        for found in extensions {
            let oid = found.extn_id;
            if seen.contains(&oid) {
                return Err(CertificateError::ExtensionRepeated { oid: oid.to_string() });
            }
            seen.push(oid);
            let content = found.extn_value.as_bytes();
            match oid {
                BASIC_CONSTRAINTS => {
                    let basic = extension::<BasicConstraints>(&oid, content)?;
                    self.authority = basic.ca.then_some(Authority { below_max: basic.path_len_constraint });
                }
                KEY_USAGE => self.usage = Some(extension::<KeyUsage>(&oid, content)?),
                EXTENDED_KEY_USAGE => self.extended_usage = extension::<ExtendedKeyUsage>(&oid, content)?.0,
                SUBJECT_ALT_NAME => self.alt_names = Some(content.to_vec()),
                POLICIES => self.policies = Some(content.to_vec()),
                SUBJECT_KEY_ID => self.key_id = Some(extension::<OctetString>(&oid, content)?.into_bytes().into_vec()),
                NAME_CONSTRAINTS => return Err(CertificateError::NameConstraints),
                known if WITHOUT_EFFECT.contains(&known) => {}
                unknown if found.critical => {
                    return Err(CertificateError::CriticalUnknown { oid: unknown.to_string() });
                }
                other => self.others.push((other, content.to_vec())),
            }
        }
        Ok(())
    }
}

impl fmt::Display for Certificate {
    /// Its subject, or what it is when that is empty.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subject.is_empty() {
            return write!(formatter, "(no name)");
        }
        formatter.write_str(&super::path::display(&self.subject))
    }
}

/// The content of an extension in its one encoding.
fn extension<'a, T: der::Decode<'a, Error = der::Error> + der::Encode>(
    oid: &ObjectIdentifier,
    content: &'a [u8],
) -> Result<T, CertificateError> {
    let refuse = |source| CertificateError::Extension { oid: oid.to_string(), source };
    let read = T::from_der(content).map_err(refuse)?;
    if read.to_der().map_err(refuse)? != content {
        return Err(refuse(der::ErrorKind::Noncanonical { tag: der::Tag::OctetString }.to_error()));
    }
    Ok(read)
}

fn algorithm(identifier: &AlgorithmIdentifierOwned) -> Result<Algorithm, CertificateError> {
    let refuse = || CertificateError::Algorithm { oid: identifier.oid.to_string() };
    let absent = identifier.parameters.is_none();
    let null = identifier.parameters.as_ref().is_some_and(der::Any::is_null);
    match identifier.oid {
        ECDSA_SHA256 if absent => Ok(Algorithm::EcdsaSha256),
        ECDSA_SHA384 if absent => Ok(Algorithm::EcdsaSha384),
        RSA_SHA256 if null => Ok(Algorithm::RsaSha256),
        RSA_SHA384 if null => Ok(Algorithm::RsaSha384),
        _ => Err(refuse()),
    }
}

fn subject_key(info: &SubjectPublicKeyInfoOwned) -> Result<SubjectKey, CertificateError> {
    let bytes = info.subject_public_key.as_bytes().ok_or(CertificateError::Point)?;
    match info.algorithm.oid {
        EC_KEY => {
            let parameters = info.algorithm.parameters.as_ref();
            let curve = parameters.and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
            // The first byte: uncompressed, the only form that is not a second spelling of the same key.
            let uncompressed = bytes.first() == Some(&0x04);
            match curve {
                Some(CURVE_P256) if uncompressed => p256::ecdsa::VerifyingKey::from_sec1_bytes(bytes)
                    .map(SubjectKey::P256)
                    .map_err(|_opaque| CertificateError::Point),
                Some(CURVE_P384) if uncompressed => p384::ecdsa::VerifyingKey::from_sec1_bytes(bytes)
                    .map(SubjectKey::P384)
                    .map_err(|_opaque| CertificateError::Point),
                Some(CURVE_P256 | CURVE_P384) => Err(CertificateError::Point),
                Some(other) => Err(CertificateError::KeySort { oid: other.to_string() }),
                None => Err(CertificateError::KeySort { oid: EC_KEY.to_string() }),
            }
        }
        RSA_KEY => {
            if !info.algorithm.parameters.as_ref().is_some_and(der::Any::is_null) {
                return Err(CertificateError::KeySort { oid: RSA_KEY.to_string() });
            }
            let key = RsaPublicKey::from_der(bytes).map_err(CertificateError::Form)?;
            let exponent = key.exponent.as_bytes();
            let exponent = exponent
                .iter()
                .try_fold(0_u32, |value, byte| value.checked_mul(256).map(|shifted| shifted | u32::from(*byte)));
            // One that has more than 32 bits is as unheard of as a small one.
            RsaKey::new(key.modulus.as_bytes(), exponent.unwrap_or(0))
                .map(SubjectKey::Rsa)
                .map_err(CertificateError::Rsa)
        }
        other => Err(CertificateError::KeySort { oid: other.to_string() }),
    }
}
