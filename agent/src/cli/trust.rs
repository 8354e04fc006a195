//! `affiant trust`: writes and reads trust files.
//!
//! A trust file is worth what the moment of its making is worth: `init` pins what the log says of
//! itself now. So it refuses a log with findings, and never overwrites a file.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use agent_evidence::attest::cert::x509::Certificate;
use agent_evidence::attest::tpm::Name;
use agent_evidence::checkpoint::Checkpoint;
use agent_evidence::command::{self, CommandError, Directory};
use agent_evidence::note::NOTE_BYTES_MAX;
use agent_evidence::prove;
use agent_evidence::record::KeyTier;
use agent_evidence::trust::{AttestationTrust, Head, Trust, TrustError, WitnessPolicy};
use agent_evidence::verify::{Finding, Observed, Options, Report, Verdict};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::cli::args::RootAs;
use crate::cli::exit::{self, Exit};
use crate::cli::output::{Lines as _, Output, complain, printable};
use crate::export::cursor::{self, Disk, Files as _};

/// How often a log that grows under the verifier is read again: a partial tile may be replaced
/// between the reading of the checkpoint and of the tile.
const ATTEMPTS: usize = 5;
/// Longest file of certificates that is read, in bytes: as much as a trust file holds in one place.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Pins a log as it is now.
///
/// # Errors
/// The log has findings (code 1) or cannot be checked (2), or the file exists.
pub fn init(log: &Path, output: Option<&Path>, witness_policy: Option<&Path>, out: &mut Output) -> Result<u8, Exit> {
    let observed = observe(log, None)?;
    let mut trust = Trust::pin(&observed);
    if let Some(path) = witness_policy {
        let unusable = |error: &dyn std::error::Error| {
            let Exit { code, message } = Exit::in_full(exit::DATA, error);
            Exit { code, message: message.map(|text| format!("cannot use {}: {text}", path.display())) }
        };
        let policy = fs::read_to_string(path).map_err(|error| unusable(&error))?;
        trust.believe(&policy).map_err(|error| unusable(&error))?;
    }
    let text = trust.to_toml().map_err(|error| Exit::new(exit::SOFTWARE, error))?;
    let Some(path) = output else {
        out.bytes(text.as_bytes())?;
        return Ok(0);
    };
    create(path, text.as_bytes()).map_err(|error| {
        let hint = if error.kind() == io::ErrorKind::AlreadyExists {
            ": it exists; `affiant trust add-head` adds to it"
        } else {
            ""
        };
        Exit::new(exit::USAGE, format!("cannot write {}: {error}{hint}", path.display()))
    })?;
    if !trust.attestation.ak_names.is_empty() {
        complain(
            "the log's attestation key is pinned, and nobody vouches that it is a TPM's: tier T0 until you activate it yourself \
             or trust an authority that did",
        );
    }
    complain(&format!(
        "{} pins {} at {} entries, key tier {}; keep it where whoever could change the log cannot",
        path.display(),
        printable(observed.log_key.name().as_str()),
        observed.head.size.0,
        observed.tier.as_str()
    ));
    Ok(0)
}

