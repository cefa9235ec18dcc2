"""The compression formats that kernels come in, known by their magic; output is bounded, truncation is noticed."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from domzero.errors import ImageError

OUTPUT_MAX = 1 << 30
"""No kernel is larger than this when decompressed: what is, is a bomb."""

_CHUNK = 1 << 20


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def _stdlib(make: Callable[[], _Decompressor]) -> Callable[[memoryview], bytes]:
    def run(data: memoryview) -> bytes:
        decompressor = make()
        output = decompressor.decompress(bytes(data), OUTPUT_MAX + 1)
        if len(output) > OUTPUT_MAX:
            raise ImageError("decompresses to more than 1 GiB")
        if not decompressor.eof:
            raise ImageError("truncated: the compressed kernel ends too early")
        return output

    return run


def _gzip(data: memoryview) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    output = decompressor.decompress(data, OUTPUT_MAX + 1)
    if len(output) > OUTPUT_MAX:
        raise ImageError("decompresses to more than 1 GiB")
    if not decompressor.eof:
        raise ImageError("truncated: the compressed kernel ends too early")
    return output


def _zstd(data: memoryview) -> bytes:
    import zstandard  # imported only when needed: most runs do not

    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
    parts: list[bytes] = []
    total = 0
    for offset in range(0, len(data), _CHUNK):
        try:
            part = decompressor.decompress(bytes(data[offset : offset + _CHUNK]))
        except zstandard.ZstdError as error:
            raise ImageError(f"damaged zstd data: {error}") from error
        total += len(part)
        if total > OUTPUT_MAX:
            raise ImageError("decompresses to more than 1 GiB")
        parts.append(part)
        if decompressor.eof:
            return b"".join(parts)
    raise ImageError("truncated: the compressed kernel ends too early")


def _lz4(data: memoryview) -> bytes:
    """LZ4 in its legacy frame: magic, then blocks of at most 8 MiB, each after its compressed size."""
    import lz4.block

    block_max = 8 << 20
    parts: list[bytes] = []
    total = 0
    offset = 4
    while offset + 4 <= len(data):
        size = int.from_bytes(data[offset : offset + 4], "little")
        if size == 0x184C2102:  # frames may follow each other
            offset += 4
            continue
        if size == 0 or (parts and len(parts[-1]) < block_max):
            break  # only the last block is short; behind it Linux appends the output's size
        if offset + 4 + size > len(data):
            raise ImageError("truncated: the compressed kernel ends too early")
        try:
            part = lz4.block.decompress(bytes(data[offset + 4 : offset + 4 + size]), uncompressed_size=block_max)
        except lz4.block.LZ4BlockError as error:
            raise ImageError(f"damaged lz4 data: {error}") from error
        total += len(part)
        if total > OUTPUT_MAX:
            raise ImageError("decompresses to more than 1 GiB")
        parts.append(part)
        offset += 4 + size
    if not parts:
        raise ImageError("truncated: the compressed kernel ends too early")
    return b"".join(parts)


_FORMATS: tuple[tuple[str, bytes, Callable[[memoryview], bytes] | None], ...] = (
    ("gzip", b"\x1f\x8b", _gzip),
    ("xz", b"\xfd7zXZ\0", _stdlib(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ))),
    ("bzip2", b"BZh", _stdlib(bz2.BZ2Decompressor)),
    ("lzma", b"\x5d\0\0", _stdlib(lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE))),
    ("zstd", b"\x28\xb5\x2f\xfd", _zstd),
    ("lz4", b"\x02\x21\x4c\x18", _lz4),
    ("lzo", b"\x89LZO", None),
)


def compression_of(data: memoryview | bytes) -> str | None:
    """Name of the compression that `data` begins with, or None."""
    head = bytes(data[:8])
    return next((name for name, magic, _ in _FORMATS if head.startswith(magic)), None)


def decompress(data: memoryview | bytes) -> bytes:
    """Decompresses a stream of any known format; bytes behind its end are ignored.

    :raises ImageError: unknown format, damaged or truncated stream, or more than OUTPUT_MAX bytes.
    """
    name = compression_of(data)
    run = next((run for known, _, run in _FORMATS if known == name), None)
    if run is None:
        raise ImageError(
            f"{name or 'this'} compression is not supported", hint="gzip, xz, bzip2, lzma, zstd and lz4 are"
        )
    try:
        return run(memoryview(data))
    except ImageError:
        raise
    except (lzma.LZMAError, zlib.error, OSError, EOFError, ValueError) as error:
        raise ImageError(f"damaged {name} data: {error}") from error
