//! `affiant enroll`: both sides of having an authority vouch for a host's attestation key.
//!
//! What is asked for, and on what ground it is granted, is printed at each step of the authority: a person decides
//! here.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use agent_evidence::attest::cert::path::Roots;
use agent_evidence::attest::enroll::{Applicant, Challenge, EnrollError, IssuedChain, Request, Response};
use agent_evidence::note::{KeyName, VerifierKey};
use agent_evidence::record::WallTime;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::cli::args::EnrollAuthority;
use crate::cli::clock;
use crate::cli::exit::{self, Exit};
use crate::cli::output::{Lines as _, Output, complain, printable};
use crate::cli::trust::{create, observe};
use crate::enroll::authority::{Authority, AuthorityError, EkStanding, judge_endorsement, vendor_roots};
use crate::enroll::host::{Host, HostError};
use crate::tpm::{Place, TpmError};

/// How a certificate is to be issued.
#[derive(Debug, Clone, Copy)]
pub struct Issue {
    /// Also where no vendor certified the endorsement key.
    pub uncertified_ek: bool,
    /// For how long.
    pub days: u32,
}

/// A host's TPM.
#[derive(Debug)]
pub struct Tpm {
    /// Where it is, as in `tpm.device`.
    pub device: String,
    /// Handle of the NV counter.
    pub nv_index: u32,
    /// The daemon's directory of keys.
    pub keys: PathBuf,
}

/// Makes an authority.
///
/// # Errors
/// There is one already, or the place cannot be used.
pub fn ca_init(directory: &Path, name: &str, days: u32, out: &mut Output) -> Result<u8, Exit> {
    let made = Authority::create(directory, name, now(), days).map_err(|error| authority_exit(&error))?;
    if let Some(certificate) = made.certificate() {
        out.bytes(certificate.to_pem().as_bytes())?;
    }
    complain(&format!(
        "{}: made; the certificate above (ca.pem) goes into trust files, ca.key never leaves this machine",
        directory.display()
    ));
    Ok(0)
}

/// Makes a challenge for a request.
///
/// # Errors
/// A file that cannot be used (65), or a place (69).
pub fn challenge(request: &Path, output: &Path, places: &EnrollAuthority, out: &mut Output) -> Result<u8, Exit> {
    let authority = Authority::load(&places.ca).map_err(|error| authority_exit(&error))?;
    let applicant = applicant(request)?;
    let standing = standing(&applicant, places)?;
    let challenge = authority.challenge(&applicant).map_err(|error| authority_exit(&error))?;
    put(output, challenge.to_bytes())?;
    show(&applicant, &standing, places.json, out)?;
    Ok(0)
}

/// Issues a certificate.
///
/// # Errors
/// As [`challenge`]; 77 when the response is wrong, or the endorsement key is not certified.
pub fn certify(
    request: &Path,
    response: &Path,
    output: &Path,
    places: &EnrollAuthority,
    wish: Issue,
    out: &mut Output,
) -> Result<u8, Exit> {
    let authority = Authority::load(&places.ca).map_err(|error| authority_exit(&error))?;
    let applicant = applicant(request)?;
    let response = Response::parse(&read(response)?).map_err(|error| unusable(response, &error))?;
    let standing = standing(&applicant, places)?;
    let issued = authority
        .certify(&applicant, &response, &standing, wish.uncertified_ek, now(), wish.days)
        .map_err(|error| authority_exit(&error))?;
    put(output, issued.to_bytes())?;
    if let EkStanding::Uncertified(why) = &standing {
        complain(&format!(
            "certified without a vendor's word for the endorsement key ({why}): a program that plays a TPM looks the \
             same, and the certificate says so"
        ));
    }
    show(&applicant, &standing, places.json, out)?;
    Ok(0)
}

/// Writes a request.
///
/// # Errors
/// No TPM (69), or a log with findings (1).
pub fn request(tpm: &Tpm, log: &Path, output: &Path, out: &mut Output) -> Result<u8, Exit> {
    let place = place(tpm)?;
    let observed = observe(log, None)?;
    let host = Host { place: &place, keys: &tpm.keys, counter: tpm.nv_index };
    let request = host.request(&observed).map_err(|error| host_exit(&error))?;
    put(output, request.to_bytes())?;
    out.line(&format!("origin   {}", printable(&request.wish.origin)))?;
    out.line(&format!("log key  {}", printable(&observed.log_key.to_string())))?;
    out.line(&format!("genesis  {}", STANDARD.encode(request.wish.genesis.0)))?;
    let digest = request.digest().map_err(|error| Exit::in_full(exit::SOFTWARE, &error))?;
    out.line(&format!("request  {}", hex(&digest.0)))?;
    if request.counter.is_none() {
        complain("this host has no NV counter: the certificate will not pin one");
    }
    Ok(0)
}

