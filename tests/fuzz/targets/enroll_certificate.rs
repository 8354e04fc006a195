//! Files of enrolment: what is read is written back as the same bytes.

#![no_main]

use agent_evidence::attest::enroll::IssuedChain;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = IssuedChain::parse(bytes) {
        assert_eq!(file.to_bytes().as_deref(), Ok(bytes));
    }
});
