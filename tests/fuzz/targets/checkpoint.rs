//! Checkpoints: the text that is read is the text that would be signed.

#![no_main]

use agent_evidence::checkpoint::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((checkpoint, note)) = Checkpoint::parse(bytes) {
        assert_eq!(checkpoint.text(), note.text);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(checkpoint) = Checkpoint::parse_text(text)
    {
        assert_eq!(checkpoint.text(), text);
    }
});
