//! Who vouches for an attestation key, and for what.
//!
//! Two questions that are answered apart: *who* says that the key is a TPM's (a root that the trust file names, and as
//! what it names it), and whether the *endorsement key* of that TPM is certified by its vendor. Owns the profiles of
//! certificates and the extension by which an authority ties a key to one log; `x509` and `path` own what a certificate
//! is and whom it leads to.
//!
//! Invariant: a [`Vouched`] exists only where a certificate about exactly this key leads to a root that is believed,
//! and says no more than that root may say. A key that the site's authority certified is on the site's word, whatever
//! the certificate claims: [`Vouched::tier`] cannot give it more than T1.

#![forbid(unsafe_code)]

pub mod issue;
pub mod path;
pub mod rsa;
pub mod vendor;
pub mod x509;

#[cfg(test)]
mod tests;

use der::asn1::{ObjectIdentifier, OctetString, Utf8StringRef};
use der::{Decode as _, Encode as _, Sequence};
use sha2::{Digest as _, Sha256};
use x509_cert::ext::pkix::name::GeneralName;

use crate::attest::key::Ak;
use crate::record::{Digest, KeyTier, LeafHash, PublicKey, WallTime};

use self::path::{PathError, RootClass, RootError, Roots, follow, read_chain};
use self::vendor::{CertifyError, KeyCertification};
use self::x509::{Certificate, CertificateError, SubjectKey};

/// Purpose of certificates of attestation keys: tcg-kp-AIKCertificate.
pub const PURPOSE_ATTESTATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.3");
/// Purpose of certificates of endorsement keys: tcg-kp-EKCertificate.
pub const PURPOSE_ENDORSEMENT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
/// Our extension, which ties an attestation key to one log. The arc is the one that Microsoft gives to everybody: below
/// it stands a random UUID, here b5d7263a-30cb-4201-ae99-94b8198538c6, in parts of 16 and 24 bits. (2.25 would take the
/// UUID whole, but many readers of certificates, ours too, know no arc of more than 32 bits.)
pub const ENROLMENT: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113556.1.8000.2554.46551.9786.12491.16897.44697.9746457.8730822");
/// Version of the extension's content.
pub const ENROLMENT_VERSION: u8 = 1;
/// Longest name of a TPM object, in bytes: an algorithm and a SHA-512.
pub const NAME_BYTES_MAX: usize = 66;

