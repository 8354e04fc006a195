//! Which family of hooks serves the events, and how it is found out what a kernel allows: by trying, never by version.
//!
//! Owns [`Tier`], [`TierChoice`], [`Abilities`] and [`Refusal`]. A trial loads small programs of the same object, with maps of the
//! smallest size and nothing pinned; what was tried is gone when it ends. That a program attaches is not enough: a BPF
//! LSM program attaches on a kernel booted without `bpf` in its list of security modules, and never runs. So the trial
//! opens a file and looks whether the program saw it.
#![forbid(unsafe_code)]

use super::load::{ProbeError, chain};
use super::pins::MAPS;
use agent_common::globals::{Offsets, tier};
use aya::maps::Array;
use aya::programs::{BtfTracePoint, FEntry, Lsm, Program, ProgramError};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use serde::{Deserialize, Serialize};
use std::fs::File;

/// Which family of hooks serves the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// BPF LSM hooks for files and exec; the rest as below.
    Lsm,
    /// Entries of the kernel's `security_*` functions for files; the rest as below.
    Fentry,
    /// Tracepoints, cgroup socket-address programs and exit tracepoints of system calls.
    Tracepoint,
}

impl Tier {
    /// As records name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lsm => "lsm",
            Self::Fentry => "fentry",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// As the programs know it.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::Lsm => tier::LSM,
            Self::Fentry => tier::FENTRY,
            Self::Tracepoint => tier::TRACEPOINT,
        }
    }
}

/// Which tier is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TierChoice {
    /// The first of `lsm`, `fentry` and `tracepoint` that the kernel allows.
    #[default]
    Auto,
    /// Only this one.
    Lsm,
    /// Only this one.
    Fentry,
    /// Only this one.
    Tracepoint,
}

impl TierChoice {
    /// What to try, in this order.
    #[must_use]
    pub const fn candidates(self) -> &'static [Tier] {
        match self {
            Self::Auto => &[Tier::Lsm, Tier::Fentry, Tier::Tracepoint],
            Self::Lsm => &[Tier::Lsm],
            Self::Fentry => &[Tier::Fentry],
            Self::Tracepoint => &[Tier::Tracepoint],
        }
    }
}

/// What speaks against programs of a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The object is of another version.
    #[error("the eBPF object has no {what}")]
    NoPart {
        /// Which program or map it lacks.
        what: &'static str,
    },
    /// The kernel does not take such a program.
    #[error("{program} is refused: {why}")]
    Load {
        /// What sort of program.
        program: &'static str,
        /// The kernel's reason.
        why: String,
    },
    /// The kernel takes it and does not let it be attached, or taken away again.
    #[error("{program} cannot be attached: {why}")]
    Attach {
        /// What sort of program.
        program: &'static str,
        /// The kernel's reason.
        why: String,
    },
    /// It is attached and does not run.
    #[error("{program} attaches and is never called; security modules of this boot: {modules}")]
    NeverCalled {
        /// What sort of program.
        program: &'static str,
        /// The list of security modules.
        modules: String,
    },
    /// Whether it runs could not be looked at.
    #[error("{program} attaches, and whether it is called cannot be told: {why}")]
    Unseen {
        /// What sort of program.
        program: &'static str,
        /// Why not.
        why: String,
    },
    /// The kernel keeps its memory from programs.
    #[error(
        "this kernel is locked down (lockdown=confidentiality) and refuses programs that read kernel memory, which this \
         tier's names of files come from"
    )]
    Closed,
    /// Nothing was tried.
    #[error("not tried: {why}")]
    Untried {
        /// Why not.
        why: String,
    },
}

/// What this kernel was seen to allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// BPF LSM programs load, attach and run.
    pub lsm: Result<(), Refusal>,
    /// Programs on the entry of a function load, attach and run.
    pub fentry: Result<(), Refusal>,
    /// The kernel hashes a file for a program that may sleep.
    pub ima_file_hash: bool,
    /// Programs may read kernel memory at any address.
    pub read_kernel: bool,
}

const LSM_PROGRAM: &str = "a BPF LSM program";
const FENTRY_PROGRAM: &str = "a program on the entry of a function";

impl Abilities {
    /// Tries the programs of `object` whose names begin with `may_`.
    ///
    /// # Errors
    /// When the object cannot be loaded as far as its maps; what a program is refused is an ability that is not there.
    pub(super) fn of_kernel(object: &[u8], offsets: &Offsets, btf: &aya::Btf) -> Result<Self, ProbeError> {
        let mut loader = EbpfLoader::new();
        loader.btf(Some(btf));
        loader.allow_unsupported_maps();
        loader.verifier_log_level(VerifierLogLevel::DISABLE | VerifierLogLevel::STATS);
        loader.override_global("OFFSETS", offsets, true);
        for name in MAPS {
            // A ring is at least a page; the values of the others do not matter to these programs.
            match *name {
                "RING_CRIT" | "RING_BULK" => loader.map_max_entries(name, 4096),
                // Its size is not a number of entries.
                "TASKS" => &mut loader,
                _ => loader.map_max_entries(name, 1),
            };
        }
        let mut object = loader.load(object).map_err(|error| ProbeError::Object(Box::new(error)))?;
        Ok(Self {
            lsm: lsm_runs(&mut object, btf),
            fentry: fentry_runs(&mut object, btf),
            ima_file_hash: loads::<Lsm>(&mut object, "may_hash", |program| program.load("bprm_committed_creds", btf)),
            read_kernel: loads::<BtfTracePoint>(&mut object, "may_peek", |program| {
                program.load("sched_process_exec", btf)
            }),
        })
    }

