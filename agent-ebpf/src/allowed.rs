//! Programs that find out what a kernel allows: loaded and attached for a moment, before the others are.
//!
//! That a program of a type loads and attaches does not show that it runs: a BPF LSM program attaches on a kernel that
//! was booted without `bpf` in its list of security modules, and is never called. So the first two count, and the
//! loader opens a file to see them do it.

use crate::emit::fetch_add;
use crate::maps::{PROBED, off};
use crate::path::value;
use crate::task::{Typed, member};
use aya_ebpf::helpers::generated::bpf_ima_file_hash;
use aya_ebpf::macros::{btf_tracepoint, fentry, lsm};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, LsmContext};

#[inline(always)]
fn ran(place: u32) {
    if let Some(count) = PROBED.get_ptr_mut(place) {
        // SAFETY: a live array value, aligned to 8.
        unsafe { fetch_add(count, 1) };
    }
}

/// `lsm/file_open`.
#[lsm(hook = "file_open")]
pub fn may_lsm(_ctx: LsmContext) -> i32 {
    ran(0);
    0
}

/// `fentry/security_file_open`.
#[fentry(function = "security_file_open")]
pub fn may_fentry(_ctx: FEntryContext) -> i32 {
    ran(1);
    0
}

/// `lsm.s/bprm_committed_creds`: whether the kernel hashes files for programs (5.18). Never attached.
#[lsm(hook = "bprm_committed_creds", sleepable)]
pub fn may_hash(ctx: LsmContext) -> i32 {
    let bprm: Typed = ctx.arg(0);
    // SAFETY: typed loads; the helper takes what the kernel holds for the exec.
    unsafe {
        let file: Typed = member(bprm, off!(bprm_file));
        if file.is_null() {
            return 0;
        }
        let mut hash = [0u8; 32];
        bpf_ima_file_hash(file.cast_mut().cast(), (&raw mut hash).cast(), 32);
    }
    0
}

/// `tp_btf/sched_process_exec`: whether programs may read kernel memory at any address. Never attached.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn may_peek(ctx: BtfTracePointContext) -> i32 {
    let bprm: Typed = ctx.arg(2);
    // SAFETY: typed load.
    let name: u64 = unsafe { member(bprm, off!(bprm_filename)) };
    let _ = value::<u8>(name);
    0
}
