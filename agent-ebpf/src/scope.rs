//! Whether anyone wants the events of a task: sticky scope, looked up once per process and generation.

use crate::maps::{SCOPE, SETTINGS, TASKS};
use crate::task::{self, Typed};
use agent_common::stats::{Settings, TaskScope};
use aya_ebpf::helpers::generated::bpf_task_storage_get;
use core::ffi::c_void;

/// `BPF_LOCAL_STORAGE_GET_F_CREATE`.
const CREATE: u64 = 1;

/// The storage of a task, made if absent.
#[inline(always)]
pub fn stored(task: Typed, create: bool) -> Option<*mut TaskScope> {
    let map = (&raw const TASKS).cast_mut().cast::<c_void>();
    // SAFETY: a typed task; null is checked.
    let value = unsafe {
        bpf_task_storage_get(map, task.cast_mut().cast(), core::ptr::null_mut(), if create { CREATE } else { 0 })
    };
    (!value.is_null()).then_some(value.cast())
}

/// What user space has set.
#[inline(always)]
pub fn settings() -> Settings {
    match SETTINGS.get_ptr(0) {
        // SAFETY: the one value of the array; torn reads are harmless (looked up again).
        Some(settings) => unsafe { *settings },
        None => Settings { agent_tgid: 0, generation: 0, families: 0, reserved: 0 },
    }
}

/// The scope that a cgroup is in, and its families.
#[inline(always)]
pub fn of_cgroup(id: u64) -> (u64, u32) {
    // SAFETY: the value may change under us; each member is read once.
    match unsafe { SCOPE.get(&id) } {
        Some(scope) => (scope.scope_id, scope.families),
        None => (0, 0),
    }
}

/// The scope of a task whose events of this family are wanted: by its scope, and not the agent's own.
#[inline(always)]
pub fn wanted(task: Typed, family: u32) -> Option<u64> {
    let settings = settings();
    if settings.families & family == 0 {
        return None;
    }
    let (scope_id, families) = of_process(task, true);
    if scope_id == 0 || families & family == 0 || settings.agent_tgid == task::tgid(task) {
        return None;
    }
    Some(scope_id)
}

/// Writes a scope into a task's storage.
#[inline(always)]
pub fn keep(stored: *mut TaskScope, scope_id: u64, families: u32, generation: u32) {
    // SAFETY: a live storage value; concurrent threads write the same.
    unsafe {
        (*stored).scope_id = scope_id;
        (*stored).families = families;
        (*stored).generation = generation;
    }
}

/// The sticky scope of the process that `task` belongs to, with the families wanted.
///
/// Kept at the process's leader. A process already in scope stays in it wherever it moves, until user space removes
/// the scope; one out of scope is looked up again when the scopes changed (generation) or it moved (see `cgroup`).
/// `remember` also keeps that a process is out of scope: worth an allocation where it will ask often (opens), not in
/// events that happen once or twice in its life.
#[inline(always)]
pub fn of_process(task: Typed, remember: bool) -> (u64, u32) {
    let leader = task::leader(task);
    let generation = settings().generation;
    if let Some(kept) = stored(leader, false) {
        // SAFETY: a live storage value.
        let (scope_id, families, seen) = unsafe { ((*kept).scope_id, (*kept).families, (*kept).generation) };
        if seen == generation {
            return (scope_id, families);
        }
        if scope_id != 0 {
            let (still, now) = of_cgroup(scope_id);
            if still == scope_id {
                keep(kept, scope_id, now, generation);
                return (scope_id, now);
            }
        }
        let (scope_id, families) = of_cgroup(task::cgroup_id(task));
        keep(kept, scope_id, families, generation);
        return (scope_id, families);
    }
    let (scope_id, families) = of_cgroup(task::cgroup_id(task));
    if (scope_id != 0 || remember)
        && let Some(kept) = stored(leader, true)
    {
        keep(kept, scope_id, families, generation);
    }
    (scope_id, families)
}
