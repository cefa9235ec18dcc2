// SPDX-License-Identifier: Apache-2.0
//! A thread that does what there is to do each time it is rung.

use domzero_machine::Bell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the thread waits for.
#[derive(Default)]
struct Signal {
    rung: AtomicBool,
    stop: AtomicBool,
    /// The thread sleeps, or is about to.
    sleeps: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Nothing that can panic runs under this lock.
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.sleeps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_wanted(&self) -> bool {
        self.rung.load(Ordering::SeqCst) || self.stops()
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// What the thread looks at is written before.
    fn wake(&self) {
        if *self.lock() {
            self.changed.notify_one();
        }
    }

    /// False: it is to stop. It sleeps at once: what comes until it is awake is done with fewer events.
    fn wait(&self, until: Until) -> bool {
        let due = match until {
            Until::Rung => None,
            Until::RungOrAfter(time) => Instant::now().checked_add(time),
        };
        let mut sleeps = self.lock();
        *sleeps = true;
        while !self.is_wanted() {
            let left = due.map(|at| at.saturating_duration_since(Instant::now()));
            sleeps = match left {
                None => self.changed.wait(sleeps).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let waited = self.changed.wait_timeout(sleeps, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *sleeps = false;
        self.rung.store(false, Ordering::SeqCst);
        !self.stops()
    }
}

impl Bell for Signal {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.wake();
        }
    }
}

/// When a thread that has done what there was goes on.
pub(crate) enum Until {
    /// When it is rung.
    Rung,
    /// When it is rung, or after this time.
    RungOrAfter(Duration),
}

/// A thread that works until it is dropped.
pub struct RungThread {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl RungThread {
    /// Starts as if it was rung.
    ///
    /// `serve`: is given a question, whether it is to stop; says what it waits for then, or ends the thread by `Break`.
    pub(crate) fn start(
        name: String,
        mut serve: impl FnMut(&dyn Fn() -> bool) -> ControlFlow<(), Until> + Send + 'static,
    ) -> std::io::Result<RungThread> {
        let signal = Arc::new(Signal::default());
        signal.ring();
        let theirs = Arc::clone(&signal);
        let run = move || {
            let mut until = Until::Rung;
            while theirs.wait(until) {
                until = match serve(&|| theirs.stops()) {
                    ControlFlow::Continue(until) => until,
                    ControlFlow::Break(()) => return,
                };
            }
        };
        let thread = std::thread::Builder::new().name(name).spawn(run)?;
        Ok(RungThread {
            signal,
            thread: Some(thread),
        })
    }

    /// What is to ring it: the front end's event.
    pub fn bell(&self) -> Arc<dyn Bell> {
        Arc::clone(&self.signal) as Arc<dyn Bell>
    }

    /// Returns when nothing is being done any more.
    pub fn stop(&mut self) {
        self.signal.stop.store(true, Ordering::SeqCst);
        self.signal.wake();
        if let Some(thread) = self.thread.take() {
            // It ended by a panic: nothing is left to be stopped.
            thread.join().ok();
        }
    }
}

impl Drop for RungThread {
    fn drop(&mut self) {
        self.stop();
    }
}
