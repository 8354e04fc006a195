//! connect(2) over IPv4 and IPv6: the cgroup hooks `connect4` and `connect6` give the kernel's copy of the address,
//! the exit of connect(2) gives the result, and `inet_sock_set_state` the answer to a connection that was not
//! waited for (kernel 5.12 for all; `CONFIG_CGROUP_BPF`, `CONFIG_FTRACE_SYSCALLS`).
//!
//! One event per call. A call that reaches the address hook by another way (io_uring) is reported at once, its result
//! not observed; one by sendto(2) and its like (TCP fast open) as data sent without a connection.
//!
//! Not seen: calls that fail before the address hook (bad descriptor, wrong address length), families other than IP
//! (see [`crate::local`]), a second connect(2) on a socket that is still connecting, 32-bit calls' results.

use crate::emit::{Scratch, fetch_add, lost, number, submit};
use crate::flow;
use crate::maps::{CALLS, PENDING, off};
use crate::path::{may_read, value};
use crate::scope::{of_cgroup, of_process, settings};
use crate::socket::{at, behind, local_of};
use crate::task::{About, Typed, cgroup_id, current, fill, member, tgid};
use agent_common::connect::{AF_INET, AF_INET6, Connect, Endpoints, connect_flag};
use agent_common::header::{class, flag, kind};
use agent_common::stats::{Call, Pending, family, pending_state};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_task_pt_regs,
};
use aya_ebpf::macros::{btf_tracepoint, cgroup_sock_addr, fexit, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, SockAddrContext, TracePointContext};

/// `IPPROTO_TCP`.
pub const TCP: u16 = 6;
/// `TCP_ESTABLISHED`.
pub const ESTABLISHED: u32 = 1;
/// `TCP_SYN_SENT`.
pub const SYN_SENT: u32 = 2;
/// `TCP_SYN_RECV`, as a connecting socket passes it when both sides connect at once.
pub const SYN_RECV: u32 = 3;
/// Reported when a connection ended without an error: the process closed the socket before the answer.
const ECANCELED: i32 = 125;
/// `ret` in the record of `syscalls:sys_exit_connect`.
const RET_OFFSET: usize = 16;

/// Results after which the connection goes on being made: the socket does not block (`EINPROGRESS`), or a signal
/// ended the wait (`EINTR`; `ERESTARTSYS` before the kernel turns it into a restart or `EINTR`).
#[inline(always)]
fn goes_on(result: i64) -> bool {
    result == -115 || result == -4 || result == -512
}

/// `cgroup/connect4`: always allows.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    begin(ctx.sock_addr, AF_INET);
    1
}

/// `cgroup/connect6`: always allows.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    begin(ctx.sock_addr, AF_INET6);
    1
}

/// Writes the remote address, from the kernel's copy of it.
///
/// # Safety
/// `ctx` is the program's context.
#[inline(always)]
pub unsafe fn remote_of(ctx: *mut bpf_sock_addr, address_family: u16, to: &mut [u8; 16]) {
    let to = (&raw mut *to).cast::<u32>();
    // SAFETY: context members in the widths that the verifier allows; room for four words.
    unsafe {
        if address_family == AF_INET {
            to.write_volatile((&raw const (*ctx).user_ip4).read_volatile());
        } else {
            let from = (&raw const (*ctx).user_ip6).cast::<u32>();
            to.write_volatile(from.read_volatile());
            to.add(1).write_volatile(from.add(1).read_volatile());
            to.add(2).write_volatile(from.add(2).read_volatile());
            to.add(3).write_volatile(from.add(3).read_volatile());
        }
    }
}

#[inline(always)]
fn begin(ctx: *mut bpf_sock_addr, address_family: u16) {
    let settings = settings();
    if settings.families & family::NETWORK == 0 {
        return;
    }
    let task = current();
    if settings.agent_tgid == tgid(task) {
        return;
    }
    let mut scope_id = 0;
    if off!(sock_addr_storage) != 0 {
        let (found, families) = of_process(task, true);
        if found == 0 || families & family::NETWORK == 0 {
            return;
        }
        scope_id = found;
    }
    // SAFETY: context members in the widths that the verifier allows; helpers take the context.
    unsafe {
        let now = bpf_ktime_get_boot_ns();
        let cookie = bpf_get_socket_cookie(ctx.cast());
        let mut call = Call {
            begun_ns: now,
            endpoints: Endpoints {
                cookie,
                remote: [0; 16],
                local: [0; 16],
                remote_port: u16::from_be((&raw const (*ctx).user_port).read_volatile() as u16),
                local_port: 0,
                family: address_family,
                protocol: (&raw const (*ctx).protocol).read_volatile() as u16,
                socket_type: (&raw const (*ctx).type_).read_volatile() as u16,
                connect_flags: 0,
                result: 0,
            },
        };
        remote_of(ctx, address_family, &mut call.endpoints.remote);
        let regs = bpf_task_pt_regs(task.cast_mut().cast()) as Typed;
        let nr = member::<u64>(regs, off!(regs_nr));
        let key = bpf_get_current_pid_tgid();
        if nr != u64::from(off!(nr_connect)) || CALLS.insert(&key, &call, 0).is_err() {
            // No exit of connect(2) will see this call, or it will not find it: say now what is known.
            if off!(sock_addr_storage) == 0 {
                // Without task storage here, only the cgroup can say; who left it is out of scope to this path.
                let (found, families) = of_cgroup(cgroup_id(task));
                if found == 0 || families & family::NETWORK == 0 {
                    return;
                }
                scope_id = found;
            }
            call.endpoints.connect_flags |= connect_flag::RESULT_UNOBSERVED;
            let sends = nr == u64::from(off!(nr_sendto))
                || nr == u64::from(off!(nr_sendmsg))
                || nr == u64::from(off!(nr_sendmmsg));
            report(if sends { kind::SEND } else { kind::CONNECT }, task, scope_id, &call.endpoints, 0);
            if call.endpoints.protocol == TCP {
                flow::keep(task, scope_id, &call.endpoints, now, 0);
            }
        }
    }
}

