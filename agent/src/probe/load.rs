//! Arming: load the object, attach and pin, or take over what is pinned already.
#![forbid(unsafe_code)]

use super::backfill::{self, Alive};
use super::btf::{Btf, BtfError};
use super::counters::{Counters, LossEntry, losses};
use super::hooks::{self, Attach, Hook};
use super::notes::{self, ToTraces};
use super::offsets::{self, OffsetsError};
use super::ours;
use super::pins::{MAPS, PinSet};
use super::tiers::{Abilities, Tier, TierChoice};
use crate::sys::mount::KernelFs;
use crate::sys::ringbuf::{RingError, RingReader};
use agent_common::WIRE_VERSION;
use agent_common::globals::Offsets;
use agent_common::header::class;
use agent_common::limits::{EXEC_SLOTS, SCRATCH_SLOTS_PER_CPU};
use agent_common::stats::{Loss, LossKey, Meta, Scope, Settings};
use aya::maps::{Array, HashMap, Map, MapData, MapError, MapType, PerCpuArray};
use aya::programs::ProgramType;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FEntry, FExit, Iter, Lsm, ProgramError, ProgramInfo, TracePoint,
};
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported};
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use aya_log::EbpfLogger;
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Where the kernel describes its types.
pub(super) const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why capture could not be armed, or a map not be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A file of the kernel could not be read or made.
    #[error("{doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No cgroup v2 hierarchy is mounted.
    #[error("no cgroup2 file system in /proc/mounts: mount one to attach the network hooks")]
    NoCgroup2,
    /// The kernel's types could not be read.
    #[error("kernel types in {KERNEL_BTF}")]
    Btf(#[source] BtfError),
    /// The kernel's types do not fit the programs.
    #[error("the programs do not fit this kernel")]
    Offsets(#[source] OffsetsError),
    /// Nothing that is wanted is possible here.
    #[error("no tier of hooks can be armed here: {}", listed(.seen))]
    NoTier {
        /// Each tier that was tried, and what speaks against it.
        seen: Vec<(Tier, String)>,
    },
    /// The kernel is older than the programs.
    #[error("this kernel has no task storage for eBPF programs: Linux 5.12 or newer is needed")]
    NoTaskStorage(#[source] Box<ProbeError>),
    /// The eBPF object could not be loaded.
    #[error("cannot load the eBPF object")]
    Object(#[source] Box<EbpfError>),
    /// The object lacks a program, or has it under another type.
    #[error("the eBPF object has no program {program} for {hook}")]
    NoProgram {
        /// The function.
        program: &'static str,
        /// Its hook.
        hook: String,
    },
    /// A program was refused or could not be attached.
    #[error("program {program} on {hook}: {step}")]
    Program {
        /// The function.
        program: &'static str,
        /// Its hook.
        hook: String,
        /// Load, attach or pin.
        step: &'static str,
        /// The kernel's reason, with the verifier's log for a load.
        #[source]
        source: Box<ProgramError>,
    },
    /// A link could not be pinned or read.
    #[error("link of {hook}")]
    Link {
        /// Its hook.
        hook: String,
        /// Why.
        #[source]
        source: Box<LinkError>,
    },
    /// A map could not be opened, read or written.
    #[error("map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// A ring could not be mapped.
    #[error("ring {map}")]
    Ring {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: RingError,
    },
    /// No randomness for the capture id.
    #[error("no randomness for the capture id: {0}")]
    Random(getrandom::Error),
}

/// How the kernel side is to be armed.
#[derive(Clone, Debug)]
pub struct ProbeConfig {
    /// The eBPF object, as built from `agent-ebpf`.
    pub object: Vec<u8>,
    /// Directory on a bpffs under which everything is pinned; made if absent, bpffs mounted at `/sys/fs/bpf` if
    /// absent. Two probes at the same time need two roots.
    pub pin_root: PathBuf,
    /// Process id of the agent, whose own file, network and privileged acts are not captured.
    pub agent_tgid: u32,
    /// Which tier of hooks is wanted.
    pub tier: TierChoice,
}

impl ProbeConfig {
    /// The usual place for pins.
    pub const PIN_ROOT: &'static str = "/sys/fs/bpf/affiant";
}

/// One program in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookReport {
    /// The event it serves.
    pub event: &'static str,
    /// The hook, with its kind in front.
    pub hook: String,
    /// The function.
    pub program: &'static str,
    /// File name of the pinned link.
    pub link: String,
    /// The kernel's digest of the program's instructions, hex.
    pub tag: String,
    /// The kernel's id of the program.
    pub program_id: u32,
    /// The kernel's id of the attachment.
    pub link_id: u32,
    /// Whether the attachment outlives this process.
    pub pinned: bool,
    /// Instructions that the verifier looked at, where the kernel says (5.16).
    pub verified_insns: Option<u32>,
    /// Bytes of translated instructions.
    pub xlated_bytes: Option<u32>,
    /// Bytes of machine code.
    pub jited_bytes: Option<u32>,
    /// Whether this run attached it; false for one taken over.
    pub attached_now: bool,
}

/// A pinned set that was not taken over but removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedSet {
    /// Its directory.
    pub dir: PathBuf,
    /// Why it was not used.
    pub why: String,
    /// Its number space, where it could be read.
    pub capture_id: Option<[u8; 16]>,
    /// Bytes in its rings that no reader had released, where they could be read: events that are lost to the log.
    pub unread_bytes: Option<u64>,
    /// Its counters, where they could be read: what had been generated and dropped.
    pub counters: Option<Counters>,
}

/// What is in force: everything that the `armed` record says of the kernel side.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// Which family of hooks.
    pub tier: Tier,
    /// Each program on each hook.
    pub hooks: Vec<HookReport>,
    /// What is not captured, and why.
    pub not_covered: Vec<(String, String)>,
    /// SHA-256 over the struct offsets and constants.
    pub offsets_digest: [u8; 32],
    /// SHA-256 of the eBPF object.
    pub object_digest: [u8; 32],
    /// `uname -r`.
    pub kernel_release: String,
    /// The kernel's lockdown file, or `None` where it has none (then `unknown`, not `none`).
    pub lockdown: Option<String>,
    /// Whether the kernel describes its types; always true here, since nothing can be armed without.
    pub btf_present: bool,
    /// Names the number space of this set of maps.
    pub capture_id: [u8; 16],
    /// Whether the maps of an earlier run were taken over, with what is in their rings.
    pub resumed: bool,
    /// Sets of other versions that were removed.
    pub removed: Vec<RemovedSet>,
    /// Where this set is pinned.
    pub pin_dir: PathBuf,
}

