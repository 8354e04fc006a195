//! Measurement lists of the kernel: a list gives the same registers however it is cut into parts.

#![no_main]

use agent_evidence::attest::ima::{Entry, Replay};
use agent_evidence::attest::pcr::START;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, size) = input;
    let _entry = Entry::read(&bytes);
    let replayed = |size: usize| {
        let mut replay = Replay::new(START);
        let mut values = Vec::new();
        let mut outcome = Ok(());
        for part in bytes.chunks(size.max(1)) {
            outcome = outcome.and_then(|()| replay.part(part, |value, _| values.push(value)));
        }
        (outcome, values)
    };
    assert_eq!(replayed(bytes.len()), replayed(usize::from(size)));
});
