# SPDX-License-Identifier: Apache-2.0
"""struct vcpu_info: where a vCPU sees that events wait for it, and masks them."""

from domzero import _machine
from domzero.abi.xen import PAGE_SIZE
from domzero.hypervisor.platform import Platform


class VcpuInfo:
    """One vCPU's: in shared_info at first, in a frame of the guest once it has registered one.

    :param maddr: its machine address.
    """

    __slots__ = ("_events", "_hw", "_memory", "_vcpu_id", "maddr", "mfn")

    def __init__(
        self, hw: _machine.Vcpu, events: _machine.EventChannels, vcpu_id: int, platform: Platform, maddr: int
    ) -> None:
        self._hw = hw
        self._events = events
        self._vcpu_id = vcpu_id
        self._memory = platform.memory
        self.mfn: int | None = None
        """The guest's own frame, once it has registered one; it holds a writable reference."""
        self.maddr = maddr
        self._hw.set_vcpu_info(maddr)
        self.upcall_mask = True  # a new vCPU starts with upcalls masked

    def move(self, mfn: int, offset: int) -> None:
        """VCPUOP_register_vcpu_info, checked already: it lives in the guest's frame from now on.

        Every event counts as pending then, so that none gets lost, and the vCPU is told.
        """
        self.mfn = mfn
        self.maddr = mfn * PAGE_SIZE + offset
        self._hw.set_vcpu_info(self.maddr)
        self._events.move_info(self._vcpu_id, self.maddr)

    @property
    def upcall_mask(self) -> bool:
        """evtchn_upcall_mask."""
        return bool(self._memory[self.maddr + 1])

    @upcall_mask.setter
    def upcall_mask(self, masked: bool) -> None:
        self._memory[self.maddr + 1] = int(masked)

    @property
    def upcall_is_due(self) -> bool:
        """Whether the guest is to be entered at its event callback."""
        memory, maddr = self._memory, self.maddr
        return bool(memory[maddr]) and not memory[maddr + 1]
