# SPDX-License-Identifier: Apache-2.0
"""Copies of disks: shared blocks where the file system can, otherwise only what is not a hole."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from domzero.errors import ImageError

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_CHUNK = 1 << 24


def reflink(source: int, target: int) -> bool:
    """Lets a file share another one's blocks until one of them is written; False where that is not possible."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def copy_sparse(source: int, target: int) -> None:
    """Copies a file's data; its holes become holes. An empty target grows to the same size."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            at += _copy(source, target, at, min(_CHUNK, end - at))


def _copy(source: int, target: int, at: int, count: int) -> int:
    try:
        done = os.copy_file_range(source, target, count, at, at)
    except OSError:  # between file systems that do not know each other, for one
        data = os.pread(source, count, at)
        done = os.pwrite(target, data, at)
    if done == 0:
        raise ImageError("the disk became shorter while it was copied")
    return done


def copy_file(source: Path, target: Path, *, share: bool = True) -> bool:
    """Copies a disk into a new file; returns whether they share blocks.

    :raises ImageError: one of them cannot be read or written.
    """
    try:
        reading = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if share and reflink(reading, writing):
                    return True
                copy_sparse(reading, writing)
                return False
            finally:
                os.close(writing)
        finally:
            os.close(reading)
    except OSError as error:
        raise ImageError(f"{error.filename or target}: {error.strerror}") from error
