// SPDX-License-Identifier: Apache-2.0
//! A ring served by a thread of its own.

use super::queue::Queue;
use crate::ring::{RingBroken, Served};
use domzero_machine::Bell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What a ring's thread tells the layer above. Called on that thread, with no lock held.
pub trait Notice: Send {
    /// The front end is to be sent its event.
    fn notify(&self);
    /// The ring is of no use any more, and is not served any more.
    fn broken(&self, error: RingBroken);
}

#[derive(Default)]
struct Wanted {
    rung: bool,
    stop: bool,
}

/// What the ring's thread waits for.
#[derive(Default)]
struct Signal {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

impl Signal {
    /// Nothing that can panic runs under this lock.
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False: it is to stop.
    fn wait(&self) -> bool {
        let mut now = self.lock();
        while !now.rung && !now.stop {
            now = self.changed.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
        now.rung = false;
        !now.stop
    }
}

impl Bell for Signal {
    fn ring(&self) {
        let was_rung = std::mem::replace(&mut self.lock().rung, true);
        if !was_rung {
            self.changed.notify_one();
        }
    }
}

/// Serves a queue until it is dropped.
pub struct QueueThread {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl QueueThread {
    /// Starts with a look at the ring: requests may have come before.
    pub fn start(
        name: String,
        mut queue: Queue,
        notice: impl Notice + 'static,
    ) -> std::io::Result<QueueThread> {
        let signal = Arc::new(Signal::default());
        signal.ring();
        let theirs = Arc::clone(&signal);
        let serve = move || {
            while theirs.wait() {
                if let Err(error) = serve_all(&mut queue, &notice, || theirs.lock().stop) {
                    return notice.broken(error);
                }
            }
        };
        let thread = std::thread::Builder::new().name(name).spawn(serve)?;
        Ok(QueueThread {
            signal,
            thread: Some(thread),
        })
    }

    /// What the front end's event is to ring.
    pub fn bell(&self) -> Arc<dyn Bell> {
        Arc::clone(&self.signal) as Arc<dyn Bell>
    }

    /// Returns when no request is being done any more; what waits in the ring stays there.
    pub fn stop(&mut self) {
        self.signal.lock().stop = true;
        self.signal.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It ended by a panic: nothing is left to be stopped.
            thread.join().ok();
        }
    }
}

impl Drop for QueueThread {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves a queue until its front end has nothing more, on the calling thread.
pub fn serve_all(queue: &mut Queue, notice: &impl Notice, stop: impl Fn() -> bool) -> Result<(), RingBroken> {
    loop {
        let Served { notify, more } = queue.serve()?;
        if notify {
            notice.notify();
        }
        if !more || stop() {
            return Ok(());
        }
    }
}
