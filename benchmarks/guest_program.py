# SPDX-License-Identifier: Apache-2.0
"""Programs of our own for a Linux guest (benchmarks/guest): built on the host, and put into an image's initramfs."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from domzero.dom0.images import Image
from domzero.dom0.images.cpio import directory, file, write_cpio

SOURCES = Path(__file__).parent / "guest"


def build_program(name: str, out: Path) -> Path:
    """The program in `out`, linked statically. SystemExit: it cannot be built."""
    source, program = SOURCES / f"{name}.c", out / name
    try:
        subprocess.run(["gcc", "-O2", "-static", "-o", str(program), str(source)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{source.name} cannot be built (gcc, libc6-dev): {error}") from error
    return program


def with_program(image: Image, program: Path) -> Image:
    """The image with the program in its initramfs, which is written beside the program."""
    ramdisk = program.with_name("initramfs")
    more = write_cpio([directory("bin"), file(f"bin/{program.name}", program.read_bytes(), 0o755)])
    whole = Path(image.ramdisk).read_bytes()
    ramdisk.write_bytes(whole + bytes(-len(whole) % 512) + more)
    return replace(image, ramdisk=str(ramdisk))
