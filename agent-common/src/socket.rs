//! Sockets beyond connect(2) over IP: totals at the end of a connection, AF_UNIX, AF_VSOCK, and sockets of an unusual
//! sort.

use crate::connect::Endpoints;
use crate::header::Header;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `AF_UNIX` as the kernel numbers it.
pub const AF_UNIX: u16 = 1;
/// `AF_VSOCK` as the kernel numbers it.
pub const AF_VSOCK: u16 = 40;

/// Longest name of an AF_UNIX socket in the abstract namespace, in bytes: `sun_path` without its first zero byte.
pub const ABSTRACT_BYTES_MAX: usize = 107;

/// A connection ended. The header carries the identity of the process that had connected or accepted it, and the time
/// of the end. Also the value of `FLOWS`, keyed by socket cookie: the message of a connection that is to be reported when
/// it ends, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// Who had made it.
    pub header: Header,
    /// The connection.
    pub endpoints: Endpoints,
    /// Bytes of payload that the local side sent, each counted once.
    pub sent: u64,
    /// Bytes of payload that it received, each counted once.
    pub received: u64,
    /// When connect(2) was called or accept(2) returned, nanoseconds since boot.
    pub began_ns: u64,
}
const _: () = assert!(size_of::<Flow>() == 112 + 56 + 24);

/// Bits of `socket_flags`.
pub mod socket_flag {
    /// The descriptor table is shared with another thread or process, which could have replaced the descriptor before
    /// it was read.
    pub const RACY: u16 = 1 << 0;
    /// `peer_tgid` and `peer_uid` are known.
    pub const PEER_KNOWN: u16 = 1 << 1;
    /// The name in the abstract namespace is known, even if it is empty.
    pub const ABSTRACT: u16 = 1 << 2;
    /// The path is known.
    pub const PATH: u16 = 1 << 3;
    /// Bits of `connect_unix`.
    pub const UNIX: u16 = RACY | PEER_KNOWN | ABSTRACT | PATH;
    /// Bits of `connect_vsock`.
    pub const VSOCK: u16 = RACY;
}

/// A socket of the local host was connected, or tried to. Followed by the path (written as [`crate::file`] describes)
/// and the abstract name, of which at most one is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnectUnix {
    /// The caller.
    pub header: Header,
    /// Kernel's cookie of the socket; 0 while nobody asked for one.
    pub cookie: u64,
    /// Start of the process that had called listen(2), nanoseconds since boot; 0 when it is gone or not known.
    pub peer_start_ns: u64,
    /// That process; 0 unless `PEER_KNOWN`.
    pub peer_tgid: u32,
    /// Its real user id when it called listen(2); 0 unless `PEER_KNOWN`.
    pub peer_uid: u32,
    /// 0, or the negative error number.
    pub result: i32,
    /// Socket type (1 stream, 2 datagram, 5 seqpacket).
    pub socket_type: u16,
    /// Bits of [`socket_flag`].
    pub socket_flags: u16,
    /// Bits of [`crate::file::path_flag`].
    pub path_flags: u16,
    /// Bytes of the path.
    pub path_len: u16,
    /// Bytes of the abstract name.
    pub abstract_len: u16,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<ConnectUnix>() == 112 + 40);

/// A socket between host and virtual machine was connected, or tried to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnectVsock {
    /// The caller.
    pub header: Header,
    /// Kernel's cookie of the socket; 0 while nobody asked for one.
    pub cookie: u64,
    /// Context identifier of the other side, from the kernel's copy.
    pub cid: u32,
    /// Its port.
    pub port: u32,
    /// 0, or the negative error number.
    pub result: i32,
    /// Bits of [`socket_flag`].
    pub socket_flags: u16,
    /// Zero.
    pub reserved: u16,
}
const _: () = assert!(size_of::<ConnectVsock>() == 112 + 24);

/// A socket of an unusual sort was created, or tried to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SocketMade {
    /// The caller.
    pub header: Header,
    /// `AF_*`.
    pub family: u32,
    /// `SOCK_*` without flags.
    pub socket_type: u32,
    /// Protocol number.
    pub protocol: u32,
    /// The descriptor, or the negative error number.
    pub result: i32,
}
const _: () = assert!(size_of::<SocketMade>() == 112 + 16);
