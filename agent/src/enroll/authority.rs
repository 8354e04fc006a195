//! A small authority for a site, or for an auditor: a directory with a key on P-256 and its certificate.
//!
//! Trust: the directory is trusted, and whoever reads its key can certify any key for any log. So the key has mode
//! 0600, and the machine should be one that no network reaches. What it vouches for is what it checked: that one TPM
//! has both keys of the request. Whether that TPM is one depends on its vendor's roots, which whoever runs it must
//! name; a program that plays a TPM passes everything else.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use agent_evidence::attest::cert::issue::{self, AuthorityKey, IssueError, Lifetime};
use agent_evidence::attest::cert::path::{CHAIN_MAX, PathError, ROOTS_MAX, RootClass, Roots, read_chain};
use agent_evidence::attest::cert::x509::{Certificate, CertificateError};
use agent_evidence::attest::cert::{CertError, follow_endorsement};
use agent_evidence::attest::credential::{CredentialError, Randomness};
use agent_evidence::attest::enroll::{Applicant, Challenge, EnrollError, IssuedChain, NONCE_BYTES, Response};
use agent_evidence::record::{Digest, WallTime};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// The key, in PEM.
const KEY: &str = "ca.key";
/// Its certificate, in PEM; those above may follow.
const CERTIFICATE: &str = "ca.pem";
/// How often other random bytes are taken when some are no number of the curve, which one in 2^32 is not.
const TRIES: u32 = 8;
/// A certificate begins so many seconds before it is made: clocks of hosts are behind at times.
const BACKDATED_SECONDS: u64 = 86_400;

/// Why the authority cannot work, or does not certify.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or directory could not be used.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others can read the key.
    #[error("{path} has mode {mode:03o}: whoever reads it can certify any key; expected 600")]
    TooOpen {
        /// The key's file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A certificate or key could not be made or read.
    #[error("cannot use {path}")]
    Issue {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: IssueError,
    },
    /// A file that holds no certificate that is understood.
    #[error("cannot use {path}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CertificateError,
    },
    /// A file without a certificate, or with more than a chain has.
    #[error("{path} has {seen} certificates, expected 1 to {max}")]
    Count {
        /// The file.
        path: PathBuf,
        /// How many it has.
        seen: usize,
        /// How many it may have.
        max: usize,
    },
    /// More roots than are kept.
    #[error("{path} has more than {ROOTS_MAX} files")]
    TooManyRoots {
        /// The directory.
        path: PathBuf,
    },
    /// No randomness.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    /// A request or response that is refused.
    #[error(transparent)]
    Refused(#[from] EnrollError),
    /// The certificate could not be made.
    #[error("the certificate cannot be made")]
    Made(#[source] IssueError),
    /// The vendor of the TPM does not vouch for the endorsement key.
    #[error(
        "the endorsement key is not certified by a vendor that --ek-roots names ({0}): a program that plays a TPM \
         looks the same. Name the vendor's roots, or certify it as uncertified with --uncertified-ek"
    )]
    Uncertified(Uncertified),
}

/// Why the vendor of the TPM does not vouch for an endorsement key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Uncertified {
    /// No root was named.
    #[error("no roots of vendors were named")]
    NoRoots,
    /// The TPM has no certificate.
    #[error("the TPM shows no certificate for it")]
    NoCertificate,
    /// It cannot be read.
    #[error("its certificate: {0}")]
    Chain(PathError),
    /// It leads to no root that was named, or is not one of an endorsement key.
    #[error("its certificate: {}", in_full(.0))]
    Refused(CertError),
    /// It is of another key.
    #[error("the certificate that it shows is of another key")]
    OtherKey,
}

