// SPDX-License-Identifier: Apache-2.0
//! A worker's confinement.

use crate::device::owned;
use domzero_confine::Directory;
use pyo3::prelude::*;
use std::os::fd::{AsFd, OwnedFd, RawFd};

#[pyfunction]
#[pyo3(signature = (directories = Vec::new(), terminal = false, makes_code = false))]
pub fn confine(directories: Vec<(RawFd, bool)>, terminal: bool, makes_code: bool) -> PyResult<Vec<String>> {
    let taken = directories
        .into_iter()
        .map(|(fd, writable)| Ok((owned(fd)?, writable)));
    let taken: Vec<(OwnedFd, bool)> = taken.collect::<PyResult<_>>()?;
    let directories: Vec<Directory<'_>> = taken
        .iter()
        .map(|(fd, writable)| Directory {
            fd: fd.as_fd(),
            writable: *writable,
        })
        .collect();
    let missing = domzero_confine::confine(&directories, terminal, makes_code);
    Ok(missing.iter().map(ToString::to_string).collect())
}

#[pyfunction]
pub fn confine_network() -> Vec<String> {
    let missing = domzero_confine::confine_network();
    missing.iter().map(ToString::to_string).collect()
}

#[pyfunction]
pub fn landlock_version() -> u32 {
    domzero_confine::landlock_version()
}
