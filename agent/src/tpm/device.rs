//! One TPM command after the other: keys made and loaded, registers quoted, the counter stepped and certified.
//!
//! Owns the connection and nothing between two calls but saved contexts of the EK and the AK, so that neither is derived
//! anew for each quote. It blocks for as long as the TPM does: only [`super::worker`]'s thread, and commands that a person
//! waits for, call it. Every call opens the TPM, flushes what it made, and closes it again.
//!
//! Invariant: what a call returns was answered by the TPM in that call; nothing is repeated from memory.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek, nv};
use tss_esapi::attributes::{NvIndexAttributesBuilder, ObjectAttributesBuilder, SessionAttributesBuilder};
use tss_esapi::constants::response_code::Tss2ResponseCode;
use tss_esapi::constants::{CapabilityType, NvIndexType, PropertyTag, SessionType};
use tss_esapi::handles::{
    AuthHandle, KeyHandle, NvIndexHandle, NvIndexTpmHandle, ObjectHandle, PersistentTpmHandle, SessionHandle, TpmHandle,
};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::{Hierarchy, NvAuth, Provision};
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    AttestInfo, CapabilityData, Data, Digest, EccPoint, EccScheme, EncryptedSecret, HashScheme, IdObject,
    KeyDerivationFunctionScheme, KeyedHashScheme, Nonce, NvPublicBuilder, PcrSelectionList, PcrSlot, Private, Public,
    PublicBuilder, PublicEccParametersBuilder, PublicKeyedHashParameters, SensitiveData, SignatureScheme,
    SymmetricDefinition, SymmetricDefinitionObject,
};
use tss_esapi::traits::UnMarshall as _;
use tss_esapi::tss2_esys::{TPM2B_NV_PUBLIC, TPMS_CONTEXT, TPMS_NV_PUBLIC};
use tss_esapi::utils::TpmsContext;
use tss_esapi::{Context, Error, TctiNameConf};
use zeroize::Zeroizing;

use super::blob::{Blob, BlobError};
use super::keyfile;
use super::{
    AkFrom, CERTIFICATES_MAX, COUNTER_ATTRIBUTES, Certified, Clock, CounterFacts, CounterKnown, Identity, Looked,
    NV_WRITTEN, Place, QUOTED_PCRS, Quote, ResponseCode, TpmError, certificates_in,
};
use crate::sys::tss;

/// The EK's certificate in NV, for the ECC P-256 template (TCG EK credential profile 2.5, section 2.2.1.4).
const EK_CERTIFICATE_INDEX: u32 = 0x01c0_000a;
/// Where certificates above the EK's may be (same, section 2.2.1.5.2).
const EK_CHAIN_INDEXES: std::ops::RangeInclusive<u32> = 0x01c0_0100..=0x01c0_01ff;
/// First transient handle (TPM 2.0 part 2, section 7.2).
const TRANSIENT_FIRST: u32 = 0x8000_0000;
/// Most handles asked for at once.
const HANDLES_MAX: u32 = 256;
/// Bytes of a counter (TPM 2.0 part 2, section 13.2).
const COUNTER_BYTES: u16 = 8;
/// TPM_ALG_SHA256 (TPM 2.0 part 2, section 6.3).
const ALG_SHA256: u16 = 0x000b;
/// How often a quote is made again when a register changed between being read and being quoted.
const QUOTE_TRIES: u32 = 5;
/// Pauses before a command that the TPM put off is sent again: 1.6 s in all. The library has tried five times by then.
const RETRY_PAUSES_MS: [u64; 6] = [25, 50, 100, 200, 400, 800];
/// Bytes of an Ed25519 seed.
const SEED_BYTES: usize = 32;

/// A TPM with the agent's keys in it. Good until the TPM is reset, and says so ([`TpmError::Reset`]) after that.
pub struct Device {
    place: Place,
    tcti: TctiNameConf,
    ek_blob_name: Vec<u8>,
    log_key: PathBuf,
    identity: Identity,
    ek: TpmsContext,
    ak: TpmsContext,
}

