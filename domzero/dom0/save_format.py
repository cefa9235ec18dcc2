# SPDX-License-Identifier: Apache-2.0
"""The file of a saved domain.

    magic (8 bytes), version (u32), 0 (u32)
    sections: kind (4 bytes), CRC-32 of the payload (u32), length of the payload (u64), payload

| kind | payload |
| --- | --- |
| `CONF` | JSON: what Domain 0 knows of the domain |
| `STAT` | JSON: `hypervisor.saved.SavedDomain` |
| `FRAM` | zstd: the numbers of its frames in order, and the pseudo-physical ones, each u64 |
| `PAGE`, any number | index of a frame (u64), count (u32), a bit for each that is not all zeros; zstd: these |
| `MACH` | JSON: `qemu.saved.SavedMachine`, of a domain whose machine is QEMU's, in place of the three above |
| `QEMU`, any number | zstd: 1 MiB at most of what QEMU says of it |
| `DONE` | BLAKE2b, of 32 bytes, of all that is before this section |

Numbers are little-endian. Who reads it believes nothing: lengths are bounded before anything is read or unpacked, the
CRC of each section is checked before it is looked at, and the digest before anything is done with the whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from domzero.abi.xen import PAGE_SIZE
from domzero.hypervisor.saved import RestoreError

MAGIC = b"DZSAVED\n"
VERSION = 1
CONF, STAT, FRAM, PAGE, DONE = b"CONF", b"STAT", b"FRAM", b"PAGE", b"DONE"
MACH, QEMU = b"MACH", b"QEMU"
RUN_PAGES = 256
"""Frames of one `PAGE` section at most: 1 MiB."""
STREAM_BYTES = 1 << 20
"""Of one `QEMU` section, unpacked."""
LEVEL = 1
"""Of zstd: what is slow here keeps a guest waiting."""
_HEAD = struct.Struct("<8sII")
_SECTION = struct.Struct("<4sIQ")
_RUN = struct.Struct("<QI")
_LIMITS = {CONF: 4 << 20, STAT: 64 << 20, FRAM: 256 << 20, PAGE: 2 << 20, MACH: 1 << 20, QEMU: 2 << 20, DONE: 32}
FRAMES_MAX = 1 << 28
"""1 TiB."""
_ZERO = bytes(PAGE_SIZE)


def begin(fd: int, description: dict[str, Any]) -> None:
    """Writes the head and what Domain 0 knows, into an empty file. OSError."""
    payload = json.dumps(description, separators=(",", ":")).encode()
    _write(fd, [_HEAD.pack(MAGIC, VERSION, 0), _section(CONF, payload), payload], 0)


def _section(kind: bytes, payload: bytes) -> bytes:
    return _SECTION.pack(kind, zlib.crc32(payload), len(payload))


def _write(fd: int, parts: list[bytes], at: int) -> int:
    view = memoryview(b"".join(parts))
    while view:
        done = os.pwrite(fd, view, at)
        view, at = view[done:], at + done
    return at


class ImageWriter:
    """Writes the rest of a file that `begin` has begun: `state`, `run` for each run of frames, `finish`; or `machine`,
    `stream`, `finish`. OSError."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._digest = hashlib.blake2b(digest_size=32)
        self._at = 0
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)
        while piece := os.pread(fd, 1 << 20, self._at):
            self._digest.update(piece)
            self._at += len(piece)

    def _put(self, kind: bytes, payload: bytes) -> None:
        head = _section(kind, payload)
        self._digest.update(head)
        self._digest.update(payload)
        self._at = _write(self._fd, [head, payload], self._at)

    def state(self, saved: dict[str, Any], mfns: array[int], pfns: array[int]) -> None:
        """What the domain is, and its frames."""
        self._put(STAT, json.dumps(saved, separators=(",", ":")).encode())
        self._put(FRAM, self._compressor.compress(mfns.tobytes() + pfns.tobytes()))

    def run(self, index: int, pages: bytes) -> None:
        """Frames from the one at this index on, `RUN_PAGES` at most; nothing is written if they are all zeros."""
        count = len(pages) // PAGE_SIZE
        bits, kept = bytearray(-(-count // 8)), []
        for number in range(count):
            page = pages[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
            if page != _ZERO:
                bits[number >> 3] |= 1 << (number & 7)
                kept.append(page)
        if kept:
            packed = self._compressor.compress(pages if len(kept) == count else b"".join(kept))
            self._put(PAGE, _RUN.pack(index, count) + bytes(bits) + packed)

    def machine(self, values: dict[str, Any]) -> None:
        """What a machine of QEMU's is."""
        self._put(MACH, json.dumps(values, separators=(",", ":")).encode())

    def stream(self, data: bytes) -> None:
        """More of what its QEMU says, `STREAM_BYTES` at most."""
        self._put(QEMU, self._compressor.compress(data))

    def finish(self) -> int:
        """It is whole: how many bytes it has."""
        payload = self._digest.digest()
        self._at = _write(self._fd, [_section(DONE, payload), payload], self._at)
        return self._at


class ImageReader:
    """Reads a file: `description`, `state`, `pages`, in this order, or `description`, `machine`, `stream`. RestoreError
    says what is wrong with it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0
        self._digest = hashlib.blake2b(digest_size=32)
        self._unpacker = zstandard.ZstdDecompressor()
        if self._take(len(MAGIC)) != MAGIC:
            raise RestoreError("this is no saved domain")
        version, rest = _HEAD.unpack(MAGIC + self._take(_HEAD.size - len(MAGIC)))[1:]
        if version != VERSION or rest:
            raise RestoreError(f"the file is of format {version}, and this Domzero reads format {VERSION}")

    def _take(self, size: int) -> bytes:
        parts: list[bytes] = []
        left = size
        while left:
            try:
                part = os.pread(self._fd, min(left, 1 << 20), self._at)
            except OSError as error:
                raise RestoreError(f"the file cannot be read: {error.strerror}") from error
            if not part:
                raise RestoreError("the file is cut off")
            parts.append(part)
            self._at += len(part)
            left -= len(part)
        data = b"".join(parts)
        self._digest.update(data)
        return data

    def _section(self, *expected: bytes) -> tuple[bytes, bytes]:
        digest = self._digest.copy()
        kind, crc, length = _SECTION.unpack(self._take(_SECTION.size))
        if kind not in expected:
            raise RestoreError(f"the file is damaged: {kind!r} where {_names(expected)} is expected")
        if length > _LIMITS[kind]:
            raise RestoreError(f"the file is damaged: a section {kind.decode()} of {length} bytes")
        payload = self._take(length)
        if zlib.crc32(payload) != crc:
            raise RestoreError(f"the file is damaged: the checksum of section {kind.decode()} differs")
        if kind == DONE:
            if payload != digest.digest():
                raise RestoreError("the file is damaged: its checksum differs")
            if os.pread(self._fd, 1, self._at):
                raise RestoreError("the file is damaged: there is something behind its end")
        return kind, payload

    def _unpack(self, data: bytes, size: int, what: str) -> bytes:
        try:
            stream = self._unpacker.decompressobj(read_across_frames=False)
            # What says that it is larger than it may be is not unpacked at all.
            if zstandard.get_frame_parameters(data).content_size != size:
                raise RestoreError(f"the file is damaged: {what} has another size")
            unpacked: bytes = stream.decompress(data)
            if len(unpacked) != size or not stream.eof or stream.unused_data:
                raise RestoreError(f"the file is damaged: {what} has another size")
        except (zstandard.ZstdError, MemoryError) as error:
            raise RestoreError(f"the file is damaged: {what} cannot be unpacked") from error
        return unpacked

    def description(self) -> dict[str, Any]:
        """What Domain 0 knew of the domain; its values are not checked."""
        return _json(self._section(CONF)[1], "CONF")

    def state(self, frames_max: int) -> tuple[dict[str, Any], array[int], array[int]]:
        """What the domain is, and its frames, with the pseudo-physical ones. Frames are in order, and none is there
        twice.

        :param frames_max: it may have.
        """
        saved = _json(self._section(STAT)[1], "STAT")
        packed = self._section(FRAM)[1]
        try:
            size = zstandard.get_frame_parameters(packed).content_size
        except zstandard.ZstdError as error:
            raise RestoreError("the file is damaged: its frames cannot be unpacked") from error
        count, rest = divmod(size, 16)
        if rest or not 0 < count <= min(frames_max, FRAMES_MAX):
            raise RestoreError(f"it has {count} frames, and may have {frames_max}")
        data = self._unpack(packed, size, "the list of its frames")
        mfns, pfns = array("Q", data[: 8 * count]), array("Q", data[8 * count :])
        if any(mfns[index] >= mfns[index + 1] for index in range(count - 1)) or mfns[-1] >= FRAMES_MAX:
            raise RestoreError("the file is damaged: its frames are not in order")
        return saved, mfns, pfns

    def pages(self, count: int, progress: Callable[[int], None] = lambda _: None) -> Iterator[tuple[int, memoryview]]:
        """The frames that are not zero: index and contents. When it ends, the whole file has been found right.

        :param count: of frames.
        :param progress: is given how many are done.
        """
        end = 0
        while True:
            kind, payload = self._section(PAGE, DONE)
            if kind == DONE:
                return
            if len(payload) < _RUN.size:
                raise RestoreError("the file is damaged: a section PAGE is too short")
            index, run = _RUN.unpack_from(payload)
            head = _RUN.size + -(-run // 8)
            if not 0 < run <= RUN_PAGES or index < end or index + run > count or len(payload) < head:
                raise RestoreError("the file is damaged: frames where none belong")
            end = index + run
            bits = int.from_bytes(payload[_RUN.size : head], "little")
            if bits >> run or not bits:
                raise RestoreError("the file is damaged: a frame too many")
            data = memoryview(self._unpack(payload[head:], bits.bit_count() * PAGE_SIZE, "a frame"))
            at = 0
            for number in range(run):
                if bits >> number & 1:
                    yield index + number, data[at : at + PAGE_SIZE]
                    at += PAGE_SIZE
            progress(end)

    def machine(self) -> dict[str, Any]:
        """What a machine of QEMU's is; its values are not checked."""
        return _json(self._section(MACH)[1], "MACH")

    def stream(self) -> Iterator[bytes]:
        """What its QEMU has said. When it ends, the whole file has been found right."""
        while True:
            kind, payload = self._section(QEMU, DONE)
            if kind == DONE:
                return
            try:
                size = zstandard.get_frame_parameters(payload).content_size
            except zstandard.ZstdError as error:
                raise RestoreError("the file is damaged: the machine's state cannot be unpacked") from error
            if not 0 < size <= STREAM_BYTES:
                raise RestoreError("the file is damaged: a piece of the machine's state has another size")
            yield self._unpack(payload, size, "a piece of the machine's state")


def _names(kinds: tuple[bytes, ...]) -> str:
    return " or ".join(kind.decode() for kind in kinds)


def _json(data: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RestoreError(f"the file is damaged: section {what} is no JSON") from error
    if not isinstance(found, dict):
        raise RestoreError(f"the file is damaged: section {what} is no object")
    return found


__all__ = ["RUN_PAGES", "ImageReader", "ImageWriter", "begin"]
