//! The Affiant agent: kernel events in, signed evidence out.
//!
//! # How a record comes about
//! [`probe`] arms the kernel side and gives two rings; [`event`] decodes a message; [`pipeline`] numbers it off, asks
//! [`workload`] whose cgroup it was, and appends a record to [`log`], which makes it durable and seals it with the
//! keys of [`sign`]. [`session`] opens and ends sessions over the control socket; [`export`] reads what is sealed and
//! sends it on; [`tpm`] has the host's TPM quote and count what was sealed; [`enroll`] has an authority vouch for the
//! TPM's key, by files; [`witness`] asks others to cosign what was sealed, and is such a witness for a site; [`cli`] is
//! the `affiant` command; [`app`] is the daemon's life on one page.
//!
//! # What holds everywhere
//! - One thread owns the log: there is no lock around it, and nobody else writes evidence.
//! - A ring's position advances only when the entries made from it are durable.
//! - Exporters read the store, never the pipeline: a dead sink makes its own events late and nothing else.
//! - Every queue, cache and string has a named limit. What is lost is counted in the kernel or here, and becomes a
//!   `gap` record.
//! - Attribution cannot fail: who is not known is recorded as unknown, with the reason.
//! - `unsafe` code of user space is in [`sys`] alone; time and randomness enter at named places
//!   ([`pipeline::Clock`]), so that tests pass them in.
//! - What the workload could have written is a claim, by type ([`event::Claim`]) and by place in the record.
//!
//! The evidence format and its verification are the crate `agent_evidence`; what crosses the boundary to the kernel
//! programs is `agent_common`.

pub mod app;
pub mod cli;
pub mod config;
pub mod enroll;
pub mod event;
pub mod export;
pub mod log;
pub mod pipeline;
pub mod probe;
pub mod session;
pub mod sign;
pub mod stopped;
pub mod sys;
pub mod telemetry;
pub mod tpm;
pub mod witness;
pub mod workload;
