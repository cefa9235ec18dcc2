//! Page-table entries, page walks and the software TLB.

pub mod pte;
pub mod tlb;
pub mod walk;
