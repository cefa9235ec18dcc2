# SPDX-License-Identifier: Apache-2.0
"""What a qcow2 image says it rests on (QEMU's docs/interop/qcow2.txt), read from its header and nothing else of it.

Domain 0 opens backing files for workers, which open nothing. A header may be anybody's: each size in it is bounded, and
nothing that it says is believed beyond the name of a file.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from domzero.errors import ImageError

HEAD_MAX = 64 * 1024
"""Bytes of a header with its extensions that are looked at."""
NAME_MAX = 1023
_MAGIC = b"QFI\xfb"
_VERSION_2, _VERSION_3 = 2, 3
_START = struct.Struct(">4sIQI")  # magic, version, offset and length of the backing file's name
_SIZE = struct.Struct(">24xQ")
_FEATURES_AT, _LENGTH_AT = 72, 100
_VERSION_2_LENGTH = 72
_EXTERNAL_DATA = 1 << 2
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_ALIGN = 8


@dataclass(slots=True, frozen=True)
class Backing:
    """The file that an image rests on.

    :param format: as the image says; empty if it does not.
    """

    name: str
    format: str


def backing_of(fd: int) -> Backing | None:
    """What an open image rests on; None: nothing.

    :raises ImageError: no qcow2 image, a damaged one, or one whose data is in another file. Without the file's name.
    """
    head = os.pread(fd, HEAD_MAX, 0)
    if not head.startswith(_MAGIC):
        raise ImageError("no qcow2 image")
    try:
        _, version, name_at, name_bytes = _START.unpack_from(head)
        if version == _VERSION_2:
            length = _VERSION_2_LENGTH
        elif version == _VERSION_3:
            (features,) = struct.unpack_from(">Q", head, _FEATURES_AT)
            (length,) = struct.unpack_from(">I", head, _LENGTH_AT)
            if features & _EXTERNAL_DATA:
                raise ImageError("its data is in another file", hint="qemu-img convert makes one file of it")
        else:
            raise ImageError(f"qcow2 of version {version}")
        if name_at == 0 or name_bytes == 0:
            return None
        if name_bytes > NAME_MAX:
            raise _damaged("the name of its backing file is too long")
        name = os.pread(fd, name_bytes, name_at) if name_at < 1 << 62 else b""
        if len(name) != name_bytes or b"\0" in name:
            raise _damaged("the name of its backing file is none")
        return Backing(os.fsdecode(name), _backing_format(head[:name_at], length))
    except struct.error as error:
        raise _damaged("it is too short") from error


def size_of(fd: int) -> int:
    """Bytes of the disk in an open image, as its header says. ImageError: no qcow2 image."""
    head = os.pread(fd, _SIZE.size, 0)
    if len(head) != _SIZE.size or not head.startswith(_MAGIC):
        raise ImageError("no qcow2 image")
    size: int = _SIZE.unpack(head)[0]
    return size


def _backing_format(head: bytes, at: int) -> str:
    """From the extensions, which begin at `at` and end where the name does not let them go on."""
    while at + _EXTENSION.size <= len(head):
        kind, length = _EXTENSION.unpack_from(head, at)
        at += _EXTENSION.size
        if kind == 0:
            break
        if kind == _BACKING_FORMAT:
            return head[at : at + min(length, NAME_MAX)].decode("ascii", "replace")
        at += -(-length // _EXTENSION_ALIGN) * _EXTENSION_ALIGN
    return ""


def _damaged(what: str) -> ImageError:
    return ImageError(f"a damaged qcow2 image: {what}", hint="`qemu-img check` tells more")
