//! TPM attestation: what a TPM's structures say, and what they are signed about. Nothing here talks to a TPM.
//!
//! | module | what |
//! |---|---|
//! | [`tpm`] | structures of the TPM 2.0 Library, Part 2: strict readers, the one writing of each, object and NV names |
//! | [`key`] | the attestation key: what it must be, and verification of what it signed |
//! | [`cert`] | certificates: who vouches that the key is a TPM's |
//! | [`credential`] | a secret that only the TPM of an endorsement key can open, made without a TPM |
//! | [`enroll`] | the files by which an authority comes to vouch for a key |
//! | [`statement`] | the 32 bytes of qualifying data that this format has a TPM sign |
//! | [`pcr`] | registers, the digest of a quote over them, and the values that a trust file allows |
//! | [`event_log`], [`ima`] | logs of what was measured into registers, by the firmware and by the kernel |
//!
//! Every structure is a claim until a signature over it was verified by [`key::Ak::verify`], and even then it says only what
//! the holder of that key says; that the key lives in a TPM is for a certificate to say, or for nobody.

#![forbid(unsafe_code)]

pub mod cert;
pub mod credential;
pub mod enroll;
pub mod event_log;
pub mod ima;
pub mod key;
pub mod pcr;
pub mod statement;
pub mod tpm;

mod little;

#[cfg(test)]
pub(crate) mod testdata;
