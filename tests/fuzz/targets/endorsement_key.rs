//! Public areas of endorsement keys: whatever is accepted can be given a credential.

#![no_main]

use agent_evidence::attest::credential::{EndorsementKey, Randomness};
use agent_evidence::attest::tpm::Name;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(key) = EndorsementKey::parse(bytes) {
        let name: &Name = key.name();
        let random = Randomness { first: [1; 32], second: [2; 32] };
        // An RSA key may have a modulus below the padded message only if it is far shorter than is accepted.
        assert!(key.make(name, &[3; 32], &random).is_ok());
    }
});
