//! Reaching other processes: ptrace, process_vm_readv, process_vm_writev, pidfd_getfd and signals.
//!
//! Accesses come from classic tracepoints on the exit of their system calls, with the other process looked up by the
//! number that the call was given, in the caller's own pid namespace, right after the call: a process that ended between
//! the two leaves the number without a process (`UNRESOLVED`). Signals that were sent come from the BTF tracepoint
//! `signal_generate`, which runs while the kernel holds the receiver; signals that were refused, from the exit of their
//! system calls.
//!
//! Emitted for the whole host but for the agent's own acts. Of ptrace, what takes hold of a process and what changes it
//! (`ATTACH`, `SEIZE`, `POKE*`, `SET*`, `KILL`); reading a process that is held is not an event of its own. Of signals,
//! those to another scope and those to the agent; signal 0 is none. Not seen: 32-bit and x32 calls (but for signals that
//! arrive), `PTRACE_TRACEME`, `/proc/PID/mem` (an `open` where file events are wanted).

use crate::maps::off;
use crate::path::value;
use crate::privilege::{SysExit, begin};
use crate::scope::{of_cgroup, of_process, settings};
use crate::task::{Typed, current, is_kernel_thread, leader, member, start_ns, tgid};
use agent_common::header::kind;
use agent_common::privilege::{Access, Signal, access, act_flag};
use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};

/// `EPERM`.
const EPERM: i64 = 1;
/// `EAGAIN`, what a caller gets whose signal found no room.
const EAGAIN: i32 = 11;
/// `ESRCH`.
const ESRCH: i64 = 3;
/// Levels of a tree of process numbers: six bits each, for the 22 bits that a number has at most.
const TREE_LEVELS: u32 = 5;

/// The task whose number in the acting task's pid namespace is `number`, as an address; 0 for none.
///
/// Follows the namespace's tree (an xarray, lib/xarray.c: an inner node is marked by the low bits `10`). Nothing locks
/// it: what changes meanwhile gives another task or none. A function that the verifier proves once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_task(number: u64) -> u64 {
    if off!(has_pid_tree) == 0 {
        return 0;
    }
    let own = value::<u64>((current() as u64).wrapping_add(u64::from(off!(task_thread_pid))));
    let level = u64::from(value::<u32>(own.wrapping_add(u64::from(off!(pid_level)))));
    let upid = own
        .wrapping_add(u64::from(off!(pid_numbers)))
        .wrapping_add((level & 0x3f).wrapping_mul(u64::from(off!(upid_size))));
    let namespace = value::<u64>(upid.wrapping_add(u64::from(off!(upid_ns))));
    let mut entry = value::<u64>(namespace.wrapping_add(u64::from(off!(pid_namespace_head))));
    for step in 0..TREE_LEVELS {
        if entry & 3 != 2 || entry <= 4096 {
            return 0;
        }
        let node = entry - 2;
        let shift = value::<u8>(node.wrapping_add(u64::from(off!(xa_node_shift)))) & 0x3f;
        let index = number >> shift;
        if step == 0 && index > 63 {
            return 0;
        }
        let slot = node.wrapping_add(u64::from(off!(xa_node_slots))).wrapping_add((index & 63) * 8);
        entry = value(slot);
        if shift == 0 {
            break;
        }
    }
    if entry & 3 != 0 { 0 } else { task_of(entry) }
}

/// The task of a `struct pid`, as addresses; 0 for none.
#[inline(always)]
fn task_of(pid: u64) -> u64 {
    if pid == 0 {
        return 0;
    }
    let node = value::<u64>(pid.wrapping_add(u64::from(off!(pid_tasks))));
    if node == 0 { 0 } else { node.wrapping_sub(u64::from(off!(task_pid_links))) }
}

/// The task of a pidfd of the caller, as an address; 0 for none. The kernel must have taken it for one.
#[inline(always)]
fn task_of_pidfd(call: &SysExit, fd: u64) -> (u64, u32) {
    let (file, racy) = call.file(fd);
    if file == 0 {
        return (0, racy);
    }
    // Up to 6.8 the file has the process, after that its inode (and the file has nothing).
    let mut pid = value::<u64>(file.wrapping_add(u64::from(off!(file_private_data))));
    if pid == 0 {
        let inode = value::<u64>(file.wrapping_add(u64::from(off!(file_inode))));
        pid = value(inode.wrapping_add(u64::from(off!(inode_private))));
    }
    (task_of(pid), racy)
}

