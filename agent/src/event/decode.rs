//! The one reader of the kernel wire: bytes of a message to an [`Event`], checked, without allocation.
//!
//! A ring is memory that root can write, and a message could be of another version: lengths, kinds, reserved bytes
//! and unknown flag bits are all checked, and what does not fit is refused whole.

use agent_common::header::{self, class, flag, kind};
use agent_common::{WIRE_VERSION, cgroup, connect, file, process};
use agent_evidence::record::{BootTime, Class, KernelNumber};
use zerocopy::FromBytes;

use super::{
    CgroupLife, CgroupMove, Claim, Connect, Event, Exec, Exit, Fork, Header, Open, WalkedPath,
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
    let (wire, _) = header::Header::ref_from_prefix(message).map_err(|_short| DecodeError::Short {
        kind: 0,
        expected: size_of::<header::Header>(),
        seen: message.len(),
    })?;
    if wire.version != WIRE_VERSION {
        return Err(DecodeError::Version { seen: wire.version });
    }
    let kind = wire.kind;
    if usize::try_from(wire.len) != Ok(message.len()) {
        return Err(DecodeError::Length { kind, expected: usize::try_from(wire.len).unwrap_or(usize::MAX), seen: message.len() });
    }
    let (expected, known) = match kind {
        kind::FORK | kind::EXEC | kind::EXIT => (class::PROCESS, Class::Process),
        kind::CGROUP_CREATE | kind::CGROUP_REMOVE | kind::CGROUP_MOVE => (class::CGROUP, Class::Cgroup),
        kind::CONNECT | kind::CONNECT_DONE => (class::NETWORK, Class::Network),
        kind::OPEN => (class::FILE, Class::File),
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
        comm: Claim(until_nul(&wire.comm)),
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

fn exec<'a>(message: &'a [u8], header: Header<'a>) -> Result<Event<'a>, DecodeError> {
    let (wire, rest) = fixed::<process::Exec>(message, kind::EXEC)?;
    known_bits(kind::EXEC, "exec_flags", wire.exec_flags, process::exec_flag::ALL)?;
    known_bits(kind::EXEC, "path_flags", wire.path_flags, file::path_flag::ALL)?;
    known_bits(kind::EXEC, "cwd_flags", wire.cwd_flags, file::path_flag::ALL)?;
    let mut strings = Strings::new(kind::EXEC, message, rest);
    let path = WalkedPath { names: strings.take(wire.path_len)?, flags: wire.path_flags };
    let cwd = WalkedPath { names: strings.take(wire.cwd_len)?, flags: wire.cwd_flags };
    let invoked = Claim(strings.take(wire.name_len)?);
    let argv = strings.take(wire.argv_len)?;
    strings.end()?;
    Ok(Event::Exec(Exec { header, wire: *wire, path, cwd, invoked, argv }))
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
    let (wire, rest) = fixed::<connect::Connect>(message, kind)?;
    let endpoints = wire.endpoints;
    known_bits(kind, "connect_flags", endpoints.connect_flags, connect::connect_flag::ALL)?;
    if !matches!(endpoints.family, connect::AF_INET | connect::AF_INET6) {
        return Err(DecodeError::Reserved { kind, member: "family", seen: u64::from(endpoints.family) });
    }
    Strings::new(kind, message, rest).end()?;
    Ok(Connect { header, endpoints })
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
    Ok(Event::Open(Open { header, wire: *wire, path, asked }))
}

fn fixed<T>(message: &[u8], kind: u16) -> Result<(&T, &[u8]), DecodeError>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable,
{
    T::ref_from_prefix(message).map_err(|_short| DecodeError::Short {
        kind,
        expected: size_of::<T>(),
        seen: message.len(),
    })
}

/// The strings behind the fixed part, in order.
struct Strings<'a> {
    kind: u16,
    whole: usize,
    rest: &'a [u8],
    wanted: usize,
}

impl<'a> Strings<'a> {
    fn new(kind: u16, message: &'a [u8], rest: &'a [u8]) -> Self {
        Self { kind, whole: message.len(), rest, wanted: message.len() - rest.len() }
    }

    fn take(&mut self, len: u16) -> Result<&'a [u8], DecodeError> {
        self.wanted += usize::from(len);
        let (string, rest) = self.rest.split_at_checked(usize::from(len)).ok_or(DecodeError::Length {
            kind: self.kind,
            expected: self.wanted,
            seen: self.whole,
        })?;
        self.rest = rest;
        Ok(string)
    }

    fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Length { kind: self.kind, expected: self.wanted, seen: self.whole })
    }
}

fn zero(kind: u16, member: &'static str, seen: u32) -> Result<(), DecodeError> {
    if seen == 0 { Ok(()) } else { Err(DecodeError::Reserved { kind, member, seen: u64::from(seen) }) }
}

fn known_bits<T: Into<u64>>(kind: u16, member: &'static str, seen: T, all: T) -> Result<(), DecodeError> {
    let (seen, all) = (seen.into(), all.into());
    if seen & !all == 0 { Ok(()) } else { Err(DecodeError::Reserved { kind, member, seen }) }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}
