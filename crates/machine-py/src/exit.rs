// SPDX-License-Identifier: Apache-2.0
//! `Exit` as Python classes, one per exit. Each can be made from Python too: for tests of who handles them.

use crate::vcpu::GPRS;
use domzero_machine::{Exit, PrivInsn, SeenTrap};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::PyClass;

#[pyclass(frozen, module = "domzero._machine")]
pub struct ExitHypercall {
    #[pyo3(get)]
    nr: u64,
    args: [u64; 6],
}

#[pymethods]
impl ExitHypercall {
    #[new]
    fn new(nr: u64, args: [u64; 6]) -> Self {
        ExitHypercall { nr, args }
    }
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("nr", "args")
    }
    #[getter]
    fn args<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.args)
    }
}

/// An exit whose fields are read and matched by name.
macro_rules! exit_class {
    ($name:ident { $($field:ident: $ty:ty),+ }) => {
        #[pyclass(frozen, get_all, module = "domzero._machine")]
        pub struct $name {
            $($field: $ty),+
        }

        #[pymethods]
        impl $name {
            #[new]
            fn new($($field: $ty),+) -> Self {
                $name { $($field),+ }
            }
            #[classattr]
            fn __match_args__(py: Python<'_>) -> PyResult<Py<PyTuple>> {
                Ok(PyTuple::new(py, [$(stringify!($field)),+])?.unbind())
            }
        }
    };
    ($name:ident) => {
        #[pyclass(frozen, module = "domzero._machine")]
        pub struct $name;

        #[pymethods]
        impl $name {
            #[new]
            fn new() -> Self {
                $name
            }
        }
    };
}

exit_class!(ExitRdmsr { length: u8 });
exit_class!(ExitWrmsr { length: u8 });
exit_class!(ExitMovFromCr {
    cr: u8,
    register: String,
    length: u8
});
exit_class!(ExitMovToCr {
    cr: u8,
    register: String,
    length: u8
});
exit_class!(ExitMovFromDr {
    dr: u8,
    register: String,
    length: u8
});
exit_class!(ExitMovToDr {
    dr: u8,
    register: String,
    length: u8
});
exit_class!(ExitClts { length: u8 });
exit_class!(ExitWbinvd { length: u8 });
exit_class!(ExitFault { vector: u8, error_code: Option<u32>, cr2: u64, reason: String });
exit_class!(ExitTrap { vector: u8, error_code: Option<u32>, cr2: u64, rip: u64, in_kernel: bool });
exit_class!(ExitUnsupported { reason: String });
exit_class!(ExitBudget);
exit_class!(ExitDeadline);
exit_class!(ExitInterrupted);

fn object<T: PyClass>(py: Python<'_>, exit: impl Into<PyClassInitializer<T>>) -> PyResult<Py<PyAny>> {
    Ok(Py::new(py, exit)?.into_any())
}

fn privileged(py: Python<'_>, insn: PrivInsn, length: u8) -> PyResult<Py<PyAny>> {
    let name = |reg: u8| GPRS.get(usize::from(reg)).copied().unwrap_or_default().to_owned();
    match insn {
        PrivInsn::Rdmsr => object(py, ExitRdmsr { length }),
        PrivInsn::Wrmsr => object(py, ExitWrmsr { length }),
        PrivInsn::MovFromCr { cr, reg } => object(py, ExitMovFromCr::new(cr, name(reg), length)),
        PrivInsn::MovToCr { cr, reg } => object(py, ExitMovToCr::new(cr, name(reg), length)),
        PrivInsn::MovFromDr { dr, reg } => object(py, ExitMovFromDr::new(dr, name(reg), length)),
        PrivInsn::MovToDr { dr, reg } => object(py, ExitMovToDr::new(dr, name(reg), length)),
        PrivInsn::Clts => object(py, ExitClts { length }),
        PrivInsn::Wbinvd => object(py, ExitWbinvd { length }),
        // All others the machine answers itself: `pv::trap`.
        _ => object(py, ExitUnsupported::new(format!("the instruction {insn:?}"))),
    }
}

/// The Python object for an exit.
pub fn to_python(py: Python<'_>, exit: Exit) -> PyResult<Py<PyAny>> {
    match exit {
        Exit::Hypercall { nr, args } => object(py, ExitHypercall { nr, args }),
        Exit::Privileged { insn, len } => privileged(py, insn, len),
        Exit::Fault {
            vector,
            error_code,
            cr2,
            reason,
        } => object(py, ExitFault::new(vector, error_code, cr2, reason.to_owned())),
        Exit::Trap(SeenTrap {
            vector,
            error_code,
            cr2,
            rip,
            in_kernel,
        }) => object(py, ExitTrap::new(vector, error_code, cr2, rip, in_kernel)),
        Exit::Budget => object(py, ExitBudget),
        Exit::Deadline => object(py, ExitDeadline),
        Exit::Interrupted => object(py, ExitInterrupted),
        Exit::Unsupported(reason) => object(py, ExitUnsupported::new(reason.to_owned())),
    }
}
