# SPDX-License-Identifier: Apache-2.0
"""Hooks: a program's functions that see a guest's hypercalls and exceptions, and may answer hypercalls themselves.

A hook runs in the thread of the vCPU, in the middle of its hypercall, with the hypervisor's big lock held: nothing else
of the guest is answered meanwhile. Whatever it raises pauses the guest and is raised in the program's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from domzero._machine import GuestFault
from domzero.abi.layout import Wire
from domzero.abi.xen import Hypercall
from domzero.errors import NotMapped
from domzero.guest.names import EXCEPTIONS, find_command, find_hypercall
from domzero.guest.registers import GuestVcpu
from domzero.hypervisor import guest_memory
from domzero.hypervisor.hypercalls.table import TABLE, Continuation, Operation, answer
from domzero.hypervisor.vcpu import Vcpu

if TYPE_CHECKING:
    from domzero import _machine

_RESULT_MAX = (1 << 64) - 1


@dataclass(slots=True, frozen=True)
class Verdict:
    """What a hook before a hypercall says: `Call.proceed()` or `Call.answer(result)`."""

    result: int | None


class Call:
    """A hypercall that the guest makes.

    :ivar vcpu: who makes it.
    :ivar name: Xen's name, such as "event_channel_op".
    :ivar args: the arguments, as numbers of their C types' widths. A hook before the hypercall may change them: what
        is done then is done with these; the guest's registers stay.
    :ivar result: what it returned (negative: -errno), once that is known.
    """

    __slots__ = ("_row", "_vcpu", "args", "name", "result", "vcpu")

    def __init__(self, handle: GuestVcpu, vcpu: Vcpu, row: Operation, args: list[int]) -> None:
        self._row = row
        self._vcpu = vcpu
        self.vcpu = handle
        self.name = row.name
        self.args = args
        self.result: int | None = None

    @property
    def command(self) -> str | None:
        """The name of the command ("EVTCHNOP_send"), for hypercalls that have commands; a number without a name."""
        number = command_of(self._row, self.args)
        if number is None:
            return None
        sub = self._row.subs.get(number)
        if sub is not None:
            return sub.name
        return next((c.name for c in self._row.commands or () if int(c) == number), str(number))

    @property
    def struct(self) -> Wire | None:
        """A copy of the structure that the last argument points to, for commands that have one (`call.struct.port`).
        The guest's own is in its memory: `guest.write(call.args[-1], bytes(struct))`.

        :raises NotMapped: it points nowhere.
        """
        number = command_of(self._row, self.args)
        sub = self._row.subs.get(number) if number is not None else None
        if sub is None or sub.struct is None:
            return None
        try:
            return guest_memory.copy_in(self._vcpu, sub.struct, self.args[-1])
        except GuestFault:
            raise NotMapped(f"{self.name} {sub.name}: nothing is mapped at {self.args[-1]:#x}") from None

    def proceed(self) -> Verdict:
        """The hypercall is to be done, with `args` as they are now; what a hook that returns None says, too."""
        return Verdict(None)

    def answer(self, result: int) -> Verdict:
        """The hypercall is not done: the guest sees `result` (an error is -errno: `-Errno.EPERM`)."""
        if not -1 << 63 <= result <= _RESULT_MAX:
            raise ValueError(f"{result} is no result of a hypercall")
        return Verdict(result if result < 1 << 63 else result - (1 << 64))

    def __str__(self) -> str:
        command = self.command
        args = [f"{value:#x}" for value in self.args]
        if command is not None:
            args[0] = command
        end = "" if self.result is None else f" = {self.result}"
        return f"{self.name}({', '.join(args)}){end}"

    def __repr__(self) -> str:
        return f"<{self.vcpu!r} {self}>"


@dataclass(slots=True, frozen=True)
class Trap:
    """An exception that was delivered to the guest kernel: the vCPU is at the first instruction of its handler.

    :param rip: where it came from: the instruction at fault, or the one after for #BP, #OF and single steps.
    :param cr2: the address, of a page fault.
    :param in_kernel: whether the guest's kernel caused it, not one of its applications.
    """

    vcpu: GuestVcpu
    vector: int
    error_code: int | None
    cr2: int
    rip: int
    in_kernel: bool

    @property
    def name(self) -> str:
        """The processor manuals' name, such as "#PF"."""
        return EXCEPTIONS.get(self.vector, f"vector {self.vector}")

    def __str__(self) -> str:
        code = "" if self.error_code is None else f" [{self.error_code:#x}]"
        where = f" for {self.cr2:#x}" if self.name == "#PF" else ""
        return f"{self.name}{code}{where} at {self.rip:#x}"


Before = Callable[[Call], "Verdict | None"]
After = Callable[[Call], None]
OnTrap = Callable[[Trap], None]
H = TypeVar("H", bound="Callable[..., object]")


def command_of(row: Operation, args: list[int]) -> int | None:
    """The command among the arguments, if the hypercall has commands."""
    if not args or not (row.subs or row.commands):
        return None
    return args[0] & (1 << row.command_bits) - 1 if row.command_bits else args[0]


