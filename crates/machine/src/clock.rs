// SPDX-License-Identifier: Apache-2.0
//! Guest time. The TSC runs at 1 GHz: one tick is one nanosecond, whatever the host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Where guest time comes from.
#[derive(Debug)]
pub enum Clock {
    /// The host's monotonic clock.
    Host {
        /// When it was made.
        start: Instant,
        /// What it showed then, in nanoseconds: zero, but for domains that go on from a saved state.
        at_ns: u64,
    },
    /// Virtual time for deterministic runs: advanced by the vCPU that runs (instructions) and by idling (timers).
    Virtual {
        /// Nanoseconds since creation.
        now_ns: AtomicU64,
    },
}

impl Clock {
    /// A clock of the host's that is zero now.
    pub fn host() -> Self {
        Clock::host_at(0)
    }

    /// A clock of the host's that is `at_ns` nanoseconds now.
    pub fn host_at(at_ns: u64) -> Self {
        Clock::Host {
            start: Instant::now(),
            at_ns,
        }
    }

    /// Virtual time that begins at `now_ns` nanoseconds.
    pub fn virtual_at(now_ns: u64) -> Self {
        Clock::Virtual {
            now_ns: AtomicU64::new(now_ns),
        }
    }

    /// System time in nanoseconds since the machine was started; also the TSC.
    pub fn now_ns(&self) -> u64 {
        match self {
            Clock::Host { start, at_ns } => at_ns.wrapping_add(start.elapsed().as_nanos() as u64),
            Clock::Virtual { now_ns } => now_ns.load(Ordering::Acquire),
        }
    }

    /// Moves virtual time forward to `ns` (never back). No effect on a host clock.
    pub fn advance_to(&self, ns: u64) {
        if let Clock::Virtual { now_ns } = self {
            now_ns.fetch_max(ns, Ordering::AcqRel);
        }
    }

    /// Whether time passes only as the guest executes and idles.
    pub fn is_virtual(&self) -> bool {
        matches!(self, Clock::Virtual { .. })
    }
}
