//! The host's side of enrolment: its TPM signs a request and opens a challenge, and the certificate that comes back is
//! installed; or, where the machine came with an identity key, that key certifies ours.
//!
//! The attestation key is the one that the daemon made; nothing here makes or replaces it. A certificate is installed
//! only if it is for that key and for this log: one that is for another would be found by every verifier later.

use std::io;
use std::path::{Path, PathBuf};

use agent_evidence::attest::cert::path::{PathError, RootClass, RootError, Roots, read_chain};
use agent_evidence::attest::cert::vendor::{CertifyError, KeyCertification};
use agent_evidence::attest::cert::x509::{Certificate, CertificateError};
use agent_evidence::attest::cert::{Beginning, CertError, Shown, TrustRoots, Vouched, read_tie, who_vouches};
use agent_evidence::attest::credential::SECRET_BYTES;
use agent_evidence::attest::enroll::{Challenge, EnrollError, IssuedChain, Request, Response, Signed, Wish};
use agent_evidence::attest::key::{Ak, KeyError};
use agent_evidence::attest::tpm::{Name, NvPublic, Public, TpmError as StructureError};
use agent_evidence::record::{Digest, Voucher, WallTime};
use agent_evidence::verify::Observed;

use crate::pipeline::VouchedKey;
use crate::tpm::{AkFrom, Certified, Device, Identity, Place, TpmError, keyfile};
use crate::witness::replace;

/// Blob of the attestation key, in the directory of keys.
const AK_BLOB: &str = "ak.tpm";
/// Stands for the digest of a request where there was none: nobody was asked.
const NO_REQUEST: Digest = Digest([0; 32]);
/// The certificate file, there.
const INSTALLED: &str = "ak.certificate";

