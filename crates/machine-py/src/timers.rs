// SPDX-License-Identifier: Apache-2.0
//! `VcpuTimers`.

use domzero_machine::{Timers, LAST_DEADLINE_NS};
use pyo3::prelude::*;
use std::sync::Arc;

#[pyclass(frozen, module = "domzero._machine")]
pub struct VcpuTimers(pub Arc<Timers>);

#[pymethods]
impl VcpuTimers {
    #[new]
    fn new() -> VcpuTimers {
        VcpuTimers(Arc::default())
    }

    #[classattr]
    const LAST_DEADLINE_NS: u64 = LAST_DEADLINE_NS;

    #[getter]
    fn next_ns(&self) -> Option<u64> {
        self.0.next_ns()
    }

    #[getter]
    fn has_poll(&self) -> bool {
        self.0.has_poll()
    }

    #[pyo3(signature = (when_ns))]
    fn set_singleshot(&self, when_ns: Option<u64>) {
        self.0.set_singleshot(when_ns);
    }

    fn set_periodic(&self, period_ns: u64) {
        self.0.set_periodic(period_ns);
    }

    #[pyo3(signature = (when_ns))]
    fn set_poll(&self, when_ns: Option<u64>) {
        self.0.set_poll(when_ns);
    }

    fn take_due(&self, now_ns: u64) -> (bool, bool) {
        let due = self.0.take_due(now_ns);
        (due.timer, due.poll)
    }
}
