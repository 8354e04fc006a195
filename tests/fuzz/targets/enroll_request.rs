//! Files of enrolment: what is read is written back as the same bytes.

#![no_main]

use agent_evidence::attest::enroll::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = Request::parse(bytes) {
        assert_eq!(file.to_bytes().as_deref(), Ok(bytes));
        let _ = file.verify();
    }
});
