//! Changes of files, closes of files that could be written, and mappings: classic tracepoints on system calls
//! (`CONFIG_FTRACE_SYSCALLS`).
//!
//! One program per shape of arguments, attached to every call of that shape. A call on a name hands over strings, which
//! are the caller's claims; a call on a descriptor is resolved through the task's table, as an open is, to facts.
//!
//! Not seen: changes by io_uring, 32-bit and x32 calls, and through mappings; closes by the end of a process, by
//! `close_range`, `dup2` and exec; mappings that exec makes, and memory that `mprotect` makes executable.

use crate::emit::{Scratch, lost, number, submit};
use crate::file::descriptor;
use crate::maps::off;
use crate::path::{Start, read, value, walk};
use crate::scope::wanted;
use crate::task::{About, Typed, current, fill, member, mnt_ns};
use agent_common::change::{Change, Close, Facts, MapCall, change_flag};
use agent_common::header::{class, kind};
use agent_common::limits::{ASKED_BYTES_MAX, CHUNK_BYTES, PATH_BYTES_MAX, SCRATCH_BYTES};
use agent_common::stats::family;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_probe_read_user_str, bpf_task_pt_regs};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;

/// `__syscall_nr` in the record of every `syscalls:sys_exit_*` (its `format` file).
const NR_OFFSET: usize = 8;
/// `ret` in that of an exit, the first argument in that of an entry.
const VALUE_OFFSET: usize = 16;
/// `FALLOC_FL_KEEP_SIZE`: the length stays as it is.
const KEEP_SIZE: u64 = 1;
/// `FMODE_WRITE`.
const FMODE_WRITE: u32 = 2;
/// File type bits, and a regular file's.
const S_IFMT: u16 = 0o170_000;
const S_IFREG: u16 = 0o100_000;
/// `PROT_WRITE`, `PROT_EXEC`.
const PROT_WRITE: u64 = 2;
const PROT_EXEC: u64 = 4;
/// `MAP_SHARED`, which `MAP_SHARED_VALIDATE` contains; `MAP_ANONYMOUS`.
const MAP_SHARED: u64 = 1;
const MAP_ANONYMOUS: u64 = 0x20;

/// A call that leaves no string, or no descriptor, in some place.
const NONE: u32 = u32::MAX;

/// `sys_exit_{unlink,rmdir,mkdir,mknod,chmod,chown,lchown,truncate}`: the name first.
#[tracepoint]
pub fn change_name(ctx: TracePointContext) -> u32 {
    change(&ctx, off!(regs_arg0), NONE, NONE)
}

/// `sys_exit_{rename,link,symlink}`, and of the calls on attributes of named files: two strings first.
#[tracepoint]
pub fn change_names(ctx: TracePointContext) -> u32 {
    change(&ctx, off!(regs_arg0), off!(regs_arg1), NONE)
}

/// `sys_exit_{unlinkat,mkdirat,mknodat,fchmodat,fchmodat2,fchownat}`: a directory descriptor, and a name.
#[tracepoint]
pub fn change_at(ctx: TracePointContext) -> u32 {
    change(&ctx, off!(regs_arg1), NONE, NONE)
}

/// `sys_exit_{renameat,renameat2,linkat}`, `sys_exit_{setxattrat,removexattrat}`: second and fourth are strings.
#[tracepoint]
pub fn change_at_names(ctx: TracePointContext) -> u32 {
    change(&ctx, off!(regs_arg1), off!(regs_arg3), NONE)
}

/// `sys_exit_symlinkat`: the target, a directory descriptor, and the name.
#[tracepoint]
pub fn change_symlinkat(ctx: TracePointContext) -> u32 {
    change(&ctx, off!(regs_arg0), off!(regs_arg2), NONE)
}

/// `sys_exit_{fchmod,fchown,ftruncate,fallocate}`: a descriptor.
#[tracepoint]
pub fn change_file(ctx: TracePointContext) -> u32 {
    change(&ctx, NONE, NONE, off!(regs_arg0))
}

/// `sys_exit_{fsetxattr,fremovexattr}`: a descriptor, and a string.
#[tracepoint]
pub fn change_file_named(ctx: TracePointContext) -> u32 {
    change(&ctx, NONE, off!(regs_arg1), off!(regs_arg0))
}

