# SPDX-License-Identifier: Apache-2.0
"""The compression formats that kernels come in, known by their magic; output is bounded, truncation is noticed."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from domzero.errors import ImageError

OUTPUT_MAX = 256 << 20
"""No kernel is larger than this when decompressed: what is, is a bomb."""
DICTIONARY_MAX = 128 << 20
"""What a stream may ask for as its window: the most that Linux's own builds use (`zstd --ultra -22`)."""

_LZMA_MEMORY = DICTIONARY_MAX + (4 << 20)
_CHUNK = 1 << 20
_ZSTD_INPUT = 512
"""Bytes of zstd data decompressed at once: each 4 of them may stand for 128 KiB, and all come out together."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


class _Output:
    """What a stream has given so far, never much more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self._limit = limit

    def add(self, part: bytes) -> None:
        self.data += part
        if len(self.data) > self._limit:
            raise ImageError(f"decompresses to more than {self._limit >> 20} MiB")


_Format = Callable[[memoryview, _Output], None]


def _truncated() -> ImageError:
    return ImageError("truncated: the compressed kernel ends too early")


def _stdlib(make: Callable[[], _Decompressor]) -> _Format:
    def run(data: memoryview, output: _Output) -> None:
        decompressor = make()
        offset = 0
        while not decompressor.eof:
            if decompressor.needs_input:
                if offset >= len(data):
                    raise _truncated()
                chunk = bytes(data[offset : offset + _CHUNK])
                offset += len(chunk)
            else:
                chunk = b""
            output.add(decompressor.decompress(chunk, _CHUNK))

    return run


def _gzip(data: memoryview, output: _Output) -> None:
    decompressor = zlib.decompressobj(wbits=31)
    offset = 0
    chunk = b""
    while not decompressor.eof:
        if not chunk:
            if offset >= len(data):
                raise _truncated()
            chunk = bytes(data[offset : offset + _CHUNK])
            offset += len(chunk)
        output.add(decompressor.decompress(chunk, 4 * _CHUNK))
        chunk = decompressor.unconsumed_tail


def _zstd(data: memoryview, output: _Output) -> None:
    import zstandard  # imported only when needed: most runs do not

    decompressor = zstandard.ZstdDecompressor(max_window_size=DICTIONARY_MAX).decompressobj()
    for offset in range(0, len(data), _ZSTD_INPUT):
        try:
            output.add(decompressor.decompress(data[offset : offset + _ZSTD_INPUT]))
        except zstandard.ZstdError as error:
            raise ImageError(f"damaged zstd data: {error}") from error
        if decompressor.eof:
            return
    raise _truncated()


def _lz4(data: memoryview, output: _Output) -> None:
    """LZ4 in its legacy frame: magic, then blocks of at most 8 MiB, each after its compressed size."""
    import lz4.block

    block_max = 8 << 20
    last = block_max
    offset = 4
    while offset + 4 <= len(data):
        size = int.from_bytes(data[offset : offset + 4], "little")
        if size == 0x184C2102:  # frames may follow each other
            offset += 4
            continue
        if size == 0 or last < block_max:
            break  # only the last block is short; behind it Linux appends the output's size
        if offset + 4 + size > len(data):
            raise _truncated()
        try:
            part = lz4.block.decompress(data[offset + 4 : offset + 4 + size], uncompressed_size=block_max)
        except lz4.block.LZ4BlockError as error:
            raise ImageError(f"damaged lz4 data: {error}") from error
        output.add(part)
        last = len(part)
        offset += 4 + size
    if not output.data:
        raise _truncated()


_FORMATS: tuple[tuple[str, bytes, _Format | None], ...] = (
    ("gzip", b"\x1f\x8b", _gzip),
    ("xz", b"\xfd7zXZ\0", _stdlib(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY))),
    ("bzip2", b"BZh", _stdlib(bz2.BZ2Decompressor)),
    ("lzma", b"\x5d\0\0", _stdlib(lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY))),
    ("zstd", b"\x28\xb5\x2f\xfd", _zstd),
    ("lz4", b"\x02\x21\x4c\x18", _lz4),
    ("lzo", b"\x89LZO", None),
)


def compression_of(data: memoryview | bytes) -> str | None:
    """Name of the compression that `data` begins with, or None."""
    head = bytes(data[:8])
    return next((name for name, magic, _ in _FORMATS if head.startswith(magic)), None)


def decompress(data: memoryview | bytes, limit: int = OUTPUT_MAX) -> memoryview:
    """Decompresses a stream of any known format; bytes behind its end are ignored.

    :param limit: bytes that may come out.
    :raises ImageError: unknown format, damaged or truncated stream, or more than `limit` bytes.
    """
    name = compression_of(data)
    run = next((run for known, _, run in _FORMATS if known == name), None)
    if run is None:
        raise ImageError(
            f"{name or 'this'} compression is not supported", hint="gzip, xz, bzip2, lzma, zstd and lz4 are"
        )
    output = _Output(limit)
    try:
        run(memoryview(data), output)
    except ImageError:
        raise
    except (lzma.LZMAError, zlib.error, OSError, EOFError, ValueError, MemoryError) as error:
        raise ImageError(f"damaged {name} data: {error}") from error
    return memoryview(output.data)
