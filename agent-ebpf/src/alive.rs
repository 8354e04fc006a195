//! Back-fill: the processes alive now, from the kernel's task iterator (`bpf_iter/task`, kernel 5.8).
//!
//! Runs in whoever reads the pinned iterator, for each task. It also looks every process's scope up, so that those
//! alive before the scope was set have theirs before their next act. Not numbered: nothing happened.

use crate::emit::Scratch;
use crate::maps::off;
use crate::path::{Start, may_read, value, walk};
use crate::scope::of_process;
use crate::task::{About, Typed, cgroup_id, fill, is_kernel_thread, member, mnt_ns, tgid, tid};
use agent_common::limits::PATH_BYTES_MAX;
use agent_common::stats::Alive;
use aya_ebpf::helpers::generated::bpf_seq_write;

/// `struct bpf_iter__task` (`kernel/bpf/task_iter.c`).
#[repr(C)]
pub struct IterTask {
    meta: *const IterMeta,
    task: Typed,
}

/// `struct bpf_iter_meta`, as far as needed.
#[repr(C)]
pub struct IterMeta {
    seq: *mut u8,
}

/// `iter/task`. Where kernel memory is closed it says nothing of the binary: no task holds that for the iterator, so
/// `bpf_d_path` could meet a file that is gone.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn alive(ctx: *const IterTask) -> i32 {
    // SAFETY: the verifier knows the context's members; the task is null once, at the end.
    let (meta, task) = unsafe { ((*ctx).meta, (*ctx).task) };
    if task.is_null() || tid(task) != tgid(task) || is_kernel_thread(task) {
        return 0;
    }
    let cgroup = cgroup_id(task);
    let (scope_id, _) = of_process(task, false);
    let Some(scratch) = Scratch::claim() else { return 0 };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message; typed loads.
    unsafe {
        let event = message.cast::<Alive>();
        fill(&raw mut (*event).header, About { kind: 0, class: 0, scope_id }, 0, task);
        (*event).header.cgroup_id = cgroup;
        (*event).ino = 0;
        (*event).dev = 0;
        (*event).nlink = 0;
        (*event).path_flags = 0;
        (*event).reserved = 0;
        let zero = (&raw const (*event).header.reserved).read_volatile();
        let mut end = size_of::<Alive>();
        let mut file = 0;
        let mm: Typed = member(task, off!(task_mm));
        if may_read() && !mm.is_null() {
            file = value::<u64>((mm as u64).wrapping_add(u64::from(off!(mm_exe_file))));
        }
        if file != 0 {
            let inode = value::<u64>(file.wrapping_add(u64::from(off!(file_inode))));
            (*event).ino = value(inode.wrapping_add(u64::from(off!(inode_ino))));
            (*event).nlink = value(inode.wrapping_add(u64::from(off!(inode_nlink))));
            let block = value::<u64>(inode.wrapping_add(u64::from(off!(inode_sb))));
            (*event).dev = value(block.wrapping_add(u64::from(off!(super_block_dev))));
            let start = Start {
                mount: value(file.wrapping_add(u64::from(off!(file_path_mnt)))),
                dentry: value(file.wrapping_add(u64::from(off!(file_path_dentry)))),
            };
            let (path_len, path_flags) = walk(scratch, end, PATH_BYTES_MAX, start, mnt_ns(task), zero);
            (*event).path_flags = path_flags.into();
            end += path_len;
        }
        (*event).header.len = end as u32;
        bpf_seq_write((*meta).seq.cast(), message.cast(), end as u32);
    }
    scratch.release();
    0
}
