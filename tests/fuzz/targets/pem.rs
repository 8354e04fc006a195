//! Texts with certificates: nothing panics, and what is read can be written as PEM again.

#![no_main]

use agent_evidence::attest::cert::x509::Certificate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(certificates) = Certificate::parse_pem(text) {
        let written: String = certificates.iter().map(Certificate::to_pem).collect();
        assert_eq!(Certificate::parse_pem(&written), Ok(certificates));
    }
});
