//! fork, exec and exit: BTF tracepoints of the scheduler (kernel 5.5, `CONFIG_DEBUG_INFO_BTF`); exec calls that failed:
//! classic tracepoints on the exit of execve and execveat (`CONFIG_FTRACE_SYSCALLS`).
//!
//! Emitted for the whole host, in scope or not. Not seen: threads (only processes are reported), kernel threads, and
//! 32-bit exec calls that failed.

use crate::emit::{Scratch, fetch_add, lost, note_partial_path, number, submit};
use crate::maps::off;
use crate::path::{Start, value, walk};
use crate::privilege::SysExit;
use crate::scope::{keep, of_cgroup, of_process, settings, stored};
use crate::task::{About, Typed, cgroup_id, current, fill, is_kernel_thread, leader, member, start_ns, tgid, tid};
use agent_common::file::path_flag;
use agent_common::header::{class, kind};
use agent_common::limits::{ARGV_BYTES_MAX, CWD_BYTES_MAX, EXEC_NAME_BYTES_MAX, PATH_BYTES_MAX};
use agent_common::process::{Exec, ExecFailed, Exit, Fork, exec_failed_flag, exec_flag};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str};
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};

/// `SIGNAL_GROUP_EXIT`.
const SIGNAL_GROUP_EXIT: u32 = 4;

/// `sched_process_fork`: runs in the parent, before the child can.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn fork(ctx: BtfTracePointContext) -> i32 {
    let child: Typed = ctx.arg(1);
    let task = current();
    let parent_cgroup = cgroup_id(task);
    let child_cgroup = cgroup_id(child);
    let (scope_id, families) = of_process(task, false);
    let settings = settings();
    // The agent places new processes on purpose; everyone else's children stay where their parent is attributed.
    let (child_scope, child_families) =
        if child_cgroup != parent_cgroup && (scope_id == 0 || settings.agent_tgid == tgid(task)) {
            of_cgroup(child_cgroup)
        } else {
            (scope_id, families)
        };
    if (child_scope != 0 || child_cgroup != parent_cgroup)
        && let Some(kept) = stored(child, true)
    {
        keep(kept, child_scope, child_families, settings.generation);
    }
    if tid(child) != tgid(child) || is_kernel_thread(child) {
        return 0;
    }
    let Some(seq) = number(class::PROCESS) else { return 0 };
    let about = About { kind: kind::FORK, class: class::PROCESS, scope_id };
    let mut event = core::mem::MaybeUninit::<Fork>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: every member is written.
    unsafe {
        fill(&raw mut (*event).header, about, seq, task);
        (*event).header.len = size_of::<Fork>() as u32;
        (*event).child_start_ns = start_ns(child);
        (*event).child_cgroup_id = child_cgroup;
        (*event).child_scope_id = child_scope;
        (*event).child_tgid = tgid(child);
        (*event).reserved = 0;
        submit(event.cast(), size_of::<Fork>() as u64, class::PROCESS, scope_id, seq)
    }
}

