//! Code for the kernel: bpf(2), modules and kexec: classic tracepoints on the exit of their system calls
//! (`CONFIG_FTRACE_SYSCALLS`), and the BTF tracepoints `module_load` and `module_free` for a module's name.
//!
//! Emitted for the whole host but for the agent itself. Of bpf(2), every command but those that only read or write
//! elements of a map or list what there is, which could flood: these are emitted where the map is one of the agent's.
//! What a call is about comes from the kernel's object: behind the descriptor returned, or behind the one in the caller's
//! `attr`, which stands in user memory and could have been changed since (`RACY`).
//!
//! Not seen: 32-bit and x32 calls, firmware, live patches as such (they are modules), what a pinned path (`BPF_OBJ_GET`)
//! led to.

use crate::emit::{Scratch, lost, submit};
use crate::maps::{MODULES, OURS, off};
use crate::mounts::path_of_file;
use crate::path::{read, value};
use crate::privilege::SysExit;
use crate::scope::settings;
use crate::task::{Typed, current, fill, member, tgid};
use agent_common::header::{class, kind};
use agent_common::privilege::{Bpf, KernelLoad, act_flag, kernel_code, ours};
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_probe_read_user, bpf_task_pt_regs};
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};

/// `ENOENT`, what a map says that has no such element.
const ENOENT: i64 = 2;

/// Commands (include/uapi/linux/bpf.h) by their bit.
const fn bits(commands: &[u32]) -> u64 {
    let mut bits = 0;
    let mut at = 0;
    while at < commands.len() {
        bits |= 1 << commands[at];
        at += 1;
    }
    bits
}

/// MAP_CREATE, MAP_GET_FD_BY_ID: the descriptor returned is a map's.
const GIVES_MAP: u64 = bits(&[0, 14]);
/// PROG_LOAD, PROG_GET_FD_BY_ID.
const GIVES_PROGRAM: u64 = bits(&[5, 13]);
/// RAW_TRACEPOINT_OPEN, LINK_CREATE, LINK_GET_FD_BY_ID.
const GIVES_LINK: u64 = bits(&[17, 28, 30]);
/// Elements one by one and in batches, and MAP_FREEZE: `attr` names a map.
const TAKES_MAP: u64 = bits(&[1, 2, 3, 4, 21, 22]) | BATCHES;
/// The batches, where it stands elsewhere.
const BATCHES: u64 = bits(&[24, 25, 26, 27]);
/// PROG_ATTACH, PROG_DETACH, PROG_TEST_RUN, PROG_BIND_MAP: `attr` names a program.
const TAKES_PROGRAM: u64 = bits(&[8, 9, 10, 35]);
/// PROG_ATTACH, PROG_DETACH, where it stands second.
const SECOND: u64 = bits(&[8, 9]);
/// LINK_UPDATE, ITER_CREATE, LINK_DETACH: `attr` names a link.
const TAKES_LINK: u64 = bits(&[29, 33, 34]);
/// Elements of maps; *_GET_NEXT_ID, OBJ_GET_INFO_BY_FD, PROG_QUERY, TASK_FD_QUERY: emitted only against the agent.
const QUIET: u64 = bits(&[1, 2, 3, 4, 21, 11, 12, 15, 16, 20, 23, 31]) | BATCHES;

/// `syscalls:sys_exit_bpf`.
#[tracepoint]
pub fn bpf(ctx: TracePointContext) -> u32 {
    let Some(call) = SysExit::of_others(&ctx) else { return 0 };
    let cmd = call.arg(off!(regs_arg0)) as u32;
    let bit = if cmd < 64 { 1u64 << cmd } else { 0 };
    let gives = bit & (GIVES_MAP | GIVES_PROGRAM | GIVES_LINK) != 0;
    let takes = bit & (TAKES_MAP | TAKES_PROGRAM | TAKES_LINK) != 0;
    let mut event = core::mem::MaybeUninit::<Bpf>::zeroed();
    let event = event.as_mut_ptr();
    let mut act_flags = act_flag::RESULT;
    let mut file = 0;
    if gives && call.ret >= 0 {
        (file, act_flags) = call.file(call.ret as u64);
        act_flags |= act_flag::RESULT;
    } else if takes && (call.ret >= 0 || call.ret == -ENOENT) {
        // Any other failure could mean that the kernel did not take the descriptor for what it is read as here.
        let place = if bit & BATCHES != 0 {
            36
        } else if bit & SECOND != 0 {
            4
        } else {
            0
        };
        let mut fd = 0u32;
        let attr = call.arg(off!(regs_arg1)).wrapping_add(place);
        // SAFETY: room for four bytes.
        if unsafe { bpf_probe_read_user((&raw mut fd).cast(), 4, attr as *const _) } == 0 {
            (file, _) = call.file(u64::from(fd));
            act_flags |= act_flag::RACY;
        } else {
            act_flags |= act_flag::STRING_UNREAD;
        }
    }
    if file != 0 {
        let object = value::<u64>(file.wrapping_add(u64::from(off!(file_private_data))));
        let at = |offset: u32| object.wrapping_add(u64::from(offset));
        // SAFETY: the event's own members.
        unsafe {
            let name = (&raw mut (*event).name).cast::<u8>();
            let sort;
            if bit & (GIVES_MAP | TAKES_MAP) != 0 {
                sort = ours::MAP;
                (*event).r#type = value(at(off!(bpf_map_type)));
                (*event).id = value(at(off!(bpf_map_id)));
                read(name, 16, at(off!(bpf_map_name)));
                act_flags |= act_flag::KNOWN;
            } else if bit & (GIVES_PROGRAM | TAKES_PROGRAM) != 0 {
                sort = ours::PROGRAM;
                let aux = value::<u64>(at(off!(bpf_prog_aux)));
                (*event).r#type = value(at(off!(bpf_prog_type)));
                (*event).id = value(aux.wrapping_add(u64::from(off!(bpf_prog_id))));
                read(name, 16, aux.wrapping_add(u64::from(off!(bpf_prog_name))));
                act_flags |= act_flag::KNOWN;
            } else {
                sort = ours::LINK;
                if off!(has_bpf_link) != 0 {
                    (*event).r#type = value(at(off!(bpf_link_type)));
                    (*event).id = value(at(off!(bpf_link_id)));
                    act_flags |= act_flag::KNOWN;
                }
            }
            let key = sort | u64::from((*event).id);
            if (*event).id != 0 && OURS.get_ptr(&key).is_some() {
                act_flags |= act_flag::AGAINST_AGENT;
            }
        }
    }
    if bit & QUIET != 0 && act_flags & act_flag::AGAINST_AGENT == 0 {
        return 0;
    }
    if (gives && call.ret >= 0 || act_flags & act_flag::RACY != 0) && file == 0 {
        act_flags |= act_flag::UNRESOLVED;
    }
    let Some(begun) = call.begin(kind::BPF) else { return 0 };
    // SAFETY: every member is written, here or above.
    unsafe {
        (*event).cmd = cmd;
        (*event).result = call.ret as i32;
        (*event).act_flags = act_flags;
        begun.send(event.cast(), size_of::<Bpf>(), call.task);
    }
    0
}

