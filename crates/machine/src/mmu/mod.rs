// SPDX-License-Identifier: Apache-2.0
//! Page walks and the software TLB.

pub(crate) mod tlb;
pub(crate) mod walk;
