//! Entries on their way out of the host: the sealed log, durable cursors, mappings and sinks.
//!
//! Exporters read the store and nothing else. A sink that is dead, slow or full makes its own
//! events late; it cannot hold back capture, the log, or another sink. Delivery is at least once:
//! what is sent twice carries the same dedupe id, origin and index of the entry.

pub mod cursor;
pub mod join;
pub mod ocsf;
pub mod ocsf_file;
pub mod sealed;