/// `sched_process_exec`: runs in the process, after the new program and credentials are in place and before its
/// first instruction, so its stack still holds what the kernel copied there.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec(ctx: BtfTracePointContext) -> i32 {
    let task: Typed = ctx.arg(0);
    let old_tid: u32 = ctx.arg(1);
    let bprm: Typed = ctx.arg(2);
    let (scope_id, _) = of_process(task, false);
    let Some(seq) = number(class::PROCESS) else { return 0 };
    let about = About { kind: kind::EXEC, class: class::PROCESS, scope_id };
    let Some(scratch) = Scratch::claim() else { return lost(u32::from(class::PROCESS), scope_id) };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message; lengths are bounded below.
    unsafe {
        let event = message.cast::<Exec>();
        fill(&raw mut (*event).header, about, seq, task);
        let mut exec_flags = 0;
        if old_tid != tgid(task) {
            exec_flags |= exec_flag::BY_THREAD;
        }
        let files: Typed = member(task, off!(task_files));
        if !files.is_null() && member::<u32>(files, off!(files_struct_count)) > 1 {
            exec_flags |= exec_flag::FILES_SHARED;
        }
        (*event).old_tid = old_tid;
        (*event).argc = member(bprm, off!(bprm_argc));
        (*event).envc = member(bprm, off!(bprm_envc));
        (*event).loginuid = if off!(has_loginuid) != 0 { member(task, off!(task_loginuid)) } else { u32::MAX };
        let cred: Typed = member(task, off!(task_cred));
        if cred.is_null() {
            (*event).suid = u32::MAX;
            (*event).sgid = u32::MAX;
            (*event).cap_effective = 0;
        } else {
            (*event).suid = member(cred, off!(cred_suid));
            (*event).sgid = member(cred, off!(cred_sgid));
            let low: u32 = member(cred, off!(cred_cap_effective));
            let high: u32 = member(cred, off!(cred_cap_effective) + 4);
            (*event).cap_effective = u64::from(high) << 32 | u64::from(low);
        }

        let file = member::<u64>(bprm, off!(bprm_file));
        let inode = value::<u64>(file.wrapping_add(u64::from(off!(file_inode))));
        let field = |offset: u32| inode.wrapping_add(u64::from(offset));
        (*event).ino = value(field(off!(inode_ino)));
        (*event).size = value(field(off!(inode_size)));
        (*event).ctime_s = value(field(off!(inode_ctime_s)));
        (*event).ctime_ns = value(field(off!(inode_ctime_ns)));
        (*event).nlink = value(field(off!(inode_nlink)));
        (*event).owner_uid = value(field(off!(inode_uid)));
        (*event).owner_gid = value(field(off!(inode_gid)));
        (*event).mode = value(field(off!(inode_mode)));
        let sb = value::<u64>(field(off!(inode_sb)));
        (*event).dev = value(sb.wrapping_add(u64::from(off!(super_block_dev))));

        let proxy: Typed = member(task, off!(task_nsproxy));
        let mnt_ns = if proxy.is_null() { 0 } else { member::<u64>(proxy, off!(nsproxy_mnt_ns)) };
        let start = Start {
            mount: value(file.wrapping_add(u64::from(off!(file_path_mnt)))),
            dentry: value(file.wrapping_add(u64::from(off!(file_path_dentry)))),
        };
        let zero = (&raw const (*event).header.reserved).read_volatile();
        let mut end = size_of::<Exec>();
        let (path_len, path_flags) = walk(scratch, end, PATH_BYTES_MAX, start, mnt_ns, zero);
        (*event).path_len = path_len as u16;
        (*event).path_flags = path_flags;
        if cfg!(feature = "trace") && path_flags & path_flag::COMPLETE == 0 {
            note_partial_path(class::PROCESS.into());
        }
        end += path_len;

        let fs = member::<u64>(task, off!(task_fs));
        let pwd = fs.wrapping_add(u64::from(off!(fs_struct_pwd)));
        let start = Start { mount: value(pwd), dentry: value(pwd.wrapping_add(8)) };
        let (cwd_len, cwd_flags) = walk(scratch, end, CWD_BYTES_MAX, start, mnt_ns, zero);
        (*event).cwd_len = cwd_len as u16;
        (*event).cwd_flags = cwd_flags;
        end += cwd_len;

        let name = member::<u64>(bprm, off!(bprm_filename));
        let copied = bpf_probe_read_kernel_str(message.add(end).cast(), EXEC_NAME_BYTES_MAX as u32, name as *const _);
        let name_len = if copied > 0 && copied <= EXEC_NAME_BYTES_MAX as i64 { copied as usize - 1 } else { 0 };
        if name_len == 0 || name_len == EXEC_NAME_BYTES_MAX - 1 {
            exec_flags |= exec_flag::NAME_TRUNCATED;
        }
        (*event).name_len = name_len as u16;
        end += name_len;

        let mm: Typed = member(task, off!(task_mm));
        let mut argv_len: usize = 0;
        (*event).argv_total = 0;
        if !mm.is_null() {
            let arg_start = member::<u64>(mm, off!(mm_arg_start));
            let total = member::<u64>(mm, off!(mm_arg_end)).wrapping_sub(arg_start);
            (*event).argv_total = total as u32;
            argv_len = total as usize;
            if total > ARGV_BYTES_MAX as u64 {
                argv_len = ARGV_BYTES_MAX;
                exec_flags |= exec_flag::ARGV_TRUNCATED;
            }
            if bpf_probe_read_user(message.add(end).cast(), argv_len as u32, arg_start as *const _) != 0 {
                argv_len = 0;
                exec_flags |= exec_flag::ARGV_UNREAD;
            }
        }
        (*event).argv_len = argv_len as u16;
        end += argv_len;
        (*event).exec_flags = exec_flags;
        (*event).header.len = end as u32;
        submit(message, end as u64, class::PROCESS, scope_id, seq);
    }
    scratch.release();
    0
}

