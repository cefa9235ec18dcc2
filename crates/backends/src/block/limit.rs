// SPDX-License-Identifier: Apache-2.0
//! How much a disk may do in a second.
//!
//! A request is done as soon as those before it have been paid for, whatever its own size: what it costs is a debt that time
//! pays off. So a request of more than a second's worth is done, too, and the next one waits for longer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The highest rate and burst (QEMU's `THROTTLE_VALUE_MAX`).
pub const RATE_MAX: u64 = 1_000_000_000_000_000;

/// A bound on one thing. All zero: there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// How much there may be of it in a second.
    pub per_second: u64,
    /// How much of it may come at once, after a time without; 0: a tenth of a second's worth.
    pub burst: u64,
}

impl Rate {
    /// Nothing above `RATE_MAX`.
    fn bounded(self) -> Rate {
        Rate {
            per_second: self.per_second.min(RATE_MAX),
            burst: self.burst.min(RATE_MAX),
        }
    }

    /// How long so much takes at this rate.
    fn time(self, amount: u64) -> Duration {
        let rate = u128::from(self.per_second.max(1));
        let ns = u128::from(amount) * 1_000_000_000 / rate;
        Duration::new(
            u64::try_from(ns / 1_000_000_000).unwrap_or(u64::MAX),
            (ns % 1_000_000_000) as u32,
        )
    }

    fn burst_time(self) -> Duration {
        match self.burst {
            0 => Duration::from_millis(100),
            burst => self.time(burst),
        }
    }
}

/// What a disk may do, reads and writes counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of data read and written.
    pub bytes: Rate,
    /// Requests of any kind.
    pub operations: Rate,
}

/// When all that was done is paid for; `None`: it is.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    rate: Rate,
    paid_at: Option<Instant>,
}

impl Bucket {
    fn debt(&self, now: Instant) -> Duration {
        self.paid_at
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    fn wait(&self, now: Instant) -> Duration {
        match self.rate.per_second {
            0 => Duration::ZERO,
            _ => self.debt(now).saturating_sub(self.rate.burst_time()),
        }
    }

    fn charge(&mut self, amount: u64, now: Instant) {
        if self.rate.per_second > 0 {
            self.paid_at = now.checked_add(self.debt(now).saturating_add(self.rate.time(amount)));
        }
    }

    /// What is owed stays owed, and is paid off at the new rate.
    fn set(&mut self, rate: Rate, now: Instant) {
        let rate = rate.bounded();
        let owed = self.debt(now).as_millis() * u128::from(self.rate.per_second) / 1000;
        let owed = u64::try_from(owed).unwrap_or(u64::MAX);
        self.paid_at = (rate.per_second > 0)
            .then(|| now.checked_add(rate.time(owed)))
            .flatten();
        self.rate = rate;
    }
}

#[derive(Debug, Default)]
struct Buckets {
    bytes: Bucket,
    operations: Bucket,
}

/// The limits of one disk, which all of its rings keep together.
#[derive(Debug, Default)]
pub struct Throttle {
    is_limited: AtomicBool,
    buckets: Mutex<Buckets>,
}

impl Throttle {
    /// Sets the limits; rings that wait for the old ones are to be rung.
    pub fn set(&self, limits: Limits) {
        let now = Instant::now();
        let mut buckets = self.buckets();
        buckets.bytes.set(limits.bytes, now);
        buckets.operations.set(limits.operations, now);
        self.is_limited
            .store(limits != Limits::default(), Ordering::Relaxed);
    }

    /// The limits now.
    pub fn limits(&self) -> Limits {
        let buckets = self.buckets();
        Limits {
            bytes: buckets.bytes.rate,
            operations: buckets.operations.rate,
        }
    }

    /// How long the next request has to wait; `None`: not at all.
    pub fn wait(&self) -> Option<Duration> {
        if !self.is_limited.load(Ordering::Relaxed) {
            return None;
        }
        let (buckets, now) = (self.buckets(), Instant::now());
        let wait = buckets.bytes.wait(now).max(buckets.operations.wait(now));
        (!wait.is_zero()).then_some(wait)
    }

    /// One request with so many bytes of data is done.
    pub fn charge(&self, bytes: u64) {
        if self.is_limited.load(Ordering::Relaxed) {
            let (mut buckets, now) = (self.buckets(), Instant::now());
            buckets.bytes.charge(bytes, now);
            buckets.operations.charge(1, now);
        }
    }

    /// Nothing that can panic runs under this lock.
    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(per_second: u64, burst: u64) -> Bucket {
        Bucket {
            rate: Rate { per_second, burst },
            paid_at: None,
        }
    }

    /// How much a bucket lets through in this time, in requests of one size that come as fast as they are let.
    fn passed(mut bucket: Bucket, size: u64, time: Duration) -> u64 {
        let start = Instant::now();
        let (mut now, mut moved) = (start, 0);
        while now < start + time {
            bucket.charge(size, now);
            moved += size;
            now += bucket.wait(now);
        }
        moved
    }

    #[test]
    fn over_a_long_time_as_much_passes_as_the_rate_says_whatever_the_size_of_requests() {
        for size in [512, 4096, 1 << 20, 50 << 20] {
            let moved = passed(bucket(10 << 20, 0), size, SECOND * 20);
            let expected = 200 << 20;
            assert!(
                moved >= expected && moved <= expected + (1 << 20) + 2 * size,
                "{size}: {moved}"
            );
        }
    }

    #[test]
    fn a_burst_passes_at_once_and_is_there_again_when_it_is_paid_off() {
        let mut bucket = bucket(100, 1000);
        let start = Instant::now();
        let at_once = |bucket: &mut Bucket, now| {
            let mut count = 0;
            while bucket.wait(now).is_zero() {
                bucket.charge(1, now);
                count += 1;
            }
            count
        };
        assert_eq!(at_once(&mut bucket, start), 1001);
        assert_eq!(at_once(&mut bucket, start + SECOND), 100);
        assert_eq!(at_once(&mut bucket, start + SECOND * 100), 1001);
    }

    #[test]
    fn a_request_larger_than_any_burst_passes_and_the_next_one_waits_for_its_debt() {
        let mut bucket = bucket(1000, 0);
        let now = Instant::now();
        assert!(bucket.wait(now).is_zero());
        bucket.charge(1_000_000, now);
        assert_eq!(bucket.wait(now), SECOND * 1000 - Duration::from_millis(100));
    }

    #[test]
    fn a_debt_is_paid_off_at_the_new_rate_and_forgotten_without_one() {
        let mut bucket = bucket(1, 0);
        let now = Instant::now();
        bucket.charge(1_000_000, now);
        let rate = |per_second| Rate { per_second, burst: 0 };
        bucket.set(rate(1_000_000), now);
        assert_eq!(bucket.wait(now), Duration::from_millis(900));
        bucket.set(rate(0), now);
        bucket.set(rate(1), now);
        assert!(bucket.wait(now).is_zero());
    }

    #[test]
    fn numbers_without_sense_do_no_harm() {
        let throttle = Throttle::default();
        for number in [0, 1, u64::MAX] {
            let rate = Rate {
                per_second: number,
                burst: u64::MAX,
            };
            throttle.set(Limits {
                bytes: rate,
                operations: rate,
            });
            for _ in 0..3 {
                throttle.charge(u64::MAX);
            }
            throttle.wait();
        }
        throttle.set(Limits::default());
        assert_eq!(throttle.wait(), None);
    }
}