/// Who a task is.
struct Target {
    start_ns: u64,
    /// By the cgroup it is in now: a process that left its scope's cgroup is not known by an address.
    scope: u64,
    tgid: u32,
}

impl Target {
    /// Reads the process of a task at an address.
    #[inline(always)]
    fn at(task: u64) -> Self {
        let leader = value::<u64>(task.wrapping_add(u64::from(off!(task_group_leader))));
        let set = value::<u64>(task.wrapping_add(u64::from(off!(task_cgroups))));
        let cgroup = value::<u64>(set.wrapping_add(u64::from(off!(css_set_dfl_cgrp))));
        let node = value::<u64>(cgroup.wrapping_add(u64::from(off!(cgroup_kn))));
        Self {
            start_ns: value(leader.wrapping_add(u64::from(off!(task_start_boottime)))),
            scope: of_cgroup(value(node.wrapping_add(u64::from(off!(kernfs_node_id))))).0,
            tgid: value(task.wrapping_add(u64::from(off!(task_tgid)))),
        }
    }
}

/// `AGAINST_AGENT` when that is who it is.
#[inline(always)]
fn against(tgid: u32) -> u32 {
    let agent = settings().agent_tgid;
    if agent != 0 && agent == tgid { act_flag::AGAINST_AGENT } else { 0 }
}

/// Whether a ptrace request takes hold of a process or changes it (include/uapi/linux/ptrace.h and the x86 numbers).
#[inline(always)]
fn intrudes(request: u32) -> bool {
    // POKETEXT, POKEDATA, POKEUSR, KILL, SETREGS, SETFPREGS, ATTACH, SETFPXREGS.
    const LOW: u32 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13 | 1 << 15 | 1 << 16 | 1 << 19;
    // SETSIGINFO, SETREGSET, SEIZE, SETSIGMASK, from 0x4200.
    const HIGH: u32 = 1 << 3 | 1 << 5 | 1 << 6 | 1 << 0xb;
    if request < 32 {
        LOW >> request & 1 != 0
    } else {
        let high = request.wrapping_sub(0x4200);
        high < 32 && HIGH >> high & 1 != 0
    }
}

/// `syscalls:sys_exit_{ptrace,process_vm_readv,process_vm_writev,pidfd_getfd}`.
#[tracepoint]
pub fn reach(ctx: TracePointContext) -> u32 {
    let Some(call) = SysExit::of_others(&ctx) else { return 0 };
    // No such process, or none that the caller holds: nothing was reached.
    if call.ret == -ESRCH {
        return 0;
    }
    let first = call.arg(off!(regs_arg0));
    let (how, number, mode) = if call.nr == off!(nr_ptrace) {
        if !intrudes(first as u32) {
            return 0;
        }
        (access::PTRACE, call.arg(off!(regs_arg1)), first as u32)
    } else if call.nr == off!(nr_process_vm_readv) {
        (access::VM_READ, first, 0)
    } else if call.nr == off!(nr_process_vm_writev) {
        (access::VM_WRITE, first, 0)
    } else {
        (access::GETFD, first, 0)
    };
    let number = number & 0xffff_ffff;
    let (found, mut act_flags) =
        if how == access::GETFD { task_of_pidfd(&call, number) } else { (find_task(number), 0) };
    let target = if found == 0 {
        if call.ret < 0 {
            return 0;
        }
        act_flags |= act_flag::UNRESOLVED;
        Target { start_ns: 0, scope: 0, tgid: number as u32 }
    } else {
        let target = Target::at(found);
        if target.tgid == tgid(call.task) {
            return 0;
        }
        act_flags |= against(target.tgid);
        target
    };
    let Some(begun) = call.begin(kind::ACCESS) else { return 0 };
    let mut event = core::mem::MaybeUninit::<Access>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: every member is written.
    unsafe {
        (*event).target_start_ns = target.start_ns;
        (*event).target_scope = target.scope;
        (*event).target_tgid = target.tgid;
        (*event).how = how;
        (*event).mode = mode;
        (*event).result = call.ret.clamp(i32::MIN as i64, i32::MAX as i64) as i32;
        (*event).act_flags = act_flags | act_flag::RESULT;
        (*event).reserved = 0;
        begun.send(event.cast(), size_of::<Access>(), call.task);
    }
    0
}

/// `TRACE_SIGNAL_OVERFLOW_FAIL`.
const OVERFLOW_FAIL: u64 = 3;