/// Both rings.
pub struct Rings {
    /// Process, cgroup and privilege events.
    pub crit: RingReader,
    /// Network and file events.
    pub bulk: RingReader,
}

/// The kernel side, armed.
pub struct Probe {
    report: ProbeReport,
    pins: PinSet,
    seq: PerCpuArray<MapData, u64>,
    drops: PerCpuArray<MapData, u64>,
    loss: HashMap<MapData, LossKey, Loss>,
    scope: HashMap<MapData, u64, Scope>,
    settings: Array<MapData, Settings>,
    /// Held besides the pins, so that removing a pin does not detach a hook while this process lives.
    _links: Vec<FdLink>,
    /// Notes of programs built with their feature `trace`.
    notes: Option<EbpfLogger<ToTraces>>,
}

/// Whether the hooks are as they were armed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCheck {
    /// Every link is pinned and attached, and carries the program it was armed with.
    pub ok: bool,
    /// What is not, empty when all is well.
    pub what: String,
    /// SHA-256 over the programs' tags as read now, in the order of the report.
    pub digest: [u8; 32],
}

impl Probe {
    /// Arms capture, or takes over what an earlier run left armed. Programs run when this returns.
    ///
    /// A pinned set of this object and these offsets is taken over with its rings, counters and scopes; hooks whose
    /// links are missing are attached again. Anything else under the pin root is removed after the new set runs,
    /// and the report says so.
    ///
    /// # Errors
    /// When a required hook cannot be served; what was done is undone first, unless it was taken over.
    pub fn arm(config: &ProbeConfig) -> Result<Self, ProbeError> {
        prepare_file_systems(&config.pin_root)?;
        let btf = Btf::parse(read(Path::new(KERNEL_BTF))?).map_err(ProbeError::Btf)?;
        let mut offsets = offsets::resolve(&btf).map_err(ProbeError::Offsets)?;
        drop(btf);
        let storage = is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_task_storage_get);
        // When the kernel cannot be asked, the way that works everywhere is taken.
        offsets.sock_addr_storage = u32::from(storage.unwrap_or(false));
        offsets.exec_slot_first = possible_cpus()?.saturating_mul(SCRATCH_SLOTS_PER_CPU);
        let can = abilities(&config.object, &offsets)?;
        offsets.read_kernel = can.read_kernel.into();
        offsets.ima_file_hash = can.ima_file_hash.into();
        let mut seen = Vec::new();
        for tier in config.tier.candidates() {
            if let Some(why) = can.against(*tier) {
                seen.push((*tier, why.to_string()));
                continue;
            }
            offsets.tier = tier.number();
            match Self::arm_tier(config, *tier, &can, &offsets, &seen) {
                Ok(probe) => return Ok(probe),
                // Whatever speaks against the last one is the error, with its causes.
                Err(error) if config.tier.candidates().last() == Some(tier) => return Err(error),
                Err(error) => {
                    let why = chain(&error);
                    tracing::warn!(tier = tier.name(), why, "a tier of hooks cannot be armed; the next is tried");
                    seen.push((*tier, why));
                }
            }
        }
        Err(ProbeError::NoTier { seen })
    }

    /// Arms one tier. `above` are those that would have been better, and what speaks against them.
    fn arm_tier(
        config: &ProbeConfig,
        tier: Tier,
        can: &Abilities,
        offsets: &Offsets,
        above: &[(Tier, String)],
    ) -> Result<Self, ProbeError> {
        let object_digest: [u8; 32] = Sha256::digest(&config.object).into();
        let offsets_digest = offsets::digest(offsets);
        let pins = PinSet::of(&config.pin_root, &object_digest, &offsets_digest);

        let mut removed = Vec::new();
        let found = if pins.exists() { found_meta(&pins, &object_digest, &offsets_digest) } else { Err(None) };
        let (resumed, capture_id) = match found {
            Ok(meta) => (true, meta.capture_id),
            Err(why) => {
                if let Some(why) = why {
                    removed.push(remove_set(&pins, why)?);
                }
                pins.create().map_err(|source| file_error("create", pins.dir(), source))?;
                let mut id = [0; 16];
                getrandom::fill(&mut id).map_err(ProbeError::Random)?;
                (false, id)
            }
        };
        let mut meta =
            Meta { capture_id, object_digest, offsets_digest, wire_version: WIRE_VERSION.into(), complete: 0 };
        match attach_all(config, tier, offsets, &pins, resumed, &mut meta) {
            Ok((hooks, refused)) => {
                let mut not_covered = hooks::not_covered(tier, can);
                not_covered.extend(refused);
                not_covered.extend(lacking(offsets));
                for (better, why) in above {
                    not_covered.push((format!("what only tier {} sees", better.name()), why.clone()));
                }
                for other in pins.others(&config.pin_root).map_err(|e| file_error("list", &config.pin_root, e))? {
                    let why = "made by another version of the eBPF object, or for another tier of hooks";
                    removed.push(remove_set(&other, why.to_owned())?);
                }
                let report = ProbeReport {
                    tier,
                    hooks,
                    not_covered,
                    offsets_digest,
                    object_digest,
                    kernel_release: kernel_release(),
                    lockdown: lockdown(),
                    btf_present: true,
                    capture_id,
                    resumed,
                    removed,
                    pin_dir: pins.dir().to_owned(),
                };
                Self::open(report, pins)
            }
            Err(error) => {
                if !resumed {
                    // The error that stopped the arming is the one to report; a half-made set is also recognised
                    // and removed at the next start.
                    let _ = pins.remove();
                }
                Err(error)
            }
        }
    }

    fn open(report: ProbeReport, pins: PinSet) -> Result<Self, ProbeError> {
        Ok(Self {
            seq: typed(&pins, "SEQ", PerCpuArray::try_from)?,
            drops: typed(&pins, "DROPS", PerCpuArray::try_from)?,
            loss: typed(&pins, "LOSS", HashMap::try_from)?,
            scope: typed(&pins, "SCOPE", HashMap::try_from)?,
            settings: typed(&pins, "SETTINGS", Array::try_from)?,
            _links: report
                .hooks
                .iter()
                .map(|hook| {
                    let link_failed =
                        |source: LinkError| ProbeError::Link { hook: hook.hook.clone(), source: Box::new(source) };
                    Ok(PinnedLink::from_pin(pins.link(&hook.link)).map_err(link_failed)?.into())
                })
                .collect::<Result<_, ProbeError>>()?,
            notes: report.hooks.first().and_then(|hook| notes::of_program(hook.program_id)),
            report,
            pins,
        })
    }

    /// What is in force since arming.
    #[must_use]
    pub fn report(&self) -> &ProbeReport {
        &self.report
    }

    /// Reads every link and program again and compares them with what was armed.
    ///
    /// # Errors
    /// Never for a hook that is gone, which the answer says; kept fallible for kernels that refuse to be asked.
    pub fn check_hooks(&self) -> Result<HookCheck, ProbeError> {
        let mut hash = Sha256::new();
        let mut faults = Vec::new();
        for armed in &self.report.hooks {
            match (link_ids(&self.pins.link(&armed.link)), ProgramInfo::from_pin(self.pins.program(armed.program))) {
                (Ok(ids), Ok(program)) => {
                    let tag = format!("{:016x}", program.tag());
                    hash.update(tag.as_bytes());
                    if ids != (armed.link_id, armed.program_id) {
                        faults.push(format!("{}: link {} of program {}", armed.hook, ids.0, ids.1));
                    } else if program.id() != armed.program_id || tag != armed.tag {
                        faults.push(format!("{}: program {} with tag {tag}", armed.hook, program.id()));
                    }
                }
                (link, program) => {
                    hash.update([0; 16]);
                    let why = link.err().map(|error| error.to_string());
                    let why = why.or_else(|| program.err().map(|error| error.to_string())).unwrap_or_default();
                    faults.push(format!("{}: {why}", armed.hook));
                }
            }
        }
        Ok(HookCheck { ok: faults.is_empty(), what: faults.join("; "), digest: hash.finalize().into() })
    }

    /// The processes alive now, from the kernel's iterator where it could be loaded, else from `/proc`; each entry
    /// says which. With the iterator this also gives every process its scope.
    ///
    /// # Errors
    /// When neither can be read.
    pub fn backfill(&self) -> Result<Vec<Alive>, ProbeError> {
        let path = self.pins.link("alive");
        if path.exists() {
            let bytes = read(&path)?;
            return backfill::parse(&bytes)
                .map_err(|error| file_error("read", &path, io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        let proc = Path::new("/proc");
        backfill::from_proc(proc).map_err(|source| file_error("read", proc, source))
    }

    /// Passes on what programs built with their feature `trace` have noted; does nothing for others.
    pub fn flush_notes(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.flush();
        }
    }

    /// Opens both rings, standing where the last reader released up to. One reader of each at a time.
    ///
    /// # Errors
    /// When they cannot be mapped, or are corrupt.
    pub fn rings(&self) -> Result<Rings, ProbeError> {
        Ok(Rings { crit: ring(&self.pins, "RING_CRIT")?, bulk: ring(&self.pins, "RING_BULK")? })
    }

    /// Numbers given out and events dropped, by CPU and class.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn counters(&self) -> Result<Counters, ProbeError> {
        Counters::read(&self.seq, &self.drops).map_err(|source| map_error("SEQ", source))
    }

    /// Losses by class and scope since the maps were made.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn losses(&self) -> Result<Vec<LossEntry>, ProbeError> {
        losses(&self.loss).map_err(|source| map_error("LOSS", source))
    }

    /// Puts a cgroup in the scope whose root is `scope_id` (the cgroup itself for a root), with the event families
    /// wanted (`agent_common::stats::family`). New child cgroups follow in the kernel; existing ones need their own
    /// call. Holds for tasks already inside from their next act on.
    ///
    /// # Errors
    /// When the map is full or cannot be written.
    pub fn scope_set(&mut self, cgroup_id: u64, scope_id: u64, families: u32) -> Result<(), ProbeError> {
        let scope = Scope { scope_id, families, reserved: 0 };
        self.scope.insert(cgroup_id, scope, 0).map_err(|source| map_error("SCOPE", source))?;
        self.next_generation(families)
    }

    /// Takes a cgroup out of scope; for a root, this ends the scope for the processes that left the cgroup too.
    /// A cgroup that is not there is no error: the kernel removes entries with their cgroups.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn scope_remove(&mut self, cgroup_id: u64) -> Result<(), ProbeError> {
        match self.scope.remove(&cgroup_id) {
            Ok(()) | Err(MapError::KeyNotFound) => self.next_generation(0),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(map_error("SCOPE", source)),
        }
    }

    /// Every cgroup in scope, as the kernel has it now: (cgroup id, scope id, families).
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn scopes(&self) -> Result<Vec<(u64, u64, u32)>, ProbeError> {
        let mut scopes = Vec::new();
        for entry in self.scope.iter() {
            let (id, scope) = entry.map_err(|source| map_error("SCOPE", source))?;
            scopes.push((id, scope.scope_id, scope.families));
        }
        scopes.sort_unstable();
        Ok(scopes)
    }

    /// Ends this daemon's hold. With `keep_pins` capture goes on into the rings for the next daemon; without, every
    /// hook is detached and the maps go with what nobody read.
    ///
    /// # Errors
    /// When the pins cannot be removed.
    pub fn disarm(mut self, keep_pins: bool) -> Result<(), ProbeError> {
        if !keep_pins {
            return self.pins.remove().map_err(|source| file_error("remove", self.pins.dir(), source));
        }
        let mut settings = self.settings.get(&0, 0).map_err(|source| map_error("SETTINGS", source))?;
        settings.agent_tgid = 0;
        self.settings.set(0, settings, 0).map_err(|source| map_error("SETTINGS", source))
    }

    /// Makes the programs look scopes up again, for these families besides those wanted already.
    fn next_generation(&mut self, families: u32) -> Result<(), ProbeError> {
        let mut settings = self.settings.get(&0, 0).map_err(|source| map_error("SETTINGS", source))?;
        settings.generation = settings.generation.wrapping_add(1);
        settings.families |= families;
        self.settings.set(0, settings, 0).map_err(|source| map_error("SETTINGS", source))
    }
}

