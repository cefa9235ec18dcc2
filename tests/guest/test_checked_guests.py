# SPDX-License-Identifier: Apache-2.0
"""The guests of guests/suite with one vCPU, 64-bit and 32-bit kernels with their applications, with each slice on both
engines: `--engine check`, which translates all that runs twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from building import build_guests
from suite_guests import CASES, options_of

import domzero
from domzero import _machine

pytestmark = [pytest.mark.guest]
PATIENCE = 240
REAL_TIME = {"preemption": "its hypercalls are to take time", "runstate": "it looks whether time is 0"}
"""Guests that fail with virtual time, on each engine."""
LONG = ("timers",)
"""They run for many millions of instructions."""
RUNS_ONCE = 1000
"""Instructions, at most, that cannot be undone: they are not compared."""


def cases() -> list[object]:
    """Those of the suite with one vCPU."""
    found: list[object] = []
    for case in CASES:
        name, width = str(case.values[0]), str(case.values[1])
        if options_of(name).get("vcpus", "1") == "1" and name not in REAL_TIME:
            marks = [pytest.mark.slow] if name in LONG else []
            found.append(pytest.param(name, width, id=f"{name}-{width}", marks=marks))
    return found


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with all guests, built."""
    if (reason := _machine.translator_unavailable()) is not None:
        pytest.skip(reason)
    return build_guests(tmp_path_factory.mktemp("checked"))


@pytest.mark.parametrize(("name", "width"), cases())
def test_each_slice_of_a_guest_of_the_suite_is_the_same_on_both_engines(suite: Path, name: str, width: str) -> None:
    memory = int(options_of(name).get("memory", "16"))
    with domzero.boot(suite / width / name, memory_mib=memory, engine="check", seed=7, virtual_time=True) as guest:
        end = guest.wait(PATIENCE)
        compared, difference = guest.domain.vcpus[0].hw.checked()
        blocks, _, _ = guest.domain.vcpus[0].hw.translated()
        output = guest.console.text.replace("\r", "")
    assert difference is None
    crashes = options_of(name).get("ends") == "crash"
    assert f"{'READY' if crashes else 'PASS'} {name}" in output or f"SKIP {name}" in output, output
    assert blocks > 20 and compared > 1000
    # One of those that crash fetches what is not there, again and again: nothing to compare.
    assert crashes or compared > end.instructions - RUNS_ONCE


@pytest.mark.parametrize("kernel", ["grub-x86_64-xen.bin", "grub-i386-xen.bin"])
def test_each_slice_of_grub_is_the_same_on_both_engines(grub: Path, kernel: str) -> None:
    if (reason := _machine.translator_unavailable()) is not None:
        pytest.skip(reason)
    with domzero.boot(grub / kernel, memory_mib=64, engine="check", seed=7, virtual_time=True) as guest:
        # Before it runs: GRUB polls its console, and what comes in the middle of a slice is a difference.
        guest.console.send("ls\rhalt\r")
        end = guest.wait(PATIENCE)
        compared, difference = guest.domain.vcpus[0].hw.checked()
        output = guest.console.text
    assert difference is None
    assert "(memdisk) (proc)" in output
    assert end.reason == "poweroff" and compared > 0.9 * end.instructions
