// SPDX-License-Identifier: Apache-2.0
//! What the bindings of all devices need.

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Domain 0, whose back ends these are.
pub const BACKEND: u16 = 0;

pub fn os_error(error: std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => PyOSError::new_err(error.to_string()),
    }
}

/// A descriptor that its owner has given away: the contracts in `_machine.pyi` say where.
// A number becomes a descriptor.
#[allow(unsafe_code)]
pub fn owned(fd: RawFd) -> PyResult<OwnedFd> {
    if fd < 0 {
        return Err(PyValueError::new_err("no descriptor"));
    }
    // SAFETY: those contracts say that the descriptor is open, and the device's from here on.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a binding keeps is whole even after a panic of ours: it is only ever replaced.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls a function of Python's from a device's thread. What it raises is told, and goes nowhere.
pub fn call(function: &Py<PyAny>, arguments: impl for<'py> pyo3::call::PyCallArgs<'py>) {
    Python::attach(|py| {
        if let Err(error) = function.call1(py, arguments) {
            error.write_unraisable(py, None);
        }
    });
}