/// What programs made for this kernel cannot see because of what it lacks.
fn lacking(offsets: &Offsets) -> Vec<(String, String)> {
    let mut lacking = Vec::new();
    if offsets.sock_addr_storage == 0 {
        let why = "this kernel's address hooks have no task storage, so there only the cgroup says whose it is";
        lacking.push(("connect: io_uring by a process that left its scope's cgroup", why));
        lacking.push(("send: by a process that left its scope's cgroup", why));
    }
    if offsets.has_vsock == 0 {
        let why = "AF_VSOCK is not in this kernel or a module of it; its sockets are recorded when made";
        lacking.push(("connect_vsock", why));
    }
    lacking.into_iter().map(|(what, why)| (what.to_owned(), why.to_owned())).collect()
}

/// What this kernel allows, by trying it with small programs of the object.
pub(super) fn abilities(object: &[u8], offsets: &Offsets) -> Result<Abilities, ProbeError> {
    // aya's own reader of the same file as ours, which does not give what its loader wants.
    let btf = aya::Btf::from_sys_fs().map_err(|error| ProbeError::Object(Box::new(error.into())))?;
    Abilities::of_kernel(object, offsets, &btf).map_err(|error| match error {
        ProbeError::Object(_) if has_task_storage() == Some(false) => ProbeError::NoTaskStorage(Box::new(error)),
        other => other,
    })
}

