//! End-to-end tests: the programs as an operator runs them, with real kernel events. Root is needed, and without it they fail.
//!
//! One test program for all of them, because each links the harness. Run by `cargo xtask test`, one at a time.

#![forbid(unsafe_code)]

mod crash;
mod differential;
mod environment;
mod evasion;
mod exactness;
mod export;
mod files;
mod network;
mod privacy;
mod privilege;
mod retention;
mod run;
mod storage;
mod stress;
mod succession;
mod tamper;
mod tpm;
mod witness;
