//! The end of TCP connections, with their totals: `inet_sock_set_state` (kernel 5.12 as a BTF tracepoint with cookies).
//!
//! Who connected or accepted keeps an entry here; whoever ends the connection, in any context, finds it. Exactly one
//! side reports: the state change, or [`keep`] when the connection ended before its entry was there. The same hook
//! gives a socket its cookie when it begins to listen and when a connection arrives, so that [`crate::serve`] can name
//! it: nothing else has asked for one by then.
//!
//! Payload is counted by the kernel's own counters: what was sent, without retransmissions; what was received in order,
//! without the FIN.
//!
//! Not seen: connections made before capture began, or accepted through io_uring; totals of UDP and of other protocols.

use crate::connect::{ESTABLISHED, SYN_RECV, SYN_SENT, TCP, give_up};
use crate::emit::{Scratch, number, submit};
use crate::maps::{FLOWS, off};
use crate::path::may_read;
use crate::socket::{at, local_of};
use crate::task::{About, Typed, fill, member};
use agent_common::connect::{Endpoints, connect_flag};
use agent_common::header::{class, flag, kind};
use agent_common::socket::Flow;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_get_socket_cookie, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

/// `TCP_CLOSE`.
const CLOSE: u32 = 7;
/// `TCP_LISTEN`.
const LISTEN: u32 = 10;
/// `SOCK_DONE`: the other side's FIN came.
const DONE: u64 = 1 << 1;

/// Keeps who made a connection until it ends. `sock` is the kernel's `struct sock` as an address, or 0 when the
/// connection cannot have begun yet.
#[inline(always)]
pub fn keep(task: Typed, scope_id: u64, endpoints: &Endpoints, began_ns: u64, sock: u64) {
    // Where kernel memory is closed nobody finds it again: [`flow`] is left out.
    if !may_read() {
        return;
    }
    let cookie = endpoints.cookie;
    let Some(scratch) = Scratch::claim() else {
        give_up(scope_id);
        return;
    };
    let flow = scratch.room.cast::<Flow>();
    // SAFETY: the scratch is larger; every member is written.
    unsafe {
        fill(&raw mut (*flow).header, About { kind: kind::FLOW, class: class::NETWORK, scope_id }, 0, task);
        (*flow).header.len = size_of::<Flow>() as u32;
        (*flow).header.flags |= flag::DEFERRED;
        (*flow).endpoints = *endpoints;
        (*flow).endpoints.connect_flags &= connect_flag::FLOW;
        (*flow).endpoints.result = 0;
        (*flow).sent = 0;
        (*flow).received = 0;
        (*flow).began_ns = began_ns;
        let inserted = FLOWS.insert(&cookie, &*flow, 0).is_ok();
        scratch.release();
        if !inserted {
            give_up(scope_id);
            return;
        }
    }
    if sock == 0 {
        return;
    }
    // A change of state before the entry was there was seen by nobody: look now.
    let state = u32::from(at::<u8>(sock, off!(sock_state)));
    if state == CLOSE {
        end(cookie, sock);
    } else if state != SYN_SENT && endpoints.connect_flags & connect_flag::LOCAL_KNOWN == 0 {
        know_local(cookie, sock);
    }
}

/// Notes the local address of a connection that has one by now.
#[inline(always)]
fn know_local(cookie: u64, sock: u64) {
    if let Some(kept) = FLOWS.get_ptr_mut(&cookie) {
        // SAFETY: a live map value; who else writes this writes the same.
        unsafe { local_of(sock, &mut (*kept).endpoints) };
    }
}

/// Reports a connection that has ended, unless somebody else did: whoever removes the entry does. It is copied first,
/// because its place may be another's the moment it is removed; a copy that came too late is thrown away.
#[inline(always)]
fn end(cookie: u64, sock: u64) {
    let Some(kept) = FLOWS.get_ptr(&cookie) else { return };
    // SAFETY: a live map value.
    let scope_id = unsafe { (*kept).header.scope_id };
    let Some(scratch) = Scratch::claim() else {
        if FLOWS.remove(&cookie).is_ok() {
            give_up(scope_id);
        }
        return;
    };
    let flow = scratch.room.cast::<Flow>();
    // SAFETY: the scratch is larger; a live map value.
    unsafe {
        *flow = *kept;
        if FLOWS.remove(&cookie).is_ok()
            && let Some(seq) = number(class::NETWORK)
        {
            (*flow).header.seq = seq;
            (*flow).header.boot_ns = bpf_ktime_get_boot_ns();
            (*flow).header.cpu = bpf_get_smp_processor_id();
            let again = at::<u64>(sock, off!(tcp_bytes_retrans));
            let sent = at::<u64>(sock, off!(tcp_bytes_sent));
            (*flow).sent = sent.saturating_sub(again);
            let fin = u64::from(at::<u64>(sock, off!(sock_flags)) & DONE != 0);
            let received = at::<u64>(sock, off!(tcp_bytes_received));
            (*flow).received = received.saturating_sub(fin);
            submit(flow.cast(), size_of::<Flow>() as u64, class::NETWORK, scope_id, seq);
        }
    }
    scratch.release();
}

/// `inet_sock_set_state`: runs for every TCP socket of the host, in any context.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn flow(ctx: BtfTracePointContext) -> i32 {
    let sock: Typed = ctx.arg(0);
    let before: u32 = ctx.arg(1);
    let after: u32 = ctx.arg(2);
    // An arriving connection becomes a socket in SYN_RECV and is accepted, but for fast open, once it is ESTABLISHED.
    // Kernels up to 6.1 at least overwrite the cookie between the two, so it is asked for in both.
    let arrives = before == LISTEN && (after == SYN_RECV || after == ESTABLISHED);
    if after == LISTEN || arrives || (before == SYN_RECV && after == ESTABLISHED) {
        // SAFETY: the helper takes a typed socket.
        unsafe { bpf_get_socket_cookie(sock.cast_mut().cast()) };
        return 0;
    }
    let opened = before == SYN_SENT && after == ESTABLISHED;
    if after != CLOSE && !opened {
        return 0;
    }
    // SAFETY: typed loads; the cookie is 0 until someone asked for it, which was done for all that are kept.
    let (cookie, protocol) =
        unsafe { (member::<u64>(sock, off!(sock_cookie)), member::<u16>(sock, off!(sock_protocol))) };
    if cookie == 0 || protocol != TCP || FLOWS.get_ptr(&cookie).is_none() {
        return 0;
    }
    if opened {
        know_local(cookie, sock as u64);
    } else if before == SYN_SENT || before == CLOSE {
        // It was never established: its connect says so, and there are no totals.
        let _ = FLOWS.remove(&cookie);
    } else {
        end(cookie, sock as u64);
    }
    0
}
