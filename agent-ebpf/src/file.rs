//! Files opened, mapped and received.
//!
//! # Opens at the `lsm` and `fentry` tiers
//! `lsm/file_open` or `fentry/security_file_open` sees the kernel's `struct file` before there is a descriptor for it,
//! so path and inode are facts that nobody can exchange. They wait in `OPENS` for the end of the call
//! (`fexit/__x64_sys_open*`), which has the descriptor; where no such end will come (io_uring, `open_by_handle_at`,
//! 32-bit calls, exec and other files that the kernel opens for a process) they are sent at once, the result not
//! observed. What fails before the hook, and `O_PATH`, which has none, are seen at the end of the call only.
//!
//! # Opens at the `tracepoint` tier
//! Classic tracepoints on the exit of open, openat, openat2 and creat (`CONFIG_FTRACE_SYSCALLS`).
//! On success the returned descriptor is resolved through the task's table to the kernel's `struct file`, whose path
//! and inode are facts. Where the table is shared another thread could have replaced the descriptor between the
//! call's end and this hook: the event is then `racy` and keeps the caller's string too. On failure the caller's
//! string is all there is. Not seen: the ways named above, descriptors inherited or received, `memfd_create`,
//! sockets and pipes.
//!
//! # Mapped and received
//! At the `lsm` and `fentry` tiers; at `tracepoint` mmap(2) is told by [`crate::change`]. Not seen: `mprotect` of what is
//! mapped already.

use crate::emit::{Scratch, lost, number, submit};
use crate::maps::{OPENS, off};
use crate::path::{Place, Start, may_read, of_path, read, value, walk};
use crate::scope::{settings, wanted};
use crate::task::{About, Typed, current, fill, member, mnt_ns};
use agent_common::file::{Open, Seen, open_flag};
use agent_common::globals::tier;
use agent_common::header::{class, kind};
use agent_common::limits::{ASKED_BYTES_MAX, CHUNK_BYTES, OPEN_BYTES, PATH_BYTES_MAX, SCRATCH_BYTES};
use agent_common::stats::family;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, bpf_probe_read_user,
    bpf_probe_read_user_str, bpf_task_pt_regs,
};
use aya_ebpf::macros::{fentry, fexit, lsm, tracepoint};
use aya_ebpf::programs::{FEntryContext, FExitContext, LsmContext, TracePointContext};

/// `__syscall_nr` in the record of every `syscalls:sys_exit_*` (its `format` file).
const NR_OFFSET: usize = 8;
/// `ret`, likewise.
const RET_OFFSET: usize = 16;

/// `syscalls:sys_exit_{open,openat,openat2,creat}`.
#[tracepoint]
pub fn open(ctx: TracePointContext) -> u32 {
    let record = ctx.as_ptr().cast::<u8>();
    // SAFETY: the record is as its format says.
    let (nr, ret) = unsafe { (*record.add(NR_OFFSET).cast::<u32>(), *record.add(RET_OFFSET).cast::<i64>()) };
    ended(nr, ret);
    0
}

/// One program per function, since a program of this type is bound to one when it is loaded. Two arguments: the
/// registers, and what the call returns.
macro_rules! at_return {
    ($name:ident, $function:literal, $number:ident) => {
        #[doc = concat!("`fexit/", $function, "`.")]
        #[fexit(function = $function)]
        pub fn $name(ctx: FExitContext) -> i32 {
            ended(off!($number), ctx.arg::<i64>(1));
            0
        }
    };
}
at_return!(open_at_end, "__x64_sys_openat", nr_openat);
at_return!(open_at2_end, "__x64_sys_openat2", nr_openat2);
at_return!(open_end, "__x64_sys_open", nr_open);
at_return!(creat_end, "__x64_sys_creat", nr_creat);

