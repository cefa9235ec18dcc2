# SPDX-License-Identifier: Apache-2.0
"""A host has room for what was asked, and for what the hypervisor keeps beside it."""

from typing import Any

import fakes
import pytest

from domzero.abi.xen import PAGE_SIZE
from domzero.hypervisor import host as host_module

GIB = (1 << 30) // PAGE_SIZE


@pytest.mark.parametrize("guest_frames", [0, 1, 256, 511, 512, GIB, 17 * GIB, 64 * GIB, 512 * GIB])
def test_a_machine_has_exactly_the_frames_that_guests_and_tables_need(guest_frames: int) -> None:
    frames = host_module.machine_frames(guest_frames)
    usable = frames - 1 - -(-frames // 512) - -(-frames // 1024)
    assert 0 <= usable - guest_frames - host_module.DOMAIN_FRAMES <= 2


def test_a_host_asks_for_them(monkeypatch: Any) -> None:
    asked = []

    def machine(frames: int, **_: Any) -> Any:
        asked.append(frames)
        return fakes.FakeMachine(16)

    monkeypatch.setattr(host_module, "Machine", machine)
    host_module.Host(20 << 10).close()
    assert asked == [host_module.machine_frames(20 * GIB)]