/// Why the host cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no attestation key.
    #[error("{0} is not there: the daemon makes the attestation key when it starts with a TPM")]
    NoKey(PathBuf),
    /// The TPM has another key than before.
    #[error("the attestation key was lost ({0}): the daemon has made another; start it, and begin again")]
    KeyLost(&'static str),
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// What the TPM answered cannot be read.
    #[error("the TPM's answer cannot be read: {0}")]
    Structure(#[source] StructureError),
    /// The TPM's key is none of the sort that it must be.
    #[error("the attestation key is refused")]
    Key(#[source] KeyError),
    /// A file that is refused, or a request that would be.
    #[error(transparent)]
    Refused(#[from] EnrollError),
    /// The TPM found something of another size in the credential.
    #[error("the credential has a secret of {0} bytes, expected {SECRET_BYTES}: it is of another authority's making")]
    Secret(usize),
    /// The certificates that came back lead nowhere.
    #[error("the certificates are refused")]
    Chain(#[source] PathError),
    /// The last of the certificates is no authority's.
    #[error("the certificates are refused")]
    Root(#[source] RootError),
    /// They are not for this key and log.
    #[error("the certificate is not for this host")]
    Certificate(#[source] CertError),
    /// A file that holds no certificates that are understood.
    #[error("the certificates of the identity key cannot be read")]
    Identity(#[source] CertificateError),
    /// The certification of the attestation key by another key is not one.
    #[error("the certification by the identity key cannot be used")]
    Certification(#[source] CertifyError),
    /// It could not be stored, or read.
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
}

/// This host's TPM and its directory of keys.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// Where the TPM is.
    pub place: &'a Place,
    /// The daemon's directory of keys.
    pub keys: &'a Path,
    /// Handle of the NV counter.
    pub counter: u32,
}

impl Host<'_> {
    /// Asks for a certificate of the attestation key, for a log as it was observed.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn request(&self, observed: &Observed) -> Result<Request, HostError> {
        let device = self.open()?;
        let identity = device.identity();
        let mut wish = Wish {
            origin: observed.log_key.name().as_str().to_owned(),
            log_key: observed.log_key.key(),
            genesis: observed.genesis,
            first_epoch_key: observed.first_epoch_key,
            ak_public: identity.ak_public.clone(),
            ek_public: identity.ek_public.clone(),
            ek_certificates: identity.ek_certificates.clone(),
            counter_index: Some(self.counter),
            tpm: identity.tpm.clone(),
        };
        // A host without a counter is not a host whose counter says nothing: what is signed must say which.
        let counter = match device.certify_counter(self.counter, &wish.statement()?) {
            Ok(certified) => Some(signed(certified)),
            Err(TpmError::CounterGone(_)) => {
                wish.counter_index = None;
                None
            }
            Err(error) => return Err(error.into()),
        };
        let certified = signed(device.certify_ak(&wish.statement()?)?);
        let request = Request { wish, certified, counter };
        // As the authority will: what it would refuse must not leave the host.
        let _applicant = request.clone().verify()?;
        Ok(request)
    }

    /// Opens a challenge.
    ///
    /// # Errors
    /// [`HostError`]; the TPM refuses what was made for another one, or for another key.
    pub fn respond(&self, challenge: &Challenge) -> Result<Response, HostError> {
        let device = self.open()?;
        let credential = &challenge.credential;
        let found = device.activate_credential(&credential.blob, &credential.encrypted_seed)?;
        let secret = found.as_slice().try_into().map_err(|_length| HostError::Secret(found.len()))?;
        Ok(challenge.answer(secret))
    }

    /// Keeps a certificate for the daemon, which writes it into the log. Replaces one that was there. Durable when it
    /// returns.
    ///
    /// The authority's own certificate is taken from the file: a host can check what the certificate is for, not whom
    /// others believe.
    ///
    /// # Errors
    /// [`HostError`]; nothing was replaced.
    pub fn install(&self, issued: &IssuedChain, observed: &Observed, now: WallTime) -> Result<Vouched, HostError> {
        let device = self.open()?;
        let vouched = check(device.identity(), issued, observed, self.counter, now)?;
        self.keep(issued)?;
        Ok(vouched)
    }

    /// Has a key of the machine's vendor, which is in this TPM at a persistent handle, certify the attestation key, and
    /// keeps that for the daemon. `certificates` are that key's own and those above it, in this order, in PEM; the last is
    /// an authority's. Replaces what was installed. Durable when it returns.
    ///
    /// That the key at the handle is the one of the first certificate is checked, by its signature; whom others believe is
    /// for them to say.
    ///
    /// # Errors
    /// [`HostError`]; nothing was replaced.
    pub fn identify(
        &self,
        key: u32,
        certificates: &str,
        observed: &Observed,
        now: WallTime,
    ) -> Result<Vouched, HostError> {
        let chain = Certificate::parse_pem(certificates).map_err(HostError::Identity)?;
        let device = self.open()?;
        let Certified { attest, signature } = device.certify_ak_with(key)?;
        let certification = KeyCertification { attest, signature };
        let first = certification.to_der().map_err(HostError::Certification)?;
        let certificates = std::iter::once(first).chain(chain.iter().map(|one| one.der().to_vec())).collect();
        let issued = IssuedChain { request: NO_REQUEST, certificates, ek_certificates: Vec::new() };
        let vouched = check(device.identity(), &issued, observed, self.counter, now)?;
        self.keep(&issued)?;
        Ok(vouched)
    }

    fn keep(&self, issued: &IssuedChain) -> Result<(), HostError> {
        let path = self.keys.join(INSTALLED);
        let bytes = issued.to_bytes()?;
        // As the daemon will: what it would refuse must not be kept.
        IssuedChain::parse(&bytes)?;
        replace(&path, &bytes).map_err(|source| HostError::Io { what: "write", path, source })
    }

    fn open(&self) -> Result<Device, HostError> {
        // Opening makes a key where there is none: here that would be one that no log knows.
        let blob = self.keys.join(AK_BLOB);
        if !blob.exists() {
            return Err(HostError::NoKey(blob));
        }
        let device = Device::open(self.place, self.keys)?;
        match device.identity().ak_from {
            AkFrom::Blob => Ok(device),
            AkFrom::New => Err(HostError::NoKey(blob)),
            AkFrom::Cleared => Err(HostError::KeyLost("the TPM was cleared")),
            AkFrom::OtherTpm => Err(HostError::KeyLost("it is another TPM")),
        }
    }
}

/// The certificate file that was installed, if one was.
///
/// # Errors
/// [`HostError::Io`], [`HostError::Refused`].
pub fn installed(keys: &Path) -> Result<Option<IssuedChain>, HostError> {
    let path = keys.join(INSTALLED);
    match super::read(&path) {
        Ok(bytes) => Ok(Some(IssuedChain::parse(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HostError::Io { what: "read", path, source }),
    }
}

/// Who vouches for the attestation key, as it is installed here, for the daemon to write into the log. Nothing when no
/// certificate was installed.
///
/// # Errors
/// [`HostError`]: a file is there that [`Host::install`] did not leave.
pub fn vouched(keys: &Path) -> Result<Option<VouchedKey>, HostError> {
    let Some(issued) = installed(keys)? else { return Ok(None) };
    let (certification, shown) = KeyCertification::split(&issued.certificates).map_err(HostError::Certification)?;
    let chain = read_chain(shown).map_err(HostError::Chain)?;
    let own = chain.first().ok_or(HostError::Chain(PathError::Empty))?;
    let (name, voucher) = match certification {
        Some(certification) => {
            let name = certification.certified().map_err(HostError::Certification)?;
            (name.as_bytes().to_vec(), Voucher::Vendor)
        }
        // By its own word an independent authority is a site's: which of the two it is, the trust file says.
        None => (read_tie(own).map_err(HostError::Certificate)?.ak_name, Voucher::Site),
    };
    let IssuedChain { certificates, ek_certificates, .. } = issued;
    Ok(Some(VouchedKey { name, voucher, certificates, ek_certificates }))
}

/// Whether the attestation key on the disk is the one of this name, so that what vouches for it may be claimed.
///
/// # Errors
/// [`HostError`]: its file cannot be read.
pub fn is_present(keys: &Path, vouched: &VouchedKey) -> Result<bool, HostError> {
    let Some(blob) = keyfile::load(&keys.join(AK_BLOB))? else { return Ok(false) };
    let public = Public::parse(&blob.public).map_err(HostError::Structure)?;
    Ok(public.name().as_bytes() == vouched.name)
}

/// Whether certificates are for this host's key and log, under the authority that they show.
fn check(
    identity: &Identity,
    issued: &IssuedChain,
    observed: &Observed,
    counter: u32,
    now: WallTime,
) -> Result<Vouched, HostError> {
    let (certification, shown) = KeyCertification::split(&issued.certificates).map_err(HostError::Certification)?;
    let class = if certification.is_some() { RootClass::Vendor } else { RootClass::Site };
    let mut chain = read_chain(shown).map_err(HostError::Chain)?;
    let mut keys = Roots::new();
    if let Some(top) = chain.pop() {
        keys.add(class, top).map_err(HostError::Root)?;
    }
    let qualified_name = Name::parse(&identity.ak_qualified_name).map_err(HostError::Structure)?;
    let ak = Ak::parse(&identity.ak_public, qualified_name).map_err(HostError::Key)?;
    let name = NvPublic::counter(counter).name();
    let beginning = Beginning {
        origin: observed.log_key.name().as_str(),
        log_key: observed.log_key.key(),
        genesis: observed.genesis,
        first_epoch_key: observed.first_epoch_key,
        counter_name: Some(name.as_bytes()),
    };
    let shown = Shown { ak: &ak, certificates: &issued.certificates, ek_certificates: &issued.ek_certificates };
    let roots = TrustRoots { keys, endorsement: Roots::new() };
    who_vouches(&shown, &beginning, &roots, now).map_err(HostError::Certificate)
}

fn signed(certified: Certified) -> Signed {
    Signed { attest: certified.attest, sig: certified.signature }
}
