# SPDX-License-Identifier: Apache-2.0
"""Whether anybody has a disk open: domains hold locks on single bytes of its file, as QEMU and its tools do."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domzero import _machine
from domzero.errors import ImageError


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
        if not _flock(fd) or not _keep_unused(fd):
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


def _keep_unused(fd: int) -> bool:
    try:
        _machine.keep_image_unused(fd)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise ImageError(f"the disk's file cannot be locked: {error.strerror}") from error
        return False
    return True
