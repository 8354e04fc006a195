//! Network kinds beyond `connect` and `connect_done`.
//!
//! Network Activity (4001) for `send`, `flow`, `listen`, `accept`, `connect_unix` and `connect_vsock`; Kernel Activity
//! (1003) for `socket`, which has no endpoint yet. The source of a connection is who began it; a `flow` does not say
//! which side that was, so its source is the local side and its direction unknown.
#![forbid(unsafe_code)]

use agent_evidence::record::{Accept, ConnectUnix, ConnectVsock, Flow, Listen, Send, SocketMade};
use serde_json::json;

use super::{Event, activity, network_activity};

/// Who begins, as OCSF numbers it.
#[derive(Clone, Copy)]
enum Direction {
    Unknown,
    Inbound,
    Outbound,
}

impl Direction {
    fn described(self) -> (u32, &'static str) {
        match self {
            Self::Unknown => (0, "Unknown"),
            Self::Inbound => (1, "Inbound"),
            Self::Outbound => (2, "Outbound"),
        }
    }
}

impl Event<'_, '_> {
    pub(super) fn send(&mut self, send: &Send<'_>) {
        self.network(&activity(6, "Traffic"), send.proto, send.local, send.remote, send.socket.0);
        self.status(send.errno);
        self.actor(send.tgid, send.uid, send.euid);
        self.marks(send.marks);
        self.claim("comm", &send.claims.comm);
    }

    pub(super) fn flow(&mut self, flow: &Flow<'_>) {
        self.network(&activity(2, "Close"), flow.proto, flow.local, flow.remote, flow.socket.0);
        self.direct(Direction::Unknown);
        self.put(
            "traffic",
            json!({
                "bytes_out": flow.sent,
                "bytes_in": flow.received,
                "bytes": flow.sent.saturating_add(flow.received),
            }),
        );
        if let Some(began) = flow.began {
            let (start, end) = (self.wall_ms(began.0), self.wall_ms(self.record.draft.boot.0));
            self.put("start_time", start);
            self.put("end_time", end);
            self.put("duration", end.saturating_sub(start));
        }
        self.status(Some(0));
        self.actor(flow.tgid, flow.uid, flow.euid);
        self.marks(flow.marks);
        self.claim("comm", &flow.claims.comm);
    }

    pub(super) fn listen(&mut self, listen: &Listen<'_>) {
        let activity = match listen.errno {
            Some(0) => activity(7, "Listen"),
            other => network_activity(other),
        };
        // Whoever connects will connect to this.
        self.network(&activity, listen.proto, None, listen.local, listen.socket.0);
        self.direct(Direction::Inbound);
        self.status(listen.errno);
        self.actor(listen.tgid, listen.uid, listen.euid);
        self.marks(listen.marks);
        self.claim("comm", &listen.claims.comm);
    }

    pub(super) fn accept(&mut self, accept: &Accept<'_>) {
        self.network(&activity(1, "Open"), accept.proto, Some(accept.remote), accept.local, accept.socket.0);
        self.direct(Direction::Inbound);
        self.status(Some(0));
        self.actor(accept.tgid, accept.uid, accept.euid);
        self.marks(accept.marks);
        self.claim("comm", &accept.claims.comm);
    }

