//! Files of kept entries: whatever one gives has one form, and its subtrees are those of its items.

#![no_main]

use agent_evidence::kept::{Item, Kept, KeptWriter, MAGIC};
use agent_evidence::tree::TILE_WIDTH;
use libfuzzer_sys::fuzz_target;
use miniz_oxide::deflate::compress_to_vec_zlib;

fuzz_target!(|bytes: &[u8]| {
    drop(Kept::parse(bytes));
    // Few inputs are zlib streams: the items themselves are worth more.
    let file = [MAGIC, &[0, 1], &compress_to_vec_zlib(bytes, 1)].concat();
    let Ok(kept) = Kept::parse(&file) else { return };
    let bundle = kept.bundle(0).expect("one bundle");
    assert_eq!(bundle.items().map(|(_, item)| item.entries()).sum::<usize>(), TILE_WIDTH);
    for (place, item) in bundle.items() {
        match item {
            Item::Entry(entry) => assert_eq!(bundle.entry(place), Some(entry)),
            Item::Withheld { height, hash } => assert_eq!(bundle.subtree(height, place >> height), Some(hash)),
        }
    }
    assert!(bundle.subtree(8, 0).is_some());
    let mut writer = KeptWriter::new();
    writer.bundle(bundle.items().map(|(_, item)| item)).expect("a bundle");
    assert_eq!(Kept::parse(&writer.finish(1).expect("a file")), Ok(kept));
});
