//! Certificates: what is read is its own one encoding, and no signature of a key verifies for it by chance.

#![no_main]

use agent_evidence::attest::cert::path::{Roots, follow};
use agent_evidence::attest::cert::x509::Certificate;
use agent_evidence::attest::cert::{Tie, read_tie};
use agent_evidence::record::WallTime;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tie) = Tie::from_der(bytes) {
        assert_eq!(tie.to_der().expect("what was read can be written"), bytes);
    }
    if let Ok(certificate) = Certificate::parse(bytes) {
        assert_eq!(certificate.der(), bytes);
        assert_eq!(Certificate::parse_pem(&certificate.to_pem()).as_deref(), Ok(&[certificate.clone()][..]));
        let _ = read_tie(&certificate);
        let _ = certificate.verify_signature(certificate.key());
        assert!(follow(&[certificate], &Roots::new(), WallTime(0)).is_err());
    }
});
