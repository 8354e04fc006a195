//! cgroup v2 life: BTF tracepoints `cgroup_mkdir`, `cgroup_rmdir`, `cgroup_attach_task` (kernel 4.20; BTF 5.5).
//!
//! Emitted for the whole host. These hooks also keep `SCOPE` and the sticky scope of processes: a cgroup made inside
//! a scope is in it before anything can run there. Not seen: moves by `CLONE_INTO_CGROUP` (the fork event shows the
//! child's cgroup), and cgroup v1 hierarchies.

use crate::emit::{Scratch, lost, note, number, submit};
use crate::maps::{SCOPE, off};
use crate::path::may_read;
use crate::scope::{keep, of_cgroup, of_process, settings, stored};
use crate::task::{About, Typed, current, fill, leader, member, start_ns, tgid, tid};
use agent_common::cgroup::{CgroupLife, CgroupMove, cgroup_flag};
use agent_common::header::{class, kind};
use agent_common::limits::CGROUP_PATH_BYTES_MAX;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

/// Whether the cgroup is in the v2 hierarchy, the only one that counts: its root has hierarchy id 0.
#[inline(always)]
fn is_v2(cgroup: Typed) -> bool {
    // SAFETY: typed loads.
    unsafe {
        let root: Typed = member(cgroup, off!(cgroup_root));
        !root.is_null() && member::<u32>(root, off!(cgroup_root_hierarchy_id)) == 0
    }
}

/// Id of the cgroup and of its parent, 0 for none.
#[inline(always)]
fn ids(cgroup: Typed) -> (u64, u64) {
    // SAFETY: typed loads.
    unsafe {
        let node: Typed = member(cgroup, off!(cgroup_kn));
        if node.is_null() {
            return (0, 0);
        }
        let above: Typed = member(node, off!(kernfs_node_parent));
        let parent = if above.is_null() { 0 } else { member(above, off!(kernfs_node_id)) };
        (member(node, off!(kernfs_node_id)), parent)
    }
}

/// Copies the tracepoint's path behind the fixed part; gives its length and flags.
///
/// # Safety
/// `to` has room for `CGROUP_PATH_BYTES_MAX + 1` bytes.
#[inline(always)]
unsafe fn copy_path(to: *mut u8, path: u64) -> (u16, u16) {
    if !may_read() {
        return (0, cgroup_flag::PATH_TRUNCATED);
    }
    // SAFETY: the caller's memory; the helper checks the source.
    let copied = unsafe { bpf_probe_read_kernel_str(to.cast(), CGROUP_PATH_BYTES_MAX as u32 + 1, path as *const _) };
    if copied <= 0 || copied > CGROUP_PATH_BYTES_MAX as i64 + 1 {
        return (0, cgroup_flag::PATH_TRUNCATED);
    }
    let full = copied == CGROUP_PATH_BYTES_MAX as i64 + 1;
    ((copied - 1) as u16, if full { cgroup_flag::PATH_TRUNCATED } else { 0 })
}

#[inline(always)]
fn life(kind: u16, cgroup: Typed, path: u64, id: u64, parent_id: u64, scope_id: u64) -> i32 {
    let task = current();
    let (actor_scope, _) = of_process(task, false);
    let Some(seq) = number(class::CGROUP) else { return 0 };
    let about = About { kind, class: class::CGROUP, scope_id: actor_scope };
    let Some(scratch) = Scratch::claim() else { return lost(u32::from(class::CGROUP), actor_scope) };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message.
    unsafe {
        let event = message.cast::<CgroupLife>();
        fill(&raw mut (*event).header, about, seq, task);
        (*event).id = id;
        (*event).parent_id = parent_id;
        (*event).scope_id = scope_id;
        (*event).level = member(cgroup, off!(cgroup_level));
        let (path_len, flags) = copy_path(message.add(size_of::<CgroupLife>()), path);
        (*event).path_len = path_len;
        (*event).cgroup_flags = flags;
        let len = size_of::<CgroupLife>() as u64 + u64::from(path_len);
        (*event).header.len = len as u32;
        submit(message, len, class::CGROUP, actor_scope, seq);
    }
    scratch.release();
    0
}

