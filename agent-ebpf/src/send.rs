//! Datagrams sent to an address without connect(2): cgroup hooks `sendmsg4` and `sendmsg6` (kernel 4.18;
//! `CONFIG_CGROUP_BPF`), with the kernel's copy of the address. Whatever system call or io_uring request it came by.
//!
//! Reported once for each process, socket and remote address, and once more, marked, when there is a second datagram;
//! after that they are only counted. The count is forgotten when others need the room, and then begins again: a flood of
//! addresses makes more events, never fewer.
//!
//! Not seen: results (the hook runs before the datagram is sent), raw and ping sockets, datagrams on connected sockets
//! without an address of their own.

use crate::connect::{remote_of, report};
use crate::emit::fetch_add;
use crate::maps::{SENDS, off};
use crate::scope::{of_cgroup, of_process, settings};
use crate::task::{cgroup_id, current, tgid};
use agent_common::connect::{AF_INET, AF_INET6, Endpoints, connect_flag};
use agent_common::header::kind;
use agent_common::stats::{SendKey, family};
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

/// `cgroup/sendmsg4`: always allows.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    datagram(ctx.sock_addr, AF_INET);
    1
}

/// `cgroup/sendmsg6`: always allows.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    datagram(ctx.sock_addr, AF_INET6);
    1
}

#[inline(always)]
fn datagram(ctx: *mut bpf_sock_addr, address_family: u16) {
    let settings = settings();
    if settings.families & family::NETWORK == 0 {
        return;
    }
    let task = current();
    let process = tgid(task);
    if settings.agent_tgid == process {
        return;
    }
    // Without task storage here, only the cgroup can say; who left it is out of scope to this hook.
    let (scope_id, families) =
        if off!(sock_addr_storage) != 0 { of_process(task, true) } else { of_cgroup(cgroup_id(task)) };
    if scope_id == 0 || families & family::NETWORK == 0 {
        return;
    }
    // SAFETY: context members in the widths that the verifier allows; helpers take the context.
    unsafe {
        let mut key = SendKey {
            cookie: bpf_get_socket_cookie(ctx.cast()),
            remote: [0; 16],
            remote_port: u16::from_be((&raw const (*ctx).user_port).read_volatile() as u16),
            family: address_family,
            tgid: process,
        };
        remote_of(ctx, address_family, &mut key.remote);
        let Some(again) = counted(&key) else { return };
        let mut endpoints = Endpoints {
            cookie: key.cookie,
            remote: key.remote,
            local: [0; 16],
            remote_port: key.remote_port,
            local_port: 0,
            family: address_family,
            protocol: (&raw const (*ctx).protocol).read_volatile() as u16,
            socket_type: (&raw const (*ctx).type_).read_volatile() as u16,
            connect_flags: connect_flag::RESULT_UNOBSERVED | again,
            result: 0,
        };
        local_of(ctx, &mut endpoints);
        report(kind::SEND, task, scope_id, &endpoints, 0);
    }
}

/// Counts one datagram; gives the flags of the event to make, or none when only the count was wanted.
#[inline(always)]
fn counted(key: &SendKey) -> Option<u16> {
    if SENDS.get_ptr_mut(key).is_none() && SENDS.insert(key, &0, NOEXIST).is_err() && SENDS.get_ptr_mut(key).is_none() {
        // No room even by forgetting others: each datagram is reported.
        return Some(0);
    }
    let Some(count) = SENDS.get_ptr_mut(key) else { return Some(0) };
    // SAFETY: a live map value, aligned to 8.
    match unsafe { fetch_add(count, 1) } {
        0 => Some(0),
        1 => Some(connect_flag::FIRST_OF_MANY),
        _ => None,
    }
}

/// The address that the socket is bound to, and its port.
///
/// # Safety
/// `ctx` is the program's context.
#[inline(always)]
unsafe fn local_of(ctx: *mut bpf_sock_addr, endpoints: &mut Endpoints) {
    // SAFETY: context members in the widths that the verifier allows.
    unsafe {
        let sock = (&raw const (*ctx).__bindgen_anon_1.sk).read_volatile();
        if sock.is_null() {
            return;
        }
        endpoints.local_port = (&raw const (*sock).src_port).read_volatile() as u16;
        let to = (&raw mut endpoints.local).cast::<u32>();
        if endpoints.family == AF_INET {
            to.write_volatile((&raw const (*sock).src_ip4).read_volatile());
        } else {
            let from = (&raw const (*sock).src_ip6).cast::<u32>();
            to.write_volatile(from.read_volatile());
            to.add(1).write_volatile(from.add(1).read_volatile());
            to.add(2).write_volatile(from.add(2).read_volatile());
            to.add(3).write_volatile(from.add(3).read_volatile());
        }
        endpoints.connect_flags |= connect_flag::LOCAL_KNOWN;
    }
}
