//! listen(2) and accept(2) over IPv4 and IPv6: the exits of listen, accept and accept4 (`CONFIG_FTRACE_SYSCALLS`), with
//! what the kernel's `struct sock` behind the descriptor says. Where the descriptor table is shared another thread could
//! have replaced the descriptor between the call's end and this hook: the event is then `racy`.
//!
//! Not seen: listening and accepting by io_uring and 32-bit calls, on sockets of other families, and accept calls that
//! failed.

use crate::connect::{TCP, give_up, report};
use crate::flow;
use crate::maps::off;
use crate::scope::wanted;
use crate::socket::{at, behind, endpoints_of, is_shared, local_of, remote_of};
use crate::task::{Typed, current, member};
use agent_common::connect::{AF_INET, AF_INET6, connect_flag};
use agent_common::header::kind;
use agent_common::stats::family;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_task_pt_regs};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;

/// `ret` in the record of every `syscalls:sys_exit_*`.
const RET_OFFSET: usize = 16;

/// What a system call that returns now gave back.
#[inline(always)]
pub fn returned(ctx: &TracePointContext) -> i64 {
    // SAFETY: the record is as its format says.
    unsafe { *ctx.as_ptr().cast::<u8>().add(RET_OFFSET).cast::<i64>() }
}

/// An argument of the system call that returns now: the register at `offset`.
#[inline(always)]
pub fn argument(task: Typed, offset: u32) -> u64 {
    // SAFETY: the registers of a system call in progress.
    unsafe { member(bpf_task_pt_regs(task.cast_mut().cast()) as Typed, offset) }
}

/// `syscalls:sys_exit_listen`.
#[tracepoint]
pub fn listen_exit(ctx: TracePointContext) -> u32 {
    let task = current();
    let Some(scope_id) = wanted(task, family::NETWORK) else { return 0 };
    let sock = behind(task, argument(task, off!(regs_arg0)));
    if sock == 0 {
        return 0;
    }
    let address_family: u16 = at(sock, off!(sock_family));
    if address_family != AF_INET && address_family != AF_INET6 {
        return 0;
    }
    let mut endpoints = endpoints_of(sock, address_family);
    local_of(sock, &mut endpoints);
    endpoints.result = returned(&ctx) as i32;
    if is_shared(task) {
        endpoints.connect_flags |= connect_flag::RACY;
    }
    report(kind::LISTEN, task, scope_id, &endpoints, 0);
    0
}

/// `syscalls:sys_exit_{accept,accept4}`.
#[tracepoint]
pub fn accept_exit(ctx: TracePointContext) -> u32 {
    let fd = returned(&ctx);
    if fd < 0 {
        return 0;
    }
    let task = current();
    let Some(scope_id) = wanted(task, family::NETWORK) else { return 0 };
    let sock = behind(task, fd as u64);
    if sock == 0 {
        // Accepted, and the descriptor is another by now.
        give_up(scope_id);
        return 0;
    }
    let address_family: u16 = at(sock, off!(sock_family));
    if address_family != AF_INET && address_family != AF_INET6 {
        return 0;
    }
    let mut endpoints = endpoints_of(sock, address_family);
    local_of(sock, &mut endpoints);
    remote_of(sock, &mut endpoints);
    if is_shared(task) {
        endpoints.connect_flags |= connect_flag::RACY;
    }
    report(kind::ACCEPT, task, scope_id, &endpoints, 0);
    if endpoints.protocol == TCP && endpoints.cookie != 0 {
        // SAFETY: no arguments.
        let now = unsafe { bpf_ktime_get_boot_ns() };
        flow::keep(task, scope_id, &endpoints, now, sock);
    }
    0
}
