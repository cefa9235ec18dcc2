// SPDX-License-Identifier: Apache-2.0
//! `Machine`, `FrameInfo` and `Domain`.

use crate::enums::FrameType;
use crate::events::EventChannels;
use crate::grants::GrantTable;
use crate::vcpu::Vcpu;
use domzero_machine as dm;
use domzero_machine::abi::Errno;
use domzero_machine::{
    caught, BatchOutcome, Bug, Caller, Clock, DomainEvents, DomainGrants, Events, GrantLimits, Grants, Mfn,
    MmError, RandomSource,
};
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock};

pyo3::create_exception!(
    _machine,
    MachineError,
    PyException,
    "The machine could not be made, or has no frames left."
);
pyo3::create_exception!(
    _machine,
    GuestFault,
    PyException,
    "A guest address is not mapped or not writable."
);
pyo3::create_exception!(
    _machine,
    VcpuRunning,
    PyException,
    "The vCPU runs in another thread."
);

pyo3::create_exception!(
    _machine,
    MachineBug,
    PyException,
    "The machine panicked: a bug of ours. The domain that met it must not go on."
);

pyo3::create_exception!(
    _machine,
    XenRefused,
    PyException,
    "The machine refuses what was asked for: `errno` is Xen's number."
);

pyo3::create_exception!(
    _machine,
    Preempted,
    PyException,
    "There is more to do than one round: the same call goes on, after others had their turn."
);

/// The exception for a refusal.
pub fn refused(errno: Errno) -> PyErr {
    Python::attach(|py| {
        let error = XenRefused::new_err((errno.number(), errno.to_string()));
        // An exception has a dictionary; if this fails, that failure is what Python gets to see.
        match error.value(py).setattr("errno", errno.number()) {
            Ok(()) => error,
            Err(e) => e,
        }
    })
}

/// The exception for a panic.
pub fn bug(b: Bug) -> PyErr {
    MachineBug::new_err(b.to_string())
}

/// Does what a guest or a back end asked for; a panic in it is a bug of ours.
pub fn work<R>(f: impl FnOnce() -> R) -> PyResult<R> {
    caught(f).map_err(bug)
}

/// The exception for a part of an operation that does not end it.
pub fn not_done(e: MmError) -> PyErr {
    match e {
        MmError::Errno(errno) => refused(errno),
        MmError::Preempted => Preempted::new_err(()),
    }
}

/// The same for what may be refused.
fn request<R>(f: impl FnOnce() -> Result<R, Errno>) -> PyResult<R> {
    work(f)?.map_err(refused)
}

/// Where a page-table batch goes on (first argument, second argument), if it is not done.
pub type Progress = Option<(u64, u32)>;

/// It, or why it was refused.
pub fn progress(outcome: BatchOutcome) -> Result<Progress, Errno> {
    match outcome {
        BatchOutcome::Done(done) => done.map(|()| None),
        BatchOutcome::Continue { req_va, count } => Ok(Some((req_va, count))),
    }
}

#[pyfunction]
pub fn give_back_free(py: Python<'_>) {
    py.detach(dm::give_back_free);
}

#[pyclass(frozen, module = "domzero._machine")]
pub struct Machine(pub Arc<dm::Machine>, Arc<Grants>, Arc<Events>);

#[pymethods]
impl Machine {
    #[new]
    #[pyo3(signature = (frames, *, seed=0, random_key=None, virtual_time_ns=None, host_time_ns=0))]
    fn new(
        frames: u64,
        seed: u64,
        random_key: Option<[u8; 32]>,
        virtual_time_ns: Option<u64>,
        host_time_ns: u64,
    ) -> PyResult<Self> {
        let clock = virtual_time_ns.map_or_else(|| Clock::host_at(host_time_ns), Clock::virtual_at);
        let key = random_key.unwrap_or_else(|| RandomSource::key_from_seed(seed));
        dm::Machine::with_random_key(frames, seed, key, clock)
            .map(|machine| Machine(machine.clone(), Grants::new(machine), Arc::default()))
            .map_err(|e| MachineError::new_err(e.to_string()))
    }

    #[getter]
    fn frames(&self) -> u64 {
        self.0.mem.frames()
    }

    #[getter]
    fn free_frames(&self) -> u64 {
        self.0.free_frames()
    }

    #[getter]
    fn m2p(&self) -> (u64, u64) {
        let (mfn, count) = self.0.m2p();
        (mfn.0, count)
    }

    #[getter]
    fn m2p_compat(&self) -> (u64, u64) {
        let (mfn, count) = self.0.m2p_compat();
        (mfn.0, count)
    }

    fn fileno(&self) -> i32 {
        self.0.mem.fd().as_raw_fd()
    }

