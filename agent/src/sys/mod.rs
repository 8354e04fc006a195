//! The only `unsafe` code of the agent's user space: system calls and mapped memory that no library offers in the
//! shape needed. Each file owns one kernel interface; nothing here decides anything.
#![expect(unsafe_code, reason = "user space's one home for system calls and mapped memory")]

pub mod locked;
pub mod mount;
pub mod ringbuf;
#[cfg(feature = "tpm")]
pub mod tss;
