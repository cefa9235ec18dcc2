// SPDX-License-Identifier: Apache-2.0
//! Selectors of Xen's own GDT that guests know (`arch-x86/xen-x86_64.h`, `arch-x86/xen-x86_32.h`).

pub use super::x86::selector::*;

/// Code of 64-bit guest kernels.
pub const FLAT_KERNEL_CS: u16 = FLAT_RING3_CS64;
/// Stack of 64-bit guest kernels.
pub const FLAT_KERNEL_SS: u16 = FLAT_RING3_SS64;
/// 64-bit code of ring 3.
pub const FLAT_RING3_CS64: u16 = 0xe033;
/// Stack of 64-bit code.
pub const FLAT_RING3_SS64: u16 = 0xe02b;
/// 32-bit code of ring 3, in 64-bit guests.
pub const FLAT_RING3_CS32: u16 = 0xe023;
/// Data of 32-bit code, in 64-bit guests.
pub const FLAT_RING3_DS32: u16 = 0xe02b;
/// Stack of 32-bit code, in 64-bit guests.
pub const FLAT_RING3_SS32: u16 = 0xe02b;

/// Code of 32-bit guest kernels. The names of these six have no `COMPAT` there (FLAT_RING1_CS and so on).
pub const FLAT_COMPAT_RING1_CS: u16 = 0xe019;
/// Data of 32-bit guest kernels.
pub const FLAT_COMPAT_RING1_DS: u16 = 0xe021;
/// Stack of 32-bit guest kernels.
pub const FLAT_COMPAT_RING1_SS: u16 = 0xe021;
/// Code of applications in 32-bit guests.
pub const FLAT_COMPAT_RING3_CS: u16 = 0xe02b;
/// Data of applications in 32-bit guests.
pub const FLAT_COMPAT_RING3_DS: u16 = 0xe033;
/// Stack of applications in 32-bit guests.
pub const FLAT_COMPAT_RING3_SS: u16 = 0xe033;

/// Xen's own, which guests see with `sldt` and `str` and whose names no public header has: ring 0's code and data, its
/// TSS, its LDT.
pub const XEN_CS64: u16 = 0xe008;
/// Data and stack of ring 0.
pub const XEN_DS: u16 = 0xe010;
/// What `str` gives.
pub const XEN_TSS: u16 = 0xe040;
/// What `sldt` gives to a guest with an LDT.
pub const XEN_LDT: u16 = 0xe048;
