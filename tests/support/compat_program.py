# SPDX-License-Identifier: Apache-2.0
"""tests/guest/compat.c, a 32-bit program for Linux, in Debian's initramfs, and what it says here."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from building import ROOT, need_compiler

from domzero.dom0.images.cache import Image
from domzero.dom0.images.cpio import file, write_cpio

COMMAND = "compat"
PARTS = 11
"""Lines that it prints. The last one is of flags at faults, which the translator keeps with virtual time only."""


@dataclass(frozen=True)
class Compat:
    """Debian with the program.

    :param said: its lines on this host; none where 32-bit programs cannot run.
    """

    image: Image
    said: list[str]

    def check(self, console: str, *, flags: bool) -> None:
        """What the program has said on a guest's console is what it says on this host.

        :param flags: those at faults are, too.
        """
        lines = re.findall(r"^COMPAT .*$", console.replace("\r", ""), re.MULTILINE)
        assert len(lines) == PARTS, console[-2000:]
        compared = PARTS if flags else PARTS - 1
        assert not self.said or lines[:compared] == self.said[:compared]


def build(out: Path) -> Path:
    """The program, which needs no C library."""
    need_compiler(headers=False)
    options = ["-m32", "-O2", "-msse2", "-mfpmath=387", "-static", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie"]
    options += ["-fno-stack-protector", "-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables", "-Wall"]
    program = out / COMMAND
    source = ROOT / "tests" / "guest" / "compat.c"
    subprocess.run(["gcc", *options, "-fcf-protection=none", "-o", program, source], check=True)
    return program


def with_compat(image: Image, out: Path) -> Compat:
    """The image with the program in its initramfs, which is written to `out`."""
    program, ramdisk = build(out), out / "initramfs"
    whole = Path(image.ramdisk).read_bytes()
    more = write_cpio([file(f"bin/{COMMAND}", program.read_bytes(), 0o755)])
    ramdisk.write_bytes(whole + bytes(-len(whole) % 512) + more)
    try:
        result = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60)
    except OSError:  # the host's kernel has no 32-bit programs
        return Compat(replace(image, ramdisk=str(ramdisk)), [])
    return Compat(replace(image, ramdisk=str(ramdisk)), result.stdout.splitlines())
