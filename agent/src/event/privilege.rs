//! Privileged acts and failed execs, decoded.
//!
//! A name of an eBPF object or module, a type of a file system and every number are the kernel's own; `source` and
//! `invoked` are the caller's words.

use agent_common::privilege::{self, access, act_flag, kernel_code, mount, namespace};
use agent_common::{file, header::kind, process};

use super::decode::{DecodeError, Strings, fixed, known_bits, zero};
use super::{Claim, Header, WalkedPath};

/// An act whose message has no strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Act<'a, W> {
    /// The process.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: W,
}

/// An exec that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecFailed<'a> {
    /// The process, which goes on as it was.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: process::ExecFailed,
    /// The name given to exec.
    pub invoked: Claim<'a>,
}

/// A mount or root directory changed, or a change failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mount<'a> {
    /// The process.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: privilege::Mount,
    /// Where, when the call left an object to take it from (`KNOWN`).
    pub path: WalkedPath<'a>,
    /// What the caller called the thing mounted, moved or taken away.
    pub source: Claim<'a>,
}

/// Code was loaded into the kernel or removed, or an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelLoad<'a> {
    /// The process.
    pub header: Header<'a>,
    /// The fixed members, as on the wire.
    pub wire: privilege::KernelLoad,
    /// The file it came from, when it came from one (`KNOWN`).
    pub path: WalkedPath<'a>,
}

/// A member that holds one of a few numbers.
fn at_most(kind: u16, member: &'static str, seen: u32, last: u32) -> Result<(), DecodeError> {
    if seen <= last { Ok(()) } else { Err(DecodeError::Reserved { kind, member, seen: u64::from(seen) }) }
}

/// Reads an act without strings; `check` looks at its members.
fn act<'a, W>(
    message: &'a [u8],
    header: Header<'a>,
    kind: u16,
    check: impl FnOnce(&W) -> Result<(), DecodeError>,
) -> Result<Act<'a, W>, DecodeError>
where
    W: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable,
{
    let (wire, rest) = fixed::<W>(message, kind)?;
    check(&wire)?;
    Strings::new(kind, message, rest).end()?;
    Ok(Act { header, wire })
}

pub(super) fn exec_failed<'a>(message: &'a [u8], header: Header<'a>) -> Result<ExecFailed<'a>, DecodeError> {
    let (wire, rest) = fixed::<process::ExecFailed>(message, kind::EXEC_FAILED)?;
    known_bits(kind::EXEC_FAILED, "exec_flags", wire.exec_flags, process::exec_failed_flag::ALL)?;
    let mut strings = Strings::new(kind::EXEC_FAILED, message, rest);
    let invoked = Claim(strings.take(wire.name_len)?);
    strings.end()?;
    Ok(ExecFailed { header, wire, invoked })
}

pub(super) fn creds<'a>(message: &'a [u8], header: Header<'a>) -> Result<Act<'a, privilege::Creds>, DecodeError> {
    act(message, header, kind::CREDS, |wire: &privilege::Creds| {
        zero(kind::CREDS, "before.reserved", wire.before.reserved)?;
        zero(kind::CREDS, "after.reserved", wire.after.reserved)
    })
}

pub(super) fn access<'a>(message: &'a [u8], header: Header<'a>) -> Result<Act<'a, privilege::Access>, DecodeError> {
    act(message, header, kind::ACCESS, |wire: &privilege::Access| {
        zero(kind::ACCESS, "access.reserved", wire.reserved)?;
        at_most(kind::ACCESS, "how", wire.how, access::LAST)?;
        known_bits(kind::ACCESS, "act_flags", wire.act_flags, act_flag::ALL)
    })
}

pub(super) fn signal<'a>(message: &'a [u8], header: Header<'a>) -> Result<Act<'a, privilege::Signal>, DecodeError> {
    act(message, header, kind::SIGNAL, |wire: &privilege::Signal| {
        known_bits(kind::SIGNAL, "act_flags", wire.act_flags, act_flag::ALL)
    })
}

pub(super) fn mounted<'a>(message: &'a [u8], header: Header<'a>) -> Result<Mount<'a>, DecodeError> {
    let (wire, rest) = fixed::<privilege::Mount>(message, kind::MOUNT)?;
    zero(kind::MOUNT, "mount.reserved", u32::from(wire.reserved))?;
    zero(kind::MOUNT, "mount.reserved_too", wire.reserved_too)?;
    at_most(kind::MOUNT, "op", wire.op, mount::LAST)?;
    known_bits(kind::MOUNT, "act_flags", wire.act_flags, act_flag::ALL)?;
    known_bits(kind::MOUNT, "path_flags", wire.path_flags, file::path_flag::ALL)?;
    let mut strings = Strings::new(kind::MOUNT, message, rest);
    let path = WalkedPath { names: strings.take(wire.path_len)?, flags: wire.path_flags };
    let source = Claim(strings.take(wire.source_len)?);
    strings.end()?;
    Ok(Mount { header, wire, path, source })
}

pub(super) fn namespace<'a>(
    message: &'a [u8],
    header: Header<'a>,
) -> Result<Act<'a, privilege::Namespace>, DecodeError> {
    act(message, header, kind::NAMESPACE, |wire: &privilege::Namespace| {
        zero(kind::NAMESPACE, "namespace.reserved", wire.reserved)?;
        at_most(kind::NAMESPACE, "op", wire.op, namespace::LAST)?;
        known_bits(kind::NAMESPACE, "act_flags", wire.act_flags, act_flag::ALL)
    })
}

pub(super) fn bpf<'a>(message: &'a [u8], header: Header<'a>) -> Result<Act<'a, privilege::Bpf>, DecodeError> {
    act(message, header, kind::BPF, |wire: &privilege::Bpf| {
        zero(kind::BPF, "bpf.reserved", wire.reserved)?;
        known_bits(kind::BPF, "act_flags", wire.act_flags, act_flag::ALL)
    })
}

pub(super) fn kernel_load<'a>(message: &'a [u8], header: Header<'a>) -> Result<KernelLoad<'a>, DecodeError> {
    let (wire, rest) = fixed::<privilege::KernelLoad>(message, kind::KERNEL_LOAD)?;
    at_most(kind::KERNEL_LOAD, "what", wire.what, kernel_code::LAST)?;
    known_bits(kind::KERNEL_LOAD, "act_flags", wire.act_flags, act_flag::ALL)?;
    known_bits(kind::KERNEL_LOAD, "path_flags", wire.path_flags, file::path_flag::ALL)?;
    let mut strings = Strings::new(kind::KERNEL_LOAD, message, rest);
    let path = WalkedPath { names: strings.take(wire.path_len)?, flags: wire.path_flags };
    strings.end()?;
    Ok(KernelLoad { header, wire, path })
}

pub(super) fn key<'a>(message: &'a [u8], header: Header<'a>) -> Result<Act<'a, privilege::Key>, DecodeError> {
    act(message, header, kind::KEY, |wire: &privilege::Key| {
        known_bits(kind::KEY, "act_flags", wire.act_flags, act_flag::ALL)
    })
}

pub(super) fn io_uring<'a>(message: &'a [u8], header: Header<'a>) -> Result<Act<'a, privilege::IoUring>, DecodeError> {
    act(message, header, kind::IO_URING, |wire: &privilege::IoUring| {
        zero(kind::IO_URING, "io_uring.reserved", wire.reserved)?;
        known_bits(kind::IO_URING, "act_flags", wire.act_flags, act_flag::ALL)
    })
}