/// Prints a trust file.
///
/// # Errors
/// It cannot be read or is none (code 65).
pub fn show(path: &Path, json: bool, out: &mut Output) -> Result<u8, Exit> {
    let trust = read(path)?;
    let required: Vec<&str> = trust.required.iter().map(|claim| claim.name()).collect();
    if json {
        let heads: Vec<_> = trust
            .heads
            .iter()
            .map(|head| json!({ "size": head.size.0, "root": STANDARD.encode(head.root.0) }))
            .collect();
        out.json(&json!({
            "origin": trust.origin.as_str(),
            "log_key": trust.log_key.to_string(),
            "genesis": STANDARD.encode(trust.genesis.0),
            "first_epoch_key": STANDARD.encode(trust.first_epoch_key.0),
            "minimum_tier": trust.minimum_tier.as_str(),
            "required": required,
            "largest_gap_seconds": trust.limits.largest_gap_seconds,
            "largest_loss_events": trust.limits.largest_loss_events,
            "accepted_not_covered": trust.limits.accepted_not_covered,
            "attestation": attestation_json(&trust.attestation),
            "witness_policy": trust.witnesses.as_ref().map(WitnessPolicy::text),
            "heads": heads,
        }))?;
        return Ok(0);
    }
    out.line(&format!("origin        {}", printable(trust.origin.as_str())))?;
    out.line(&format!("log key       {}", printable(&trust.log_key.to_string())))?;
    out.line(&format!("genesis       {}", STANDARD.encode(trust.genesis.0)))?;
    out.line(&format!("first epoch   {}", STANDARD.encode(trust.first_epoch_key.0)))?;
    out.line(&format!("minimum tier  {}", trust.minimum_tier.as_str()))?;
    out.line(&format!("required      {}", required.join(", ")))?;
    if let Some(seconds) = trust.limits.largest_gap_seconds {
        out.line(&format!("largest gap   {seconds} s"))?;
    }
    if let Some(events) = trust.limits.largest_loss_events {
        out.line(&format!("largest loss  {events} events"))?;
    }
    for what in trust.limits.accepted_not_covered.iter().flatten() {
        out.line(&format!("may not cover {}", printable(what)))?;
    }
    attestation(&trust.attestation, out)?;
    for line in trust.witnesses.iter().flat_map(|witnesses| witnesses.text().lines()) {
        out.line(&format!("witnesses     {}", printable(line)))?;
    }
    for head in &trust.heads {
        out.line(&format!("head          {} entries, root {}", head.size.0, STANDARD.encode(head.root.0)))?;
    }
    Ok(0)
}

/// What the file knows of the TPM, for programs.
fn attestation_json(known: &AttestationTrust) -> serde_json::Value {
    let names = |names: &[Name]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "ak_names": names(&known.ak_names),
        "live_activated_aks": names(&known.live_activated_aks),
        "site_roots": known.site_roots,
        "independent_roots": known.independent_roots,
        "cloud_roots": known.cloud_roots,
        "vendor_roots": known.vendor_roots,
        "ek_roots": known.ek_roots,
        "counter_name": known.counter_name.as_ref().map(ToString::to_string),
        "counter_value": known.counter_value,
        "reset_count": known.reset_count,
        "largest_anchor_gap_seconds": known.largest_anchor_gap_seconds,
    })
}

/// The same for people.
fn attestation(known: &AttestationTrust, out: &mut Output) -> Result<(), Exit> {
    for name in &known.ak_names {
        out.line(&format!("pinned AK     {name}"))?;
    }
    for name in &known.live_activated_aks {
        out.line(&format!("activated AK  {name}"))?;
    }
    let roots = [
        ("site", &known.site_roots),
        ("independent", &known.independent_roots),
        ("cloud", &known.cloud_roots),
        ("vendor", &known.vendor_roots),
        ("TPM vendor", &known.ek_roots),
    ];
    for (whose, roots) in roots.into_iter().filter(|(_, roots)| !roots.is_empty()) {
        out.line(&format!("believed      {} {whose} authorities", roots.len()))?;
    }
    if let Some(name) = &known.counter_name {
        let value = known.counter_value.map_or_else(String::new, |value| format!(" from {value} on"));
        out.line(&format!("counter       {name}{value}"))?;
    }
    if let Some(count) = known.reset_count {
        out.line(&format!("reset count   {count} at the beginning"))?;
    }
    if let Some(seconds) = known.largest_anchor_gap_seconds {
        out.line(&format!("no anchor for {seconds} s at most"))?;
    }
    Ok(())
}

