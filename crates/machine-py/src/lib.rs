// SPDX-License-Identifier: Apache-2.0
//! `domzero._machine`: the binding. No logic here; `domzero/_machine.pyi` is the contract.

mod bare;
mod big_lock;
mod block;
mod confine;
mod device;
mod engine;
mod enums;
mod events;
mod exit;
mod grants;
mod host;
mod net;
mod p9;
mod timers;
mod usernet;
mod vcpu;
mod vnc;

use pyo3::prelude::*;

#[pymodule]
mod _machine {
    use super::*;

    #[pymodule_export]
    use super::bare::Bare;
    #[pymodule_export]
    use super::big_lock::BigLock;
    #[pymodule_export]
    use super::block::{keep_image_unused, BlockCounts, BlockDisk, BlockRing};
    #[pymodule_export]
    use super::confine::{confine, confine_network, landlock_version};
    #[pymodule_export]
    use super::engine::{host_features, translator_unavailable};
    #[pymodule_export]
    use super::enums::{Base, Callback, FrameType, Outcome, Step};
    #[pymodule_export]
    use super::events::{BellQueue, EventChannel, EventChannels, EventPort};
    #[pymodule_export]
    use super::exit::{
        ExitBudget, ExitClts, ExitDeadline, ExitFault, ExitHypercall, ExitInterrupted, ExitMovFromCr,
        ExitMovFromDr, ExitMovToCr, ExitMovToDr, ExitRdmsr, ExitTrap, ExitUnsupported, ExitWbinvd, ExitWrmsr,
    };
    #[pymodule_export]
    use super::grants::{GrantRefused, GrantTable};
    #[pymodule_export]
    use super::host::{
        give_back_free, Domain, FrameInfo, GuestFault, Machine, MachineBug, MachineError, Preempted,
        VcpuRunning, XenRefused,
    };
    #[pymodule_export]
    use super::net::{run_switch, NetAgreed, NetCounts, NetLink, NetRings};
    #[pymodule_export]
    use super::p9::{Share, ShareCounts, ShareRings};
    #[pymodule_export]
    use super::timers::VcpuTimers;
    #[pymodule_export]
    use super::usernet::run_usernet;
    #[pymodule_export]
    use super::vcpu::Vcpu;
    #[pymodule_export]
    use super::vnc::vnc_response;

    #[pymodule_init]
    fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
        let translator = domzero_machine::TranslatorOptions::default();
        m.add("TRANSLATOR_THRESHOLD", translator.threshold)?;
        m.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
