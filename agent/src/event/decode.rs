//! The one reader of the kernel wire: bytes of a message to an [`Event`], checked, without allocation.
//!
//! A ring is memory that root can write, and a message could be of another version: lengths, kinds, reserved bytes
//! and unknown flag bits are all checked, and what does not fit is refused whole.

use agent_common::header::{self, class, flag, kind};
use agent_common::{WIRE_VERSION, cgroup, change, connect, file, process, socket};
use agent_evidence::record::{BootTime, Class, KernelNumber};
use zerocopy::FromBytes;

use super::privilege;
use super::{
    CgroupLife, CgroupMove, Change, ChangeCall, Claim, Close, Connect, ConnectUnix, ConnectVsock, Event, Exec,
    ExecMore, Exit, Flow, Fork, Header, MapCall, Open, Seen, SocketMade, WalkedPath,
};

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its fixed part.
    #[error("{seen} bytes are too short for the fixed part of kind {kind}, {expected} bytes")]
    Short {
        /// Kind, 0 when not even the header fits.
        kind: u16,
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        seen: usize,
    },
    /// Another version of the wire.
    #[error("wire version {seen}, expected {WIRE_VERSION}")]
    Version {
        /// Version seen.
        seen: u8,
    },
    /// A kind that this version does not have.
    #[error("kind {seen} is not of this wire version")]
    Kind {
        /// Kind seen.
        seen: u16,
    },
    /// A class that does not go with the kind.
    #[error("class {seen} with kind {kind}, expected {expected}")]
    Class {
        /// Kind.
        kind: u16,
        /// Class that goes with it.
        expected: u8,
        /// Class seen.
        seen: u8,
    },
    /// The length in the header, or the lengths of the strings, do not add up to the message's.
    #[error("kind {kind} has {seen} bytes, its lengths add up to {expected}")]
    Length {
        /// Kind.
        kind: u16,
        /// What the lengths say.
        expected: usize,
        /// Bytes there.
        seen: usize,
    },
    /// A reserved member is not zero, or a flag has an unknown bit.
    #[error("{member} of kind {kind} is {seen:#x}, which this version does not write")]
    Reserved {
        /// Kind.
        kind: u16,
        /// Which member.
        member: &'static str,
        /// What it held.
        seen: u64,
    },
}

/// The number of a message whose header can be read, whatever follows.
#[must_use]
pub fn number_of(message: &[u8]) -> Option<KernelNumber> {
    let (header, _) = header::Header::read_from_prefix(message).ok()?;
    if header.version != WIRE_VERSION {
        return None;
    }
    Some(KernelNumber { cpu: header.cpu, class: Class::from_number(u32::from(header.class))?, seq: header.seq })
}

/// Reads one message.
///
/// # Errors
/// [`DecodeError`]; nothing of a refused message is used but its number ([`number_of`]).
pub fn decode(message: &[u8]) -> Result<Event<'_>, DecodeError> {
    let (wire, _) = header::Header::read_from_prefix(message).map_err(|_short| DecodeError::Short {
        kind: 0,
        expected: size_of::<header::Header>(),
        seen: message.len(),
    })?;
    if wire.version != WIRE_VERSION {
        return Err(DecodeError::Version { seen: wire.version });
    }
    let kind = wire.kind;
    if usize::try_from(wire.len) != Ok(message.len()) {
        return Err(DecodeError::Length {
            kind,
            expected: usize::try_from(wire.len).unwrap_or(usize::MAX),
            seen: message.len(),
        });
    }
    let (expected, known) = match kind {
        kind::FORK | kind::EXEC | kind::EXIT | kind::EXEC_FAILED | kind::EXEC_WHOLE => (class::PROCESS, Class::Process),
        kind::CGROUP_CREATE | kind::CGROUP_REMOVE | kind::CGROUP_MOVE => (class::CGROUP, Class::Cgroup),
        kind::CONNECT..=kind::SOCKET => (class::NETWORK, Class::Network),
        kind::OPEN | kind::CHANGE | kind::CLOSE | kind::MAP_CALL | kind::FILE_MAP | kind::FILE_RECEIVED => {
            (class::FILE, Class::File)
        }
        kind::CREDS..=kind::IO_URING => (class::PRIVILEGE, Class::Privilege),
        seen => return Err(DecodeError::Kind { seen }),
    };
    if wire.class != expected {
        return Err(DecodeError::Class { kind, expected, seen: wire.class });
    }
    zero(kind, "header.reserved", wire.reserved)?;
    known_bits(kind, "header.flags", wire.flags, flag::ALL)?;
    let header = Header {
        number: KernelNumber { cpu: wire.cpu, class: known, seq: wire.seq },
        boot: BootTime(wire.boot_ns),
        cgroup_id: wire.cgroup_id,
        scope_id: wire.scope_id,
        start: BootTime(wire.start_ns),
        parent_start: BootTime(wire.parent_start_ns),
        tgid: wire.tgid,
        tid: wire.tid,
        parent_tgid: wire.parent_tgid,
        uid: wire.uid,
        gid: wire.gid,
        euid: wire.euid,
        egid: wire.egid,
        flags: wire.flags,
        comm: Claim(until_nul(message.get(COMM).unwrap_or_default())),
    };
    match kind {
        kind::FORK => fork(message, header),
        kind::EXEC => exec(message, header),
        kind::EXIT => exit(message, header),
        kind::CGROUP_CREATE => cgroup_life(message, header).map(Event::CgroupCreate),
        kind::CGROUP_REMOVE => cgroup_life(message, header).map(Event::CgroupRemove),
        kind::CGROUP_MOVE => cgroup_move(message, header),
        kind::CONNECT => connected(message, header, kind).map(Event::Connect),
        kind::CONNECT_DONE => connected(message, header, kind).map(Event::ConnectDone),
        kind::CHANGE => change(message, header),
        kind::CLOSE => close(message, header),
        kind::MAP_CALL => map_call(message, header),
        kind::SEND => connected(message, header, kind).map(Event::Send),
        kind::FLOW => flow(message, header),
        kind::LISTEN => connected(message, header, kind).map(Event::Listen),
        kind::ACCEPT => connected(message, header, kind).map(Event::Accept),
        kind::CONNECT_UNIX => connect_unix(message, header),
        kind::CONNECT_VSOCK => connect_vsock(message, header),
        kind::SOCKET => socket_made(message, header),
        kind::EXEC_FAILED => privilege::exec_failed(message, header).map(Event::ExecFailed),
        kind::CREDS => privilege::creds(message, header).map(Event::Creds),
        kind::ACCESS => privilege::access(message, header).map(Event::Access),
        kind::SIGNAL => privilege::signal(message, header).map(Event::Signal),
        kind::MOUNT => privilege::mounted(message, header).map(Event::Mount),
        kind::NAMESPACE => privilege::namespace(message, header).map(Event::Namespace),
        kind::BPF => privilege::bpf(message, header).map(Event::Bpf),
        kind::KERNEL_LOAD => privilege::kernel_load(message, header).map(Event::KernelLoad),
        kind::KEY => privilege::key(message, header).map(Event::Key),
        kind::IO_URING => privilege::io_uring(message, header).map(Event::IoUring),
        kind::EXEC_WHOLE => exec_whole(message, header),
        kind::FILE_MAP => seen(message, header, kind).map(Event::FileMap),
        kind::FILE_RECEIVED => seen(message, header, kind).map(Event::FileReceived),
        _ => open(message, header),
    }
}