@dataclass(slots=True, frozen=True)
class Which:
    """Which hypercalls are meant: all, those of a number, or one command."""

    row: Operation | None
    command: int | None

    @classmethod
    def of(cls, name: str | None, command: str | None) -> Which:
        """From Xen's names; ConfigError for what does not exist."""
        if name is None:
            return cls(None, None)
        row = find_hypercall(name)
        return cls(row, None if command is None else find_command(row, command))

    def matches(self, row: Operation, args: list[int]) -> bool:
        """Whether a call is meant."""
        if self.row is not None and self.row is not row:
            return False
        return self.command is None or self.command == command_of(row, args)

    @property
    def needs_all(self) -> bool:
        """Whether some of them would be answered by the machine without coming up."""
        rows = TABLE.values() if self.row is None else [self.row]
        return any(row.in_machine and row.nr is not Hypercall.HYPERVISOR_iret for row in rows)


@dataclass(slots=True, frozen=True)
class _Hook(Generic[H]):
    which: Which
    function: H


class Owner(Protocol):
    """What hooks need of their guest."""

    def handle(self, vcpu: Vcpu) -> GuestVcpu:
        """The program's view of a vCPU."""

    def fail(self, error: BaseException) -> None:
        """A hook has raised: the guest is paused, the program told."""

    def stop(self, at: Call) -> None:
        """That for which the program waits is there: the guest is paused."""


class Hooks:
    """All hooks of a guest, called from its vCPUs' threads with the big lock held."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.before: list[_Hook[Before]] = []
        self.after: list[_Hook[After]] = []
        self.traps: list[tuple[int | None, OnTrap]] = []
        self.until: Which | None = None
        """Before which hypercall the guest is to stop."""
        self._passing: dict[int, tuple[int, int]] = {}

    def add_before(self, which: Which, function: Before) -> None:
        """A hook before hypercalls."""
        self.before.append(_Hook(which, function))

    def add_after(self, which: Which, function: After) -> None:
        """A hook after hypercalls."""
        self.after.append(_Hook(which, function))

    def remove(self, function: Callable[..., object]) -> None:
        """Takes a function out of all of them."""
        self.before = [hook for hook in self.before if hook.function is not function]
        self.after = [hook for hook in self.after if hook.function is not function]
        self.traps = [hook for hook in self.traps if hook[1] is not function]

    @property
    def sees_hypercalls(self) -> bool:
        """Whether hypercalls have to be intercepted at all."""
        return bool(self.before or self.after or self.until)

    @property
    def needs_all(self) -> bool:
        """Whether the machine must not answer hypercalls by itself."""
        whiches = [hook.which for hook in self.before] + [hook.which for hook in self.after]
        return any(which.needs_all for which in [*whiches, *([self.until] if self.until else [])])

    def wants(self, vector: int) -> bool:
        """Whether somebody looks at an exception."""
        return any(wanted is None or wanted == vector for wanted, _ in self.traps)

    def intercept(self, vcpu: Vcpu, row: Operation, args: list[int]) -> int:
        """`Domain.intercept`."""
        if self.until is not None and self.until.matches(row, args) and self._stops_here(vcpu):
            self._owner.stop(Call(self._owner.handle(vcpu), vcpu, row, args))
            raise Continuation  # made again, when the guest goes on
        before = [hook.function for hook in self.before if hook.which.matches(row, args)]
        after = [hook.function for hook in self.after if hook.which.matches(row, args)]
        if not before and not after:
            return answer(vcpu, row, args)
        call = Call(self._owner.handle(vcpu), vcpu, row, args)
        rc: int | None = None
        for function in before:
            try:
                verdict = function(call)
            except BaseException as error:  # noqa: BLE001 - raised again in the program's thread
                self._owner.fail(error)
                raise Continuation from None
            if verdict is not None and verdict.result is not None:
                rc = verdict.result
                break
        if rc is None:
            rc = answer(vcpu, row, list(call.args))
        call.result = rc
        for seen in after:
            try:
                seen(call)
            except BaseException as error:  # noqa: BLE001 - raised again in the program's thread
                self._owner.fail(error)
        return rc

    def _stops_here(self, vcpu: Vcpu) -> bool:
        """Whether a call is the one before which the guest stopped already."""
        here = vcpu.hw.get_reg("rip"), vcpu.hw.get_reg("rsp")
        if self._passing.get(vcpu.vcpu_id) == here:
            del self._passing[vcpu.vcpu_id]
            return False
        self._passing[vcpu.vcpu_id] = here
        return True

    def on_trap(self, vcpu: Vcpu, exit_: _machine.ExitTrap) -> None:
        """`Domain.on_trap`."""
        handle = self._owner.handle(vcpu)
        trap = Trap(handle, exit_.vector, exit_.error_code, exit_.cr2, exit_.rip, exit_.in_kernel)
        for vector, function in list(self.traps):
            if vector is None or vector == trap.vector:
                try:
                    function(trap)
                except BaseException as error:  # noqa: BLE001 - raised again in the program's thread
                    self._owner.fail(error)
