# SPDX-License-Identifier: Apache-2.0
"""Selectors that a guest gives: never with more privilege than a guest kernel has."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu

RPL_MASK = 3


def kernel_rpl(vcpu: "Vcpu") -> int:
    """The ring that guest kernels run in: 1 for 32-bit ones, 3 for 64-bit ones."""
    return 1 if vcpu.domain.is_32bit else 3


def fixup_selector(vcpu: "Vcpu", selector: int) -> int:
    """The selector with at least the guest kernel's RPL."""
    rpl = kernel_rpl(vcpu)
    return selector if selector & RPL_MASK >= rpl else selector & ~RPL_MASK | rpl
