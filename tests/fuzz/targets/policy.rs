//! Policies: nothing panics, and more cosignatures never make a quorum less of one.

#![no_main]

use agent_evidence::policy::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = Policy::parse(bytes) {
        let count = policy.witnesses().len();
        let mut met = policy.is_met(|_| false);
        assert_eq!(met, !policy.needs_witnesses());
        for signed in 0..=count {
            let now = policy.is_met(|at| at < signed);
            assert!(now || !met);
            met = now;
        }
        assert!(met);
    }
});
