// SPDX-License-Identifier: Apache-2.0
//! What executes a vCPU's code.

use crate::device::owned;
use domzero_machine::{translator_available, Cpu, TranslatorOptions};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use std::fs::File;
use std::os::fd::RawFd;

/// Features of this host's processor that decide what a domain's can have, by libxl's names.
#[pyfunction]
pub fn host_features() -> Vec<&'static str> {
    domzero_machine::host_features()
}

/// Why there can be no translator here, or None.
#[pyfunction]
pub fn translator_unavailable() -> Option<String> {
    translator_available().err().map(|e| e.to_string())
}

pub fn set_translator(cpu: &mut Cpu, threshold: u32, code_bytes: Option<usize>, prove: bool) -> PyResult<()> {
    let mut options = TranslatorOptions {
        threshold,
        // A deterministic run is the same with each engine.
        exact: cpu.domain.machine.clock.is_virtual(),
        exact_flags: cpu.domain.machine.clock.is_virtual(),
        same_blocks: cpu.domain.machine.clock.is_virtual(),
        prove,
        ..TranslatorOptions::default()
    };
    if let Some(bytes) = code_bytes {
        options.code_bytes = bytes;
    }
    let done = cpu.set_translator((threshold > 0).then_some(options));
    done.map_err(|e| PyOSError::new_err(e.to_string()))
}

/// Blocks that were translated, the seconds that took, and the bytes of code that are kept.
pub fn translated(cpu: &Cpu) -> (u64, f64, usize) {
    let t = cpu.translated();
    (t.blocks, t.time.as_secs_f64(), t.bytes)
}

/// How many blocks, host instructions, and accesses of guest memory have been proved.
pub fn prove_code(cpu: &Cpu) -> PyResult<(usize, usize, usize)> {
    let p = cpu.prove_code().map_err(PyRuntimeError::new_err)?;
    Ok((p.blocks, p.instructions, p.accesses))
}

pub fn dump_code(cpu: &mut Cpu, fd: RawFd) -> PyResult<()> {
    cpu.set_code_dump(Box::new(File::from(owned(fd)?)));
    Ok(())
}

pub fn checked(cpu: &Cpu) -> (u64, Option<String>) {
    let (compared, found) = cpu.checked();
    (compared, found.map(str::to_owned))
}
