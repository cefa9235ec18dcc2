# SPDX-License-Identifier: Apache-2.0
"""Event channels, 2-level ABI: a pending and a mask bit per port in shared_info, a selector in each vcpu_info."""

from domzero.abi.errno import Errno
from domzero.abi.layout import layout_for, offset_of
from domzero.abi.xen import shared_info
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.evtchn_channel import Channel, EventDomain


class TwoLevel:
    """Where a domain sees its events until it chooses the FIFO ABI."""

    def __init__(self, domain: EventDomain) -> None:
        self._domain = domain
        self._shared = domain.host.shared
        layout = layout_for(shared_info, domain.is_32bit)
        self._pending = domain.shared_info_maddr + offset_of(layout, "evtchn_pending")
        self._mask = domain.shared_info_maddr + offset_of(layout, "evtchn_mask")
        self._word_shift = 5 if domain.is_32bit else 6
        self.max_ports = 1 << 2 * self._word_shift

    @property
    def frames(self) -> list[int]:
        """Frames of the guest that are written: none, shared_info is the hypervisor's."""
        return []

    def set_pending(self, channel: Channel) -> bool:
        """Makes an event pending and, unless masked, tells the vCPU. True if it was not pending before."""
        if self._shared.test_and_set_bit(self._pending, channel.port):
            return False
        if not self._shared.test_bit(self._mask, channel.port):
            self._select(channel)
        return True

    def _select(self, channel: Channel) -> None:
        vcpu = self._domain.vcpus[channel.vcpu]
        if not self._shared.test_and_set_bit(vcpu.info.pending_sel_maddr, channel.port >> self._word_shift):
            vcpu.mark_events_pending()

    def clear_pending(self, channel: Channel) -> None:
        """Nobody who gets the port next must see an old event."""
        self._shared.test_and_clear_bit(self._pending, channel.port)

    def unmask(self, channel: Channel) -> None:
        """Clears the mask bit, and notifies if the event is pending."""
        port = channel.port
        if self._shared.test_and_clear_bit(self._mask, port) and self._shared.test_bit(self._pending, port):
            self._select(channel)

    def is_pending(self, channel: Channel) -> bool:
        """Whether the event is pending."""
        return self._shared.test_bit(self._pending, channel.port)

    def is_busy(self, _channel: Channel) -> bool:
        """Whether the guest may still see the port although it was closed."""
        return False

    def set_priority(self, _channel: Channel, _priority: int) -> None:
        """Priorities are the FIFO ABI's.

        :raises XenError: ENOSYS.
        """
        raise XenError(Errno.ENOSYS)

    def audit(self) -> list[str]:
        """What is wrong: nothing can be."""
        return []
