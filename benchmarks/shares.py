# SPDX-License-Identifier: Apache-2.0
"""How fast shared directories are, beside the host's own files: `python benchmarks/shares.py [--json]`.

A file in a directory is written and read by this program, and by Debian's 9p through a domain's share. Time and
processor time are this machine's, of the whole process with the guest, its vCPU and its back end.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figures import MIB, Figure, compare, figure, main, shell_figures

from domzero.dom0.config import DomainConfig
from domzero.dom0.images import fetch_debian

FILE_MIB = 128
SMALL_FILES = 500
MOUNT = "mount -t 9p -o trans=xen,version=9p2000.L,msize=262144 share /mnt"
# What is run, its bytes, and its requests.
COMMANDS = {
    "write, 1 MiB": (f"dd if=/dev/zero of=/mnt/file bs=1M count={FILE_MIB} conv=fsync", FILE_MIB * MIB, FILE_MIB),
    "read, 1 MiB": ("dd if=/mnt/file of=/dev/null bs=1M", FILE_MIB * MIB, FILE_MIB),
    "read, 4 KiB": ("dd if=/mnt/file of=/dev/null bs=4k count=4096", 16 * MIB, 4096),
    "small files made, 4 KiB": (
        f"n=0; while [ $n -lt {SMALL_FILES} ]; do dd if=/dev/zero of=/mnt/small$n bs=4k count=1; n=$((n+1)); done",
        SMALL_FILES * 4096,
        SMALL_FILES,
    ),
}


def host_figures(directory: Path) -> Iterator[Figure]:
    """What this process does with such files itself."""
    path = directory / "hosts-own"
    data = bytearray(MIB)
    start, cpu = time.perf_counter(), time.process_time()
    with path.open("wb", buffering=0) as file:
        for _ in range(FILE_MIB):
            file.write(data)
        os.fsync(file.fileno())
    yield figure(
        "host", "write, 1 MiB", FILE_MIB * MIB, FILE_MIB, time.perf_counter() - start, time.process_time() - cpu
    )
    for what, size, count in (("read, 1 MiB", MIB, FILE_MIB), ("read, 4 KiB", 4096, 4096)):
        buffer = bytearray(size)
        start, cpu = time.perf_counter(), time.process_time()
        with path.open("rb", buffering=0) as file:
            for _ in range(count):
                file.readinto(buffer)
        yield figure("host", what, size * count, count, time.perf_counter() - start, time.process_time() - cpu)
    path.unlink()


def measure() -> list[Figure]:
    """All of it, in one run in one directory."""
    image, _ = fetch_debian(lambda text: print(f"shares: {text}", file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="domzero-shares-") as name:
        config = DomainConfig(
            kernel=image.kernel,
            ramdisk=image.ramdisk,
            cmdline=image.cmdline,
            memory_mib=256,
            shares=[f"tag=share,path={name},writable"],
        )
        return compare(host_figures(Path(name)), shell_figures(config, COMMANDS, MOUNT))


if __name__ == "__main__":
    raise SystemExit(main(__doc__, measure))
