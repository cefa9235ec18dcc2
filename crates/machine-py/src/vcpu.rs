// SPDX-License-Identifier: Apache-2.0
//! `Vcpu`.

use crate::big_lock::BigLock;
use crate::engine;
use crate::enums::{self, Base};
use crate::exit::to_python;
use crate::host::{bug, not_done, progress, refused, GuestFault, MachineBug, Progress, VcpuRunning};
use crate::timers::VcpuTimers;
use domzero_machine as dm;
use domzero_machine::abi::Errno;
use domzero_machine::{
    caught, walk_tables, Callback, CpuidRow, DomainEvents, DomainGrants, EventOutcome, Fault, Mfn, MmResult,
    TrapGate, VcpuShared,
};
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

#[pyclass(frozen, module = "domzero._machine")]
pub struct Vcpu {
    inner: Mutex<dm::Vcpu>,
    shared: Arc<VcpuShared>,
    id: u32,
}

pub const GPRS: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];
pub const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];

/// (leaf, subleaf or None for any, eax, ebx, ecx, edx)
type CpuidLeaf = (u32, Option<u32>, u32, u32, u32, u32);

/// The number of a debug register whose address mask this is.
fn address_mask(name: &str) -> Option<usize> {
    ["dr0_mask", "dr1_mask", "dr2_mask", "dr3_mask"]
        .iter()
        .position(|&m| m == name)
}

impl Vcpu {
    pub fn new(
        domain: &Arc<dm::Domain>,
        grants: Option<&DomainGrants>,
        events: Option<&Arc<DomainEvents>>,
        id: u32,
    ) -> Vcpu {
        let mut inner = dm::Vcpu::new(domain, id);
        if let Some(grants) = grants {
            inner.set_grants(grants.clone());
        }
        if let Some(events) = events {
            inner.set_events(events.clone());
        }
        let shared = inner.shared().clone();
        Vcpu {
            inner: Mutex::new(inner),
            shared,
            id,
        }
    }

    fn lock(&self) -> PyResult<MutexGuard<'_, dm::Vcpu>> {
        match self.inner.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(e)) => Ok(e.into_inner()),
            Err(TryLockError::WouldBlock) => Err(VcpuRunning::new_err("the vCPU runs in another thread")),
        }
    }

    /// Does what a guest asked for. A panic in it is a bug of ours: `MachineBug`, and the vCPU, whose state may be half
    /// changed, does nothing more. Its registers can still be read.
    fn work<R>(&self, f: impl FnOnce(&mut dm::Vcpu) -> R) -> PyResult<R> {
        if self.inner.is_poisoned() {
            return Err(MachineBug::new_err("this vCPU has met a bug before"));
        }
        let guard = self.lock()?;
        // The guard is dropped by the panic, if there is one, and poisons the lock.
        caught(move || {
            let mut guard = guard;
            f(&mut guard)
        })
        .map_err(bug)
    }

    /// The same for what may be refused: `XenRefused`.
    fn request<R>(&self, f: impl FnOnce(&mut dm::Vcpu) -> Result<R, Errno>) -> PyResult<R> {
        self.work(f)?.map_err(refused)
    }

    /// The same for what may take more than one round: `Preempted` then. Without the interpreter's lock.
    fn part(&self, py: Python<'_>, f: impl FnOnce(&mut dm::Vcpu) -> MmResult + Send) -> PyResult<()> {
        self.work(|v| py.detach(|| f(v)))?.map_err(not_done)
    }

    fn read_register(v: &dm::Vcpu, name: &str) -> Option<u64> {
        if let Some(i) = GPRS.iter().position(|&g| g == name) {
            return Some(v.cpu.regs[i]);
        }
        if let Some(i) = SEGMENTS.iter().position(|&s| s == name) {
            return Some(u64::from(v.cpu.seg.sel[i]));
        }
        Some(match name {
            "rip" => v.cpu.rip,
            "rflags" => v.cpu.rflags(),
            "fs_base" => v.cpu.bases.fs,
            "gs_base_kernel" => v.gs_base(true),
            "gs_base_user" => v.gs_base(false),
            "cr2" => v.cr2(),
            "mxcsr" => u64::from(v.cpu.fpu.mxcsr),
            "tsc_aux" => u64::from(v.cpu.model.tsc_aux),
            "xcr0" => v.cpu.fpu.xcr0,
            _ => return address_mask(name).map(|n| v.cpu.breakpoint_mask(n)),
        })
    }
}

