//! What this kernel and this process's rights allow, for `affiant doctor`: looked at, nothing changed, no root needed.
//!
//! A feature that cannot be looked at without rights is `Unknown`, never assumed. Whether the kernel accepts the
//! programs is known only by loading them, which [`super::Probe::arm`] does.
#![forbid(unsafe_code)]

use super::btf::Btf;
use super::hooks::{Attach, HOOKS, NOT_COVERED};
use super::load::{KERNEL_BTF, Tier, cgroup2_root, has_task_storage, is_confidential, kernel_release, lockdown};
use super::offsets;
use crate::sys::mount::KernelFs;
use std::path::Path;

/// Whether something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Yes,
    /// It is not.
    No,
    /// It cannot be told with this process's rights.
    Unknown,
}

/// One thing that capture depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What.
    pub what: String,
    /// Whether it was found.
    pub found: Found,
    /// What exactly was found.
    pub detail: String,
    /// What follows when it is missing.
    pub means: &'static str,
    /// Whether capture cannot be armed without it.
    pub required: bool,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// `uname -r`.
    pub kernel_release: String,
    /// Everything looked at.
    pub features: Vec<Feature>,
    /// The tier that would run; `None` when something required is missing.
    pub tier: Option<Tier>,
    /// What that tier does not cover, and why.
    pub not_covered: Vec<(String, String)>,
}

impl Preflight {
    /// Whether capture could be armed as far as can be told.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.tier.is_some()
    }
}

/// Bits of `/proc/self/status` CapEff that loading and attaching need (`include/uapi/linux/capability.h`).
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
const CAP_NET_ADMIN: u32 = 12;

/// Looks at everything.
#[must_use]
pub fn preflight() -> Preflight {
    let mut features = Vec::new();
    let mut not_covered: Vec<(String, String)> =
        NOT_COVERED.iter().map(|(what, why)| ((*what).to_owned(), (*why).to_owned())).collect();
    let btf = kernel_types(&mut features);
    rights(&mut features);
    file_systems(&mut features);
    hooks(btf.as_ref(), &mut features, &mut not_covered);
    kernel_policy(&mut features);
    let missing = features.iter().any(|feature| feature.required && feature.found == Found::No);
    Preflight { kernel_release: kernel_release(), features, tier: (!missing).then_some(Tier::Tracepoint), not_covered }
}

fn kernel_types(features: &mut Vec<Feature>) -> Option<Btf> {
    let parsed = std::fs::read(KERNEL_BTF).map_err(|error| error.to_string());
    let parsed = parsed.and_then(|bytes| Btf::parse(bytes).map_err(|error| error.to_string()));
    features.push(Feature {
        what: "kernel types (BTF)".to_owned(),
        found: if parsed.is_ok() { Found::Yes } else { Found::No },
        detail: parsed.as_ref().map_or_else(Clone::clone, |_| KERNEL_BTF.to_owned()),
        means: "a kernel with CONFIG_DEBUG_INFO_BTF is needed: without it the programs cannot be fitted to the kernel",
        required: true,
    });
    let btf = parsed.ok()?;
    let resolved = offsets::resolve(&btf).map_err(|error| error.to_string());
    features.push(Feature {
        what: "struct members the programs read".to_owned(),
        found: if resolved.is_ok() { Found::Yes } else { Found::No },
        detail: resolved.map_or_else(|error| error, |offsets| format!("{} members found", offsets.named().len())),
        means: "the kernel's structs differ from every version known: the programs cannot be fitted to it",
        required: true,
    });
    Some(btf)
}

fn rights(features: &mut Vec<Feature>) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let has = |bit: u32| effective.map(|caps| caps >> bit & 1 == 1);
    let admin = has(CAP_SYS_ADMIN);
    let each = [
        ("right to load programs (CAP_BPF)", CAP_BPF),
        ("right to trace (CAP_PERFMON)", CAP_PERFMON),
        ("right to attach to cgroups (CAP_NET_ADMIN)", CAP_NET_ADMIN),
        ("right to pin and mount (CAP_SYS_ADMIN)", CAP_SYS_ADMIN),
    ];
    for (what, bit) in each {
        // Before 5.8, and still today, CAP_SYS_ADMIN stands for the first two.
        let found = if bit == CAP_NET_ADMIN { has(bit) } else { has(bit).map(|has| has || admin == Some(true)) };
        features.push(Feature {
            what: what.to_owned(),
            found: found.map_or(Found::Unknown, |found| if found { Found::Yes } else { Found::No }),
            detail: effective.map_or_else(String::new, |caps| format!("CapEff {caps:016x}")),
            means: "run as root, or in a container with this capability",
            required: true,
        });
    }
}

