// SPDX-License-Identifier: Apache-2.0
//! Words of the contract as Python enumerations.

use domzero_machine::{bare, BaseKind, CallbackKind, Ty};
use pyo3::prelude::*;

#[pyclass(
    frozen,
    eq,
    hash,
    from_py_object,
    module = "domzero._machine",
    rename_all = "SCREAMING_SNAKE_CASE"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    Kernel,
    User,
}

impl From<Base> for BaseKind {
    fn from(base: Base) -> BaseKind {
        match base {
            Base::Kernel => BaseKind::Kernel,
            Base::User => BaseKind::User,
        }
    }
}

#[pyclass(
    frozen,
    eq,
    hash,
    from_py_object,
    module = "domzero._machine",
    rename_all = "SCREAMING_SNAKE_CASE"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Callback {
    Event,
    Failsafe,
    Syscall,
    #[pyo3(name = "SYSCALL32")]
    Syscall32,
    Sysenter,
    Nmi,
}

impl From<Callback> for CallbackKind {
    fn from(callback: Callback) -> CallbackKind {
        match callback {
            Callback::Event => CallbackKind::Event,
            Callback::Failsafe => CallbackKind::Failsafe,
            Callback::Syscall => CallbackKind::Syscall,
            Callback::Syscall32 => CallbackKind::Syscall32,
            Callback::Sysenter => CallbackKind::Sysenter,
            Callback::Nmi => CallbackKind::Nmi,
        }
    }
}

#[pyclass(frozen, eq, hash, module = "domzero._machine")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameType {
    #[pyo3(name = "NONE")]
    None,
    #[pyo3(name = "WRITABLE")]
    Writable,
    L1,
    L2,
    L3,
    L4,
    #[pyo3(name = "SEGDESC")]
    SegDesc,
}

impl From<Ty> for FrameType {
    fn from(ty: Ty) -> FrameType {
        match ty {
            Ty::None => FrameType::None,
            Ty::Writable => FrameType::Writable,
            Ty::L1 => FrameType::L1,
            Ty::L2 | Ty::L2Xen => FrameType::L2,
            Ty::L3 => FrameType::L3,
            Ty::L4 => FrameType::L4,
            Ty::SegDesc => FrameType::SegDesc,
        }
    }
}

/// What became of one instruction of [`crate::bare::Bare`].
#[pyclass(
    frozen,
    eq,
    hash,
    module = "domzero._machine",
    rename_all = "SCREAMING_SNAKE_CASE"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Executed,
    Entered,
    Raised,
    Halted,
    Shutdown,
    Unsupported,
}

#[pyclass(frozen, get_all, module = "domzero._machine")]
pub struct Step {
    outcome: Outcome,
    vector: Option<u8>,
    error_code: Option<u32>,
    cr2: u64,
    reason: Option<&'static str>,
}

impl From<bare::Outcome> for Step {
    fn from(outcome: bare::Outcome) -> Step {
        let plain = |outcome, reason| Step {
            outcome,
            vector: None,
            error_code: None,
            cr2: 0,
            reason,
        };
        let (outcome, fault) = match outcome {
            bare::Outcome::Executed => return plain(Outcome::Executed, None),
            bare::Outcome::Halted => return plain(Outcome::Halted, None),
            bare::Outcome::Unsupported(why) => return plain(Outcome::Unsupported, Some(why)),
            bare::Outcome::Raised { fault, entered: true } => (Outcome::Entered, fault),
            bare::Outcome::Raised {
                fault,
                entered: false,
            } => (Outcome::Raised, fault),
            bare::Outcome::TripleFault { fault } => (Outcome::Shutdown, fault),
        };
        Step {
            outcome,
            vector: Some(fault.vector),
            error_code: fault.error_code,
            cr2: fault.cr2,
            reason: None,
        }
    }
}