#[pymethods]
impl Vcpu {
    #[getter]
    fn vcpu_id(&self) -> u32 {
        self.id
    }

    #[pyo3(signature = (budget, deadline_ns=u64::MAX))]
    fn run(&self, py: Python<'_>, budget: u64, deadline_ns: u64) -> PyResult<Py<PyAny>> {
        let exit = self.work(|v| py.detach(|| v.run(budget, deadline_ns)))?;
        to_python(py, exit)
    }

    fn kick(&self) {
        dm::Vcpu::kick(&self.shared);
    }

    fn notify(&self) {
        dm::Vcpu::notify(&self.shared);
    }

    #[getter]
    fn timers(&self) -> VcpuTimers {
        VcpuTimers(Arc::clone(&self.shared.timers))
    }

    #[getter]
    fn is_up(&self) -> bool {
        self.shared.is_up.load(Ordering::Acquire)
    }

    #[setter]
    fn set_is_up(&self, up: bool) {
        self.shared.is_up.store(up, Ordering::Release);
    }

    #[getter]
    fn is_blocked(&self) -> bool {
        self.shared.sleep.is_blocked()
    }

    fn unblock(&self) {
        self.shared.sleep.unblock();
    }

    fn poke(&self) {
        self.shared.sleep.poke();
    }

    #[pyo3(signature = (lock, timeout_s=None))]
    fn sleep(&self, py: Python<'_>, lock: &BigLock, timeout_s: Option<f64>) -> PyResult<()> {
        let timeout = timeout_s.map(Duration::try_from_secs_f64).transpose();
        let timeout = timeout.map_err(|e| PyValueError::new_err(e.to_string()))?;
        lock.without(py, || self.shared.sleep.wait(timeout))
    }

    fn hypercall_return(&self, rc: i64) -> PyResult<()> {
        self.work(|v| v.hypercall_return(rc))
    }

    fn hypercall_restart(&self) -> PyResult<()> {
        self.work(|v| v.hypercall_restart())
    }

    fn skip(&self, length: u64) -> PyResult<()> {
        self.work(|v| v.skip(length as u8))
    }

    #[pyo3(signature = (vector, error_code=None, cr2=0))]
    fn inject(&self, vector: u8, error_code: Option<u32>, cr2: u64) -> PyResult<()> {
        self.lock()?.inject(Fault {
            vector,
            error_code,
            cr2,
        });
        Ok(())
    }

    #[getter]
    fn instructions(&self) -> PyResult<u64> {
        Ok(self.lock()?.instructions())
    }

    #[getter]
    fn cached_bytes(&self) -> PyResult<usize> {
        Ok(self.lock()?.cpu.cached_bytes())
    }

    fn forget_cached(&self) -> PyResult<()> {
        self.work(|v| v.cpu.forget_cached())
    }

    // --- registers