/// `cgroup_mkdir`: runs before the directory can be used.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup: Typed = ctx.arg(0);
    if !is_v2(cgroup) {
        return 0;
    }
    let path: u64 = ctx.arg(1);
    let (id, parent_id) = ids(cgroup);
    let mut scope_id = 0;
    // SAFETY: the value may change under us; a copy is taken.
    if let Some(scope) = unsafe { SCOPE.get(&parent_id) } {
        let scope = *scope;
        scope_id = scope.scope_id;
        if SCOPE.insert(&id, &scope, 0).is_err() {
            // Full: what happens in the new cgroup is found out of scope unless its processes were in scope before.
            note!("SCOPE is full: cgroup {} is left out", id);
            scope_id = 0;
        }
    }
    life(kind::CGROUP_CREATE, cgroup, path, id, parent_id, scope_id)
}

/// `cgroup_rmdir`: the cgroup is empty and about to go.
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup: Typed = ctx.arg(0);
    if !is_v2(cgroup) {
        return 0;
    }
    let path: u64 = ctx.arg(1);
    let (id, parent_id) = ids(cgroup);
    let (scope_id, _) = of_cgroup(id);
    // The root of a scope stays until user space ends the scope: processes that left may still belong to it.
    if scope_id != 0 && scope_id != id {
        let _ = SCOPE.remove(&id);
    }
    life(kind::CGROUP_REMOVE, cgroup, path, id, parent_id, scope_id)
}

/// `cgroup_attach_task`: the task (with all threads, for a process) is in its new cgroup.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attach(ctx: BtfTracePointContext) -> i32 {
    let cgroup: Typed = ctx.arg(0);
    if !is_v2(cgroup) {
        return 0;
    }
    let path: u64 = ctx.arg(1);
    let moved: Typed = ctx.arg(2);
    let whole: u64 = ctx.arg(3);
    let (to_id, _) = ids(cgroup);
    let task = current();
    let settings = settings();
    let head = leader(moved);

    // In scope once, in scope until the scope ends, unless the agent itself places the process.
    let (to_scope, families) = of_cgroup(to_id);
    let mut before = 0;
    let mut after = to_scope;
    if let Some(kept) = stored(head, to_scope != 0) {
        // SAFETY: a live storage value.
        unsafe {
            before = (*kept).scope_id;
            if before != 0 && tgid(task) != settings.agent_tgid && of_cgroup(before).0 == before {
                after = before;
            } else {
                keep(kept, to_scope, families, settings.generation);
            }
        }
    }
    let (actor_scope, _) = of_process(task, false);
    let Some(seq) = number(class::CGROUP) else { return 0 };
    let about = About { kind: kind::CGROUP_MOVE, class: class::CGROUP, scope_id: actor_scope };
    let Some(scratch) = Scratch::claim() else { return lost(u32::from(class::CGROUP), actor_scope) };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message.
    unsafe {
        let event = message.cast::<CgroupMove>();
        fill(&raw mut (*event).header, about, seq, task);
        (*event).to_id = to_id;
        (*event).moved_start_ns = start_ns(head);
        (*event).scope_before = before;
        (*event).scope_after = after;
        (*event).moved_tgid = tgid(moved);
        (*event).moved_tid = tid(moved);
        let (path_len, flags) = copy_path(message.add(size_of::<CgroupMove>()), path);
        (*event).path_len = path_len;
        (*event).cgroup_flags = if whole & 1 != 0 { flags | cgroup_flag::WHOLE_PROCESS } else { flags };
        (*event).reserved = 0;
        let len = size_of::<CgroupMove>() as u64 + u64::from(path_len);
        (*event).header.len = len as u32;
        submit(message, len, class::CGROUP, actor_scope, seq);
    }
    scratch.release();
    0
}
