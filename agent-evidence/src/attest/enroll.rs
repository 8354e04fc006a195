//! The files of enrolment: how an authority comes to vouch for a host's attestation key without a network between them.
//!
//! | file | from | says |
//! |---|---|---|
//! | [`Request`] | host | its keys, the log they are for, and both signed by the attestation key |
//! | [`Challenge`] | authority | a secret that only that TPM can open, while that key is in it |
//! | [`Response`] | host | a proof that it was opened; not the secret |
//! | [`IssuedChain`] | authority | the certificate, and those above |
//!
//! Each is one JSON object in the one form that `docs/FORMAT.md` section 20 gives it. Untrusted, all of them: what a
//! request claims is worth something only as a [`Applicant`], where the attestation key signed it, and what a response
//! claims only where the proof is right. The authority remembers nothing between its two steps: the secret of a
//! challenge follows from its own key, the request and a nonce.

#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::cert::path::CHAIN_MAX;
use super::cert::x509::CERTIFICATE_BYTES_MAX;
use super::cert::{CounterPin, Tie};
use super::credential::{Credential, CredentialError, EndorsementKey, Randomness, SECRET_BYTES};
use super::key::{Ak, KeyError};
use super::tpm::{Attest, Attested, ClockInfo, ENDORSEMENT, NvPublic, Public};
use crate::note::{KeyName, NoteError};
use crate::record::{Digest, LeafHash, PublicKey};

/// Largest file of enrolment that is read, in bytes: a request or answer with all the certificates that it may have.
pub const FILE_BYTES_MAX: usize = 512 * 1024;
/// Longest text in which a TPM tells its manufacturer and firmware, in bytes.
pub const TPM_TEXT_BYTES_MAX: usize = 256;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;

const REQUEST: &str = "enroll-request/v1";
const CHALLENGE: &str = "enroll-challenge/v1";
const RESPONSE: &str = "enroll-response/v1";
const CERTIFICATE: &str = "enroll-certificate/v1";

/// Why a file of enrolment is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnrollError {
    /// Larger than is read.
    #[error("the file has {seen} bytes, at most {FILE_BYTES_MAX} are read")]
    TooLarge {
        /// Its bytes.
        seen: usize,
    },
    /// Not JSON of the expected form.
    #[error("the file is not of the expected form: {reason}")]
    Form {
        /// What the reader says.
        reason: String,
    },
    /// Another file, or another version of it.
    #[error("the file is a {seen:?}, expected {expected:?}")]
    Other {
        /// What it calls itself.
        seen: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A second spelling of the same.
    #[error("the file is not in the one form that it has")]
    NotCanonical,
    /// A value of another size.
    #[error("`{member}` has {seen} bytes, expected {expected}")]
    Size {
        /// Which.
        member: &'static str,
        /// Its bytes.
        seen: usize,
        /// What is expected.
        expected: &'static str,
    },
    /// More certificates than are read.
    #[error("`{member}` has {seen} certificates, at most {CHAIN_MAX} are read")]
    TooMany {
        /// Which.
        member: &'static str,
        /// How many.
        seen: usize,
    },
    /// An origin that is none.
    #[error("`origin` is no origin of a log")]
    Origin(#[source] NoteError),
    /// A text that would command a terminal.
    #[error("`tpm` has control characters, or more than {TPM_TEXT_BYTES_MAX} bytes")]
    TpmText,
    /// The endorsement key is not one.
    #[error("the endorsement key is refused")]
    Endorsement(#[source] CredentialError),
    /// The attestation key is not one.
    #[error("the attestation key is refused")]
    Key(#[source] KeyError),
    /// The attestation key did not sign this request.
    #[error("`{member}` is not signed by the attestation key below the endorsement key of the request")]
    NotSigned {
        /// Which attestation.
        member: &'static str,
        /// What is wrong.
        #[source]
        source: KeyError,
    },
    /// An attestation about something else.
    #[error("`{member}` attests something else than {expected}")]
    OtherAttestation {
        /// Which.
        member: &'static str,
        /// What it must attest.
        expected: &'static str,
    },
    /// An attestation made for another request.
    #[error("`{member}` was made for another request")]
    OtherRequest {
        /// Which.
        member: &'static str,
    },
    /// An answer to another request.
    #[error("the file answers another request")]
    ForOther,
    /// The proof of a response is wrong.
    #[error("the proof is wrong: the credential was not opened, or the file is for another authority")]
    Proof,
    /// A credential cannot be made.
    #[error("a credential cannot be made")]
    Credential(#[source] CredentialError),
}

/// A host asks for a certificate of its attestation key. Untrusted: see [`Request::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub wish: Wish,
    /// The attestation key certifies itself over [`Wish::statement`].
    pub certified: Signed,
    /// It certifies the NV counter over the same; where the host has one.
    pub counter: Option<Signed>,
}

/// What a host asks for: the part of a request that its attestation key signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Name of the log.
    pub origin: String,
    /// Its key.
    pub log_key: PublicKey,
    /// Leaf hash of its entry 0.
    pub genesis: LeafHash,
    /// Public key of its first epoch.
    pub first_epoch_key: PublicKey,
    /// The attestation key (TPMT_PUBLIC).
    pub ak_public: Vec<u8>,
    /// The endorsement key above it (TPMT_PUBLIC).
    pub ek_public: Vec<u8>,
    /// The endorsement key's certificate and those above, in DER; none where the TPM has none.
    pub ek_certificates: Vec<Vec<u8>>,
    /// Handle of the NV counter, where the host has one. Its attributes are those of every counter of this format.
    pub counter_index: Option<u32>,
    /// Manufacturer and firmware, as the TPM reports them.
    pub tpm: String,
}

/// An attestation and its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub sig: Vec<u8>,
}

/// A request that the attestation key in it signed. What it says of that key and of the counter is the word of that
/// key; that the key is a TPM's is still nobody's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Applicant {
    digest: Digest,
    wish: Wish,
    ak: Ak,
    ek: EndorsementKey,
    clock: ClockInfo,
    counter: Option<CounterPin>,
}