/// Tiers with what was seen of each, on one line.
fn listed(seen: &[(Tier, String)]) -> String {
    let each: Vec<String> = seen.iter().map(|(tier, why)| format!("{}: {why}", tier.name())).collect();
    each.join("; ")
}

/// Whether a lockdown file says that kernel memory is kept from programs.
pub(super) fn is_confidential(lockdown: Option<&str>) -> bool {
    lockdown.is_some_and(|text| text.contains("[confidentiality]"))
}

/// Whether the kernel has `BPF_MAP_TYPE_TASK_STORAGE` (5.11), in which scopes are kept; none when it cannot be asked.
///
/// Kernels that have it have the atomic instructions too, but for 5.11 itself, which needs 5.12's.
pub(super) fn has_task_storage() -> Option<bool> {
    is_map_supported(MapType::TaskStorage).ok()
}

fn prepare_file_systems(pin_root: &Path) -> Result<(), ProbeError> {
    for fs in [KernelFs::Trace, KernelFs::Bpf] {
        let path = fs.usual_path();
        if fs.ensure_at(path).map_err(|source| file_error("mount", path, source))? {
            tracing::info!(path = %path.display(), "mounted");
        }
    }
    std::fs::create_dir_all(pin_root).map_err(|source| file_error("create", pin_root, source))?;
    match KernelFs::Bpf.is_at(pin_root) {
        Ok(true) => Ok(()),
        Ok(false) => Err(file_error("pin under", pin_root, io::Error::other("not on a bpffs"))),
        Err(source) => Err(file_error("pin under", pin_root, source)),
    }
}

