//! Cgroup paths, whose names workloads may choose: nothing panics, and ids have the form they claim.

#![no_main]

// The agent's library links aya; this module of it needs nothing.
#[path = "../../../agent/src/workload/cgroup_path.rs"]
#[expect(dead_code, reason = "only the parser is used")]
mod cgroup_path;

use cgroup_path::Owner;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Owner::Container { id, .. } = cgroup_path::parse(bytes) {
        assert!(id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    }
});