/// Remembers a head: the log's as it is now, once the log is verified against what the file says already; or that of a
/// checkpoint from elsewhere, if the log key signed it, and if the log, where there is one, continues it.
///
/// # Errors
/// The log or the checkpoint does not agree with the file (code 1) or cannot be checked (2).
pub fn add_head(
    path: &Path,
    log: Option<&Path>,
    checkpoint: Option<&Path>,
    json: bool,
    out: &mut Output,
) -> Result<u8, Exit> {
    let mut trust = read(path)?;
    let observed = log.map(|log| observe(log, Some(path)).map(|observed| (log, observed))).transpose()?;
    let (origin, head) = match (checkpoint, &observed) {
        (Some(checkpoint), observed) => {
            let (origin, head) = signed_head(checkpoint, &trust)?;
            if let Some((log, observed)) = observed {
                continues(log, head, observed.head)?;
            }
            (origin, head)
        }
        (None, Some((_, observed))) => (observed.log_key.name().as_str().to_owned(), observed.head),
        (None, None) => return Err(Exit::new(exit::USAGE, "give --log, --checkpoint, or both")),
    };
    let known = trust.heads.contains(&head);
    trust.add_head(&origin, head).map_err(|error| match error {
        TrustError::HeadConflict { .. } | TrustError::OtherLog { .. } => Exit::new(1, error),
        other => Exit::new(exit::SOFTWARE, other),
    })?;
    if !known {
        let text = trust.to_toml().map_err(|error| Exit::new(exit::SOFTWARE, error))?;
        cursor::replace(&mut Disk, path, text.as_bytes()).map_err(|error| Exit::new(exit::SOFTWARE, error))?;
    }
    let Head { size, root } = head;
    if json {
        out.json(&json!({
            "file": path.display().to_string(), "origin": origin, "size": size.0, "root": STANDARD.encode(root.0),
            "added": !known, "compared_with_log": observed.is_some(), "heads": trust.heads.len(),
        }))?;
        return Ok(0);
    }
    out.line(&format!("{} remembers the head at {} entries", path.display(), size.0))?;
    if observed.is_none() {
        complain("the log key signed this head; whether the log continues it was not looked at: no --log was given");
    }
    Ok(0)
}

/// Believes an authority from now on. One that is believed already changes nothing.
///
/// # Errors
/// The trust file or the certificate cannot be read or is none (code 65), or the authority is believed as something else.
pub fn add_root(
    path: &Path,
    certificate: &Path,
    class: RootAs,
    minimum_tier: Option<KeyTier>,
    out: &mut Output,
) -> Result<u8, Exit> {
    let mut trust = read(path)?;
    let at = |text: String| Exit::new(exit::DATA, format!("cannot use {}: {text}", certificate.display()));
    let size = fs::metadata(certificate).map_err(|error| at(error.to_string()))?.len();
    if size > PEM_BYTES_MAX {
        return Err(at(format!("{size} bytes, at most {PEM_BYTES_MAX}")));
    }
    let text = fs::read_to_string(certificate).map_err(|error| at(error.to_string()))?;
    let certificates = Certificate::parse_pem(&text).map_err(|error| at(error.to_string()))?;
    if certificates.is_empty() {
        return Err(at("no certificate in PEM in it".to_owned()));
    }
    let known = &mut trust.attestation;
    let roots = match class {
        RootAs::Site => &mut known.site_roots,
        RootAs::Independent => &mut known.independent_roots,
        RootAs::Cloud => &mut known.cloud_roots,
        RootAs::Vendor => &mut known.vendor_roots,
        RootAs::Endorsement => &mut known.ek_roots,
    };
    for certificate in &certificates {
        let pem = certificate.to_pem();
        if !roots.contains(&pem) {
            roots.push(pem);
        }
    }
    if let Some(tier) = minimum_tier {
        trust.minimum_tier = tier;
    }
    let text = trust.to_toml().map_err(|error| Exit::new(exit::SOFTWARE, error))?;
    // What this writes must read back: a certificate that is no authority's, or is believed as two things, is refused here.
    Trust::parse(&text).map_err(|error| Exit::in_full(exit::DATA, &error))?;
    cursor::replace(&mut Disk, path, text.as_bytes()).map_err(|error| Exit::new(exit::SOFTWARE, error))?;
    for certificate in &certificates {
        out.line(&format!("{} believes {}", path.display(), printable(&certificate.to_string())))?;
    }
    out.line(&format!("the log must be of tier {} at least", trust.minimum_tier.as_str()))?;
    Ok(0)
}

