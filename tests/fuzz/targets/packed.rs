//! Packed segments: whatever a block gives is a bundle with its own leaf hashes, and packs to something that gives it again.

#![no_main]

use agent_evidence::packed::{self, Segment};
use agent_evidence::tiles;
use agent_evidence::tree::leaf_hash;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    drop(Segment::parse(bytes.to_vec()).map(|segment| segment.bundle(0)));
    if let Ok(unpacked) = packed::unpack(bytes, 0) {
        let entries = tiles::entries(&unpacked.bundle, 256).expect("a bundle");
        let leaves: Vec<[u8; 32]> = entries.into_iter().map(|entry| leaf_hash(entry).0).collect();
        assert_eq!(leaves, unpacked.leaves);
        let again = packed::pack(&unpacked.bundle, 1).expect("packs");
        assert_eq!(packed::unpack(&again, 0), Ok(unpacked));
    }
});