/// The set's own description, if the whole set can be taken over; else why not.
fn found_meta(pins: &PinSet, object: &[u8; 32], offsets: &[u8; 32]) -> Result<Meta, Option<String>> {
    for name in MAPS {
        if let Err(error) = MapData::from_pin(pins.map(name)) {
            return Err(Some(format!("map {name} is missing or unusable: {error}")));
        }
    }
    let meta: Result<Array<_, Meta>, _> = typed(pins, "META", Array::try_from);
    let meta = meta.and_then(|meta| meta.get(&0, 0).map_err(|source| map_error("META", source)));
    match meta {
        Err(error) => Err(Some(format!("its description cannot be read: {error}"))),
        Ok(meta) if meta.wire_version != u32::from(WIRE_VERSION) => {
            Err(Some(format!("wire version {}, expected {WIRE_VERSION}", meta.wire_version)))
        }
        Ok(meta) if meta.complete != 1 => Err(Some("its making was interrupted".to_owned())),
        Ok(meta) if meta.object_digest != *object || meta.offsets_digest != *offsets => {
            Err(Some("it was made from another eBPF object".to_owned()))
        }
        Ok(meta) => Ok(meta),
    }
}

/// Removes a set, after reading what can be said about it.
fn remove_set(pins: &PinSet, why: String) -> Result<RemovedSet, ProbeError> {
    let meta: Result<Array<_, Meta>, _> = typed(pins, "META", Array::try_from);
    let capture_id = meta.ok().and_then(|meta| meta.get(&0, 0).ok()).map(|meta| meta.capture_id);
    let seq: Result<PerCpuArray<_, u64>, _> = typed(pins, "SEQ", PerCpuArray::try_from);
    let drops: Result<PerCpuArray<_, u64>, _> = typed(pins, "DROPS", PerCpuArray::try_from);
    // Links go first, so that the numbers below are final.
    let links = pins.dir().join("links");
    for entry in std::fs::read_dir(&links).into_iter().flatten().flatten() {
        let path = entry.path();
        std::fs::remove_file(&path).map_err(|source| file_error("remove", &path, source))?;
    }
    let counters = match (seq, drops) {
        (Ok(seq), Ok(drops)) => Counters::read(&seq, &drops).ok(),
        _ => None,
    };
    let unread_bytes = match (ring(pins, "RING_CRIT"), ring(pins, "RING_BULK")) {
        (Ok(crit), Ok(bulk)) => Some(crit.backlog_bytes() + bulk.backlog_bytes()),
        _ => None,
    };
    pins.remove().map_err(|source| file_error("remove", pins.dir(), source))?;
    tracing::warn!(dir = %pins.dir().display(), why, unread_bytes, "removed a pinned set");
    Ok(RemovedSet { dir: pins.dir().to_owned(), why, capture_id, unread_bytes, counters })
}