/// Why nobody vouches for a key, or not for this one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertError {
    /// The certificates do not lead to a root that is believed.
    #[error("the certificates of the attestation key lead to no root that is believed")]
    Path(#[source] PathError),
    /// A certificate of another key.
    #[error("the certificate is of another key than the attestation key")]
    OtherKey,
    /// A certificate of an authority in the place of a key's own.
    #[error("the certificate of the attestation key is an authority's")]
    Authority,
    /// The key is not for signatures, by its certificate.
    #[error("the certificate of the attestation key does not say that it is for signatures")]
    Usage,
    /// The purpose of attestation keys is not among those of the certificate.
    #[error("the certificate is not one of an attestation key: it lacks the purpose {PURPOSE_ATTESTATION}")]
    Purpose,
    /// The certificate of an authority that does not say which log the key is for.
    #[error("the certificate does not say which log the key is for: it lacks the extension {ENROLMENT}")]
    NotTied,
    /// Our extension is malformed.
    #[error("the extension that ties the key to a log is malformed")]
    Tie(#[source] TieError),
    /// The other name of the subject is not the log's.
    #[error("the certificate names {seen:?} as its subject, and ties the key to the log {origin:?}")]
    Subject {
        /// What it names.
        seen: String,
        /// The origin in its extension.
        origin: String,
    },
    /// The names of the subject cannot be read.
    #[error("the names in the certificate of the attestation key are malformed")]
    Names(#[source] CertificateError),
    /// It is tied to a key of another name: the same point with other attributes, or another key.
    #[error("the certificate is for an attestation key of another TPM name")]
    OtherName,
    /// It is tied to another log, by its name.
    #[error("the certificate ties the key to the log {seen:?}, this one is {expected:?}")]
    OtherOrigin {
        /// In the certificate.
        seen: String,
        /// This log's.
        expected: String,
    },
    /// It is tied to another log, by what differs.
    #[error("the certificate ties the key to a log with another {what}")]
    OtherLog {
        /// What differs.
        what: &'static str,
    },
    /// The certificate shown for the endorsement key is not the one that the authority saw.
    #[error("the certificate shown for the endorsement key is not the one that the authority saw")]
    OtherEndorsement,
    /// A certification by another key of the TPM under a root that is none of a vendor.
    #[error("another key of the TPM certifies the attestation key, and leads to {class} and not to a vendor's")]
    NotVendor {
        /// As what the root is believed.
        class: RootClass,
    },
    /// The certification by another key of the TPM says nothing of this key.
    #[error("the certification by another key of the TPM is refused")]
    Certify(#[source] CertifyError),
    /// A certificate of an endorsement key that is not one.
    #[error("the certificate of the endorsement key is not one: {0}")]
    Endorsement(&'static str),
}

/// Why the content of our extension is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TieError {
    /// Not DER of this form.
    #[error("not of the form that is expected")]
    Form(#[source] der::Error),
    /// A second encoding of the same.
    #[error("not in DER's one encoding")]
    NotCanonical,
    /// Another version.
    #[error("version {seen}, this program knows {ENROLMENT_VERSION}")]
    Version {
        /// The version.
        seen: u64,
    },
    /// A value of another size.
    #[error("{what} of {seen} bytes, expected {expected}")]
    Size {
        /// Which value.
        what: &'static str,
        /// Its bytes.
        seen: usize,
        /// What is expected.
        expected: &'static str,
    },
    /// A number that is too large.
    #[error("{what} is too large")]
    Number {
        /// Which number.
        what: &'static str,
    },
}

/// The NV counter of a host when its key was enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterPin {
    /// Its TPM name, which holds its attributes.
    pub name: Vec<u8>,
    /// Its value.
    pub value: u64,
}

/// What an authority ties an attestation key to: the content of our extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tie {
    /// Name of the log.
    pub origin: String,
    /// Its key.
    pub log_key: PublicKey,
    /// Leaf hash of its entry 0.
    pub genesis: LeafHash,
    /// Public key of its first epoch.
    pub first_epoch_key: PublicKey,
    /// The NV counter, where the host has one.
    pub counter: Option<CounterPin>,
    /// Resets of the TPM at enrolment.
    pub reset_count: u32,
    /// Restarts of the TPM since that reset.
    pub restart_count: u32,
    /// Clock of the TPM at enrolment, in milliseconds.
    pub clock_ms: u64,
    /// TPM name of the attestation key, which holds its attributes.
    pub ak_name: Vec<u8>,
    /// TPM name of the endorsement key that the credential was for.
    pub ek_name: Vec<u8>,
    /// SHA-256 of the endorsement key's certificate, where one led to a vendor's root that the authority believes.
    pub ek_certificate: Option<Digest>,
    /// SHA-256 of the request that the authority answered.
    pub request: Digest,
}

/// How a log begins: what a certificate's [`Tie`] is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning<'a> {
    /// Name of the log.
    pub origin: &'a str,
    /// Its key.
    pub log_key: PublicKey,
    /// Leaf hash of its entry 0.
    pub genesis: LeafHash,
    /// Public key of its first epoch.
    pub first_epoch_key: PublicKey,
    /// TPM name of its NV counter, where it has one.
    pub counter_name: Option<&'a [u8]>,
}

/// What a log shows for its attestation key. Untrusted.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a, B> {
    /// The key, as its public area has it.
    pub ak: &'a Ak,
    /// Its certificate and those above, in that order, in DER; or a [`KeyCertification`] and those of the key that made
    /// it.
    pub certificates: &'a [B],
    /// The endorsement key's certificate and those above; empty where it has none.
    pub ek_certificates: &'a [B],
}

/// Roots that a trust file names. Trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustRoots {
    /// For attestation keys, each as what it is.
    pub keys: Roots,
    /// For endorsement keys.
    pub endorsement: Roots,
}

