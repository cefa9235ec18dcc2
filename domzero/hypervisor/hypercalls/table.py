# SPDX-License-Identifier: Apache-2.0
"""The table of hypercalls: who answers what, with which arguments, and what is missing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from domzero._machine import GuestFault, Preempted, XenRefused
from domzero.abi.errno import Errno
from domzero.abi.layout import Wire, sizeof
from domzero.abi.xen import Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.errors import XenError

if TYPE_CHECKING:
    from domzero._machine import Register
    from domzero.hypervisor.vcpu import Vcpu

Handler = Callable[..., int | None]


class State(Enum):
    """How far an operation is there."""

    DONE = "yes"
    REFUSED = "refused"
    """As Xen refuses it to an unprivileged PV domain."""
    MISSING = "missing"


class Continuation(Exception):
    """A long operation stops here, so that events are delivered, and goes on with other arguments.

    `Preempted` of the machine does the same with the arguments as they are: what it has done by then is kept there. So
    a handler changes nothing of its own before it has the machine's answer.
    """

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.new_args = args


class NoReturn(Exception):
    """The registers are as the guest wants them (iret in a multicall): no result is stored."""


@dataclass(slots=True)
class SubOperation:
    """One command of an operation."""

    name: str
    state: State
    handler: Handler | None = None
    struct: type[Wire] | None = None
    copy_out: bool = False
    by_address: bool = False
    """The handler is given where `struct` is, and copies it itself."""
    errno: Errno | None = None
    note: str = ""
    reads: tuple[int, int] = (0, 0)
    """Bytes that Xen copies in before it refuses: of 64-bit and of 32-bit guests."""


@dataclass(slots=True)
class Operation:
    """One hypercall.

    :param signature: a letter per argument: `u` unsigned int, `i` int, `l` unsigned long, `p` guest pointer,
        `q` uint64_t (two registers of a 32-bit guest).
    """

    nr: Hypercall
    signature: str
    state: State = State.MISSING
    handler: Handler | None = None
    subs: dict[int, SubOperation] = field(default_factory=dict)
    commands: type[IntEnum] | None = None
    note: str = ""
    errno: Errno | None = None
    before: Callable[["Vcpu", list[int]], int] | None = None
    """Checks (and cuts) the arguments before the command is looked up: what is not 0 is the answer."""
    command_bits: int = 0
    """Low bits of the first argument that are the command, when the others say where a continuation goes on."""
    check: Handler | None = None
    """Called with the arguments before the command is looked at; raises XenError."""
    in_machine: bool = False
    """Answered by the machine without coming here, unless the domain is traced."""

    name: str = field(init=False)
    """Xen's name, without HYPERVISOR_."""
    _masks: tuple[int, ...] = field(init=False)
    """What a 64-bit guest's arguments are cut to."""

    def __post_init__(self) -> None:
        self.name = self.nr.name.removeprefix("HYPERVISOR_")
        self._masks = tuple(0xFFFFFFFF if letter in "ui" else (1 << 64) - 1 for letter in self.signature)

    def sub(
        self,
        command: IntEnum,
        struct: type[Wire] | None = None,
        *,
        copy_out: bool = False,
        by_address: bool = False,
        note: str = "",
    ) -> Callable[[Handler], Handler]:
        """Registers the handler of a command.

        With `struct`, the structure that the last argument points to is copied in once and given to the handler in
        its place, and copied out when the handler has succeeded if `copy_out` says so. With `by_address` that is the
        handler's affair, and `struct` is for whoever looks at the call.
        """

        def register(handler: Handler) -> Handler:
            row = SubOperation(command.name, State.DONE, handler, struct, copy_out, by_address, note=note)
            self._add(command, row)
            return handler

        return register

    def refuse(
        self, errno: Errno, *commands: IntEnum, note: str = "", reads: type[Wire] | tuple[int, int] = (0, 0)
    ) -> None:
        """Commands that Xen does not let an unprivileged PV domain use.

        :param reads: what Xen copies in before it refuses, so that a bad address is -EFAULT.
        """
        sizes = reads if isinstance(reads, tuple) else (sizeof(reads), sizeof(reads.compat))
        for command in commands:
            self._add(command, SubOperation(command.name, State.REFUSED, errno=errno, note=note, reads=sizes))

    def _add(self, command: IntEnum, sub: SubOperation) -> None:
        if int(command) in self.subs:
            raise ValueError(f"{command.name} is registered twice")
        self.subs[int(command)] = sub

    def missing(self) -> list[str]:
        """Names of commands in the header that nobody has registered."""
        return [c.name for c in self.commands or () if int(c) not in self.subs]

    def truncate(self, args: tuple[int, ...], is_32bit: bool) -> list[int]:
        """The arguments as the C prototype sees them."""
        if not is_32bit and "i" not in self.signature:
            return [value & mask for value, mask in zip(args, self._masks, strict=False)]
        result = []
        at = 0
        for letter in self.signature:
            value = args[at]
            at += 1
            if letter == "q" and is_32bit:
                value = value & 0xFFFFFFFF | (args[at] & 0xFFFFFFFF) << 32
                at += 1
            elif is_32bit or letter in "ui":
                value &= 0xFFFFFFFF
            if letter == "i" and value & 0x80000000:
                value -= 1 << 32
            result.append(value)
        return result

    def call(self, vcpu: "Vcpu", args: list[int]) -> int:
        """Answers one call; `args` are truncated already."""
        if not self.subs:
            if self.handler is None:
                return self._unimplemented(vcpu, self.name)
            return self.handler(vcpu, *args) or 0
        if self.before is not None and (rc := self.before(vcpu, args)):
            return rc
        if self.command_bits:
            args[:1] = [args[0] & ((1 << self.command_bits) - 1), args[0] >> self.command_bits]
        if self.check is not None:
            self.check(vcpu, *args)
        sub = self.subs.get(args[0])
        if sub is None:
            return self._unimplemented(vcpu, f"{self.name} command {args[0]}")
        return self._call_sub(vcpu, sub, args)

    def _call_sub(self, vcpu: "Vcpu", sub: SubOperation, args: list[int]) -> int:
        if sub.handler is None:
            if sub.errno is None:
                return self._unimplemented(vcpu, f"{self.name} {sub.name}")
            if size := sub.reads[vcpu.domain.is_32bit]:
                guest_memory.read(vcpu, args[-1], size)
            return -sub.errno
        rest = args[1:]
        if sub.struct is None or sub.by_address:
            return sub.handler(vcpu, *rest) or 0
        va = rest.pop()
        value = guest_memory.copy_in(vcpu, sub.struct, va)
        rc = sub.handler(vcpu, *rest, value) or 0
        if sub.copy_out:
            guest_memory.write(vcpu, va, bytes(value))
        return rc

    def _unimplemented(self, vcpu: "Vcpu", what: str) -> int:
        if self.state is State.REFUSED and self.errno is not None:
            return -self.errno
        vcpu.domain.log_once(f"hypercall {what}", f"unimplemented hypercall: {what}")
        return -Errno.ENOSYS