impl Device {
    /// Finds the EK, loads the AK, and makes one where there is none that this TPM can load. `keys` is the directory of
    /// keys, which exists with mode 0700; a new AK's blob is durable there when this returns.
    ///
    /// # Errors
    /// [`TpmError::Absent`] and whatever a TPM answers.
    pub fn open(place: &Place, keys: &Path) -> Result<Self, TpmError> {
        let tcti = tcti_of(place)?;
        let context = &mut connect(place, &tcti)?;
        if !place.has_resource_manager() {
            flush_leftovers(context)?;
        }
        let ek = make_ek(context)?;
        let ek_name = step("name the EK", || context.tr_get_name(ek.into()))?.value().to_vec();
        let ek_public = step("read the EK", || context.read_public(ek))?.0;
        let (ak, ak_from) = load_or_make_ak(context, ek, &ek_name, &keys.join(AK_FILE))?;
        let (ak_public, ak_name, ak_qualified_name) = step("read the AK", || context.read_public(ak))?;
        let ek_certificates = ek_certificates(context)?;
        let tpm = describe(context)?;
        let identity = Identity {
            ak_public: marshalled("read the AK", &ak_public)?,
            ak_name: ak_name.value().to_vec(),
            ak_qualified_name: ak_qualified_name.value().to_vec(),
            ek_public: marshalled("read the EK", &ek_public)?,
            ek_name: ek_name.clone(),
            ek_certificates,
            tpm,
            ak_from,
        };
        let saved_ek = step("save the EK's context", || context.context_save(ek.into()))?;
        let saved_ak = step("save the AK's context", || context.context_save(ak.into()))?;
        Ok(Self {
            place: place.clone(),
            tcti,
            ek_blob_name: ek_name,
            log_key: keys.join(LOG_KEY_FILE),
            identity,
            ek: saved_ek,
            ak: saved_ak,
        })
    }

    /// Looks at a TPM, and whether an EK can be made in it, without leaving anything there.
    ///
    /// # Errors
    /// Whatever a TPM answers.
    pub fn look(place: &Place, index: u32) -> Result<Looked, TpmError> {
        let context = &mut connect_to(place)?;
        let ek = make_ek(context)?;
        flush(context, ek.into());
        let counter = find_index(context, index)?.map(|handle| check_counter(context, handle, index).map(drop));
        Ok(Looked {
            tpm: describe(context)?,
            has_certificate: !ek_certificates(context)?.is_empty(),
            pcrs: available_pcrs(context)?.get_selections().iter().map(|bank| bank.selected().len()).sum(),
            counter,
        })
    }

    /// Looks whether the counter that a log knows is there; its value. `None`: nothing is at its handle.
    ///
    /// # Errors
    /// [`TpmError::CounterForeign`], [`TpmError::CounterMoved`]: it is not that log's. Whatever else a TPM answers.
    pub fn find_counter(place: &Place, known: &CounterKnown) -> Result<Option<u64>, TpmError> {
        Ok(known_counter(&mut connect_to(place)?, known)?.map(|(_, value)| value))
    }

    /// Removes the counter that a log knows, with the owner's authorization, which must be empty; the value that it had.
    ///
    /// # Errors
    /// As [`Device::find_counter`].
    pub fn remove_counter(place: &Place, known: &CounterKnown) -> Result<Option<u64>, TpmError> {
        let mut context = connect_to(place)?;
        let Some((handle, value)) = known_counter(&mut context, known)? else { return Ok(None) };
        step("remove the counter", || {
            context.execute_with_session(Some(AuthSession::Password), |context| {
                context.nv_undefine_space(Provision::Owner, handle)
            })
        })?;
        Ok(Some(value))
    }

    /// The AK and what stands above it.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the sealed log key lies in a directory of keys.
    #[must_use]
    pub fn log_key_path(keys: &Path) -> PathBuf {
        keys.join(LOG_KEY_FILE)
    }

    /// Has the AK sign the registers of [`QUOTED_PCRS`] and these 32 bytes. The values that come with it are those that were
    /// signed.
    ///
    /// # Errors
    /// [`TpmError::PcrsUnstable`], and whatever a TPM answers.
    pub fn quote(&self, qualifying: &[u8; 32]) -> Result<Quote, TpmError> {
        let mut context = connect(&self.place, &self.tcti)?;
        let context = &mut context;
        let selection = available_pcrs(context)?;
        let ak: KeyHandle = resume(context, &self.ak)?.into();
        for _ in 0..QUOTE_TRIES {
            let pcrs = read_pcrs(context, &selection)?;
            let (attest, signature) = step("quote", || {
                context.execute_with_session(Some(AuthSession::Password), |context| {
                    context.quote(ak, data(qualifying)?, SignatureScheme::Null, selection.clone())
                })
            })?;
            let AttestInfo::Quote { info } = attest.attested() else {
                return Err(TpmError::Library { step: "quote", what: "the attestation is not a quote".to_owned() });
            };
            let mut digest = Sha256::new();
            for (_, value) in &pcrs {
                digest.update(value);
            }
            if info.pcr_digest().value() == digest.finalize().as_slice() {
                return Ok(Quote {
                    attest: marshalled("quote", &attest)?,
                    signature: marshalled("quote", &signature)?,
                    pcrs,
                });
            }
        }
        Err(TpmError::PcrsUnstable(QUOTE_TRIES))
    }

