//! Page walks and the software TLB.

pub mod tlb;
pub mod walk;
