// SPDX-License-Identifier: Apache-2.0
//! The machine under Domzero: guest RAM, frame types, page walks, the x86 CPU engines and PV trap mechanics.
//!
//! No Python here; `crates/machine-py` binds it. A guest fault is a value, never an error; no guest input may panic.
//!
//! What other crates use is named below, and nothing else is public: the strata inside are in
//! `tests/style/test_strata.py`.

#![deny(missing_docs)]
#![cfg_attr(not(test), warn(unreachable_pub))]

pub mod abi;
pub mod bare;
mod bug;
mod clock;
mod cpu;
mod evtchn;
mod fault;
mod frames;
mod grants;
mod mem;
mod mmu;
mod patience;
mod pv;
mod random;
mod shared;
mod sleep;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod timers;

// The machine and its domains: memory, its books, time and randomness.
pub use clock::Clock;
pub use frames::{BaseKind, DomId, Domain, FrameInfo, Machine, MmError, MmResult, Ty};
pub use mem::{give_back_free, Mfn, PhysMem};
pub use mmu::walk::inspect as walk_tables;
pub use random::RandomSource;

// A vCPU of a PV guest, what it stops for, and how other threads reach it.
pub use pv::mmu_ops::Outcome as BatchOutcome;
pub use pv::{platform as pv_platform, Callback, CallbackKind, Exit, SeenTrap, TrapGate, Vcpu};
pub use shared::{attention, Caller, Purge, VcpuShared};
pub use timers::{Due as DueTimers, Timers, LAST_DEADLINE_NS};

// The processor under it.
pub use cpu::decode::Vendor;
pub use cpu::engine::{ProvedCode, Translated, TranslatorError, TranslatorOptions};
pub use cpu::fault::{vector, Fault, PrivInsn, Trap};
pub use cpu::model::host_features;
pub use cpu::segment::DescTable;
pub use cpu::translate::translator_available;
pub use cpu::{Cpu, CpuidRow, Stop};

// Grants.
pub use grants::{
    DomainGrants, GrantClient, GrantLimits, GrantMapping, GrantMappings, GrantResult, Grants, OutsidePage,
};

// Event channels.
pub use evtchn::{Bell, Binding, Channel, DomainEvents, Events, HostPort};
pub use pv::event_channel::EventOutcome;

// Faults of our own, told apart from those of guests.
pub use bug::{caught, Bug};
