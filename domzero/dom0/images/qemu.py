# SPDX-License-Identifier: Apache-2.0
"""qemu-img: formats of disk images that are not Domzero's to understand.

Images come from elsewhere. Their format is always named, never left to qemu-img's guess; one that refers to other files
is refused, since those would be files of this machine; and qemu-img has bounded memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domzero.dom0.images.tools import need_tools, run_tool
from domzero.errors import ImageError

FORMATS = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc", "vhdx": "vhdx", "vmdk": "vmdk", "vdi": "vdi", "qed": "qed"}
"""Format as people call it -> as qemu-img does."""
_INFO_MEMORY = 1 << 30
_INFO_SECONDS = 30
_FOOTER = 512
_CHECK_FOUND = (2, 3)
"""Exit statuses of qemu-img check: damage, lost clusters."""
_VMDK_TEXT = b"# Disk DescriptorFile"


@dataclass(slots=True, frozen=True)
class Disk:
    """What a file says of the disk in it."""

    format: str
    size: int


def format_of(path: Path) -> str:
    """Which format a file has, by its first and last bytes; raw when there is no sign of another one.

    :raises ImageError: it cannot be read, or it is a VMDK that only describes other files.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_FOOTER)
            end = file.seek(0, 2)
            file.seek(max(0, end - _FOOTER))
            foot = file.read(_FOOTER)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    if head.startswith(b"QFI\xfb"):
        return "qcow2"
    if head.startswith(b"vhdxfile"):
        return "vhdx"
    if head.startswith(b"KDMV"):
        return "vmdk"
    if head.lstrip().startswith(_VMDK_TEXT):
        raise ImageError(f"{path}: this VMDK describes other files", hint="make one file of it: qemu-img convert")
    if head.startswith(b"conectix") or foot.startswith(b"conectix"):
        return "vhd"
    return "raw"


def inspect(path: Path, format: str) -> Disk:
    """Checks an image from elsewhere.

    :raises ImageError: damaged, encrypted, or it refers to other files.
    """
    info = _info(path, format)
    details = info.get("format-specific", {}).get("data", {})
    extents = details.get("extents", [])
    if (
        "backing-filename" in info
        or "data-file" in details
        or any(extent.get("filename") != str(path) for extent in extents)
    ):
        raise ImageError(f"{path}: it needs other files", hint="make one file of it: qemu-img convert")
    if info.get("encrypted"):
        raise ImageError(f"{path}: it is encrypted")
    return Disk(format, int(info["virtual-size"]))


def virtual_size(path: Path, format: str) -> int:
    """Bytes of the disk in one of our own images."""
    return path.stat().st_size if format == "raw" else int(_info(path, format)["virtual-size"])


def convert(source: Path, source_format: str, target: Path, target_format: str) -> None:
    """Copies a disk, with all that it rests on, into a file of another format; holes stay holes."""
    (program,) = need_tools("qemu-img")
    formats = ("-f", FORMATS[source_format], "-O", FORMATS[target_format])
    run_tool([program, "convert", "-q", *formats, _file(source), _file(target)])


def overlay(path: Path, backing: str, backing_format: str, size: int) -> None:
    """Makes a qcow2 image of the differences to another one.

    :param backing: its name as seen from the new image's directory.
    """
    (program,) = need_tools("qemu-img")
    base = ("-F", FORMATS[backing_format], "-b", backing)
    run_tool([program, "create", "-q", "-u", "-f", "qcow2", *base, _file(path), str(size)])


def create(path: Path, size: int) -> None:
    """Makes an empty qcow2 image."""
    (program,) = need_tools("qemu-img")
    run_tool([program, "create", "-q", "-f", "qcow2", _file(path), str(size)])


def resize(path: Path, format: str, size: int) -> None:
    """Makes a disk larger."""
    (program,) = need_tools("qemu-img")
    run_tool([program, "resize", "-q", "-f", FORMATS[format], _file(path), str(size)])


def check(path: Path, format: str) -> list[str]:
    """What is wrong with an image's own tables."""
    (program,) = need_tools("qemu-img")
    command = [program, "check", "--output=json", "-f", FORMATS[format], _file(path)]
    text = run_tool(command, memory=_INFO_MEMORY, statuses=(0, *_CHECK_FOUND))
    try:
        found = json.loads(text)
        counts = {what: int(found.get(what, 0)) for what in ("check-errors", "corruptions", "leaks")}
    except (ValueError, AttributeError) as error:
        raise ImageError(f"{path}: qemu-img says nothing of use about it") from error
    told = {"leaks": "clusters are lost (which does no harm)", "corruptions": "entries of its tables are damaged"}
    return [f"{count} {told.get(what, 'entries could not be checked')}" for what, count in counts.items() if count]


def head(path: Path, format: str, target: Path, blocks: int) -> None:
    """Copies the first blocks of 64 KiB of a disk into a raw file."""
    (program,) = need_tools("qemu-img")
    formats = ("-f", FORMATS[format], "-O", "raw")
    copied = ("bs=65536", f"count={blocks}", f"if={_file(path)}", f"of={_file(target)}")
    run_tool([program, "dd", *formats, *copied], memory=_INFO_MEMORY)


def _info(path: Path, format: str) -> dict[str, Any]:
    (program,) = need_tools("qemu-img")
    command = [program, "info", "--output=json", "-U", "-f", FORMATS[format], _file(path)]
    text = run_tool(command, seconds=_INFO_SECONDS, memory=_INFO_MEMORY)
    try:
        info = json.loads(text)
    except ValueError as error:
        raise ImageError(f"{path}: qemu-img says nothing of use about it") from error
    if not isinstance(info, dict) or not isinstance(info.get("virtual-size"), int):
        raise ImageError(f"{path}: qemu-img does not know its size")
    return info


def _file(path: Path) -> str:
    """A path that qemu-img cannot take for an option or a protocol (`nbd:…`)."""
    return str(path.absolute())