/// The head of a checkpoint that the trusted log key signed.
fn signed_head(path: &Path, trust: &Trust) -> Result<(String, Head), Exit> {
    let could_not = |error: String| Exit::new(command::COULD_NOT_CHECK, format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(NOTE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| could_not(error.to_string()))?;
    let (checkpoint, note) = Checkpoint::parse(&bytes).map_err(|error| could_not(error.to_string()))?;
    match note.signed_by(&trust.log_key) {
        Ok(true) => {}
        Ok(false) => {
            let key = &trust.log_key;
            return Err(Exit::new(
                1,
                format!("{}: not signed by the log key that the trust file names, {key}", path.display()),
            ));
        }
        Err(error) => return Err(Exit::new(1, format!("{}: {error}", path.display()))),
    }
    Ok((checkpoint.origin.as_str().to_owned(), Head { size: checkpoint.size, root: checkpoint.root }))
}

/// Whether a verified log has this head in its history.
fn continues(log: &Path, head: Head, now: Head) -> Result<(), Exit> {
    if head.size > now.size {
        let text = format!(
            "{} has {} entries, the checkpoint {}: the log is older, or its end was removed",
            log.display(),
            now.size.0,
            head.size.0
        );
        return Err(Exit::new(1, text));
    }
    let mut directory = Directory::open(log).map_err(could_not_check)?;
    let root =
        prove::root(&mut directory, head.size, now.size).map_err(|error| Exit::new(command::COULD_NOT_CHECK, error))?;
    if root == head.root {
        return Ok(());
    }
    let text = format!(
        "the log has the root hash {} at {} entries, the checkpoint {}: the log key signed two histories",
        STANDARD.encode(root.0),
        head.size.0,
        STANDARD.encode(head.root.0)
    );
    Err(Exit::new(1, text))
}

/// What a log without findings says of itself; with a trust file, one that agrees with it.
pub(crate) fn observe(log: &Path, trust: Option<&Path>) -> Result<Observed, Exit> {
    let mut attempt = 1;
    loop {
        let before = fs::read(log.join("checkpoint")).ok();
        let report = command::verify_directory(log, trust, Options::default()).map_err(could_not_check)?;
        match (report.verdict, &report.observed) {
            (Verdict::Proved | Verdict::SelfConsistent, Some(observed)) => return Ok(observed.clone()),
            // A claim that is required and not proved says nothing against the head.
            (Verdict::Findings, Some(observed)) if report.findings.iter().all(is_missing_claim) => {
                return Ok(observed.clone());
            }
            _ if attempt < ATTEMPTS && fs::read(log.join("checkpoint")).ok() != before => attempt += 1,
            _ => return Err(findings(log, &report)),
        }
    }
}

fn is_missing_claim(finding: &Finding) -> bool {
    matches!(finding, Finding::ClaimNotProved { .. })
}

fn findings(log: &Path, report: &Report) -> Exit {
    let first = report.findings.first().map(|finding| format!(": {finding}")).unwrap_or_default();
    Exit::new(1, format!("{} has {} findings{first}; run `affiant verify`", log.display(), report.findings_total))
}

fn could_not_check(error: CommandError) -> Exit {
    Exit::new(command::COULD_NOT_CHECK, error.in_full())
}

fn read(path: &Path) -> Result<Trust, Exit> {
    command::read_trust(path).map_err(|error| Exit::new(exit::DATA, error.in_full()))
}

pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Disk.sync_directory(directory)
}

#[cfg(test)]
mod tests {
    use agent_evidence::fixture::{Builder, FixedSigner, ORIGIN};
    use agent_evidence::record::{RootHash, TreeSize};
    use agent_evidence::verify::Claim;

    use super::*;

    /// A log of so many entries in a directory, with a trust file that remembers an earlier head.
    struct Place(tempfile::TempDir, Builder);

    fn log(entries: usize) -> Builder {
        let mut log = Builder::new().unwrap();
        log.append(Builder::armed());
        while log.entries.len() < entries {
            log.append(Builder::workload());
        }
        log
    }

