// SPDX-License-Identifier: Apache-2.0
//! The hypervisor's big lock: a reentrant lock that is given to threads in the order in which they came.
//!
//! `threading.RLock` goes to whoever is awake: a vCPU that makes one hypercall after the other takes it again before a
//! thread that waits for it has woken up, for seconds. It is taken and let go of around each exit of a vCPU, so that it
//! is not written in Python.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// How long a waiting thread goes on without a look at the process' signals, whose handlers run in the main thread.
const LOOK_AT_SIGNALS: Duration = Duration::from_millis(50);

/// A thread: the address of its own copy of a variable.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ThreadId(usize);

fn this_thread() -> ThreadId {
    thread_local!(static PLACE: u8 = const { 0 });
    PLACE.with(|place| ThreadId(std::ptr::from_ref(place).addr()))
}

#[derive(Default)]
struct State {
    /// Who has it, and how often it has taken it.
    owner: Option<(ThreadId, u32)>,
    /// Who waits, in order. The owner hands it to the first.
    queue: VecDeque<Arc<Turn>>,
}

/// One thread in the queue.
struct Turn {
    thread: ThreadId,
    has_come: Mutex<bool>,
    woken: Condvar,
}

impl Turn {
    /// :returns: whether the turn came within `LOOK_AT_SIGNALS`.
    fn wait(&self) -> bool {
        let has_come = lock(&self.has_come);
        *self
            .woken
            .wait_timeout_while(has_come, LOOK_AT_SIGNALS, |come| !*come)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}

/// Nothing that can panic runs under these mutexes.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[pyclass(frozen, module = "domzero._machine")]
#[derive(Default)]
pub struct BigLock {
    state: Mutex<State>,
}

impl BigLock {
    /// Takes it once more, or for the first time when nobody has it or waits for it.
    fn try_acquire(&self, me: ThreadId) -> bool {
        let mut state = lock(&self.state);
        match &mut state.owner {
            Some((owner, depth)) if *owner == me => *depth += 1,
            None => state.owner = Some((me, 1)),
            Some(_) => return false,
        }
        true
    }

    /// Waits for it, without the interpreter's lock; the calling thread does not have it.
    ///
    /// Errors: what a signal's handler raises, if `interruptible`; the lock is not had then.
    fn wait(&self, py: Python<'_>, me: ThreadId, interruptible: bool) -> PyResult<()> {
        let turn = Arc::new(Turn {
            thread: me,
            has_come: Mutex::new(false),
            woken: Condvar::new(),
        });
        {
            let mut state = lock(&self.state);
            if state.owner.is_none() {
                state.owner = Some((me, 1));
                return Ok(());
            }
            state.queue.push_back(Arc::clone(&turn));
        }
        while !py.detach(|| turn.wait()) {
            if interruptible {
                py.check_signals().inspect_err(|_| self.leave(&turn))?;
            }
        }
        Ok(())
    }

    /// Does something without it, however often this thread has taken it, and without the interpreter's lock.
    pub fn without(&self, py: Python<'_>, f: impl FnOnce() + Send) -> PyResult<()> {
        let depth = self._release_save()?;
        py.detach(f);
        self._acquire_restore(py, depth)
    }

    /// The thread of `turn` does not want it any more.
    fn leave(&self, turn: &Arc<Turn>) {
        let mut state = lock(&self.state);
        let waiting = state.queue.len();
        state.queue.retain(|each| !Arc::ptr_eq(each, turn));
        if state.queue.len() == waiting {
            hand_over(&mut state); // its turn came in between
        }
    }
}

/// Nobody has it any more: the first who waits has it now.
fn hand_over(state: &mut State) {
    let next = state.queue.pop_front();
    state.owner = next.as_ref().map(|turn| (turn.thread, 1));
    if let Some(turn) = next {
        *lock(&turn.has_come) = true;
        turn.woken.notify_one();
    }
}

fn not_held() -> PyErr {
    PyRuntimeError::new_err("the big lock is not held by this thread")
}

#[pymethods]
impl BigLock {
    #[new]
    fn new() -> BigLock {
        BigLock::default()
    }

    #[pyo3(signature = (blocking = true))]
    fn acquire(&self, py: Python<'_>, blocking: bool) -> PyResult<bool> {
        let me = this_thread();
        if self.try_acquire(me) {
            return Ok(true);
        }
        if blocking {
            self.wait(py, me, true)?;
        }
        Ok(blocking)
    }

    fn release(&self) -> PyResult<()> {
        let mut state = lock(&self.state);
        match &mut state.owner {
            Some((owner, depth)) if *owner == this_thread() => {
                *depth -= 1;
                if *depth == 0 {
                    hand_over(&mut state);
                }
                Ok(())
            }
            _ => Err(not_held()),
        }
    }

    fn condition<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("threading")?.getattr("Condition")?.call1((slf,))
    }

    #[getter]
    fn waiting(&self) -> usize {
        lock(&self.state).queue.len()
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<()> {
        self.acquire(py, true).map(drop)
    }

    fn __exit__(
        &self,
        kind: Option<&Bound<'_, PyAny>>,
        error: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (kind, error, traceback); // goes on as it is
        self.release()
    }

    // What threading.Condition asks for.

    fn _is_owned(&self) -> bool {
        matches!(lock(&self.state).owner, Some((owner, _)) if owner == this_thread())
    }

    fn _release_save(&self) -> PyResult<u32> {
        let mut state = lock(&self.state);
        match state.owner {
            Some((owner, depth)) if owner == this_thread() => {
                hand_over(&mut state);
                Ok(depth)
            }
            _ => Err(not_held()),
        }
    }

    /// A signal does not end it, or who leaves a `with` block would not have what it lets go of.
    fn _acquire_restore(&self, py: Python<'_>, depth: u32) -> PyResult<()> {
        let me = this_thread();
        if !self.try_acquire(me) {
            self.wait(py, me, false)?;
        }
        if let Some((_, now)) = &mut lock(&self.state).owner {
            *now = depth;
        }
        Ok(())
    }
}