/// An authority's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// SHA-256 of the request.
    pub request: Digest,
    /// From which the secret follows, with the authority's key.
    pub nonce: [u8; NONCE_BYTES],
    /// The secret, for one TPM.
    pub credential: Credential,
}

/// A host's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// SHA-256 of the request.
    pub request: Digest,
    /// The nonce of the challenge.
    pub nonce: [u8; NONCE_BYTES],
    /// What only somebody who opened the credential could know.
    pub proof: [u8; 32],
}

/// The certificate that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedChain {
    /// SHA-256 of the request.
    pub request: Digest,
    /// The attestation key's certificate and those above, in DER.
    pub certificates: Vec<Vec<u8>>,
    /// The endorsement key's certificate and those above, as the authority followed them; none where it has none.
    pub ek_certificates: Vec<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestForm {
    affiant: String,
    wish: WishForm,
    certified: SignedForm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counter: Option<SignedForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WishForm {
    origin: String,
    log_key: Base64,
    genesis: Base64,
    first_epoch_key: Base64,
    ak_public: Base64,
    ek_public: Base64,
    ek_certificates: Vec<Base64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    counter_index: Option<u32>,
    tpm: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedForm {
    attest: Base64,
    sig: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChallengeForm {
    affiant: String,
    request: Base64,
    nonce: Base64,
    blob: Base64,
    seed: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseForm {
    affiant: String,
    request: Base64,
    nonce: Base64,
    proof: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuedForm {
    affiant: String,
    request: Base64,
    certificates: Vec<Base64>,
    ek_certificates: Vec<Base64>,
}

/// Bytes as JSON has them. That the base64 is the only one of its bytes follows from writing it again.
struct Base64(Vec<u8>);

impl Base64 {
    fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    fn array<const N: usize>(self, member: &'static str, expected: &'static str) -> Result<[u8; N], EnrollError> {
        let seen = self.0.len();
        self.0.try_into().map_err(|_bytes| EnrollError::Size { member, seen, expected })
    }
}

impl Serialize for Base64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(&text).map(Self).map_err(|error| serde::de::Error::custom(format!("base64: {error}")))
    }
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`EnrollError`] says which rule of its form it breaks. Nothing is verified.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnrollError> {
        let form: RequestForm = read(bytes)?;
        is_a(&form.affiant, REQUEST)?;
        let request = Self {
            wish: Wish::read(form.wish)?,
            certified: form.certified.into(),
            counter: form.counter.map(Into::into),
        };
        is_canonical(bytes, &request.to_bytes()?)?;
        Ok(request)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// [`EnrollError::Form`] when it cannot be written as JSON, which no value of this type causes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EnrollError> {
        write(&RequestForm {
            affiant: REQUEST.to_owned(),
            wish: self.wish.form(),
            certified: (&self.certified).into(),
            counter: self.counter.as_ref().map(Into::into),
        })
    }

    /// Its digest: what every answer names it by.
    ///
    /// # Errors
    /// As [`Request::to_bytes`].
    pub fn digest(&self) -> Result<Digest, EnrollError> {
        Ok(Digest(Sha256::digest(self.to_bytes()?).into()))
    }

    /// Whether the attestation key signed it, at its place below the endorsement key.
    ///
    /// # Errors
    /// [`EnrollError`] names what is not so.
    pub fn verify(self) -> Result<Applicant, EnrollError> {
        let digest = self.digest()?;
        let statement = self.wish.statement()?;
        let ek = EndorsementKey::parse(&self.wish.ek_public).map_err(EnrollError::Endorsement)?;
        // Read once more for the name alone: its place below the endorsement key follows from it, and is what
        // signatures must name.
        let name =
            Public::parse(&self.wish.ak_public).map_err(|error| EnrollError::Key(KeyError::Public(error)))?.name();
        let qualified = name.qualified_under(&ek.name().qualified_in(ENDORSEMENT));
        let ak = Ak::parse(&self.wish.ak_public, qualified).map_err(EnrollError::Key)?;
        let certified = signed(&ak, "certified", &self.certified, &statement)?;
        match &certified.attested {
            Attested::Certify { name, qualified_name }
                if name == ak.name() && qualified_name == ak.qualified_name() => {}
            _ => {
                let expected = "the attestation key itself";
                return Err(EnrollError::OtherAttestation { member: "certified", expected });
            }
        }
        let counter = match (self.wish.counter_index, &self.counter) {
            (None, None) => None,
            (Some(index), Some(counter)) => Some(read_counter(&ak, index, counter, &statement)?),
            _ => {
                let expected = "the counter that the wish names";
                return Err(EnrollError::OtherAttestation { member: "counter", expected });
            }
        };
        Ok(Applicant { digest, wish: self.wish, ak, ek, clock: certified.clock_info, counter })
    }
}

impl Wish {
    /// The 32 bytes that the attestation key signs as qualifying data.
    ///
    /// # Errors
    /// As [`Request::to_bytes`].
    pub fn statement(&self) -> Result<[u8; 32], EnrollError> {
        let body = serde_json::to_vec(&self.form()).map_err(|error| EnrollError::Form { reason: error.to_string() })?;
        Ok(tagged("affiant/enroll/v1", &[&body]))
    }

    fn form(&self) -> WishForm {
        WishForm {
            origin: self.origin.clone(),
            log_key: Base64::of(&self.log_key.0),
            genesis: Base64::of(&self.genesis.0),
            first_epoch_key: Base64::of(&self.first_epoch_key.0),
            ak_public: Base64::of(&self.ak_public),
            ek_public: Base64::of(&self.ek_public),
            ek_certificates: self.ek_certificates.iter().map(|bytes| Base64::of(bytes)).collect(),
            counter_index: self.counter_index,
            tpm: self.tpm.clone(),
        }
    }

    fn read(form: WishForm) -> Result<Self, EnrollError> {
        KeyName::new(&form.origin).map_err(EnrollError::Origin)?;
        if form.tpm.len() > TPM_TEXT_BYTES_MAX || form.tpm.chars().any(char::is_control) {
            return Err(EnrollError::TpmText);
        }
        Ok(Self {
            origin: form.origin,
            log_key: PublicKey(form.log_key.array("log_key", "32")?),
            genesis: LeafHash(form.genesis.array("genesis", "32")?),
            first_epoch_key: PublicKey(form.first_epoch_key.array("first_epoch_key", "32")?),
            ak_public: form.ak_public.0,
            ek_public: form.ek_public.0,
            ek_certificates: chain("ek_certificates", form.ek_certificates)?,
            counter_index: form.counter_index,
            tpm: form.tpm,
        })
    }
}

impl Applicant {
    /// SHA-256 of the request.
    #[must_use]
    pub fn request(&self) -> Digest {
        self.digest
    }

    /// What is asked for.
    #[must_use]
    pub fn wish(&self) -> &Wish {
        &self.wish
    }

    /// The attestation key.
    #[must_use]
    pub fn ak(&self) -> &Ak {
        &self.ak
    }

    /// The endorsement key above it.
    #[must_use]
    pub fn ek(&self) -> &EndorsementKey {
        &self.ek
    }

    /// The TPM's clock when it signed.
    #[must_use]
    pub fn clock(&self) -> ClockInfo {
        self.clock
    }

    /// The counter, as the TPM certified it.
    #[must_use]
    pub fn counter(&self) -> Option<&CounterPin> {
        self.counter.as_ref()
    }

    /// Asks the host to show that its TPM has both keys. `secrets` is a key of the authority that nobody else has; the
    /// nonce and the randomness are of the system's generator.
    ///
    /// # Errors
    /// [`EnrollError::Credential`].
    pub fn challenge(
        &self,
        secrets: &[u8; 32],
        nonce: [u8; NONCE_BYTES],
        random: &Randomness,
    ) -> Result<Challenge, EnrollError> {
        let secret = secret(secrets, self.digest, nonce);
        let credential = self.ek.make(self.ak.name(), &secret, random).map_err(EnrollError::Credential)?;
        Ok(Challenge { request: self.digest, nonce, credential })
    }

    /// What the key is tied to, once a response shows that the TPM of the endorsement key has it. `ek_certificate` is
    /// the digest of the certificate that the authority followed to a vendor's root, if there is one.
    ///
    /// # Errors
    /// [`EnrollError::ForOther`], [`EnrollError::Proof`].
    pub fn accept(
        &self,
        response: &Response,
        secrets: &[u8; 32],
        ek_certificate: Option<Digest>,
    ) -> Result<Tie, EnrollError> {
        if response.request != self.digest {
            return Err(EnrollError::ForOther);
        }
        let secret = secret(secrets, self.digest, response.nonce);
        let expected = prove(&secret, self.digest, response.nonce);
        expected.verify_slice(&response.proof).map_err(|_differs| EnrollError::Proof)?;
        Ok(Tie {
            origin: self.wish.origin.clone(),
            log_key: self.wish.log_key,
            genesis: self.wish.genesis,
            first_epoch_key: self.wish.first_epoch_key,
            counter: self.counter.clone(),
            reset_count: self.clock.reset_count,
            restart_count: self.clock.restart_count,
            clock_ms: self.clock.clock,
            ak_name: self.ak.name().as_bytes().to_vec(),
            ek_name: self.ek.name().as_bytes().to_vec(),
            ek_certificate,
            request: self.digest,
        })
    }
}

impl Challenge {
    /// Reads a challenge.
    ///
    /// # Errors
    /// [`EnrollError`] says which rule of its form it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnrollError> {
        let form: ChallengeForm = read(bytes)?;
        is_a(&form.affiant, CHALLENGE)?;
        let challenge = Self {
            request: Digest(form.request.array("request", "32")?),
            nonce: form.nonce.array("nonce", "16")?,
            credential: Credential {
                blob: limited("blob", form.blob, 68, "at most 68")?,
                encrypted_seed: limited("seed", form.seed, 256, "at most 256")?,
            },
        };
        is_canonical(bytes, &challenge.to_bytes()?)?;
        Ok(challenge)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// As [`Request::to_bytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, EnrollError> {
        write(&ChallengeForm {
            affiant: CHALLENGE.to_owned(),
            request: Base64::of(&self.request.0),
            nonce: Base64::of(&self.nonce),
            blob: Base64::of(&self.credential.blob),
            seed: Base64::of(&self.credential.encrypted_seed),
        })
    }

    /// The answer, with the secret that the TPM found in the credential.
    #[must_use]
    pub fn answer(&self, secret: &[u8; SECRET_BYTES]) -> Response {
        let proof = prove(secret, self.request, self.nonce).finalize().into_bytes().into();
        Response { request: self.request, nonce: self.nonce, proof }
    }
}

impl Response {
    /// Reads a response.
    ///
    /// # Errors
    /// [`EnrollError`] says which rule of its form it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnrollError> {
        let form: ResponseForm = read(bytes)?;
        is_a(&form.affiant, RESPONSE)?;
        let response = Self {
            request: Digest(form.request.array("request", "32")?),
            nonce: form.nonce.array("nonce", "16")?,
            proof: form.proof.array("proof", "32")?,
        };
        is_canonical(bytes, &response.to_bytes()?)?;
        Ok(response)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// As [`Request::to_bytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, EnrollError> {
        write(&ResponseForm {
            affiant: RESPONSE.to_owned(),
            request: Base64::of(&self.request.0),
            nonce: Base64::of(&self.nonce),
            proof: Base64::of(&self.proof),
        })
    }
}

