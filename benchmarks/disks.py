# SPDX-License-Identifier: Apache-2.0
"""How fast disks are, beside the host's own file: `python benchmarks/disks.py [--json]`.

A file in the page cache is read and written by this program, and through a domain's disk: by a small kernel that keeps
requests in flight and looks at no data (guests/bench/disk_speed.c: what the back end can do), and by Debian's kernel
(what a user gets). Time and processor time are this machine's, of the whole process with the guest, its vCPU and its
back end.
"""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from figures import MIB, Figure, compare, figure, main, running, shell_figures
from guest_program import build_program, with_program

from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.images import fetch_debian

ROOT = Path(__file__).parents[1]
IMAGE_MIB = 512


def page_buffer(size: int) -> mmap.mmap:
    """Memory that begins with a page, as that of programs with O_DIRECT does."""
    buffer = mmap.mmap(-1, size)
    buffer.write(os.urandom(size))
    return buffer


def host_figures(path: Path) -> Iterator[Figure]:
    """What this process does with the file itself, one request at a time."""
    chance = random.Random(1)
    for what, size, is_read, is_random, total in (
        ("sequential write, 1 MiB", MIB, False, False, 1024 * MIB),
        ("sequential read, 1 MiB", MIB, True, False, 1024 * MIB),
        ("sequential write, 256 KiB", 256 << 10, False, False, 1024 * MIB),
        ("sequential read, 256 KiB", 256 << 10, True, False, 1024 * MIB),
        ("sequential read, 32 KiB", 32 << 10, True, False, 1024 * MIB),
        ("random read, 4 KiB", 4096, True, True, 400 * MIB),
        ("random write, 4 KiB", 4096, False, True, 200 * MIB),
    ):
        buffer = [page_buffer(size)]
        places = IMAGE_MIB * MIB // size
        count = total // size
        order = [chance.randrange(places) if is_random else number % places for number in range(count)]
        fd = os.open(path, os.O_RDWR)
        call: Callable[..., int] = os.preadv if is_read else os.pwritev
        start, cpu = time.perf_counter(), time.process_time()
        for place in order:
            call(fd, buffer, place * size)
        yield figure("host", what, total, count, time.perf_counter() - start, time.process_time() - cpu)
        os.close(fd)


def kernel_figures(directory: Path, disk: Path) -> Iterator[Figure]:
    """What our own kernel gets out of the back end."""
    subprocess.run(
        ["make", "-s", "-C", str(ROOT / "guests"), f"OUT={directory}", f"{directory}/64/bench-disk_speed"], check=True
    )
    config = DomainConfig(
        kernel=str(directory / "64" / "bench-disk_speed"),
        memory_mib=32,
        disks=[f"{disk},raw,xvda,w"],
        on_poweroff=Action.PRESERVE,
    )
    with running(config) as (session, marks):
        for what, size in (
            ("sequential write, 1 MiB", MIB),
            ("sequential read, 1 MiB", MIB),
            ("sequential read, 32 KiB", 32 << 10),
            ("random read, 4 KiB", 4096),
            ("random write, 4 KiB", 4096),
        ):
            session.console.send(b"g")
            seconds, cpu_seconds, line = marks.measure(what)
            count, failed = map(int, line.split()[-2:])
            if failed:
                raise SystemExit(f"{what}: {failed} requests have failed")
            yield figure("our kernel", what, count * size, count, seconds, cpu_seconds)


# Requests of the program that has several in flight (guest/aio.c): what they are, how many at once, how many in all.
AT_ONCE = {
    "sequential write, 1 MiB, 4 at once": ("write sequential", MIB, 4, 4096),
    "sequential read, 1 MiB, 4 at once": ("read sequential", MIB, 4, 4096),
    "sequential write, 256 KiB, 16 at once": ("write sequential", 256 << 10, 16, 16384),
    "sequential read, 256 KiB, 16 at once": ("read sequential", 256 << 10, 16, 16384),
    "random read, 4 KiB, 32 at once": ("read random", 4096, 32, 200_000),
}
# What is run in the guest, its bytes, and its requests: dd has one in flight.
LINUX = {
    "sequential write, 1 MiB": ("dd if=/dev/zero of=/dev/xvda bs=1M count=256 oflag=direct", 256 * MIB, 256),
    "sequential read, 1 MiB": ("dd if=/dev/xvda of=/dev/null bs=1M count=256 iflag=direct", 256 * MIB, 256),
    **{
        what: (f"aio /dev/xvda {kind} {size} {depth} {count}", size * count, count)
        for what, (kind, size, depth, count) in AT_ONCE.items()
    },
    "sequential write, buffered": ("dd if=/dev/zero of=/dev/xvda bs=1M count=256 conv=fsync", 256 * MIB, 256),
    "sequential read, buffered": ("dd if=/dev/xvda of=/dev/null bs=1M count=256", 256 * MIB, 256),
}


def host_figures_at_once(directory: Path, disk: Path) -> Iterator[Figure]:
    """What the same program does with the file on the host: as many buffers, of which one after the other is copied."""
    program = build_program("aio", directory)
    for what, (kind, size, depth, count) in AT_ONCE.items():
        before, start = os.times(), time.perf_counter()
        subprocess.run([program, disk, *kind.split(), str(size), str(depth), str(count)], check=True)
        seconds, after = time.perf_counter() - start, os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        yield figure("host", what, size * count, count, seconds, used)


def linux_figures(directory: Path, disk: Path) -> Iterator[Figure]:
    """What Debian's kernel makes of it, with busybox's dd, and with a program that has several requests in flight."""
    image, _ = fetch_debian(lambda text: print(f"disks: {text}", file=sys.stderr))
    image = with_program(image, build_program("aio", directory))
    config = DomainConfig(
        kernel=image.kernel,
        ramdisk=image.ramdisk,
        cmdline=image.cmdline,
        memory_mib=512,
        disks=[f"{disk},raw,xvda,w"],
    )
    yield from shell_figures(config, LINUX)


def measure() -> list[Figure]:
    """All of it, in one run on one file."""
    with tempfile.TemporaryDirectory(prefix="domzero-disks-") as name:
        directory = Path(name)
        disk = directory / "disk.img"
        with disk.open("wb") as image:
            for _ in range(IMAGE_MIB):
                image.write(os.urandom(MIB))
            os.fsync(image.fileno())
        host = [*host_figures(disk), *host_figures_at_once(directory, disk)]
        return compare(host, [*kernel_figures(directory, disk), *linux_figures(directory, disk)])


if __name__ == "__main__":
    raise SystemExit(main(__doc__, measure))