    impl Place {
        fn new(remembered: usize, entries: usize) -> Self {
            let place = Self(tempfile::tempdir().unwrap(), log(entries));
            let mut trust = log(remembered).trust().unwrap();
            trust.required.push(Claim::HostState);
            fs::write(place.trust(), trust.to_toml().unwrap()).unwrap();
            for (path, bytes) in place.1.files().unwrap().0 {
                let path = place.log().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            place
        }

        fn log(&self) -> std::path::PathBuf {
            self.0.path().join("log")
        }

        fn trust(&self) -> std::path::PathBuf {
            self.0.path().join("trust.toml")
        }

        /// Adds a head; what was printed, or the code and the message.
        fn add(&self, log: bool, checkpoint: Option<String>) -> Result<u8, (u8, String)> {
            let file = self.0.path().join("seen");
            if let Some(text) = &checkpoint {
                fs::write(&file, text).unwrap();
            }
            let log = log.then(|| self.log());
            let file = checkpoint.is_some().then_some(file);
            add_head(&self.trust(), log.as_deref(), file.as_deref(), true, &mut Output::open())
                .map_err(|exit| (exit.code, exit.message.unwrap_or_default()))
        }

        fn sizes(&self) -> Vec<u64> {
            read(&self.trust()).unwrap().heads.iter().map(|head| head.size.0).collect()
        }
    }

    #[test]
    fn the_head_of_a_log_that_agrees_is_remembered_whatever_else_is_required() {
        let place = Place::new(5, 300);
        assert_eq!(place.add(true, None), Ok(0));
        assert_eq!(place.sizes(), [5, 300]);
        assert_eq!(place.add(true, None), Ok(0));
        assert_eq!(place.sizes(), [5, 300]);
    }

    #[test]
    fn a_log_that_contradicts_a_remembered_head_is_refused_by_the_size_of_that_head() {
        let place = Place::new(5, 300);
        let mut trust = read(&place.trust()).unwrap();
        trust.heads = vec![Head { size: TreeSize(17), root: RootHash([9; 32]) }];
        fs::write(place.trust(), trust.to_toml().unwrap()).unwrap();
        let (code, message) = place.add(true, None).unwrap_err();
        assert!(code == 1 && message.contains("the first 17 entries"), "{message}");
        assert_eq!(place.sizes(), [17]);
    }

    #[test]
    fn a_checkpoint_from_elsewhere_is_remembered_if_the_log_key_signed_it_and_the_log_continues_it() {
        let place = Place::new(5, 300);
        let signed = |log: &Builder, root: Option<RootHash>| {
            let mut checkpoint = log.checkpoint().unwrap();
            checkpoint.root = root.unwrap_or(checkpoint.root);
            checkpoint.sign(&[&log.log_key, &log.epoch_key])
        };
        for entries in [100, 256, 299] {
            assert_eq!(place.add(true, Some(signed(&log(entries), None))), Ok(0));
        }
        assert_eq!(place.sizes(), [5, 100, 256, 299]);
        let (code, message) = place.add(true, Some(signed(&log(200), Some(RootHash([3; 32]))))).unwrap_err();
        assert!(code == 1 && message.contains("at 200 entries") && message.contains("two histories"), "{message}");
        let (code, message) = place.add(true, Some(signed(&log(301), None))).unwrap_err();
        assert!(code == 1 && message.contains("the checkpoint 301"), "{message}");
        // Without the log, what the file remembers is all there is to compare with.
        assert_eq!(place.add(false, Some(signed(&log(301), None))), Ok(0));
        let (code, message) = place.add(false, Some(signed(&log(100), Some(RootHash([3; 32]))))).unwrap_err();
        assert!(code == 1 && message.contains("at size 100"), "{message}");
        let other = FixedSigner::new(ORIGIN, 77).unwrap();
        let forged = log(310).checkpoint().unwrap().sign(&[&other]);
        let (code, message) = place.add(false, Some(forged)).unwrap_err();
        assert!(code == 1 && message.contains("not signed by the log key"), "{message}");
        assert_eq!(place.add(false, Some("not a checkpoint".to_owned())).unwrap_err().0, 2);
        assert_eq!(place.sizes(), [5, 100, 256, 299, 301]);
    }
}
