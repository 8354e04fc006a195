//! From a key's own certificate to a root that is believed.
//!
//! The certificates come in order: the key's own first, then each one's issuer; nothing is searched, fetched or left
//! out. What is judged is RFC 5280 section 6.1 without policies, constraints on names (certificates that have them are
//! refused) and revocation, which nobody can look up offline. Invariant: a [`Path`] exists only where every signature,
//! name, authority, length and validity from the key to the root was right.

#![forbid(unsafe_code)]

use super::x509::{Certificate, CertificateError, SignatureError};
use crate::record::WallTime;

/// Most certificates of one chain, the root included if it is shown.
pub const CHAIN_MAX: usize = 8;
/// Most roots that are believed at once: all vendors of TPMs together have some hundred.
pub const ROOTS_MAX: usize = 1024;

/// Why certificates do not lead to a root. Positions count from 0, the key's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// No certificate at all.
    #[error("there is no certificate")]
    Empty,
    /// More than are read.
    #[error("{seen} certificates, at most {CHAIN_MAX} are read")]
    TooLong {
        /// How many.
        seen: usize,
    },
    /// Bytes that are no certificate that is understood.
    #[error("certificate {position} is refused")]
    Certificate {
        /// Which.
        position: usize,
        /// Why.
        #[source]
        source: CertificateError,
    },
    /// The last one's issuer is no root that is believed.
    #[error("certificate {position} is issued by {issuer:?}, which is neither shown nor a root that is believed")]
    NoRoot {
        /// The last one.
        position: usize,
        /// Its issuer.
        issuer: String,
    },
    /// The next certificate is of somebody else: reordered, or foreign.
    #[error(
        "certificate {position} is issued by {issuer:?}, the next is of {next:?}; expected each one's issuer after it"
    )]
    Order {
        /// Which.
        position: usize,
        /// Its issuer.
        issuer: String,
        /// The subject of the next one.
        next: String,
    },
    /// The issuer did not sign it.
    #[error("certificate {position} is not signed by its issuer")]
    Signature {
        /// Which.
        position: usize,
        /// What is wrong with the signature.
        #[source]
        source: SignatureError,
    },
    /// A certificate that stands above another and is no authority's.
    #[error("certificate {position} stands above another and is not an authority's")]
    NotAuthority {
        /// Which.
        position: usize,
    },
    /// An authority whose key is not for signing certificates.
    #[error("certificate {position} is of a key that is not for signing certificates")]
    MayNotSign {
        /// Which.
        position: usize,
    },
    /// More authorities below one than it may have.
    #[error("certificate {position} may have {max} authorities below it and has {seen}")]
    PathLength {
        /// Which; the root counts as the one after the last.
        position: usize,
        /// How many are there.
        seen: usize,
        /// How many may be.
        max: u8,
    },
    /// Not valid at the time that was asked about.
    #[error("certificate {position} was valid from {from} to {until}, in seconds since 1970, and not at {at}")]
    NotValid {
        /// Which.
        position: usize,
        /// Its first second.
        from: u64,
        /// Its last second.
        until: u64,
        /// The time asked about, in seconds.
        at: u64,
    },
    /// Certificates after the one whose issuer is a root.
    #[error("certificate {position} is one too many: the one before it is issued by a root that is believed")]
    Surplus {
        /// The first of them.
        position: usize,
    },
}

/// Why roots cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// More than are kept.
    #[error("{seen} roots, at most {ROOTS_MAX} are kept")]
    TooMany {
        /// How many.
        seen: usize,
    },
    /// A certificate that is no authority's.
    #[error("the root {subject:?} is not an authority's certificate")]
    NotAuthority {
        /// Its subject.
        subject: String,
    },
    /// An authority whose key is not for signing certificates.
    #[error("the root {subject:?} is of a key that is not for signing certificates")]
    MayNotSign {
        /// Its subject.
        subject: String,
    },
    /// A key that is believed as two things.
    #[error("the root {subject:?} is listed as {one} and as {other}: name it once")]
    TwoClasses {
        /// Its subject.
        subject: String,
        /// As what.
        one: RootClass,
        /// As what else.
        other: RootClass,
    },
}

/// As what a root is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RootClass {
    /// An authority of the site that the log is of.
    Site,
    /// An authority that is independent of whoever operates the host.
    Independent,
    /// A cloud provider.
    Cloud,
    /// A vendor of machines or TPMs, for attestation and identity keys.
    Vendor,
    /// A vendor of TPMs, for endorsement keys.
    Endorsement,
}

impl std::fmt::Display for RootClass {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Site => "a root of the site",
            Self::Independent => "an independent root",
            Self::Cloud => "a cloud provider's root",
            Self::Vendor => "a vendor's root",
            Self::Endorsement => "a root for endorsement keys",
        })
    }
}

/// Roots that are believed, and as what. Trusted: they come from whoever asks, never from what is verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roots {
    known: Vec<(RootClass, Certificate)>,
}

