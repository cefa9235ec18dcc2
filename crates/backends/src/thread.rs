// SPDX-License-Identifier: Apache-2.0
//! A thread that does what there is to do each time it is rung.

use domzero_machine::Bell;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Default)]
struct Wanted {
    rung: bool,
    stop: bool,
}

/// What the thread waits for.
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
    fn wait(&self, until: Until) -> bool {
        let due = match until {
            Until::Rung => None,
            Until::RungOrAfter(time) => Instant::now().checked_add(time),
        };
        let mut now = self.lock();
        while !now.rung && !now.stop {
            let left = due.map(|at| at.saturating_duration_since(Instant::now()));
            now = match left {
                None => self.changed.wait(now).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let waited = self.changed.wait_timeout(now, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
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
                until = match serve(&|| theirs.lock().stop) {
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
        self.signal.lock().stop = true;
        self.signal.changed.notify_one();
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
