// SPDX-License-Identifier: Apache-2.0
//! A worker's confinement.

use pyo3::prelude::*;

/// What could not be done, a line each.
#[pyfunction]
pub fn confine() -> Vec<String> {
    domzero_confine::confine()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[pyfunction]
pub fn landlock_version() -> u32 {
    domzero_confine::landlock_version()
}
