//! Acts on sockets: kinds made from one kernel event each.

use std::net::SocketAddr;

use super::act::{ActMarks, CommClaims};
use super::ids::{BootTime, Nanoseconds, ProcessCookie, SocketCookie};
use super::schema::{object, words};
use super::value::Value;

words! {
    /// Where a name for an address comes from.
    NameSource as "name source" {
        /// An answer to the workload's own query, seen on the wire.
        Wire = "wire",
        /// An answer of the host's resolver to the workload.
        Resolver = "resolver",
    }
}

object! {
    /// A name that had been resolved to an address. Advisory: whoever answers a query chooses what it says.
    ResolvedName<'a> as "resolved name" {
        /// The name.
        name: Value<'a> = "name",
        /// Where it comes from.
        source: NameSource = "source",
        /// How long before.
        age: Nanoseconds = "age",
    }
}

words! {
    /// A transport protocol.
    Transport as "transport" {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// ICMP echo sockets.
        Icmp = "icmp",
        /// ICMP version 6 echo sockets.
        Icmp6 = "icmp6",
        /// SCTP.
        Sctp = "sctp",
        /// Multipath TCP.
        Mptcp = "mptcp",
        /// Another protocol than these.
        Other = "other",
    }
}

object! {
    /// A socket was connected, or tried to.
    Connect<'a> as "connect" {
        /// Transport protocol.
        proto: Transport = "proto",
        /// Local address, where known.
        local: Option<SocketAddr> = "local",
        /// Remote address, from the kernel's copy.
        remote: SocketAddr = "remote",
        /// 0 for success, else the error number (115: in progress); absent when not observed.
        errno: Option<u32> = "errno",
        /// The socket.
        socket: SocketCookie = "socket",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// The name that the workload had last resolved to the remote address.
        name: Option<ResolvedName<'a>> = "name",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// A connection that was in progress is decided. `p` is the process that had connected.
    ConnectDone<'a> as "connect_done" {
        /// Transport protocol.
        proto: Transport = "proto",
        /// Local address, where known.
        local: Option<SocketAddr> = "local",
        /// Remote address.
        remote: SocketAddr = "remote",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
        /// The socket.
        socket: SocketCookie = "socket",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// A connection or bound socket ended, with its totals. `p` is the process that had made it.
    Flow<'a> as "flow" {
        /// Transport protocol.
        proto: Transport = "proto",
        /// Local address, where known.
        local: Option<SocketAddr> = "local",
        /// Remote address.
        remote: SocketAddr = "remote",
        /// The socket.
        socket: SocketCookie = "socket",
        /// Bytes sent by the local side.
        sent: u64 = "sent",
        /// Bytes received.
        received: u64 = "received",
        /// When it began.
        began: Option<BootTime> = "began",
        /// How long it lasted.
        duration: Option<Nanoseconds> = "duration",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// Data was sent without a connection: a datagram to an address, or data with the first segment (TCP fast open). Once per process, socket and remote address, and once more, marked `first_of_many`, when others followed.
    Send<'a> as "send" {
        /// Transport protocol.
        proto: Transport = "proto",
        /// Local address, where known.
        local: Option<SocketAddr> = "local",
        /// Remote address.
        remote: SocketAddr = "remote",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
        /// Bytes of the first message, where observed.
        bytes: Option<u64> = "bytes",
        /// The socket.
        socket: SocketCookie = "socket",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// A socket began to listen.
    Listen<'a> as "listen" {
        /// Transport protocol.
        proto: Transport = "proto",
        /// Local address.
        local: SocketAddr = "local",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
        /// The socket.
        socket: SocketCookie = "socket",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// A connection was accepted.
    Accept<'a> as "accept" {
        /// Transport protocol.
        proto: Transport = "proto",
        /// Local address.
        local: SocketAddr = "local",
        /// Remote address.
        remote: SocketAddr = "remote",
        /// The new socket.
        socket: SocketCookie = "socket",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// A socket of the local host (AF_UNIX) was connected, or tried to.
    ConnectUnix<'a> as "connect_unix" {
        /// Path of the socket as the kernel resolved it.
        path: Option<Value<'a>> = "path",
        /// Name in the abstract namespace.
        abstract_name: Option<Value<'a>> = "abstract",
        /// `SOCK_*` type, as a number.
        type_: u32 = "type",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
        /// The process that listens, where known.
        peer: Option<ProcessCookie> = "peer",
        /// Its tgid.
        peer_tgid: Option<u32> = "peer_tgid",
        /// Its user id.
        peer_uid: Option<u32> = "peer_uid",
        /// The socket.
        socket: Option<SocketCookie> = "socket",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// A socket between host and virtual machine (AF_VSOCK) was connected, or tried to.
    ConnectVsock<'a> as "connect_vsock" {
        /// Context identifier of the other side.
        cid: u32 = "cid",
        /// Port.
        port: u32 = "port",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
        /// The socket.
        socket: Option<SocketCookie> = "socket",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}

object! {
    /// A socket was created that sees or makes packets below the transport layer (raw, packet), or of a family that no other kind describes.
    SocketMade<'a> as "socket" {
        /// `AF_*`, as a number.
        family: u32 = "family",
        /// `SOCK_*` without flags, as a number.
        type_: u32 = "type",
        /// Protocol number.
        protocol: u32 = "protocol",
        /// 0 for success, else the error number; absent when not observed.
        errno: Option<u32> = "errno",
        /// The socket.
        socket: Option<SocketCookie> = "socket",
        /// tgid.
        tgid: u32 = "tgid",
        /// Real user id.
        uid: u32 = "uid",
        /// Effective user id, when it is another.
        euid: Option<u32> = "euid",
        /// How it was observed.
        marks: ActMarks = "marks",
        /// What the process says of itself.
        claims: CommClaims<'a> = "claims",
    }
}
