//! Platform configuration registers (PCRs) of the SHA-256 bank: how they are extended, what a quote's digest over them is, and
//! which values a trust file allows.
//!
//! Registers 0 to 15 are those of the static root of trust: zero after a reset, and only ever extended (TCG PC Client Platform
//! TPM Profile 1.05, section 4.6). Those above can be reset while the machine runs, and are nothing that this crate replays.

use sha2::{Digest as _, Sha256};

use crate::record::Digest;

/// How many registers can only be extended: 0 to 15.
pub const STATIC_REGISTERS: u32 = 16;

/// How many registers a TPM of a PC has.
pub const REGISTERS: u32 = 24;

/// Most values that one register may have by a trust file.
pub const POLICY_VALUES_MAX: usize = 4096;

/// A register as it is after a reset.
pub const START: Digest = Digest([0; 32]);

/// The register after one more digest: `SHA-256(register || digest)` (TPM 2.0 Library part 1, section 11.4.7).
#[must_use]
pub fn extend(register: Digest, digest: Digest) -> Digest {
    Digest(Sha256::new_with_prefix(register.0).chain_update(digest.0).finalize().into())
}

/// The digest that a quote holds over these values, in the order of their registers (TPM 2.0 Library part 2, TPMS_QUOTE_INFO).
pub fn quoted_digest(values: impl IntoIterator<Item = Digest>) -> Digest {
    let mut hash = Sha256::new();
    values.into_iter().for_each(|value| hash.update(value.0));
    Digest(hash.finalize().into())
}

/// The static registers as a log says they must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    values: [Digest; STATIC_REGISTERS as usize],
    /// How often each was extended.
    counts: [u64; STATIC_REGISTERS as usize],
}

impl Default for Replayed {
    fn default() -> Self {
        Self { values: [START; STATIC_REGISTERS as usize], counts: [0; STATIC_REGISTERS as usize] }
    }
}

impl Replayed {
    /// Registers of which register 0 starts at another value: the locality that the firmware was started from, in its last byte
    /// (TCG PC Client Platform Firmware Profile 1.06, section 10.4.5.3).
    #[must_use]
    pub fn from_locality(locality: u8) -> Self {
        let mut start = START;
        start.0[31] = locality;
        let mut own = Self::default();
        own.values[0] = start;
        own
    }

    /// Extends a register; one that is not static is left alone.
    pub fn extend(&mut self, register: u32, digest: Digest) {
        let at = usize::try_from(register).unwrap_or(usize::MAX);
        if let (Some(value), Some(count)) = (self.values.get_mut(at), self.counts.get_mut(at)) {
            *value = extend(*value, digest);
            *count = count.saturating_add(1);
        }
    }

    /// A static register's value.
    #[must_use]
    pub fn value(&self, register: u32) -> Option<Digest> {
        self.values.get(usize::try_from(register).ok()?).copied()
    }

    /// How often a register was extended.
    #[must_use]
    pub fn count(&self, register: u32) -> u64 {
        usize::try_from(register).ok().and_then(|at| self.counts.get(at)).copied().unwrap_or(0)
    }
}

/// Which values a trust file allows one register to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterPolicy {
    /// The register.
    pub index: u32,
    /// Its permitted values: at least one.
    pub values: Vec<Digest>,
}

impl RegisterPolicy {
    /// A policy over one register.
    ///
    /// # Errors
    /// [`PolicyError`]: no such register, or no value or too many.
    pub fn new(index: u32, values: Vec<Digest>) -> Result<Self, PolicyError> {
        if index >= REGISTERS {
            return Err(PolicyError::Index { seen: index });
        }
        if values.is_empty() || values.len() > POLICY_VALUES_MAX {
            return Err(PolicyError::Values { index, seen: values.len() });
        }
        Ok(Self { index, values })
    }

    /// Whether it allows this value.
    #[must_use]
    pub fn allows(&self, value: Digest) -> bool {
        self.values.contains(&value)
    }
}

/// Why something is not a policy over a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// There is no such register.
    #[error("there is no register {seen}: a TPM has registers 0 to {}", REGISTERS - 1)]
    Index {
        /// The number seen.
        seen: u32,
    },
    /// No value could ever be met, or more than are compared.
    #[error("register {index} has {seen} permitted values, expected 1 to {POLICY_VALUES_MAX}")]
    Values {
        /// The register.
        index: u32,
        /// How many values.
        seen: usize,
    },
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The registers in a file of `tests/measured`.
    pub(in crate::attest) fn registers(text: &str) -> Vec<(u32, Digest)> {
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let line = |line: &str| {
            let (index, value) = line.split_once(' ').unwrap();
            let value: Vec<u8> = value.as_bytes().chunks(2).map(byte).collect();
            (index.parse().unwrap(), Digest(value.try_into().unwrap()))
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn a_locality_starts_register_0_and_no_other() {
        let started = Replayed::from_locality(3);
        assert_eq!(started.value(0).map(|value| value.0[31]), Some(3));
        assert!((1..STATIC_REGISTERS).all(|register| started.value(register) == Some(START)));
    }

    #[test]
    fn registers_that_can_be_reset_are_not_replayed() {
        let mut replayed = Replayed::default();
        replayed.extend(16, START);
        replayed.extend(u32::MAX, START);
        assert_eq!((replayed.clone(), replayed.value(16)), (Replayed::default(), None));
    }

    #[test]
    fn the_digest_of_a_quote_is_over_the_values_in_order() {
        let zeros: [u8; 32] = Sha256::digest([0; 64]).into();
        assert_eq!(quoted_digest([START, START]), Digest(zeros));
        assert_ne!(quoted_digest([START, Digest([1; 32])]), quoted_digest([Digest([1; 32]), START]));
    }

    #[test]
    fn a_policy_that_nothing_can_meet_is_refused() {
        assert_eq!(RegisterPolicy::new(24, vec![START]), Err(PolicyError::Index { seen: 24 }));
        assert_eq!(RegisterPolicy::new(7, Vec::new()), Err(PolicyError::Values { index: 7, seen: 0 }));
        let too_many = POLICY_VALUES_MAX + 1;
        assert_eq!(
            RegisterPolicy::new(7, vec![START; too_many]),
            Err(PolicyError::Values { index: 7, seen: too_many })
        );
        assert!(RegisterPolicy::new(7, vec![START]).unwrap().allows(START));
    }
}