    pub(super) fn connect_unix(&mut self, connect: &ConnectUnix<'_>) {
        self.class((4, "Network Activity"), (4001, "Network Activity"), &network_activity(connect.errno));
        let name = match (&connect.path, &connect.abstract_name) {
            (Some(path), _) => path.clear().map(|path| self.text("dst_endpoint.name", path.as_bytes())),
            // As netstat and ss write it.
            (None, Some(name)) => {
                name.clear().map(|name| format!("@{}", self.text("dst_endpoint.name", name.as_bytes())))
            }
            (None, None) => None,
        };
        // OCSF requires a name. What the caller asked for was not resolved.
        self.put("dst_endpoint", json!({ "name": name.unwrap_or_else(|| "(not resolved)".to_owned()) }));
        self.local_connection("unix", connect.socket.map(|socket| socket.0));
        if let (Some(tgid), Some(uid)) = (connect.peer_tgid, connect.peer_uid) {
            let mut peer = json!({ "pid": tgid, "user": { "uid": uid.to_string() } });
            if let Some(cookie) = connect.peer {
                peer["uid"] = self.process_uid(cookie.0).into();
            }
            self.affiant.insert("peer".into(), peer);
        }
        self.affiant.insert("socket_type".into(), connect.type_.into());
        self.status(connect.errno);
        self.actor(connect.tgid, connect.uid, connect.euid);
        self.marks(connect.marks);
        self.claim("comm", &connect.claims.comm);
    }

    pub(super) fn connect_vsock(&mut self, connect: &ConnectVsock<'_>) {
        self.class((4, "Network Activity"), (4001, "Network Activity"), &network_activity(connect.errno));
        // Its ports have 32 bits, which those of OCSF have not.
        let name = vsock_address(connect.cid, connect.port);
        self.put("dst_endpoint", json!({ "name": name, "uid": connect.cid.to_string() }));
        self.local_connection("vsock", connect.socket.map(|socket| socket.0));
        self.affiant.insert("vsock".into(), json!({ "cid": connect.cid, "port": connect.port }));
        self.status(connect.errno);
        self.actor(connect.tgid, connect.uid, connect.euid);
        self.marks(connect.marks);
        self.claim("comm", &connect.claims.comm);
    }

    pub(super) fn socket_made(&mut self, made: &SocketMade<'_>) {
        self.class((1, "System Activity"), (1003, "Kernel Activity"), &activity(1, "Create"));
        let name = format!("{} socket", family_name(made.family));
        self.put("kernel", json!({ "name": name, "type_id": 99, "type": "Socket" }));
        self.affiant
            .insert("socket".into(), json!({ "family": made.family, "type": made.type_, "protocol": made.protocol }));
        self.status(made.errno);
        self.actor(made.tgid, made.uid, made.euid);
        self.marks(made.marks);
        self.claim("comm", &made.claims.comm);
    }

    /// Says who began, of a connection that [`Event::network`] described as begun here.
    fn direct(&mut self, direction: Direction) {
        let (id, word) = direction.described();
        if let Some(info) = self.fields.get_mut("connection_info") {
            info["direction_id"] = id.into();
            info["direction"] = word.into();
        }
    }

    /// A connection that does not leave the machine.
    fn local_connection(&mut self, protocol: &str, socket: Option<u64>) {
        let (direction_id, direction) = Direction::Outbound.described();
        let mut info = json!({
            "direction_id": direction_id,
            "direction": direction,
            "protocol_name": protocol,
            "boundary_id": 1,
            "boundary": "Localhost",
        });
        if let Some(socket) = socket {
            info["uid"] = socket.to_string().into();
        }
        self.put("connection_info", info);
    }
}

/// An address of a socket between host and virtual machine, for people.
#[must_use]
pub fn vsock_address(cid: u32, port: u32) -> String {
    format!("vsock:{cid}:{port}")
}

/// The name of an address family (include/linux/socket.h), for those that sockets of workloads have been seen with; any
/// other as its number.
#[must_use]
pub fn family_name(family: u32) -> String {
    let name = match family {
        1 => "AF_UNIX",
        2 => "AF_INET",
        4 => "AF_IPX",
        10 => "AF_INET6",
        15 => "AF_KEY",
        16 => "AF_NETLINK",
        17 => "AF_PACKET",
        21 => "AF_RDS",
        29 => "AF_CAN",
        30 => "AF_TIPC",
        31 => "AF_BLUETOOTH",
        38 => "AF_ALG",
        39 => "AF_NFC",
        40 => "AF_VSOCK",
        43 => "AF_SMC",
        44 => "AF_XDP",
        other => return format!("AF_{other}"),
    };
    name.to_owned()
}