fn fork<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<process::Fork>(message, kind::FORK)?;
    zero(kind::FORK, "fork.reserved", wire.reserved)?;
    Strings::new(kind::FORK, message, rest).end()?;
    Ok(Event::Fork(Fork {
        header,
        child_start: BootTime(wire.child_start_ns),
        child_cgroup_id: wire.child_cgroup_id,
        child_scope_id: wire.child_scope_id,
        child_tgid: wire.child_tgid,
    }))
}

/// What only an exec of the other kind may say.
const WHOLE_ONLY: u16 = process::exec_flag::SET_ID | process::exec_flag::FILE_CAPS | process::exec_flag::HASHED;

fn exec<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<process::Exec>(message, kind::EXEC)?;
    known_bits(kind::EXEC, "exec_flags", wire.exec_flags, process::exec_flag::ALL & !WHOLE_ONLY)?;
    exec_strings(message, rest, kind::EXEC, header, wire, None)
}

fn exec_whole<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let kind = kind::EXEC_WHOLE;
    let (wire, rest) = fixed::<process::ExecWhole>(message, kind)?;
    zero(kind, "exec_whole.reserved", wire.reserved)?;
    known_bits(kind, "exec_flags", wire.exec.exec_flags, process::exec_flag::ALL)?;
    let is_hashed = wire.exec.exec_flags & process::exec_flag::HASHED != 0;
    if let Some(byte) = wire.sha256.iter().find(|byte| !is_hashed && **byte != 0) {
        return Err(DecodeError::Reserved { kind, member: "sha256", seen: u64::from(*byte) });
    }
    let more = ExecMore {
        sha256: is_hashed.then_some(wire.sha256),
        cap_permitted: wire.cap_permitted,
        cap_ambient: wire.cap_ambient,
        before_cap_effective: wire.before_cap_effective,
        before_euid: wire.before_euid,
        before_egid: wire.before_egid,
    };
    exec_strings(message, rest, kind, header, wire.exec, Some(more))
}

fn exec_strings<'a>(
    message: &'a [u8],
    rest: &'a [u8],
    kind: u16,
    header: Header<'a>,
    wire: process::Exec,
    more: Option<ExecMore>,
) -> Result<Event<'a>, DecodeError> {
    known_bits(kind, "path_flags", wire.path_flags, file::path_flag::ALL)?;
    known_bits(kind, "cwd_flags", wire.cwd_flags, file::path_flag::ALL)?;
    let mut strings = Strings::new(kind, message, rest);
    let path = WalkedPath { names: strings.take(wire.path_len)?, flags: wire.path_flags };
    let cwd = WalkedPath { names: strings.take(wire.cwd_len)?, flags: wire.cwd_flags };
    let invoked = Claim(strings.take(wire.name_len)?);
    let argv = strings.take(wire.argv_len)?;
    strings.end()?;
    Ok(Event::Exec(Exec { header, wire, path, cwd, invoked, argv, more }))
}

fn seen<'a>(message: &'a [u8], header: Header<'a>, kind: u16) -> Result<Seen<'a>, DecodeError> {
    let (wire, rest) = fixed::<file::Seen>(message, kind)?;
    known_bits(kind, "path_flags", wire.path_flags, file::path_flag::ALL)?;
    if kind == kind::FILE_RECEIVED {
        zero(kind, "seen.prot", wire.prot)?;
        zero(kind, "seen.map_flags", wire.map_flags)?;
    }
    let mut strings = Strings::new(kind, message, rest);
    let path = WalkedPath { names: strings.take(wire.path_len)?, flags: wire.path_flags };
    strings.end()?;
    Ok(Seen { header, wire, path })
}

fn exit<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<process::Exit>(message, kind::EXIT)?;
    zero(kind::EXIT, "exit.reserved", wire.reserved)?;
    Strings::new(kind::EXIT, message, rest).end()?;
    Ok(Event::Exit(Exit { header, status: wire.status }))
}

fn cgroup_life<'a>(message: &'a [u8], header: Header<'a>) -> Result<CgroupLife<'a>, DecodeError> {
    let (wire, rest) = fixed::<cgroup::CgroupLife>(message, kind::CGROUP_CREATE)?;
    known_bits(kind::CGROUP_CREATE, "cgroup_flags", wire.cgroup_flags, cgroup::cgroup_flag::ALL)?;
    let mut strings = Strings::new(kind::CGROUP_CREATE, message, rest);
    let path = strings.take(wire.path_len)?;
    strings.end()?;
    Ok(CgroupLife {
        header,
        id: wire.id,
        parent_id: wire.parent_id,
        scope_id: wire.scope_id,
        path,
        flags: wire.cgroup_flags,
    })
}

