# SPDX-License-Identifier: Apache-2.0
"""Disks that come in pieces, from whoever sends them: written as they come."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from domzero.dom0.images.options import SIZE_MAX
from domzero.dom0.images.store import DiskStore
from domzero.errors import ImageError

T = TypeVar("T")
PIECE = 1 << 20
"""Bytes that are written or read at once."""
RESERVE = 256 << 20
"""Bytes of a file system that uploads leave to the domains whose disks grow there, and to Domain 0."""


class TooLong(Exception):
    """More came than the disk has room for."""


class Writer:
    """Takes a body in pieces of any length, and writes it in larger ones; holes stay holes.

    :param limit: where it has to end.
    :param at: where it begins.
    """

    def __init__(self, fd: int, limit: int, at: int = 0) -> None:
        self.bytes = at
        self._fd = fd
        self._limit = limit
        self._waiting = bytearray()

    async def put(self, data: bytes) -> None:
        """Takes some. TooLong."""
        if self.bytes + len(data) > self._limit:
            raise TooLong
        self.bytes += len(data)
        self._waiting += data
        if len(self._waiting) >= PIECE:
            await self.flush()

    async def flush(self) -> None:
        """Writes what waits. Who is cancelled waits for it, too: the descriptor may be another file's afterwards."""
        data, self._waiting = bytes(self._waiting), bytearray()
        if data:
            writing = asyncio.ensure_future(asyncio.to_thread(_write, self._fd, data, self.bytes - len(data)))
            try:
                await asyncio.shield(writing)
            finally:
                await asyncio.wait({writing})


def _write(fd: int, data: bytes, at: int) -> None:
    step = 1 << 16
    for start in range(0, len(data), step):
        part = data[start : start + step]
        if part.count(0) == len(part) and _is_hole(fd, at + start, len(part)):
            continue
        done = 0
        while done < len(part):
            done += os.pwrite(fd, part[done:], at + start + done)


def _is_hole(fd: int, at: int, length: int) -> bool:
    try:
        return os.lseek(fd, at, os.SEEK_DATA) >= at + length
    except OSError:
        return True  # there is no data behind it


def check_room(directory: Path, wanted: int) -> None:
    """Raises ImageError unless so many bytes have room on a directory's file system."""
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize - RESERVE
    if wanted > free:
        raise ImageError(f"{directory}: there is room for {max(0, free) >> 20} MiB, and {wanted >> 20} MiB are to come")


@asynccontextmanager
async def received(
    store: DiskStore,
    body: AsyncIterator[bytes],
    length: int | None,
    progress: Callable[[int], None],
    most: int = SIZE_MAX,
) -> AsyncIterator[Path]:
    """A file with all that comes, in a workplace of the store, which it leaves only by being renamed.

    :param length: that was announced.
    :param progress: takes how many bytes are here.
    :param most: bytes that may come.
    :raises ImageError: there is no room for it, or another length came.
    """
    async with _in_threads(store.workplace()) as place:
        check_room(place, length or 0)
        if length is not None and length > most:
            raise ImageError(f"{length} bytes are announced, at most {most} are taken")
        file = place / "received"
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            writer = Writer(fd, most if length is None else length)
            seen = 0
            async for piece in body:
                await writer.put(piece)
                if writer.bytes - seen >= PIECE:
                    seen = writer.bytes
                    check_room(place, 0)
                    progress(seen)
            await writer.flush()
            os.ftruncate(fd, writer.bytes)
        except TooLong:
            what = f"than the {most} bytes that are taken" if length is None else "than was announced"
            raise ImageError(f"more came {what}") from None
        except OSError as error:
            raise ImageError(f"{file}: {error.strerror}") from error
        finally:
            os.close(fd)
        if length not in (None, writer.bytes):
            raise ImageError(f"{writer.bytes} of {length} bytes came")
        yield file


@asynccontextmanager
async def _in_threads(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enters and leaves a context that waits for locks and deletes much; who is cancelled leaves it, too."""
    entering = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
    try:
        await asyncio.wait({entering})
        yield entering.result()
    finally:
        await asyncio.wait({entering})
        if entering.exception() is None:
            await asyncio.shield(asyncio.to_thread(manager.__exit__, None, None, None))


__all__ = ["PIECE", "RESERVE", "TooLong", "Writer", "check_room", "received"]