/// Has the TPM open a challenge.
///
/// # Errors
/// No TPM (69), or a challenge that is not for it (77).
pub fn respond(tpm: &Tpm, challenge: &Path, output: &Path, out: &mut Output) -> Result<u8, Exit> {
    let place = place(tpm)?;
    let read = Challenge::parse(&read(challenge)?).map_err(|error| unusable(challenge, &error))?;
    let host = Host { place: &place, keys: &tpm.keys, counter: tpm.nv_index };
    let response = host.respond(&read).map_err(|error| host_exit(&error))?;
    put(output, response.to_bytes())?;
    out.line(&format!("request  {}", hex(&response.request.0)))?;
    Ok(0)
}

/// Keeps a certificate.
///
/// # Errors
/// No TPM (69), or a certificate that is not for this host (65).
pub fn install(tpm: &Tpm, log: &Path, certificate: &Path, out: &mut Output) -> Result<u8, Exit> {
    let place = place(tpm)?;
    let issued = IssuedChain::parse(&read(certificate)?).map_err(|error| unusable(certificate, &error))?;
    let observed = observe(log, None)?;
    let host = Host { place: &place, keys: &tpm.keys, counter: tpm.nv_index };
    let vouched = host.install(&issued, &observed, now()).map_err(|error| host_exit(&error))?;
    out.line(&format!("installed: {}", printable(&vouched.to_string())))?;
    complain("the daemon writes it into the log when it starts next; whether it is believed is for trust files to say");
    Ok(0)
}

/// Has the machine's identity key certify the attestation key, and keeps that.
///
/// # Errors
/// No TPM or no such key (69, 77), or certificates that are not of that key (65).
pub fn identity(tpm: &Tpm, log: &Path, key: u32, certificates: &Path, out: &mut Output) -> Result<u8, Exit> {
    let place = place(tpm)?;
    let text = String::from_utf8(read(certificates)?)
        .map_err(|_binary| Exit::new(exit::DATA, format!("{}: not PEM", certificates.display())))?;
    let observed = observe(log, None)?;
    let host = Host { place: &place, keys: &tpm.keys, counter: tpm.nv_index };
    let vouched = host.identify(key, &text, &observed, now()).map_err(|error| host_exit(&error))?;
    out.line(&format!("installed: {}", printable(&vouched.to_string())))?;
    complain("the daemon writes it into the log when it starts next; whether it is believed is for trust files to say");
    Ok(0)
}

fn place(tpm: &Tpm) -> Result<Place, Exit> {
    if !Place::is_known(&tpm.device) {
        let expected = "expected auto, a path, or a TCTI (device:PATH, swtpm:host=H,port=P, tabrmd:...)";
        return Err(Exit::new(exit::USAGE, format!("--tpm: {}: {expected}", printable(&tpm.device))));
    }
    Place::of(&tpm.device)
        .ok_or_else(|| Exit::new(exit::UNAVAILABLE, "there is no TPM: a software key cannot be enrolled (tier T0)"))
}

fn applicant(path: &Path) -> Result<Applicant, Exit> {
    let request = Request::parse(&read(path)?).map_err(|error| unusable(path, &error))?;
    request.verify().map_err(|error| unusable(path, &error))
}

fn standing(applicant: &Applicant, places: &EnrollAuthority) -> Result<EkStanding, Exit> {
    let roots = match &places.ek_roots {
        None => Roots::new(),
        Some(directory) => {
            let (roots, passed_over) = vendor_roots(directory).map_err(|error| authority_exit(&error))?;
            passed_over.iter().for_each(|line| complain(&printable(line)));
            roots
        }
    };
    Ok(judge_endorsement(applicant, &roots, now()))
}