/// An open has returned.
#[inline(always)]
fn ended(nr: u32, ret: i64) {
    if settings().families & family::FILE == 0 {
        return;
    }
    let task = current();
    if off!(tier) != tier::TRACEPOINT {
        // SAFETY: no arguments.
        let key = unsafe { bpf_get_current_pid_tgid() };
        if let Some(kept) = OPENS.get_ptr_mut(&key) {
            if ret >= 0 {
                complete(task, kept.cast(), nr, ret);
            }
            let _ = OPENS.remove(&key);
            if ret >= 0 {
                return;
            }
        }
    }
    unseen(task, nr, ret);
}

/// Sends what the hook has kept of an open, with its result.
#[inline(always)]
fn complete(task: Typed, message: *mut u8, nr: u32, ret: i64) {
    // SAFETY: a live map value, which only this thread writes and removes.
    unsafe {
        let event = message.cast::<Open>();
        let scope_id = (*event).header.scope_id;
        let Some(seq) = number(class::FILE) else { return };
        (*event).header.seq = seq;
        (*event).header.cpu = bpf_get_smp_processor_id();
        (*event).header.boot_ns = bpf_ktime_get_boot_ns();
        (*event).result = ret as i32;
        let regs = bpf_task_pt_regs(task.cast_mut().cast()) as *const u8;
        if nr == off!(nr_openat) || nr == off!(nr_openat2) {
            (*event).dir_fd = member::<u64>(regs, off!(regs_arg0)) as i32;
        }
        // Only written by the hook, and bounded there; the verifier knows only what it is told here.
        let path_len = usize::from((&raw const (*event).path_len).read_volatile());
        let path_len = if path_len > PATH_BYTES_MAX { 0 } else { path_len };
        submit(message, (size_of::<Open>() + path_len) as u64, class::FILE, scope_id, seq);
    }
}

/// An open of which no hook knows more than that it returned.
#[inline(always)]
fn unseen(task: Typed, nr: u32, ret: i64) {
    let Some(scope_id) = wanted(task, family::FILE) else { return };
    let Some(seq) = number(class::FILE) else { return };
    let about = About { kind: kind::OPEN, class: class::FILE, scope_id };
    let Some(scratch) = Scratch::claim() else {
        lost(u32::from(class::FILE), scope_id);
        return;
    };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message.
    unsafe {
        let event = message.cast::<Open>();
        fill(&raw mut (*event).header, about, seq, task);
        let zero = (&raw const (*event).header.reserved).read_volatile();
        let mut end = size_of::<Open>();
        let mut open_flags = 0;
        let (mut path_len, mut path_flags) = (0, 0);
        (*event).result = ret as i32;
        (*event).ino = 0;
        (*event).dev = 0;
        (*event).nlink = 0;
        (*event).file_flags = 0;
        (*event).file_mode = 0;
        (*event).mode = 0;
        (*event).reserved = 0;

        let files: Typed = member(task, off!(task_files));
        let shared = !files.is_null() && member::<u32>(files, off!(files_struct_count)) > 1;
        if shared && ret >= 0 {
            open_flags |= open_flag::RACY;
        }
        if ret >= 0 {
            let file = descriptor(files, ret as u64);
            // Only in the sense of the verifier: where it cannot be read, no descriptor is found.
            if file == 0 || !may_read() {
                open_flags |= open_flag::UNRESOLVED;
            } else {
                // Both objects are read at once into the far end of the scratch: the stack has no room for them.
                let piece = message.add(SCRATCH_BYTES - CHUNK_BYTES);
                read(piece, off!(file_span), file);
                (*event).file_flags = member(piece, off!(file_flags));
                (*event).file_mode = member(piece, off!(file_mode));
                let start =
                    Start { mount: member(piece, off!(file_path_mnt)), dentry: member(piece, off!(file_path_dentry)) };
                let inode = member::<u64>(piece, off!(file_inode));
                read(piece, off!(inode_span), inode);
                (*event).ino = member(piece, off!(inode_ino));
                (*event).nlink = member(piece, off!(inode_nlink));
                (*event).mode = member(piece, off!(inode_mode));
                let block = member::<u64>(piece, off!(inode_sb));
                (*event).dev = value(block.wrapping_add(u64::from(off!(super_block_dev))));
                (path_len, path_flags) = walk(scratch, end, PATH_BYTES_MAX, start, mnt_ns(task), zero);
                end += path_len;
            }
        }
        (*event).path_len = path_len as u16;
        (*event).path_flags = path_flags;

        // The registers as the call found them: the number says where they put what.
        let regs = bpf_task_pt_regs(task.cast_mut().cast()) as *const u8;
        let arg = |n: u32| member::<u64>(regs, n);
        let (dir_fd, asked, flags) = if nr == off!(nr_openat) {
            (arg(off!(regs_arg0)) as i32, arg(off!(regs_arg1)), arg(off!(regs_arg2)) as u32)
        } else if nr == off!(nr_openat2) {
            let how = arg(off!(regs_arg2));
            let mut flags = 0u64;
            if may_read() {
                bpf_probe_read_user((&raw mut flags).cast(), 8, how as *const _);
            }
            open_flags |= open_flag::ASKED_FLAGS_CLAIMED;
            (arg(off!(regs_arg0)) as i32, arg(off!(regs_arg1)), flags as u32)
        } else if nr == off!(nr_creat) {
            // creat is open with these.
            (AT_FDCWD, arg(off!(regs_arg0)), O_CREAT_WRONLY_TRUNC)
        } else {
            (AT_FDCWD, arg(off!(regs_arg0)), arg(off!(regs_arg1)) as u32)
        };
        (*event).dir_fd = dir_fd;
        (*event).asked_flags = flags;
        let mut asked_len = 0;
        if !may_read() {
            // aya turns the helpers for user memory into those for any memory where the latter are refused.
            open_flags |= open_flag::ASKED_UNREAD;
        } else if ret < 0 || shared {
            let copied =
                bpf_probe_read_user_str(message.add(end).cast(), ASKED_BYTES_MAX as u32 + 1, asked as *const _);
            if copied <= 0 || copied > ASKED_BYTES_MAX as i64 + 1 {
                open_flags |= open_flag::ASKED_UNREAD;
            } else {
                asked_len = copied as usize - 1;
                if asked_len == ASKED_BYTES_MAX {
                    open_flags |= open_flag::ASKED_TRUNCATED;
                }
            }
        }
        end += asked_len;
        (*event).asked_len = asked_len as u16;
        (*event).open_flags = open_flags;
        (*event).header.len = end as u32;
        submit(message, end as u64, class::FILE, scope_id, seq);
    }
    scratch.release();
}

