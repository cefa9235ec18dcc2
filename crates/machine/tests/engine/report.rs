// SPDX-License-Identifier: Apache-2.0
//! How many cases tests have, and what they say of those that fail.

use std::collections::BTreeMap;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// How long in total: cases of the quick run, unless DOMZERO_ORACLE_CASES says otherwise.
pub fn cases(default: u64) -> u64 {
    setting("DOMZERO_ORACLE_CASES", default)
}

pub fn seed() -> u64 {
    setting("DOMZERO_ORACLE_SEED", 20260101)
}

/// Failures by form, with the first of each kind in full.
#[derive(Default)]
pub struct Report {
    pub failures: BTreeMap<String, (u64, String)>,
    pub cases: u64,
}

impl Report {
    pub fn add(&mut self, key: String, text: impl FnOnce() -> String) {
        let entry = self.failures.entry(key).or_insert_with(|| (0, text()));
        entry.0 += 1;
    }

    pub fn finish(self, what: &str, seed: u64) {
        println!(
            "{what}: {} cases, seed {seed}, {} forms differ",
            self.cases,
            self.failures.len()
        );
        if self.failures.is_empty() {
            return;
        }
        let shown = setting("DOMZERO_ORACLE_SHOW", 12) as usize;
        for (key, (count, text)) in self.failures.iter().take(shown) {
            println!("{key}: {count} times, first:\n{text}");
        }
        for (key, (count, _)) in self.failures.iter().skip(shown) {
            println!("{key}: {count} times");
        }
        panic!("{what}: {} forms differ (seed {seed})", self.failures.len());
    }
}
