# SPDX-License-Identifier: Apache-2.0
"""io/kbdif.h: keys and pointer."""

from enum import IntEnum

from domzero.abi.layout import Wire, s32, u8, u32, wire


class XenkbdType(IntEnum):
    """Of events of the back end."""

    XENKBD_TYPE_MOTION = 1
    XENKBD_TYPE_KEY = 3
    XENKBD_TYPE_POS = 4


class XenkbdRing(IntEnum):
    """Where the events of the back end are in the page, and how many fit."""

    XENKBD_IN_EVENT_SIZE = 40
    XENKBD_IN_RING_OFFS = 1024
    XENKBD_IN_RING_LEN = 51


@wire
class xenkbd_motion(Wire):
    """The pointer has moved by so much."""

    type: u8
    rel_x: s32
    rel_y: s32
    rel_z: s32


@wire
class xenkbd_key(Wire):
    """A key or a button: a KEY_* or BTN_* of Linux."""

    type: u8
    pressed: u8
    keycode: u32


@wire
class xenkbd_position(Wire):
    """The pointer is there; z is relative (the wheel)."""

    type: u8
    abs_x: s32
    abs_y: s32
    rel_z: s32


@wire
class xenkbd_page(Wire):
    """Indices of both rings."""

    in_cons: u32
    in_prod: u32
    out_cons: u32
    out_prod: u32
