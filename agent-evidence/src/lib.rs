//! The evidence: records, the log they form, and its verification. Pure: no clock, file, network or environment.

#![forbid(unsafe_code)]

pub mod record;
