# SPDX-License-Identifier: Apache-2.0
"""With virtual time a run is a pure function of image, configuration and seed: a whole boot, back ends included."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from domzero.dom0.config import DomainConfig
from domzero.dom0.images.cache import Image
from domzero.dom0.lifecycle import DomainSession
from domzero.hypervisor.clock import VirtualClock

pytestmark = pytest.mark.guest


@dataclass
class Seen:
    """What somebody outside can see of a run."""

    console: bytes
    log: list[str]
    instructions: int


def boot(image: Image, seed: int) -> Seen:
    console, log = bytearray(), list[str]()
    config = DomainConfig(kernel=image.kernel, ramdisk=image.ramdisk, cmdline=image.cmdline, memory_mib=128, seed=seed)
    session = DomainSession(config, clock=VirtualClock(), log=log.append)
    session.console.add_sink(console.extend)
    session.console.send(b"cat /proc/interrupts; head -c 16 /dev/urandom | md5sum; poweroff\n")
    session.start()
    ending = session.wait(240)
    session.destroy()
    assert ending is not None
    return Seen(bytes(console), log, session.instructions)


def test_debian_boots_the_same_to_the_instruction_with_the_same_seed_and_not_with_another(debian: Image) -> None:
    first = boot(debian, 7)
    assert b"reboot: System halted" in first.console
    assert boot(debian, 7) == first
    assert boot(debian, 8).console != first.console
