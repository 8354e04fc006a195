//! What this kernel and this process's rights allow, for `affiant doctor`: looked at, nothing that lasts is changed, no
//! root needed.
//!
//! A feature that cannot be looked at without rights is `Unknown`, never assumed. With them the small programs that
//! tell the tiers apart are tried, as at arming; whether the kernel accepts all the others is known only by loading
//! them, which [`super::Probe::arm`] does.
#![forbid(unsafe_code)]

use super::btf::Btf;
use super::hooks::{self, Attach};
use super::load::{
    KERNEL_BTF, abilities, cgroup2_root, chain, has_task_storage, is_confidential, kernel_release, lockdown,
};
use super::offsets;
use super::tiers::{Abilities, Refusal, Tier, TierChoice};
use crate::sys::mount::KernelFs;
use agent_common::globals::Offsets;
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

/// Looks at everything. `object` is the eBPF object that would be armed, `choice` the tier that configuration asks for.
#[must_use]
pub fn preflight(object: Option<&[u8]>, choice: TierChoice) -> Preflight {
    let mut features = Vec::new();
    let found = kernel_types(&mut features);
    rights(&mut features);
    let can = object.zip(found.as_ref()).map(|(object, (_, offsets))| abilities(object, offsets));
    let (can, tier) = tiers(can.as_ref(), choice, &mut features);
    file_systems(tier, &mut features);
    let mut not_covered = hooks::not_covered(tier, &can);
    hooks((tier, &can), found.as_ref().map(|(btf, _)| btf), &mut features, &mut not_covered);
    kernel_policy(tier, &mut features);
    let missing = features.iter().any(|feature| feature.required && feature.found == Found::No);
    Preflight { kernel_release: kernel_release(), features, tier: (!missing).then_some(tier), not_covered }
}

/// What was tried of the tiers; and the one that would run, or that is told of when none would.
fn tiers(
    tried: Option<&Result<Abilities, super::ProbeError>>,
    choice: TierChoice,
    features: &mut Vec<Feature>,
) -> (Abilities, Tier) {
    let untried = match tried {
        Some(Ok(can)) => {
            let mut first = None;
            for tier in choice.candidates() {
                let against = can.against(*tier);
                first = first.or_else(|| against.is_none().then_some(*tier));
                features.push(Feature {
                    what: format!("tier {}", tier.name()),
                    found: if against.is_none() { Found::Yes } else { Found::No },
                    detail: against.map_or_else(|| "tried".to_owned(), |against| against.to_string()),
                    means: "a lower tier serves its events where it can, and every armed record says so",
                    required: false,
                });
            }
            features.push(Feature {
                what: "files hashed by the kernel".to_owned(),
                found: if can.ima_file_hash { Found::Yes } else { Found::No },
                detail: String::new(),
                means: "an exec does not carry the hash of its binary",
                required: false,
            });
            if first.is_none() {
                features.push(Feature {
                    what: "a tier of hooks".to_owned(),
                    found: Found::No,
                    detail: "none of those asked for".to_owned(),
                    means: "nothing can be armed: see what speaks against each tier",
                    required: true,
                });
            }
            let last = choice.candidates().last().copied().unwrap_or(Tier::Tracepoint);
            return (can.clone(), first.unwrap_or(last));
        }
        Some(Err(error)) => chain(error),
        None => "no eBPF object to try, or the kernel's types are not known".to_owned(),
    };
    features.push(Feature {
        what: "tiers of hooks".to_owned(),
        found: Found::Unknown,
        detail: untried.clone(),
        means: "which tier would run can be told with the right to load programs",
        required: false,
    });
    // Told of as if it were the lowest.
    let refusal = Refusal::Untried { why: untried };
    let can = Abilities {
        lsm: Err(refusal.clone()),
        fentry: Err(refusal),
        ima_file_hash: false,
        read_kernel: !is_confidential(lockdown().as_deref()),
    };
    (can, choice.candidates().last().copied().unwrap_or(Tier::Tracepoint))
}

