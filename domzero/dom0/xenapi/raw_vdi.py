# SPDX-License-Identifier: Apache-2.0
"""Contents of disks in and out: raw as they are, other formats through qemu-img.

What a file says of itself is not believed: its format is the one that the client names, and one that refers to other
files is refused.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

from domzero.dom0.images import qemu
from domzero.dom0.images.receiving import PIECE, Writer
from domzero.dom0.storage import NEW, Disk, Storage
from domzero.dom0.xenapi.failure import Failure

FORMATS = {"raw": "raw", "": "raw", "vhd": "vhd", "qcow2": "qcow2"}
"""As clients call them."""
_EXTRA_MAX = 64 << 20
"""Bytes that a file of another format may have beyond its disk's."""


@asynccontextmanager
async def _temporary(directory: Path) -> AsyncIterator[Path]:
    path = directory / f"{NEW}{uuid4().hex}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


async def receive(storage: Storage, disk: Disk, format: str, body: AsyncIterator[bytes]) -> int:
    """Writes a body into a disk that no domain uses; the number of its bytes. TooLong, Failure, DomzeroError."""
    async with storage.using(disk, "it is written"):
        if format == disk.format == "raw":
            return await _fill(disk.path, os.O_WRONLY, disk.bytes, body)
        async with _temporary(disk.path.parent) as file, _temporary(disk.path.parent) as made:
            received = await _fill(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, disk.bytes + _EXTRA_MAX, body)
            await _in_thread(partial(_convert, file, format, made, disk))
            return received


async def _fill(path: Path, flags: int, limit: int, body: AsyncIterator[bytes]) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        writer = Writer(fd, limit)
        async for piece in body:
            await writer.put(piece)
        await writer.flush()
        return writer.bytes
    finally:
        os.close(fd)


def _convert(file: Path, format: str, made: Path, disk: Disk) -> None:
    """Makes a file of the disk's format of what came, and puts it in the place of the disk's."""
    size = file.stat().st_size if format == "raw" else qemu.inspect(file, format).size
    if size > disk.bytes:
        raise Failure("VDI_TOO_SMALL", f"OpaqueRef:{disk.uuid}", str(size))
    wanted = disk.bytes
    qemu.convert(file, format, made, disk.format)
    if disk.format == "raw":
        os.truncate(made, wanted)
    elif qemu.virtual_size(made, disk.format) < wanted:
        qemu.resize(made, disk.format, wanted)
    made.chmod(0o600)
    made.rename(disk.path)


@asynccontextmanager
async def opened(storage: Storage, disk: Disk, format: str) -> AsyncIterator[tuple[int, int]]:
    """A descriptor of a disk's content in a format, and how many bytes it has; no domain may use the disk."""
    async with storage.using(disk, "it is read"):
        if format == disk.format == "raw":
            fd = os.open(disk.path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            async with _temporary(disk.path.parent) as file:
                await _in_thread(partial(qemu.convert, disk.path, disk.format, file, format))
                fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd, os.fstat(fd).st_size
        finally:
            os.close(fd)


async def pieces(fd: int, size: int, done: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
    """The content of a file.

    :param done: awaited when all is read, before the last piece: who has that may do what they like with the disk.
    """
    at = 0
    while at < size:
        data = await asyncio.to_thread(os.pread, fd, min(PIECE, size - at), at)
        at = at + len(data) if data else size
        if at == size:
            await done()
        yield data


async def _in_thread(work: Callable[[], None]) -> None:
    await asyncio.to_thread(work)
