//! Page walks and the software TLB.

pub(crate) mod tlb;
pub mod walk;
