# SPDX-License-Identifier: Apache-2.0
"""Reads files out of Debian packages: an ar archive with a compressed tar in it."""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from pathlib import Path

from domzero.builder.files import read_file
from domzero.errors import ImageError

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60


def _data_member(data: bytes, name: str) -> tuple[str, bytes]:
    if not data.startswith(_AR_MAGIC):
        raise ImageError(f"{name}: not a Debian package")
    offset = len(_AR_MAGIC)
    while offset + _AR_HEADER <= len(data):
        header = data[offset : offset + _AR_HEADER]
        member = header[:16].rstrip(b" /").decode("latin-1")
        try:
            size = int(header[48:58])
        except ValueError as error:
            raise ImageError(f"{name}: damaged package") from error
        start = offset + _AR_HEADER
        if start + size > len(data):
            raise ImageError(f"{name}: truncated package")
        if member.startswith("data.tar"):
            return member, data[start : start + size]
        offset = start + size + size % 2
    raise ImageError(f"{name}: damaged package: no data in it")


def extract(
    package: Path, wanted: dict[str, str], optional: dict[str, str] | None = None
) -> dict[str, tuple[str, bytes]]:
    """Files of a package, without dpkg.

    :param wanted: key -> prefix of the path, as in {"kernel": "boot/vmlinuz-"}; the first file that matches counts.
    :param optional: the same for files that may be missing.
    :returns: key -> (path, contents).
    :raises ImageError: damaged, or a file is missing.
    """
    member, data = _data_member(read_file(package, "package"), package.name)
    found: dict[str, tuple[str, bytes]] = {}
    looked_for = wanted | (optional or {})
    try:
        if member.endswith(".zst"):
            import zstandard

            data = zstandard.ZstdDecompressor().stream_reader(data).read()
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*" if not member.endswith(".zst") else "r:") as archive:
            for item in archive:
                path = item.name.removeprefix("./").lstrip("/")
                for key, prefix in looked_for.items():
                    if key not in found and item.isfile() and path.startswith(prefix):
                        stream = archive.extractfile(item)
                        found[key] = (path, stream.read() if stream else b"")
                if len(found) == len(looked_for):
                    break
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise ImageError(f"{package.name}: damaged package: {error}") from error
    for key, prefix in wanted.items():
        if key not in found:
            raise ImageError(f"{package.name}: no {prefix}* in it")
    return found
