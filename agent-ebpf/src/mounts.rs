//! Mounts and root directories: classic tracepoints on the exit of mount, umount2, move_mount, open_tree, fsmount,
//! mount_setattr, pivot_root and chroot (`CONFIG_FTRACE_SYSCALLS`).
//!
//! Emitted for the whole host but for the agent itself. Where a call leaves an object behind (a descriptor of a mount, a
//! new root), path and type of the file system come from that; mount(2) and umount2(2) leave none that could be told
//! from others, so their place is not known here. What the caller called it is kept as given.
//!
//! Not seen: 32-bit and x32 calls, fsconfig on a file system that is mounted already, unmounting by the end of a
//! namespace.

use crate::emit::{Scratch, lost, submit};
use crate::maps::off;
use crate::path::{Start, read, value, walk};
use crate::privilege::SysExit;
use crate::task::{Typed, fill, member, mnt_ns};
use agent_common::header::{class, kind};
use agent_common::limits::{PATH_BYTES_MAX, SOURCE_BYTES_MAX};
use agent_common::privilege::{Mount, act_flag, mount};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user_str};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;

/// `MS_REMOUNT`.
const MS_REMOUNT: u64 = 32;
/// `MS_BIND`.
const MS_BIND: u64 = 4096;
/// `MS_MOVE`.
const MS_MOVE: u64 = 8192;
/// `MS_UNBINDABLE`, `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`: how mounts propagate.
const MS_PROPAGATION: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20;
/// `MOVE_MOUNT_F_EMPTY_PATH`.
const FROM_EMPTY_PATH: u64 = 4;
/// `OPEN_TREE_CLONE`.
const OPEN_TREE_CLONE: u64 = 1;

/// No descriptor to take facts from.
const NO_FD: u64 = u64::MAX;

/// What mount(2) does, decided as `path_mount` (fs/namespace.c) does.
#[inline(always)]
fn of_flags(flags: u64) -> u32 {
    if flags & MS_REMOUNT != 0 {
        mount::REMOUNT
    } else if flags & MS_BIND != 0 {
        mount::BIND
    } else if flags & MS_PROPAGATION != 0 {
        mount::REMOUNT
    } else if flags & MS_MOVE != 0 {
        mount::MOVE
    } else {
        mount::MOUNT
    }
}