/// Numbers and sends an event of the acting task that has the layout of a `connect`.
#[inline(always)]
pub fn report(kind: u16, task: Typed, scope_id: u64, endpoints: &Endpoints, took_ns: u64) {
    let Some(seq) = number(class::NETWORK) else { return };
    let about = About { kind, class: class::NETWORK, scope_id };
    let mut event = core::mem::MaybeUninit::<Connect>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: every member is written.
    unsafe {
        fill(&raw mut (*event).header, about, seq, task);
        (*event).header.len = size_of::<Connect>() as u32;
        (*event).endpoints = *endpoints;
        (*event).took_ns = took_ns;
        submit(event.cast(), size_of::<Connect>() as u64, class::NETWORK, scope_id, seq);
    }
}

/// `syscalls:sys_exit_connect`.
#[tracepoint]
pub fn connect_exit(ctx: TracePointContext) -> u32 {
    // SAFETY: the record is as its format says.
    ended(unsafe { *ctx.as_ptr().cast::<u8>().add(RET_OFFSET).cast::<i64>() });
    0
}

/// `fexit/__x64_sys_connect`.
#[fexit(function = "__x64_sys_connect")]
pub fn connect_end(ctx: FExitContext) -> i32 {
    ended(ctx.arg::<i64>(1));
    0
}

/// A connect(2) has returned.
#[inline(always)]
fn ended(ret: i64) {
    // SAFETY: no arguments.
    let key = unsafe { bpf_get_current_pid_tgid() };
    let Some(kept) = CALLS.get_ptr(&key) else { return };
    // SAFETY: only this thread writes and removes its entry.
    let mut call = unsafe { *kept };
    let _ = CALLS.remove(&key);
    let task = current();
    let (scope_id, families) = of_process(task, true);
    if scope_id == 0 || families & family::NETWORK == 0 {
        return;
    }
    // SAFETY: no arguments.
    let took_ns = unsafe { bpf_ktime_get_boot_ns() }.wrapping_sub(call.begun_ns);
    call.endpoints.result = ret as i32;
    let awaited = call.endpoints.protocol == TCP && goes_on(ret);
    let mut sock = 0;
    if ret == 0 || awaited {
        // SAFETY: the registers of a system call in progress.
        let fd = unsafe { member::<u64>(bpf_task_pt_regs(task.cast_mut().cast()) as Typed, off!(regs_arg0)) };
        sock = socket(task, fd, call.endpoints.cookie);
        if sock != 0 && ret == 0 {
            local_of(sock, &mut call.endpoints);
        }
        if awaited {
            call.endpoints.connect_flags |=
                if sock == 0 { connect_flag::UNTRACKED } else { connect_flag::DONE_FOLLOWS };
        }
    }
    report(kind::CONNECT, task, scope_id, &call.endpoints, took_ns);
    if awaited && sock != 0 {
        await_answer(task, scope_id, &call, sock);
    }
    // Where kernel memory is closed no end is told, so none is given up either.
    if may_read() && call.endpoints.protocol == TCP && (ret == 0 || awaited) {
        if sock == 0 {
            // Connected, and the descriptor is another by now: the end of this connection will not be told.
            give_up(scope_id);
        } else {
            flow::keep(task, scope_id, &call.endpoints, call.begun_ns, sock);
        }
    }
}

/// The kernel's `struct sock` behind a descriptor, as an address, if it is the one with this cookie; else 0. The
/// cookie is what makes this safe against a descriptor replaced by another thread.
#[inline(always)]
fn socket(task: Typed, fd: u64, cookie: u64) -> u64 {
    if !may_read() {
        return 0;
    }
    let sock = behind(task, fd);
    if sock == 0 || at::<u64>(sock, off!(sock_cookie)) != cookie { 0 } else { sock }
}