/// Why a trust file's roots are refused. Positions count from 0 in the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustRootsError {
    /// A text that is not one certificate in PEM.
    #[error("item {position} has {seen} certificates in PEM, expected one")]
    Count {
        /// Which.
        position: usize,
        /// How many it has.
        seen: usize,
    },
    /// A certificate that is not understood.
    #[error("item {position} is refused")]
    Certificate {
        /// Which.
        position: usize,
        /// Why.
        #[source]
        source: CertificateError,
    },
    /// A certificate that cannot be a root, or is one of another sort already.
    #[error("item {position} is refused")]
    Root {
        /// Which.
        position: usize,
        /// Why.
        #[source]
        source: RootError,
    },
}

impl TrustRoots {
    /// Believes the roots of one list of a trust file: texts with one certificate in PEM each.
    ///
    /// # Errors
    /// [`TrustRootsError`]. What was before the item that is refused is believed.
    pub fn add_pem<S: AsRef<str>>(&mut self, class: RootClass, list: &[S]) -> Result<(), TrustRootsError> {
        let known = if class == RootClass::Endorsement { &mut self.endorsement } else { &mut self.keys };
        for (position, text) in list.iter().enumerate() {
            let read = Certificate::parse_pem(text.as_ref())
                .map_err(|source| TrustRootsError::Certificate { position, source })?;
            let seen = read.len();
            let [root] =
                <[Certificate; 1]>::try_from(read).map_err(|_other_count| TrustRootsError::Count { position, seen })?;
            known.add(class, root).map_err(|source| TrustRootsError::Root { position, source })?;
        }
        Ok(())
    }
}

/// Who says that a key is a TPM's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VouchedBy {
    /// An authority of the site that operates the host.
    Site,
    /// An authority that the trust file calls independent of that site.
    Independent,
    /// The cloud provider.
    Cloud,
    /// The vendor of the machine or TPM.
    Vendor,
}

/// Whether the vendor of the TPM certified its endorsement key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endorsement {
    /// It did, and the certificate was followed to this root of the trust file.
    Certified {
        /// The root's subject.
        root: String,
    },
    /// The authority says so; what it saw was not checked here.
    Said(NotChecked),
    /// The authority says so, and the certificate that it saw leads to none of the trust file's roots.
    Contradicted(PathError),
    /// The authority says that no vendor's certificate was there, or that none led to a root it believes.
    Uncertified,
    /// Nothing is said about it: the voucher is not the site's or an independent authority.
    NotStated,
}

/// Why the endorsement key's certificate was not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotChecked {
    /// The trust file names no root for endorsement keys.
    NoRoots,
    /// It is not shown.
    NotShown,
}

/// Somebody who is believed vouches for exactly this key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Vouched {
    by: VouchedBy,
    root: String,
    endorsement: Endorsement,
    tie: Option<Tie>,
}

impl Vouched {
    fn without_tie(by: VouchedBy, root: &Certificate) -> Self {
        Self { by, root: root.to_string(), endorsement: Endorsement::NotStated, tie: None }
    }

    /// Who vouches.
    #[must_use]
    pub fn by(&self) -> VouchedBy {
        self.by
    }

    /// The root's subject, as its certificate has it.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Whether the endorsement key is certified.
    #[must_use]
    pub fn endorsement(&self) -> &Endorsement {
        &self.endorsement
    }

    /// What the key is tied to, where the voucher ties it to a log. Where it does not (cloud provider, vendor), only a
    /// trust file can say with what the log begins.
    #[must_use]
    pub fn tie(&self) -> Option<&Tie> {
        self.tie.as_ref()
    }

    /// The tier that this is worth.
    ///
    /// An independent authority that found no vendor's certificate vouches for a key in something that may be a TPM or
    /// a program that plays one: its word is then worth what the site's is.
    #[must_use]
    pub fn tier(&self) -> KeyTier {
        match self.by {
            VouchedBy::Vendor => KeyTier::T3,
            VouchedBy::Independent => match self.endorsement {
                Endorsement::Certified { .. } | Endorsement::Said(_) => KeyTier::T3,
                Endorsement::Contradicted(_) | Endorsement::Uncertified | Endorsement::NotStated => KeyTier::T1,
            },
            VouchedBy::Cloud => KeyTier::T2,
            VouchedBy::Site => KeyTier::T1,
        }
    }
}

