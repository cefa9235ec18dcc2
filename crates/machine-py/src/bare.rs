// SPDX-License-Identifier: Apache-2.0
//! `Bare`: the processor without a hypervisor, for `domzero lab`.

use crate::enums::Step;
use crate::host::{GuestFault, Machine, MachineError};
use crate::vcpu::{GPRS, SEGMENTS};
use domzero_machine::bare::{Bare as Inner, Table};
use domzero_machine::{walk_tables, CpuidRow, Mfn};
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::sync::{Mutex, MutexGuard};

#[pyclass(frozen, module = "domzero._machine")]
pub struct Bare(Mutex<Inner>);

const OTHERS: [&str; 23] = [
    "rip",
    "rflags",
    "cpl",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "efer",
    "star",
    "lstar",
    "fmask",
    "fs_base",
    "gs_base",
    "kernel_gs_base",
    "gdtr_base",
    "gdtr_limit",
    "idtr_base",
    "idtr_limit",
    "ldtr",
    "tr",
    "tss_base",
    "dr6",
    "dr7",
];

/// (leaf, subleaf or None for any, eax, ebx, ecx, edx)
type CpuidLeaf = (u32, Option<u32>, u32, u32, u32, u32);
impl Bare {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn get(v: &Inner, name: &str) -> Option<u64> {
        if let Some(i) = GPRS.iter().position(|&g| g == name) {
            return Some(v.cpu.regs[i]);
        }
        if let Some(i) = SEGMENTS.iter().position(|&s| s == name) {
            return Some(u64::from(v.cpu.seg.sel[i]));
        }
        Some(match name {
            "rip" => v.cpu.rip,
            "rflags" => v.cpu.rflags(),
            "cpl" => u64::from(v.cpu.cpl),
            "cr0" => v.cr0(),
            "cr2" => v.cr2,
            "cr3" => v.cpu.base().map_or(0, Mfn::maddr),
            "cr4" => v.cr4,
            "efer" => v.efer,
            "star" => v.star,
            "lstar" => v.lstar,
            "fmask" => v.fmask,
            "fs_base" => v.cpu.bases.fs,
            "gs_base" => v.cpu.bases.gs,
            "kernel_gs_base" => v.kernel_gs_base,
            "gdtr_base" => v.gdtr.base,
            "gdtr_limit" => u64::from(v.gdtr.limit),
            "idtr_base" => v.idtr.base,
            "idtr_limit" => u64::from(v.idtr.limit),
            "ldtr" => u64::from(v.ldtr),
            "tr" => u64::from(v.tr),
            "tss_base" => v.tss.base,
            "dr6" => v.debug[6],
            "dr7" => v.debug[7],
            _ => return None,
        })
    }
}

#[pymethods]
impl Bare {
    #[new]
    fn new(machine: &Machine, domid: u16) -> Self {
        Bare(Mutex::new(Inner::new(&machine.0, domid)))
    }

    fn alloc(&self, count: u64) -> PyResult<Vec<u64>> {
        let frames = self.lock().domain().alloc(count);
        frames
            .map(|v| v.into_iter().map(|m| m.0).collect())
            .ok_or_else(|| MachineError::new_err("no free machine frames"))
    }

    fn step(&self) -> Step {
        self.lock().step().into()
    }

    fn run(&self, py: Python<'_>, limit: u64) -> Option<Step> {
        let mut v = self.lock();
        let inner = &mut *v;
        py.detach(|| inner.run(limit)).map(Step::from)
    }

    #[getter]
    fn instructions(&self) -> u64 {
        self.lock().instructions
    }

    #[getter]
    fn output<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.lock().output)
    }

    fn registers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let v = self.lock();
        let d = PyDict::new(py);
        for name in GPRS.iter().chain(&SEGMENTS).chain(&OTHERS) {
            d.set_item(name, Self::get(&v, name))?;
        }
        Ok(d)
    }

    fn get_reg(&self, name: &str) -> PyResult<u64> {
        Self::get(&self.lock(), name).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    fn set_reg(&self, name: &str, value: u64) -> PyResult<()> {
        let mut v = self.lock();
        if let Some(i) = GPRS.iter().position(|&g| g == name) {
            v.cpu.regs[i] = value;
            return Ok(());
        }
        if let Some(i) = SEGMENTS.iter().position(|&s| s == name) {
            v.cpu.seg.sel[i] = value as u16;
            return Ok(());
        }
        match name {
            "rip" => v.cpu.rip = value,
            "rflags" => v.cpu.set_rflags(value),
            "cpl" => v.set_cpl(value as u8 & 3),
            "cr0" => {
                v.cr0 = value;
                v.cpu.fpu.ts = value & 8 != 0;
            }
            "cr2" => v.cr2 = value,
            "cr3" => v.load_base(Mfn(value >> 12)),
            "cr4" => v.cr4 = value,
            "star" => v.star = value,
            "lstar" => v.lstar = value,
            "fmask" => v.fmask = value,
            "fs_base" => v.cpu.bases.fs = value,
            "gs_base" => v.cpu.bases.gs = value,
            "kernel_gs_base" => v.kernel_gs_base = value,
            "ldtr" => v.ldtr = value as u16,
            "tr" => v.tr = value as u16,
            _ => return Err(PyKeyError::new_err(name.to_owned())),
        }
        Ok(())
    }

    fn load_table(&self, which: &str, base: u64, limit: u16) -> PyResult<()> {
        let mut v = self.lock();
        let table = Table {
            base,
            limit: u32::from(limit),
        };
        match which {
            "gdt" => v.load_gdt(table).map_err(PyValueError::new_err)?,
            "idt" => v.idtr = table,
            "tss" => v.tss = table,
            _ => return Err(PyKeyError::new_err(which.to_owned())),
        }
        Ok(())
    }

    fn set_cpuid(&self, leaves: Vec<CpuidLeaf>) {
        let row = |(leaf, subleaf, a, b, c, d)| CpuidRow {
            leaf,
            subleaf,
            regs: [a, b, c, d],
        };
        self.lock().cpu.set_cpuid(leaves.into_iter().map(row).collect());
    }

    fn read_va<'py>(&self, py: Python<'py>, va: u64, length: usize) -> PyResult<Bound<'py, PyBytes>> {
        let mut v = self.lock();
        PyBytes::new_with(py, length, |buf| {
            v.read(va, buf).map_err(|_| GuestFault::new_err(va))?;
            Ok(())
        })
    }

    fn write_va(&self, va: u64, data: std::borrow::Cow<'_, [u8]>) -> PyResult<()> {
        let mut v = self.lock();
        v.write(va, &data).map_err(|_| GuestFault::new_err(va))
    }

    fn page_walk(&self, va: u64) -> Vec<(u8, u64, u16, u64)> {
        let v = self.lock();
        let Some(base) = v.cpu.base() else {
            return Vec::new();
        };
        walk_tables(&v.domain().machine.mem, base, va, false)
            .into_iter()
            .map(|(level, table, index, entry)| (level, table.0, index, entry))
            .collect()
    }
}
