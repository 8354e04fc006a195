//! What crosses the boundary between the eBPF programs and user space.
//!
//! Two things cross it: *messages* in the rings (one `#[repr(C)]` struct per event kind, each beginning with
//! [`header::Header`] and followed by the byte strings whose lengths it states) and *map values* (counters, scope,
//! settings, struct offsets). Both sides are compiled from this crate, and nothing else describes these bytes.
//!
//! # Layout rules
//! - Native byte order: the bytes never leave the host; capture files carry [`WIRE_VERSION`] and the architecture.
//! - Explicit sizes only, no padding: `zerocopy::IntoBytes` refuses a struct with padding at compile time, and each
//!   struct has its size asserted beneath it, because a change of size is a change of the wire.
//! - Reserved bytes are written as zero and checked to be zero by the decoder.
//! - A message is exactly as long as its fixed part plus its strings, rounded up to nothing: the ring's own length
//!   field and [`header::Header::len`] must agree.
//!
//! # Adding an event
//! Add the kind to [`header::kind`], the struct beside its relatives with its size assertion, the decoder arm in
//! `agent::event::decode`, and raise [`WIRE_VERSION`] if any existing layout changed.

#![cfg_attr(not(feature = "user"), no_std)]

pub mod cgroup;
pub mod change;
pub mod connect;
pub mod file;
pub mod globals;
pub mod header;
pub mod limits;
pub mod privilege;
pub mod process;
pub mod socket;
pub mod stats;

#[cfg(feature = "user")]
mod pod;

/// Version of every layout in this crate. Part of the pin directory's name, so that a daemon never reads a ring
/// or a map written under another layout.
pub const WIRE_VERSION: u8 = 1;