    fn now_ns(&self) -> u64 {
        self.0.clock.now_ns()
    }

    fn advance_to(&self, ns: u64) {
        self.0.clock.advance_to(ns);
    }

    fn read<'py>(&self, py: Python<'py>, maddr: u64, length: usize) -> PyResult<Bound<'py, PyBytes>> {
        let total = self.0.mem.frames() << 12;
        if maddr.checked_add(length as u64).is_none_or(|end| end > total) {
            return Err(PyValueError::new_err("outside machine memory"));
        }
        PyBytes::new_with(py, length, |buf| {
            self.0.mem.read(maddr, buf);
            Ok(())
        })
    }

    fn write(&self, maddr: u64, data: std::borrow::Cow<'_, [u8]>) -> PyResult<()> {
        match work(|| self.0.host_write(maddr, &data))? {
            true => Ok(()),
            false => Err(PyValueError::new_err("outside machine memory")),
        }
    }

    fn test_and_set_bit(&self, maddr: u64, bit: u64) -> PyResult<bool> {
        self.0
            .change_bit(maddr, bit, true)
            .ok_or_else(|| PyValueError::new_err("outside machine memory"))
    }

    fn test_and_clear_bit(&self, maddr: u64, bit: u64) -> PyResult<bool> {
        self.0
            .change_bit(maddr, bit, false)
            .ok_or_else(|| PyValueError::new_err("outside machine memory"))
    }

    fn compare_exchange_u32(&self, maddr: u64, old: u32, new: u32) -> PyResult<u32> {
        let seen = self.0.compare_exchange_u32(maddr, old, new);
        seen.ok_or_else(|| PyValueError::new_err("not an aligned word of machine memory"))
    }

    #[pyo3(signature = (domid, *, is_32bit=false))]
    fn create_domain(&self, domid: u16, is_32bit: bool) -> Domain {
        Domain {
            inner: dm::Domain::new_with(self.0.clone(), domid, is_32bit),
            all_grants: self.1.clone(),
            grants: OnceLock::new(),
            all_events: self.2.clone(),
            events: OnceLock::new(),
        }
    }

    fn hand_out_last(&self, py: Python<'_>, mfns: Vec<u64>) {
        py.detach(|| self.0.hand_out_last(&mfns));
    }

    fn frame_info(&self, mfn: u64) -> PyResult<FrameInfo> {
        self.0
            .frame_info(Mfn(mfn))
            .map(FrameInfo)
            .ok_or_else(|| PyValueError::new_err("no such frame"))
    }

    fn audit(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| {
            let mut found = self.0.audit();
            found.extend(self.1.audit());
            found
        })
    }
}

#[pyclass(frozen, module = "domzero._machine")]
pub struct FrameInfo(dm::FrameInfo);

#[pymethods]
impl FrameInfo {
    #[getter]
    fn owner(&self) -> Option<u16> {
        self.0.owner()
    }
    #[getter]
    fn r#type(&self) -> FrameType {
        self.0.ty.into()
    }
    #[getter]
    fn type_count(&self) -> u32 {
        self.0.type_count
    }
    #[getter]
    fn refs(&self) -> u32 {
        self.0.refs
    }
    #[getter]
    fn pinned(&self) -> bool {
        self.0.pinned()
    }
    #[getter]
    fn validated(&self) -> bool {
        self.0.validated()
    }
}

#[pyclass(frozen, module = "domzero._machine")]
pub struct Domain {
    inner: Arc<dm::Domain>,
    all_grants: Arc<Grants>,
    grants: OnceLock<DomainGrants>,
    all_events: Arc<Events>,
    events: OnceLock<Arc<DomainEvents>>,
}

#[pymethods]
impl Domain {
    #[getter]
    fn domid(&self) -> u16 {
        self.inner.domid
    }

    #[getter]
    fn vm_assist(&self) -> u64 {
        self.inner.vm_assist()
    }

    #[setter]
    fn set_vm_assist(&self, bits: u64) {
        self.inner.set_vm_assist(bits);
    }

    #[getter]
    fn frames_owned(&self) -> u64 {
        self.inner.frames_owned()
    }

    fn alloc(&self, py: Python<'_>, count: u64) -> PyResult<Vec<u64>> {
        let got = work(|| py.detach(|| self.inner.alloc(count)))?;
        got.map(|v| v.into_iter().map(|m| m.0).collect())
            .ok_or_else(|| MachineError::new_err("no free machine frames"))
    }

    fn alloc_at(&self, py: Python<'_>, mfns: Vec<u64>) -> PyResult<()> {
        let mfns: Vec<Mfn> = mfns.into_iter().map(Mfn).collect();
        match work(|| py.detach(|| self.inner.alloc_at(&mfns)))? {
            true => Ok(()),
            false => Err(MachineError::new_err(
                "a machine frame is not free, or does not exist",
            )),
        }
    }