TABLE: dict[int, Operation] = {}


def operation(nr: Hypercall, signature: str, commands: type[IntEnum] | None = None, *, note: str = "") -> Operation:
    """Makes the row of a hypercall whose first argument is a command."""
    if nr in TABLE:
        raise ValueError(f"{nr.name} is registered twice")
    TABLE[nr] = Operation(nr, signature, State.DONE, commands=commands, note=note)
    return TABLE[nr]


def hypercall(
    nr: Hypercall, signature: str, *, note: str = "", in_machine: bool = False
) -> Callable[[Handler], Handler]:
    """Registers the handler of a hypercall without commands."""

    def register(handler: Handler) -> Handler:
        row = operation(nr, signature, note=note)
        row.handler = handler
        row.in_machine = in_machine
        return handler

    return register


def refused(nr: Hypercall, errno: Errno, *, note: str = "") -> None:
    """Registers a hypercall that Xen does not let an unprivileged PV domain use at all."""
    row = operation(nr, "", note=note)
    row.state = State.REFUSED
    row.errno = errno


def answer(vcpu: "Vcpu", row: Operation, args: list[int]) -> int:
    """Answers a call of `row` as if nobody intercepted it; for those who do. Continuations go through."""
    try:
        return row.call(vcpu, args)
    except Preempted:
        raise Continuation from None
    except (XenError, XenRefused) as error:
        return -error.errno
    except GuestFault:
        return -Errno.EFAULT


def call(vcpu: "Vcpu", nr: int, args: tuple[int, ...]) -> int:
    """Answers one hypercall: its result, or -errno. Continuations go through."""
    row = TABLE.get(nr)
    if row is None:
        vcpu.domain.log_once(f"hypercall {nr}", f"unimplemented hypercall {nr}")
        return -Errno.ENOSYS
    name = row.name
    vcpu.domain.hypercall_counts[name] += 1
    try:
        cut = row.truncate(args, vcpu.domain.is_32bit)
        rc = row.call(vcpu, cut) if vcpu.domain.intercept is None else vcpu.domain.intercept(vcpu, row, cut)
    except Preempted:
        raise Continuation from None
    except (XenError, XenRefused) as error:
        rc = -error.errno
    except GuestFault:
        rc = -Errno.EFAULT
    if vcpu.domain.trace is not None:
        vcpu.domain.trace(vcpu, name, args, rc)
    return rc


_ARGUMENTS_64: tuple["Register", ...] = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
_ARGUMENTS_32: tuple["Register", ...] = ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp")


def dispatch(vcpu: "Vcpu", nr: int, args: tuple[int, ...]) -> None:
    """Answers the hypercall a vCPU has come out with."""
    if vcpu.domain.is_32bit:
        nr &= 0xFFFFFFFF
    try:
        rc = call(vcpu, nr, args)
    except Continuation as later:
        names = _ARGUMENTS_32 if vcpu.domain.is_32bit else _ARGUMENTS_64
        for name, value in zip(names, later.new_args, strict=False):
            vcpu.hw.set_reg(name, value)
        vcpu.hw.hypercall_restart()
        return
    except NoReturn:
        return
    vcpu.hw.hypercall_return(rc)