fn cgroup_move<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<cgroup::CgroupMove>(message, kind::CGROUP_MOVE)?;
    zero(kind::CGROUP_MOVE, "cgroup_move.reserved", wire.reserved)?;
    known_bits(kind::CGROUP_MOVE, "cgroup_flags", wire.cgroup_flags, cgroup::cgroup_flag::ALL)?;
    let mut strings = Strings::new(kind::CGROUP_MOVE, message, rest);
    let path = strings.take(wire.path_len)?;
    strings.end()?;
    Ok(Event::CgroupMove(CgroupMove {
        header,
        to_id: wire.to_id,
        moved_start: BootTime(wire.moved_start_ns),
        scope_before: wire.scope_before,
        scope_after: wire.scope_after,
        moved_tgid: wire.moved_tgid,
        path,
        flags: wire.cgroup_flags,
    }))
}

fn connected<'a>(message: &'a [u8], header: Header<'a>, kind: u16) -> Result<Connect<'a>, DecodeError> {
    use connect::connect_flag::{CONNECT, LOCAL_KNOWN, RESULT_UNOBSERVED, SEND, SERVE};
    let (wire, rest) = fixed::<connect::Connect>(message, kind)?;
    let endpoints = wire.endpoints;
    let (may, must) = match kind {
        kind::SEND => (SEND, RESULT_UNOBSERVED),
        kind::LISTEN | kind::ACCEPT => (SERVE, LOCAL_KNOWN),
        _ => (CONNECT, 0),
    };
    check_endpoints(kind, &endpoints, may, must)?;
    if kind == kind::LISTEN && (endpoints.remote != [0; 16] || endpoints.remote_port != 0) {
        return Err(DecodeError::Reserved { kind, member: "remote address", seen: u64::from(endpoints.remote_port) });
    }
    if kind == kind::ACCEPT && endpoints.result != 0 {
        return Err(DecodeError::Reserved {
            kind,
            member: "result",
            seen: u64::from(endpoints.result.cast_unsigned()),
        });
    }
    Strings::new(kind, message, rest).end()?;
    Ok(Connect { header, endpoints })
}

/// Refuses a family that has no addresses here, bytes beyond an address, and flags that the kind has not or lacks.
fn check_endpoints(kind: u16, endpoints: &connect::Endpoints, may: u16, must: u16) -> Result<(), DecodeError> {
    let flags = endpoints.connect_flags;
    known_bits(kind, "connect_flags", flags, may)?;
    if flags & must != must {
        return Err(DecodeError::Reserved { kind, member: "connect_flags", seen: u64::from(flags) });
    }
    if !matches!(endpoints.family, connect::AF_INET | connect::AF_INET6) {
        return Err(DecodeError::Reserved { kind, member: "family", seen: u64::from(endpoints.family) });
    }
    if endpoints.family == connect::AF_INET {
        // An IPv4 address has four bytes; the others are reserved.
        for address in [endpoints.remote, endpoints.local] {
            let beyond = address.iter().skip(4).fold(0u64, |seen, byte| seen | u64::from(*byte));
            if beyond != 0 {
                return Err(DecodeError::Reserved { kind, member: "bytes after an IPv4 address", seen: beyond });
            }
        }
    }
    Ok(())
}

fn flow<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<socket::Flow>(message, kind::FLOW)?;
    check_endpoints(kind::FLOW, &wire.endpoints, connect::connect_flag::FLOW, 0)?;
    Strings::new(kind::FLOW, message, rest).end()?;
    Ok(Event::Flow(Flow {
        header,
        endpoints: wire.endpoints,
        sent: wire.sent,
        received: wire.received,
        began: BootTime(wire.began_ns),
    }))
}

fn connect_unix<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    use socket::socket_flag::{ABSTRACT, PATH, UNIX};
    let (wire, rest) = fixed::<socket::ConnectUnix>(message, kind::CONNECT_UNIX)?;
    zero(kind::CONNECT_UNIX, "connect_unix.reserved", u32::from(wire.reserved))?;
    known_bits(kind::CONNECT_UNIX, "socket_flags", wire.socket_flags, UNIX)?;
    known_bits(kind::CONNECT_UNIX, "path_flags", wire.path_flags, file::path_flag::ALL)?;
    // A name without the flag that says so would be nobody's; both at once are no socket's.
    let flags = wire.socket_flags;
    for (flag, len) in [(PATH, wire.path_len), (ABSTRACT, wire.abstract_len)] {
        if (len != 0 && flags & flag == 0) || flags & (PATH | ABSTRACT) == PATH | ABSTRACT {
            let seen = u64::from(flags);
            return Err(DecodeError::Reserved { kind: kind::CONNECT_UNIX, member: "socket_flags", seen });
        }
    }
    let mut strings = Strings::new(kind::CONNECT_UNIX, message, rest);
    let path = WalkedPath { names: strings.take(wire.path_len)?, flags: wire.path_flags };
    let abstract_name = strings.take(wire.abstract_len)?;
    strings.end()?;
    Ok(Event::ConnectUnix(ConnectUnix { header, wire, path, abstract_name }))
}

fn connect_vsock<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<socket::ConnectVsock>(message, kind::CONNECT_VSOCK)?;
    zero(kind::CONNECT_VSOCK, "connect_vsock.reserved", u32::from(wire.reserved))?;
    known_bits(kind::CONNECT_VSOCK, "socket_flags", wire.socket_flags, socket::socket_flag::VSOCK)?;
    Strings::new(kind::CONNECT_VSOCK, message, rest).end()?;
    Ok(Event::ConnectVsock(ConnectVsock { header, wire }))
}

