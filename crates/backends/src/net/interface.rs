// SPDX-License-Identifier: Apache-2.0
//! What an interface has done and how it is set, over all of its queues and front ends.

use super::capture::Capture;
use super::pcapng::Direction;
use super::rate::{Bucket, Rate};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

/// Captures of one interface or network at a time.
pub const CAPTURES_MAX: usize = 8;
/// For the reader of a capture that ends.
const CAPTURE_PATIENCE: Duration = Duration::from_millis(200);

/// An interface's counts and settings, which outlive its front ends; the settings may change at any time.
#[derive(Default)]
pub struct Interface {
    /// What it has done.
    pub counts: Counts,
    is_down: AtomicBool,
    bucket: Mutex<Option<Bucket>>,
    captures: Captures,
}

/// The captures of an interface or a network.
#[derive(Default)]
pub(super) struct Captures {
    /// There are some: the lock is not needed to know that there are none.
    are_there: AtomicBool,
    all: Mutex<Vec<Capture>>,
}

impl Captures {
    /// False: there are as many as may be.
    pub(super) fn add(&self, capture: Capture) -> bool {
        let mut all = self.all();
        all.retain(|each| !each.is_over());
        if all.len() >= CAPTURES_MAX {
            return false;
        }
        all.push(capture);
        self.are_there.store(true, Ordering::Release);
        true
    }

    pub(super) fn record(&self, frame: &[u8], direction: Option<Direction>) {
        if !self.are_there.load(Ordering::Acquire) {
            return;
        }
        let mut all = self.all();
        for each in all.iter() {
            each.record(frame, direction);
        }
        all.retain(|each| !each.is_over());
        self.are_there.store(!all.is_empty(), Ordering::Release);
    }

    /// Ends all of them; their readers have a while for what they have not read yet.
    pub(super) fn finish(&self) {
        let all = std::mem::take(&mut *self.all());
        all.into_iter().for_each(|each| each.finish(CAPTURE_PATIENCE));
    }

    fn all(&self) -> MutexGuard<'_, Vec<Capture>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    /// Copies the frames that pass from now on. False: there are as many captures as may be.
    pub fn capture(&self, capture: Capture) -> bool {
        self.captures.add(capture)
    }

    /// The interface goes: its captures end.
    pub fn end_captures(&self) {
        self.captures.finish();
    }

    pub(super) fn record(&self, frame: &[u8], direction: Direction) {
        self.captures.record(frame, Some(direction));
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
