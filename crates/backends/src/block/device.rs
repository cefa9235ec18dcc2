// SPDX-License-Identifier: Apache-2.0
//! A ring served by a thread of its own.

use super::queue::Queue;
use crate::ring::{RingBroken, Served};
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
struct Signal {
    rung: bool,
    stop: bool,
}

/// Serves a queue until it is dropped.
pub struct QueueThread {
    signal: Arc<(Mutex<Signal>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

/// Nothing that can panic runs under this lock.
fn lock(mutex: &Mutex<Signal>) -> MutexGuard<'_, Signal> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl QueueThread {
    /// Starts with a look at the ring: requests may have come before.
    pub fn start(
        name: String,
        mut queue: Queue,
        notice: impl Notice + 'static,
    ) -> std::io::Result<QueueThread> {
        let signal = Arc::new((
            Mutex::new(Signal {
                rung: true,
                stop: false,
            }),
            Condvar::new(),
        ));
        let theirs = Arc::clone(&signal);
        let serve = move || {
            let (state, changed) = &*theirs;
            loop {
                {
                    let mut now = lock(state);
                    while !now.rung && !now.stop {
                        now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
                    }
                    if now.stop {
                        return;
                    }
                    now.rung = false;
                }
                match serve_all(&mut queue, &notice, || lock(state).stop) {
                    Ok(()) => {}
                    Err(error) => return notice.broken(error),
                }
            }
        };
        let thread = std::thread::Builder::new().name(name).spawn(serve)?;
        Ok(QueueThread {
            signal,
            thread: Some(thread),
        })
    }

    /// The front end has sent its event.
    pub fn ring(&self) {
        lock(&self.signal.0).rung = true;
        self.signal.1.notify_one();
    }

    /// Returns when no request is being done any more; what waits in the ring stays there.
    pub fn stop(&mut self) {
        lock(&self.signal.0).stop = true;
        self.signal.1.notify_one();
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
