# SPDX-License-Identifier: Apache-2.0
"""iret: the machine does it."""

from typing import TYPE_CHECKING

from domzero.abi.xen import Hypercall
from domzero.hypervisor.errors import DomainCrash
from domzero.hypervisor.hypercalls.table import NoReturn, hypercall

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu


@hypercall(Hypercall.HYPERVISOR_iret, "", in_machine=True, note="the last call of a multicall that it is in")
def iret(vcpu: "Vcpu") -> int:
    """Comes here only from a multicall, which ends with it: its frame is where the stack pointer is."""
    reason = vcpu.hw.iret()
    if reason is not None:
        raise DomainCrash(reason)
    raise NoReturn
