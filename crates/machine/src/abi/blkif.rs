// SPDX-License-Identifier: Apache-2.0
//! `io/blkif.h`: requests and responses of a block device.

/// Bytes of a sector in requests, whatever the device's own sector size is.
pub const SECTOR: u64 = 512;
/// Of `SECTOR` bytes.
pub const SECTORS_PER_PAGE: u8 = 8;

/// From the disk into the segments (`BLKIF_OP_READ`).
pub const OP_READ: u8 = 0;
/// From the segments to the disk (`BLKIF_OP_WRITE`).
pub const OP_WRITE: u8 = 1;
/// A write with all before it on stable storage before, and itself after (`BLKIF_OP_WRITE_BARRIER`).
pub const OP_WRITE_BARRIER: u8 = 2;
/// What was written goes to stable storage (`BLKIF_OP_FLUSH_DISKCACHE`).
pub const OP_FLUSH_DISKCACHE: u8 = 3;
/// What is in the sectors is needed no more (`BLKIF_OP_DISCARD`).
pub const OP_DISCARD: u8 = 5;
/// A read or write whose segments are listed in granted pages (`BLKIF_OP_INDIRECT`).
pub const OP_INDIRECT: u8 = 6;

/// In the flag of a discard: nothing of it may be left (`BLKIF_DISCARD_SECURE`).
pub const DISCARD_SECURE: u8 = 1;

/// Done (`BLKIF_RSP_OKAY`).
pub const RSP_OKAY: i16 = 0;
/// Not done (`BLKIF_RSP_ERROR`).
pub const RSP_ERROR: i16 = -1;
/// There is no such operation here (`BLKIF_RSP_EOPNOTSUPP`).
pub const RSP_EOPNOTSUPP: i16 = -2;

/// Entries of `blkif_request.seg` (`BLKIF_MAX_SEGMENTS_PER_REQUEST`).
pub const MAX_SEGMENTS_PER_REQUEST: usize = 11;
/// Entries of `indirect_grefs` (`BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST`).
pub const MAX_INDIRECT_PAGES_PER_REQUEST: usize = 8;

/// `struct blkif_request_segment`.
pub mod segment {
    /// `sizeof`.
    pub const SIZE: usize = 8;
    /// `grant_ref_t` of the page.
    pub const GREF: usize = 0;
    /// `uint8_t`: the first sector of the page that counts.
    pub const FIRST_SECT: usize = 4;
    /// `uint8_t`: the last one.
    pub const LAST_SECT: usize = 5;
}

/// Where the fields of requests and responses are: the two widths align 64-bit numbers differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// `sizeof` of the union that the ring is made of.
    pub entry: usize,
    /// `id`, `uint64_t`: repeated in the response.
    pub id: usize,
    /// `sector_number`, `uint64_t`: where on the disk, in units of `SECTOR`.
    pub sector_number: usize,
    /// `blkif_request.seg`.
    pub seg: usize,
    /// `blkif_request_discard.nr_sectors`.
    pub nr_sectors: usize,
    /// `blkif_request_indirect.indirect_grefs`.
    pub indirect_grefs: usize,
    /// `sizeof` of `blkif_response`.
    pub response: usize,
}

/// `operation`, the first byte of every request.
pub const OPERATION: usize = 0;
/// `nr_segments` of `blkif_request`, `indirect_op`, and `flag` of a discard.
pub const SECOND_BYTE: usize = 1;
/// `nr_segments` of `blkif_request_indirect`.
pub const INDIRECT_NR_SEGMENTS: usize = 2;
/// `blkif_response`: `id` comes first in both widths.
pub const RESPONSE_OPERATION: usize = 8;
/// `blkif_response.status`, `int16_t`, of `RSP_`.
pub const RESPONSE_STATUS: usize = 10;

/// XEN_IO_PROTO_ABI_X86_64
pub const X86_64: Layout = Layout {
    entry: 112,
    id: 8,
    sector_number: 16,
    seg: 24,
    nr_sectors: 24,
    indirect_grefs: 28,
    response: 16,
};

/// XEN_IO_PROTO_ABI_X86_32
pub const X86_32: Layout = Layout {
    entry: 108,
    id: 4,
    sector_number: 12,
    seg: 20,
    nr_sectors: 20,
    indirect_grefs: 24,
    response: 12,
};