/// `lsm/file_open`: the kernel's own object of the file, before there is a descriptor for it.
#[lsm(hook = "file_open")]
pub fn open_lsm(ctx: LsmContext) -> i32 {
    opening(ctx.arg(0));
    0
}

/// `fentry/security_file_open`: the same, before the security modules are asked.
#[fentry(function = "security_file_open")]
pub fn open_fentry(ctx: FEntryContext) -> i32 {
    opening(ctx.arg(0));
    0
}

/// `FMODE_NOACCOUNT`: a file that the kernel opens beneath another one (overlayfs, cachefiles).
const FMODE_NOACCOUNT: u32 = 0x2000_0000;
/// `__FMODE_EXEC` and `FMODE_NONOTIFY`, which the kernel keeps among the flags.
const KERNEL_FLAGS: u32 = 0x20 | 0x0400_0000;
/// `TS_COMPAT`: a 32-bit call is in progress.
const TS_COMPAT: u32 = 2;
/// `PF_IO_WORKER`.
const PF_IO_WORKER: u32 = 0x10;
/// `-ENOSYS`: what the result of a call in progress is until it has one.
const NO_RESULT_YET: i64 = -38;

/// Whether the task is inside one of the calls whose end is watched. What it does after that call and before it is
/// back in user space (work that io_uring has put off) is not, although its registers still name the call.
#[inline(always)]
fn in_open_call(task: Typed) -> bool {
    // SAFETY: typed loads.
    unsafe {
        if member::<u32>(task, off!(task_flags)) & PF_IO_WORKER != 0
            || member::<u32>(task, off!(task_status)) & TS_COMPAT != 0
        {
            return false;
        }
        let regs = bpf_task_pt_regs(task.cast_mut().cast()) as *const u8;
        if member::<i64>(regs, off!(regs_result)) != NO_RESULT_YET {
            return false;
        }
        let nr = member::<u64>(regs, off!(regs_nr));
        nr == u64::from(off!(nr_openat))
            || nr == u64::from(off!(nr_openat2))
            || nr == u64::from(off!(nr_open))
            || nr == u64::from(off!(nr_creat))
    }
}