impl IssuedChain {
    /// Reads what an authority issued. The certificates are not read.
    ///
    /// # Errors
    /// [`EnrollError`] says which rule of its form it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnrollError> {
        let form: IssuedForm = read(bytes)?;
        is_a(&form.affiant, CERTIFICATE)?;
        let issued = Self {
            request: Digest(form.request.array("request", "32")?),
            certificates: chain("certificates", form.certificates)?,
            ek_certificates: chain("ek_certificates", form.ek_certificates)?,
        };
        if issued.certificates.is_empty() {
            return Err(EnrollError::Size { member: "certificates", seen: 0, expected: "at least one certificate" });
        }
        is_canonical(bytes, &issued.to_bytes()?)?;
        Ok(issued)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// As [`Request::to_bytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, EnrollError> {
        let list = |chain: &[Vec<u8>]| chain.iter().map(|bytes| Base64::of(bytes)).collect();
        write(&IssuedForm {
            affiant: CERTIFICATE.to_owned(),
            request: Base64::of(&self.request.0),
            certificates: list(&self.certificates),
            ek_certificates: list(&self.ek_certificates),
        })
    }
}

impl From<SignedForm> for Signed {
    fn from(form: SignedForm) -> Self {
        Self { attest: form.attest.0, sig: form.sig.0 }
    }
}

