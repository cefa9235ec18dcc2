# SPDX-License-Identifier: Apache-2.0
"""How fast disks are, beside the host's own file: `python benchmarks/disks.py [--json]`.

A file in the page cache is read and written by this program, and through a domain's disk: by a small kernel that keeps
requests in flight and looks at no data (guests/bench/disk_speed.c: what the back end can do), and by Debian's kernel
(what a user gets). Time and processor time are this machine's, of the whole process with the guest, its vCPU and its
back end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.images import fetch_debian
from domzero.dom0.images.cpio import file, write_cpio
from domzero.dom0.lifecycle import DomainSession

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
IMAGE_MIB = 512
LIMIT_S = 600.0


@dataclass(slots=True)
class Figure:
    """One measurement.

    :param by: the host, our kernel, or Linux.
    :param ratio: to the host's own speed at the same.
    :param cpu_ratio: the same of what a second of processor time does, which other load of the machine changes less.
    """

    by: str
    what: str
    mib_per_second: float
    requests_per_second: float
    cpu_ms_per_mib: float
    ratio: float | None = None
    cpu_ratio: float | None = None


def figure(by: str, what: str, bytes: int, requests: int, seconds: float, cpu_seconds: float) -> Figure:
    """Of so many bytes and requests in this time."""
    mib = bytes / MIB
    return Figure(by, what, mib / seconds, requests / seconds, cpu_seconds * 1000 / mib)


def host_figures(path: Path) -> Iterator[Figure]:
    """What this process does with the file itself, one request at a time."""
    chance = random.Random(1)
    for what, size, is_read, is_random, total in (
        ("sequential write, 1 MiB", MIB, False, False, 1024 * MIB),
        ("sequential read, 1 MiB", MIB, True, False, 1024 * MIB),
        ("sequential read, 32 KiB", 32 << 10, True, False, 1024 * MIB),
        ("random read, 4 KiB", 4096, True, True, 400 * MIB),
        ("random write, 4 KiB", 4096, False, True, 200 * MIB),
    ):
        buffer = [bytearray(os.urandom(size))]
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


class Marks:
    """Takes the time when the guest prints a mark."""

    def __init__(self) -> None:
        self._rest = b""
        self._changed = threading.Condition()
        self.seen: dict[str, tuple[float, float, str]] = {}

    def __call__(self, data: bytes) -> None:
        now = (time.perf_counter(), time.process_time())
        *lines, self._rest = (self._rest + data).split(b"\n")
        with self._changed:
            for line in lines:
                text = line.decode(errors="replace").strip()
                for word in ("begin", "end", "PASS", "FAIL", "ready"):
                    if text.startswith(f"{word} ") or text == word:
                        self.seen[text.rstrip("0123456789 ")] = (*now, text)
            self._changed.notify_all()

    def wait(self, text: str) -> tuple[float, float, str]:
        """Wall time, processor time, and the whole line."""
        with self._changed:
            if not self._changed.wait_for(lambda: text in self.seen, LIMIT_S):
                raise SystemExit(f"the guest has not said {text!r}: {list(self.seen)}")
            return self.seen[text]


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
    session, marks = DomainSession(config), Marks()
    session.console.add_sink(marks)
    session.start()
    try:
        for what, size in (
            ("sequential write, 1 MiB", MIB),
            ("sequential read, 1 MiB", MIB),
            ("sequential read, 32 KiB", 32 << 10),
            ("random read, 4 KiB", 4096),
            ("random write, 4 KiB", 4096),
        ):
            session.console.send(b"g")
            start, cpu, _ = marks.wait(f"begin {what}")
            end, cpu_end, line = marks.wait(f"end {what}")
            count, failed = map(int, line.split()[-2:])
            if failed:
                raise SystemExit(f"{what}: {failed} requests have failed")
            yield figure("our kernel", f"{what}", count * size, count, end - start, cpu_end - cpu)
    finally:
        session.destroy()


AIO_READS = 50_000
# What is run, its bytes, and its requests.
LINUX = {
    "sequential write, 1 MiB": ("dd if=/dev/zero of=/dev/xvda bs=1M count=256 oflag=direct", 256 * MIB, 256),
    "sequential read, 1 MiB": ("dd if=/dev/xvda of=/dev/null bs=1M count=256 iflag=direct", 256 * MIB, 256),
    "sequential write, buffered": ("dd if=/dev/zero of=/dev/xvda bs=1M count=256 conv=fsync", 256 * MIB, 256),
    "sequential read, buffered": ("dd if=/dev/xvda of=/dev/null bs=1M count=256", 256 * MIB, 256),
    "random read, 4 KiB": (f"aio /dev/xvda 32 {AIO_READS}", AIO_READS * 4096, AIO_READS),
}


def linux_figures(directory: Path, disk: Path) -> Iterator[Figure]:
    """What Debian's kernel makes of it, with busybox's dd and a program that has 32 reads in flight."""
    image, _ = fetch_debian(lambda text: print(f"disks: {text}", file=sys.stderr))
    program, ramdisk = directory / "aio", directory / "ramdisk"
    source = ROOT / "guests" / "bench" / "aio.c"
    subprocess.run(["cc", "-O2", "-static", "-o", str(program), str(source)], check=True)
    with_program = Path(image.ramdisk).read_bytes() + write_cpio([file("bin/aio", program.read_bytes(), 0o755)])
    ramdisk.write_bytes(with_program)
    config = DomainConfig(
        kernel=image.kernel, ramdisk=str(ramdisk), cmdline=image.cmdline, memory_mib=512, disks=[f"{disk},raw,xvda,w"]
    )
    yield from shell_figures(config, LINUX)


def shell_figures(
    config: DomainConfig, commands: dict[str, tuple[str, int, int]], prepare: str = "true"
) -> Iterator[Figure]:
    """What Debian's kernel takes for commands of its shell, each with its bytes and requests."""
    session, marks = DomainSession(config), Marks()
    session.console.add_sink(marks)
    session.start()
    try:
        session.console.send(f"{prepare}; echo re''ady\n".encode())
        marks.wait("ready")
        for what, (command, size, count) in commands.items():
            command = (
                f"echo 3 >/proc/sys/vm/drop_caches; echo be''gin {what}; {command} 2>/dev/null; echo e''nd {what} $?\n"
            )
            session.console.send(command.encode())
            start, cpu, _ = marks.wait(f"begin {what}")
            end, cpu_end, line = marks.wait(f"end {what}")
            if not line.endswith(" 0"):
                raise SystemExit(f"Linux: {what}: it failed")
            yield figure("Linux", what, size, count, end - start, cpu_end - cpu)
    finally:
        session.destroy()