fn file_systems(features: &mut Vec<Feature>) {
    for (fs, what) in [(KernelFs::Bpf, "bpffs, for pins"), (KernelFs::Trace, "tracefs, for classic tracepoints")] {
        let path = fs.usual_path();
        let (found, detail) = match fs.is_at(path) {
            Ok(true) => (Found::Yes, path.display().to_string()),
            Ok(false) => (Found::Unknown, format!("not mounted at {}; arming mounts it", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                (Found::No, format!("{} does not exist", path.display()))
            }
            Err(error) => (Found::Unknown, format!("{}: {error}", path.display())),
        };
        let means = "mount it, or give the container the host's";
        features.push(Feature { what: what.to_owned(), found, detail, means, required: true });
    }
    let cgroup = cgroup2_root();
    features.push(Feature {
        what: "cgroup v2".to_owned(),
        found: if cgroup.is_ok() { Found::Yes } else { Found::No },
        detail: cgroup.map_or_else(|error| error.to_string(), |path| path.display().to_string()),
        means: "without it there are no sessions, no attribution by cgroup and no connect events",
        required: true,
    });
}

fn hooks(btf: Option<&Btf>, features: &mut Vec<Feature>, not_covered: &mut Vec<(String, String)>) {
    let tracing = KernelFs::Trace.usual_path().join("events");
    let traced = KernelFs::Trace.is_at(KernelFs::Trace.usual_path()).unwrap_or(false);
    for hook in HOOKS {
        let found = match hook.attach {
            Attach::Btf(name) => btf.map(|btf| matches!(btf.tracepoint_args(name), Ok(Some(_)))),
            Attach::Classic(category, name) => {
                // Unreadable without root, and empty when not mounted: then it cannot be told.
                let known = traced && std::fs::read_dir(&tracing).is_ok();
                known.then(|| tracing.join(category).join(name).is_dir())
            }
            Attach::SockAddr => cgroup2_root().ok().map(|_| true),
            Attach::Iter(_) => None,
        };
        let found = found.map_or(Found::Unknown, |found| if found { Found::Yes } else { Found::No });
        if found == Found::No && !hook.required {
            not_covered.push((format!("{}: {}", hook.event, hook.name()), "this kernel has no such hook".to_owned()));
        }
        features.push(Feature {
            what: format!("hook {}", hook.name()),
            found,
            detail: format!("serves {}", hook.event),
            means: "events of this kind are not captured, and every armed record says so",
            required: hook.required,
        });
    }
}

fn kernel_policy(features: &mut Vec<Feature>) {
    let storage = has_task_storage();
    features.push(Feature {
        what: "task storage for programs".to_owned(),
        found: storage.map_or(Found::Unknown, |has| if has { Found::Yes } else { Found::No }),
        detail: storage
            .map_or_else(|| "the kernel does not say without the right to load programs".to_owned(), |_| String::new()),
        means: "Linux 5.12 or newer is needed: without it nothing can be armed",
        required: true,
    });
    let locked = lockdown();
    let confidential = is_confidential(locked.as_deref());
    features.push(Feature {
        what: "kernel memory may be read by programs (lockdown)".to_owned(),
        found: if confidential { Found::No } else { Found::Yes },
        detail: locked.unwrap_or_else(|| "no lockdown file".to_owned()),
        means: "under lockdown=confidentiality this tier's path and name lookups are refused, so nothing can be armed",
        required: true,
    });
    let lsm = std::fs::read_to_string("/sys/kernel/security/lsm").ok();
    let listed = lsm.as_deref().map(|text| text.trim().split(',').any(|name| name == "bpf"));
    features.push(Feature {
        what: "BPF LSM".to_owned(),
        found: listed.map_or(Found::Unknown, |listed| if listed { Found::Yes } else { Found::No }),
        detail: lsm.map_or_else(|| "no /sys/kernel/security/lsm".to_owned(), |text| text.trim().to_owned()),
        means: "boot with lsm=...,bpf for hooks that can hash binaries and deny; this version runs the tracepoint tier either way",
        required: false,
    });
    let uring = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    let off = uring.as_deref().map(|text| text.trim() == "2");
    features.push(Feature {
        what: "io_uring disabled".to_owned(),
        found: off.map_or(Found::Unknown, |off| if off { Found::Yes } else { Found::No }),
        detail: uring.map_or_else(
            || "kernel without the setting".to_owned(),
            |text| format!("kernel.io_uring_disabled = {}", text.trim()),
        ),
        means: "opens made through io_uring are not captured by this tier",
        required: false,
    });
    let jit = std::fs::read_to_string(Path::new("/proc/sys/net/core/bpf_jit_enable")).ok();
    let on = jit.as_deref().map(|text| text.trim() != "0");
    features.push(Feature {
        what: "eBPF compiled to machine code (JIT)".to_owned(),
        found: on.map_or(Found::Unknown, |on| if on { Found::Yes } else { Found::No }),
        detail: jit.map_or_else(
            || "always on, or not readable".to_owned(),
            |text| format!("net.core.bpf_jit_enable = {}", text.trim()),
        ),
        means: "without it every hook costs several times as much",
        required: false,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_of_the_tier_is_looked_at() {
        let found = preflight();
        for hook in HOOKS {
            assert!(found.features.iter().any(|feature| feature.what.ends_with(&hook.name())), "{}", hook.name());
        }
        assert!(!found.kernel_release.is_empty());
        assert_eq!(found.usable(), !found.features.iter().any(|f| f.required && f.found == Found::No));
    }
}
