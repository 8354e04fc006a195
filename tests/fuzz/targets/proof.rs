//! Transparent proofs: what is read is what would be written, and verifying it neither panics nor hangs.

#![no_main]

use agent_evidence::proof::Proof;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(proof) = Proof::parse(bytes) {
        assert_eq!(proof.to_text().as_bytes(), bytes);
        let _holds = proof.includes(b"entry");
    }
});
