//! The Affiant agent: kernel events in, signed evidence out.

pub mod config;
pub mod pipeline;
pub mod workload;
