# SPDX-License-Identifier: Apache-2.0
"""io/blkif.h: the ring of a block device. Its sectors are of 512 bytes, whatever the device's own size is."""

from enum import IntEnum, IntFlag
from typing import Annotated

from domzero.abi.layout import Wire, array, s16, u8, u16, u32, u64, wire

BLKIF_MAX_SEGMENTS_PER_REQUEST = 11
BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST = 8
BLKIF_DISCARD_SECURE = 1


class BlkifOp(IntEnum):
    """`BLKIF_OP_*`."""

    BLKIF_OP_READ = 0
    BLKIF_OP_WRITE = 1
    BLKIF_OP_WRITE_BARRIER = 2
    BLKIF_OP_FLUSH_DISKCACHE = 3
    BLKIF_OP_DISCARD = 5
    BLKIF_OP_INDIRECT = 6


class BlkifRsp(IntEnum):
    """`BLKIF_RSP_*`: the status of a response."""

    BLKIF_RSP_OKAY = 0
    BLKIF_RSP_ERROR = -1
    BLKIF_RSP_EOPNOTSUPP = -2


class VDisk(IntFlag):
    """`VDISK_*`: bits of the node `info`."""

    VDISK_CDROM = 1
    VDISK_REMOVABLE = 2
    VDISK_READONLY = 4


@wire
class blkif_request_segment(Wire):
    """One piece of the guest's memory: sectors of a granted page, both ends included."""

    gref: u32
    first_sect: u8
    last_sect: u8


@wire
class blkif_request(Wire):
    """A request for reading, writing, a barrier or a flush."""

    operation: u8
    nr_segments: u8
    handle: u16
    id: u64
    sector_number: u64
    seg: Annotated[list[blkif_request_segment], array(blkif_request_segment, 11)]


@wire
class blkif_request_discard(Wire):
    """BLKIF_OP_DISCARD."""

    operation: u8
    flag: u8
    handle: u16
    id: u64
    sector_number: u64
    nr_sectors: u64


class _blkif_request_indirect_compat(Wire):
    operation: u8
    indirect_op: u8
    nr_segments: u16
    id: u64
    sector_number: u64
    handle: u16
    indirect_grefs: Annotated[list[int], array(u32, 8)]
    pad: u64


@wire(compat=_blkif_request_indirect_compat)
class blkif_request_indirect(Wire):
    """BLKIF_OP_INDIRECT: its segments are in pages of their own."""

    operation: u8
    indirect_op: u8
    nr_segments: u16
    id: u64
    sector_number: u64
    handle: u16
    indirect_grefs: Annotated[list[int], array(u32, 8)]


@wire
class blkif_response(Wire):
    """What became of a request."""

    id: u64
    operation: u8
    status: s16
