//! Entries: what decodes must be the one encoding of what was decoded.

#![no_main]

use agent_evidence::record::{ENTRY_BYTES_MAX, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = decode(bytes) {
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(again, bytes, "a decoded entry encodes to the bytes it was read from");
        assert!(again.len() <= ENTRY_BYTES_MAX);
        // A draft that was read must fit when it is written as new, whatever its texts hold.
        let mut fresh = Vec::new();
        record.draft.encode(&record.placement, &mut fresh);
        assert!(fresh.len() <= ENTRY_BYTES_MAX);
        let reread = decode(&fresh).expect("what the encoder writes decodes");
        assert_eq!(reread.draft, record.draft, "an entry that fits is not shortened");
    }
});
