# SPDX-License-Identifier: Apache-2.0
"""console_io: the emergency console."""

from typing import TYPE_CHECKING

from domzero.abi.errno import Errno
from domzero.abi.xen import ConsoleIo, Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.hypercalls.table import Continuation, operation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

WRITE_AT_ONCE = 4096
"""Bytes per round; after one the guest gets its events, and others their turn."""

console_io = operation(
    Hypercall.HYPERVISOR_console_io,
    "uup",
    ConsoleIo,
    note="write is for all, as in verbose Xen",
)


def _check(_vcpu: "Vcpu", command: int, *_args: int) -> None:
    """Permission comes before anything else, and goes by the command."""
    if command != ConsoleIo.CONSOLEIO_write:
        raise XenError(Errno.EPERM)


console_io.check = _check


@console_io.sub(ConsoleIo.CONSOLEIO_write)
def write(vcpu: "Vcpu", count: int, buffer: int) -> int:
    """Bytes for whoever watches the domain."""
    now = min(count, WRITE_AT_ONCE)
    data = guest_memory.read(vcpu, buffer, now)
    if vcpu.domain.console_sink is not None:
        vcpu.domain.console_sink(data)
    if count > now:
        raise Continuation(ConsoleIo.CONSOLEIO_write, count - now, buffer + now)
    return 0


console_io.refuse(Errno.EPERM, ConsoleIo.CONSOLEIO_read, note="the console's input is Domain 0's")