    fn list_frames(&self, py: Python<'_>) -> (Vec<u64>, Vec<(u64, u8)>) {
        let (frames, pinned) = py.detach(|| self.inner.list_frames());
        let pinned = pinned.into_iter().map(|(m, level)| (m.0, level)).collect();
        (frames.into_iter().map(|m| m.0).collect(), pinned)
    }

    fn pin_table(&self, py: Python<'_>, mfn: u64, level: u8) -> PyResult<()> {
        work(|| py.detach(|| self.inner.pin_table(Mfn(mfn), level)))?.map_err(not_done)
    }

    #[pyo3(signature = (order, *, below=u64::MAX))]
    fn alloc_extent(&self, py: Python<'_>, order: u32, below: u64) -> PyResult<Option<u64>> {
        let got = work(|| py.detach(|| self.inner.alloc_extent(order, Mfn(below))))?;
        got.map(|m| m.map(|m| m.0)).map_err(not_done)
    }

    fn release(&self, mfn: u64) -> PyResult<()> {
        request(|| self.inner.give_back(Mfn(mfn), Caller::Host))
    }

    #[getter]
    fn owes(&self) -> bool {
        self.inner.owes()
    }

    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        if !self.inner.owes() {
            return Ok(());
        }
        work(|| py.detach(|| self.inner.settle(Caller::Host)))?.map_err(not_done)
    }

    fn share_hypervisor_frames(&self, count: u64) -> PyResult<Vec<u64>> {
        let got = work(|| self.inner.share_hypervisor_frames(count))?;
        got.map(|v| v.into_iter().map(|m| m.0).collect())
            .ok_or_else(|| MachineError::new_err("no free machine frames"))
    }

    fn m2p_set(&self, mfn: u64, pfn: u64) -> PyResult<()> {
        request(|| self.inner.m2p_set(Mfn(mfn), pfn))
    }

    #[pyo3(signature = (mfn, *, writable))]
    fn get_ref(&self, py: Python<'_>, mfn: u64, writable: bool) -> PyResult<()> {
        request(|| py.detach(|| self.inner.get_ref(Mfn(mfn), writable)))
    }

    #[pyo3(signature = (mfn, *, writable))]
    fn put_ref(&self, mfn: u64, writable: bool) -> PyResult<()> {
        work(|| self.inner.put_ref(Mfn(mfn), writable))
    }

    fn outside_refs(&self, py: Python<'_>) -> Vec<(u64, u32, u32)> {
        let refs = py.detach(|| self.inner.outside_refs());
        refs.into_iter()
            .map(|(m, plain, writable)| (m.0, plain, writable))
            .collect()
    }

    fn host_mapped(&self, py: Python<'_>, mfn: u64) -> PyResult<()> {
        work(|| py.detach(|| self.inner.host_mapped(Mfn(mfn))))
    }

    fn hold(&self, py: Python<'_>, mfn: u64) -> PyResult<()> {
        request(|| py.detach(|| self.inner.hold(Mfn(mfn))))
    }

    fn create_grants(&self, frames: u32, maptrack_frames: u32) -> PyResult<GrantTable> {
        let limits = GrantLimits {
            frames,
            maptrack_frames,
        };
        let none = || MachineError::new_err("no free machine frames, or there is a grant table");
        let made = work(|| self.all_grants.add(&self.inner, limits))?.map_err(|_| none())?;
        self.grants.set(made.clone()).map_err(|_| none())?;
        Ok(GrantTable(made))
    }

    #[pyo3(signature = (shared_info, max_port, *, host_ends_above))]
    fn create_events(
        &self,
        shared_info: u64,
        max_port: u32,
        host_ends_above: bool,
    ) -> PyResult<EventChannels> {
        let made = self
            .all_events
            .add(&self.inner, shared_info, max_port, host_ends_above);
        match self.events.set(made.clone()) {
            Ok(()) => Ok(EventChannels(made)),
            Err(_) => Err(PyValueError::new_err("the domain has event channels")),
        }
    }

    fn create_vcpu(&self, vcpu_id: u32) -> Vcpu {
        Vcpu::new(&self.inner, self.grants.get(), self.events.get(), vcpu_id)
    }

    #[getter]
    fn is_dying(&self) -> bool {
        self.inner.is_dying()
    }

    fn begin_end(&self) {
        self.inner.begin_end();
    }

    fn destroy(&self, py: Python<'_>) -> PyResult<u64> {
        work(|| py.detach(|| self.inner.destroy()))
    }
}