fn in_full(error: &CertError) -> String {
    match error {
        CertError::Path(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

/// What was found of an endorsement key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EkStanding {
    /// A vendor's root stands behind it.
    Certified {
        /// The root's subject.
        root: String,
        /// SHA-256 of its own certificate.
        certificate: Digest,
    },
    /// None does.
    Uncertified(Uncertified),
}

/// An authority's key and certificate.
pub struct Authority {
    key: AuthorityKey,
    /// Its own certificate and those above.
    chain: Vec<Certificate>,
}

impl Authority {
    /// Makes an authority in a directory, which is made too and must not have one yet. Durable when it returns.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn create(directory: &Path, name: &str, now: WallTime, days: u32) -> Result<Self, AuthorityError> {
        let io_error = |what, path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::Io { what, path, source }
        };
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(io_error("make", directory))?,
        }
        let key = random_key()?;
        let chain = vec![
            issue::authority(key.signing_key(), name, &*random::<16>()?, lifetime(now, days))
                .map_err(AuthorityError::Made)?,
        ];
        let pem = Zeroizing::new(key.to_pem().map_err(AuthorityError::Made)?);
        // The key last: a directory with a key is whole.
        let certificate: String = chain.iter().map(Certificate::to_pem).collect();
        for (name, mode, text) in [(CERTIFICATE, 0o644, certificate.as_str()), (KEY, 0o600, pem.as_str())] {
            let path = directory.join(name);
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path)
                .map_err(io_error("make the new file", &path))?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error("write", &path))?;
        }
        File::open(directory).and_then(|opened| opened.sync_all()).map_err(io_error("sync", directory))?;
        Ok(Self { key, chain })
    }

    /// Reads an authority's directory.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn load(directory: &Path) -> Result<Self, AuthorityError> {
        let path = directory.join(KEY);
        let io_error = |source| AuthorityError::Io { what: "read", path: path.clone(), source };
        let mode = fs::metadata(&path).map_err(io_error)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(AuthorityError::TooOpen { path, mode });
        }
        let text = Zeroizing::new(super::read(&path).map_err(io_error)?);
        let text = std::str::from_utf8(&text).unwrap_or_default();
        let key = AuthorityKey::parse_pem(text).map_err(|source| AuthorityError::Issue { path, source })?;
        let path = directory.join(CERTIFICATE);
        let chain = certificates(&path)?;
        // The key's certificate, and room for what it issues.
        if chain.is_empty() || chain.len() >= CHAIN_MAX {
            return Err(AuthorityError::Count { path, seen: chain.len(), max: CHAIN_MAX - 1 });
        }
        Ok(Self { key, chain })
    }

    /// Its certificate, which trust files name as a root.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.chain.first()
    }

    /// A challenge for the TPM of a request.
    ///
    /// # Errors
    /// [`AuthorityError::Random`], [`AuthorityError::Refused`].
    pub fn challenge(&self, applicant: &Applicant) -> Result<Challenge, AuthorityError> {
        let secrets = Zeroizing::new(self.key.secrets());
        let nonce = *random::<NONCE_BYTES>()?;
        for _ in 0..TRIES {
            let random = Randomness { first: *random::<32>()?, second: *random::<32>()? };
            match applicant.challenge(&secrets, nonce, &random) {
                Err(EnrollError::Credential(CredentialError::Scalar)) => {}
                made => return made.map_err(AuthorityError::Refused),
            }
        }
        Err(AuthorityError::Refused(EnrollError::Credential(CredentialError::Scalar)))
    }

    /// Certifies the key of a request whose response is right.
    ///
    /// # Errors
    /// [`AuthorityError::Refused`] when it is not; [`AuthorityError::Uncertified`] when no vendor certified the
    /// endorsement key, unless `uncertified` says that it shall be certified as such.
    pub fn certify(
        &self,
        applicant: &Applicant,
        response: &Response,
        standing: &EkStanding,
        uncertified: bool,
        now: WallTime,
        days: u32,
    ) -> Result<IssuedChain, AuthorityError> {
        let ek_certificate = match standing {
            EkStanding::Certified { certificate, .. } => Some(*certificate),
            EkStanding::Uncertified(_) if uncertified => None,
            EkStanding::Uncertified(why) => return Err(AuthorityError::Uncertified(why.clone())),
        };
        let secrets = Zeroizing::new(self.key.secrets());
        let tie = applicant.accept(response, &secrets, ek_certificate)?;
        let own = self.chain.first().ok_or(AuthorityError::Made(IssueError::OtherKey))?;
        let key = self.key.signing_key();
        let serial = random::<16>()?;
        let certificate = issue::attestation_key(key, own, applicant.ak().point(), &tie, &serial, lifetime(now, days))
            .map_err(AuthorityError::Made)?;
        let above = self.chain.iter().map(|certificate| certificate.der().to_vec());
        Ok(IssuedChain {
            request: applicant.request(),
            certificates: std::iter::once(certificate.der().to_vec()).chain(above).collect(),
            // A chain that was not followed is worth nothing to others either.
            ek_certificates: ek_certificate.map_or_else(Vec::new, |_| applicant.wish().ek_certificates.clone()),
        })
    }
}