impl From<&Signed> for SignedForm {
    fn from(signed: &Signed) -> Self {
        Self { attest: Base64::of(&signed.attest), sig: Base64::of(&signed.sig) }
    }
}

/// An attestation of this request by this key.
fn signed(ak: &Ak, member: &'static str, signed: &Signed, statement: &[u8; 32]) -> Result<Attest, EnrollError> {
    let attest = ak.verify(&signed.attest, &signed.sig).map_err(|source| EnrollError::NotSigned { member, source })?;
    if attest.extra_data != statement {
        return Err(EnrollError::OtherRequest { member });
    }
    Ok(attest)
}

fn read_counter(ak: &Ak, index: u32, counter: &Signed, statement: &[u8; 32]) -> Result<CounterPin, EnrollError> {
    // Its name follows from its handle, since all counters of this format have the same attributes: an index that can
    // be written, or is kept in memory, has another name and counts nothing.
    let expected_name = NvPublic::counter(index).name();
    let certified = signed(ak, "counter", counter, statement)?;
    match certified.attested {
        Attested::Nv { name, offset: 0, contents } if name == expected_name => {
            let seen = contents.len();
            let value = contents.try_into().map_err(|_bytes| EnrollError::Size {
                member: "counter",
                seen,
                expected: "8 bytes of content",
            })?;
            Ok(CounterPin { name: name.as_bytes().to_vec(), value: u64::from_be_bytes(value) })
        }
        _ => {
            let expected = "the counter that the wish names";
            Err(EnrollError::OtherAttestation { member: "counter", expected })
        }
    }
}

