//! What is behind a descriptor, if it is a socket: the kernel's `struct sock` as an address, and its ends.

use crate::file::descriptor;
use crate::maps::off;
use crate::path::{read, value};
use crate::task::{Typed, member};
use agent_common::connect::{AF_INET, Endpoints, connect_flag};

/// `S_IFMT` and `S_IFSOCK`.
const TYPE_OF_FILE: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;

/// The `struct sock` behind a descriptor of the task, as an address; 0 when there is none or it is no socket. Another
/// thread may have replaced the descriptor by now: see [`is_shared`].
#[inline(always)]
pub fn behind(task: Typed, fd: u64) -> u64 {
    // SAFETY: typed or null.
    let file = unsafe { descriptor(member(task, off!(task_files)), fd & 0xffff_ffff) };
    if file == 0 {
        return 0;
    }
    let inode = value::<u64>(file.wrapping_add(u64::from(off!(file_inode))));
    // Only a socket's private data is a `struct socket`.
    if value::<u16>(inode.wrapping_add(u64::from(off!(inode_mode)))) & TYPE_OF_FILE != SOCKET {
        return 0;
    }
    let socket = value::<u64>(file.wrapping_add(u64::from(off!(file_private_data))));
    value(socket.wrapping_add(u64::from(off!(socket_sk))))
}

/// Whether another thread or process can change the task's descriptors.
#[inline(always)]
pub fn is_shared(task: Typed) -> bool {
    // SAFETY: typed loads.
    unsafe {
        let files: Typed = member(task, off!(task_files));
        !files.is_null() && member::<u32>(files, off!(files_struct_count)) > 1
    }
}

/// A member of a `struct sock` (or what begins with one) at an address.
#[inline(always)]
pub fn at<T: Copy + zerocopy::FromBytes>(sock: u64, offset: u32) -> T {
    value(sock.wrapping_add(u64::from(offset)))
}

/// Reads the local address and port. The port is `inet_sport`, because `skc_num` is gone once the connection is.
#[inline(always)]
pub fn local_of(sock: u64, endpoints: &mut Endpoints) {
    endpoints.local_port = u16::from_be(at(sock, off!(inet_sport)));
    address(&mut endpoints.local, endpoints.family, sock, off!(sock_rcv_saddr), off!(sock_v6_rcv_saddr));
    endpoints.connect_flags |= connect_flag::LOCAL_KNOWN;
}

/// Reads the remote address and port of a connected socket.
#[inline(always)]
pub fn remote_of(sock: u64, endpoints: &mut Endpoints) {
    endpoints.remote_port = u16::from_be(at(sock, off!(sock_dport)));
    address(&mut endpoints.remote, endpoints.family, sock, off!(sock_daddr), off!(sock_v6_daddr));
}

#[inline(always)]
fn address(to: &mut [u8; 16], family: u16, sock: u64, v4: u32, v6: u32) {
    let to = to.as_mut_ptr();
    // SAFETY: 16 bytes of room.
    unsafe {
        if family == AF_INET {
            read(to, 4, sock.wrapping_add(u64::from(v4)));
        } else {
            read(to, 16, sock.wrapping_add(u64::from(v6)));
        }
    }
}

/// What a socket says of itself; its ends are zero.
#[inline(always)]
pub fn endpoints_of(sock: u64, family: u16) -> Endpoints {
    Endpoints {
        cookie: at(sock, off!(sock_cookie)),
        remote: [0; 16],
        local: [0; 16],
        remote_port: 0,
        local_port: 0,
        family,
        protocol: at(sock, off!(sock_protocol)),
        socket_type: at(sock, off!(sock_type)),
        connect_flags: 0,
        result: 0,
    }
}
