// SPDX-License-Identifier: Apache-2.0
//! `GrantTable`.

use crate::host::{refused, work};
use domzero_machine::{DomainGrants, GrantResult, Mfn};
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;

pyo3::create_exception!(
    _machine,
    GrantRefused,
    PyException,
    "A grant cannot be used: `status` is Xen's number (GNTST_*)."
);

/// The exception for a status.
fn told<R>(result: GrantResult<R>) -> PyResult<R> {
    result.map_err(|status| {
        Python::attach(|py| {
            let error = GrantRefused::new_err((status.number(), status.to_string()));
            // As for `XenRefused`.
            match error.value(py).setattr("status", status.number()) {
                Ok(()) => error,
                Err(e) => e,
            }
        })
    })
}

fn numbers(frames: Vec<Mfn>) -> Vec<u64> {
    frames.into_iter().map(|m| m.0).collect()
}

/// (reference, user, frame, readers, writers)
type ActiveRow = (u32, u16, u64, u32, u32);
/// (handle, owner, reference, frame, flags)
type MappingRow = (u32, u16, u32, u64, u32);

#[pyclass(frozen, module = "domzero._machine")]
pub struct GrantTable(pub DomainGrants);

impl GrantTable {
    /// Does something that may have to wait for the grants' lock.
    fn wait<R: Send>(&self, py: Python<'_>, f: impl FnOnce(&DomainGrants) -> R + Send) -> PyResult<R> {
        work(|| py.detach(|| f(&self.0)))
    }
}

#[pymethods]
impl GrantTable {
    #[getter]
    fn version(&self, py: Python<'_>) -> PyResult<u32> {
        self.wait(py, DomainGrants::version)
    }

    #[getter]
    fn entries(&self, py: Python<'_>) -> PyResult<u32> {
        self.wait(py, DomainGrants::entries)
    }

    #[getter]
    fn frames(&self, py: Python<'_>) -> PyResult<Vec<u64>> {
        self.wait(py, DomainGrants::frames).map(numbers)
    }

    #[getter]
    fn status_frames(&self, py: Python<'_>) -> PyResult<Vec<u64>> {
        self.wait(py, DomainGrants::status_frames).map(numbers)
    }

    fn grow(&self, py: Python<'_>, frames: u32) -> PyResult<()> {
        told(self.wait(py, |g| g.grow(frames))?)
    }

    fn entry_maddr(&self, py: Python<'_>, r#ref: u32) -> PyResult<u64> {
        told(self.wait(py, |g| g.entry_maddr(r#ref))?)
    }

    fn status_maddr(&self, py: Python<'_>, r#ref: u32) -> PyResult<u64> {
        told(self.wait(py, |g| g.status_maddr(r#ref))?)
    }

    fn seed(&self, py: Python<'_>, r#ref: u32, mfn: u64, domid: u16) -> PyResult<()> {
        match self.wait(py, |g| g.seed(r#ref, Mfn(mfn), domid))? {
            true => Ok(()),
            false => Err(PyValueError::new_err(format!(
                "not a reserved grant reference: {ref}",
                r#ref = r#ref
            ))),
        }
    }

    fn set_version(&self, py: Python<'_>, version: u32) -> PyResult<()> {
        self.wait(py, |g| g.set_version(version))?.map_err(refused)
    }

    fn swap(&self, py: Python<'_>, ref_a: u32, ref_b: u32) -> PyResult<()> {
        told(self.wait(py, |g| g.swap(ref_a, ref_b))?)
    }

    #[pyo3(signature = (r#ref, domid, *, writable))]
    fn begin_use(&self, py: Python<'_>, r#ref: u32, domid: u16, writable: bool) -> PyResult<u64> {
        told(self.wait(py, |g| g.begin_use(domid, r#ref, writable))?).map(|mfn| mfn.0)
    }

    #[pyo3(signature = (r#ref, *, writable))]
    fn end_use(&self, py: Python<'_>, r#ref: u32, writable: bool) -> PyResult<()> {
        self.wait(py, |g| g.end_use(r#ref, writable))
    }

    fn active(&self, py: Python<'_>) -> PyResult<Vec<ActiveRow>> {
        let list = self.wait(py, DomainGrants::active)?.into_iter();
        Ok(list
            .map(|(gref, a)| (gref, a.domid, a.mfn.0, a.readers, a.writers))
            .collect())
    }

    fn mappings(&self, py: Python<'_>) -> PyResult<Vec<MappingRow>> {
        let list = self.wait(py, DomainGrants::mappings)?.into_iter();
        Ok(list
            .map(|(handle, m)| (handle, m.owner(), m.gref, m.mfn.0, m.flags))
            .collect())
    }

    fn maps(&self, py: Python<'_>, mfn: u64, owner: u16) -> PyResult<bool> {
        self.wait(py, |g| g.maps(Mfn(mfn), owner))
    }

    fn other_refs(&self, py: Python<'_>) -> PyResult<Vec<(u64, i64, i64)>> {
        let list = told(self.wait(py, DomainGrants::other_refs)?)?;
        Ok(list.into_iter().map(|(m, plain, w)| (m.0, plain, w)).collect())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.wait(py, DomainGrants::close)
    }
}
