//! `affiant doctor`: what this host allows, before anything is installed or started.
//!
//! It looks and changes nothing that lasts. The kernel's part is the probe's own preflight; here are the
//! parts beside it: TPM, container runtimes, privileges, file systems.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::cli::exit::{self, Exit};
use crate::cli::output::{Lines as _, Output, printable};
use crate::config::TpmConfig;
use crate::probe::{Feature, Found, TierChoice, preflight};
use crate::tpm::{self, Place};

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
pub fn doctor(settings: &TpmConfig, choice: TierChoice, json: bool, out: &mut Output) -> Result<u8, Exit> {
    let kernel = preflight(crate::app::object(), choice);
    let host = host_features(settings);
    let has_tpm = host.iter().any(|feature| feature.what == TPM && feature.found == Found::Yes);
    let usable = kernel.usable() && (has_tpm || !settings.required);
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
        // There are more hooks than lines on a screen: those that are there are counted, the others told one by one.
        let (hooks, features): (Vec<&Feature>, Vec<&Feature>) =
            features.into_iter().partition(|feature| feature.what.starts_with("hook ") && feature.found == Found::Yes);
        out.line(&format!("  ok       hooks: {} found", hooks.len()))?;
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
        out.line(if has_tpm {
            "trust tier T0 until an authority vouches for the TPM (affiant enroll): a new log's key would be sealed in it"
        } else {
            "trust tier T0: a new log's key would be a software key on disk; whoever becomes root can sign with it"
        })?;
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

/// What the TPM is called in the list.
const TPM: &str = "TPM 2.0";
/// Longest time that the TPM is waited for.
const TPM_WAIT: Duration = Duration::from_secs(15);

/// Asks the TPM what it is. On a thread of its own: one that hangs is told, and not waited for.
fn look_at_tpm(settings: &TpmConfig) -> Feature {
    let (found, detail) = match Place::of(&settings.device) {
        None => (Found::No, if settings.device == "none" { "tpm.device is none" } else { "no /dev/tpmrm0" }.to_owned()),
        Some(place) => {
            let (done, outcome) = std::sync::mpsc::sync_channel(1);
            let index = settings.nv_index;
            // Nobody listens any more when it took too long.
            let started = std::thread::Builder::new().spawn(move || drop(done.send(tpm::look(&place, index))));
            match started.map(|_| outcome.recv_timeout(TPM_WAIT)) {
                Ok(Ok(Ok(found))) => (Found::Yes, found),
                Ok(Ok(Err(error))) => (Found::No, Exit::in_full(exit::UNAVAILABLE, &error).message.unwrap_or_default()),
                Ok(Err(_elapsed)) => (Found::No, format!("it has not answered for {} s", TPM_WAIT.as_secs())),
                Err(error) => (Found::Unknown, error.to_string()),
            }
        }
    };
    Feature {
        what: TPM.to_owned(),
        found,
        detail,
        means: "nothing ties the log to this machine: a new log's key would be a software key for ever, and nothing is anchored",
        required: settings.required,
    }
}

fn host_features(settings: &TpmConfig) -> Vec<Feature> {
    let mut features = Vec::new();
    let optional = |what: &str, found: bool, detail: String, means: &'static str| Feature {
        what: what.to_owned(),
        found: if found { Found::Yes } else { Found::No },
        detail,
        means,
        required: false,
    };
    features.push(look_at_tpm(settings));
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
