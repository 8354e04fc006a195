//! Every map, its size and why; and the frozen constants.

use agent_common::globals::Offsets;
use agent_common::limits::{
    BEFORE_ENTRIES_MAX, CALLS_ENTRIES_MAX, EXEC_SLOTS, FLOWS_ENTRIES_MAX, HASHES_ENTRIES_MAX, LOSS_ENTRIES_MAX,
    MODULES_ENTRIES_MAX, OPEN_BYTES, OPENS_ENTRIES_MAX, OURS_ENTRIES_MAX, PENDING_ENTRIES_MAX, RING_BULK_BYTES,
    RING_CRIT_BYTES, SCOPE_ENTRIES_MAX, SCRATCH_BYTES, SCRATCH_SLOTS_PER_CPU, SENDS_ENTRIES_MAX,
};
use agent_common::privilege::Credentials;
use agent_common::socket::Flow;
use agent_common::stats::{Call, HashKey, KeptHash, Loss, LossKey, Meta, Pending, Scope, SendKey, Settings, TaskScope};
use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};

/// Struct offsets and constants, filled in by the loader; as built, all ones, which the verifier refuses.
#[unsafe(no_mangle)]
pub static OFFSETS: Global<Offsets> = Global::new(Offsets::UNSET);

/// Process, cgroup and privilege events: a flood of opens cannot push an exec out.
#[map]
pub static RING_CRIT: RingBuf = RingBuf::with_byte_size(RING_CRIT_BYTES, 0);

/// Network and file events.
#[map]
pub static RING_BULK: RingBuf = RingBuf::with_byte_size(RING_BULK_BYTES, 0);

/// Next number of each class, per CPU.
#[map]
pub static SEQ: PerCpuArray<u64> = PerCpuArray::with_max_entries(agent_common::header::class::COUNT, 0);

/// Events of each class that were numbered and not delivered, per CPU.
#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(agent_common::header::class::COUNT, 0);

/// The same by scope. User space makes the entry of scope 0 for each class before the programs are attached.
#[map]
pub static LOSS: HashMap<LossKey, Loss> = HashMap::with_max_entries(LOSS_ENTRIES_MAX, 0);

/// cgroups in scope, by id. Filled by user space; a new cgroup gets its parent's value here, in the kernel.
#[map]
pub static SCOPE: HashMap<u64, Scope> = HashMap::with_max_entries(SCOPE_ENTRIES_MAX, 0);

/// What user space tells the running programs.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Who made these maps; for a later daemon, never read here.
#[map]
pub static META: Array<Meta> = Array::with_max_entries(1, 0);

/// Producer position of each ring at its last wake-up (0 critical, 1 bulk).
#[map]
pub static WAKES: Array<u64> = Array::with_max_entries(2, 0);

/// Threads inside connect(2), by `pid_tgid`.
#[map]
pub static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(CALLS_ENTRIES_MAX, 0);

/// TCP connections between SYN and answer, by socket cookie.
#[map]
pub static PENDING: HashMap<u64, Pending> = HashMap::with_max_entries(PENDING_ENTRIES_MAX, 0);

/// TCP connections whose end is to be reported, by socket cookie.
#[map]
pub static FLOWS: HashMap<u64, Flow> = HashMap::with_max_entries(FLOWS_ENTRIES_MAX, 0);

/// Datagrams sent without a connection, so far, by process, socket and remote address.
#[map]
pub static SENDS: LruHashMap<SendKey, u64> = LruHashMap::with_max_entries(SENDS_ENTRIES_MAX, 0);

/// Opens that a hook has seen and whose call has not ended, by `pid_tgid`: the message so far.
#[map]
pub static OPENS: HashMap<u64, [u8; OPEN_BYTES]> = HashMap::with_max_entries(OPENS_ENTRIES_MAX, 0);

/// Execs that the hooks on credentials have seen and that have not succeeded yet, by `pid_tgid`: their slot of
/// `SCRATCH`.
#[map]
pub static EXECS: HashMap<u64, u32> = HashMap::with_max_entries(EXEC_SLOTS, 0);

/// SHA-256 of files that were executed, so that the kernel does not read a compiler again for each file it compiles.
#[map]
pub static HASHES: LruHashMap<HashKey, KeptHash> = LruHashMap::with_max_entries(HASHES_ENTRIES_MAX, 0);

/// How often each of the programs ran that only find out what a kernel allows.
#[map]
pub static PROBED: Array<u64> = Array::with_max_entries(2, 0);

/// `BPF_MAP_TYPE_TASK_STORAGE` with `BPF_F_NO_PREALLOC`, for which aya-ebpf 0.2 has no type. The members' types
/// are the definition: the loader reads them from the object's BTF.
macro_rules! task_storage {
    ($(#[$doc:meta])* $name:ident, $def:ident, $value:ty) => {
        #[repr(C)]
        pub struct $def {
            r#type: *const [i32; 29],
            map_flags: *const [i32; 1],
            key: *const i32,
            value: *const $value,
        }
        // SAFETY: the pointers are never followed; they exist for their types.
        unsafe impl Sync for $def {}
        $(#[$doc])*
        #[unsafe(link_section = ".maps")]
        #[unsafe(no_mangle)]
        pub static $name: $def = $def {
            r#type: core::ptr::null(),
            map_flags: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
        };
    };
}

task_storage!(
    /// The scope of a process, kept at its leader; of a thread, only to survive an exec by that thread.
    TASKS, TasksDef, TaskScope
);
/// Where messages are put together: slots that one program at a time owns (see `emit::Scratch`), hot in the cache of
/// the CPU that uses them. The loader makes `SCRATCH_SLOTS_PER_CPU` for each possible CPU, and those of `EXECS` behind.
#[map]
pub static SCRATCH: Array<[u8; SCRATCH_BYTES]> = Array::with_max_entries(SCRATCH_SLOTS_PER_CPU, 0);

/// 1 for each slot of `SCRATCH` that is owned.
#[map]
pub static CLAIMS: Array<u64> = Array::with_max_entries(SCRATCH_SLOTS_PER_CPU, 0);

/// Credentials of threads inside a system call that can change them, as the call began, by `pid_tgid`.
#[map]
pub static BEFORE: HashMap<u64, Credentials> = HashMap::with_max_entries(BEFORE_ENTRIES_MAX, 0);

/// Ids of the agent's own programs, maps and links (`agent_common::privilege::ours`). Filled by user space.
#[map]
pub static OURS: HashMap<u64, u64> = HashMap::with_max_entries(OURS_ENTRIES_MAX, 0);

/// Name of the module that a thread is loading or removing, by `pid_tgid`.
#[map]
pub static MODULES: HashMap<u64, [u64; 7]> = HashMap::with_max_entries(MODULES_ENTRIES_MAX, 0);

/// One frozen constant.
macro_rules! off {
    ($name:ident) => {
        $crate::maps::constant(core::mem::offset_of!(agent_common::globals::Offsets, $name))
    };
}
pub(crate) use off;

/// The frozen constant at `place` in [`OFFSETS`]; volatile, so the compiler does not fold what the object carries.
#[inline(always)]
pub fn constant(place: usize) -> u32 {
    // SAFETY: `place` is a member's offset (see `off`); `Global` is transparent over its value.
    unsafe { (&raw const OFFSETS).cast::<u8>().add(place).cast::<u32>().read_volatile() }
}