    /// Has the AK certify itself: its name and qualified name in signed bytes, for enrolment (TPM2_Certify).
    ///
    /// # Errors
    /// Whatever a TPM answers.
    pub fn certify_ak(&self, qualifying: &[u8; 32]) -> Result<Certified, TpmError> {
        let mut context = connect(&self.place, &self.tcti)?;
        let ak = resume(&mut context, &self.ak)?;
        let sessions = (Some(AuthSession::Password), Some(AuthSession::Password), None);
        let (attest, signature) = step("certify the AK", || {
            context.execute_with_sessions(sessions, |context| {
                context.certify(ak, ak.into(), data(qualifying)?, SignatureScheme::Null)
            })
        })?;
        Ok(Certified {
            attest: marshalled("certify the AK", &attest)?,
            signature: marshalled("certify the AK", &signature)?,
        })
    }

    /// Has another key of this TPM, at a persistent handle and without an authorization value, certify the AK
    /// (TPM2_Certify). The qualifying data is empty: whoever reads it learns that both keys are in one TPM, and nothing
    /// else is said.
    ///
    /// # Errors
    /// [`TpmError::Library`] for a handle that is not a persistent one; whatever a TPM answers, `HANDLE` where no key is
    /// there, `AUTH_FAIL` where it has an authorization value.
    pub fn certify_ak_with(&self, key: u32) -> Result<Certified, TpmError> {
        let what = "certify the AK with another key";
        let handle = PersistentTpmHandle::new(key).map_err(|error| failed(what, error))?;
        let mut context = connect(&self.place, &self.tcti)?;
        let ak = resume(&mut context, &self.ak)?;
        let signer: KeyHandle =
            step("look for the identity key", || context.tr_from_tpm_public(TpmHandle::Persistent(handle)))?.into();
        let sessions = (Some(AuthSession::Password), Some(AuthSession::Password), None);
        let (attest, signature) = step(what, || {
            context.execute_with_sessions(sessions, |context| {
                context.certify(ak, signer, Data::default(), SignatureScheme::Null)
            })
        })?;
        Ok(Certified { attest: marshalled(what, &attest)?, signature: marshalled(what, &signature)? })
    }

    /// Opens a credential that somebody made for this EK and this AK (TPM2_ActivateCredential). `credential` is the content
    /// of TPM2B_ID_OBJECT, `secret` that of TPM2B_ENCRYPTED_SECRET.
    ///
    /// # Errors
    /// Whatever a TPM answers: `INTEGRITY` or `VALUE` for a credential of another EK or AK.
    pub fn activate_credential(&self, credential: &[u8], secret: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let what = "activate a credential";
        let credential = IdObject::try_from(credential).map_err(|error| failed(what, error))?;
        let secret = EncryptedSecret::try_from(secret).map_err(|error| failed(what, error))?;
        let mut context = connect(&self.place, &self.tcti)?;
        let context = &mut context;
        let ek: KeyHandle = resume(context, &self.ek)?.into();
        let ak: KeyHandle = resume(context, &self.ak)?.into();
        let opened = with_ek_policy(context, ek, false, |context, policy| {
            step(what, || {
                context.execute_with_sessions((Some(AuthSession::Password), Some(policy), None), |context| {
                    context.activate_credential(ak, ek, credential.clone(), secret.clone())
                })
            })
        })?;
        Ok(Zeroizing::new(opened.value().to_vec()))
    }

    /// Seals a log key's seed below the EK, its public half in clear beside it. Durable when it returns.
    ///
    /// # Errors
    /// Whatever a TPM answers; [`TpmError::Io`].
    pub fn seal_log_key(&self, seed: &[u8; SEED_BYTES], public_key: &[u8; 32]) -> Result<(), TpmError> {
        let what = "seal the log key";
        let mut context = connect(&self.place, &self.tcti)?;
        let context = &mut context;
        let ek: KeyHandle = resume(context, &self.ek)?.into();
        let template = sealed_template().map_err(|error| failed(what, error))?;
        let seed = SensitiveData::try_from(seed.to_vec()).map_err(|error| failed(what, error))?;
        let made = with_ek_policy(context, ek, true, |context, policy| {
            step(what, || {
                context.execute_with_session(Some(policy), |context| {
                    context.create(ek, template.clone(), None, Some(seed.clone()), None, None)
                })
            })
        })?;
        let blob = Blob {
            parent: self.ek_blob_name.clone(),
            public: marshalled(what, &made.out_public)?,
            private: made.out_private.value().to_vec(),
            clear: public_key.to_vec(),
        };
        keyfile::store(&blob, &self.log_key)
    }