/// `sched_process_exit`: runs in each thread that ends; the last one reports the process.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn exit(ctx: BtfTracePointContext) -> i32 {
    let task: Typed = ctx.arg(0);
    if is_kernel_thread(task) {
        return 0;
    }
    let head = leader(task);
    // SAFETY: typed loads.
    let signal: Typed = unsafe { member(task, off!(task_signal)) };
    if signal.is_null() {
        return 0;
    }
    if off!(has_group_dead) != 0 {
        let group_dead: u64 = ctx.arg(1);
        if group_dead & 1 == 0 {
            return 0;
        }
    } else {
        // SAFETY: typed load.
        if unsafe { member::<u32>(signal, off!(signal_live)) } != 0 {
            return 0;
        }
        // Two last threads can both see zero: the first to mark the leader's storage reports.
        if let Some(kept) = stored(head, true) {
            // SAFETY: a live storage value, aligned to 8.
            if unsafe { fetch_add(&raw mut (*kept).exited, 1) } != 0 {
                return 0;
            }
        }
    }
    let (scope_id, _) = of_process(task, false);
    let Some(seq) = number(class::PROCESS) else { return 0 };
    let about = About { kind: kind::EXIT, class: class::PROCESS, scope_id };
    let mut event = core::mem::MaybeUninit::<Exit>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: every member is written.
    unsafe {
        fill(&raw mut (*event).header, about, seq, task);
        (*event).header.len = size_of::<Exit>() as u32;
        // Both are read before one is chosen: from a branch each, the compiler makes one load of a chosen pointer at
        // a chosen offset, of which the verifier sees every pair ("access beyond struct signal_struct", 6.1).
        let group: u32 = member(signal, off!(signal_group_exit_code));
        let own: u32 = member(head, off!(task_exit_code));
        let ended_as_group = member::<u32>(signal, off!(signal_flags)) & SIGNAL_GROUP_EXIT != 0;
        (*event).status = if ended_as_group { group } else { own };
        (*event).reserved = 0;
        submit(event.cast(), size_of::<Exit>() as u64, class::PROCESS, scope_id, seq)
    }
}

/// `syscalls:sys_exit_{execve,execveat}`: one that succeeded is `exec`'s.
#[tracepoint]
pub fn exec_failed(ctx: TracePointContext) -> u32 {
    let call = SysExit::of(&ctx);
    if call.ret >= 0 {
        return 0;
    }
    let (scope_id, _) = of_process(call.task, false);
    let Some(seq) = number(class::PROCESS) else { return 0 };
    let about = About { kind: kind::EXEC_FAILED, class: class::PROCESS, scope_id };
    let Some(scratch) = Scratch::claim() else { return lost(u32::from(class::PROCESS), scope_id) as u32 };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message; the length is bounded below.
    unsafe {
        let event = message.cast::<ExecFailed>();
        fill(&raw mut (*event).header, about, seq, call.task);
        let name = if call.nr == off!(nr_execveat) { call.arg(off!(regs_arg1)) } else { call.arg(off!(regs_arg0)) };
        let to = message.add(size_of::<ExecFailed>());
        let copied = bpf_probe_read_user_str(to.cast(), EXEC_NAME_BYTES_MAX as u32, name as *const _);
        let mut flags = 0;
        let mut name_len = 0;
        if copied <= 0 || copied > EXEC_NAME_BYTES_MAX as i64 {
            flags |= exec_failed_flag::NAME_UNREAD;
        } else {
            name_len = copied as usize - 1;
            if name_len == EXEC_NAME_BYTES_MAX - 1 {
                flags |= exec_failed_flag::NAME_TRUNCATED;
            }
        }
        (*event).result = call.ret as i32;
        (*event).exec_flags = flags;
        (*event).name_len = name_len as u16;
        let len = size_of::<ExecFailed>() + name_len;
        (*event).header.len = len as u32;
        submit(message, len as u64, class::PROCESS, scope_id, seq);
    }
    scratch.release();
    0
}
