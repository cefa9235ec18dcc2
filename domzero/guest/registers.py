# SPDX-License-Identifier: Apache-2.0
"""A guest's virtual CPUs, and their registers by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast, overload

from domzero.hypervisor.vcpu import Vcpu

if TYPE_CHECKING:
    from domzero import _machine


class _Register:
    """One register: read and written as an attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = cast("_machine.Register", name)

    @overload
    def __get__(self, registers: None, owner: type) -> _Register: ...
    @overload
    def __get__(self, registers: Registers, owner: type) -> int: ...
    def __get__(self, registers: Registers | None, owner: type) -> int | _Register:
        return self if registers is None else registers._hw().get_reg(self._name)

    def __set__(self, registers: Registers, value: int) -> None:
        if not 0 <= value < 1 << 64:
            raise ValueError(f"{self._name}: {value:#x} does not fit into 64 bits")
        registers._hw().set_reg(self._name, value)


class Registers:
    """The registers of a vCPU that is not running: unsigned numbers, read and written by name.

    A 32-bit guest has the low halves of rax to rdi. `fs_base`, `gs_base_kernel` and `gs_base_user` are the segment
    bases, `cr2` is the address of the last page fault as the guest sees it. What a register does not hold (a selector
    of more than 16 bits) is cut.
    """

    __slots__ = ("_hw",)

    rax, rbx, rcx, rdx = _Register(), _Register(), _Register(), _Register()
    rsi, rdi, rbp, rsp = _Register(), _Register(), _Register(), _Register()
    r8, r9, r10, r11 = _Register(), _Register(), _Register(), _Register()
    r12, r13, r14, r15 = _Register(), _Register(), _Register(), _Register()
    rip, rflags = _Register(), _Register()
    cs, ss, ds, es, fs, gs = _Register(), _Register(), _Register(), _Register(), _Register(), _Register()
    fs_base, gs_base_kernel, gs_base_user = _Register(), _Register(), _Register()
    cr2, mxcsr = _Register(), _Register()

    def __init__(self, hw: Callable[[], _machine.Vcpu]) -> None:
        self._hw = hw

    def as_dict(self) -> dict[str, int]:
        """All of them."""
        return self._hw().registers()

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.as_dict().items())

    def __str__(self) -> str:
        values = [f"{name:>14} {value:016x}" for name, value in self.as_dict().items()]
        return "\n".join("".join(values[at : at + 4]) for at in range(0, len(values), 4))


class GuestVcpu:
    """One virtual CPU of a guest.

    :param stopped: raises `GuestRunning` unless this vCPU may be looked at now.
    """

    def __init__(self, vcpu: Vcpu, stopped: Callable[[Vcpu], None]) -> None:
        self._vcpu = vcpu
        self._stopped = stopped
        self.regs = Registers(self.hw)
        """Its registers (`guest.vcpus[0].regs.rip`); only while the guest is paused, or from a hook of this vCPU."""

    def hw(self) -> _machine.Vcpu:
        """The machine's vCPU (`domzero/_machine.pyi`), for what has no name here.

        :raises GuestRunning: it runs.
        """
        self._stopped(self._vcpu)
        return self._vcpu.hw

    @property
    def id(self) -> int:
        """Its number, from 0."""
        return self._vcpu.vcpu_id

    @property
    def instructions(self) -> int:
        """How many instructions it has executed."""
        return self.hw().instructions

    @property
    def in_kernel(self) -> bool:
        """Whether it is in the guest's kernel, not in one of its applications."""
        return self.hw().guest_kernel

    @property
    def state(self) -> str:
        """What it does: "offline", "blocked" (it waits for an event) or "runnable"."""
        if self._vcpu.is_down:
            return "offline"
        return "blocked" if self._vcpu.is_blocked else "runnable"

    def __repr__(self) -> str:
        return repr(self._vcpu)
