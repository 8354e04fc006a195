//! Trust files: what is read is written back as something that reads the same.

#![no_main]

use agent_evidence::trust::Trust;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(trust) = Trust::parse(text) {
        let written = trust.to_toml().expect("what was read can be written");
        assert_eq!(Trust::parse(&written), Ok(trust));
    }
});