fn socket_made<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<socket::SocketMade>(message, kind::SOCKET)?;
    Strings::new(kind::SOCKET, message, rest).end()?;
    Ok(Event::SocketMade(SocketMade { header, wire }))
}

fn open<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<file::Open>(message, kind::OPEN)?;
    zero(kind::OPEN, "open.reserved", u32::from(wire.reserved))?;
    known_bits(kind::OPEN, "open_flags", wire.open_flags, file::open_flag::ALL)?;
    known_bits(kind::OPEN, "path_flags", wire.path_flags, file::path_flag::ALL)?;
    let mut strings = Strings::new(kind::OPEN, message, rest);
    let path = WalkedPath { names: strings.take(wire.path_len)?, flags: wire.path_flags };
    let asked = Claim(strings.take(wire.asked_len)?);
    strings.end()?;
    Ok(Event::Open(Open { header, wire, path, asked }))
}

fn change<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<change::Change>(message, kind::CHANGE)?;
    zero(kind::CHANGE, "change.reserved", u32::from(wire.reserved))?;
    known_bits(kind::CHANGE, "change_flags", wire.change_flags, change::change_flag::CHANGE)?;
    let call = ChangeCall::of(wire.nr, &wire.args).ok_or(DecodeError::Reserved {
        kind: kind::CHANGE,
        member: "nr",
        seen: u64::from(wire.nr),
    })?;
    let mut strings = Strings::new(kind::CHANGE, message, rest);
    let path = facts(kind::CHANGE, &wire.facts, &mut strings)?;
    let first = Claim(strings.take(wire.asked_len)?);
    let second = Claim(strings.take(wire.second_len)?);
    strings.end()?;
    Ok(Event::Change(Change { header, wire, call, path, first, second }))
}

fn close<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<change::Close>(message, kind::CLOSE)?;
    all_zero(kind::CLOSE, "close.reserved", wire.reserved)?;
    known_bits(kind::CLOSE, "change_flags", wire.change_flags, change::change_flag::BY_DESCRIPTOR)?;
    let mut strings = Strings::new(kind::CLOSE, message, rest);
    let path = facts(kind::CLOSE, &wire.facts, &mut strings)?;
    strings.end()?;
    Ok(Event::Close(Close { header, wire, path }))
}

fn map_call<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<change::MapCall>(message, kind::MAP_CALL)?;
    all_zero(kind::MAP_CALL, "map_call.reserved", wire.reserved)?;
    known_bits(kind::MAP_CALL, "change_flags", wire.change_flags, change::change_flag::BY_DESCRIPTOR)?;
    let mut strings = Strings::new(kind::MAP_CALL, message, rest);
    let path = facts(kind::MAP_CALL, &wire.facts, &mut strings)?;
    strings.end()?;
    Ok(Event::MapCall(MapCall { header, wire, path }))
}

/// The path of the file that the facts are about.
fn facts<'a>(kind: u16, facts: &change::Facts, strings: &mut Strings<'a>) -> Result<WalkedPath<'a>, DecodeError> {
    zero(kind, "facts.reserved", u32::from(facts.reserved))?;
    known_bits(kind, "path_flags", facts.path_flags, file::path_flag::ALL)?;
    Ok(WalkedPath { names: strings.take(facts.path_len)?, flags: facts.path_flags })
}

/// Where the thread name lies, which events borrow from the message.
const COMM: std::ops::Range<usize> = {
    let start = std::mem::offset_of!(header::Header, comm);
    start..start + 16
};

/// The fixed part, copied out: a message replayed from a file need not be aligned as those in a ring are.
pub(super) fn fixed<T>(message: &[u8], kind: u16) -> Result<(T, &[u8]), DecodeError>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable,
{
    T::read_from_prefix(message).map_err(|_short| DecodeError::Short {
        kind,
        expected: size_of::<T>(),
        seen: message.len(),
    })
}

/// The strings behind the fixed part, in order.
pub(super) struct Strings<'a> {
    kind: u16,
    whole: usize,
    rest: &'a [u8],
    wanted: usize,
}

impl<'a> Strings<'a> {
    pub(super) fn new(kind: u16, message: &'a [u8], rest: &'a [u8]) -> Self {
        Self { kind, whole: message.len(), rest, wanted: message.len() - rest.len() }
    }

    pub(super) fn take(&mut self, len: u16) -> Result<&'a [u8], DecodeError> {
        self.wanted += usize::from(len);
        let (string, rest) = self.rest.split_at_checked(usize::from(len)).ok_or(DecodeError::Length {
            kind: self.kind,
            expected: self.wanted,
            seen: self.whole,
        })?;
        self.rest = rest;
        Ok(string)
    }

    pub(super) fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Length { kind: self.kind, expected: self.wanted, seen: self.whole })
    }
}

pub(super) fn zero(kind: u16, member: &'static str, seen: u32) -> Result<(), DecodeError> {
    if seen == 0 { Ok(()) } else { Err(DecodeError::Reserved { kind, member, seen: u64::from(seen) }) }
}

fn all_zero(kind: u16, member: &'static str, seen: [u16; 3]) -> Result<(), DecodeError> {
    seen.into_iter().try_for_each(|seen| zero(kind, member, u32::from(seen)))
}