/// Whether a vendor certified the endorsement key of a request.
#[must_use]
pub fn judge_endorsement(applicant: &Applicant, roots: &Roots, now: WallTime) -> EkStanding {
    let shown = &applicant.wish().ek_certificates;
    let Some(own) = shown.first() else { return EkStanding::Uncertified(Uncertified::NoCertificate) };
    if roots.is_empty() {
        return EkStanding::Uncertified(Uncertified::NoRoots);
    }
    let chain = match read_chain(shown) {
        Ok(chain) => chain,
        Err(error) => return EkStanding::Uncertified(Uncertified::Chain(error)),
    };
    match follow_endorsement(&chain, roots, now) {
        Ok((key, root)) if applicant.ek().is(&key) => {
            EkStanding::Certified { root, certificate: Digest(Sha256::digest(own).into()) }
        }
        Ok(_) => EkStanding::Uncertified(Uncertified::OtherKey),
        Err(error) => EkStanding::Uncertified(Uncertified::Refused(error)),
    }
}

/// Reads the roots of vendors from a directory: every file in it, PEM or DER. What cannot be believed is not, and the
/// second value says of each such file why: a root less only makes fewer keys certified.
///
/// # Errors
/// The directory cannot be read, or has too many files.
pub fn vendor_roots(directory: &Path) -> Result<(Roots, Vec<String>), AuthorityError> {
    let io_error = |source| AuthorityError::Io { what: "read", path: directory.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        if path.is_file() {
            paths.push(path);
        }
        if paths.len() > ROOTS_MAX {
            return Err(AuthorityError::TooManyRoots { path: directory.to_owned() });
        }
    }
    // In an order that does not depend on the file system, so that two runs say the same.
    paths.sort();
    let mut roots = Roots::new();
    let mut passed_over = Vec::new();
    for path in paths {
        let mut add = |certificate| roots.add(RootClass::Endorsement, certificate).map_err(|error| error.to_string());
        let outcome = certificates(&path)
            .map_err(|error| match error {
                AuthorityError::Certificate { source, .. } => source.to_string(),
                other => other.to_string(),
            })
            .and_then(|read| read.into_iter().try_for_each(&mut add));
        if let Err(why) = outcome {
            passed_over.push(format!("{} is not used: {why}", path.display()));
        }
    }
    Ok((roots, passed_over))
}

/// The certificates in a file, PEM or one in DER.
fn certificates(path: &Path) -> Result<Vec<Certificate>, AuthorityError> {
    let bytes =
        super::read(path).map_err(|source| AuthorityError::Io { what: "read", path: path.to_owned(), source })?;
    let read = match std::str::from_utf8(&bytes) {
        Ok(text) if text.contains("-----BEGIN") => Certificate::parse_pem(text),
        _ => Certificate::parse(&bytes).map(|certificate| vec![certificate]),
    };
    read.map_err(|source| AuthorityError::Certificate { path: path.to_owned(), source })
}

fn lifetime(now: WallTime, days: u32) -> Lifetime {
    let seconds = now.0 / 1_000_000_000;
    let until = seconds.saturating_add(u64::from(days) * 86_400).min(issue::TIME_MAX);
    Lifetime { from: seconds.saturating_sub(BACKDATED_SECONDS), until }
}

fn random_key() -> Result<AuthorityKey, AuthorityError> {
    for _ in 0..TRIES {
        if let Some(key) = AuthorityKey::from_random(&*random::<32>()?) {
            return Ok(key);
        }
    }
    Err(AuthorityError::Random(getrandom::Error::UNEXPECTED))
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, AuthorityError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut()).map_err(AuthorityError::Random)?;
    Ok(bytes)
}