    /// Unseals the log key's seed, encrypted between the TPM and this process; `None` when there is no sealed one.
    ///
    /// # Errors
    /// [`TpmError::KeyLost`] when this TPM cannot, and never will; whatever else a TPM answers.
    pub fn unseal_log_key(&self) -> Result<Option<Zeroizing<[u8; SEED_BYTES]>>, TpmError> {
        let what = "unseal the log key";
        let Some(blob) = keyfile::load(&self.log_key)? else { return Ok(None) };
        if blob.parent != self.ek_blob_name {
            return Err(TpmError::KeyLost { why: "it was sealed by another TPM" });
        }
        let mut context = connect(&self.place, &self.tcti)?;
        let context = &mut context;
        let ek: KeyHandle = resume(context, &self.ek)?.into();
        let key = match load(context, ek, &blob, &self.log_key, "load the log key") {
            Err(TpmError::Refused { code, .. }) if code.is_integrity() => {
                return Err(TpmError::KeyLost { why: "the TPM was cleared since" });
            }
            other => other?,
        };
        // Salted to the EK: who listens on the bus of a discrete TPM does not get the seed.
        let session = session(context, Some(ek), SessionType::Hmac)?;
        let unsealed = step(what, || context.execute_with_session(Some(session), |context| context.unseal(key.into())));
        flush(context, SessionHandle::from(session).into());
        let unsealed = unsealed?;
        let Some(seed) = unsealed.value().first_chunk::<SEED_BYTES>().filter(|_| unsealed.value().len() == SEED_BYTES)
        else {
            return Err(TpmError::Blob { path: self.log_key.clone(), fault: BlobError::Clear(unsealed.value().len()) });
        };
        Ok(Some(Zeroizing::new(*seed)))
    }

    /// Reads the counter; makes it where there is none at this handle. A new one is stepped once, which gives it its first
    /// value: above every value that any counter of this TPM ever had (TPM 2.0 part 1, section 37.2.4).
    ///
    /// # Errors
    /// [`TpmError::CounterForeign`], and whatever a TPM answers.
    pub fn counter(&self, index: u32) -> Result<CounterFacts, TpmError> {
        let mut context = connect(&self.place, &self.tcti)?;
        let context = &mut context;
        let (handle, made) = match find_index(context, index)? {
            Some(handle) => (handle, false),
            None => (define_counter(context, index)?, true),
        };
        if !check_counter(context, handle, index)?.written {
            increment(context, handle)?;
        }
        let value = read_counter(context, handle)?;
        // After the first step: the name tells that it was written.
        let name = check_counter(context, handle, index)?.name;
        Ok(CounterFacts { index, name, value, made })
    }

    /// Steps the counter from the value below `to`, and nothing else: when it stands elsewhere it is left alone.
    ///
    /// # Errors
    /// [`TpmError::CounterMoved`], [`TpmError::CounterGone`], and whatever a TPM answers: then it may have been stepped.
    pub fn step_counter(&self, index: u32, to: u64) -> Result<(), TpmError> {
        let mut context = connect(&self.place, &self.tcti)?;
        let context = &mut context;
        let handle = find_index(context, index)?.ok_or(TpmError::CounterGone(index))?;
        check_counter(context, handle, index)?;
        let seen = read_counter(context, handle)?;
        if seen.checked_add(1) != Some(to) {
            return Err(TpmError::CounterMoved { expected: to.saturating_sub(1), seen });
        }
        increment(context, handle)?;
        let seen = read_counter(context, handle)?;
        if seen == to { Ok(()) } else { Err(TpmError::CounterMoved { expected: to, seen }) }
    }

    /// Has the AK sign the counter's name and value and these 32 bytes (TPM2_NV_Certify).
    ///
    /// # Errors
    /// [`TpmError::CounterGone`], and whatever a TPM answers.
    pub fn certify_counter(&self, index: u32, qualifying: &[u8; 32]) -> Result<Certified, TpmError> {
        let what = "certify the counter";
        let ak = TPMS_CONTEXT::try_from(self.ak.clone()).map_err(|error| failed(what, error))?;
        again(|| tss::nv_certify(&self.tcti_text()?, &ak, index, qualifying, COUNTER_BYTES)).map_err(
            |code| match code {
                code if code.is_handle() => TpmError::CounterGone(index),
                code if code.is_integrity() => TpmError::Reset,
                code => refused(what, code),
            },
        )
    }

    /// The TPM's clock, unsigned.
    ///
    /// # Errors
    /// Whatever a TPM answers.
    pub fn clock(&self) -> Result<Clock, TpmError> {
        again(|| tss::read_clock(&self.tcti_text()?)).map_err(|code| refused("read the clock", code))
    }

