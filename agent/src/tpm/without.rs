//! The device of an agent that was built without TPM support: there is none, and it says so.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Certified, Clock, CounterFacts, CounterKnown, Identity, Looked, Place, Quote, TpmError};

/// Cannot be: [`Device::open`] always fails.
pub struct Device(Infallible);

#[expect(clippy::missing_errors_doc, reason = "the documentation is that of the real one, which is built by default")]
impl Device {
    /// # Errors
    /// Always [`TpmError::NotBuilt`].
    pub fn open(_place: &Place, _keys: &Path) -> Result<Self, TpmError> {
        Err(TpmError::NotBuilt)
    }

    /// # Errors
    /// Always [`TpmError::NotBuilt`].
    pub fn look(_place: &Place, _index: u32) -> Result<Looked, TpmError> {
        Err(TpmError::NotBuilt)
    }

    /// # Errors
    /// Always [`TpmError::NotBuilt`].
    pub fn find_counter(_place: &Place, _known: &CounterKnown) -> Result<Option<u64>, TpmError> {
        Err(TpmError::NotBuilt)
    }

    /// # Errors
    /// Always [`TpmError::NotBuilt`].
    pub fn remove_counter(_place: &Place, _known: &CounterKnown) -> Result<Option<u64>, TpmError> {
        Err(TpmError::NotBuilt)
    }

    /// Never called.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        match self.0 {}
    }

    /// Where the sealed log key of an agent with TPM support lies.
    #[must_use]
    pub fn log_key_path(keys: &Path) -> PathBuf {
        keys.join("log.tpm")
    }

    /// Never called.
    pub fn quote(&self, _qualifying: &[u8; 32]) -> Result<Quote, TpmError> {
        match self.0 {}
    }

    /// Never called.
    pub fn certify_ak(&self, _qualifying: &[u8; 32]) -> Result<Certified, TpmError> {
        match self.0 {}
    }

    /// Never called.
    pub fn certify_ak_with(&self, _key: u32) -> Result<Certified, TpmError> {
        match self.0 {}
    }

    /// Never called.
    pub fn activate_credential(&self, _credential: &[u8], _secret: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        match self.0 {}
    }

    /// Never called.
    pub fn seal_log_key(&self, _seed: &[u8; 32], _public_key: &[u8; 32]) -> Result<(), TpmError> {
        match self.0 {}
    }

    /// Never called.
    pub fn unseal_log_key(&self) -> Result<Option<Zeroizing<[u8; 32]>>, TpmError> {
        match self.0 {}
    }

    /// Never called.
    pub fn counter(&self, _index: u32) -> Result<CounterFacts, TpmError> {
        match self.0 {}
    }

    /// Never called.
    pub fn step_counter(&self, _index: u32, _to: u64) -> Result<(), TpmError> {
        match self.0 {}
    }

    /// Never called.
    pub fn certify_counter(&self, _index: u32, _qualifying: &[u8; 32]) -> Result<Certified, TpmError> {
        match self.0 {}
    }

    /// Never called.
    pub fn clock(&self) -> Result<Clock, TpmError> {
        match self.0 {}
    }
}
