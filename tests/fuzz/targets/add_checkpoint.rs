//! Requests to a witness, and its answers: what is read is what would be written, and judging it neither panics nor hangs.

#![no_main]

use agent_evidence::note::{KeyName, VerifierKey};
use agent_evidence::record::PublicKey;
use agent_evidence::witness::{AddCheckpoint, Answer, SIZE_CONTENT_TYPE, judge};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for (status, kind) in [(200, None), (409, Some(SIZE_CONTENT_TYPE)), (422, None)] {
        let _answer = Answer::read(status, kind, bytes);
    }
    if let Ok(request) = AddCheckpoint::parse(bytes) {
        assert_eq!(request.to_text().as_bytes(), bytes);
        if let Ok(name) = KeyName::new(request.checkpoint.origin.as_str()) {
            let _judged = judge(&request, &[VerifierKey::new(name, PublicKey([1; 32]))], None);
        }
    }
});