pub(super) fn known_bits<T: Into<u64>>(kind: u16, member: &'static str, seen: T, all: T) -> Result<(), DecodeError> {
    let (seen, all) = (seen.into(), all.into());
    if seen & !all == 0 { Ok(()) } else { Err(DecodeError::Reserved { kind, member, seen }) }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::file::path_flag;
    use agent_evidence::record::ProcessCookie;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    fn head(kind: u16, class: u8, len: usize) -> header::Header {
        let mut head = header::Header::new_zeroed();
        head.kind = kind;
        head.class = class;
        head.version = WIRE_VERSION;
        head.len = u32::try_from(len).unwrap();
        head.seq = 7;
        head.tgid = 42;
        head.scope_id = 5;
        head.comm = *b"python3\0\0\0\0\0\0\0\0\0";
        head
    }

    fn exec_message() -> Vec<u8> {
        let strings = b"true\0bin\0tmp\0/bin/truetrue\0x y\0";
        let mut wire = process::Exec::new_zeroed();
        wire.header = head(kind::EXEC, class::PROCESS, size_of::<process::Exec>() + strings.len());
        (wire.path_len, wire.cwd_len, wire.name_len, wire.argv_len) = (9, 4, 9, 9);
        (wire.path_flags, wire.cwd_flags) = (path_flag::COMPLETE, path_flag::COMPLETE);
        [wire.as_bytes(), strings].concat()
    }

    fn whole_message() -> Vec<u8> {
        let strings = b"/bin/true/tmp/bin/truetrue\0x y\0";
        let mut wire = process::ExecWhole::new_zeroed();
        wire.exec.header = head(kind::EXEC_WHOLE, class::PROCESS, size_of::<process::ExecWhole>() + strings.len());
        let exec = &mut wire.exec;
        (exec.path_len, exec.cwd_len, exec.name_len, exec.argv_len) = (9, 4, 9, 9);
        (exec.path_flags, exec.cwd_flags) = (path_flag::IN_ORDER, path_flag::IN_ORDER);
        exec.exec_flags = process::exec_flag::HASHED | process::exec_flag::SET_ID;
        wire.sha256 = [7; 32];
        wire.before_euid = 1000;
        [wire.as_bytes(), strings].concat()
    }

    fn connect_message(kind: u16, family: u16) -> Vec<u8> {
        let mut wire = connect::Connect::new_zeroed();
        wire.header = head(kind, class::NETWORK, size_of::<connect::Connect>());
        wire.endpoints.family = family;
        wire.endpoints.remote[..4].copy_from_slice(&[127, 0, 0, 1]);
        wire.endpoints.connect_flags = match kind {
            kind::SEND => connect::connect_flag::RESULT_UNOBSERVED,
            kind::ACCEPT | kind::LISTEN => connect::connect_flag::LOCAL_KNOWN,
            _ => 0,
        };
        if kind == kind::LISTEN {
            wire.endpoints.remote = [0; 16];
        }
        wire.as_bytes().to_vec()
    }

    fn flow_message() -> Vec<u8> {
        let mut wire = socket::Flow::new_zeroed();
        wire.header = head(kind::FLOW, class::NETWORK, size_of::<socket::Flow>());
        wire.endpoints.family = connect::AF_INET;
        (wire.sent, wire.received, wire.began_ns) = (3, 4, 5);
        wire.as_bytes().to_vec()
    }

    fn unix_message(flags: u16, path: &[u8], name: &[u8]) -> Vec<u8> {
        let mut wire = socket::ConnectUnix::new_zeroed();
        let len = size_of::<socket::ConnectUnix>() + path.len() + name.len();
        wire.header = head(kind::CONNECT_UNIX, class::NETWORK, len);
        wire.socket_flags = flags;
        wire.path_len = u16::try_from(path.len()).unwrap();
        wire.abstract_len = u16::try_from(name.len()).unwrap();
        (wire.peer_tgid, wire.peer_start_ns) = (9, 5 << 22);
        [wire.as_bytes(), path, name].concat()
    }

    /// One good message of every kind.
    fn samples() -> Vec<Vec<u8>> {
        let mut fork = process::Fork::new_zeroed();
        fork.header = head(kind::FORK, class::PROCESS, size_of::<process::Fork>());
        let mut exit = process::Exit::new_zeroed();
        exit.header = head(kind::EXIT, class::PROCESS, size_of::<process::Exit>());
        let life = |kind| {
            let mut life = cgroup::CgroupLife::new_zeroed();
            life.header = head(kind, class::CGROUP, size_of::<cgroup::CgroupLife>() + 4);
            life.path_len = 4;
            [life.as_bytes(), b"/a/b"].concat()
        };
        let mut moved = cgroup::CgroupMove::new_zeroed();
        moved.header = head(kind::CGROUP_MOVE, class::CGROUP, size_of::<cgroup::CgroupMove>() + 2);
        moved.path_len = 2;
        let mut open = file::Open::new_zeroed();
        open.header = head(kind::OPEN, class::FILE, size_of::<file::Open>() + 7);
        (open.path_len, open.asked_len) = (4, 3);
        let [close, mapped] = descriptor_messages();
        let mut vsock = socket::ConnectVsock::new_zeroed();
        vsock.header = head(kind::CONNECT_VSOCK, class::NETWORK, size_of::<socket::ConnectVsock>());
        let mut made = socket::SocketMade::new_zeroed();
        made.header = head(kind::SOCKET, class::NETWORK, size_of::<socket::SocketMade>());
        let seen = |kind| {
            let mut seen = file::Seen::new_zeroed();
            seen.header = head(kind, class::FILE, size_of::<file::Seen>() + 4);
            seen.path_len = 4;
            [seen.as_bytes(), b"f\0d\0"].concat()
        };
        vec![
            whole_message(),
            seen(kind::FILE_MAP),
            seen(kind::FILE_RECEIVED),
            fork.as_bytes().to_vec(),
            exec_message(),
            exit.as_bytes().to_vec(),
            life(kind::CGROUP_CREATE),
            life(kind::CGROUP_REMOVE),
            [moved.as_bytes(), b"/c"].concat(),
            connect_message(kind::CONNECT, connect::AF_INET),
            connect_message(kind::CONNECT_DONE, connect::AF_INET6),
            [open.as_bytes(), b"f\0d\0", b"d/f"].concat(),
            change_message(),
            close,
            mapped,
            connect_message(kind::SEND, connect::AF_INET),
            connect_message(kind::LISTEN, connect::AF_INET6),
            connect_message(kind::ACCEPT, connect::AF_INET),
            flow_message(),
            unix_message(socket::socket_flag::PATH, b"s\0run\0", b""),
            unix_message(socket::socket_flag::ABSTRACT | socket::socket_flag::PEER_KNOWN, b"", b"\0x"),
            vsock.as_bytes().to_vec(),
            made.as_bytes().to_vec(),
        ]
        .into_iter()
        .chain(privileged_samples())
        .collect()
    }

    /// One good message of every kind of privileged act, and of a failed exec.
    fn privileged_samples() -> Vec<Vec<u8>> {
        use agent_common::privilege::{
            Access, Bpf, Creds, IoUring, KernelLoad, Key, Mount, Namespace, Signal, access, act_flag, kernel_code,
            mount, namespace,
        };
        macro_rules! sample {
            ($wire:ty, $kind:ident, $strings:expr, |$event:ident| $set:expr) => {{
                let strings: &[u8] = $strings;
                let mut $event = <$wire>::new_zeroed();
                let class = if kind::$kind == kind::EXEC_FAILED { class::PROCESS } else { class::PRIVILEGE };
                $event.header = head(kind::$kind, class, size_of::<$wire>() + strings.len());
                $set;
                [$event.as_bytes(), strings].concat()
            }};
        }
        vec![
            sample!(process::ExecFailed, EXEC_FAILED, b"./tool", |failed| {
                (failed.result, failed.name_len) = (-13, 6);
            }),
            sample!(Creds, CREDS, b"", |creds| creds.after.uid = 1000),
            sample!(Access, ACCESS, b"", |reached| {
                (reached.how, reached.act_flags) = (access::LAST, act_flag::ALL);
            }),
            sample!(Signal, SIGNAL, b"", |signal| signal.signal = 9),
            sample!(Mount, MOUNT, b"mnt\0tmpfs", |mounted| {
                (mounted.op, mounted.path_len, mounted.source_len) = (mount::LAST, 4, 5);
            }),
            sample!(Namespace, NAMESPACE, b"", |made| made.op = namespace::LAST),
            sample!(Bpf, BPF, b"", |call| call.cmd = 5),
            sample!(KernelLoad, KERNEL_LOAD, b"x.ko\0", |load| {
                (load.what, load.path_len) = (kernel_code::LAST, 5);
            }),
            sample!(Key, KEY, b"", |key| key.serial = -3),
            sample!(IoUring, IO_URING, b"", |ring| ring.entries = 8),
        ]
    }

    fn change_message() -> Vec<u8> {
        let mut wire = change::Change::new_zeroed();
        wire.header = head(kind::CHANGE, class::FILE, size_of::<change::Change>() + 4 + 3 + 5);
        wire.nr = u32::try_from(libc::SYS_renameat).unwrap();
        wire.change_flags = change::change_flag::BY_NAME | change::change_flag::SECOND;
        (wire.facts.path_len, wire.asked_len, wire.second_len) = (4, 3, 5);
        [wire.as_bytes(), b"f\0d\0", b"d/f", b"d/new"].concat()
    }

    fn descriptor_messages() -> [Vec<u8>; 2] {
        let mut close = change::Close::new_zeroed();
        close.header = head(kind::CLOSE, class::FILE, size_of::<change::Close>() + 4);
        close.facts.path_len = 4;
        let mut mapped = change::MapCall::new_zeroed();
        mapped.header = head(kind::MAP_CALL, class::FILE, size_of::<change::MapCall>() + 4);
        mapped.facts.path_len = 4;
        [[close.as_bytes(), b"f\0d\0"].concat(), [mapped.as_bytes(), b"f\0d\0"].concat()]
    }

    fn with_len(mut message: Vec<u8>) -> Vec<u8> {
        let len = u32::try_from(message.len()).unwrap();
        message[4..8].copy_from_slice(&len.to_ne_bytes());
        message
    }

    #[test]
    fn every_kind_gives_its_header_back_wherever_it_lies_in_memory() {
        for message in samples() {
            for shift in 0..8 {
                let moved = [vec![0; shift], message.clone()].concat();
                let event = decode(&moved[shift..]).unwrap();
                assert_eq!((event.header().number.seq, event.header().scope_id), (7, 5));
                assert_eq!(event.header().comm, Claim(b"python3"));
                assert_eq!(number_of(&moved[shift..]), Some(event.header().number));
            }
        }
    }

    #[test]
    fn every_truncation_of_every_kind_is_refused() {
        for message in samples() {
            for len in 0..message.len() {
                match decode(&message[..len]) {
                    Err(DecodeError::Short { kind: 0, expected: 112, seen }) => assert!(seen == len && len < 112),
                    Err(DecodeError::Length { seen, .. }) => assert!(seen == len && len >= 112),
                    other => panic!("{len} bytes: {other:?}"),
                }
                if len >= 112 {
                    // With the header's length put right, the fixed part or a string is what is missing.
                    match decode(&with_len(message[..len].to_vec())) {
                        Err(DecodeError::Short { seen, .. } | DecodeError::Length { seen, .. }) => {
                            assert_eq!(seen, len)
                        }
                        other => panic!("{len} bytes: {other:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_byte_too_many_is_refused() {
        for mut message in samples() {
            message.push(0);
            assert!(matches!(decode(&message), Err(DecodeError::Length { .. })));
            assert!(matches!(decode(&with_len(message)), Err(DecodeError::Length { .. })));
        }
    }

    #[test]
    fn every_changed_bit_gives_an_event_or_an_error() {
        for message in samples() {
            for bit in 0..message.len() * 8 {
                let mut message = message.clone();
                message[bit / 8] ^= 1 << (bit % 8);
                let _ = decode(&message);
            }
        }
    }

    #[test]
    fn reserved_members_and_undefined_flags_are_refused() {
        let refused = |message: &[u8], wanted: &'static str| match decode(message) {
            Err(DecodeError::Reserved { member, .. }) => assert_eq!(member, wanted),
            other => panic!("{wanted}: {other:?}"),
        };
        let mut message = exec_message();
        message[std::mem::offset_of!(header::Header, reserved)] = 1;
        refused(&message, "header.reserved");
        let mut message = exec_message();
        message[std::mem::offset_of!(header::Header, flags) + 3] = 0x80;
        refused(&message, "header.flags");
        let mut message = exec_message();
        message[std::mem::offset_of!(process::Exec, cwd_flags) + 1] = 0x80;
        refused(&message, "cwd_flags");
        let mut message = exec_message();
        let flags = process::exec_flag::HASHED.to_ne_bytes();
        message[std::mem::offset_of!(process::Exec, exec_flags)..][..2].copy_from_slice(&flags);
        refused(&message, "exec_flags");
        let mut message = whole_message();
        message[std::mem::offset_of!(process::Exec, exec_flags)..][..2].fill(0);
        refused(&message, "sha256");
        let mut message = connect_message(kind::CONNECT, connect::AF_INET);
        let remote =
            std::mem::offset_of!(connect::Connect, endpoints) + std::mem::offset_of!(connect::Endpoints, remote);
        message[remote + 4] = 1;
        refused(&message, "bytes after an IPv4 address");
        refused(&connect_message(kind::CONNECT, 1), "family");
        let at = |message: &[u8], place: usize| {
            let mut message = message.to_vec();
            message[place] = 0xff;
            message
        };
        let call = change_message();
        refused(&at(&call, std::mem::offset_of!(change::Change, nr) + 3), "nr");
        refused(&at(&call, std::mem::offset_of!(change::Change, reserved)), "change.reserved");
        refused(&at(&call, std::mem::offset_of!(change::Change, change_flags) + 1), "change_flags");
        let facts = std::mem::offset_of!(change::Change, facts);
        refused(&at(&call, facts + std::mem::offset_of!(change::Facts, reserved)), "facts.reserved");
        refused(&at(&call, facts + std::mem::offset_of!(change::Facts, path_flags) + 1), "path_flags");
        let [close, mapped] = descriptor_messages();
        refused(&at(&close, std::mem::offset_of!(change::Close, reserved) + 4), "close.reserved");
        // A close has no strings of the caller, so no bits that speak of them.
        refused(&at(&close, std::mem::offset_of!(change::Close, change_flags)), "change_flags");
        refused(&at(&mapped, std::mem::offset_of!(change::MapCall, reserved)), "map_call.reserved");
        refused(&at(&mapped, std::mem::offset_of!(change::MapCall, change_flags)), "change_flags");
    }

    #[test]
    fn what_a_kind_of_network_event_cannot_say_is_refused() {
        let refused = |message: &[u8], wanted: &'static str| match decode(message) {
            Err(DecodeError::Reserved { member, .. }) => assert_eq!(member, wanted),
            other => panic!("{wanted}: {other:?}"),
        };
        let endpoints = std::mem::offset_of!(connect::Connect, endpoints);
        let at = |member: usize| endpoints + member;
        let flags = at(std::mem::offset_of!(connect::Endpoints, connect_flags));
        let result = at(std::mem::offset_of!(connect::Endpoints, result));
        let port = at(std::mem::offset_of!(connect::Endpoints, remote_port));
        let with = |kind: u16, place: usize, byte: u8| {
            let mut message = connect_message(kind, connect::AF_INET);
            message[place] = byte;
            message
        };
        // A send has no result, so it must say so; only a send is the first of many; only what is served is racy.
        refused(&with(kind::SEND, flags, 0), "connect_flags");
        refused(&with(kind::CONNECT, flags, 1 << 4), "connect_flags");
        refused(&with(kind::CONNECT, flags, 1 << 5), "connect_flags");
        refused(&with(kind::ACCEPT, flags, 0), "connect_flags");
        refused(&with(kind::LISTEN, flags, 1 << 0 | 1 << 1), "connect_flags");
        refused(&with(kind::ACCEPT, result, 1), "result");
        refused(&with(kind::LISTEN, port, 1), "remote address");
        let mut message = flow_message();
        message[flags] = 1;
        refused(&message, "connect_flags");
        // A name that no flag announces, and one of both sorts.
        refused(&unix_message(0, b"s\0", b""), "socket_flags");
        refused(&unix_message(socket::socket_flag::PATH, b"", b"x"), "socket_flags");
        refused(&unix_message(socket::socket_flag::PATH | socket::socket_flag::ABSTRACT, b"s\0", b"x"), "socket_flags");
        refused(&unix_message(1 << 4, b"", b""), "socket_flags");
    }

    #[test]
    fn a_flow_and_a_unix_connect_keep_what_was_written() {
        let message = flow_message();
        let Event::Flow(flow) = decode(&message).unwrap() else { panic!("not a flow") };
        assert_eq!((flow.sent, flow.received, flow.began), (3, 4, BootTime(5)));
        let message = unix_message(socket::socket_flag::PATH | socket::socket_flag::PEER_KNOWN, b"s\0run\0", b"");
        let Event::ConnectUnix(unix) = decode(&message).unwrap() else { panic!("not a connect_unix") };
        assert_eq!((unix.path.names, unix.abstract_name), (b"s\0run\0".as_slice(), b"".as_slice()));
        assert_eq!(unix.peer(), Some(ProcessCookie::derive(BootTime(5 << 22), 9)));
        let message = unix_message(socket::socket_flag::PATH, b"s\0", b"");
        let Event::ConnectUnix(unix) = decode(&message).unwrap() else { panic!("not a connect_unix") };
        assert_eq!(unix.peer(), None, "not said to be known");
    }

    #[test]
    fn what_a_kind_of_privileged_act_cannot_say_is_refused() {
        let refused = |message: &[u8], wanted: &'static str| match decode(message) {
            Err(DecodeError::Reserved { member, .. }) => assert_eq!(member, wanted),
            other => panic!("{wanted}: {other:?}"),
        };
        // One bit beyond those that are defined, a number beyond those that are.
        for (kind, at, wanted) in [
            (kind::CREDS, std::mem::offset_of!(agent_common::privilege::Creds, before) + 68, "before.reserved"),
            (kind::CREDS, std::mem::offset_of!(agent_common::privilege::Creds, after) + 68, "after.reserved"),
            (kind::ACCESS, std::mem::offset_of!(agent_common::privilege::Access, act_flags) + 1, "act_flags"),
            (kind::ACCESS, std::mem::offset_of!(agent_common::privilege::Access, how) + 1, "how"),
            (kind::ACCESS, std::mem::offset_of!(agent_common::privilege::Access, reserved), "access.reserved"),
            (kind::SIGNAL, std::mem::offset_of!(agent_common::privilege::Signal, act_flags) + 1, "act_flags"),
            (kind::MOUNT, std::mem::offset_of!(agent_common::privilege::Mount, act_flags) + 1, "act_flags"),
            (kind::MOUNT, std::mem::offset_of!(agent_common::privilege::Mount, path_flags) + 1, "path_flags"),
            (kind::MOUNT, std::mem::offset_of!(agent_common::privilege::Mount, op) + 1, "op"),
            (kind::MOUNT, std::mem::offset_of!(agent_common::privilege::Mount, reserved), "mount.reserved"),
            (kind::MOUNT, std::mem::offset_of!(agent_common::privilege::Mount, reserved_too), "mount.reserved_too"),
            (kind::NAMESPACE, std::mem::offset_of!(agent_common::privilege::Namespace, op) + 1, "op"),
            (kind::NAMESPACE, std::mem::offset_of!(agent_common::privilege::Namespace, act_flags) + 1, "act_flags"),
            (kind::NAMESPACE, std::mem::offset_of!(agent_common::privilege::Namespace, reserved), "namespace.reserved"),
            (kind::BPF, std::mem::offset_of!(agent_common::privilege::Bpf, act_flags) + 1, "act_flags"),
            (kind::BPF, std::mem::offset_of!(agent_common::privilege::Bpf, reserved), "bpf.reserved"),
            (kind::KERNEL_LOAD, std::mem::offset_of!(agent_common::privilege::KernelLoad, what) + 1, "what"),
            (kind::KERNEL_LOAD, std::mem::offset_of!(agent_common::privilege::KernelLoad, act_flags) + 1, "act_flags"),
            (kind::KEY, std::mem::offset_of!(agent_common::privilege::Key, act_flags) + 1, "act_flags"),
            (kind::IO_URING, std::mem::offset_of!(agent_common::privilege::IoUring, act_flags) + 1, "act_flags"),
            (kind::IO_URING, std::mem::offset_of!(agent_common::privilege::IoUring, reserved), "io_uring.reserved"),
            (kind::EXEC_FAILED, std::mem::offset_of!(process::ExecFailed, exec_flags), "exec_flags"),
        ] {
            let sample = |message: &Vec<u8>| u16::from_ne_bytes([message[0], message[1]]) == kind;
            let mut message = privileged_samples().into_iter().find(sample).unwrap();
            message[at] |= 0x80;
            refused(&message, wanted);
        }
    }

    #[test]
    fn another_version_kind_or_class_is_refused() {
        let mut message = exec_message();
        message[3] = WIRE_VERSION + 1;
        assert_eq!(decode(&message), Err(DecodeError::Version { seen: WIRE_VERSION + 1 }));
        let mut message = exec_message();
        message[0] = 200;
        assert_eq!(decode(&message), Err(DecodeError::Kind { seen: 200 }));
        let mut message = exec_message();
        message[2] = class::FILE;
        let class = DecodeError::Class { kind: kind::EXEC, expected: class::PROCESS, seen: class::FILE };
        assert_eq!(decode(&message), Err(class));
    }

    #[test]
    fn a_change_has_its_path_and_two_strings_and_says_which_call_it_was() {
        let message = change_message();
        let Event::Change(change) = decode(&message).unwrap() else { panic!("not a change") };
        assert_eq!(change.path.names, b"f\0d\0");
        assert_eq!((change.asked(), change.asked_to()), (Some(Claim(b"d/f")), Some(Claim(b"d/new"))));
        assert_eq!(change.call.op, agent_evidence::record::FileOp::Rename);
        let mut linked = message.clone();
        let nr = u32::try_from(libc::SYS_symlinkat).unwrap();
        let place = std::mem::offset_of!(change::Change, nr);
        linked[place..place + 4].copy_from_slice(&nr.to_ne_bytes());
        let Event::Change(change) = decode(&linked).unwrap() else { panic!("not a change") };
        assert_eq!((change.asked(), change.asked_to()), (Some(Claim(b"d/new")), Some(Claim(b"d/f"))));
        let mut unread = message;
        unread[std::mem::offset_of!(change::Change, change_flags)] |= 0x90;
        let Event::Change(change) = decode(&unread).unwrap() else { panic!("not a change") };
        assert_eq!((change.asked(), change.asked_to()), (None, None));
    }

    #[test]
    fn an_exec_has_its_four_strings() {
        let message = exec_message();
        let Event::Exec(exec) = decode(&message).unwrap() else { panic!("not an exec") };
        assert_eq!((exec.path.names, exec.cwd.names), (b"true\0bin\0".as_slice(), b"tmp\0".as_slice()));
        assert_eq!((exec.invoked.0, exec.argv), (b"/bin/true".as_slice(), b"true\0x y\0".as_slice()));
        assert_eq!(exec.more, None);
        let message = whole_message();
        let Event::Exec(exec) = decode(&message).unwrap() else { panic!("not an exec") };
        assert_eq!((exec.path.names, exec.cwd.names), (b"/bin/true".as_slice(), b"/tmp".as_slice()));
        assert_eq!((exec.invoked.0, exec.argv), (b"/bin/true".as_slice(), b"true\0x y\0".as_slice()));
        assert_eq!(exec.more.map(|more| (more.sha256, more.before_euid)), Some((Some([7; 32]), 1000)));
    }
}
