//! Page-table entries, page walks and the software TLB.
