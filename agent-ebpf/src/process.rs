//! fork, exec and exit: BTF tracepoints of the scheduler (kernel 5.5, `CONFIG_DEBUG_INFO_BTF`). At the `lsm` tier two
//! LSM hooks see an exec before its tracepoint does (`CONFIG_BPF_LSM`, `bpf` in the list of security modules), and
//! keep what only they can have; one event is made, at the tracepoint.
//! Exec calls that failed: classic tracepoints on the exit of execve and execveat (`CONFIG_FTRACE_SYSCALLS`).
//!
//! Emitted for the whole host, in scope or not. Not seen: threads (only processes are reported), kernel threads, and
//! 32-bit exec calls that failed.

use crate::emit::{Scratch, fetch_add, lost, note_partial_path, number, submit};
use crate::hash;
use crate::maps::{EXECS, SETTINGS, off};
use crate::path::{Place, may_read, of_path};
use crate::privilege::SysExit;
use crate::scope::{keep, of_cgroup, of_process, settings, stored};
use crate::task::{
    About, Typed, cgroup_id, current, fill, is_kernel_thread, leader, member, mnt_ns, start_ns, tgid, tid,
};
use agent_common::file::path_flag;
use agent_common::globals::tier;
use agent_common::header::{class, kind};
use agent_common::limits::{
    ARGV_BYTES_MAX, ARGV_WHOLE_BYTES_MAX, CWD_BYTES_MAX, EXEC_HEAD_BYTES, EXEC_NAME_BYTES_MAX, PATH_BYTES_MAX,
};
use agent_common::process::{Exec, ExecFailed, ExecWhole, Exit, Fork, exec_failed_flag, exec_flag};
use aya_ebpf::helpers::generated::{
    bpf_copy_from_user, bpf_get_current_pid_tgid, bpf_probe_read_kernel_str, bpf_probe_read_user,
    bpf_probe_read_user_str,
};
use aya_ebpf::macros::{btf_tracepoint, lsm, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, LsmContext, TracePointContext};

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
    bare(ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

/// An exec of which only this tracepoint knows.
#[inline(always)]
fn bare(task: Typed, old_tid: u32, bprm: Typed) -> i32 {
    let (scope_id, _) = of_process(task, false);
    let Some(seq) = number(class::PROCESS) else { return 0 };
    let about = About { kind: kind::EXEC, class: class::PROCESS, scope_id };
    let Some(scratch) = Scratch::claim() else { return lost(u32::from(class::PROCESS), scope_id) };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message; lengths are bounded below.
    unsafe {
        let event = message.cast::<Exec>();
        fill(&raw mut (*event).header, about, seq, task);
        let mut exec_flags = facts(event, task, old_tid, bprm);
        let zero = (&raw const (*event).header.reserved).read_volatile();
        let mnt_ns = mnt_ns(task);
        let mut end = size_of::<Exec>();
        let (path_len, path_flags) =
            path_of(Place { scratch, at: end, max: PATH_BYTES_MAX, zero }, bprm, mnt_ns, false);
        (*event).path_len = path_len as u16;
        (*event).path_flags = path_flags;
        if cfg!(feature = "trace") && path_flags & path_flag::COMPLETE == 0 {
            note_partial_path(class::PROCESS.into());
        }
        end += path_len;

        let (cwd_len, cwd_flags) = cwd_of(Place { scratch, at: end, max: CWD_BYTES_MAX, zero }, task, mnt_ns, false);
        (*event).cwd_len = cwd_len as u16;
        (*event).cwd_flags = cwd_flags;
        end += cwd_len;

        let name_len = name_of(message.add(end), bprm);
        if name_len == 0 || name_len == EXEC_NAME_BYTES_MAX - 1 {
            exec_flags |= exec_flag::NAME_TRUNCATED;
        }
        (*event).name_len = name_len as u16;
        end += name_len;

        let (arg_start, total) = arguments(task);
        (*event).argv_total = total as u32;
        let mut argv_len = total as usize;
        if total > ARGV_BYTES_MAX as u64 {
            argv_len = ARGV_BYTES_MAX;
            exec_flags |= exec_flag::ARGV_TRUNCATED;
        }
        // aya turns the helpers for user memory into those for any memory where the latter are refused.
        if !may_read() || bpf_probe_read_user(message.add(end).cast(), argv_len as u32, arg_start as *const _) != 0 {
            argv_len = 0;
            exec_flags |= exec_flag::ARGV_UNREAD;
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

/// Fills what every exec says but header, strings and flags; gives the flags known so far.
///
/// # Safety
/// `event` has room; the objects are typed.
#[inline(always)]
unsafe fn facts(event: *mut Exec, task: Typed, old_tid: u32, bprm: Typed) -> u16 {
    // SAFETY: the caller's memory; typed loads.
    unsafe {
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
            (*event).cap_effective = capabilities(cred, off!(cred_cap_effective));
        }
        (*event).ino = 0;
        (*event).size = 0;
        (*event).ctime_s = 0;
        (*event).ctime_ns = 0;
        (*event).nlink = 0;
        (*event).owner_uid = u32::MAX;
        (*event).owner_gid = u32::MAX;
        (*event).mode = 0;
        (*event).dev = 0;
        let file: Typed = member(bprm, off!(bprm_file));
        let inode: Typed = if file.is_null() { file } else { member(file, off!(file_inode)) };
        if !inode.is_null() {
            (*event).ino = member(inode, off!(inode_ino));
            (*event).size = member(inode, off!(inode_size));
            (*event).ctime_s = member(inode, off!(inode_ctime_s));
            (*event).ctime_ns = member(inode, off!(inode_ctime_ns));
            (*event).nlink = member(inode, off!(inode_nlink));
            (*event).owner_uid = member(inode, off!(inode_uid));
            (*event).owner_gid = member(inode, off!(inode_gid));
            (*event).mode = member(inode, off!(inode_mode));
            let block: Typed = member(inode, off!(inode_sb));
            if !block.is_null() {
                (*event).dev = member(block, off!(super_block_dev));
            }
        }
        exec_flags
    }
}

/// A set of capabilities: two halves, since before 6.3 it was an array of them.
///
/// # Safety
/// `cred` is typed.
#[inline(always)]
unsafe fn capabilities(cred: Typed, offset: u32) -> u64 {
    // SAFETY: typed loads.
    unsafe { u64::from(member::<u32>(cred, offset + 4)) << 32 | u64::from(member::<u32>(cred, offset)) }
}

/// The path of the binary that runs.
///
/// # Safety
/// `bprm` is typed.
#[inline(always)]
unsafe fn path_of(place: Place, bprm: Typed, mnt_ns: u64, kernels_own: bool) -> (usize, u16) {
    // SAFETY: the binary is held for the exec.
    unsafe {
        let file: Typed = member(bprm, off!(bprm_file));
        if file.is_null() {
            return (0, path_flag::UNREADABLE);
        }
        of_path(place, file, off!(file_path), mnt_ns, kernels_own)
    }
}

/// The working directory.
///
/// # Safety
/// `task` is typed and the acting one.
#[inline(always)]
unsafe fn cwd_of(place: Place, task: Typed, mnt_ns: u64, kernels_own: bool) -> (usize, u16) {
    // SAFETY: a task holds its own directory.
    unsafe {
        let fs: Typed = member(task, off!(task_fs));
        if fs.is_null() {
            return (0, path_flag::UNREADABLE);
        }
        of_path(place, fs, off!(fs_struct_pwd), mnt_ns, kernels_own)
    }
}

/// Copies the name given to exec; gives its length, 0 when it could not be read.
///
/// # Safety
/// `to` has room for `EXEC_NAME_BYTES_MAX` bytes; `bprm` is typed.
#[inline(always)]
unsafe fn name_of(to: *mut u8, bprm: Typed) -> usize {
    if !may_read() {
        return 0;
    }
    // SAFETY: the caller's memory; the helper checks the source.
    let copied = unsafe {
        let name = member::<u64>(bprm, off!(bprm_filename));
        bpf_probe_read_kernel_str(to.cast(), EXEC_NAME_BYTES_MAX as u32, name as *const _)
    };
    if copied > 0 && copied <= EXEC_NAME_BYTES_MAX as i64 { copied as usize - 1 } else { 0 }
}

/// The same from the copy that the kernel made on the new stack, where nothing has run yet. For a program that may
/// sleep: there is no helper for strings on all kernels, so a piece is copied that ends with its page, and searched.
/// A name that goes on in the next page is cut.
///
/// # Safety
/// `to` has room for `EXEC_NAME_BYTES_MAX` bytes; `bprm` is typed.
#[inline(always)]
unsafe fn name_on_stack(to: *mut u8, bprm: Typed) -> usize {
    // SAFETY: the caller's memory; the helper checks the source.
    unsafe {
        let name = member::<u64>(bprm, off!(bprm_exec));
        let mut bytes = PAGE_BYTES - (name & (PAGE_BYTES - 1));
        if bytes > EXEC_NAME_BYTES_MAX as u64 - 1 {
            bytes = EXEC_NAME_BYTES_MAX as u64 - 1;
        }
        if bpf_copy_from_user(to.cast(), bytes as u32, name as *const _) != 0 {
            return 0;
        }
        for len in 0..EXEC_NAME_BYTES_MAX - 1 {
            if len as u64 >= bytes || to.add(len).read_volatile() == 0 {
                return len;
            }
        }
        EXEC_NAME_BYTES_MAX - 1
    }
}

/// The smallest page of any architecture.
const PAGE_BYTES: u64 = 4096;

/// Where argv lies in the new program and how long it is.
///
/// # Safety
/// `task` is typed.
#[inline(always)]
unsafe fn arguments(task: Typed) -> (u64, u64) {
    // SAFETY: typed loads.
    unsafe {
        let mm: Typed = member(task, off!(task_mm));
        if mm.is_null() {
            return (0, 0);
        }
        let start = member::<u64>(mm, off!(mm_arg_start));
        (start, member::<u64>(mm, off!(mm_arg_end)).wrapping_sub(start))
    }
}

/// `sched_process_exec` at the tier whose hooks have seen the exec before: their part is in a slot of scratch.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec_whole(ctx: BtfTracePointContext) -> i32 {
    let task: Typed = ctx.arg(0);
    let old_tid: u32 = ctx.arg(1);
    let bprm: Typed = ctx.arg(2);
    // SAFETY: no arguments.
    let key = unsafe { bpf_get_current_pid_tgid() };
    let Some(kept) = EXECS.get_ptr(&key) else { return bare(task, old_tid, bprm) };
    // SAFETY: only this thread writes and removes its entry.
    let slot = unsafe { *kept };
    let _ = EXECS.remove(&key);
    let Some(scratch) = Scratch::owned(slot) else { return bare(task, old_tid, bprm) };
    let (scope_id, _) = of_process(task, false);
    let Some(seq) = number(class::PROCESS) else { return 0 };
    let about = About { kind: kind::EXEC_WHOLE, class: class::PROCESS, scope_id };
    let message = scratch.room;
    // SAFETY: ours by the entry; the slot is larger than the message; lengths are bounded below.
    unsafe {
        let event = message.cast::<ExecWhole>();
        fill(&raw mut (*event).exec.header, about, seq, task);
        let mut exec_flags = facts(&raw mut (*event).exec, task, old_tid, bprm) | (*event).exec.exec_flags;
        let cred: Typed = member(task, off!(task_cred));
        (*event).cap_permitted = 0;
        (*event).cap_ambient = 0;
        if !cred.is_null() {
            (*event).cap_permitted = capabilities(cred, off!(cred_cap_permitted));
            (*event).cap_ambient = capabilities(cred, off!(cred_cap_ambient));
        }
        let (_, total) = arguments(task);
        (*event).exec.argv_total = total as u32;
        let copied = u64::from((*event).copied);
        let mut argv_len = total;
        if total > copied {
            argv_len = copied;
            exec_flags |= if copied == 0 { exec_flag::ARGV_UNREAD } else { exec_flag::ARGV_TRUNCATED };
        }
        if argv_len > ARGV_WHOLE_BYTES_MAX as u64 {
            argv_len = 0;
        }
        (*event).exec.argv_len = argv_len as u16;
        (*event).exec.exec_flags = exec_flags;
        let end = head_end(event) as u64 + argv_len;
        (*event).exec.header.len = end as u32;
        submit(message, end, class::PROCESS, scope_id, seq);
    }
    scratch.release();
    0
}

/// Where argv begins in a slot: behind the other strings.
///
/// # Safety
/// `event` is the beginning of a slot.
#[inline(always)]
unsafe fn head_end(event: *const ExecWhole) -> usize {
    // SAFETY: the caller's memory. Each is bounded when it is written; the mask tells the verifier so.
    unsafe {
        let strings = usize::from((&raw const (*event).exec.path_len).read_volatile())
            + usize::from((&raw const (*event).exec.cwd_len).read_volatile())
            + usize::from((&raw const (*event).exec.name_len).read_volatile());
        masked(size_of::<ExecWhole>() + strings)
    }
}

/// A length within the head of an exec, masked where the compiler cannot see that it need not be.
#[inline(always)]
fn masked(len: usize) -> usize {
    #[cfg(not(target_arch = "bpf"))]
    return len & (EXEC_HEAD_BYTES - 1);
    #[cfg(target_arch = "bpf")]
    {
        let mut len = len;
        // SAFETY: one instruction on one register.
        unsafe {
            core::arch::asm!("{len} &= {mask}", len = inout(reg) len, mask = const EXEC_HEAD_BYTES - 1);
        }
        len
    }
}

const _: () = assert!(
    size_of::<ExecWhole>() + PATH_BYTES_MAX + CWD_BYTES_MAX + EXEC_NAME_BYTES_MAX <= EXEC_HEAD_BYTES,
    "the head of an exec has room for everything before argv"
);

/// `lsm/bprm_committing_creds`: the exec cannot fail softly any more, and the process still has its old credentials.
/// Keeps these, and the two paths, for [`exec_whole`].
#[lsm(hook = "bprm_committing_creds")]
pub fn exec_creds(ctx: LsmContext) -> i32 {
    let bprm: Typed = ctx.arg(0);
    let task = current();
    // SAFETY: no arguments.
    let key = unsafe { bpf_get_current_pid_tgid() };
    let Some(scratch) = Scratch::claim_for_exec(key as u32) else { return 0 };
    // SAFETY: the slot is larger; typed loads.
    unsafe {
        let event = scratch.room.cast::<ExecWhole>();
        (*event).sha256 = [0; 32];
        (*event).copied = 0;
        (*event).reserved = 0;
        (*event).exec.name_len = 0;
        let mut exec_flags = 0;
        let old: Typed = member(task, off!(task_cred));
        let new: Typed = member(bprm, off!(bprm_cred));
        if old.is_null() || new.is_null() {
            (*event).before_cap_effective = 0;
            (*event).before_euid = u32::MAX;
            (*event).before_egid = u32::MAX;
        } else {
            let (euid, egid) = (member::<u32>(old, off!(cred_euid)), member::<u32>(old, off!(cred_egid)));
            (*event).before_euid = euid;
            (*event).before_egid = egid;
            (*event).before_cap_effective = capabilities(old, off!(cred_cap_effective));
            let mut mode = 0;
            let file: Typed = member(bprm, off!(bprm_file));
            let inode: Typed = if file.is_null() { file } else { member(file, off!(file_inode)) };
            if !inode.is_null() {
                mode = member::<u16>(inode, off!(inode_mode));
            }
            let (new_euid, new_egid) = (member::<u32>(new, off!(cred_euid)), member::<u32>(new, off!(cred_egid)));
            if (mode & S_ISUID != 0 && new_euid != euid) || (mode & S_ISGID != 0 && new_egid != egid) {
                exec_flags |= exec_flag::SET_ID;
            }
            let gained = capabilities(new, off!(cred_cap_permitted)) & !capabilities(old, off!(cred_cap_permitted));
            if gained != 0 && new_euid != 0 && member::<u32>(new, off!(cred_uid)) != 0 {
                exec_flags |= exec_flag::FILE_CAPS;
            }
        }
        (*event).exec.exec_flags = exec_flags;
        (*event).exec.header.reserved = 0;
        let zero = (&raw const (*event).exec.header.reserved).read_volatile();
        let mnt_ns = mnt_ns(task);
        let at = size_of::<ExecWhole>();
        let (path_len, path_flags) = path_of(Place { scratch, at, max: PATH_BYTES_MAX, zero }, bprm, mnt_ns, true);
        (*event).exec.path_len = path_len as u16;
        (*event).exec.path_flags = path_flags;
        let at = at + path_len;
        let (cwd_len, cwd_flags) = cwd_of(Place { scratch, at, max: CWD_BYTES_MAX, zero }, task, mnt_ns, true);
        (*event).exec.cwd_len = cwd_len as u16;
        (*event).exec.cwd_flags = cwd_flags;
    }
    if EXECS.insert(&key, &scratch.slot, 0).is_err() {
        scratch.release();
    }
    0
}

/// `S_ISUID`.
const S_ISUID: u16 = 0o4000;
/// `S_ISGID`.
const S_ISGID: u16 = 0o2000;

/// `lsm.s/bprm_committed_creds`: may sleep, so it reads the new stack where a page fault would end other programs,
/// and has the kernel hash the file. argv begins where the stack does (`mm->arg_start` is not set yet) and the
/// environment follows, so more is copied than argv; [`exec_whole`] knows where it ends.
#[lsm(hook = "bprm_committed_creds", sleepable)]
pub fn exec_strings(ctx: LsmContext) -> i32 {
    let bprm: Typed = ctx.arg(0);
    // SAFETY: no arguments.
    let key = unsafe { bpf_get_current_pid_tgid() };
    let Some(kept) = EXECS.get_ptr(&key) else { return 0 };
    // SAFETY: only this thread writes and removes its entry.
    let Some(scratch) = Scratch::owned(unsafe { *kept }) else { return 0 };
    // SAFETY: ours by the entry; lengths are bounded; typed loads.
    unsafe {
        let event = scratch.room.cast::<ExecWhole>();
        let name_len = name_on_stack(scratch.room.add(head_end(event)), bprm);
        if name_len == 0 || name_len == EXEC_NAME_BYTES_MAX - 1 {
            (*event).exec.exec_flags |= exec_flag::NAME_TRUNCATED;
        }
        (*event).exec.name_len = name_len as u16;
        let start = member::<u64>(bprm, off!(bprm_p));
        let mut bytes = member::<u64>(bprm, off!(bprm_exec)).wrapping_sub(start);
        if bytes > ARGV_WHOLE_BYTES_MAX as u64 {
            bytes = ARGV_WHOLE_BYTES_MAX as u64;
        }
        let to = scratch.room.add(head_end(event));
        if bpf_copy_from_user(to.cast(), bytes as u32, start as *const _) == 0 {
            (*event).copied = bytes as u32;
        }
        if off!(ima_file_hash) != 0 {
            let file: Typed = member(bprm, off!(bprm_file));
            if !file.is_null() && hash::of_file(&raw mut (*event).sha256, file) {
                (*event).exec.exec_flags |= exec_flag::HASHED;
            }
        }
    }
    0
}

/// Frees the slot of an exec that ended in the death of the process instead of a new program.
#[inline(always)]
fn forget_exec() {
    // SAFETY: no arguments.
    let key = unsafe { bpf_get_current_pid_tgid() };
    let Some(kept) = EXECS.get_ptr(&key) else { return };
    // SAFETY: only this thread writes and removes its entry.
    let slot = unsafe { *kept };
    let _ = EXECS.remove(&key);
    if let Some(scratch) = Scratch::owned(slot) {
        scratch.release();
    }
}

/// `sched_process_exit`: runs in each thread that ends; the last one reports the process.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn exit(ctx: BtfTracePointContext) -> i32 {
    let task: Typed = ctx.arg(0);
    if is_kernel_thread(task) {
        return 0;
    }
    if off!(tier) == tier::LSM {
        forget_exec();
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
    // Nobody's number any more: whoever gets it next is not the agent, whose acts are left out.
    if let Some(settings) = SETTINGS.get_ptr_mut(0) {
        // SAFETY: the one value of the array; a new daemon that writes it has another number than this one.
        unsafe {
            if (*settings).agent_tgid == tgid(task) {
                (*settings).agent_tgid = 0;
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