/// Leaves the connection for [`sock_state`] to report, or reports it here when the answer came before that.
#[inline(always)]
fn await_answer(task: Typed, scope_id: u64, call: &Call, sock: u64) {
    let cookie = call.endpoints.cookie;
    let Some(scratch) = Scratch::claim() else {
        give_up(scope_id);
        return;
    };
    let pending = scratch.room.cast::<Pending>();
    // SAFETY: the scratch is larger; every member is written.
    unsafe {
        let about = About { kind: kind::CONNECT_DONE, class: class::NETWORK, scope_id };
        fill(&raw mut (*pending).header, about, 0, task);
        (*pending).state = pending_state::AWAITED;
        (*pending).answered_ns = 0;
        (*pending).local = [0; 16];
        (*pending).local_port = 0;
        (*pending).result = 0;
        (*pending).call = *call;
        let kept = PENDING.insert(&cookie, &*pending, 0).is_ok();
        scratch.release();
        if !kept {
            give_up(scope_id);
            return;
        }
    }
    // A state that changed before the entry was there was seen by nobody: look now. One that changes from here on
    // is seen by both, and the first to mark the entry reports.
    let state = value::<u8>(sock.wrapping_add(u64::from(off!(sock_state))));
    if u32::from(state) == SYN_SENT || u32::from(state) == SYN_RECV {
        return;
    }
    let error = value::<i32>(sock.wrapping_add(u64::from(off!(sock_err))));
    let mut local = *call;
    local_of(sock, &mut local.endpoints);
    answer(cookie, u32::from(state) == ESTABLISHED, error, &local.endpoints);
}

/// Something that was or will be owed cannot be delivered: it counts as an event that was lost.
#[inline(always)]
pub fn give_up(scope_id: u64) {
    if number(class::NETWORK).is_some() {
        lost(u32::from(class::NETWORK), scope_id);
    }
}

/// Sends the `connect_done` of a pending connection, unless the other side did. `local` holds the local address.
#[inline(always)]
fn answer(cookie: u64, established: bool, error: i32, local: &Endpoints) {
    let Some(pending) = PENDING.get_ptr_mut(&cookie) else { return };
    // SAFETY: a live map value, aligned to 8.
    if unsafe { fetch_add(&raw mut (*pending).state, pending_state::ANSWERED) } & pending_state::ANSWERED != 0 {
        return;
    }
    let Some(seq) = number(class::NETWORK) else { return };
    let mut event = core::mem::MaybeUninit::<Connect>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: the entry is ours by its mark until it is removed below; every member is written.
    unsafe {
        let now = bpf_ktime_get_boot_ns();
        (*event).header = (*pending).header;
        (*event).header.kind = kind::CONNECT_DONE;
        (*event).header.len = size_of::<Connect>() as u32;
        (*event).header.seq = seq;
        (*event).header.boot_ns = now;
        (*event).header.cpu = bpf_get_smp_processor_id();
        (*event).header.flags |= flag::DEFERRED;
        (*event).endpoints = (*pending).call.endpoints;
        (*event).endpoints.local = local.local;
        (*event).endpoints.local_port = local.local_port;
        (*event).endpoints.connect_flags = connect_flag::LOCAL_KNOWN;
        (*event).endpoints.result = if established {
            0
        } else if error == 0 {
            -ECANCELED
        } else {
            -error
        };
        (*event).took_ns = now.wrapping_sub((*pending).call.begun_ns);
        let scope_id = (*event).header.scope_id;
        let _ = PENDING.remove(&cookie);
        submit(event.cast(), size_of::<Connect>() as u64, class::NETWORK, scope_id, seq);
    }
}

/// `inet_sock_set_state`: runs for every TCP socket of the host, in any context; only those in `PENDING` go on.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn sock_state(ctx: BtfTracePointContext) -> i32 {
    let before: u32 = ctx.arg(1);
    let after: u32 = ctx.arg(2);
    if (before != SYN_SENT && before != SYN_RECV) || after == SYN_RECV {
        return 0;
    }
    let sock: Typed = ctx.arg(0);
    // SAFETY: typed load; 0 until someone asked for the cookie, which the address hook did for all that are awaited.
    let cookie = unsafe { member::<u64>(sock, off!(sock_cookie)) };
    if cookie == 0 || PENDING.get_ptr(&cookie).is_none() {
        return 0;
    }
    let mut ends = core::mem::MaybeUninit::<Endpoints>::zeroed();
    let ends = ends.as_mut_ptr();
    // SAFETY: typed loads; all zero is a valid value.
    unsafe {
        (*ends).family = member(sock, off!(sock_family));
        // Nothing is awaited where kernel memory is closed.
        if may_read() {
            local_of(sock as u64, &mut *ends);
        }
        answer(cookie, after == ESTABLISHED, member(sock, off!(sock_err)), &*ends);
    }
    0
}
