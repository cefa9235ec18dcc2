// SPDX-License-Identifier: Apache-2.0
//! How much a guest may send: a bucket of credit that is filled up at even distances.

use std::time::{Duration, Instant};

/// So many bytes in each interval, as `rate` in a back end's nodes has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub bytes: u64,
    /// Microseconds, at least 1.
    pub interval_us: u32,
}

/// Credit in bytes. A frame may be sent while there is any, and what it costs beyond is owed: so a frame that is larger
/// than what an interval gives is sent, too, and no more than the rate in the long run. What is not used in an interval is
/// not saved up beyond one interval's.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    credit: i64,
    /// The last time at which it was filled up.
    since: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Instant) -> Bucket {
        let mut bucket = Bucket {
            rate,
            credit: 0,
            since: now,
        };
        bucket.credit = bucket.portion();
        bucket
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    pub(super) fn waits_until(&mut self, now: Instant) -> Option<Instant> {
        self.fill(now);
        if self.credit > 0 {
            return None;
        }
        let intervals = self.credit.unsigned_abs() / self.portion().unsigned_abs() + 1;
        let wait = self
            .interval()
            .checked_mul(u32::try_from(intervals).unwrap_or(u32::MAX));
        // A time that cannot be said is one that nobody lives to see.
        let until = wait.and_then(|wait| self.since.checked_add(wait));
        Some(until.unwrap_or_else(|| now + Duration::from_secs(3600)))
    }

    pub(super) fn pay(&mut self, bytes: usize) {
        self.credit = self
            .credit
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_micros();
        let interval = self.interval().as_micros();
        let times = i64::try_from(passed / interval).unwrap_or(i64::MAX);
        if times > 0 {
            let more = self.portion().saturating_mul(times);
            self.credit = self.credit.saturating_add(more).min(self.portion());
            let rest = u64::try_from(passed % interval).unwrap_or(0);
            self.since = now.checked_sub(Duration::from_micros(rest)).unwrap_or(now);
        }
    }

    /// What an interval gives.
    fn portion(&self) -> i64 {
        i64::try_from(self.rate.bytes).unwrap_or(i64::MAX).max(1)
    }

    fn interval(&self) -> Duration {
        Duration::from_micros(self.rate.interval_us.max(1).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn bucket(bytes: u64, interval_ms: u32, now: Instant) -> Bucket {
        let interval_us = interval_ms * 1000;
        Bucket::new(Rate { bytes, interval_us }, now)
    }

    /// Sends frames of a size as soon as they may be sent, for so long; how many.
    fn frames(bucket: &mut Bucket, size: usize, start: Instant, length: Duration) -> u64 {
        let (mut now, mut sent) = (start, 0);
        while now < start + length {
            match bucket.waits_until(now) {
                Some(until) => {
                    assert!(until > now);
                    now = until;
                }
                None => {
                    bucket.pay(size);
                    sent += 1;
                }
            }
        }
        sent
    }

    #[test]
    fn in_the_long_run_it_is_the_rate_whatever_the_frames_are() {
        let start = Instant::now();
        for (bytes, interval) in [(62_500, 50), (1250, 1), (7, 20), (1 << 40, 3)] {
            for size in [14, 1514, 65_535] {
                if bytes > 1 << 30 {
                    continue; // as good as no bound
                }
                let mut bucket = bucket(bytes, interval, start);
                let length = MS * interval * 40_000;
                let sent = frames(&mut bucket, size, start, length) * size as u64;
                let due = bytes * 40_000;
                assert!(
                    sent <= due + bytes + size as u64 && sent + bytes + size as u64 >= due,
                    "{sent} of {due}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_used_is_not_saved_up() {
        let start = Instant::now();
        let mut bucket = bucket(10_000, 50, start);
        let later = start + MS * 60_000;
        assert_eq!(frames(&mut bucket, 1000, later, MS), 10);
        assert_eq!(bucket.waits_until(later), Some(later + MS * 50));
    }

    #[test]
    fn numbers_without_sense_harm_nobody() {
        let start = Instant::now();
        for (bytes, interval_us) in [
            (u64::MAX, u32::MAX),
            (u64::MAX, 0),
            (0, 0),
            (0, u32::MAX),
            (1, u32::MAX),
        ] {
            let mut bucket = Bucket::new(Rate { bytes, interval_us }, start);
            for round in 0..4 {
                let now = start + Duration::from_secs(1 << (round * 8));
                bucket.pay(usize::MAX);
                bucket.waits_until(now);
            }
        }
    }
}