/// Who asks, and what is known of it.
fn show(applicant: &Applicant, standing: &EkStanding, as_json: bool, out: &mut Output) -> Result<(), Exit> {
    let wish = applicant.wish();
    let clock = applicant.clock();
    // As the host printed it, so that a person can compare them.
    let name = KeyName::new(&wish.origin).map_err(|error| Exit::in_full(exit::SOFTWARE, &error))?;
    let log_key = VerifierKey::new(name, wish.log_key).to_string();
    let (certified, ek) = match standing {
        EkStanding::Certified { root, .. } => (true, format!("vendor-certified by {root}")),
        EkStanding::Uncertified(why) => (false, format!("NOT vendor-certified: {why}")),
    };
    if as_json {
        out.json(&json!({
            "request": hex(&applicant.request().0),
            "origin": wish.origin,
            "log_key": log_key,
            "genesis": STANDARD.encode(wish.genesis.0),
            "first_epoch_key": STANDARD.encode(wish.first_epoch_key.0),
            "ak_name": hex(applicant.ak().name().as_bytes()),
            "ek_name": hex(applicant.ek().name().as_bytes()),
            "ek_certified": certified,
            "ek": ek,
            "tpm": wish.tpm,
            "counter": applicant.counter().map(|counter| counter.value.to_string()),
            "reset_count": clock.reset_count,
            "clock_ms": clock.clock.to_string(),
        }))?;
        return Ok(());
    }
    let counter = applicant.counter().map_or_else(|| "none".to_owned(), |counter| counter.value.to_string());
    for (what, text) in [
        ("request", hex(&applicant.request().0)),
        ("origin", wish.origin.clone()),
        ("log key", log_key.clone()),
        ("genesis", STANDARD.encode(wish.genesis.0)),
        ("AK name", hex(applicant.ak().name().as_bytes())),
        ("EK name", hex(applicant.ek().name().as_bytes())),
        ("EK", ek),
        ("TPM says", wish.tpm.clone()),
        ("counter", counter),
        ("clock", format!("{} ms, {} resets", clock.clock, clock.reset_count)),
    ] {
        out.line(&format!("{what:<9}{}", printable(&text)))?;
    }
    Ok(())
}

fn now() -> WallTime {
    WallTime(clock::now_ns())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, Exit> {
    crate::enroll::read(path).map_err(|error| Exit::new(exit::DATA, format!("cannot read {}: {error}", path.display())))
}

fn unusable(path: &Path, error: &EnrollError) -> Exit {
    let Exit { code, message } = Exit::in_full(exit::DATA, error);
    Exit { code, message: message.map(|text| format!("cannot use {}: {text}", path.display())) }
}

fn put(path: &Path, bytes: Result<Vec<u8>, EnrollError>) -> Result<(), Exit> {
    let bytes = bytes.map_err(|error| Exit::in_full(exit::SOFTWARE, &error))?;
    create(path, &bytes).map_err(|error| Exit::new(exit::USAGE, format!("cannot write {}: {error}", path.display())))
}

fn authority_exit(error: &AuthorityError) -> Exit {
    let code = match error {
        AuthorityError::Io { .. } | AuthorityError::TooManyRoots { .. } | AuthorityError::Random(_) => {
            exit::UNAVAILABLE
        }
        AuthorityError::Refused(EnrollError::Proof | EnrollError::ForOther) | AuthorityError::Uncertified(_) => {
            exit::REFUSED
        }
        AuthorityError::TooOpen { .. } => exit::REFUSED,
        AuthorityError::Issue { .. }
        | AuthorityError::Certificate { .. }
        | AuthorityError::Count { .. }
        | AuthorityError::Refused(_) => exit::DATA,
        AuthorityError::Made(_) => exit::SOFTWARE,
    };
    Exit::in_full(code, error)
}

fn host_exit(error: &HostError) -> Exit {
    let code = match error {
        HostError::Tpm(TpmError::Refused { .. }) => exit::REFUSED,
        HostError::NoKey(_) | HostError::KeyLost(_) | HostError::Tpm(_) | HostError::Io { .. } => exit::UNAVAILABLE,
        HostError::Structure(_) | HostError::Key(_) => exit::SOFTWARE,
        HostError::Refused(_)
        | HostError::Secret(_)
        | HostError::Chain(_)
        | HostError::Root(_)
        | HostError::Identity(_)
        | HostError::Certification(_)
        | HostError::Certificate(_) => exit::DATA,
    };
    Exit::in_full(code, error)
}
