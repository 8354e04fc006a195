//! Enrolment of a guest, on the host's side: an authority that answers by files on the guest's disk, and what its word is
//! worth afterwards, and that of the vendor of the machine.
//!
//! The authority is made by the tree's own program in a directory that the guest never sees. What a verifier is told to
//! believe comes from there and from the vendor's directory, never from the guest's disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::tests::program;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::scenario::{Desk, Left, Verdict, findings};
use crate::process::quiet;

/// The authority's directory on the host.
const AUTHORITY: &str = "authority";
/// Its name, as verdicts show it.
const NAME: &str = "Affiant tests: a site";

/// What the host brings the guest before a boot.
pub(crate) fn carry(desk: &Desk<'_>, boot: u32) -> Result<()> {
    let at = |name: &str| desk.directory.join(name);
    match boot {
        1 => {
            let tpm = desk.tpm.context("a guest that is enrolled has a TPM")?;
            desk.disk.put(&tpm.identity(), "identity.pem")
        }
        2 => {
            desk.disk.take("out/request", &at("request"))?;
            quiet(enroll("ca-init").arg(at(AUTHORITY)).args(["--name", NAME]), &[0])?;
            let mut challenge = enroll("challenge");
            challenge.arg(at("request")).arg("--output").arg(at("challenge"));
            quiet(authority(&mut challenge, desk)?, &[0])?;
            desk.disk.put(&at("challenge"), "challenge")
        }
        3 => {
            desk.disk.take("out/response", &at("response"))?;
            let mut certify = enroll("certify");
            certify.arg(at("request")).arg(at("response")).arg("--output").arg(at("certificate"));
            quiet(authority(&mut certify, desk)?, &[0])?;
            desk.disk.put(&at("certificate"), "certificate")
        }
        _ => Ok(()),
    }
}

fn enroll(step: &str) -> Command {
    let mut command = Command::new(program("affiant"));
    command.args(["enroll", step]);
    command
}

/// The authority believes the vendor of the TPM, and refuses keys of others.
fn authority<'a>(command: &'a mut Command, desk: &Desk<'_>) -> Result<&'a mut Command> {
    let roots = desk.directory.join("vendors");
    fs::create_dir_all(&roots).with_context(|| format!("cannot create {}", roots.display()))?;
    let vendor = desk.vendor.context("a TPM has a vendor")?.root();
    fs::copy(&vendor, roots.join("root.pem")).with_context(|| format!("cannot copy {}", vendor.display()))?;
    Ok(command.arg("--ca").arg(desk.directory.join(AUTHORITY)).arg("--ek-roots").arg(roots))
}

/// What a verifier concludes, depending on whom it believes.
struct Case<'a> {
    log: &'a Path,
    /// Roots, each as what it is believed to be.
    roots: Vec<(&'a str, &'a Path)>,
    /// The tier that the trust file demands.
    minimum: &'a str,
    code: i32,
    tier: &'a str,
    /// In the words about who vouches.
    vouched: &'a str,
}

/// Checks what the log of a guest is worth that its site enrolled, and for whose key the vendor of the machine vouched later.
pub(crate) fn verdicts(left: &Left<'_>) -> Result<()> {
    let site = left.host.join(AUTHORITY).join("ca.pem");
    let vendor = left.vendor.context("a TPM has a vendor")?.root();
    let (by_site, by_vendor) = (left.out("log-site"), left.log());
    let case = |log, roots, minimum, code, tier, vouched| Case { log, roots, minimum, code, tier, vouched };
    let cases = [
        case(&by_site, vec![], "T0", 0, "T0", "nobody"),
        case(&by_site, vec![("site", &site)], "T1", 0, "T1", NAME),
        // The site's word stays the site's, though it followed the endorsement key to the vendor.
        case(&by_site, vec![("site", &site), ("endorsement", &vendor)], "T3", 1, "T1", "vendor-certified"),
        case(&by_site, vec![("independent", &site), ("endorsement", &vendor)], "T3", 0, "T3", "independent"),
        case(&by_vendor, vec![("vendor", &vendor)], "T3", 0, "T3", "certified by the vendor"),
        case(&by_vendor, vec![("site", &vendor)], "T1", 1, "T0", "nobody"),
        case(&by_vendor, vec![("site", &site)], "T0", 0, "T0", "nobody"),
    ];
    for (number, case) in cases.iter().enumerate() {
        let trust = left.host.join(format!("trust-{number}.toml"));
        judge(left, case, trust).with_context(|| {
            let believed: Vec<&str> = case.roots.iter().map(|(class, _)| *class).collect();
            format!("{}, believing {believed:?}, demanding {}", case.log.display(), case.minimum)
        })?;
    }
    Ok(())
}

fn judge(left: &Left<'_>, case: &Case<'_>, trust: PathBuf) -> Result<()> {
    fs::copy(left.out("trust.toml"), &trust).context("cannot copy the trust file")?;
    for (class, root) in &case.roots {
        let mut add = Command::new(program("affiant"));
        add.args(["trust", "add-root"]).arg(&trust).arg(root).args(["--as", class, "--minimum-tier", case.minimum]);
        quiet(&mut add, &[0])?;
    }
    let report = Verdict::of(case.log, &trust)?.with_code(case.code)?;
    let of = |name: &str| report.get(name).and_then(Value::as_str).unwrap_or_default();
    ensure!(of("tier") == case.tier, "tier {}, {} expected: {report:#}", of("tier"), case.tier);
    ensure!(of("vouched_by").contains(case.vouched), "{:?} does not say {:?}", of("vouched_by"), case.vouched);
    let expected: &[&str] = if case.code == 0 { &[] } else { &["tier_too_low"] };
    ensure!(findings(&report) == expected, "findings {:?}, {expected:?} expected", findings(&report));
    Ok(())
}