type Attached = (Vec<HookReport>, Vec<(String, String)>);

/// Attaches every hook of the tier that is not attached yet, and describes all of them. Programs of other tiers are in
/// the object and never loaded.
fn attach_all(
    config: &ProbeConfig,
    tier: Tier,
    offsets: &Offsets,
    pins: &PinSet,
    resumed: bool,
    meta: &mut Meta,
) -> Result<Attached, ProbeError> {
    let linked = |hook: &Hook| resumed && pins.link(&hook.link_name()).exists();
    let wanted = || hooks::of(tier).filter(|hook| hook.runs(offsets.read_kernel != 0));
    let mut not_covered = Vec::new();
    let mut attached_now = Vec::new();
    if !wanted().all(linked) {
        // aya's own reader of the same file as ours, which does not give what its loader wants.
        let btf = aya::Btf::from_sys_fs().map_err(|error| ProbeError::Object(Box::new(error.into())))?;
        let mut object = load_object(config, tier, offsets, pins, &btf)?;
        initialize(config, pins, resumed, meta)?;
        for hook in wanted() {
            if linked(hook) {
                continue;
            }
            match attach(&mut object, hook, pins, &btf) {
                Ok(()) => attached_now.push(hook.link_name()),
                Err(error) if hook.required => return Err(error),
                Err(error) => not_covered.push((format!("{}: {}", hook.event, hook.name()), chain(&error))),
            }
        }
    } else {
        initialize(config, pins, resumed, meta)?;
    }
    meta.complete = 1;
    write_meta(pins, meta)?;
    let mut reports = Vec::new();
    for hook in wanted() {
        let name = hook.link_name();
        if pins.link(&name).exists() {
            reports.push(describe(hook, pins, attached_now.contains(&name))?);
        }
    }
    ours::tell(pins, &reports)?;
    Ok((reports, not_covered))
}

fn load_object(
    config: &ProbeConfig,
    tier: Tier,
    offsets: &Offsets,
    pins: &PinSet,
    btf: &aya::Btf,
) -> Result<Ebpf, ProbeError> {
    let mut loader = EbpfLoader::new();
    loader.btf(Some(btf));
    loader.allow_unsupported_maps();
    // The whole log of an accepted program costs seconds; a refusal is loaded again by aya with its log.
    loader.verifier_log_level(VerifierLogLevel::DISABLE | VerifierLogLevel::STATS);
    loader.override_global("OFFSETS", offsets, true);
    let slots = offsets.exec_slot_first.saturating_add(if tier == Tier::Lsm { EXEC_SLOTS } else { 0 });
    if tier == Tier::Tracepoint {
        loader.map_max_entries("OPENS", 1);
    }
    if tier != Tier::Lsm {
        loader.map_max_entries("EXECS", 1);
        loader.map_max_entries("HASHES", 1);
    }
    for name in ["SCRATCH", "CLAIMS"] {
        loader.map_max_entries(name, slots);
    }
    for name in MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    loader.load(&config.object).map_err(|error| ProbeError::Object(Box::new(error)))
}

/// How many CPUs this kernel may ever have: the highest number is not a count, as CPUs can be numbered with holes.
fn possible_cpus() -> Result<u32, ProbeError> {
    let path = Path::new("/sys/devices/system/cpu/possible");
    let text = std::fs::read_to_string(path).map_err(|source| file_error("read", path, source))?;
    let last = text.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<u32>().ok());
    let last = last.ok_or_else(|| file_error("understand", path, io::Error::other(text.clone())))?;
    Ok(last.saturating_add(1))
}