impl Roots {
    /// No root.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Believes a root. Its own validity is not judged (RFC 5280 section 6.1.1 d): whoever names it knows what it is.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn add(&mut self, class: RootClass, root: Certificate) -> Result<(), RootError> {
        if self.known.len() >= ROOTS_MAX {
            return Err(RootError::TooMany { seen: self.known.len() + 1 });
        }
        if root.authority().is_none() {
            return Err(RootError::NotAuthority { subject: root.to_string() });
        }
        if !may_sign(&root) {
            return Err(RootError::MayNotSign { subject: root.to_string() });
        }
        // By key: a second certificate of one key is the same authority.
        if let Some((one, _)) = self.known.iter().find(|(one, known)| known.key() == root.key() && *one != class) {
            return Err(RootError::TwoClasses { subject: root.to_string(), one: *one, other: class });
        }
        if !self.known.iter().any(|(_, known)| *known == root) {
            self.known.push((class, root));
        }
        Ok(())
    }

    /// Whether no root is believed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The roots.
    pub fn iter(&self) -> impl Iterator<Item = &(RootClass, Certificate)> {
        self.known.iter()
    }
}

/// A key's certificate that leads to a root that is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<'a> {
    leaf: &'a Certificate,
    root: &'a Certificate,
    class: RootClass,
}

impl<'a> Path<'a> {
    /// The key's own certificate.
    #[must_use]
    pub fn leaf(&self) -> &'a Certificate {
        self.leaf
    }

    /// The root that it leads to.
    #[must_use]
    pub fn root(&self) -> &'a Certificate {
        self.root
    }

    /// As what that root is believed.
    #[must_use]
    pub fn class(&self) -> RootClass {
        self.class
    }
}

/// Reads the certificates of a chain.
///
/// # Errors
/// [`PathError::Empty`], [`PathError::TooLong`], [`PathError::Certificate`].
pub fn read_chain<B: AsRef<[u8]>>(chain: &[B]) -> Result<Vec<Certificate>, PathError> {
    if chain.is_empty() {
        return Err(PathError::Empty);
    }
    if chain.len() > CHAIN_MAX {
        return Err(PathError::TooLong { seen: chain.len() });
    }
    let read = |(position, bytes): (usize, &B)| {
        Certificate::parse(bytes.as_ref()).map_err(|source| PathError::Certificate { position, source })
    };
    chain.iter().enumerate().map(read).collect()
}

/// Follows a chain to a root. `at` is the time at which each certificate but the root must have been valid: a time that
/// a log states is the word of whoever wrote it, so validity is no more than that.
///
/// # Errors
/// [`PathError`] names the first rule that is broken, from the key's own certificate upwards.
pub fn follow<'a>(chain: &'a [Certificate], roots: &'a Roots, at: WallTime) -> Result<Path<'a>, PathError> {
    let leaf = chain.first().ok_or(PathError::Empty)?;
    if chain.len() > CHAIN_MAX {
        return Err(PathError::TooLong { seen: chain.len() });
    }
    for (position, certificate) in chain.iter().enumerate() {
        if !certificate.is_valid_at(at) {
            let (from, until) = certificate.validity();
            return Err(PathError::NotValid { position, from, until, at: at.0 / 1_000_000_000 });
        }
        if position > 0 {
            stands_above(certificate, position, position - 1)?;
        }
        // Several roots may have one name, so a signature that one of them did not make is no verdict yet.
        let mut wrong = None;
        for (class, root) in roots.iter().filter(|(_, root)| root.subject() == certificate.issuer()) {
            match certificate.verify_signature(root.key()) {
                Ok(()) => {
                    stands_above(root, position + 1, position)?;
                    // A chain may show the root too, and nothing else.
                    let rest = chain.get(position + 1..).unwrap_or_default();
                    let shown = rest.first().is_some_and(|next| next == root);
                    if rest.len() > usize::from(shown) {
                        return Err(PathError::Surplus { position: position + 1 + usize::from(shown) });
                    }
                    return Ok(Path { leaf, root, class: *class });
                }
                Err(source) => wrong = Some(source),
            }
        }
        let issuer = || display(certificate.issuer());
        match chain.get(position + 1) {
            Some(next) if next.subject() == certificate.issuer() => {
                certificate.verify_signature(next.key()).map_err(|source| PathError::Signature { position, source })?
            }
            Some(next) => return Err(PathError::Order { position, issuer: issuer(), next: next.to_string() }),
            None => {
                return Err(match wrong {
                    Some(source) => PathError::Signature { position, source },
                    None => PathError::NoRoot { position, issuer: issuer() },
                });
            }
        }
    }
    // Each round returns or has a next certificate.
    Err(PathError::Empty)
}

/// Whether a certificate may stand above others, of which `below` are authorities.
fn stands_above(certificate: &Certificate, position: usize, below: usize) -> Result<(), PathError> {
    let authority = certificate.authority().ok_or(PathError::NotAuthority { position })?;
    if !may_sign(certificate) {
        return Err(PathError::MayNotSign { position });
    }
    match authority.below_max {
        Some(max) if below > usize::from(max) => Err(PathError::PathLength { position, seen: below, max }),
        _ => Ok(()),
    }
}

/// An authority must say what its key is for (RFC 5280 section 4.2.1.3).
fn may_sign(certificate: &Certificate) -> bool {
    certificate.usage().is_some_and(|usage| usage.key_cert_sign())
}

/// A name as one line for people, with nothing in it that a terminal would obey.
pub(super) fn display(name: &x509_cert::name::Name) -> String {
    const CHARACTERS_MAX: usize = 256;
    let text = name.to_string();
    text.chars().take(CHARACTERS_MAX).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