    fn tcti_text(&self) -> Result<CString, u32> {
        // A TCTI that the library has read is one that it can write; TSS2_BASE_RC_BAD_VALUE of its layer if not.
        CString::try_from(self.tcti.clone()).map_err(|_unwritable| 0x000a_000b)
    }
}

/// Name of the AK's blob in the directory of keys.
const AK_FILE: &str = "ak.tpm";
/// Name of the sealed log key.
const LOG_KEY_FILE: &str = "log.tpm";

fn tcti_of(place: &Place) -> Result<TctiNameConf, TpmError> {
    TctiNameConf::from_str(place.tcti()).map_err(|_unknown| TpmError::Tcti(place.tcti().to_owned()))
}

fn connect_to(place: &Place) -> Result<Context, TpmError> {
    connect(place, &tcti_of(place)?)
}

fn connect(place: &Place, tcti: &TctiNameConf) -> Result<Context, TpmError> {
    Context::new(tcti.clone()).map_err(|error| match code_of(error) {
        Some(code) => TpmError::Absent { place: place.to_string(), code },
        None => failed("open the TPM", error),
    })
}

/// Loads a key from its saved context.
fn resume(context: &mut Context, saved: &TpmsContext) -> Result<ObjectHandle, TpmError> {
    match step("load a saved key", || context.context_load(saved.clone())) {
        Err(TpmError::Refused { code, .. }) if code.is_integrity() => Err(TpmError::Reset),
        other => other,
    }
}

/// Flushes what an earlier agent left in a TPM without a resource manager, where objects outlive the connection.
fn flush_leftovers(context: &mut Context) -> Result<(), TpmError> {
    for handle in handles(context, TRANSIENT_FIRST)? {
        let known = step("look at what was left in the TPM", || context.tr_from_tpm_public(handle))?;
        flush(context, known);
    }
    Ok(())
}

fn handles(context: &mut Context, first: u32) -> Result<Vec<TpmHandle>, TpmError> {
    let (capability, _more) = step("list handles", || {
        context.execute_without_session(|context| context.get_capability(CapabilityType::Handles, first, HANDLES_MAX))
    })?;
    match capability {
        CapabilityData::Handles(list) => Ok(list.into_inner()),
        _ => Err(TpmError::Library { step: "list handles", what: "the answer is not a list of handles".to_owned() }),
    }
}

fn make_ek(context: &mut Context) -> Result<KeyHandle, TpmError> {
    let template =
        ek::create_ek_public_from_default_template_2(AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256), None)
            .map_err(|error| failed("make the EK", error))?;
    let made = step("make the EK", || {
        context.execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(Hierarchy::Endorsement, template.clone(), None, None, None, None)
        })
    })?;
    Ok(made.key_handle)
}

fn load_or_make_ak(
    context: &mut Context,
    ek: KeyHandle,
    ek_name: &[u8],
    path: &Path,
) -> Result<(KeyHandle, AkFrom), TpmError> {
    let from = match keyfile::load(path)? {
        None => AkFrom::New,
        Some(blob) if blob.parent != ek_name => AkFrom::OtherTpm,
        Some(blob) => match load(context, ek, &blob, path, "load the AK") {
            Ok(handle) => return Ok((handle, AkFrom::Blob)),
            Err(TpmError::Refused { code, .. }) if code.is_integrity() => AkFrom::Cleared,
            Err(error) => return Err(error),
        },
    };
    let what = "make the AK";
    let template = ak_template().map_err(|error| failed(what, error))?;
    let made = with_ek_policy(context, ek, false, |context, policy| {
        step(what, || {
            context.execute_with_session(Some(policy), |context| {
                context.create(ek, template.clone(), None, None, None, None)
            })
        })
    })?;
    let blob = Blob {
        parent: ek_name.to_vec(),
        public: marshalled(what, &made.out_public)?,
        private: made.out_private.value().to_vec(),
        clear: Vec::new(),
    };
    let handle = load(context, ek, &blob, path, "load the new AK")?;
    keyfile::store(&blob, path)?;
    Ok((handle, from))
}

fn load(
    context: &mut Context,
    ek: KeyHandle,
    blob: &Blob,
    path: &Path,
    what: &'static str,
) -> Result<KeyHandle, TpmError> {
    let unreadable = |part| move |_error| TpmError::Blob { path: path.to_owned(), fault: BlobError::Part(part) };
    let public = Public::unmarshall(&blob.public).map_err(unreadable("public area"))?;
    let private = Private::try_from(blob.private.as_slice()).map_err(unreadable("private part"))?;
    with_ek_policy(context, ek, false, |context, policy| {
        step(what, || {
            context.execute_with_session(Some(policy), |context| context.load(ek, private.clone(), public.clone()))
        })
    })
}