/// Puts the maps in the state that the programs expect before the first of them runs.
fn initialize(config: &ProbeConfig, pins: &PinSet, resumed: bool, meta: &Meta) -> Result<(), ProbeError> {
    let mut settings: Array<_, Settings> = typed(pins, "SETTINGS", Array::try_from)?;
    let before = settings.get(&0, 0).map_err(|source| map_error("SETTINGS", source))?;
    let now = Settings {
        agent_tgid: config.agent_tgid,
        generation: before.generation.wrapping_add(1),
        families: before.families,
        reserved: 0,
    };
    settings.set(0, now, 0).map_err(|source| map_error("SETTINGS", source))?;
    if resumed {
        return Ok(());
    }
    write_meta(pins, meta)?;
    let mut loss: HashMap<_, LossKey, Loss> = typed(pins, "LOSS", HashMap::try_from)?;
    for class in 0..class::COUNT {
        let key = LossKey { scope_id: 0, class, reserved: 0 };
        loss.insert(key, Loss::default(), 0).map_err(|source| map_error("LOSS", source))?;
    }
    Ok(())
}

fn write_meta(pins: &PinSet, meta: &Meta) -> Result<(), ProbeError> {
    let mut map: Array<_, Meta> = typed(pins, "META", Array::try_from)?;
    map.set(0, *meta, 0).map_err(|source| map_error("META", source))
}

fn attach(object: &mut Ebpf, hook: &Hook, pins: &PinSet, btf: &aya::Btf) -> Result<(), ProbeError> {
    let no_program = || ProbeError::NoProgram { program: hook.program, hook: hook.name() };
    let failed = |step: &'static str| {
        move |source: ProgramError| ProbeError::Program {
            program: hook.program,
            hook: hook.name(),
            step,
            source: Box::new(source),
        }
    };
    let link_failed = |source: LinkError| ProbeError::Link { hook: hook.name(), source: Box::new(source) };
    let program = object.program_mut(hook.program).ok_or_else(no_program)?;
    let loaded = program.fd().is_ok();
    let link: FdLink = match hook.attach {
        Attach::Btf(name) => {
            let program: &mut BtfTracePoint = program.try_into().map_err(failed("find"))?;
            if !loaded {
                program.load(name, btf).map_err(failed("load"))?;
            }
            let id = program.attach().map_err(failed("attach"))?;
            program.take_link(id).map_err(failed("attach"))?.into()
        }
        Attach::Classic(category, name) => {
            let program: &mut TracePoint = program.try_into().map_err(failed("find"))?;
            if !loaded {
                program.load().map_err(failed("load"))?;
            }
            let id = program.attach(category, name).map_err(failed("attach"))?;
            program.take_link(id).map_err(failed("attach"))?.try_into().map_err(link_failed)?
        }
        Attach::SockAddr => {
            let program: &mut CgroupSockAddr = program.try_into().map_err(failed("find"))?;
            if !loaded {
                program.load().map_err(failed("load"))?;
            }
            let root = cgroup2_root()?;
            let cgroup = File::open(&root).map_err(|source| file_error("open", &root, source))?;
            let id = program.attach(cgroup, CgroupAttachMode::Single).map_err(failed("attach"))?;
            program.take_link(id).map_err(failed("attach"))?.try_into().map_err(link_failed)?
        }
        Attach::Lsm(name) | Attach::LsmSleepable(name) => {
            let program: &mut Lsm = program.try_into().map_err(failed("find"))?;
            if !loaded {
                program.load(name, btf).map_err(failed("load"))?;
            }
            let id = program.attach().map_err(failed("attach"))?;
            program.take_link(id).map_err(failed("attach"))?.into()
        }
        Attach::Fentry(name) => {
            let program: &mut FEntry = program.try_into().map_err(failed("find"))?;
            if !loaded {
                program.load(name, btf).map_err(failed("load"))?;
            }
            let id = program.attach().map_err(failed("attach"))?;
            program.take_link(id).map_err(failed("attach"))?.into()
        }
        Attach::Fexit(name) => {
            let program: &mut FExit = program.try_into().map_err(failed("find"))?;
            if !loaded {
                program.load(name, btf).map_err(failed("load"))?;
            }
            let id = program.attach().map_err(failed("attach"))?;
            program.take_link(id).map_err(failed("attach"))?.into()
        }
        Attach::Iter(name) => {
            let program: &mut Iter = program.try_into().map_err(failed("find"))?;
            if !loaded {
                program.load(name, btf).map_err(failed("load"))?;
            }
            let id = program.attach().map_err(failed("attach"))?;
            program.take_link(id).map_err(failed("attach"))?.try_into().map_err(link_failed)?
        }
    };
    let program_pin = pins.program(hook.program);
    if !program_pin.exists() {
        let program = object.program_mut(hook.program).ok_or_else(no_program)?;
        program.pin(&program_pin).map_err(|error| file_error("pin", &program_pin, io::Error::other(error)))?;
    }
    let path = pins.link(&hook.link_name());
    link.pin(&path).map_err(|error| file_error("pin", &path, io::Error::other(error)))?;
    Ok(())
}

