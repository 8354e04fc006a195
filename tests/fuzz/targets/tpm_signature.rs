//! Signatures of a TPM: what is read is written in full length, and reads the same.

#![no_main]

use agent_evidence::attest::tpm::EcdsaSignature;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(signature) = EcdsaSignature::parse(bytes) {
        let written = signature.to_bytes();
        assert!(written.len() >= bytes.len());
        assert_eq!(EcdsaSignature::parse(&written), Ok(signature));
    }
});
