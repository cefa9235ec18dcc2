"""iret: the machine does it."""

from typing import TYPE_CHECKING

from domzero.abi.errno import Errno
from domzero.abi.xen import Hypercall
from domzero.hypervisor.hypercalls.table import hypercall

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu


@hypercall(Hypercall.HYPERVISOR_iret, "", in_machine=True, note="not inside a multicall")
def iret(_vcpu: "Vcpu") -> int:
    """Comes here only from a multicall, where no stack frame belongs to it."""
    return -Errno.ENOSYS
