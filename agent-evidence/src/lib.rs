//! The evidence: records, the log they form, and its verification.
//!
//! Pure: no clock, file, network or environment; bytes and times come in as arguments. `docs/FORMAT.md` is the
//! specification of every byte that this crate reads and writes.
//!
//! | module | what |
//! |---|---|
//! | [`record`] | one entry as Rust values, and the one encoding of it |
//! | [`chain`] | running hashes of sessions and of the control chain |
//! | [`tree`], [`tiles`], [`packed`] | RFC 6962 tree and proofs; C2SP tiles and bundles; many bundles in one compressed file |
//! | [`kept`] | what is left of pruned bundles |
//! | [`blob`] | contents beside the log that entries refer to by digest |
//! | [`note`], [`checkpoint`], [`epoch`] | C2SP signed notes and checkpoints; the statement that begins an epoch |
//! | [`cosignature`], [`policy`], [`proof`] | C2SP cosignatures of witnesses, policies of quorums, and proofs of single entries |
//! | [`mod@prove`] | proofs made from a log's tiles |
//! | [`witness`] | the protocol of witnesses, without the network |
//! | [`attest`] | TPM attestation: structures, attestation keys, what is attested, who vouches |
//! | [`bundle`] | evidence bundles: sessions of a log in one file |
//! | [`verify`], [`trust`] | from a whole log and a trust file to a report |
//!
//! The feature `cli` adds `command`, the one module that reads files, and the program `affiant-verify`; the feature `http` adds
//! `http`, which reads logs from web servers.
//!
//! Every input is untrusted: it may have been made by whoever the evidence is about.

#![forbid(unsafe_code)]

pub mod attest;
pub mod blob;
pub mod bundle;
pub mod chain;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod command;
pub mod cosignature;
pub mod epoch;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
#[cfg(feature = "http")]
pub mod http;
pub mod kept;
pub mod note;
pub mod packed;
pub mod policy;
pub mod proof;
pub mod prove;
pub mod record;
pub mod tiles;
pub mod tree;
pub mod trust;
pub mod verify;
pub mod witness;
