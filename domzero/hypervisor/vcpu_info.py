# SPDX-License-Identifier: Apache-2.0
"""struct vcpu_info: where a vCPU sees that events wait for it, and masks them."""

from domzero import _machine
from domzero.abi.layout import layout_for, offset_of
from domzero.abi.xen import PAGE_SIZE, vcpu_info
from domzero.hypervisor.platform import Platform
from domzero.hypervisor.timekeeping import VCPU_INFO_SIZE


class VcpuInfo:
    """One vCPU's: in shared_info at first, in a frame of the guest once it has registered one.

    :param maddr: its machine address.
    """

    __slots__ = (
        "_hw",
        "_memory",
        "_pending_sel_at",
        "_pending_sel_size",
        "_shared",
        "maddr",
        "mfn",
        "pending_sel_maddr",
    )

    def __init__(self, hw: _machine.Vcpu, platform: Platform, maddr: int, *, is_32bit: bool) -> None:
        self._hw = hw
        self._memory = platform.memory
        self._shared = platform.shared
        self._pending_sel_at = offset_of(layout_for(vcpu_info, is_32bit), "evtchn_pending_sel")
        self._pending_sel_size = 4 if is_32bit else 8
        self.mfn: int | None = None
        """The guest's own frame, once it has registered one; it holds a writable reference."""
        self._set(maddr)
        self.upcall_mask = True  # a new vCPU starts with upcalls masked

    def _set(self, maddr: int) -> None:
        self.maddr = maddr
        self.pending_sel_maddr = maddr + self._pending_sel_at
        self._hw.set_vcpu_info(maddr)

    def move(self, mfn: int, offset: int) -> None:
        """VCPUOP_register_vcpu_info, checked already: it lives in the guest's frame from now on.

        Every event counts as pending then, so that none gets lost; the caller tells the vCPU.
        """
        old, new = self.maddr, mfn * PAGE_SIZE + offset
        self._memory[new : new + VCPU_INFO_SIZE] = bytes(self._memory[old : old + VCPU_INFO_SIZE])
        self.mfn = mfn
        self._set(new)
        self._shared.write(self.pending_sel_maddr, b"\xff" * self._pending_sel_size)

    @property
    def upcall_pending(self) -> bool:
        """evtchn_upcall_pending."""
        return bool(self._memory[self.maddr])

    def set_upcall_pending(self) -> None:
        """evtchn_upcall_pending = 1."""
        self._memory[self.maddr] = 1

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
