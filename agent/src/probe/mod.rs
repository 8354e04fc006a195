//! Arms the kernel side: offsets, choice of a tier, load, attach, pin; takes over what an earlier daemon left pinned.
//!
//! Owns the eBPF object's life and the maps. Does not interpret messages ([`crate::event`] does) and does not
//! attribute them. After `arm`, capture goes on without this process: maps and links are pinned, and a killed daemon
//! leaves a ring that the next one reads on.

#![forbid(unsafe_code)]

mod backfill;
pub mod btf;
mod counters;
pub mod hooks;
mod load;
mod notes;
pub mod offsets;
mod ours;
mod pins;
mod preflight;
mod tiers;

pub use crate::sys::ringbuf::{RingError, RingReader};
pub use backfill::{Alive, TICK_NS, own_start_ticks};
pub use counters::{Counter, Counters, LossEntry};
pub use load::{HookCheck, HookReport, Probe, ProbeConfig, ProbeError, ProbeReport, RemovedSet, Rings, cgroup2_root};
pub use pins::PinSet;
pub use preflight::{Feature, Found, Preflight, preflight};
pub use tiers::{Abilities, Refusal, Tier, TierChoice};

/// How often a reader looks at the rings by itself, in milliseconds. The programs wake it only when a quarter of a
/// ring is unread; at the 150,000 opens per second two cores can do, 20 ms are 600 kB of 16 MiB.
pub const POLL_INTERVAL_MS: u64 = 20;
