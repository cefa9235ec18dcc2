// SPDX-License-Identifier: Apache-2.0
//! Xen's ABI and the facts of x86 that more than one part needs: numbers, bits, layouts. No behaviour.
//!
//! The only place in Rust where they are spelled. `tests/abi.rs` compares Xen's with what a C compiler says of the public
//! headers (`tests/abi/golden.json`).

pub mod blkif;
pub mod errno;
pub mod evtchn;
pub mod grant;
pub mod hypercall;
pub mod layout;
pub mod netif;
pub mod p9;
pub mod pte;
pub mod ring;
pub mod selector;
pub mod structs;
pub mod x86;

pub use errno::Errno;

/// Domain identifier (`domid_t`).
pub type DomId = u16;

/// The first number that no domain has; from here on they have meanings of their own (`xen.h`).
pub const DOMID_FIRST_RESERVED: DomId = 0x7ff0;
/// In an argument: the domain that makes the hypercall.
pub const DOMID_SELF: DomId = 0x7ff0;
/// In an argument: the owner of device memory.
pub const DOMID_IO: DomId = 0x7ff1;
/// In an argument: the owner of the hypervisor's own pages.
pub const DOMID_XEN: DomId = 0x7ff2;
/// No domain.
pub const DOMID_INVALID: DomId = 0x7ff4;
