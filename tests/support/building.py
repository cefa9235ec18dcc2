# SPDX-License-Identifier: Apache-2.0
"""The repository, the command under test, and guests built from `guests/`."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from domzero.dom0.images.cache import Image
from domzero.dom0.images.cpio import read_cpio

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "domzero"]
Run = Callable[..., subprocess.CompletedProcess[bytes]]


def need_compiler(*, headers: bool = True) -> None:
    """Skips the test where guests cannot be built."""
    if any(shutil.which(tool) is None for tool in ("gcc", "make")):
        pytest.skip("no C compiler (gcc, make)")
    if headers and not Path("/usr/include/xen/xen.h").exists():
        pytest.skip("no Xen headers (libxen-dev)")


def build_guests(out: Path, *targets: str) -> Path:
    """Builds targets of guests/Makefile (its default without any) into a directory; returns the directory.

    :param targets: names of the Makefile's, and paths of guests below `out`.
    """
    need_compiler()
    # What is built is kept from test to test and from run to run: all guests are minutes of a processor's work.
    kept = ROOT / "target" / "guests"
    kept.mkdir(parents=True, exist_ok=True)
    wanted = [str(kept / Path(name).relative_to(out)) if name.startswith("/") else name for name in targets]
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "-s", "-j2", "-C", ROOT / "guests", f"OUT={kept}", *wanted], check=True)
        for width in ("64", "32"):
            if (kept / width).exists():
                shutil.copytree(kept / width, out / width, dirs_exist_ok=True)
    return out


def build_shell(out: Path) -> str:
    """Builds guests/shell, a guest that does what it is told on its console, in a copy of its sources."""
    need_compiler()
    shutil.copytree(ROOT / "guests" / "shell", out, dirs_exist_ok=True)
    (out / "shell").unlink(missing_ok=True)
    subprocess.run(["make", "-s", "-C", out, "shell"], check=True)
    return str(out / "shell")


def busybox_of(image: Image) -> bytes:
    """The static busybox in an image's initramfs."""
    return next(entry.data for entry in read_cpio(Path(image.ramdisk).read_bytes()) if entry.name == "bin/busybox")
