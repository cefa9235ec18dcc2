# SPDX-License-Identifier: Apache-2.0
"""Files that a person names: read whole, and only when they are ordinary files of a sensible size."""

from __future__ import annotations

import os
import stat
from os import PathLike, fspath

from domzero.errors import ImageError

FILE_MAX = 1 << 30


def read_file(path: str | PathLike[str], what: str, limit: int = FILE_MAX) -> bytes:
    """Reads a kernel, a ramdisk or the like.

    :param what: "kernel", "ramdisk": the key of the error.
    :param limit: bytes that the file may have.
    :raises ImageError: missing, unreadable, not a regular file, empty, larger than `limit`, or no memory for it.
    """
    fd = open_file(path, what, limit)
    try:
        return read_open(fd, fspath(path), what, limit)
    finally:
        os.close(fd)


def open_file(path: str | PathLike[str], what: str, limit: int = FILE_MAX) -> int:
    """As `read_file`, without reading.

    Nothing waits for what is not a regular file: a FIFO would for a writer, and a device could be read for ever.

    :returns: a descriptor, the caller's.
    """
    name = fspath(path)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror or error}", key=what) from error
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"{name!r}: {error}", key=what) from error
    try:
        _check(os.fstat(fd), name, what, limit)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_open(fd: int, name: str, what: str, limit: int = FILE_MAX) -> bytes:
    """As `read_file`, of a file that is open.

    :param name: for errors.
    """
    status = os.fstat(fd)
    _check(status, name, what, limit)
    try:
        data = _read(fd, status.st_size)
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror or error}", key=what) from error
    except MemoryError as error:
        raise ImageError(f"{name}: no memory to read {status.st_size >> 20} MiB", key=what) from error
    if len(data) < status.st_size:
        raise ImageError(f"{name}: it became shorter while it was read", key=what)
    return data


def _check(status: os.stat_result, name: str, what: str, limit: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{name}: Is a directory", key=what)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{name}: not a regular file", key=what)
    if status.st_size == 0:
        raise ImageError(f"{name}: the file is empty", key=what)
    if status.st_size > limit:
        raise ImageError(f"{name}: {_mib(status.st_size)} MiB: larger than {_mib(limit)} MiB", key=what)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.10g}" if size % (1 << 20) == 0 else f"{size / (1 << 20):.1f}"


def _read(fd: int, size: int) -> bytes:
    with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
        data = file.read(size) or b""
        if len(data) == size:
            return data
        parts = [data]
        while len(data := file.read(size - sum(map(len, parts))) or b""):
            parts.append(data)
        return b"".join(parts)
