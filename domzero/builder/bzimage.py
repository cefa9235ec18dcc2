# SPDX-License-Identifier: Apache-2.0
"""Linux's bzImage (Documentation/arch/x86/boot.rst): where the compressed kernel is in it."""

from __future__ import annotations

import struct

from domzero.errors import ImageError

_HEADER_MIN = 0x250
_BOOT_FLAG = 0x1FE
_MAGIC = 0x202
_PAYLOAD_PROTOCOL = 0x0208  # payload_offset and payload_length came with this version


def is_bzimage(data: memoryview | bytes) -> bool:
    """True for what has Linux's boot sector and setup header, however damaged the rest is."""
    return bytes(data[_BOOT_FLAG : _BOOT_FLAG + 2]) == b"\x55\xaa" and bytes(data[_MAGIC : _MAGIC + 4]) == b"HdrS"


def payload(data: memoryview) -> memoryview:
    """The compressed kernel in a bzImage.

    :raises ImageError: truncated, or too old to say where its payload is.
    """
    if len(data) < _HEADER_MIN:
        raise ImageError("truncated bzImage: its header is cut off")
    (version,) = struct.unpack_from("<H", data, 0x206)
    if version < _PAYLOAD_PROTOCOL:
        raise ImageError(f"bzImage of boot protocol {version >> 8}.{version & 255:02}: too old, 2.08 is needed")
    setup_sects = data[0x1F1] or 4
    (offset, length) = struct.unpack_from("<II", data, 0x248)
    start = (setup_sects + 1) * 512 + offset
    if length == 0:
        raise ImageError("bzImage without a compressed kernel")
    if start + length > len(data):
        raise ImageError(f"truncated bzImage: {start + length - len(data)} bytes are missing")
    return data[start : start + length]
