//! File opens: classic tracepoints on the exit of open, openat, openat2 and creat (`CONFIG_FTRACE_SYSCALLS`).
//!
//! On success the returned descriptor is resolved through the task's table to the kernel's `struct file`, whose path
//! and inode are facts. Where the table is shared another thread could have replaced the descriptor between the
//! call's end and this hook: the event is then `racy` and keeps the caller's string too. On failure the caller's
//! string is all there is.
//!
//! Not seen: opens by io_uring, `open_by_handle_at`, 32-bit and x32 calls, descriptors inherited or received, files
//! that the kernel itself opens (exec), `memfd_create`, sockets and pipes.

use crate::emit::{Scratch, lost, number, submit};
use crate::maps::off;
use crate::path::{Start, read, value, walk};
use crate::scope::{of_process, settings};
use crate::task::{About, Typed, current, fill, member, tgid};
use agent_common::file::{Open, open_flag};
use agent_common::header::{class, kind};
use agent_common::limits::{ASKED_BYTES_MAX, CHUNK_BYTES, PATH_BYTES_MAX, SCRATCH_BYTES};
use agent_common::stats::family;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str, bpf_task_pt_regs};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;

/// `__syscall_nr` in the record of every `syscalls:sys_exit_*` (its `format` file).
const NR_OFFSET: usize = 8;
/// `ret`, likewise.
const RET_OFFSET: usize = 16;

/// `syscalls:sys_exit_{open,openat,openat2,creat}`.
#[tracepoint]
pub fn open(ctx: TracePointContext) -> u32 {
    let settings = settings();
    if settings.families & family::FILE == 0 {
        return 0;
    }
    let task = current();
    let (scope_id, families) = of_process(task, true);
    if scope_id == 0 || families & family::FILE == 0 || settings.agent_tgid == tgid(task) {
        return 0;
    }
    let Some(seq) = number(class::FILE) else { return 0 };
    let about = About { kind: kind::OPEN, class: class::FILE, scope_id };
    let Some(scratch) = Scratch::claim() else { return lost(u32::from(class::FILE), scope_id) as u32 };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message; the context's record is as its format says.
    unsafe {
        let record = ctx.as_ptr().cast::<u8>();
        let nr = *record.add(NR_OFFSET).cast::<u32>();
        let ret = *record.add(RET_OFFSET).cast::<i64>();
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
            if file == 0 {
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
                let proxy: Typed = member(task, off!(task_nsproxy));
                let mnt_ns = if proxy.is_null() { 0 } else { member::<u64>(proxy, off!(nsproxy_mnt_ns)) };
                (path_len, path_flags) = walk(scratch, end, PATH_BYTES_MAX, start, mnt_ns, zero);
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
            bpf_probe_read_user((&raw mut flags).cast(), 8, how as *const _);
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
        if ret < 0 || shared {
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
    0
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
    if files.is_null() {
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
