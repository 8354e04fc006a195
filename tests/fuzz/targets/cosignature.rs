//! Keys and cosignatures of witnesses: a line with the vkey, then a note that is judged by it.

#![no_main]

use agent_evidence::cosignature::WitnessKey;
use agent_evidence::note::{Note, SignatureLine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (first, note) = bytes.iter().position(|byte| *byte == b'\n').map_or((bytes, &[][..]), |at| bytes.split_at(at));
    let Ok(first) = std::str::from_utf8(first) else { return };
    if let Ok(line) = SignatureLine::parse(first) {
        assert_eq!(line.to_string(), first);
    }
    let Ok(key) = WitnessKey::parse(first) else { return };
    assert_eq!(key.to_string(), first);
    if let Ok(mut note) = Note::parse(note.get(1..).unwrap_or_default()) {
        // As if every line were of this witness.
        for line in &mut note.signatures {
            line.name = key.name().clone();
            line.id = key.id();
        }
        let _judged = key.cosigned(&note);
    }
});