/// `syscalls:sys_exit_{mount,umount,move_mount,open_tree,fsmount,mount_setattr,pivot_root,chroot}`.
#[tracepoint]
pub fn mounts(ctx: TracePointContext) -> u32 {
    let Some(call) = SysExit::of_others(&ctx) else { return 0 };
    let arg = |register: u32| call.arg(register);
    let (first, second) = (arg(off!(regs_arg0)), arg(off!(regs_arg1)));
    // What was done, its flags, the caller's string, a descriptor whose mount is what it was done to or made.
    let (op, flags, source, fd) = if call.nr == off!(nr_mount) {
        let flags = arg(off!(regs_arg3));
        (of_flags(flags), flags, first, NO_FD)
    } else if call.nr == off!(nr_umount2) {
        (mount::UNMOUNT, second & 0xffff_ffff, first, NO_FD)
    } else if call.nr == off!(nr_move_mount) {
        let flags = arg(off!(regs_arg4)) & 0xffff_ffff;
        if flags & FROM_EMPTY_PATH != 0 { (mount::MOVE, flags, 0, first) } else { (mount::MOVE, flags, second, NO_FD) }
    } else if call.nr == off!(nr_open_tree) {
        let flags = arg(off!(regs_arg2)) & 0xffff_ffff;
        if flags & OPEN_TREE_CLONE == 0 {
            return 0;
        }
        (mount::BIND, flags, second, call.ret as u64)
    } else if call.nr == off!(nr_fsmount) {
        (mount::MOUNT, second & 0xffff_ffff, 0, call.ret as u64)
    } else if call.nr == off!(nr_mount_setattr) {
        (mount::REMOUNT, arg(off!(regs_arg2)) & 0xffff_ffff, second, NO_FD)
    } else if call.nr == off!(nr_pivot_root) {
        (mount::PIVOT_ROOT, 0, first, NO_FD)
    } else {
        (mount::CHROOT, 0, first, NO_FD)
    };
    let Some(begun) = call.begin(kind::MOUNT) else { return 0 };
    let scope_id = begun.about.scope_id;
    let Some(scratch) = Scratch::claim() else { return lost(u32::from(class::PRIVILEGE), scope_id) as u32 };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message; lengths are bounded below.
    unsafe {
        let event = message.cast::<Mount>();
        fill(&raw mut (*event).header, begun.about, begun.seq, call.task);
        (*event).flags = flags;
        (*event).result = call.ret as i32;
        (*event).op = op;
        (*event).reserved = 0;
        (*event).reserved_too = 0;
        (*event).fstype = [0; 16];
        let mut act_flags = act_flag::RESULT;
        let zero = (&raw const (*event).header.reserved).read_volatile();

        let mut start = Start { mount: 0, dentry: 0 };
        if call.ret >= 0 && fd != NO_FD {
            let (file, racy) = call.file(fd);
            act_flags |= racy;
            if file == 0 {
                act_flags |= act_flag::UNRESOLVED;
            } else {
                if op == mount::MOVE {
                    start.mount = value(file.wrapping_add(u64::from(off!(file_path_mnt))));
                    start.dentry = value(file.wrapping_add(u64::from(off!(file_path_dentry))));
                }
                let inode = value::<u64>(file.wrapping_add(u64::from(off!(file_inode))));
                let block = value::<u64>(inode.wrapping_add(u64::from(off!(inode_sb))));
                let sort = value::<u64>(block.wrapping_add(u64::from(off!(super_block_type))));
                let name = value::<u64>(sort.wrapping_add(u64::from(off!(file_system_name))));
                bpf_probe_read_kernel_str((&raw mut (*event).fstype).cast(), 16, name as *const _);
            }
        }
        if call.ret == 0 && (op == mount::CHROOT || op == mount::PIVOT_ROOT) {
            let fs = member::<u64>(call.task, off!(task_fs));
            let root = fs.wrapping_add(u64::from(off!(fs_struct_root)));
            start.mount = value(root);
            start.dentry = value(root.wrapping_add(8));
        }
        let mut end = size_of::<Mount>();
        let (mut path_len, mut path_flags) = (0, 0);
        if start.dentry != 0 {
            act_flags |= act_flag::KNOWN;
            (path_len, path_flags) = walk(scratch, end, PATH_BYTES_MAX, start, mnt_ns(call.task), zero);
            end += path_len;
        }
        (*event).path_len = path_len as u16;
        (*event).path_flags = path_flags;

        let mut source_len = 0;
        if source != 0 {
            let to = message.add(end).cast();
            let copied = bpf_probe_read_user_str(to, SOURCE_BYTES_MAX as u32 + 1, source as *const _);
            if copied <= 0 || copied > SOURCE_BYTES_MAX as i64 + 1 {
                act_flags |= act_flag::STRING_UNREAD;
            } else {
                source_len = copied as usize - 1;
                if source_len == SOURCE_BYTES_MAX {
                    act_flags |= act_flag::STRING_TRUNCATED;
                }
            }
        }
        end += source_len;
        (*event).source_len = source_len as u16;
        (*event).act_flags = act_flags;
        (*event).header.len = end as u32;
        submit(message, end as u64, class::PRIVILEGE, scope_id, begun.seq);
    }
    scratch.release();
    0
}

/// Writes the path of the file at an address into the scratch at byte `at`; gives its length and flags.
///
/// # Safety
/// `task` is typed; the scratch has room.
#[inline(always)]
pub unsafe fn path_of_file(scratch: Scratch, at: usize, file: u64, task: Typed, zero: u32) -> (usize, u16) {
    // SAFETY: the caller's; the helper checks the source.
    unsafe {
        let mut start = Start { mount: 0, dentry: 0 };
        read((&raw mut start.mount).cast(), 8, file.wrapping_add(u64::from(off!(file_path_mnt))));
        read((&raw mut start.dentry).cast(), 8, file.wrapping_add(u64::from(off!(file_path_dentry))));
        walk(scratch, at, PATH_BYTES_MAX, start, mnt_ns(task), zero)
    }
}
