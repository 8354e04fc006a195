//! connect(2) over IPv4 and IPv6, TCP, UDP and the rest, and what became of connections that were not waited for; in
//! the same layout, data sent without a connection, listening and accepting.

use crate::header::Header;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of `connect_flags`.
pub mod connect_flag {
    /// The act did not come through connect(2) (io_uring, TCP fast open), so its result was not observed.
    pub const RESULT_UNOBSERVED: u16 = 1 << 0;
    /// The local address and port are known.
    pub const LOCAL_KNOWN: u16 = 1 << 1;
    /// The result is "in progress": a `connect_done` follows unless the socket outlives the capture.
    pub const DONE_FOLLOWS: u16 = 1 << 2;
    /// `PENDING` was full: no `connect_done` will follow although the result is "in progress".
    pub const UNTRACKED: u16 = 1 << 3;
    /// Of a `send`: not the first from this process, socket and to this address; those after it are only counted.
    pub const FIRST_OF_MANY: u16 = 1 << 4;
    /// The descriptor table is shared with another thread or process, which could have replaced the descriptor before
    /// it was read.
    pub const RACY: u16 = 1 << 5;
    /// Bits of `connect` and `connect_done`.
    pub const CONNECT: u16 = RESULT_UNOBSERVED | LOCAL_KNOWN | DONE_FOLLOWS | UNTRACKED;
    /// Bits of `send`.
    pub const SEND: u16 = RESULT_UNOBSERVED | LOCAL_KNOWN | FIRST_OF_MANY;
    /// Bits of `flow`.
    pub const FLOW: u16 = LOCAL_KNOWN;
    /// Bits of `listen` and `accept`.
    pub const SERVE: u16 = LOCAL_KNOWN | RACY;
}

/// `AF_INET` as the kernel numbers it.
pub const AF_INET: u16 = 2;
/// `AF_INET6` as the kernel numbers it.
pub const AF_INET6: u16 = 10;

/// What is known of one connection. IPv4 addresses stand in the first four bytes, the rest zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Endpoints {
    /// Kernel's cookie of the socket, unique until reboot; 0 for a socket that was accepted or told to listen and had
    /// been made before capture began.
    pub cookie: u64,
    /// Remote address, network byte order, from the kernel's copy.
    pub remote: [u8; 16],
    /// Local address, likewise; zero unless `LOCAL_KNOWN`.
    pub local: [u8; 16],
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// Local port, host byte order; zero unless `LOCAL_KNOWN`.
    pub local_port: u16,
    /// [`AF_INET`] or [`AF_INET6`].
    pub family: u16,
    /// IP protocol number (6 TCP, 17 UDP).
    pub protocol: u16,
    /// Socket type (1 stream, 2 datagram).
    pub socket_type: u16,
    /// Bits of [`connect_flag`].
    pub connect_flags: u16,
    /// 0, or the negative error number; meaningless with `RESULT_UNOBSERVED`.
    pub result: i32,
}
const _: () = assert!(size_of::<Endpoints>() == 56);

/// A socket was connected or tried to. Also the layout of `connect_done`, whose header carries the identity of the
/// process that had called connect(2) and the time of the answer; of `send`; of `listen`, which has no remote address;
/// and of `accept`, whose socket is the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Connect {
    /// The caller.
    pub header: Header,
    /// The connection.
    pub endpoints: Endpoints,
    /// Nanoseconds from the kernel's address hook to the result; 0 when the result was not observed, and for `send`,
    /// `listen` and `accept`.
    pub took_ns: u64,
}
const _: () = assert!(size_of::<Connect>() == 112 + 64);
