//! Signed notes and verifier keys: nothing panics, and a verifier key has one spelling.

#![no_main]

use agent_evidence::note::{KeyName, Note, SIGNATURES_MAX, VerifierKey};
use agent_evidence::record::PublicKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = Note::parse(bytes) {
        assert!(note.text.ends_with('\n'));
        assert!((1..=SIGNATURES_MAX).contains(&note.signatures.len()));
        let line = &note.signatures[0];
        let key = VerifierKey::new(line.name.clone(), PublicKey([1; 32]));
        assert_ne!(note.signed_by(&key), Ok(true), "a key of small order signs nothing");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(key) = VerifierKey::parse(text) {
            assert_eq!(key.to_string(), text);
        }
        if let Ok(name) = KeyName::new(text) {
            let key = VerifierKey::new(name, PublicKey([2; 32]));
            assert_eq!(VerifierKey::parse(&key.to_string()), Ok(key));
        }
    }
});
