//! `affiant trust`: writes and reads trust files.
//!
//! A trust file is worth what the moment of its making is worth: `init` pins what the log says of
//! itself now. So it refuses a log with findings, and never overwrites a file.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use agent_evidence::command::{self, CommandError};
use agent_evidence::trust::{Head, Trust, TrustError};
use agent_evidence::verify::{Observed, Options, Report, Verdict};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::cli::exit::{self, Exit};
use crate::cli::output::{Lines as _, Output, complain, printable};
use crate::export::cursor::{self, Disk};

/// How often a log that grows under the verifier is read again: a partial tile may be replaced
/// between the reading of the checkpoint and of the tile.
const ATTEMPTS: usize = 5;

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
            "witness_policy": trust.witnesses.as_ref().map(|witnesses| witnesses.text()),
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
    for line in trust.witnesses.iter().flat_map(|witnesses| witnesses.text().lines()) {
        out.line(&format!("witnesses     {}", printable(line)))?;
    }
    for head in &trust.heads {
        out.line(&format!("head          {} entries, root {}", head.size.0, STANDARD.encode(head.root.0)))?;
    }
    Ok(0)
}

/// Remembers a log's head, once the log is verified against what the file says already.
///
/// # Errors
/// The log does not agree with the file (code 1) or cannot be checked (2).
pub fn add_head(path: &Path, log: &Path, out: &mut Output) -> Result<u8, Exit> {
    let mut trust = read(path)?;
    let observed = observe(log, Some(path))?;
    trust.add_head(observed.log_key.name().as_str(), observed.head).map_err(|error| match error {
        TrustError::HeadConflict { .. } | TrustError::OtherLog { .. } => Exit::new(1, error),
        other => Exit::new(exit::SOFTWARE, other),
    })?;
    let text = trust.to_toml().map_err(|error| Exit::new(exit::SOFTWARE, error))?;
    cursor::replace(&mut Disk, path, text.as_bytes()).map_err(|error| Exit::new(exit::SOFTWARE, error))?;
    let Head { size, .. } = observed.head;
    out.line(&format!("{} remembers the head at {} entries", path.display(), size.0))?;
    Ok(0)
}

/// What a log without findings says of itself; with a trust file, one that agrees with it.
fn observe(log: &Path, trust: Option<&Path>) -> Result<Observed, Exit> {
    let mut attempt = 1;
    loop {
        let before = fs::read(log.join("checkpoint")).ok();
        let report = command::verify_directory(log, trust, Options::default()).map_err(could_not_check)?;
        match (report.verdict, &report.observed) {
            (Verdict::Proved | Verdict::SelfConsistent, Some(observed)) => return Ok(observed.clone()),
            // With a trust file, a claim that is not proved is a finding too; an agreeing head
            // needs none but that nothing is wrong.
            _ if attempt < ATTEMPTS && fs::read(log.join("checkpoint")).ok() != before => attempt += 1,
            _ => return Err(findings(log, &report)),
        }
    }
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

fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
