//! The acting task: typed pointers into `task_struct`, and the common header.

use crate::maps::off;
use agent_common::WIRE_VERSION;
use agent_common::header::{Header, flag};
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_task_btf, bpf_get_smp_processor_id, bpf_ktime_get_boot_ns,
};

/// `PF_IO_WORKER`: a kernel thread that belongs to a process and carries out its io_uring requests.
const PF_IO_WORKER: u32 = 0x10;
/// `PF_KTHREAD`.
const PF_KTHREAD: u32 = 0x0020_0000;

/// A kernel object that the verifier knows the type of.
pub type Typed = *const u8;

/// The member at `offset` of a typed object, as a typed load. Volatile, so that it keeps its width and its place.
///
/// # Safety
/// `object` is typed and `offset` a frozen constant, so the verifier checks the access; a freed object reads as zero.
#[inline(always)]
pub unsafe fn member<T: Copy>(object: Typed, offset: u32) -> T {
    // SAFETY: as above.
    unsafe { object.add(offset as usize).cast::<T>().read_volatile() }
}

/// The acting task.
#[inline(always)]
pub fn current() -> Typed {
    // SAFETY: always valid in the contexts where these programs run.
    unsafe { bpf_get_current_task_btf().cast_const().cast() }
}

/// The thread group leader, which stands for the process.
#[inline(always)]
pub fn leader(task: Typed) -> Typed {
    // SAFETY: never null for a live task.
    unsafe { member(task, off!(task_group_leader)) }
}

/// Process id in the initial namespace.
#[inline(always)]
pub fn tgid(task: Typed) -> u32 {
    // SAFETY: typed.
    unsafe { member(task, off!(task_tgid)) }
}

/// Thread id in the initial namespace.
#[inline(always)]
pub fn tid(task: Typed) -> u32 {
    // SAFETY: typed.
    unsafe { member(task, off!(task_pid)) }
}

/// When this task (thread) started, nanoseconds since boot.
#[inline(always)]
pub fn start_ns(task: Typed) -> u64 {
    // SAFETY: typed.
    unsafe { member(task, off!(task_start_boottime)) }
}

/// Whether this is a kernel thread that serves no process.
#[inline(always)]
pub fn is_kernel_thread(task: Typed) -> bool {
    // SAFETY: typed.
    unsafe { member::<u32>(task, off!(task_flags)) & PF_KTHREAD != 0 }
}

/// cgroup v2 id of any task.
#[inline(always)]
pub fn cgroup_id(task: Typed) -> u64 {
    // SAFETY: typed; each step is checked, because newer verifiers call these nullable.
    unsafe {
        let set: Typed = member(task, off!(task_cgroups));
        if set.is_null() {
            return 0;
        }
        let cgroup: Typed = member(set, off!(css_set_dfl_cgrp));
        if cgroup.is_null() {
            return 0;
        }
        let node: Typed = member(cgroup, off!(cgroup_kn));
        if node.is_null() {
            return 0;
        }
        member(node, off!(kernfs_node_id))
    }
}

/// The mount namespace of a task, 0 when it has none.
#[inline(always)]
pub fn mnt_ns(task: Typed) -> u64 {
    // SAFETY: typed loads.
    unsafe {
        let proxy: Typed = member(task, off!(task_nsproxy));
        if proxy.is_null() { 0 } else { member(proxy, off!(nsproxy_mnt_ns)) }
    }
}

/// What an event is, before it has a number.
#[derive(Clone, Copy)]
pub struct About {
    /// One of `kind`.
    pub kind: u16,
    /// One of `class`.
    pub class: u8,
    /// Scope id, 0 for none.
    pub scope_id: u64,
}

/// Fills the whole header for the acting task. `len` is completed when the message is.
///
/// # Safety
/// `header` points to writable memory of at least the header's size.
#[inline(always)]
pub unsafe fn fill(header: *mut Header, about: About, seq: u64, task: Typed) {
    // SAFETY: the caller's memory; typed loads.
    unsafe {
        let leader = leader(task);
        let parent: Typed = member(leader, off!(task_real_parent));
        (*header).kind = about.kind;
        (*header).class = about.class;
        (*header).version = WIRE_VERSION;
        (*header).len = size_of::<Header>() as u32;
        (*header).seq = seq;
        (*header).boot_ns = bpf_ktime_get_boot_ns();
        (*header).cgroup_id = bpf_get_current_cgroup_id();
        (*header).scope_id = about.scope_id;
        (*header).start_ns = start_ns(leader);
        (*header).cpu = bpf_get_smp_processor_id();
        (*header).tgid = tgid(task);
        (*header).tid = tid(task);
        if parent.is_null() {
            (*header).parent_tgid = 0;
            (*header).parent_start_ns = 0;
        } else {
            (*header).parent_tgid = tgid(parent);
            let parent_leader = self::leader(parent);
            (*header).parent_start_ns = if parent_leader.is_null() { 0 } else { start_ns(parent_leader) };
        }
        let cred: Typed = member(task, off!(task_cred));
        if cred.is_null() {
            (*header).uid = u32::MAX;
            (*header).gid = u32::MAX;
            (*header).euid = u32::MAX;
            (*header).egid = u32::MAX;
        } else {
            (*header).uid = member(cred, off!(cred_uid));
            (*header).gid = member(cred, off!(cred_gid));
            (*header).euid = member(cred, off!(cred_euid));
            (*header).egid = member(cred, off!(cred_egid));
        }
        let worker = member::<u32>(task, off!(task_flags)) & PF_IO_WORKER != 0;
        (*header).flags = if worker { flag::IO_WORKER } else { 0 };
        (*header).reserved = 0;
        let comm = (&raw mut (*header).comm).cast::<u64>();
        let name = task.add(off!(task_comm) as usize).cast::<u64>();
        *comm = *name;
        *comm.add(1) = *name.add(1);
    }
}
