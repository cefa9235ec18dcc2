// SPDX-License-Identifier: Apache-2.0
//! The machine under Domzero: guest RAM, frame types, page walks, the x86 CPU engines and PV trap mechanics.
//!
//! No Python here; `crates/machine-py` binds it. A guest fault is a value, never an error; no guest input may panic.

pub mod abi;
pub mod bare;
pub mod bug;
pub mod clock;
pub mod cpu;
pub mod fault;
pub mod frames;
pub mod grants;
pub mod mem;
pub mod mmu;
pub mod pv;
pub mod random;
pub mod shared;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use frames::{DomId, Domain, Machine};
pub use mem::{Mfn, PhysMem};
pub use pv::Exit;