/// Keeps the name of a module for [`kernel_load`], if a call that it will see the end of is what loads or removes it.
#[inline(always)]
fn keep_name(module: Typed) -> i32 {
    let task = current();
    if settings().agent_tgid == tgid(task) {
        return 0;
    }
    let mut name = [0u64; 7];
    // SAFETY: typed loads.
    unsafe {
        let nr = member::<u64>(bpf_task_pt_regs(task.cast_mut().cast()) as Typed, off!(regs_nr)) as u32;
        if nr != off!(nr_init_module) && nr != off!(nr_finit_module) && nr != off!(nr_delete_module) {
            return 0;
        }
        for (word, place) in name.iter_mut().zip(0u32..) {
            *word = member(module, off!(module_name) + place * 8);
        }
        let key = bpf_get_current_pid_tgid();
        // Full: the event has no name.
        let _ = MODULES.insert(&key, &name, 0);
    }
    0
}

/// `module_load`: the module's sections are in place, its code has not run.
#[btf_tracepoint(function = "module_load")]
pub fn module_load(ctx: BtfTracePointContext) -> i32 {
    keep_name(ctx.arg(0))
}

/// `module_free`: the module is about to go, or could not be started.
#[btf_tracepoint(function = "module_free")]
pub fn module_free(ctx: BtfTracePointContext) -> i32 {
    keep_name(ctx.arg(0))
}

/// `syscalls:sys_exit_{init_module,finit_module,delete_module,kexec_load,kexec_file_load}`.
#[tracepoint]
pub fn kernel_load(ctx: TracePointContext) -> u32 {
    let Some(call) = SysExit::of_others(&ctx) else { return 0 };
    let kexec = call.nr == off!(nr_kexec_load) || call.nr == off!(nr_kexec_file_load);
    let what = if kexec {
        kernel_code::KEXEC
    } else if call.nr == off!(nr_delete_module) {
        kernel_code::MODULE_REMOVED
    } else {
        kernel_code::MODULE
    };
    let Some(begun) = call.begin(kind::KERNEL_LOAD) else { return 0 };
    let scope_id = begun.about.scope_id;
    let Some(scratch) = Scratch::claim() else { return lost(u32::from(class::PRIVILEGE), scope_id) as u32 };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message; lengths are bounded below.
    unsafe {
        let event = message.cast::<KernelLoad>();
        fill(&raw mut (*event).header, begun.about, begun.seq, call.task);
        (*event).result = call.ret as i32;
        (*event).what = what;
        let name = (&raw mut (*event).name).cast::<[u64; 7]>();
        let key = bpf_get_current_pid_tgid();
        match MODULES.get_ptr(&key) {
            Some(kept) => {
                name.write_unaligned(*kept);
                let _ = MODULES.remove(&key);
            }
            None => name.write_unaligned([0; 7]),
        }
        let mut act_flags = act_flag::RESULT;
        let zero = (&raw const (*event).header.reserved).read_volatile();
        let mut end = size_of::<KernelLoad>();
        let (mut path_len, mut path_flags) = (0, 0);
        if call.nr == off!(nr_finit_module) || call.nr == off!(nr_kexec_file_load) {
            let (file, racy) = call.file(call.arg(off!(regs_arg0)));
            act_flags |= racy;
            if file == 0 {
                act_flags |= act_flag::UNRESOLVED;
            } else {
                act_flags |= act_flag::KNOWN;
                (path_len, path_flags) = path_of_file(scratch, end, file, call.task, zero);
                end += path_len;
            }
        }
        (*event).path_len = path_len as u16;
        (*event).path_flags = path_flags;
        (*event).act_flags = act_flags;
        (*event).header.len = end as u32;
        submit(message, end as u64, class::PRIVILEGE, scope_id, begun.seq);
    }
    scratch.release();
    0
}