/// SHA-256 over a tag and parts, each with its length before it.
fn tagged(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new().chain_update(tag);
    for part in parts {
        // Lengths of files that were read, far below 2^32.
        hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The secret of a challenge: nobody but the authority can compute it, and the authority need not remember it.
fn secret(secrets: &[u8; 32], request: Digest, nonce: [u8; NONCE_BYTES]) -> [u8; SECRET_BYTES] {
    let mac = keyed(secrets, "affiant/enroll/secret/v1", request, nonce);
    mac.finalize().into_bytes().into()
}

fn prove(secret: &[u8; SECRET_BYTES], request: Digest, nonce: [u8; NONCE_BYTES]) -> Hmac<Sha256> {
    keyed(secret, "affiant/enroll/proof/v1", request, nonce)
}

fn keyed(key: &[u8; 32], tag: &str, request: Digest, nonce: [u8; NONCE_BYTES]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new(&block.into());
    mac.update(tag.as_bytes());
    mac.update(&request.0);
    mac.update(&nonce);
    mac
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, EnrollError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(EnrollError::TooLarge { seen: bytes.len() });
    }
    serde_json::from_slice(bytes).map_err(|error| EnrollError::Form { reason: error.to_string() })
}

/// One line.
fn write<T: Serialize>(form: &T) -> Result<Vec<u8>, EnrollError> {
    let mut bytes = serde_json::to_vec(form).map_err(|error| EnrollError::Form { reason: error.to_string() })?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn is_a(seen: &str, expected: &'static str) -> Result<(), EnrollError> {
    if seen == expected { Ok(()) } else { Err(EnrollError::Other { seen: seen.chars().take(64).collect(), expected }) }
}

fn is_canonical(read: &[u8], written: &[u8]) -> Result<(), EnrollError> {
    if read == written { Ok(()) } else { Err(EnrollError::NotCanonical) }
}

fn chain(member: &'static str, chain: Vec<Base64>) -> Result<Vec<Vec<u8>>, EnrollError> {
    if chain.len() > CHAIN_MAX {
        return Err(EnrollError::TooMany { member, seen: chain.len() });
    }
    chain.into_iter().map(|bytes| limited(member, bytes, CERTIFICATE_BYTES_MAX, "at most 16384")).collect()
}

fn limited(member: &'static str, bytes: Base64, max: usize, expected: &'static str) -> Result<Vec<u8>, EnrollError> {
    if bytes.0.len() > max {
        return Err(EnrollError::Size { member, seen: bytes.0.len(), expected });
    }
    Ok(bytes.0)
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::SigningKey;
    use p256::ecdsa::signature::Signer as _;

    use super::*;
    use crate::attest::testdata;
    use crate::attest::tpm::{EcdsaSignature, Name, Parameters};

    const INDEX: u32 = 0x0150_0100;
    const SECRETS: [u8; 32] = [0x77; 32];
    const NONCE: [u8; NONCE_BYTES] = [0x88; NONCE_BYTES];
    const RANDOM: Randomness = Randomness { first: [0x5a; 32], second: [0xa5; 32] };

    /// A key that plays one of a TPM, with a public area like the recorded one's.
    fn public(recorded: &[u8], key: &SigningKey) -> Vec<u8> {
        let mut public = Public::parse(recorded).unwrap();
        let point = key.verifying_key().to_sec1_point(false);
        let Parameters::Ecc { x, y, .. } = &mut public.parameters else { panic!("{public:?}") };
        (*x, *y) = (point.x().unwrap().to_vec(), point.y().unwrap().to_vec());
        public.to_bytes()
    }

    fn ak_key() -> SigningKey {
        SigningKey::from_slice(&[3; 32]).unwrap()
    }

    fn wish() -> Wish {
        Wish {
            origin: "affiant.example/host".to_owned(),
            log_key: PublicKey([1; 32]),
            genesis: LeafHash([2; 32]),
            first_epoch_key: PublicKey([3; 32]),
            ak_public: public(testdata::AK_PUBLIC, &ak_key()),
            ek_public: testdata::EK_PUBLIC.to_vec(),
            ek_certificates: vec![vec![0x30, 0x00]],
            counter_index: Some(INDEX),
            tpm: "IBM SW   TPM firmware 1.2".to_owned(),
        }
    }

    fn qualified(wish: &Wish) -> (Name, Name) {
        let name = Public::parse(&wish.ak_public).unwrap().name();
        let ek = Public::parse(&wish.ek_public).unwrap().name();
        (name.clone(), name.qualified_under(&ek.qualified_in(ENDORSEMENT)))
    }

    fn sign(attest: &Attest) -> Signed {
        let attest = attest.to_bytes();
        let signature: p256::ecdsa::Signature = ak_key().sign(&attest);
        let (r, s) = signature.split_bytes();
        Signed { attest, sig: EcdsaSignature { r: r.into(), s: s.into() }.to_bytes() }
    }

    fn attests(wish: &Wish) -> (Attest, Attest) {
        let (name, qualified_name) = qualified(wish);
        let mut certified = Attest::parse(testdata::CERTIFY_ATTEST).unwrap();
        certified.qualified_signer = qualified_name.clone();
        certified.extra_data = wish.statement().unwrap().to_vec();
        let counter = NvPublic::counter(INDEX).name();
        let attested = Attested::Nv { name: counter, offset: 0, contents: 42_u64.to_be_bytes().to_vec() };
        let counter = Attest { attested, ..certified.clone() };
        certified.attested = Attested::Certify { name, qualified_name };
        (certified, counter)
    }

    fn request(wish: Wish) -> Request {
        let (certified, counter) = attests(&wish);
        Request { wish, certified: sign(&certified), counter: Some(sign(&counter)) }
    }

    #[test]
    fn a_key_that_opens_the_challenge_is_tied_to_its_log() {
        let applicant = request(wish()).verify().unwrap();
        let challenge = applicant.challenge(&SECRETS, NONCE, &RANDOM).unwrap();
        assert_eq!(Challenge::parse(&challenge.to_bytes().unwrap()), Ok(challenge.clone()));
        // What the TPM would find: tests/credential.rs has a real one do it.
        let found = secret(&SECRETS, applicant.request(), NONCE);
        let response = challenge.answer(&found);
        assert_eq!(Response::parse(&response.to_bytes().unwrap()), Ok(response));
        let certificate = Some(Digest([9; 32]));
        let tie = applicant.accept(&response, &SECRETS, certificate).unwrap();
        let clock = Attest::parse(testdata::CERTIFY_ATTEST).unwrap().clock_info;
        let expected = Tie {
            origin: wish().origin,
            log_key: wish().log_key,
            genesis: wish().genesis,
            first_epoch_key: wish().first_epoch_key,
            counter: Some(CounterPin { name: NvPublic::counter(INDEX).name().as_bytes().to_vec(), value: 42 }),
            reset_count: clock.reset_count,
            restart_count: clock.restart_count,
            clock_ms: clock.clock,
            ak_name: qualified(&wish()).0.as_bytes().to_vec(),
            ek_name: testdata::EK_NAME.to_vec(),
            ek_certificate: certificate,
            request: applicant.request(),
        };
        assert_eq!(tie, expected);
        assert_eq!(Tie::from_der(&tie.to_der().unwrap()), Ok(tie));
    }

    #[test]
    fn a_proof_is_good_for_one_request_one_nonce_and_one_authority() {
        let applicant = request(wish()).verify().unwrap();
        let challenge = applicant.challenge(&SECRETS, NONCE, &RANDOM).unwrap();
        let good = challenge.answer(&secret(&SECRETS, applicant.request(), NONCE));
        let accept = |response: &Response, secrets| applicant.accept(response, secrets, None).map(|_| ());
        assert_eq!(accept(&good, &SECRETS), Ok(()));
        assert_eq!(accept(&good, &[0; 32]), Err(EnrollError::Proof));
        assert_eq!(accept(&Response { nonce: [0; NONCE_BYTES], ..good }, &SECRETS), Err(EnrollError::Proof));
        assert_eq!(accept(&Response { proof: [0; 32], ..good }, &SECRETS), Err(EnrollError::Proof));
        assert_eq!(accept(&Response { request: Digest([0; 32]), ..good }, &SECRETS), Err(EnrollError::ForOther));
        // Whoever did not open it guesses.
        assert_eq!(accept(&challenge.answer(&[0; 32]), &SECRETS), Err(EnrollError::Proof));
    }

    #[test]
    fn whatever_is_changed_in_a_request_its_signatures_tell() {
        let good = request(wish());
        let refused = |bend: &dyn Fn(&mut Request)| {
            let mut bent = good.clone();
            bend(&mut bent);
            bent.verify().unwrap_err()
        };
        let changes: [&dyn Fn(&mut Request); 8] = [
            &|request| request.wish.origin = "affiant.example/other".to_owned(),
            &|request| request.wish.log_key = PublicKey([9; 32]),
            &|request| request.wish.genesis = LeafHash([9; 32]),
            &|request| request.wish.first_epoch_key = PublicKey([9; 32]),
            &|request| request.wish.ek_certificates.clear(),
            &|request| request.wish.counter_index = Some(INDEX + 1),
            &|request| request.wish.tpm.clear(),
            &|request| {
                request.wish.counter_index = None;
                request.counter = None;
            },
        ];
        for change in changes {
            assert_eq!(refused(change), EnrollError::OtherRequest { member: "certified" });
        }
        let counter = |error: EnrollError| matches!(error, EnrollError::OtherAttestation { member: "counter", .. });
        assert!(counter(refused(&|request| request.counter = None)));
        assert!(counter(refused(&|request| request.counter = Some(request.certified.clone()))));
        let forged = EnrollError::NotSigned { member: "certified", source: KeyError::Forged };
        assert_eq!(refused(&|request| request.certified.sig = testdata::CERTIFY_SIG.to_vec()), forged);
        // The key of another host, or below another endorsement key: the signature is good and names another place.
        let elsewhere = refused(&|request| {
            let other = SigningKey::from_slice(&[4; 32]).unwrap();
            request.wish.ek_public = public(testdata::EK_PUBLIC, &other);
        });
        assert_eq!(elsewhere, EnrollError::NotSigned { member: "certified", source: KeyError::Signer });
        let unrestricted = refused(&|request| {
            let mut public = Public::parse(&request.wish.ak_public).unwrap();
            public.attributes ^= crate::attest::tpm::public::RESTRICTED;
            request.wish.ak_public = public.to_bytes();
        });
        assert!(matches!(unrestricted, EnrollError::Key(KeyError::Attributes { .. })));
        let signs = refused(&|request| request.wish.ek_public = request.wish.ak_public.clone());
        assert!(matches!(signs, EnrollError::Endorsement(CredentialError::Attributes { .. })));
    }

    #[test]
    fn the_counter_must_be_one_that_only_counts_and_is_certified_for_this_request() {
        let good = request(wish());
        let refused = |bend: &dyn Fn(&mut Attest)| {
            let mut counter = attests(&good.wish).1;
            bend(&mut counter);
            Request { counter: Some(sign(&counter)), ..good.clone() }.verify().map(|_| ())
        };
        assert_eq!(refused(&|_| {}), Ok(()));
        let other = || EnrollError::OtherAttestation { member: "counter", expected: "the counter that the wish names" };
        let orderly = refused(&|counter| {
            let public = NvPublic { attributes: NvPublic::COUNTER_ATTRIBUTES | 1 << 26, ..NvPublic::counter(INDEX) };
            let contents = vec![0; 8];
            counter.attested = Attested::Nv { name: public.name(), offset: 0, contents };
        });
        assert_eq!(orderly, Err(other()));
        let short = refused(&|counter| {
            let name = NvPublic::counter(INDEX).name();
            counter.attested = Attested::Nv { name, offset: 0, contents: vec![1; 7] };
        });
        let size = EnrollError::Size { member: "counter", seen: 7, expected: "8 bytes of content" };
        assert_eq!(short, Err(size));
        let old = refused(&|counter| counter.extra_data = vec![0; 32]);
        assert_eq!(old, Err(EnrollError::OtherRequest { member: "counter" }));
    }

    #[test]
    fn files_have_one_form() {
        let request = request(wish());
        let bytes = request.to_bytes().unwrap();
        assert_eq!(Request::parse(&bytes), Ok(request.clone()));
        let text = String::from_utf8(bytes).unwrap();
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Request::parse(text.replacen(from, to, 1).as_bytes()).unwrap_err()
        };
        assert_eq!(refused("\n", ""), EnrollError::NotCanonical);
        assert_eq!(refused("\n", "\n\n"), EnrollError::NotCanonical);
        assert_eq!(refused("{", "{ "), EnrollError::NotCanonical);
        assert_eq!(refused("affiant.example", "\\u0061ffiant.example"), EnrollError::NotCanonical);
        assert!(matches!(refused("\"tpm\"", "\"tpm\":\"\",\"tpm\""), EnrollError::Form { .. }));
        assert!(matches!(refused("\"tpm\"", "\"tmp\""), EnrollError::Form { .. }));
        assert!(matches!(refused("\"log_key\":\"", "\"log_key\":\"A"), EnrollError::Form { .. }));
        let size = EnrollError::Size { member: "log_key", seen: 35, expected: "32" };
        assert_eq!(refused("\"log_key\":\"", "\"log_key\":\"AAAA"), size);
        assert!(matches!(refused("affiant.example", "affiant example"), EnrollError::Origin(_)));
        assert_eq!(refused("firmware", "\\u001b[2J"), EnrollError::TpmText);
        let other = |seen: &str| EnrollError::Other { seen: seen.to_owned(), expected: REQUEST };
        assert_eq!(refused(REQUEST, "enroll-request/v2"), other("enroll-request/v2"));
        assert_eq!(refused(REQUEST, RESPONSE), other(RESPONSE));
        let large = vec![b' '; FILE_BYTES_MAX + 1];
        assert_eq!(Request::parse(&large), Err(EnrollError::TooLarge { seen: large.len() }));
        let mut many = request;
        many.wish.ek_certificates = vec![vec![]; CHAIN_MAX + 1];
        let too_many = EnrollError::TooMany { member: "ek_certificates", seen: CHAIN_MAX + 1 };
        assert_eq!(Request::parse(&many.to_bytes().unwrap()), Err(too_many));

        let issued =
            IssuedChain { request: Digest([1; 32]), certificates: vec![vec![1]], ek_certificates: vec![vec![2]] };
        assert_eq!(IssuedChain::parse(&issued.to_bytes().unwrap()), Ok(issued.clone()));
        let none = IssuedChain { certificates: vec![], ..issued };
        assert!(matches!(IssuedChain::parse(&none.to_bytes().unwrap()), Err(EnrollError::Size { .. })));
    }
}
