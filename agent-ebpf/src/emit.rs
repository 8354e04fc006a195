//! Numbers, scratch, submission, and the accounting of what found no room.

use crate::maps::{CLAIMS, DROPS, LOSS, RING_BULK, RING_CRIT, SCRATCH, SEQ, WAKES, off};
use agent_common::header::class;
use agent_common::limits::{EXEC_SLOTS, EXEC_TRIES, RING_BULK_BYTES, RING_CRIT_BYTES, SCRATCH_SLOTS_PER_CPU};
use agent_common::stats::{Loss, LossKey};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_ringbuf_output, bpf_ringbuf_query,
};
use core::ffi::c_void;

/// `BPF_RB_NO_WAKEUP`.
const NO_WAKEUP: u64 = 1;
/// `BPF_RB_FORCE_WAKEUP`.
const FORCE_WAKEUP: u64 = 2;
/// `BPF_RB_AVAIL_DATA`.
const AVAIL_DATA: u64 = 0;
/// `BPF_RB_PROD_POS`.
const PROD_POS: u64 = 3;
/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

/// How often the fill of a ring is looked at: each 64th event of a (cpu, class). At 200 bytes each that is 13 kB,
/// nothing against a quarter of a ring.
const WATCH_MASK: u64 = 63;

/// A mask chooses a slot.
const _: () = assert!(EXEC_SLOTS.is_power_of_two());

