//! `affiant doctor`: what this host allows, before anything is installed or started.
//!
//! It looks and changes nothing. The kernel's part is the probe's own preflight; here are the
//! parts beside it: TPM, container runtimes, privileges, file systems.
#![forbid(unsafe_code)]

use std::path::Path;

use serde_json::json;

use crate::cli::exit::{self, Exit};
use crate::cli::output::{Lines as _, Output, printable};
use crate::probe::{Feature, Found, preflight};

/// Where container runtimes listen by default: containerd, CRI-O, Docker, Podman.
const RUNTIME_SOCKETS: [(&str, &str); 5] = [
    ("containerd", "/run/containerd/containerd.sock"),
    ("CRI-O", "/run/crio/crio.sock"),
    ("k3s containerd", "/run/k3s/containerd/containerd.sock"),
    ("Docker", "/run/docker.sock"),
    ("Podman", "/run/podman/podman.sock"),
];

/// Prints what was found.
///
/// # Errors
/// Standard output is gone.
pub fn doctor(json: bool, out: &mut Output) -> Result<u8, Exit> {
    let kernel = preflight();
    let host = host_features();
    let usable = kernel.usable();
    let features: Vec<&Feature> = kernel.features.iter().chain(&host).collect();
    let tier = kernel.tier.map(|tier| tier.name());
    if json {
        let shown: Vec<_> = features
            .iter()
            .map(|feature| {
                json!({
                    "what": feature.what,
                    "found": found(feature.found),
                    "detail": feature.detail,
                    "required": feature.required,
                    "means": feature.means,
                })
            })
            .collect();
        let missing: Vec<_> =
            kernel.not_covered.iter().map(|(what, why)| json!({ "what": what, "why": why })).collect();
        out.json(&json!({
            "usable": usable,
            "kernel": kernel.kernel_release,
            "hook_tier": tier,
            "trust_tier": "T0",
            "features": shown,
            "not_covered": missing,
        }))?;
    } else {
        out.line(&format!("kernel {}", printable(&kernel.kernel_release)))?;
        for feature in features {
            let (mark, means) = match (feature.found, feature.required) {
                (Found::Yes, _) => ("ok     ", ""),
                (Found::No, true) => ("MISSING", feature.means),
                (Found::No, false) => ("no     ", feature.means),
                (Found::Unknown, _) => ("?      ", feature.means),
            };
            let detail =
                if feature.detail.is_empty() { String::new() } else { format!(": {}", printable(&feature.detail)) };
            out.line(&format!("  {mark}  {}{detail}", printable(&feature.what)))?;
            if !means.is_empty() {
                out.line(&format!("           {means}"))?;
            }
        }
        if !kernel.not_covered.is_empty() {
            out.line("not covered:")?;
            for (what, why) in &kernel.not_covered {
                out.line(&format!("  {}: {}", printable(what), printable(why)))?;
            }
        }
        out.line("trust tier T0: the log key is a software key on disk; whoever becomes root can sign with it")?;
        out.line(&match tier {
            Some(tier) => format!("usable: hook tier {tier} would run"),
            None => "NOT usable: see what is MISSING".to_owned(),
        })?;
    }
    Ok(if usable { 0 } else { exit::UNAVAILABLE })
}

fn found(found: Found) -> &'static str {
    match found {
        Found::Yes => "yes",
        Found::No => "no",
        Found::Unknown => "unknown",
    }
}

fn host_features() -> Vec<Feature> {
    let mut features = Vec::new();
    let optional = |what: &str, found: bool, detail: String, means: &'static str| Feature {
        what: what.to_owned(),
        found: if found { Found::Yes } else { Found::No },
        detail,
        means,
        required: false,
    };
    let tpm = ["/dev/tpmrm0", "/dev/tpm0"].into_iter().find(|path| Path::new(path).exists());
    features.push(optional(
        "TPM",
        tpm.is_some(),
        tpm.map(|path| format!("{path}; this version does not use it yet")).unwrap_or_default(),
        "trust stays at tier T0: nothing roots the log key in hardware",
    ));
    let runtimes: Vec<String> = RUNTIME_SOCKETS
        .into_iter()
        .filter(|(_, path)| Path::new(path).exists())
        .map(|(name, path)| format!("{name} at {path}"))
        .collect();
    features.push(optional(
        "container runtime",
        !runtimes.is_empty(),
        runtimes.join(", "),
        "no container runtime was found in the usual places; containers are still told apart by their cgroups",
    ));
    features.push(optional(
        "service manager (systemd)",
        Path::new("/run/systemd/system").exists(),
        String::new(),
        "without systemd, run `affiant daemon` under another supervisor; units are not told apart",
    ));
    let euid = rustix::process::geteuid();
    features.push(Feature {
        what: "root".to_owned(),
        found: if euid.is_root() { Found::Yes } else { Found::No },
        detail: format!("uid {}", euid.as_raw()),
        means: "the daemon must run as root; what is unknown above may be known to root",
        required: false,
    });
    features
}
