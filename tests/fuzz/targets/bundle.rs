//! Entry bundles and tiles: what is split can be joined again to the same bytes.

#![no_main]

use agent_evidence::tiles;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (width, bytes) = input;
    let width = width % 257;
    if let Ok(entries) = tiles::entries(bytes, width) {
        assert_eq!(entries.len(), usize::from(width));
        let mut again = Vec::new();
        for entry in entries {
            tiles::push_entry(&mut again, entry);
        }
        assert_eq!(again, bytes);
    }
    if let Ok(hashes) = tiles::hashes(bytes, width) {
        assert_eq!(hashes.concat(), bytes);
    }
});
