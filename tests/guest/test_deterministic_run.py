# SPDX-License-Identifier: Apache-2.0
"""With virtual time a run is a pure function of image, configuration and seed: a whole boot, back ends included."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

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
    disk: str


def boot(image: Image, disk: Path, seed: int) -> Seen:
    disk.write_bytes(random.Random(6).randbytes(1 << 20))
    console, log = bytearray(), list[str]()
    config = DomainConfig(
        kernel=image.kernel, ramdisk=image.ramdisk, cmdline=image.cmdline, memory_mib=128, seed=seed, disks=[str(disk)]
    )
    session = DomainSession(config, clock=VirtualClock(), log=log.append)
    session.console.add_sink(console.extend)
    session.console.send(
        b"md5sum /dev/xvda | dd of=/dev/xvda seek=7 conv=fsync; cat /proc/interrupts\n"
        b"head -c 16 /dev/urandom | md5sum | tee /dev/console | dd of=/dev/xvda seek=9 conv=fsync; poweroff\n"
    )
    session.start()
    ending = session.wait(240)
    session.destroy()
    assert ending is not None
    return Seen(bytes(console), log, session.instructions, hashlib.md5(disk.read_bytes()).hexdigest())


def test_debian_boots_the_same_to_the_instruction_with_the_same_seed_and_not_with_another(
    debian: Image, tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    first = boot(debian, disk, 7)
    assert b"reboot: System halted" in first.console
    assert boot(debian, disk, 7) == first
    other = boot(debian, disk, 8)
    assert other.console != first.console and other.disk != first.disk
