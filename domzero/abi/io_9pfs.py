# SPDX-License-Identifier: Apache-2.0
"""io/9pfs.h: the rings of a shared directory."""

from collections.abc import MutableSequence
from typing import Annotated

from domzero.abi.layout import Wire, array, u8, u32, wire


@wire
class xen_9pfs_data_intf(Wire):
    """Indices of both directions of a ring, and its size; grants of its pages follow."""

    in_cons: u32
    in_prod: u32
    pad1: Annotated[MutableSequence[int], array(u8, 56)]
    out_cons: u32
    out_prod: u32
    pad2: Annotated[MutableSequence[int], array(u8, 56)]
    ring_order: u32