fn describe(hook: &Hook, pins: &PinSet, attached_now: bool) -> Result<HookReport, ProbeError> {
    let link_failed = |source: LinkError| ProbeError::Link { hook: hook.name(), source: Box::new(source) };
    let link = PinnedLink::from_pin(pins.link(&hook.link_name())).map_err(link_failed)?;
    let link: FdLink = link.into();
    let info = link.info().map_err(link_failed)?;
    let program = ProgramInfo::from_pin(pins.program(hook.program)).map_err(|source| ProbeError::Program {
        program: hook.program,
        hook: hook.name(),
        step: "describe",
        source: Box::new(source),
    })?;
    let verified = program.verified_instruction_count();
    tracing::debug!(program = hook.program, hook = hook.name(), verified, attached_now, "program in force");
    Ok(HookReport {
        event: hook.event,
        hook: hook.name(),
        program: hook.program,
        link: hook.link_name(),
        tag: format!("{:016x}", program.tag()),
        program_id: info.program_id(),
        link_id: info.id(),
        pinned: true,
        verified_insns: verified,
        xlated_bytes: program.size_translated(),
        jited_bytes: Some(program.size_jitted()),
        attached_now,
    })
}

/// Ids of a pinned link and of its program.
fn link_ids(path: &Path) -> Result<(u32, u32), LinkError> {
    let link: FdLink = PinnedLink::from_pin(path)?.into();
    let info = link.info()?;
    Ok((info.id(), info.program_id()))
}

/// The root of the cgroup v2 hierarchy, which a hybrid layout has away from `/sys/fs/cgroup`.
///
/// # Errors
/// When /proc/mounts cannot be read or shows none.
pub fn cgroup2_root() -> Result<PathBuf, ProbeError> {
    let path = Path::new("/proc/mounts");
    let mounts = std::fs::read(path).map_err(|source| file_error("read", path, source))?;
    mount_of(&mounts, b"cgroup2").ok_or(ProbeError::NoCgroup2)
}

/// The first mount point of a file system type in the text of `/proc/mounts`.
fn mount_of(mounts: &[u8], wanted: &[u8]) -> Option<PathBuf> {
    let place = mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let mut words = line.split(|byte| *byte == b' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == wanted).then_some(place)
    })?;
    Some(PathBuf::from(OsString::from_vec(unescaped(place))))
}

/// A word of `/proc/mounts` without its escapes: the kernel writes a space, tab, newline or backslash as a backslash and three
/// octal digits (`mangle_path`, fs/seq_file.c).
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| digits.iter().all(|digit| matches!(digit, b'0'..=b'7')));
        match digits.filter(|_| *first == b'\\') {
            Some(digits) => {
                plain.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

pub(super) fn typed<T, F>(pins: &PinSet, name: &'static str, make: F) -> Result<T, ProbeError>
where
    F: FnOnce(Map) -> Result<T, MapError>,
{
    MapData::from_pin(pins.map(name))
        .and_then(Map::from_map_data)
        .and_then(make)
        .map_err(|source| map_error(name, source))
}

fn ring(pins: &PinSet, name: &'static str) -> Result<RingReader, ProbeError> {
    let data = MapData::from_pin(pins.map(name)).map_err(|source| map_error(name, source))?;
    let bytes = data.info().map_err(|source| map_error(name, source))?.max_entries() as usize;
    let fd = data.fd().as_fd().try_clone_to_owned().map_err(|source| file_error("open", &pins.map(name), source))?;
    RingReader::new(fd, bytes).map_err(|source| ProbeError::Ring { map: name, source })
}

fn read(path: &Path) -> Result<Vec<u8>, ProbeError> {
    std::fs::read(path).map_err(|source| file_error("read", path, source))
}

pub(super) fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

pub(super) fn lockdown() -> Option<String> {
    std::fs::read_to_string("/sys/kernel/security/lockdown").ok().map(|text| text.trim().to_owned())
}

fn file_error(doing: &'static str, path: &Path, source: io::Error) -> ProbeError {
    ProbeError::File { doing, path: path.to_owned(), source }
}

pub(super) fn map_error(map: &'static str, source: MapError) -> ProbeError {
    ProbeError::Map { map, source: Box::new(source) }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    // A verifier log ends with its reason; the start is of no use in a report.
    if text.len() > 600 {
        let start = text.ceil_char_boundary(text.len() - 600);
        text = text.get(start..).unwrap_or_default().to_owned();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_found_with_its_escapes_undone() {
        let mounts = b"proc /proc proc rw 0 0\ncgroup2 /odd\\040place\\134x cgroup2 rw 0 0\n";
        assert_eq!(mount_of(mounts, b"cgroup2"), Some(PathBuf::from("/odd place\\x")));
        assert_eq!(mount_of(mounts, b"bpf"), None);
        assert_eq!(unescaped(b"\\04"), b"\\04", "cut off: left as it is");
    }
}
