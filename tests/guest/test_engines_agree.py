# SPDX-License-Identifier: Apache-2.0
"""A whole boot of Debian's on each engine, with virtual time and one seed: the same, instruction for instruction; of
64-bit and of 32-bit programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import zip_longest
from zlib import crc32

import pytest
from compat_program import COMMAND, Compat

import domzero
from domzero import _machine
from domzero.dom0.images.cache import Image
from domzero.hypervisor import vcpu_thread
from domzero.hypervisor.vcpu import Vcpu

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

RFLAGS_ARITHMETIC = 0x8D5
"""What instructions may leave undefined."""

ENGINES: dict[str, Callable[[Vcpu], None]] = {
    "interpreter": lambda vcpu: vcpu.hw.set_translator(0),
    "translator": lambda vcpu: vcpu.hw.set_translator(50),
    "translator of nearly all, in a small cache": lambda vcpu: vcpu.hw.set_translator(2, 1 << 20),
}
"""The first is the oracle of the others."""
COMMANDS = f"{COMMAND}; cat /proc/interrupts; head -c 64 /dev/urandom | md5sum; poweroff\n"


@dataclass
class Run:
    """A boot: what somebody outside sees of it, and the registers at each exit to the hypervisor."""

    console: str = ""
    instructions: int = 0
    exits: list[tuple[int, str, int, int]] = field(default_factory=list)
    """Instructions before it, its class, rip, and a sum of the other registers."""

    def note(self, vcpu: Vcpu, exit_: _machine.Exit) -> None:
        registers = vcpu.hw.registers()
        registers["rflags"] &= ~RFLAGS_ARITHMETIC
        digest = crc32(repr(sorted(registers.items())).encode())
        self.exits.append((vcpu.hw.instructions, type(exit_).__name__, registers["rip"], digest))


def booted(image: Image, engine: str | None = None) -> domzero.Guest:
    return domzero.boot(
        image.kernel,
        ramdisk=image.ramdisk,
        cmdline=image.cmdline,
        memory_mib=128,
        seed=7,
        engine=engine,
        virtual_time=True,
    )


def boot(image: Image, engine: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run()

    def handle_exit(vcpu: Vcpu, exit_: _machine.Exit) -> None:
        run.note(vcpu, exit_)
        original(vcpu, exit_)

    with monkeypatch.context() as patched:
        original = vcpu_thread.handle_exit
        patched.setattr(vcpu_thread, "handle_exit", handle_exit)
        with booted(image) as guest:
            for vcpu in guest.domain.vcpus:
                ENGINES[engine](vcpu)
            guest.console.send(COMMANDS)
            end = guest.wait(600)
            run.console = guest.console.text
            run.instructions = end.instructions
    return run


@pytest.fixture(scope="module")
def oracle(compat: Compat) -> Run:
    with pytest.MonkeyPatch.context() as monkeypatch:
        run = boot(compat.image, next(iter(ENGINES)), monkeypatch)
    compat.check(run.console, flags=True)
    assert "reboot: System halted" in run.console
    assert len(run.exits) > 1000
    return run


@pytest.mark.parametrize("engine", list(ENGINES)[1:])
def test_debian_boots_on_each_engine_as_on_the_interpreter_instruction_for_instruction(
    engine: str, oracle: Run, compat: Compat, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (reason := _machine.translator_unavailable()) is not None:
        pytest.skip(reason)
    run = boot(compat.image, engine, monkeypatch)
    pairs = enumerate(zip_longest(run.exits, oracle.exits))
    first = next((f"exit {n}: {mine} and the oracle {its}" for n, (mine, its) in pairs if mine != its), None)
    assert first is None
    assert run.instructions == oracle.instructions
    assert run.console == oracle.console


def test_debian_boots_with_each_slice_on_both_engines(compat: Compat) -> None:
    if (reason := _machine.translator_unavailable()) is not None:
        pytest.skip(reason)
    with booted(compat.image, engine="check") as guest:
        guest.console.send(COMMANDS)
        end = guest.wait(800)
        compared, difference = guest.domain.vcpus[0].hw.checked()
        assert difference is None
        assert "reboot: System halted" in guest.console.text
        compat.check(guest.console.text, flags=True)
        assert compared > 0.9 * end.instructions
