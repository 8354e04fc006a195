//! Messages of the kernel side: nothing panics, whatever the ring holds.

#![no_main]

// The agent's library links aya; this module of it needs only the wire format.
#[path = "../../../agent/src/event/mod.rs"]
#[expect(dead_code, unused_imports, reason = "only the decoder is used")]
mod event;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = event::decode(bytes) {
        let _shown = format!("{event:?}");
        if let event::Event::Change(change) = &event {
            let _claims = (change.asked(), change.asked_to());
        }
    }
});
