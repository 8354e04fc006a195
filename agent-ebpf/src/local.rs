//! Sockets that no address hook of this tier sees: connect(2) on AF_UNIX and AF_VSOCK sockets, at its exit, from the
//! kernel's own objects; and the creation of sockets of an unusual sort (`CONFIG_FTRACE_SYSCALLS`).
//!
//! Whom an AF_UNIX connection leads to is what the kernel connected it to: the path or abstract name that the listening
//! socket is bound to, and the process that had called listen(2). A call that failed leaves no trace of what it was for.
//! Where the descriptor table is shared another thread could have replaced the descriptor before it was read: the event
//! is then `racy`.
//!
//! Not seen: the same by io_uring and 32-bit calls, datagrams sent to a path without connect(2), and a call whose
//! descriptor was replaced by one of another family before it was read.

use crate::emit::{Scratch, lost, number, submit};
use crate::maps::off;
use crate::path::{Start, value, walk};
use crate::scope::wanted;
use crate::serve::{argument, returned};
use crate::socket::{at, behind, is_shared};
use crate::task::{About, Typed, current, fill, mnt_ns};
use agent_common::connect::{AF_INET, AF_INET6};
use agent_common::header::{class, kind};
use agent_common::limits::PATH_BYTES_MAX;
use agent_common::socket::{ABSTRACT_BYTES_MAX, AF_UNIX, AF_VSOCK, ConnectUnix, ConnectVsock, SocketMade, socket_flag};
use agent_common::stats::family;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;

/// `AF_NETLINK`.
const AF_NETLINK: u32 = 16;
/// `NETLINK_ROUTE`: interfaces and addresses, which every program that resolves a name asks for.
const NETLINK_ROUTE: u32 = 0;
/// `SOCK_STREAM`.
const STREAM: u32 = 1;
/// `SOCK_DGRAM`.
const DGRAM: u32 = 2;
/// `SOCK_TYPE_MASK`.
const TYPE_MASK: u32 = 0xf;
/// `IPPROTO_TCP` and `IPPROTO_UDP`.
const TCP: u32 = 6;
const UDP: u32 = 17;

/// `syscalls:sys_exit_connect`.
#[tracepoint]
pub fn connect_local(ctx: TracePointContext) -> u32 {
    let task = current();
    let Some(scope_id) = wanted(task, family::NETWORK) else { return 0 };
    let sock = behind(task, argument(task, off!(regs_arg0)));
    if sock == 0 {
        return 0;
    }
    let address_family: u16 = at(sock, off!(sock_family));
    if address_family == AF_UNIX {
        connect_unix(task, scope_id, sock, returned(&ctx) as i32);
    } else if address_family == AF_VSOCK && off!(has_vsock) != 0 {
        connect_vsock(task, scope_id, sock, returned(&ctx) as i32);
    }
    0
}

#[inline(always)]
fn connect_unix(task: Typed, scope_id: u64, sock: u64, result: i32) {
    let peer = if result == 0 { at::<u64>(sock, off!(unix_peer)) } else { 0 };
    if result == 0 && peer == 0 {
        // AF_UNSPEC: a datagram socket was let go of its peer.
        return;
    }
    let Some(seq) = number(class::NETWORK) else { return };
    let about = About { kind: kind::CONNECT_UNIX, class: class::NETWORK, scope_id };
    let Some(scratch) = Scratch::claim() else {
        lost(u32::from(class::NETWORK), scope_id);
        return;
    };
    let message = scratch.room;
    // SAFETY: the scratch is larger than the message; lengths are bounded below.
    unsafe {
        let event = message.cast::<ConnectUnix>();
        fill(&raw mut (*event).header, about, seq, task);
        let zero = (&raw const (*event).header.reserved).read_volatile();
        let mut end = size_of::<ConnectUnix>();
        let mut socket_flags = if is_shared(task) { socket_flag::RACY } else { 0 };
        (*event).cookie = at(sock, off!(sock_cookie));
        (*event).result = result;
        (*event).socket_type = at(sock, off!(sock_type));
        (*event).peer_start_ns = 0;
        (*event).peer_tgid = 0;
        (*event).peer_uid = 0;
        (*event).path_flags = 0;
        (*event).path_len = 0;
        (*event).abstract_len = 0;
        (*event).reserved = 0;
        if peer != 0 {
            let pid = at::<u64>(sock, off!(sock_peer_pid));
            let cred = at::<u64>(sock, off!(sock_peer_cred));
            if pid != 0 && cred != 0 {
                socket_flags |= socket_flag::PEER_KNOWN;
                (*event).peer_tgid = at(pid, off!(pid_number));
                (*event).peer_uid = at(cred, off!(cred_uid));
                let link = at::<u64>(pid, off!(pid_process));
                if link != 0 {
                    let process = link.wrapping_sub(u64::from(off!(task_pid_link)));
                    (*event).peer_start_ns = at(process, off!(task_start_boottime));
                }
            }
            let start = Start { mount: at(peer, off!(unix_path)), dentry: at(peer, off!(unix_path) + 8) };
            let address = at::<u64>(peer, off!(unix_addr));
            if start.dentry != 0 {
                socket_flags |= socket_flag::PATH;
                let (path_len, path_flags) = walk(scratch, end, PATH_BYTES_MAX, start, mnt_ns(task), zero);
                (*event).path_len = path_len as u16;
                (*event).path_flags = path_flags;
                end += path_len;
            } else if address != 0 {
                // `sun_family`, the zero byte that makes the name abstract, the name.
                let len = value::<u32>(address.wrapping_add(u64::from(off!(unix_address_len)))) as usize;
                let name = address.wrapping_add(u64::from(off!(unix_address_name))).wrapping_add(2);
                if len >= 3 && len - 3 <= ABSTRACT_BYTES_MAX && value::<u8>(name) == 0 {
                    socket_flags |= socket_flag::ABSTRACT;
                    let len = len - 3;
                    // A length of 0 is allowed to the helper.
                    let to = message.add(size_of::<ConnectUnix>());
                    bpf_probe_read_kernel(to.cast(), len as u32, name.wrapping_add(1) as *const _);
                    (*event).abstract_len = len as u16;
                    end = size_of::<ConnectUnix>() + len;
                }
            }
        }
        (*event).socket_flags = socket_flags;
        (*event).header.len = end as u32;
        submit(message, end as u64, class::NETWORK, scope_id, seq);
    }
    scratch.release();
}