/// The AK: a restricted signing key that never leaves its TPM. `noDA` besides what the profiles of AKs say.
fn ak_template() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_sign_encrypt(true)
        .build()?;
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)))
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_signing_key(true)
        .with_restricted(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

/// A sealed secret: data, not a key; readable with an empty authorization value, in this TPM below this EK only.
fn sealed_template() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
}

/// A session; its parameters are encrypted with a secret that only the TPM of `salt` can know.
fn session(context: &mut Context, salt: Option<KeyHandle>, sort: SessionType) -> Result<AuthSession, TpmError> {
    let what = "start a session";
    let started = step(what, || {
        context.execute_without_session(|context| {
            context.start_auth_session(
                salt,
                None,
                None,
                sort,
                SymmetricDefinition::AES_128_CFB,
                HashingAlgorithm::Sha256,
            )
        })
    })?
    .ok_or_else(|| TpmError::Library { step: what, what: "it gave none".to_owned() })?;
    if salt.is_some() {
        let (attributes, mask) = SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true).build();
        step(what, || context.tr_sess_set_attributes(started, attributes, mask))?;
    }
    Ok(started)
}

/// Runs something with a session that satisfies the EK's policy: PolicySecret of the endorsement hierarchy (TCG EK
/// credential profile, appendix B.6.2).
fn with_ek_policy<T>(
    context: &mut Context,
    ek: KeyHandle,
    encrypted: bool,
    run: impl FnOnce(&mut Context, AuthSession) -> Result<T, TpmError>,
) -> Result<T, TpmError> {
    let what = "satisfy the EK's policy";
    let started = session(context, encrypted.then_some(ek), SessionType::Policy)?;
    let policy = PolicySession::try_from(started).map_err(|error| failed(what, error));
    let outcome = policy.and_then(|policy| {
        step(what, || {
            context.execute_with_session(Some(AuthSession::Password), |context| {
                context.policy_secret(
                    policy,
                    AuthHandle::Endorsement,
                    Nonce::default(),
                    Digest::default(),
                    Nonce::default(),
                    None,
                )
            })
        })?;
        run(context, started)
    });
    flush(context, SessionHandle::from(started).into());
    outcome
}

/// Flushes something at once, so that the next command has room. What cannot be flushed goes with the connection.
fn flush(context: &mut Context, handle: ObjectHandle) {
    if let Err(error) = context.flush_context(handle) {
        tracing::debug!(%error, "a TPM handle could not be flushed");
    }
}

/// The EK's certificate and those above it, as NV has them. None is no error: many TPMs carry none for this template.
fn ek_certificates(context: &mut Context) -> Result<Vec<Vec<u8>>, TpmError> {
    let mut indexes = vec![EK_CERTIFICATE_INDEX];
    for handle in handles(context, *EK_CHAIN_INDEXES.start())? {
        if let TpmHandle::NvIndex(index) = handle
            && EK_CHAIN_INDEXES.contains(&u32::from(index))
        {
            indexes.push(index.into());
        }
    }
    let mut certificates = Vec::new();
    for index in indexes {
        let Some(handle) = find_index(context, index)? else { continue };
        let number = NvIndexTpmHandle::new(index).map_err(|error| failed("read a certificate", error))?;
        let read = context.execute_with_session(Some(AuthSession::Password), |context| {
            nv::read_full(context, NvAuth::NvIndex(handle), number)
        });
        match read {
            Ok(bytes) => certificates.extend(certificates_in(&bytes)),
            // One that only the owner may read is not there for us.
            Err(error) => tracing::debug!(%error, index, "a certificate in NV could not be read"),
        }
    }
    certificates.truncate(CERTIFICATES_MAX);
    Ok(certificates)
}