/// One change, its strings and its descriptor in these registers.
#[inline(always)]
fn change(ctx: &TracePointContext, first: u32, second: u32, file: u32) -> u32 {
    let task = current();
    let Some(scope_id) = wanted(task, family::FILE) else { return 0 };
    // SAFETY: the context's record is as its format says, and the registers are those of a call that has ended.
    let (nr, ret, regs) = unsafe {
        let record = ctx.as_ptr().cast::<u8>();
        let regs = bpf_task_pt_regs(task.cast_mut().cast()) as *const u8;
        (*record.add(NR_OFFSET).cast::<u32>(), *record.add(VALUE_OFFSET).cast::<i64>(), regs)
    };
    // SAFETY: a typed load.
    if nr == off!(nr_fallocate) && unsafe { member::<u64>(regs, off!(regs_arg1)) } & KEEP_SIZE != 0 {
        return 0;
    }
    let Some(seq) = number(class::FILE) else { return 0 };
    let about = About { kind: kind::CHANGE, class: class::FILE, scope_id };
    let Some(scratch) = Scratch::claim() else { return lost(u32::from(class::FILE), scope_id) as u32 };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message.
    unsafe {
        let event = message.cast::<Change>();
        fill(&raw mut (*event).header, about, seq, task);
        (*event).result = ret as i32;
        (*event).nr = nr;
        (*event).args[0] = member(regs, off!(regs_arg0));
        (*event).args[1] = member(regs, off!(regs_arg1));
        (*event).args[2] = member(regs, off!(regs_arg2));
        (*event).args[3] = member(regs, off!(regs_arg3));
        (*event).args[4] = member(regs, off!(regs_arg4));
        (*event).size = 0;
        (*event).owner = 0;
        (*event).group = 0;
        (*event).reserved = 0;
        let mut flags = 0;
        let mut end = size_of::<Change>();
        if file == NONE {
            flags |= change_flag::BY_NAME;
            nothing(&raw mut (*event).facts);
        } else {
            let number = member::<u64>(regs, file);
            let (path_len, found, inode) = facts(scratch, &raw mut (*event).facts, end, task, number as u32);
            flags |= found;
            if inode != 0 {
                (*event).size = value(inode.wrapping_add(u64::from(off!(inode_size))));
                (*event).owner = value(inode.wrapping_add(u64::from(off!(inode_uid))));
                (*event).group = value(inode.wrapping_add(u64::from(off!(inode_gid))));
            }
            end += path_len;
        }
        let mut asked_len = 0;
        if first != NONE {
            let (len, found) = string(message.add(end), member(regs, first));
            asked_len = len;
            flags |= found;
        }
        end += asked_len;
        (*event).asked_len = asked_len as u16;
        let mut second_len = 0;
        if second != NONE {
            let (len, found) = string(message.add(end), member(regs, second));
            second_len = len;
            flags |= change_flag::SECOND | found << SECOND_SHIFT;
        }
        end += second_len;
        (*event).second_len = second_len as u16;
        (*event).change_flags = flags;
        (*event).header.len = end as u32;
        submit(message, end as u64, class::FILE, scope_id, seq);
    }
    scratch.release();
    0
}

/// From the flags of the first string to those of the second.
const SECOND_SHIFT: u32 = 3;
const _: () = assert!(change_flag::ASKED_TRUNCATED << SECOND_SHIFT == change_flag::SECOND_TRUNCATED);
const _: () = assert!(change_flag::ASKED_UNREAD << SECOND_SHIFT == change_flag::SECOND_UNREAD);

/// Copies a string of the caller; its length and flags.
///
/// # Safety
/// `to` has room for the longest string and its terminator.
#[inline(always)]
unsafe fn string(to: *mut u8, from: u64) -> (usize, u16) {
    // SAFETY: the caller's memory; the helper checks the source.
    let copied = unsafe { bpf_probe_read_user_str(to.cast(), ASKED_BYTES_MAX as u32 + 1, from as *const _) };
    if copied <= 0 || copied > ASKED_BYTES_MAX as i64 + 1 {
        return (0, change_flag::ASKED_UNREAD);
    }
    let len = copied as usize - 1;
    (len, if len == ASKED_BYTES_MAX { change_flag::ASKED_TRUNCATED } else { 0 })
}

/// # Safety
/// `to` is writable.
#[inline(always)]
unsafe fn nothing(to: *mut Facts) {
    // SAFETY: the caller's memory.
    unsafe { *to = Facts { ino: 0, dev: 0, nlink: 0, mode: 0, path_flags: 0, path_len: 0, reserved: 0 } };
}

