// SPDX-License-Identifier: Apache-2.0
//! Page walks and the software TLB.

mod parked;
pub(crate) mod tlb;
mod upper;
mod view;
pub(crate) mod views;
pub(crate) mod walk;
