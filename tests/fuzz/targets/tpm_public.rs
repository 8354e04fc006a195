//! Public areas of a TPM's objects: what is read is written back as the same bytes, and may be an attestation key.

#![no_main]

use agent_evidence::attest::key::Ak;
use agent_evidence::attest::tpm::Public;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(public) = Public::parse(bytes) {
        assert_eq!(public.to_bytes(), bytes);
        let name = public.name();
        if let Ok(ak) = Ak::parse(bytes, name.clone()) {
            assert_eq!(ak.name(), &name);
        }
    }
});
