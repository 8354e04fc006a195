//! Attestations of a TPM: what is read is written back as the same bytes.

#![no_main]

use agent_evidence::attest::tpm::Attest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(attest) = Attest::parse(bytes) {
        assert_eq!(attest.to_bytes(), bytes);
    }
});
