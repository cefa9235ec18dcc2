# SPDX-License-Identifier: Apache-2.0
"""Whether anybody has a disk open: domains hold locks on single bytes of its file, as QEMU and its tools do."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domzero.errors import ImageError

_FLOCK = "hhqqi4x"  # struct flock: l_type, l_whence, l_start, l_len, l_pid
# QEMU's block/file-posix.c: a lock on byte 100 + n is held by who does n, on 200 + n by who does not bear others to.
_DOES, _REFUSES = 100, 200
_WRITES, _RESIZES = 1, 3
_NO_LOCKS = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What a file system without such locks answers: a disk is used then, as `crates/backends/src/block/lock.rs` does."""


@contextmanager
def exclusive(path: Path, name: str) -> Iterator[int]:
    """Keeps everybody from writing a disk, and gives a descriptor of it.

    :param name: the image's, for the error.
    :raises ImageError: a domain, or another program, has it open; or it cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    try:
        if _byte_locked(fd) or not _flock(fd) or not _refuse_writers(fd):
            raise ImageError(f"{name} is in use", hint="a domain has its disk open")
        yield fd
    finally:
        os.close(fd)


def in_use(path: Path) -> bool:
    """Whether somebody holds a disk now."""
    try:
        with exclusive(path, ""):
            return False
    except ImageError:
        return path.exists()


def _flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_writers(fd: int) -> bool:
    """Lets nobody begin to write; False if somebody does already."""
    for what in (_WRITES, _RESIZES):
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, _REFUSES + what, 1, 0))
        except OSError as error:
            return error.errno in _NO_LOCKS
        if _byte_locked(fd, _DOES + what, 1):
            return False
    return True


def _byte_locked(fd: int, start: int = 0, length: int = 0) -> bool:
    """Whether another open file holds a lock on one of these bytes; without numbers, on any."""
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question)
    except OSError:  # a file system without such locks
        return False
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