impl std::fmt::Display for Vouched {
    /// One sentence without a full stop, for a verdict.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.endorsement {
            Endorsement::Certified { root } => write!(formatter, "EK vendor-certified ({root}); ")?,
            Endorsement::Said(NotChecked::NoRoots) => {
                write!(
                    formatter,
                    "EK vendor-certified as the authority says (the trust file names no roots for it); "
                )?;
            }
            Endorsement::Said(NotChecked::NotShown) => {
                write!(formatter, "EK vendor-certified as the authority says (its certificate is not shown); ")?;
            }
            Endorsement::Contradicted(_) => {
                write!(formatter, "EK vendor-certified as the authority says, but by no root of the trust file; ")?;
            }
            Endorsement::Uncertified => write!(formatter, "EK not vendor-certified; ")?,
            Endorsement::NotStated => {}
        }
        let root = &self.root;
        match self.by {
            VouchedBy::Site => write!(formatter, "AK bound on the word of the site's CA {root}"),
            VouchedBy::Independent => write!(formatter, "AK bound by the independent CA {root}"),
            VouchedBy::Cloud => write!(formatter, "AK certified by the cloud provider ({root})"),
            VouchedBy::Vendor => write!(formatter, "AK certified by the vendor ({root})"),
        }
    }
}

/// Who vouches for the attestation key of a log.
///
/// `at` is when the certificates must have been valid; a time that the log states, so that validity is on the log's
/// word. There is no revocation.
///
/// # Errors
/// [`CertError`] names the rule that is broken; nobody vouches then.
pub fn who_vouches<B: AsRef<[u8]>>(
    shown: &Shown<'_, B>,
    beginning: &Beginning<'_>,
    roots: &TrustRoots,
    at: WallTime,
) -> Result<Vouched, CertError> {
    // Another key of the TPM may stand between ours and the vendor.
    let (certification, certificates) = KeyCertification::split(shown.certificates).map_err(CertError::Certify)?;
    let chain = read_chain(certificates).map_err(CertError::Path)?;
    let path = follow(&chain, &roots.keys, at).map_err(CertError::Path)?;
    let leaf = path.leaf();
    if let Some(certification) = certification {
        if path.class() != RootClass::Vendor {
            return Err(CertError::NotVendor { class: path.class() });
        }
        may_attest(leaf)?;
        certification.verify(leaf, shown.ak)?;
        return Ok(Vouched::without_tie(VouchedBy::Vendor, path.root()));
    }
    if *leaf.key() != SubjectKey::P256(*shown.ak.point()) {
        return Err(CertError::OtherKey);
    }
    may_attest(leaf)?;
    let by = match path.class() {
        RootClass::Site => VouchedBy::Site,
        RootClass::Independent => VouchedBy::Independent,
        RootClass::Cloud => VouchedBy::Cloud,
        RootClass::Vendor => VouchedBy::Vendor,
        // A root for endorsement keys says nothing of attestation keys.
        RootClass::Endorsement => return Err(CertError::Purpose),
    };
    // Providers have profiles of their own; that the provider's root certified this key as one for signatures must do.
    if by != VouchedBy::Cloud && !leaf.has_purpose(&PURPOSE_ATTESTATION) {
        return Err(CertError::Purpose);
    }
    if matches!(by, VouchedBy::Cloud | VouchedBy::Vendor) {
        return Ok(Vouched::without_tie(by, path.root()));
    }
    let tie = read_tie(leaf)?;
    compare(&tie, shown.ak.name().as_bytes(), beginning)?;
    let endorsement = judge_endorsement(&tie, shown.ek_certificates, roots, at)?;
    Ok(Vouched { by, root: path.root().to_string(), endorsement, tie: Some(tie) })
}

/// A certificate's key must be one for signatures, and not an authority's.
fn may_attest(leaf: &Certificate) -> Result<(), CertError> {
    if leaf.authority().is_some() {
        return Err(CertError::Authority);
    }
    if !leaf.usage().is_some_and(|usage| usage.digital_signature() && !usage.key_cert_sign()) {
        return Err(CertError::Usage);
    }
    Ok(())
}