    /// Why a tier cannot be armed here as far as was seen; none when nothing speaks against it.
    #[must_use]
    pub fn against(&self, tier: Tier) -> Option<Refusal> {
        match tier {
            // The hooks of the LSM tier stand beside ends of calls, which are attached as fentry programs are.
            Tier::Lsm => self.lsm.clone().and(self.fentry.clone()).err(),
            Tier::Fentry => self.fentry.clone().err(),
            Tier::Tracepoint => (!self.read_kernel).then_some(Refusal::Closed),
        }
    }
}

fn lsm_runs(object: &mut Ebpf, btf: &aya::Btf) -> Result<(), Refusal> {
    let program: &mut Lsm = find(object, "may_lsm")?;
    program.load("file_open", btf).map_err(|error| Refusal::Load { program: LSM_PROGRAM, why: chain(&error) })?;
    let attach = |error: ProgramError| Refusal::Attach { program: LSM_PROGRAM, why: chain(&error) };
    program.attach().map_err(attach)?;
    let ran = runs(object, 0, LSM_PROGRAM);
    let program: &mut Lsm = find(object, "may_lsm")?;
    program.unload().map_err(attach)?;
    ran
}

fn fentry_runs(object: &mut Ebpf, btf: &aya::Btf) -> Result<(), Refusal> {
    let program: &mut FEntry = find(object, "may_fentry")?;
    let load = |error: ProgramError| Refusal::Load { program: FENTRY_PROGRAM, why: chain(&error) };
    program.load("security_file_open", btf).map_err(load)?;
    let attach = |error: ProgramError| Refusal::Attach { program: FENTRY_PROGRAM, why: chain(&error) };
    program.attach().map_err(attach)?;
    let ran = runs(object, 1, FENTRY_PROGRAM);
    let program: &mut FEntry = find(object, "may_fentry")?;
    program.unload().map_err(attach)?;
    ran
}

/// Whether a program loads; it is not attached.
fn loads<'a, P: 'a>(
    object: &'a mut Ebpf,
    name: &'static str,
    load: impl FnOnce(&'a mut P) -> Result<(), ProgramError>,
) -> bool
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    match find(object, name) {
        Ok(program) => load(program).is_ok(),
        Err(_no_program) => false,
    }
}

fn find<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, Refusal>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = object.program_mut(name).ok_or(Refusal::NoPart { what: name })?;
    program.try_into().map_err(|_other_type| Refusal::NoPart { what: name })
}

/// Whether the program that counts at `place` sees this process open a file.
fn runs(object: &Ebpf, place: u32, program: &'static str) -> Result<(), Refusal> {
    let map = object.map("PROBED").ok_or(Refusal::NoPart { what: "PROBED" })?;
    let unseen = |why: String| Refusal::Unseen { program, why };
    let counts: Array<_, u64> = Array::try_from(map).map_err(|error| unseen(chain(&error)))?;
    let count = || counts.get(&place, 0).map_err(|error| unseen(chain(&error)));
    let before = count()?;
    File::open("/dev/null").map_err(|error| unseen(format!("/dev/null: {error}")))?;
    if count()? > before {
        return Ok(());
    }
    let modules = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_else(|error| error.to_string());
    Err(Refusal::NeverCalled { program, modules: modules.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_tried_only_where_nothing_speaks_against_it() {
        let refused = || Err(Refusal::Load { program: FENTRY_PROGRAM, why: "no".to_owned() });
        let nothing = Abilities { lsm: refused(), fentry: refused(), ima_file_hash: false, read_kernel: false };
        for tier in TierChoice::Auto.candidates() {
            assert!(nothing.against(*tier).is_some(), "{}", tier.name());
        }
        let usual = Abilities { read_kernel: true, ..nothing.clone() };
        assert_eq!(usual.against(Tier::Tracepoint), None);
        let closed = Abilities { lsm: Ok(()), fentry: Ok(()), ..nothing };
        assert_eq!((closed.against(Tier::Lsm), closed.against(Tier::Fentry)), (None, None));
        assert_eq!(closed.against(Tier::Tracepoint), Some(Refusal::Closed));
        assert!(Refusal::Closed.to_string().contains("lockdown=confidentiality"));
        let without_fentry = Abilities { fentry: refused(), ..closed };
        assert!(without_fentry.against(Tier::Lsm).is_some());
    }
}