#[inline(always)]
fn connect_vsock(task: Typed, scope_id: u64, sock: u64, result: i32) {
    let Some(seq) = number(class::NETWORK) else { return };
    let about = About { kind: kind::CONNECT_VSOCK, class: class::NETWORK, scope_id };
    // Not on the stack, which this program shares with the walk of a path: 512 bytes for both on kernels before 6.13.
    let Some(scratch) = Scratch::claim() else {
        lost(u32::from(class::NETWORK), scope_id);
        return;
    };
    let event = scratch.room.cast::<ConnectVsock>();
    // SAFETY: the scratch is larger; every member is written.
    unsafe {
        fill(&raw mut (*event).header, about, seq, task);
        (*event).header.len = size_of::<ConnectVsock>() as u32;
        (*event).cookie = at(sock, off!(sock_cookie));
        (*event).cid = at(sock, off!(vsock_cid));
        (*event).port = at(sock, off!(vsock_port));
        (*event).result = result;
        (*event).socket_flags = if is_shared(task) { socket_flag::RACY } else { 0 };
        (*event).reserved = 0;
        submit(event.cast(), size_of::<ConnectVsock>() as u64, class::NETWORK, scope_id, seq);
    }
    scratch.release();
}

/// Whether sockets of this sort are told of by their acts, or are of no interest.
#[inline(always)]
fn is_usual(address_family: u32, socket_type: u32, protocol: u32) -> bool {
    if address_family == u32::from(AF_INET) || address_family == u32::from(AF_INET6) {
        return (socket_type == STREAM && (protocol == 0 || protocol == TCP))
            || (socket_type == DGRAM && (protocol == 0 || protocol == UDP));
    }
    address_family == u32::from(AF_UNIX) || (address_family == AF_NETLINK && protocol == NETLINK_ROUTE)
}

/// `syscalls:sys_exit_socket`.
#[tracepoint]
pub fn socket_exit(ctx: TracePointContext) -> u32 {
    let task = current();
    let Some(scope_id) = wanted(task, family::NETWORK) else { return 0 };
    let address_family = argument(task, off!(regs_arg0)) as u32;
    let socket_type = argument(task, off!(regs_arg1)) as u32 & TYPE_MASK;
    let protocol = argument(task, off!(regs_arg2)) as u32;
    if is_usual(address_family, socket_type, protocol) {
        return 0;
    }
    let Some(seq) = number(class::NETWORK) else { return 0 };
    let about = About { kind: kind::SOCKET, class: class::NETWORK, scope_id };
    let mut event = core::mem::MaybeUninit::<SocketMade>::uninit();
    let event = event.as_mut_ptr();
    // SAFETY: every member is written.
    unsafe {
        fill(&raw mut (*event).header, about, seq, task);
        (*event).header.len = size_of::<SocketMade>() as u32;
        (*event).family = address_family;
        (*event).socket_type = socket_type;
        (*event).protocol = protocol;
        (*event).result = returned(&ctx) as i32;
        submit(event.cast(), size_of::<SocketMade>() as u64, class::NETWORK, scope_id, seq);
    }
    0
}
