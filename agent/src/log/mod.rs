//! The tamper-evident log.

pub mod disk;
pub mod durable;
pub mod reader;
#[cfg(test)]
pub(crate) mod simdisk;
pub mod wal;
