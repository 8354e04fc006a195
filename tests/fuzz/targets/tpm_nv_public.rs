//! Public areas of NV indexes: what is read is written back as the same bytes.

#![no_main]

use agent_evidence::attest::tpm::NvPublic;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(public) = NvPublic::parse(bytes) {
        assert_eq!(public.to_bytes(), bytes);
    }
});