def measure() -> list[Figure]:
    """All of it, in one run on one file."""
    with tempfile.TemporaryDirectory(prefix="domzero-disks-") as name:
        directory = Path(name)
        disk = directory / "disk.img"
        with disk.open("wb") as image:
            for _ in range(IMAGE_MIB):
                image.write(os.urandom(MIB))
            os.fsync(image.fileno())
        figures = list(host_figures(disk))
        host = {each.what: each for each in figures}
        for each in (*kernel_figures(directory, disk), *linux_figures(directory, disk)):
            base = host.get(each.what.replace("buffered", "1 MiB"))
            if base is not None:
                each.ratio = each.mib_per_second / base.mib_per_second
                each.cpu_ratio = base.cpu_ms_per_mib / each.cpu_ms_per_mib
            figures.append(each)
    return figures


def show(figures: list[Figure]) -> None:
    """As a table."""
    print(f"{'by':<11}{'what':<28}{'MiB/s':>9}{'requests/s':>12}{'CPU ms/MiB':>12}{'x host':>8}{'by CPU':>8}")
    for each in figures:
        ratios = "".join("" if one is None else f"{one:>8.2f}" for one in (each.ratio, each.cpu_ratio))
        print(
            f"{each.by:<11}{each.what:<28}{each.mib_per_second:>9.0f}{each.requests_per_second:>12.0f}"
            f"{each.cpu_ms_per_mib:>12.2f}{ratios}"
        )


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    figures = measure()
    if args.json:
        print(json.dumps([asdict(each) for each in figures], indent=2))
        return 0
    show(figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
