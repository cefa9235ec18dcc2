//! `domzero._machine`: the binding. No logic here; `domzero/_machine.pyi` is the contract.

mod bare;
mod exit;
mod host;
mod vcpu;

use pyo3::prelude::*;

#[pymodule]
mod _machine {
    use super::*;

    #[pymodule_export]
    use super::bare::Bare;
    #[pymodule_export]
    use super::exit::{
        ExitBudget, ExitDeadline, ExitFault, ExitHypercall, ExitInterrupted, ExitPrivileged, ExitTrap,
        ExitUnsupported,
    };
    #[pymodule_export]
    use super::host::{Domain, FrameInfo, GuestFault, Machine, MachineBug, MachineError, VcpuRunning};
    #[pymodule_export]
    use super::vcpu::Vcpu;

    #[pymodule_init]
    fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
        m.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
