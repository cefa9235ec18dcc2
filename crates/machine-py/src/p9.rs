// SPDX-License-Identifier: Apache-2.0
//! Shared directories, and rings with a thread that serves them.

use crate::device::{call, lock, os_error, owned, BACKEND};
use crate::events::{host_ports, EventPort};
use crate::grants::GrantTable;
use crate::host::{work, MachineError};
use domzero_backends::p9::{self, start_thread, Broken, Device, Notice, Tree};
use domzero_backends::RungThread;
use domzero_machine::HostPort;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[pyclass(frozen, module = "domzero._machine")]
pub struct Share {
    /// Until it is closed.
    tree: Mutex<Option<Arc<Tree>>>,
    counts: Arc<p9::Counts>,
    writable: bool,
}

#[pymethods]
impl Share {
    #[new]
    fn new(fd: RawFd, writable: bool) -> PyResult<Share> {
        let root = owned(fd)?;
        let tree = work(|| Tree::new(root))?.map_err(|error| os_error(error.into()))?;
        Ok(Share {
            tree: Mutex::new(Some(Arc::new(tree))),
            counts: Arc::default(),
            writable,
        })
    }

    #[getter]
    fn counts(&self) -> ShareCounts {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ShareCounts {
            requests: now(&self.counts.requests),
            errors: now(&self.counts.errors),
            read_bytes: now(&self.counts.read_bytes),
            written_bytes: now(&self.counts.written_bytes),
        }
    }

    fn close(&self) {
        lock(&self.tree).take();
    }
}

#[pyclass(frozen, get_all, module = "domzero._machine")]
pub struct ShareCounts {
    requests: u64,
    errors: u64,
    read_bytes: u64,
    written_bytes: u64,
}

/// The guest's events, and a function of Python's that the rings' thread calls.
struct Callbacks {
    ports: Vec<HostPort>,
    broken: Py<PyAny>,
}

impl Notice for Callbacks {
    fn notify(&self, ring: usize) {
        if let Some(port) = self.ports.get(ring) {
            port.notify();
        }
    }

    fn broken(&self, error: Broken) {
        call(&self.broken, (error.to_string(),));
    }
}

#[pyclass(frozen, module = "domzero._machine")]
pub struct ShareRings(Mutex<Option<RungThread>>);

#[pymethods]
impl ShareRings {
    #[new]
    #[pyo3(signature = (grants, share, ring_refs, *, ports, broken, thread))]
    fn new(
        grants: &GrantTable,
        share: &Share,
        ring_refs: Vec<u32>,
        ports: Vec<Py<EventPort>>,
        broken: Py<PyAny>,
        thread: String,
    ) -> PyResult<ShareRings> {
        let tree = lock(&share.tree).clone();
        let tree = tree.ok_or_else(|| PyValueError::new_err("the share is closed"))?;
        let (front, counts) = (grants.0.client(BACKEND), Arc::clone(&share.counts));
        let connect = || Device::connect(&front, &ring_refs, tree, share.writable, counts);
        let device = work(connect)?.map_err(|error| MachineError::new_err(error.to_string()))?;
        let all = host_ports(&ports);
        let ports = all.clone();
        let callbacks = Callbacks { ports, broken };
        let thread = start_thread(thread, device, callbacks).map_err(os_error)?;
        for port in all {
            port.attach(thread.bell());
        }
        Ok(ShareRings(Mutex::new(Some(thread))))
    }

    fn close(&self, py: Python<'_>) {
        let device = lock(&self.0).take();
        // Its thread may be waiting for the interpreter.
        py.detach(|| drop(device));
    }
}
