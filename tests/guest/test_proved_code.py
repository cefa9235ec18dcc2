# SPDX-License-Identifier: Apache-2.0
"""All host code that a boot of Debian, with 64-bit and 32-bit programs, becomes is proved: accesses are behind checks,
jumps lead to known places."""

from __future__ import annotations

import pytest
from compat_program import COMMAND, Compat

import domzero
from domzero import _machine

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

COMMANDS = f"{COMMAND}; cat /proc/interrupts; head -c 64 /dev/urandom | md5sum; seq 3000 | sort -r | md5sum; poweroff\n"


@pytest.mark.parametrize(
    ("threshold", "virtual_time"),
    [
        (50, False),
        pytest.param(3, False, marks=pytest.mark.slow),
        pytest.param(3, True, marks=pytest.mark.slow),
    ],
)
def test_all_code_of_a_boot_is_proved_when_it_is_made_and_as_it_was_linked(
    compat: Compat, threshold: int, virtual_time: bool
) -> None:
    if (reason := _machine.translator_unavailable()) is not None:
        pytest.skip(reason)
    with domzero.boot(
        compat.image.kernel,
        ramdisk=compat.image.ramdisk,
        cmdline=compat.image.cmdline,
        memory_mib=128,
        seed=7,
        virtual_time=virtual_time,
    ) as guest:
        vcpu = guest.domain.vcpus[0]
        vcpu.hw.set_translator(threshold, prove=True)
        guest.console.send(COMMANDS)
        guest.wait(600)
        assert "reboot: System halted" in guest.console.text
        compat.check(guest.console.text, flags=virtual_time)
        blocks, instructions, accesses = vcpu.hw.prove_code()
        print(f"{blocks} blocks, {instructions} instructions of the host's, {accesses} accesses of guest memory")
    assert blocks > 3000 and accesses > 10_000