fn kernel_types(features: &mut Vec<Feature>) -> Option<(Btf, Offsets)> {
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
    let offsets = resolved.as_ref().ok().copied();
    features.push(Feature {
        what: "struct members the programs read".to_owned(),
        found: if resolved.is_ok() { Found::Yes } else { Found::No },
        detail: resolved.map_or_else(|error| error, |offsets| format!("{} members found", offsets.named().len())),
        means: "the kernel's structs differ from every version known: the programs cannot be fitted to it",
        required: true,
    });
    Some((btf, offsets?))
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

fn file_systems(tier: Tier, features: &mut Vec<Feature>) {
    // Only the lowest tier's required hooks are classic tracepoints.
    let classic = tier == Tier::Tracepoint;
    for (fs, what, required) in
        [(KernelFs::Bpf, "bpffs, for pins", true), (KernelFs::Trace, "tracefs, for classic tracepoints", classic)]
    {
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
        features.push(Feature { what: what.to_owned(), found, detail, means, required });
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

fn hooks(
    (tier, can): (Tier, &Abilities),
    btf: Option<&Btf>,
    features: &mut Vec<Feature>,
    not_covered: &mut Vec<(String, String)>,
) {
    let is_function = |name: &str| btf.and_then(|btf| btf.has_function(name).ok());
    let tracing = KernelFs::Trace.usual_path().join("events");
    let traced = KernelFs::Trace.is_at(KernelFs::Trace.usual_path()).unwrap_or(false);
    for hook in hooks::of(tier) {
        let found = match hook.attach {
            Attach::Btf(name) => btf.map(|btf| matches!(btf.tracepoint_args(name), Ok(Some(_)))),
            Attach::Classic(category, name) => {
                // Unreadable without root, and empty when not mounted: then it cannot be told.
                let known = traced && std::fs::read_dir(&tracing).is_ok();
                known.then(|| tracing.join(category).join(name).is_dir())
            }
            Attach::SockAddr => cgroup2_root().ok().map(|_| true),
            Attach::Iter(_) => None,
            Attach::Lsm(name) | Attach::LsmSleepable(name) => is_function(&format!("bpf_lsm_{name}")),
            Attach::Fentry(name) | Attach::Fexit(name) => is_function(name),
        };
        let runs = hook.runs(can.read_kernel);
        let found = found.map_or(Found::Unknown, |found| if found { Found::Yes } else { Found::No });
        let found = if runs { found } else { Found::No };
        // What is left out is said there already, event by event.
        if found == Found::No && !hook.required && runs {
            not_covered.push((format!("{}: {}", hook.event, hook.name()), "this kernel has no such hook".to_owned()));
        }
        features.push(Feature {
            what: format!("hook {}", hook.name()),
            found,
            detail: if runs {
                format!("serves {}", hook.event)
            } else {
                format!("serves {}; left out under lockdown=confidentiality", hook.event)
            },
            means: "events of this kind are not captured, and every armed record says so",
            required: hook.required,
        });
    }
}

fn kernel_policy(tier: Tier, features: &mut Vec<Feature>) {
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
        means: "lockdown=confidentiality: only the tiers lsm and fentry can be armed, without some fields (see not covered)",
        required: tier == Tier::Tracepoint,
    });
    let lsm = std::fs::read_to_string("/sys/kernel/security/lsm").ok();
    let listed = lsm.as_deref().map(|text| text.trim().split(',').any(|name| name == "bpf"));
    features.push(Feature {
        what: "BPF LSM".to_owned(),
        found: listed.map_or(Found::Unknown, |listed| if listed { Found::Yes } else { Found::No }),
        detail: lsm.map_or_else(|| "no /sys/kernel/security/lsm".to_owned(), |text| text.trim().to_owned()),
        means: "boot with lsm=...,bpf for the tier that hashes binaries, reads long arguments and sees what an exec changes",
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
        means: "what is done through io_uring is captured in part only: see not covered",
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
        let found = preflight(None, TierChoice::Tracepoint);
        for hook in hooks::of(Tier::Tracepoint) {
            assert!(found.features.iter().any(|feature| feature.what.ends_with(&hook.name())), "{}", hook.name());
        }
        assert!(!found.kernel_release.is_empty());
        assert_eq!(found.usable(), !found.features.iter().any(|f| f.required && f.found == Found::No));
    }
}
