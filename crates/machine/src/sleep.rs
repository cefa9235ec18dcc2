// SPDX-License-Identifier: Apache-2.0
//! A vCPU that sleeps, and what wakes its thread. Needs no other lock: whoever sends an event may be any thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
struct State {
    /// SCHEDOP_block or SCHEDOP_poll: no guest code runs until an event.
    blocked: bool,
    /// The ports of SCHEDOP_poll, in order.
    ports: Vec<u32>,
    /// The thread is to look again at what it should do; stays until it has.
    poked: bool,
}

/// Whether a vCPU is blocked, and where its thread waits.
#[derive(Debug, Default)]
pub struct Sleep {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether there are `ports`. Written with the lock held.
    polls: AtomicBool,
}

impl Sleep {
    // Nothing that can panic runs under this lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_blocked(&self) -> bool {
        self.lock().blocked
    }

    /// Blocks until an event, or until one on these ports; not if `unless` says so. An event that comes after that look
    /// is not lost: [`Sleep::unblock`] waits for this to be over.
    pub fn block(&self, mut ports: Vec<u32>, unless: impl FnOnce() -> bool) {
        ports.sort_unstable();
        let mut state = self.lock();
        if !unless() {
            self.polls.store(!ports.is_empty(), Ordering::SeqCst);
            state.blocked = true;
            state.ports = ports;
        }
    }

    /// Ends SCHEDOP_block and SCHEDOP_poll. What makes the vCPU look (a pending upcall) is written before.
    pub fn unblock(&self) {
        self.end(&mut self.lock());
    }

    /// Ends a SCHEDOP_poll that waits for this port.
    pub fn unblock_for(&self, port: u32) {
        if !self.polls.load(Ordering::SeqCst) {
            return;
        }
        let mut state = self.lock();
        if state.ports.binary_search(&port).is_ok() {
            self.end(&mut state);
        }
    }

    fn end(&self, state: &mut State) {
        if state.blocked {
            self.polls.store(false, Ordering::SeqCst);
            state.blocked = false;
            state.ports = Vec::new();
            state.poked = true;
            self.changed.notify_all();
        }
    }

    /// Makes the thread look again.
    pub fn poke(&self) {
        self.lock().poked = true;
        self.changed.notify_all();
    }

    /// The thread waits until it is poked; if it was since it last waited, not at all.
    pub fn wait(&self, timeout: Option<Duration>) {
        let state = self.lock();
        let sleeps = |state: &mut State| !state.poked;
        let mut state = match timeout {
            None => self.changed.wait_while(state, sleeps),
            Some(time) => match self.changed.wait_timeout_while(state, time, sleeps) {
                Ok((state, _)) => Ok(state),
                Err(poisoned) => Ok(poisoned.into_inner().0),
            },
        }
        .unwrap_or_else(PoisonError::into_inner);
        state.poked = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn an_event_wakes_a_thread_that_sleeps_and_one_that_is_about_to() {
        let sleep = Arc::new(Sleep::default());
        sleep.block(Vec::new(), || false);
        assert!(sleep.is_blocked());
        sleep.unblock();
        assert!(!sleep.is_blocked());
        sleep.wait(None); // returns at once: it was poked before
        sleep.block(Vec::new(), || false);
        let sleeper = {
            let sleep = Arc::clone(&sleep);
            std::thread::spawn(move || sleep.wait(None))
        };
        sleep.unblock();
        sleeper.join().unwrap();
    }

    #[test]
    fn a_poll_ends_with_one_of_its_ports_only() {
        let sleep = Sleep::default();
        sleep.block(vec![9, 4], || false);
        sleep.unblock_for(5);
        assert!(sleep.is_blocked());
        sleep.unblock_for(9);
        assert!(!sleep.is_blocked());
        sleep.block(vec![4], || true);
        assert!(!sleep.is_blocked());
    }

    #[test]
    fn who_has_nothing_to_wait_for_waits_as_long_as_it_said() {
        let sleep = Sleep::default();
        sleep.poke();
        sleep.wait(None);
        sleep.wait(Some(Duration::from_millis(1)));
    }
}
