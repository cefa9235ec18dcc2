"""The hypercall table; one module per operation."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domzero.hypervisor.vcpu import Vcpu


def dispatch(vcpu: "Vcpu", nr: int, args: tuple[int, ...]) -> None:
    """Answers one hypercall."""
    vcpu.hw.hypercall_return(-38)