/// Fills in what is known of the file behind a descriptor and puts its path at byte `end` of the scratch: the path's
/// length, flags of `change_flag`, and the inode's address, 0 when there is no file.
///
/// # Safety
/// `to` lies in the scratch before `end`, and `task` is the acting one, whose header has been filled in.
#[inline(always)]
unsafe fn facts(scratch: Scratch, to: *mut Facts, end: usize, task: Typed, number: u32) -> (usize, u16, u64) {
    // SAFETY: typed loads; the piece is within the scratch, past everything that is written by now.
    unsafe {
        nothing(to);
        let files: Typed = member(task, off!(task_files));
        let shared = !files.is_null() && member::<u32>(files, off!(files_struct_count)) > 1;
        let racy = if shared { change_flag::RACY } else { 0 };
        let file = descriptor(files, u64::from(number));
        if file == 0 {
            return (0, racy | change_flag::UNRESOLVED, 0);
        }
        let piece = scratch.room.add(SCRATCH_BYTES - CHUNK_BYTES);
        read(piece, off!(file_span), file);
        let start = Start { mount: member(piece, off!(file_path_mnt)), dentry: member(piece, off!(file_path_dentry)) };
        let inode = member::<u64>(piece, off!(file_inode));
        read(piece, off!(inode_span), inode);
        (*to).ino = member(piece, off!(inode_ino));
        (*to).nlink = member(piece, off!(inode_nlink));
        (*to).mode = member(piece, off!(inode_mode));
        let block = member::<u64>(piece, off!(inode_sb));
        (*to).dev = value(block.wrapping_add(u64::from(off!(super_block_dev))));
        // A zero that the verifier does not know to be one (see `walk`).
        let zero = (&raw const (*to).reserved).read_volatile();
        let (path_len, path_flags) = walk(scratch, end, PATH_BYTES_MAX, start, mnt_ns(task), u32::from(zero));
        (*to).path_len = path_len as u16;
        (*to).path_flags = path_flags;
        (path_len, racy, inode)
    }
}

/// `sys_enter_close`: what is closed is still there.
#[tracepoint]
pub fn close(ctx: TracePointContext) -> u32 {
    let task = current();
    let Some(scope_id) = wanted(task, family::FILE) else { return 0 };
    // SAFETY: the context's record is as its format says; typed loads, and reads that check their address.
    let descriptor_number = unsafe {
        let number = *ctx.as_ptr().cast::<u8>().add(VALUE_OFFSET).cast::<u64>() as u32;
        let file = descriptor(member(task, off!(task_files)), u64::from(number));
        if file == 0 || value::<u32>(file.wrapping_add(u64::from(off!(file_mode)))) & FMODE_WRITE == 0 {
            return 0;
        }
        let references = value::<u64>(file.wrapping_add(u64::from(off!(file_references))));
        let inode = value::<u64>(file.wrapping_add(u64::from(off!(file_inode))));
        let mode = value::<u16>(inode.wrapping_add(u64::from(off!(inode_mode))));
        if references != u64::from(off!(file_one_reference)) || mode & S_IFMT != S_IFREG {
            return 0;
        }
        number
    };
    let Some(seq) = number(class::FILE) else { return 0 };
    let about = About { kind: kind::CLOSE, class: class::FILE, scope_id };
    let Some(scratch) = Scratch::claim() else { return lost(u32::from(class::FILE), scope_id) as u32 };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message.
    unsafe {
        let event = message.cast::<Close>();
        fill(&raw mut (*event).header, about, seq, task);
        let end = size_of::<Close>();
        let (path_len, flags, _) = facts(scratch, &raw mut (*event).facts, end, task, descriptor_number);
        (*event).change_flags = flags;
        (*event).reserved = [0; 3];
        (*event).header.len = (end + path_len) as u32;
        submit(message, (end + path_len) as u64, class::FILE, scope_id, seq);
    }
    scratch.release();
    0
}

/// `sys_exit_mmap`, at the `tracepoint` tier: the others have the kernel's own hook on a mapping.
#[tracepoint]
pub fn map_call(ctx: TracePointContext) -> u32 {
    let task = current();
    let Some(scope_id) = wanted(task, family::FILE) else { return 0 };
    // SAFETY: as in `change`.
    let (ret, prot, map_flags, fd) = unsafe {
        let regs = bpf_task_pt_regs(task.cast_mut().cast()) as *const u8;
        (
            *ctx.as_ptr().cast::<u8>().add(VALUE_OFFSET).cast::<i64>(),
            member::<u64>(regs, off!(regs_arg2)),
            member::<u64>(regs, off!(regs_arg3)),
            member::<u64>(regs, off!(regs_arg4)) as u32,
        )
    };
    let shared_write = map_flags & MAP_SHARED != 0 && prot & PROT_WRITE != 0;
    // Errors are the last 4,095 values, as addresses go.
    if map_flags & MAP_ANONYMOUS != 0 || (prot & PROT_EXEC == 0 && !shared_write) || (-4095..0).contains(&ret) {
        return 0;
    }
    let Some(seq) = number(class::FILE) else { return 0 };
    let about = About { kind: kind::MAP_CALL, class: class::FILE, scope_id };
    let Some(scratch) = Scratch::claim() else { return lost(u32::from(class::FILE), scope_id) as u32 };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message.
    unsafe {
        let event = message.cast::<MapCall>();
        fill(&raw mut (*event).header, about, seq, task);
        let end = size_of::<MapCall>();
        let (path_len, flags, _) = facts(scratch, &raw mut (*event).facts, end, task, fd);
        (*event).prot = prot as u32;
        (*event).map_flags = map_flags as u32;
        (*event).change_flags = flags;
        (*event).reserved = [0; 3];
        (*event).header.len = (end + path_len) as u32;
        submit(message, (end + path_len) as u64, class::FILE, scope_id, seq);
    }
    scratch.release();
    0
}
