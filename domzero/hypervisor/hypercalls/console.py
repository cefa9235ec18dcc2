"""console_io: the emergency console."""

from typing import TYPE_CHECKING

from domzero.abi.errno import Errno
from domzero.abi.xen import ConsoleIo, Hypercall
from domzero.hypervisor import guest_memory
from domzero.hypervisor.hypercalls.table import operation

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

MAX_WRITE = 64 * 1024
"""Bytes taken per call; the rest is dropped."""

console_io = operation(
    Hypercall.HYPERVISOR_console_io,
    "uup",
    ConsoleIo,
    note="write is for all, as in verbose Xen",
)


@console_io.sub(ConsoleIo.CONSOLEIO_write)
def write(vcpu: "Vcpu", count: int, buffer: int) -> int:
    """Bytes for whoever watches the domain."""
    if count >> 31:
        return -Errno.EINVAL
    data = guest_memory.read(vcpu, buffer, min(count, MAX_WRITE))
    if vcpu.domain.console_sink is not None:
        vcpu.domain.console_sink(data)
    return 0


console_io.refuse(Errno.EPERM, ConsoleIo.CONSOLEIO_read, note="the console's input is Domain 0's")
