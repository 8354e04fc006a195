//! Paths below `tile/`: one spelling each, and none that leaves the directory.

#![no_main]

use agent_evidence::tiles::TilePath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(tile) = TilePath::parse(text) {
        assert_eq!(tile.path(), text);
        assert!(!text.contains("..") && !text.starts_with('/'));
        assert!((1..=256).contains(&tile.width));
    }
});