/// Follows the certificate of an endorsement key to a vendor's root: for an authority that answers a request, and for a
/// verifier. Returns the chain's first certificate and the root's subject.
///
/// # Errors
/// [`CertError::Path`], and [`CertError::Endorsement`] for a certificate that is of something else.
pub fn follow_endorsement(
    chain: &[Certificate],
    roots: &Roots,
    at: WallTime,
) -> Result<(SubjectKey, String), CertError> {
    let path = follow(chain, roots, at).map_err(CertError::Path)?;
    let leaf = path.leaf();
    if leaf.authority().is_some() {
        return Err(CertError::Endorsement("it is an authority's"));
    }
    if !leaf.has_purpose(&PURPOSE_ENDORSEMENT) {
        return Err(CertError::Endorsement("it lacks the purpose 2.23.133.8.1"));
    }
    let decrypts = |usage: x509_cert::ext::pkix::KeyUsage| match leaf.key() {
        SubjectKey::Rsa(_) => usage.key_encipherment(),
        SubjectKey::P256(_) | SubjectKey::P384(_) => usage.key_agreement(),
    };
    if !leaf.usage().is_some_and(|usage| decrypts(usage) && !usage.key_cert_sign()) {
        return Err(CertError::Endorsement("it does not say that the key is for decryption"));
    }
    Ok((leaf.key().clone(), path.root().to_string()))
}

/// The extension by which a certificate ties its key to a log, and the name of that log in its subject.
///
/// # Errors
/// [`CertError::NotTied`], [`CertError::Tie`], [`CertError::Names`], [`CertError::Subject`].
pub fn read_tie(certificate: &Certificate) -> Result<Tie, CertError> {
    let content = certificate.extension(&ENROLMENT).ok_or(CertError::NotTied)?;
    let tie = Tie::from_der(content).map_err(CertError::Tie)?;
    // People read the subject, programs the extension: they must not differ.
    let names = certificate.alt_names().map_err(CertError::Names)?;
    let named = match names.as_slice() {
        [GeneralName::DirectoryName(name)] => name.common_name().ok().flatten().map(String::from),
        _ => None,
    };
    if named.as_deref() != Some(tie.origin.as_str()) {
        return Err(CertError::Subject { seen: named.unwrap_or_default(), origin: tie.origin });
    }
    Ok(tie)
}

fn compare(tie: &Tie, ak_name: &[u8], beginning: &Beginning<'_>) -> Result<(), CertError> {
    if tie.ak_name != ak_name {
        return Err(CertError::OtherName);
    }
    if tie.origin != beginning.origin {
        return Err(CertError::OtherOrigin { seen: tie.origin.clone(), expected: beginning.origin.to_owned() });
    }
    let counter = tie.counter.as_ref().map(|counter| counter.name.as_slice());
    for (what, is_same) in [
        ("log key", tie.log_key == beginning.log_key),
        ("genesis", tie.genesis == beginning.genesis),
        ("first epoch key", tie.first_epoch_key == beginning.first_epoch_key),
        // A counter that was there at enrolment is there for good; one may be made later.
        ("NV counter", counter.is_none() || counter == beginning.counter_name),
    ] {
        if !is_same {
            return Err(CertError::OtherLog { what });
        }
    }
    Ok(())
}

fn judge_endorsement<B: AsRef<[u8]>>(
    tie: &Tie,
    shown: &[B],
    roots: &TrustRoots,
    at: WallTime,
) -> Result<Endorsement, CertError> {
    let Some(seen) = tie.ek_certificate else { return Ok(Endorsement::Uncertified) };
    let Some(own) = shown.first() else { return Ok(Endorsement::Said(NotChecked::NotShown)) };
    if Digest(Sha256::digest(own.as_ref()).into()) != seen {
        return Err(CertError::OtherEndorsement);
    }
    if roots.endorsement.is_empty() {
        return Ok(Endorsement::Said(NotChecked::NoRoots));
    }
    let chain = match read_chain(shown) {
        Ok(chain) => chain,
        Err(error) => return Ok(Endorsement::Contradicted(error)),
    };
    match follow_endorsement(&chain, &roots.endorsement, at) {
        Ok((_, root)) => Ok(Endorsement::Certified { root }),
        Err(CertError::Path(error)) => Ok(Endorsement::Contradicted(error)),
        Err(other) => Err(other),
    }
}

