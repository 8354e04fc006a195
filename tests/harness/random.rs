//! Numbers that look random and come again with the same seed.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64: enough to choose moments and places, and nothing that must be secret.
#[derive(Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts from the environment variable `AFFIANT_TEST_SEED`, else from the clock, and prints the seed.
    #[must_use]
    #[expect(clippy::print_stdout, reason = "a failed run must be repeatable")]
    pub fn seeded() -> Self {
        let state = std::env::var("AFFIANT_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |since| since.as_secs() ^ u64::from(since.subsec_nanos()))
        });
        println!("seed: AFFIANT_TEST_SEED={state}");
        Self { state }
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
