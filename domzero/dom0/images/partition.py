# SPDX-License-Identifier: Apache-2.0
"""Partition tables, through sfdisk: written on disks that are built, looked at on those that are imported."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from domzero.dom0.images import qemu
from domzero.dom0.images.tools import find_tool, need_tools, run_tool
from domzero.errors import ImageError

SECTOR = 512
ALIGNMENT = 1 << 20
LINUX_ROOT = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
"""Discoverable Partitions Specification: root of x86-64."""
_HEAD_BLOCKS = 16  # of 64 KiB: a GPT's entries end within the first
_FOREIGN = {"7", "c", "ef", "E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"}
_FOREIGN |= {"C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC"}
"""Types of Microsoft's and of EFI's partitions."""


@dataclass(slots=True, frozen=True)
class Partition:
    """Bytes of a disk, and what the table says that they are."""

    start: int
    size: int
    type: str


@dataclass(slots=True, frozen=True)
class Table:
    """A partition table; without a label, there is none."""

    label: str | None
    partitions: tuple[Partition, ...] = ()

    @property
    def may_be_linux(self) -> bool:
        """Whether something on the disk can be a Linux: a bare file system, or a partition that is not of others."""
        return self.label is None or any(partition.type not in _FOREIGN for partition in self.partitions)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def write_table(disk: Path, disk_id: str, partition_id: str) -> Partition:
    """Writes a GPT with one partition over all of a raw disk; returns the partition."""
    (program,) = need_tools("sfdisk")
    script = f"label: gpt\nlabel-id: {disk_id}\nstart=2048, type={LINUX_ROOT}, uuid={partition_id}, name=root\n"
    quiet = ("--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never")
    run_tool([program, *quiet, str(disk)], stdin=script)
    (partition,) = _read(disk).partitions
    return partition


def grow_partition(disk: Path) -> None:
    """Lets the only partition of a raw disk that has grown reach to its end."""
    (program,) = need_tools("sfdisk")
    quiet = ("--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", "-N", "1")
    run_tool([program, *quiet, str(disk)], stdin=", +\n")


def read_table(disk: Path, format: str, size: int) -> Table | None:
    """Looks at a disk's partition table; None where sfdisk is not installed."""
    if find_tool("sfdisk") is None:
        return None
    if format == "raw":
        return _read(disk)
    with tempfile.TemporaryDirectory(prefix=".head-", dir=disk.parent) as directory:
        head = Path(directory) / "head"
        qemu.head(disk, format, head, min(_HEAD_BLOCKS, -(-size // 65536)))
        os.truncate(head, size)
        return _read(head)


def _read(disk: Path) -> Table:
    (program,) = need_tools("sfdisk")
    try:
        text = run_tool([program, "--json", str(disk)])
    except ImageError:  # "does not contain a recognized partition table"
        return Table(None)
    try:
        table = json.loads(text)["partitiontable"]
        sector = int(table.get("sectorsize", SECTOR))
        partitions = tuple(
            Partition(int(entry["start"]) * sector, int(entry["size"]) * sector, str(entry["type"]))
            for entry in table.get("partitions", ())
        )
        return Table(str(table["label"]), partitions)
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{disk}: sfdisk says nothing of use about its partitions") from error