/// A file is being opened: keeps what is known of it until the call ends, or sends it where no end will be seen.
#[inline(always)]
fn opening(file: Typed) {
    let task = current();
    let Some(scope_id) = wanted(task, family::FILE) else { return };
    // SAFETY: typed load.
    let file_mode: u32 = unsafe { member(file, off!(file_mode)) };
    if file_mode & FMODE_NOACCOUNT != 0 {
        return;
    }
    let awaited = in_open_call(task);
    let mut seq = 0;
    if !awaited {
        let Some(next) = number(class::FILE) else { return };
        seq = next;
    }
    let about = About { kind: kind::OPEN, class: class::FILE, scope_id };
    let Some(scratch) = Scratch::claim() else {
        // An awaited one is looked up at the end of its call instead.
        if !awaited {
            lost(u32::from(class::FILE), scope_id);
        }
        return;
    };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message; typed loads.
    unsafe {
        let event = message.cast::<Open>();
        fill(&raw mut (*event).header, about, seq, task);
        let zero = (&raw const (*event).header.reserved).read_volatile();
        let (ino, dev, nlink, mode) = inode_of(file);
        (*event).ino = ino;
        (*event).dev = dev;
        (*event).nlink = nlink;
        (*event).mode = mode;
        (*event).result = 0;
        let file_flags = member::<u32>(file, off!(file_flags));
        (*event).file_flags = file_flags;
        (*event).file_mode = file_mode;
        // `O_CREAT` and its like are taken away after this hook: these are the flags as they were asked for.
        (*event).asked_flags = file_flags & !KERNEL_FLAGS;
        (*event).dir_fd = AT_FDCWD;
        (*event).open_flags = if awaited { 0 } else { open_flag::RESULT_UNOBSERVED };
        (*event).asked_len = 0;
        (*event).reserved = 0;
        let at = size_of::<Open>();
        let place = Place { scratch, at, max: PATH_BYTES_MAX, zero };
        let (path_len, path_flags) = of_path(place, file, off!(file_path), mnt_ns(task), true);
        (*event).path_len = path_len as u16;
        (*event).path_flags = path_flags;
        let len = (at + path_len) as u64;
        (*event).header.len = len as u32;
        if awaited {
            let key = bpf_get_current_pid_tgid();
            // Full: looked up at the end of the call.
            let _ = OPENS.insert(&key, &*message.cast::<[u8; OPEN_BYTES]>(), 0);
        } else {
            submit(message, len, class::FILE, scope_id, seq);
        }
    }
    scratch.release();
}

/// Number, device, links and mode of a file's inode.
///
/// # Safety
/// `file` is typed.
#[inline(always)]
unsafe fn inode_of(file: Typed) -> (u64, u32, u32, u16) {
    // SAFETY: typed loads.
    unsafe {
        let inode: Typed = member(file, off!(file_inode));
        if inode.is_null() {
            return (0, 0, 0, 0);
        }
        let block: Typed = member(inode, off!(inode_sb));
        let dev = if block.is_null() { 0 } else { member(block, off!(super_block_dev)) };
        (member(inode, off!(inode_ino)), dev, member(inode, off!(inode_nlink)), member(inode, off!(inode_mode)))
    }
}

/// `lsm/mmap_file`.
#[lsm(hook = "mmap_file")]
pub fn map_lsm(ctx: LsmContext) -> i32 {
    mapping(ctx.arg(0), ctx.arg(2), ctx.arg(3), true);
    0
}

