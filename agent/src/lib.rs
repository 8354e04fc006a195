//! The Affiant agent: kernel events in, signed evidence out.

pub mod config;
pub mod session;
pub mod log;
pub mod workload;
pub mod probe;
pub mod sys;
pub mod event;
pub mod cli;
pub mod export;
pub mod telemetry;
pub mod app;
pub mod pipeline;
pub mod sign;
