//! Facts of x86 and of Xen's ABI that more than one part needs: bits, layouts, numbers. No behaviour.

pub mod layout;
pub mod pte;

/// Domain identifier (`domid_t`).
pub type DomId = u16;