/// Whether a process sent this, by the kernel's `siginfo`: user space's own codes are 0 (kill), -1 (queued) and -6
/// (tkill), and any negative one that the caller of a queueing call chose. The codes -2 to -5 are also the kernel's, for
/// timers and the like, whose "sender" is whoever was interrupted: those count inside a queueing call only.
#[inline(always)]
fn by_process(info: u64, task: Typed) -> bool {
    // SEND_SIG_NOINFO and SEND_SIG_PRIV are the kernel's own, and no addresses.
    if info <= 1 {
        return false;
    }
    let code = value::<i32>(info.wrapping_add(u64::from(off!(siginfo_code))));
    if code == 0 || code == -1 || code == -6 {
        return true;
    }
    if code > 0 {
        return false;
    }
    // SAFETY: typed; a kernel thread was left out before.
    let nr = unsafe { member::<u64>(bpf_task_pt_regs(task.cast_mut().cast()) as Typed, off!(regs_nr)) } as u32;
    nr == off!(nr_rt_sigqueueinfo) || nr == off!(nr_rt_tgsigqueueinfo) || nr == off!(nr_pidfd_send_signal)
}

/// `signal_generate`: runs in the sender, for each process that a signal goes to.
#[btf_tracepoint(function = "signal_generate")]
pub fn signal(ctx: BtfTracePointContext) -> i32 {
    let info: u64 = ctx.arg(1);
    let task = current();
    if is_kernel_thread(task) || !by_process(info, task) || settings().agent_tgid == tgid(task) {
        return 0;
    }
    let to: Typed = ctx.arg(2);
    let act_flags = against(tgid(to));
    let (own, _) = of_process(task, false);
    let (scope, _) = of_process(to, false);
    if own == scope && act_flags == 0 {
        return 0;
    }
    let number: u64 = ctx.arg(0);
    let outcome: u64 = ctx.arg(4);
    let Some(begun) = begin(task, kind::SIGNAL) else { return 0 };
    let mut event = core::mem::MaybeUninit::<Signal>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: every member is written.
    unsafe {
        (*event).target_start_ns = start_ns(leader(to));
        (*event).target_scope = scope;
        (*event).target_tgid = tgid(to);
        (*event).signal = number as u32;
        (*event).result = if outcome & 0xffff_ffff == OVERFLOW_FAIL { -EAGAIN } else { 0 };
        (*event).act_flags = act_flags | act_flag::RESULT;
        begun.send(event.cast(), size_of::<Signal>(), task);
    }
    0
}

/// `syscalls:sys_exit_{kill,tkill,tgkill,rt_sigqueueinfo,rt_tgsigqueueinfo,pidfd_send_signal}`, where the kernel said no.
#[tracepoint]
pub fn signal_refused(ctx: TracePointContext) -> u32 {
    let Some(call) = SysExit::of_others(&ctx) else { return 0 };
    if call.ret != -EPERM {
        return 0;
    }
    let with_thread = call.nr == off!(nr_tgkill) || call.nr == off!(nr_rt_tgsigqueueinfo);
    let first = call.arg(off!(regs_arg0));
    let second = call.arg(off!(regs_arg1));
    let signal = if with_thread { call.arg(off!(regs_arg2)) } else { second } as u32;
    let number = if with_thread { second } else { first } as u32;
    let mut act_flags = act_flag::RESULT;
    let group = call.nr != off!(nr_pidfd_send_signal) && (number as i32) < 0;
    let target = if group {
        // A group, or (minus one) everyone: some were there and none could be signalled.
        let number = if number == u32::MAX { number } else { number.wrapping_neg() };
        act_flags |= act_flag::UNRESOLVED;
        Target { start_ns: 0, scope: 0, tgid: number }
    } else {
        let (found, racy) = if call.nr == off!(nr_pidfd_send_signal) {
            task_of_pidfd(&call, u64::from(number))
        } else {
            (find_task(u64::from(number)), 0)
        };
        if found == 0 {
            return 0;
        }
        let target = Target::at(found);
        act_flags |= racy | against(target.tgid);
        let (own, _) = of_process(call.task, false);
        if target.scope == own && act_flags & act_flag::AGAINST_AGENT == 0 {
            return 0;
        }
        target
    };
    let Some(begun) = call.begin(kind::SIGNAL) else { return 0 };
    let mut event = core::mem::MaybeUninit::<Signal>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: every member is written.
    unsafe {
        (*event).target_start_ns = target.start_ns;
        (*event).target_scope = target.scope;
        (*event).target_tgid = target.tgid;
        (*event).signal = signal;
        (*event).result = call.ret as i32;
        (*event).act_flags = act_flags;
        begun.send(event.cast(), size_of::<Signal>(), call.task);
    }
    0
}