/// The extension's content; FORMAT.md has it in ASN.1.
#[derive(Sequence)]
struct TieDer<'a> {
    version: u8,
    origin: Utf8StringRef<'a>,
    log_key: OctetString,
    genesis: OctetString,
    first_epoch_key: OctetString,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    counter: Option<CounterDer>,
    reset_count: u32,
    restart_count: u32,
    clock: u64,
    ak_name: OctetString,
    ek_name: OctetString,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", optional = "true")]
    ek_certificate: Option<OctetString>,
    request: OctetString,
}

#[derive(Sequence)]
struct CounterDer {
    name: OctetString,
    value: u64,
}

impl Tie {
    /// Reads the content of the extension.
    ///
    /// # Errors
    /// [`TieError`].
    pub fn from_der(content: &[u8]) -> Result<Self, TieError> {
        let read = TieDer::from_der(content).map_err(TieError::Form)?;
        if read.to_der().map_err(TieError::Form)? != content {
            return Err(TieError::NotCanonical);
        }
        if read.version != ENROLMENT_VERSION {
            return Err(TieError::Version { seen: u64::from(read.version) });
        }
        let counter = read.counter.map(|counter| {
            Ok(CounterPin { name: name(counter.name.as_bytes(), "the counter's name")?, value: counter.value })
        });
        let ek_certificate = read.ek_certificate.map(|digest| hash(&digest, "the endorsement certificate's digest"));
        Ok(Self {
            origin: read.origin.as_str().to_owned(),
            log_key: PublicKey(hash(&read.log_key, "the log key")?),
            genesis: LeafHash(hash(&read.genesis, "the genesis")?),
            first_epoch_key: PublicKey(hash(&read.first_epoch_key, "the first epoch key")?),
            counter: counter.transpose()?,
            reset_count: read.reset_count,
            restart_count: read.restart_count,
            clock_ms: read.clock,
            ak_name: name(read.ak_name.as_bytes(), "the attestation key's name")?,
            ek_name: name(read.ek_name.as_bytes(), "the endorsement key's name")?,
            ek_certificate: ek_certificate.transpose()?.map(Digest),
            request: Digest(hash(&read.request, "the request's digest")?),
        })
    }

    /// The content of the extension.
    ///
    /// # Errors
    /// [`TieError::Form`] when a value is too long for DER, which none of a sensible size is.
    pub fn to_der(&self) -> Result<Vec<u8>, TieError> {
        let octets = |bytes: &[u8]| OctetString::new(bytes).map_err(TieError::Form);
        let counter = self.counter.as_ref();
        let counter = counter.map(|pin| Ok(CounterDer { name: octets(&pin.name)?, value: pin.value }));
        let content = TieDer {
            version: ENROLMENT_VERSION,
            origin: Utf8StringRef::new(&self.origin).map_err(TieError::Form)?,
            log_key: octets(&self.log_key.0)?,
            genesis: octets(&self.genesis.0)?,
            first_epoch_key: octets(&self.first_epoch_key.0)?,
            counter: counter.transpose()?,
            reset_count: self.reset_count,
            restart_count: self.restart_count,
            clock: self.clock_ms,
            ak_name: octets(&self.ak_name)?,
            ek_name: octets(&self.ek_name)?,
            ek_certificate: self.ek_certificate.map(|digest| octets(&digest.0)).transpose()?,
            request: octets(&self.request.0)?,
        };
        content.to_der().map_err(TieError::Form)
    }
}

fn hash(octets: &OctetString, what: &'static str) -> Result<[u8; 32], TieError> {
    let bytes = octets.as_bytes();
    bytes.try_into().map_err(|_length| TieError::Size { what, seen: bytes.len(), expected: "32" })
}

fn name(bytes: &[u8], what: &'static str) -> Result<Vec<u8>, TieError> {
    if (4..=NAME_BYTES_MAX).contains(&bytes.len()) {
        return Ok(bytes.to_vec());
    }
    Err(TieError::Size { what, seen: bytes.len(), expected: "4 to 66" })
}