/// `fentry/security_mmap_file`.
#[fentry(function = "security_mmap_file")]
pub fn map_fentry(ctx: FEntryContext) -> i32 {
    mapping(ctx.arg(0), ctx.arg(1), ctx.arg(2), false);
    0
}

/// `lsm/file_receive`: a descriptor over a socket, by `pidfd_getfd` or from a seccomp notifier.
#[lsm(hook = "file_receive")]
pub fn receive_lsm(ctx: LsmContext) -> i32 {
    seen(ctx.arg(0), kind::FILE_RECEIVED, 0, 0, true);
    0
}

/// `fentry/security_file_receive`.
#[fentry(function = "security_file_receive")]
pub fn receive_fentry(ctx: FEntryContext) -> i32 {
    seen(ctx.arg(0), kind::FILE_RECEIVED, 0, 0, false);
    0
}

/// `PROT_WRITE`.
const PROT_WRITE: u64 = 2;
/// `PROT_EXEC`.
const PROT_EXEC: u64 = 4;
/// `MAP_SHARED` and `MAP_SHARED_VALIDATE` have this bit, `MAP_PRIVATE` has not.
const MAP_SHARED: u64 = 1;

/// A mapping, of which those that execute or that write to the file are told.
#[inline(always)]
fn mapping(file: Typed, prot: u64, map_flags: u64, kernels_own: bool) {
    if prot & PROT_EXEC != 0 || (prot & PROT_WRITE != 0 && map_flags & MAP_SHARED != 0) {
        seen(file, kind::FILE_MAP, prot as u32, map_flags as u32, kernels_own);
    }
}

/// A file came to a process by another way than an open.
#[inline(always)]
fn seen(file: Typed, kind: u16, prot: u32, map_flags: u32, kernels_own: bool) {
    if file.is_null() {
        return;
    }
    let task = current();
    let Some(scope_id) = wanted(task, family::FILE) else { return };
    let Some(seq) = number(class::FILE) else { return };
    let about = About { kind, class: class::FILE, scope_id };
    let Some(scratch) = Scratch::claim() else {
        lost(u32::from(class::FILE), scope_id);
        return;
    };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message; typed loads.
    unsafe {
        let event = message.cast::<Seen>();
        fill(&raw mut (*event).header, about, seq, task);
        let zero = (&raw const (*event).header.reserved).read_volatile();
        let (ino, dev, _, _) = inode_of(file);
        (*event).ino = ino;
        (*event).dev = dev;
        (*event).prot = prot;
        (*event).map_flags = map_flags;
        let at = size_of::<Seen>();
        let place = Place { scratch, at, max: PATH_BYTES_MAX, zero };
        let (path_len, path_flags) = of_path(place, file, off!(file_path), mnt_ns(task), kernels_own);
        (*event).path_len = path_len as u16;
        (*event).path_flags = path_flags;
        let len = (at + path_len) as u64;
        (*event).header.len = len as u32;
        submit(message, len, class::FILE, scope_id, seq);
    }
    scratch.release();
}

/// `AT_FDCWD`.
const AT_FDCWD: i32 = -100;
/// `O_CREAT | O_WRONLY | O_TRUNC` on x86-64.
const O_CREAT_WRONLY_TRUNC: u32 = 0o1101;

/// The `struct file` behind a descriptor, as an address; 0 when there is none.
///
/// # Safety
/// `files` is typed or null.
#[inline(always)]
pub unsafe fn descriptor(files: Typed, number: u64) -> u64 {
    if files.is_null() || !may_read() {
        return 0;
    }
    // SAFETY: typed loads; the table is an array of pointers, which the verifier does not follow, so it is read.
    unsafe {
        let table: Typed = member(files, off!(files_struct_fdt));
        if table.is_null() || number >= u64::from(member::<u32>(table, off!(fdtable_max_fds))) {
            return 0;
        }
        let slots = member::<u64>(table, off!(fdtable_fd));
        let mut file = 0u64;
        read((&raw mut file).cast(), 8, slots.wrapping_add(number * 8));
        file
    }
}
