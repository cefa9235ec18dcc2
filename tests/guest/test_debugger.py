# SPDX-License-Identifier: Apache-2.0
"""Hardware breakpoints and single steps, as a debugger under Debian's kernel uses them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from building import ROOT, Run, need_compiler

from domzero.dom0.images.cache import Image
from domzero.dom0.images.cpio import char_device, directory, file, write_cpio

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]


def test_a_debugger_stops_its_child_where_it_asked(debian: Image, domzero_run: Run, tmp_path: Path) -> None:
    need_compiler(headers=False)
    program, ramdisk = tmp_path / "init", tmp_path / "ramdisk"
    source = ROOT / "tests" / "guest" / "debugger.c"
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True)
    entries = [directory("dev"), char_device("dev/console", 5, 1), file("init", program.read_bytes(), 0o755)]
    ramdisk.write_bytes(write_cpio(entries))
    result = domzero_run(
        *("--kernel", str(debian.kernel), "--ramdisk", str(ramdisk)),
        *("--cmdline", "console=hvc0 quiet", "--timeout", "280"),
        limit=300,
    )
    lines = result.stdout.decode(errors="replace").replace("\r", "").splitlines()
    assert [line for line in lines if line.startswith(("stop", "exited", "stepped", "dr"))] == [
        "stop 5 function 1 dr6 1 watched 0",
        "stop 5 function 0 dr6 2 watched 7",
        "stop 5 function 0 dr6 4 watched 7",
        "exited 42",
        "stepped 1 exited 42",
    ]
