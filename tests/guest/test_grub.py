# SPDX-License-Identifier: Apache-2.0
"""GRUB as a PV kernel, 64-bit and 32-bit: not Linux, with a hypercall page and its p2m list mapped from the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from building import Run
from waiting import until

from domzero.dom0.config import DomainConfig
from domzero.dom0.life import EndReason
from domzero.dom0.lifecycle import DomainSession

pytestmark = pytest.mark.guest


@pytest.mark.parametrize("kernel", ["grub-x86_64-xen.bin", "grub-i386-xen.bin"])
def test_grub_comes_to_its_prompt_answers_and_halts(grub: Path, kernel: str) -> None:
    session = DomainSession(DomainConfig(kernel=str(grub / kernel), memory_mib=64))
    session.start()
    try:
        until(lambda: session.console.history.endswith(b"grub> "))
        session.console.send(b"ls\r")
        until(lambda: b"(memdisk) (proc)" in session.console.history)
        session.console.send(b"halt\r")
        end = session.wait(60)
        assert end is not None and end.reason is EndReason.POWEROFF
    finally:
        session.destroy()


def test_grubs_pvh_kernel_is_no_pv_kernel(grub: Path, domzero_run: Run) -> None:
    result = domzero_run("--type", "pv", "--kernel", str(grub / "grub-i386-xen_pvh.bin"))
    assert result.returncode == 2
    assert b"HVM or PVH only" in result.stderr
    assert result.stderr.count(b"\n") == 1
