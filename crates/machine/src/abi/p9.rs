// SPDX-License-Identifier: Apache-2.0
//! `io/9pfs.h`: the rings of a shared directory, two streams of bytes each.

/// The largest ring that Linux's front end makes: 2^9 pages, half of them for each direction.
pub const MAX_RING_ORDER: u32 = 9;

/// Bytes of each direction in a ring of 2^`order` pages (`XEN_FLEX_RING_SIZE`).
pub const fn ring_size(order: u32) -> usize {
    1 << (order + 11)
}

/// `struct xen_9pfs_data_intf`, the page that names the others. "In" is what the front end reads.
pub mod data_intf {
    /// `in_cons`: what the front end has read.
    pub const IN_CONS: usize = 0;
    /// `in_prod`: what the back end has written.
    pub const IN_PROD: usize = 4;
    /// `out_cons`: what the back end has read.
    pub const OUT_CONS: usize = 64;
    /// `out_prod`: what the front end has written.
    pub const OUT_PROD: usize = 68;
    /// `ring_order`: of the pages, by the power of two.
    pub const RING_ORDER: usize = 128;
    /// Grants of the ring's pages follow.
    pub const REF: usize = 132;
}
