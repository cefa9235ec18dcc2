# SPDX-License-Identifier: Apache-2.0
"""cpio archives in the "newc" format, which is what an initramfs is (Documentation/driver-api/early-userspace)."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from domzero.errors import ImageError

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_FIELDS = 13


@dataclass(slots=True, frozen=True)
class Entry:
    """A file, directory, symbolic link (data is its target) or device node."""

    name: str
    mode: int
    data: bytes = b""
    rdev: tuple[int, int] = (0, 0)


def directory(name: str, mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(name, stat.S_IFDIR | mode)


def file(name: str, data: bytes | str, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(name, stat.S_IFREG | mode, data.encode() if isinstance(data, str) else data)


def symlink(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def char_device(name: str, major: int, minor: int, mode: int = 0o600) -> Entry:
    """A character device: in an archive it needs no privileges."""
    return Entry(name, stat.S_IFCHR | mode, rdev=(major, minor))


def write_cpio(entries: Iterable[Entry]) -> bytes:
    """An archive: the same entries always give the same bytes."""
    output = bytearray()
    for inode, entry in enumerate((*entries, Entry(_TRAILER, 0)), start=1):
        name = entry.name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.rdev, len(name), 0)
        output += _MAGIC + b"".join(b"%08x" % value for value in fields) + name
        output += bytes(-len(output) % 4)
        output += entry.data
        output += bytes(-len(output) % 4)
    output += bytes(-len(output) % 512)
    return bytes(output)


def read_cpio(data: bytes) -> Iterator[Entry]:
    """The entries of an archive.

    :raises ImageError: damaged or truncated.
    """
    offset = 0
    while True:
        header = data[offset : offset + 6 + 8 * _FIELDS]
        if len(header) < 6 + 8 * _FIELDS or header[:6] != _MAGIC:
            raise ImageError("damaged cpio archive")
        try:
            fields = [int(header[6 + 8 * i : 14 + 8 * i], 16) for i in range(_FIELDS)]
        except ValueError as error:
            raise ImageError("damaged cpio archive") from error
        mode, size, name_size = fields[1], fields[6], fields[11]
        name_at = offset + len(header)
        data_at = name_at + name_size + -(name_at + name_size) % 4
        end = data_at + size
        if end > len(data):
            raise ImageError("truncated cpio archive")
        name = data[name_at : name_at + name_size].rstrip(b"\0").decode("utf-8", "replace")
        if name == _TRAILER:
            return
        yield Entry(name, mode, data[data_at:end], (fields[9], fields[10]))
        offset = end + -end % 4