/// Manufacturer, model and firmware, as the TPM reports them (TPM 2.0 part 2, section 6.13).
fn describe(context: &mut Context) -> Result<String, TpmError> {
    let mut property = |tag| {
        step("read a property", || context.execute_without_session(|context| context.get_tpm_property(tag)))
            .map(Option::unwrap_or_default)
    };
    let text = |words: &[u32]| -> String {
        let bytes = words.iter().flat_map(|word| word.to_be_bytes());
        let text: String = bytes.filter(|byte| byte.is_ascii_graphic() || *byte == b' ').map(char::from).collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let manufacturer = text(&[property(PropertyTag::Manufacturer)?]);
    let model = text(&[
        property(PropertyTag::VendorString1)?,
        property(PropertyTag::VendorString2)?,
        property(PropertyTag::VendorString3)?,
        property(PropertyTag::VendorString4)?,
    ]);
    let firmware = (property(PropertyTag::FirmwareVersion1)?, property(PropertyTag::FirmwareVersion2)?);
    Ok(format!("{manufacturer}, {model}, firmware {:08x}.{:08x}", firmware.0, firmware.1))
}

/// Which of [`QUOTED_PCRS`] the SHA-256 bank has; an empty selection where there is no such bank.
fn available_pcrs(context: &mut Context) -> Result<PcrSelectionList, TpmError> {
    let what = "list the PCRs";
    let (capability, _more) = step(what, || {
        context.execute_without_session(|context| context.get_capability(CapabilityType::AssignedPcr, 0, HANDLES_MAX))
    })?;
    let CapabilityData::AssignedPcr(banks) = capability else {
        return Err(TpmError::Library { step: what, what: "the answer is not a list of PCRs".to_owned() });
    };
    let has = |slot: PcrSlot| {
        banks
            .get_selections()
            .iter()
            .any(|bank| bank.hashing_algorithm() == HashingAlgorithm::Sha256 && bank.is_selected(slot))
    };
    let slots: Vec<PcrSlot> =
        QUOTED_PCRS.iter().filter_map(|number| slot_of(*number)).filter(|slot| has(*slot)).collect();
    let builder = PcrSelectionList::builder();
    let builder = if slots.is_empty() { builder } else { builder.with_selection(HashingAlgorithm::Sha256, &slots) };
    builder.build().map_err(|error| failed(what, error))
}

fn slot_of(number: u32) -> Option<PcrSlot> {
    PcrSlot::try_from(1_u32.checked_shl(number)?).ok()
}

/// The number of a slot, whose value is a bit.
fn number_of(slot: PcrSlot) -> u32 {
    u32::from(slot).trailing_zeros()
}

/// The values of a selection, ascending. The TPM gives at most eight at a time.
fn read_pcrs(context: &mut Context, selection: &PcrSelectionList) -> Result<Vec<(u32, [u8; 32])>, TpmError> {
    let what = "read the PCRs";
    let mut wanted = selection.clone();
    let mut values: Vec<(u32, [u8; 32])> = Vec::new();
    while !wanted.is_empty() {
        let (_, read, digests) =
            step(what, || context.execute_without_session(|context| context.pcr_read(wanted.clone())))?;
        let slots = read.get_selections().iter().flat_map(|bank| bank.selected()).map(number_of);
        let before = values.len();
        for (number, digest) in slots.zip(digests.value()) {
            let value: [u8; 32] = digest.value().try_into().map_err(|_other_length| TpmError::Library {
                step: what,
                what: format!("PCR {number} has {} bytes", digest.value().len()),
            })?;
            values.push((number, value));
        }
        if values.len() == before {
            return Err(TpmError::Library { step: what, what: "it gave none of those that it has".to_owned() });
        }
        wanted.subtract(&read).map_err(|error| failed(what, error))?;
    }
    values.sort_unstable_by_key(|(number, _)| *number);
    Ok(values)
}

/// Asked for by the list of handles: reading the public area of one that is not there is an error in the TPM's and the
/// library's logs.
fn find_index(context: &mut Context, index: u32) -> Result<Option<NvIndexHandle>, TpmError> {
    let what = "look for an NV index";
    let number = NvIndexTpmHandle::new(index).map_err(|error| failed(what, error))?;
    if !handles(context, index)?.contains(&TpmHandle::NvIndex(number)) {
        return Ok(None);
    }
    let found = step(what, || {
        context.execute_without_session(|context| context.tr_from_tpm_public(TpmHandle::NvIndex(number)))
    })?;
    Ok(Some(found.into()))
}

fn define_counter(context: &mut Context, index: u32) -> Result<NvIndexHandle, TpmError> {
    let what = "define the counter";
    let define = || {
        let attributes = NvIndexAttributesBuilder::new()
            .with_owner_write(true)
            .with_auth_write(true)
            .with_owner_read(true)
            .with_auth_read(true)
            .with_no_da(true)
            .with_nv_index_type(NvIndexType::Counter)
            .build()?;
        NvPublicBuilder::new()
            .with_nv_index(NvIndexTpmHandle::new(index)?)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes)
            .with_data_area_size(COUNTER_BYTES.into())
            .build()
    };
    let public = define().map_err(|error| failed(what, error))?;
    step(what, || {
        context.execute_with_session(Some(AuthSession::Password), |context| {
            context.nv_define_space(Provision::Owner, None, public.clone())
        })
    })
}

/// What an index is called, and whether it has a value.
struct CounterPublic {
    name: Vec<u8>,
    written: bool,
}