/// Atomic fetch-and-add (5.12). Written as assembly because the target's `core` has no read-modify-write atomics.
///
/// # Safety
/// `at` is aligned to 8 and in a map value.
#[inline(always)]
pub unsafe fn fetch_add(at: *mut u64, add: u64) -> u64 {
    let mut value = add;
    #[cfg(target_arch = "bpf")]
    // SAFETY: one instruction; the verifier checks the address.
    unsafe {
        core::arch::asm!(
            "{value} = atomic_fetch_add((u64 *)({at} + 0), {value})",
            value = inout(reg) value,
            at = in(reg) at,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = at;
        value = 0;
    }
    value
}

/// Takes the next number of the class on this CPU. Atomic, because another program can preempt this one here.
#[inline(always)]
pub fn number(class: u8) -> Option<u64> {
    let counter = SEQ.get_ptr_mut(u32::from(class))?;
    // SAFETY: a live per-CPU value, aligned to 8.
    Some(unsafe { fetch_add(counter, 1) })
}

/// Says something for whoever debugs the programs; nothing at all without the feature `trace`.
macro_rules! note {
    ($($argument:expr),+) => {
        #[cfg(feature = "trace")]
        aya_log_ebpf::warn!((), $($argument),+);
    };
}
pub(crate) use note;

/// Notes a path whose root was not reached. A function of its own, so that the log's needs stay off the stack of the
/// programs that walk paths.
#[inline(never)]
pub fn note_partial_path(class: u32) -> i32 {
    note!("class {}: a path is kept in part", class);
    #[cfg(not(feature = "trace"))]
    let _ = class;
    0
}

/// Counts one numbered event that will never be delivered.
#[inline(never)]
pub fn lost(class: u32, scope_id: u64) -> i32 {
    note!("class {}: an event of scope {} is lost", class, scope_id);
    if let Some(drops) = DROPS.get_ptr_mut(class) {
        // SAFETY: a live per-CPU value, aligned to 8.
        unsafe { fetch_add(drops, 1) };
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let key = LossKey { scope_id, class, reserved: 0 };
    if LOSS.get_ptr_mut(&key).is_none() {
        let first = Loss { count: 0, first_ns: now, last_ns: now };
        // Losing the race to another CPU is as good as winning it; a full map is handled below.
        let _ = LOSS.insert(&key, &first, NOEXIST);
    }
    let entry = match LOSS.get_ptr_mut(&key) {
        Some(entry) => Some(entry),
        None => LOSS.get_ptr_mut(&LossKey { scope_id: 0, class, reserved: 0 }),
    };
    if let Some(entry) = entry {
        // SAFETY: a live value; the count is atomic, the times are approximate by definition.
        unsafe {
            fetch_add(&raw mut (*entry).count, 1);
            if (*entry).first_ns == 0 {
                (*entry).first_ns = now;
            }
            (*entry).last_ns = now;
        }
    }
    0
}

/// Atomic exchange (5.12), as assembly for the same reason.
///
/// # Safety
/// `at` is aligned to 8 and in a map value.
#[inline(always)]
unsafe fn exchange(at: *mut u64, value: u64) -> u64 {
    let mut value = value;
    #[cfg(target_arch = "bpf")]
    // SAFETY: one instruction; the verifier checks the address.
    unsafe {
        core::arch::asm!(
            "{value} = xchg_64({at} + 0, {value})",
            value = inout(reg) value,
            at = in(reg) at,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = at;
        value = 0;
    }
    value
}

/// A slot of scratch, owned until [`Scratch::release`]. Owning is by an atomic mark and not by CPU: a program that
/// preempts this one on the same CPU finds the mark and takes the next slot.
#[derive(Clone, Copy)]
pub struct Scratch {
    /// `SCRATCH_BYTES` of room.
    pub room: *mut u8,
    /// Its index in `SCRATCH`.
    pub slot: u32,
    claim: *mut u64,
}

impl Scratch {
    /// A free slot of this CPU; `None` when all are in use.
    #[inline(always)]
    pub fn claim() -> Option<Self> {
        // SAFETY: no arguments.
        let first = unsafe { bpf_get_smp_processor_id() } * SCRATCH_SLOTS_PER_CPU;
        for next in 0..SCRATCH_SLOTS_PER_CPU {
            let slot = first + next;
            let claim = CLAIMS.get_ptr_mut(slot)?;
            // SAFETY: a live array value, aligned to 8.
            if unsafe { exchange(claim, 1) } == 0 {
                let room = SCRATCH.get_ptr_mut(slot)?;
                return Some(Self { room: room.cast(), slot, claim });
            }
        }
        None
    }

    /// A free slot of those kept for execs, looked for from a place that `seed` chooses; `None` when all that were
    /// tried are in use.
    #[inline(always)]
    pub fn claim_for_exec(seed: u32) -> Option<Self> {
        for next in 0..EXEC_TRIES {
            let slot = off!(exec_slot_first) + ((seed + next) & (EXEC_SLOTS - 1));
            let claim = CLAIMS.get_ptr_mut(slot)?;
            // SAFETY: a live array value, aligned to 8.
            if unsafe { exchange(claim, 1) } == 0 {
                let room = SCRATCH.get_ptr_mut(slot)?;
                return Some(Self { room: room.cast(), slot, claim });
            }
        }
        None
    }

    /// A slot that is owned already.
    #[inline(always)]
    pub fn owned(slot: u32) -> Option<Self> {
        let claim = CLAIMS.get_ptr_mut(slot)?;
        let room = SCRATCH.get_ptr_mut(slot)?;
        Some(Self { room: room.cast(), slot, claim })
    }

    /// Gives the slot back.
    #[inline(always)]
    pub fn release(self) {
        // SAFETY: ours by the mark.
        unsafe { self.claim.write_volatile(0) };
    }
}

/// Which ring a class goes to.
#[inline(always)]
fn ring_of(class: u8) -> (*mut c_void, u64, u32) {
    if class == class::PROCESS || class == class::CGROUP || class == class::PRIVILEGE {
        ((&raw const RING_CRIT).cast_mut().cast(), u64::from(RING_CRIT_BYTES) / 4, 0)
    } else {
        ((&raw const RING_BULK).cast_mut().cast(), u64::from(RING_BULK_BYTES) / 4, 1)
    }
}

/// Wakes the reader only when the unread data passed a quarter of the ring, and then once per eighth written: a
/// forced wake-up per event costs the workload 8 microseconds each (measured on 6.18).
#[inline(always)]
fn wake_flags(ring: *mut c_void, quarter: u64, slot: u32, seq: u64) -> u64 {
    if seq & WATCH_MASK != 0 {
        return NO_WAKEUP;
    }
    // SAFETY: a ring buffer map.
    if unsafe { bpf_ringbuf_query(ring, AVAIL_DATA) } < quarter {
        return NO_WAKEUP;
    }
    let Some(last) = WAKES.get_ptr_mut(slot) else { return NO_WAKEUP };
    // SAFETY: a ring buffer map.
    let position = unsafe { bpf_ringbuf_query(ring, PROD_POS) };
    // SAFETY: a live array value; a race wakes once too often, or one event later.
    unsafe {
        if position.wrapping_sub(*last) < quarter / 2 {
            return NO_WAKEUP;
        }
        *last = position;
    }
    FORCE_WAKEUP
}

/// Copies the finished message to its ring, or counts it as lost.
///
/// # Safety
/// `message` has `len` bytes, all written.
#[inline(always)]
pub unsafe fn submit(message: *mut u8, len: u64, class: u8, scope_id: u64, seq: u64) -> i32 {
    let (ring, quarter, slot) = ring_of(class);
    let flags = wake_flags(ring, quarter, slot, seq);
    // SAFETY: the caller's message; the verifier bounds `len`.
    let sent = unsafe { bpf_ringbuf_output(ring, message.cast(), len, flags) };
    if sent != 0 {
        return lost(u32::from(class), scope_id);
    }
    0
}
