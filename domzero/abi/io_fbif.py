# SPDX-License-Identifier: Apache-2.0
"""io/fbif.h: the framebuffer's shared page and its events."""

from collections.abc import MutableSequence
from enum import IntEnum

from domzero.abi.layout import Annotated, Wire, array, s32, u8, u32, ulong, wire


class XenfbType(IntEnum):
    """Of events of the front end."""

    XENFB_TYPE_UPDATE = 2
    XENFB_TYPE_RESIZE = 3


class XenfbRing(IntEnum):
    """Where the events of the front end are in the page, and how many fit."""

    XENFB_OUT_EVENT_SIZE = 40
    XENFB_OUT_RING_OFFS = 2048
    XENFB_OUT_RING_LEN = 51


@wire
class xenfb_update(Wire):
    """Pixels have changed."""

    type: u8
    x: s32
    y: s32
    width: s32
    height: s32


@wire
class xenfb_resize(Wire):
    """The screen has another size, in the same memory."""

    type: u8
    width: s32
    height: s32
    stride: s32
    depth: s32
    offset: s32


@wire
class xenfb_page(Wire):
    """Indices of both rings, what the screen is like, and where the pages are that list its frames."""

    in_cons: u32
    in_prod: u32
    out_cons: u32
    out_prod: u32
    width: s32
    height: s32
    line_length: u32
    mem_length: u32
    depth: u8
    pd: Annotated[MutableSequence[int], array(ulong, 256)]
