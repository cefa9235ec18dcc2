//! `Exit` as Python classes.

use domzero_machine::cpu::fault::PrivInsn;
use domzero_machine::pv::SeenTrap;
use domzero_machine::Exit;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

#[pyclass(frozen, module = "domzero._machine")]
pub struct ExitHypercall {
    #[pyo3(get)]
    nr: u64,
    args: [u64; 6],
}

#[pymethods]
impl ExitHypercall {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("nr", "args")
    }
    #[getter]
    fn args<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.args)
    }
}

#[pyclass(frozen, get_all, module = "domzero._machine")]
pub struct ExitPrivileged {
    kind: &'static str,
    a: u64,
    b: u64,
    length: u8,
}

#[pymethods]
impl ExitPrivileged {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str, &'static str) {
        ("kind", "a", "b", "length")
    }
}

#[pyclass(frozen, get_all, module = "domzero._machine")]
pub struct ExitFault {
    vector: u8,
    error_code: Option<u32>,
    cr2: u64,
    reason: &'static str,
}

#[pymethods]
impl ExitFault {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str, &'static str) {
        ("vector", "error_code", "cr2", "reason")
    }
}

#[pyclass(frozen, get_all, module = "domzero._machine")]
pub struct ExitTrap {
    vector: u8,
    error_code: Option<u32>,
    cr2: u64,
    rip: u64,
    in_kernel: bool,
}

#[pymethods]
impl ExitTrap {
    #[classattr]
    fn __match_args__() -> (
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
    ) {
        ("vector", "error_code", "cr2", "rip", "in_kernel")
    }
}

#[pyclass(frozen, module = "domzero._machine")]
pub struct ExitBudget;
#[pyclass(frozen, module = "domzero._machine")]
pub struct ExitDeadline;
#[pyclass(frozen, module = "domzero._machine")]
pub struct ExitInterrupted;

#[pyclass(frozen, get_all, module = "domzero._machine")]
pub struct ExitUnsupported {
    reason: &'static str,
}

#[pymethods]
impl ExitUnsupported {
    #[classattr]
    fn __match_args__() -> (&'static str,) {
        ("reason",)
    }
}

fn privileged(insn: PrivInsn) -> (&'static str, u64, u64) {
    let two = |kind, a: u8, b: u8| (kind, u64::from(a), u64::from(b));
    match insn {
        PrivInsn::Cli => ("cli", 0, 0),
        PrivInsn::Sti => ("sti", 0, 0),
        PrivInsn::Hlt => ("hlt", 0, 0),
        PrivInsn::Rdmsr => ("rdmsr", 0, 0),
        PrivInsn::Wrmsr => ("wrmsr", 0, 0),
        PrivInsn::Rdpmc => ("rdpmc", 0, 0),
        PrivInsn::MovFromCr { cr, reg } => two("mov_from_cr", cr, reg),
        PrivInsn::MovToCr { cr, reg } => two("mov_to_cr", cr, reg),
        PrivInsn::MovFromDr { dr, reg } => two("mov_from_dr", dr, reg),
        PrivInsn::MovToDr { dr, reg } => two("mov_to_dr", dr, reg),
        PrivInsn::Clts => ("clts", 0, 0),
        PrivInsn::Lmsw { value } => ("lmsw", u64::from(value), 0),
        PrivInsn::Invlpg { va } => ("invlpg", va, 0),
        PrivInsn::Invd => ("invd", 0, 0),
        PrivInsn::Wbinvd => ("wbinvd", 0, 0),
        PrivInsn::Xsetbv => ("xsetbv", 0, 0),
        PrivInsn::Swapgs => ("swapgs", 0, 0),
        PrivInsn::In { port, size } => ("in", u64::from(port), u64::from(size)),
        PrivInsn::Out { port, size } => ("out", u64::from(port), u64::from(size)),
        PrivInsn::StringIo { .. } => ("string_io", 0, 0),
        PrivInsn::Rdtsc { .. } => ("rdtsc", 0, 0),
        PrivInsn::Cpuid => ("cpuid", 0, 0),
        PrivInsn::Iret => ("iret", 0, 0),
        PrivInsn::Sysret => ("sysret", 0, 0),
        PrivInsn::Sysexit => ("sysexit", 0, 0),
        PrivInsn::Other => ("other", 0, 0),
    }
}

/// The Python object for an exit.
pub fn to_python(py: Python<'_>, exit: Exit) -> PyResult<Py<PyAny>> {
    Ok(match exit {
        Exit::Hypercall { nr, args } => Py::new(py, ExitHypercall { nr, args })?.into_any(),
        Exit::Privileged { insn, len } => {
            let (kind, a, b) = privileged(insn);
            Py::new(
                py,
                ExitPrivileged {
                    kind,
                    a,
                    b,
                    length: len,
                },
            )?
            .into_any()
        }
        Exit::Fault {
            vector,
            error_code,
            cr2,
            reason,
        } => Py::new(
            py,
            ExitFault {
                vector,
                error_code,
                cr2,
                reason,
            },
        )?
        .into_any(),
        Exit::Trap(SeenTrap {
            vector,
            error_code,
            cr2,
            rip,
            in_kernel,
        }) => Py::new(
            py,
            ExitTrap {
                vector,
                error_code,
                cr2,
                rip,
                in_kernel,
            },
        )?
        .into_any(),
        Exit::Budget => Py::new(py, ExitBudget)?.into_any(),
        Exit::Deadline => Py::new(py, ExitDeadline)?.into_any(),
        Exit::Interrupted => Py::new(py, ExitInterrupted)?.into_any(),
        Exit::Unsupported(reason) => Py::new(py, ExitUnsupported { reason })?.into_any(),
    })
}
