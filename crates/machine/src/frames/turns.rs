// SPDX-License-Identifier: Apache-2.0
//! The order in which threads wait for the memory lock: whoever takes it again and again, for a long operation, stands
//! behind those who wait. A mutex alone goes to whoever is awake.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// A queue of threads, each with a number.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: AtomicU32,
    numbers: Mutex<Numbers>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Numbers {
    /// What the next one who comes gets.
    next: u64,
    /// Whose turn it is.
    now: u64,
}

impl Turns {
    /// Whether somebody stands in the queue: then one who comes takes no short cut.
    pub(crate) fn any_waits(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) != 0
    }

    /// Waits for this thread's turn, and until `lock` has what all wait for.
    pub(crate) fn take<T>(&self, lock: impl FnOnce() -> T) -> T {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = numbers.next;
        numbers.next += 1;
        let numbers = self.changed.wait_while(numbers, |n| n.now != mine);
        drop(numbers.unwrap_or_else(PoisonError::into_inner));
        let got = lock();
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).now += 1;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.changed.notify_all();
        got
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn who_waits_has_its_turn_before_who_comes_again() {
        let (turns, lock) = (Arc::new(Turns::default()), Arc::new(Mutex::new(Vec::new())));
        let mut held = turns.take(|| lock.lock().unwrap());
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (theirs, list) = (turns.clone(), lock.clone());
                let thread = std::thread::spawn(move || theirs.take(|| list.lock().unwrap()).push(n));
                // In order: the next one comes when this one stands in the queue.
                while turns.numbers.lock().unwrap().next < 2 + n {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        assert!(turns.any_waits());
        held.push(100);
        drop(held);
        turns.take(|| lock.lock().unwrap()).push(200);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*lock.lock().unwrap(), [100, 0, 1, 2, 200]);
        assert!(!turns.any_waits());
    }
}
