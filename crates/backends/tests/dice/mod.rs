// SPDX-License-Identifier: Apache-2.0
//! What the fuzzers throw, and for how long.

use std::time::Duration;

/// Numbers that look random (xorshift).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// DOMZERO_FUZZ_SECONDS, or 2 seconds.
pub fn fuzz_seconds() -> Duration {
    let seconds = std::env::var("DOMZERO_FUZZ_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}