/// Checks that an index is a counter as [`define_counter`] makes it.
fn check_counter(context: &mut Context, handle: NvIndexHandle, index: u32) -> Result<CounterPublic, TpmError> {
    let what = "read the counter's public area";
    let (public, name) = step(what, || context.execute_without_session(|context| context.nv_read_public(handle)))?;
    let raw = TPM2B_NV_PUBLIC::try_from(public).map_err(|error| failed(what, error))?;
    let TPMS_NV_PUBLIC { attributes, dataSize, authPolicy, nameAlg, .. } = raw.nvPublic;
    let is_ours = attributes & !NV_WRITTEN == COUNTER_ATTRIBUTES
        && dataSize == COUNTER_BYTES
        && authPolicy.size == 0
        && nameAlg == ALG_SHA256;
    if is_ours {
        Ok(CounterPublic { name: name.value().to_vec(), written: attributes & NV_WRITTEN != 0 })
    } else {
        Err(TpmError::CounterForeign { index, attributes, size: dataSize.into() })
    }
}

/// The index of a log's counter, and its value. An index of the same attributes has the same name, whoever made it; but no
/// two counters of a TPM ever stand at the same value (TPM 2.0 part 1, section 37.2.4).
fn known_counter(context: &mut Context, known: &CounterKnown) -> Result<Option<(NvIndexHandle, u64)>, TpmError> {
    let CounterKnown { index, name, value } = known;
    let Some(handle) = find_index(context, *index)? else { return Ok(None) };
    let public = check_counter(context, handle, *index)?;
    let seen = if public.written { read_counter(context, handle)? } else { 0 };
    let is_known = public.name == *name && (seen == *value || Some(seen) == value.checked_add(1));
    if is_known { Ok(Some((handle, seen))) } else { Err(TpmError::CounterMoved { expected: *value, seen }) }
}

fn read_counter(context: &mut Context, handle: NvIndexHandle) -> Result<u64, TpmError> {
    let what = "read the counter";
    let bytes = step(what, || {
        context.execute_with_session(Some(AuthSession::Password), |context| {
            context.nv_read(NvAuth::NvIndex(handle), handle, COUNTER_BYTES, 0)
        })
    })?;
    let bytes: [u8; 8] = bytes.value().try_into().map_err(|_other_length| TpmError::Library {
        step: what,
        what: format!("it has {} bytes", bytes.value().len()),
    })?;
    Ok(u64::from_be_bytes(bytes))
}

fn increment(context: &mut Context, handle: NvIndexHandle) -> Result<(), TpmError> {
    step("step the counter", || {
        context.execute_with_session(Some(AuthSession::Password), |context| {
            context.nv_increment(NvAuth::NvIndex(handle), handle)
        })
    })
}

fn data(qualifying: &[u8; 32]) -> tss_esapi::Result<Data> {
    Data::try_from(qualifying.as_slice())
}

fn marshalled(what: &'static str, value: &impl tss_esapi::traits::Marshall) -> Result<Vec<u8>, TpmError> {
    value.marshall().map_err(|error| failed(what, error))
}

/// Sends one command, and again after a pause while the TPM puts it off. A command that was put off had no effect (TPM 2.0
/// part 1, section 11.4.7).
fn step<T>(what: &'static str, mut send: impl FnMut() -> tss_esapi::Result<T>) -> Result<T, TpmError> {
    for pause in RETRY_PAUSES_MS {
        match send() {
            Err(error) if code_of(error).is_some_and(ResponseCode::is_passing) => {
                std::thread::sleep(Duration::from_millis(pause));
            }
            other => return other.map_err(|error| failed(what, error)),
        }
    }
    send().map_err(|error| failed(what, error))
}

/// As [`step`], for calls that answer with the bare code.
fn again<T>(mut send: impl FnMut() -> Result<T, u32>) -> Result<T, ResponseCode> {
    for pause in RETRY_PAUSES_MS {
        match send().map_err(ResponseCode) {
            Err(code) if code.is_passing() => std::thread::sleep(Duration::from_millis(pause)),
            other => return other,
        }
    }
    send().map_err(ResponseCode)
}

fn failed(what: &'static str, error: Error) -> TpmError {
    match code_of(error) {
        Some(code) => refused(what, code),
        None => TpmError::Library { step: what, what: error.to_string() },
    }
}

fn refused(step: &'static str, code: ResponseCode) -> TpmError {
    TpmError::Refused { step, code }
}

/// The 32 bits behind the library's error. It keeps them private and shows them as `Response code value: 0x..`.
fn code_of(error: Error) -> Option<ResponseCode> {
    let Error::Tss2Error(code) = error else { return None };
    let text = match code {
        Tss2ResponseCode::Success => return None,
        Tss2ResponseCode::FormatZero(code) => code.to_string(),
        Tss2ResponseCode::FormatOne(code) => code.to_string(),
    };
    let (_, digits) = text.rsplit_once("0x")?;
    u32::from_str_radix(digits, 16).ok().map(ResponseCode)
}