    fn registers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let v = self.lock()?;
        let d = PyDict::new(py);
        let rest = [
            "rip",
            "rflags",
            "fs_base",
            "gs_base_kernel",
            "gs_base_user",
            "cr2",
            "mxcsr",
        ];
        for name in GPRS.iter().chain(&SEGMENTS).chain(&rest) {
            d.set_item(name, Self::read_register(&v, name))?;
        }
        Ok(d)
    }

    fn get_reg(&self, name: &str) -> PyResult<u64> {
        Self::read_register(&*self.lock()?, name).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    fn set_reg(&self, name: &str, value: u64) -> PyResult<()> {
        let mut v = self.lock()?;
        if let Some(i) = GPRS.iter().position(|&g| g == name) {
            v.cpu.regs[i] = value;
            return Ok(());
        }
        if let Some(i) = SEGMENTS.iter().position(|&s| s == name) {
            v.set_selector(i, value as u16);
            return Ok(());
        }
        match name {
            "rip" => v.cpu.rip = value,
            "rflags" => v.cpu.set_rflags(value),
            "fs_base" => v.cpu.bases.fs = value,
            "gs_base_kernel" => v.set_gs_base(true, value),
            "gs_base_user" => v.set_gs_base(false, value),
            "cr2" => v.set_cr2(value),
            "tsc_aux" => v.cpu.model.tsc_aux = value as u32,
            "mxcsr" => v.cpu.fpu.mxcsr = value as u32 & 0xffff,
            "xcr0" if v.cpu.set_xcr0(value) => {}
            "xcr0" => return Err(PyValueError::new_err("xsetbv would raise #GP")),
            _ => match address_mask(name) {
                Some(n) => v.cpu.set_breakpoint_mask(n, value),
                None => return Err(PyKeyError::new_err(name.to_owned())),
            },
        }
        Ok(())
    }

    #[getter]
    fn guest_kernel(&self) -> PyResult<bool> {
        Ok(self.lock()?.guest_kernel())
    }

    #[setter]
    fn set_guest_kernel(&self, value: bool) -> PyResult<()> {
        match self.lock()?.set_guest_kernel(value) {
            true => Ok(()),
            false => Err(PyValueError::new_err("no page tables for that mode")),
        }
    }

    // --- PV state

    fn set_trap(&self, vector: u8, cs: u16, address: u64, flags: u8) -> PyResult<()> {
        self.lock()?.set_trap(vector, TrapGate { cs, address, flags });
        Ok(())
    }

    fn get_trap(&self, vector: u8) -> PyResult<(u16, u64, u8)> {
        let t = self.lock()?.trap(vector);
        Ok((t.cs, t.address, t.flags))
    }

    fn set_callback(&self, kind: enums::Callback, cs: u16, address: u64, mask_events: bool) -> PyResult<()> {
        self.lock()?.set_callback(
            kind.into(),
            Callback {
                cs,
                address,
                mask_events,
            },
        );
        Ok(())
    }

    fn get_callback(&self, kind: enums::Callback) -> PyResult<(u16, u64, bool)> {
        let c = self.lock()?.callback(kind.into());
        Ok((c.cs, c.address, c.mask_events))
    }

    fn get_kernel_stack(&self) -> PyResult<(u16, u64)> {
        Ok(self.lock()?.kernel_stack())
    }

    fn get_gdt(&self) -> PyResult<(Vec<u64>, u32)> {
        let (frames, entries) = self.lock()?.gdt();
        Ok((frames.into_iter().map(|mfn| mfn.0).collect(), entries))
    }

    fn get_ldt(&self) -> PyResult<(u64, u32)> {
        Ok(self.lock()?.ldt())
    }

    fn save_fpu(&self) -> PyResult<[u8; 512]> {
        Ok(self.lock()?.save_fpu())
    }

    fn save_upper_vectors(&self) -> PyResult<[u8; 256]> {
        Ok(self.lock()?.upper_vectors())
    }

    fn load_upper_vectors(&self, image: [u8; 256]) -> PyResult<()> {
        self.lock()?.set_upper_vectors(&image);
        Ok(())
    }

    fn set_kernel_stack(&self, ss: u16, sp: u64) -> PyResult<()> {
        self.lock()?.set_kernel_stack(ss, sp);
        Ok(())
    }

    fn set_vcpu_info(&self, maddr: u64) -> PyResult<()> {
        self.lock()?.set_vcpu_info(maddr);
        Ok(())
    }

    fn set_base(&self, py: Python<'_>, kind: Base, mfn: u64) -> PyResult<()> {
        let kernel = kind == Base::Kernel;
        self.part(py, |v| v.new_base_part(kernel, Mfn(mfn)))
    }

    fn get_base(&self, kind: Base) -> PyResult<u64> {
        Ok(self.lock()?.base(kind == Base::Kernel).map_or(0, |m| m.0))
    }

    fn set_segment_base(&self, which: u32, base: u64) -> PyResult<()> {
        self.request(|v| v.set_segment_base(which, base))
    }

    fn set_gdt(&self, py: Python<'_>, mfns: Vec<u64>, entries: u32) -> PyResult<()> {
        let mfns: Vec<Mfn> = mfns.into_iter().map(Mfn).collect();
        self.part(py, |v| v.set_gdt(&mfns, entries))
    }

    fn set_ldt(&self, va: u64, entries: u32) -> PyResult<()> {
        self.request(|v| v.set_ldt(va, entries))
    }

    fn set_cr0_ts(&self, ts: bool) -> PyResult<()> {
        self.lock()?.set_ts(ts);
        Ok(())
    }

    fn get_cr0_ts(&self) -> PyResult<bool> {
        Ok(self.lock()?.cpu.fpu.ts)
    }

    fn set_debug_reg(&self, index: u32, value: u64) -> PyResult<()> {
        self.lock()?.set_debug_reg(index, value).map_err(refused)
    }

    fn get_debug_reg(&self, index: u32) -> PyResult<Option<u64>> {
        Ok(self.lock()?.debug_reg(index))
    }

    fn set_cr4(&self, value: u64) -> PyResult<()> {
        self.lock()?.set_cr4(value);
        Ok(())
    }

    fn get_cr4(&self) -> PyResult<u64> {
        Ok(self.lock()?.cr4())
    }

    fn set_cpuid_faulting(&self, on: bool) -> PyResult<()> {
        self.lock()?.cpu.model.cpuid_traps = on;
        Ok(())
    }

    fn set_io_bitmap(&self, va: u64, ports: u32) -> PyResult<()> {
        self.lock()?.set_io_bitmap(va, ports);
        Ok(())
    }

    fn send_nmi(&self) -> PyResult<()> {
        self.lock()?.send_nmi();
        Ok(())
    }

    fn set_cpuid(&self, leaves: Vec<CpuidLeaf>) -> PyResult<()> {
        let row = |(leaf, subleaf, a, b, c, d)| CpuidRow {
            leaf,
            subleaf,
            regs: [a, b, c, d],
        };
        self.lock()?.cpu.set_cpuid(leaves.into_iter().map(row).collect());
        Ok(())
    }

    fn get_iopl(&self) -> PyResult<u8> {
        Ok(self.lock()?.iopl())
    }

    fn set_iopl(&self, iopl: u8) -> PyResult<()> {
        self.lock()?.set_iopl(iopl);
        Ok(())
    }

    // --- guest memory

    fn read_va<'py>(&self, py: Python<'py>, va: u64, length: usize) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, length, |buf| {
            self.work(|v| v.copy_in(va, buf))?
                .map_err(|_| GuestFault::new_err(va))
        })
    }

    fn write_va(&self, va: u64, data: std::borrow::Cow<'_, [u8]>) -> PyResult<()> {
        self.work(|v| v.copy_out(va, &data))?
            .map_err(|_| GuestFault::new_err(va))
    }

    fn translate(&self, va: u64) -> PyResult<Option<u64>> {
        Ok(self.lock()?.translate(va))
    }

    fn page_walk(&self, va: u64) -> PyResult<Vec<(u8, u64, u16, u64)>> {
        let v = self.lock()?;
        let Some(base) = v.base(v.guest_kernel()) else {
            return Ok(Vec::new());
        };
        let steps = walk_tables(&v.domain().machine.mem, base, va, v.domain().is_32bit);
        Ok(steps
            .into_iter()
            .map(|(level, table, index, entry)| (level, table.0, index, entry))
            .collect())
    }

    // --- page-table hypercalls

    fn mmu_update(
        &self,
        py: Python<'_>,
        req_va: u64,
        count: u32,
        done_va: u64,
        foreigndom: u32,
    ) -> PyResult<()> {
        self.request(|v| py.detach(|| v.mmu_update(req_va, count, done_va, foreigndom)))
    }

    fn mmu_update_part(
        &self,
        py: Python<'_>,
        req_va: u64,
        count: u32,
        done_va: u64,
        foreigndom: u32,
    ) -> PyResult<Progress> {
        self.request(|v| progress(py.detach(|| v.mmu_update_part(req_va, count, done_va, foreigndom))))
    }

    fn mmuext_op(
        &self,
        py: Python<'_>,
        op_va: u64,
        count: u32,
        done_va: u64,
        foreigndom: u32,
    ) -> PyResult<()> {
        self.request(|v| py.detach(|| v.mmuext_op(op_va, count, done_va, foreigndom)))
    }

    fn mmuext_op_part(
        &self,
        py: Python<'_>,
        op_va: u64,
        count: u32,
        done_va: u64,
        foreigndom: u32,
    ) -> PyResult<Progress> {
        self.request(|v| progress(py.detach(|| v.mmuext_op_part(op_va, count, done_va, foreigndom))))
    }

    fn grant_table_op(&self, py: Python<'_>, command: u32, va: u64, count: u32) -> PyResult<Progress> {
        self.request(|v| {
            let outcome = py.detach(|| v.grant_table_op(command, va, count));
            progress(outcome.ok_or(Errno::ENOSYS)?)
        })
    }

    fn event_channel_op(&self, py: Python<'_>, command: u32, va: u64) -> PyResult<Option<u32>> {
        self.request(|v| {
            match py
                .detach(|| v.event_channel_op(command, va))
                .ok_or(Errno::ENOSYS)?
            {
                EventOutcome::Done(done) => done.map(|()| None),
                EventOutcome::Continue(command) => Ok(Some(command)),
            }
        })
    }

    fn vcpu_op(&self, command: u32, vcpu_id: u32, va: u64) -> PyResult<u64> {
        self.request(|v| v.vcpu_op(command, vcpu_id, va).ok_or(Errno::ENOSYS)?)
    }

    fn set_timer_op(&self, when_ns: u64) -> PyResult<()> {
        self.work(|v| v.set_timer_op(when_ns))
    }

    /// The iret hypercall, from within a multicall: None, or why the domain crashes.
    fn iret(&self) -> PyResult<Option<&'static str>> {
        self.work(|v| v.iret().err())
    }

    fn load_fpu(&self, image: std::borrow::Cow<'_, [u8]>) -> PyResult<()> {
        let image = <&[u8; 512]>::try_from(image.as_ref())
            .map_err(|_| PyValueError::new_err("an fxsave image has 512 bytes"))?;
        self.work(|v| v.load_fpu(image))
    }

    fn update_va_mapping(&self, py: Python<'_>, va: u64, value: u64, flags: u64) -> PyResult<()> {
        self.part(py, |v| v.update_va_mapping(va, value, flags, None))
    }

    fn update_va_mapping_otherdomain(
        &self,
        py: Python<'_>,
        va: u64,
        value: u64,
        flags: u64,
        domid: u16,
    ) -> PyResult<()> {
        self.part(py, |v| v.update_va_mapping(va, value, flags, Some(domid)))
    }

    fn update_descriptor(&self, py: Python<'_>, maddr: u64, descriptor: u64) -> PyResult<()> {
        self.part(py, |v| v.update_descriptor(maddr, descriptor))
    }

    /// Host code for blocks that have run `threshold` times; 0: the interpreter alone. With virtual time, runs are the same to the
    /// last flag on both.
    #[pyo3(signature = (threshold, code_bytes = None, prove = false))]
    fn set_translator(&self, threshold: u32, code_bytes: Option<usize>, prove: bool) -> PyResult<()> {
        engine::set_translator(&mut self.lock()?.cpu, threshold, code_bytes, prove)
    }

    fn translated(&self) -> PyResult<(u64, f64, usize)> {
        Ok(engine::translated(&self.lock()?.cpu))
    }

    fn prove_code(&self) -> PyResult<(usize, usize, usize)> {
        engine::prove_code(&self.lock()?.cpu)
    }

    fn set_check(&self, on: bool) -> PyResult<()> {
        self.lock()?.cpu.set_check(on);
        Ok(())
    }

    fn checked(&self) -> PyResult<(u64, Option<String>)> {
        Ok(engine::checked(&self.lock()?.cpu))
    }

    fn dump_code(&self, fd: RawFd) -> PyResult<()> {
        engine::dump_code(&mut self.lock()?.cpu, fd)
    }

    fn set_fast_hypercalls(&self, enabled: bool) -> PyResult<()> {
        self.lock()?.set_fast_hypercalls(enabled);
        Ok(())
    }

    fn watch_traps(&self, vectors: Vec<u8>) -> PyResult<()> {
        self.lock()?.watch_traps(&vectors);
        Ok(())
    }
}
