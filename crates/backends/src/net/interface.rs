// SPDX-License-Identifier: Apache-2.0
//! What an interface has done and how it is set, over all of its queues and front ends.

use super::rate::{Bucket, Rate};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What an interface has done, over all of its queues.
#[derive(Debug, Default)]
pub struct Counts {
    /// Frames that the guest has sent.
    pub sent_frames: AtomicU64,
    /// Their bytes.
    pub sent_bytes: AtomicU64,
    /// Frames that the guest was given.
    pub received_frames: AtomicU64,
    /// Their bytes.
    pub received_bytes: AtomicU64,
    /// Frames of the guest's that were answered with an error.
    pub errors: AtomicU64,
    /// Frames of the guest's with a source address that is not its own.
    pub spoofed: AtomicU64,
    /// Frames for the guest that it cannot take, and those of both directions while the link is down.
    pub dropped: AtomicU64,
}

pub(super) fn add(count: &AtomicU64, n: usize) {
    count.fetch_add(n as u64, Ordering::Relaxed);
}

/// An interface's counts and settings, which outlive its front ends; the settings may change at any time.
#[derive(Debug, Default)]
pub struct Interface {
    /// What it has done.
    pub counts: Counts,
    is_down: AtomicBool,
    bucket: Mutex<Option<Bucket>>,
}

impl Interface {
    /// Whether frames pass, or are dropped in both directions.
    pub fn is_up(&self) -> bool {
        !self.is_down.load(Ordering::Acquire)
    }

    /// Plugs the cable in or out.
    pub fn set_up(&self, is_up: bool) {
        self.is_down.store(!is_up, Ordering::Release);
    }

    /// Bounds what the guest sends from now on. `None`: there is no bound.
    pub fn set_rate(&self, rate: Option<Rate>, now: Instant) {
        let mut bucket = self.bucket();
        if bucket.as_ref().map(Bucket::rate) != rate {
            *bucket = rate.map(|rate| Bucket::new(rate, now));
        }
    }

    /// When the guest may send again. `None`: now.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.bucket().as_mut()?.waits_until(Instant::now())
    }

    /// So many bytes are sent.
    pub(super) fn pay(&self, bytes: usize) {
        if let Some(bucket) = self.bucket().as_mut() {
            bucket.pay(bytes);
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Option<Bucket>> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
