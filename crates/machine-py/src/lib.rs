//! `domzero._machine`: the binding. No logic here; `domzero/_machine.pyi` is the contract.

use pyo3::prelude::*;

#[pymodule]
mod _machine {
    use super::*;

    #[pymodule_init]
    fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
        m.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
