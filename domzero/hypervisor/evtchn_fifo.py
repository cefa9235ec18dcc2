# SPDX-License-Identifier: Apache-2.0
"""Event channels, FIFO ABI: a word per port in pages of the guest, and 16 queues per vCPU that link these words.

Everything but the tails of the queues is in memory that the guest changes at the same time, also against the rules:
a word is changed with one atomic operation, what is read from it is never used as an index, and retries are bounded.
A guest that breaks the protocol loses events, nothing else.
"""

from domzero._machine import FrameType, XenRefused
from domzero.abi import event_channel as abi
from domzero.abi.errno import Errno
from domzero.abi.layout import offset_of, sizeof
from domzero.abi.xen import PAGE_SIZE
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.evtchn_channel import Channel, EventDomain, EventVcpu

WORDS_PER_PAGE = PAGE_SIZE // 4
MAX_PAGES = abi.EVTCHN_FIFO_NR_CHANNELS // WORDS_PER_PAGE
MAX_OFFSET = PAGE_SIZE - sizeof(abi.evtchn_fifo_control_block)
LINK_TRIES = 8

_MASKED = 1 << abi.EVTCHN_FIFO_MASKED
_LINKED = 1 << abi.EVTCHN_FIFO_LINKED
_BUSY = 1 << abi.EVTCHN_FIFO_BUSY
_LINK_MASK = (1 << abi.EVTCHN_FIFO_LINK_BITS) - 1
_HEAD = offset_of(abi.evtchn_fifo_control_block, "head")


class Fifo:
    """Where a domain sees its events once it has called EVTCHNOP_init_control."""

    max_ports = abi.EVTCHN_FIFO_NR_CHANNELS

    def __init__(self, domain: EventDomain) -> None:
        self._domain = domain
        self._shared = domain.host.shared
        self.array: list[int] = []
        """Frames with the words of 1024 ports each, in the guest's hands."""
        self.blocks: dict[int, int] = {}
        """Machine address of each vCPU's control block."""
        self._raised = 0
        """Ports below this have a word, and what was latched for want of one has been raised."""
        self.tails: dict[tuple[int, int], int] = {}
        """Last port of each queue, by vCPU and priority. The queue is empty if that word is not LINKED any more."""

    # --- what the guest gives

    def _take(self, gfn: int) -> int:
        try:
            self._domain.hw.get_ref(gfn, writable=True)
        except XenRefused as refused:
            raise XenError(Errno.EINVAL, f"frame {gfn:#x}") from refused
        self._domain.hw.host_mapped(gfn)
        return gfn

    def add_block(self, vcpu: EventVcpu, gfn: int, offset: int) -> None:
        """EVTCHNOP_init_control: the control block of a vCPU.

        :raises XenError: EINVAL when it has one, or the frame is not an ordinary one of the domain.
        """
        if vcpu.vcpu_id in self.blocks:
            raise XenError(Errno.EINVAL)
        self.blocks[vcpu.vcpu_id] = self._take(gfn) * PAGE_SIZE + offset

    def add_page(self, gfn: int) -> None:
        """EVTCHNOP_expand_array: words for the next 1024 ports. `raise_latched` is to follow.

        :raises XenError: ENOSPC, EINVAL.
        """
        if len(self.array) >= MAX_PAGES:
            raise XenError(Errno.ENOSPC)
        self.array.append(self._take(gfn))

    def raise_latched(self, at_once: int) -> bool:
        """Raises what became pending before its word was there, for up to `at_once` ports. True when all is done."""
        channels = self._domain.evtchn.channels
        end = min(len(self.array) * WORDS_PER_PAGE, len(channels))
        stop = min(self._raised + at_once, end)
        for channel in channels[self._raised : stop]:
            if channel.latched:
                channel.latched = False
                self._domain.evtchn.set_pending(channel.port)
        # Ports that are yet to become valid have their word from the beginning.
        self._raised = stop if stop < end else len(self.array) * WORDS_PER_PAGE
        return stop == end

    @property
    def frames(self) -> list[int]:
        """Frames of the guest that are written, once for each use."""
        return [*self.array, *(maddr // PAGE_SIZE for maddr in self.blocks.values())]

    def release(self) -> None:
        """Gives all frames back."""
        for mfn in self.frames:
            self._domain.hw.put_ref(mfn, writable=True)
        self.array.clear()
        self.blocks.clear()
        self.tails.clear()

    # --- events

    def word(self, port: int) -> int | None:
        """Machine address of a port's event word; None while the guest has given no page for it."""
        page = port // WORDS_PER_PAGE
        if page >= len(self.array):
            return None
        return self.array[page] * PAGE_SIZE + port % WORDS_PER_PAGE * 4

    def set_pending(self, channel: Channel) -> bool:
        """Makes an event pending and, unless masked or linked, puts it at the end of its queue. True if it was not
        pending before."""
        word = self.word(channel.port)
        if word is None:
            channel.latched = True
            return False
        block = self.blocks.get(channel.vcpu)
        if block is None:
            return False  # lost: the guest must not unmask a port before its vCPU has a control block
        was_pending = self._shared.test_and_set_bit(word, abi.EVTCHN_FIFO_PENDING)
        if not self._shared.u32(word) & _MASKED:
            self._link(channel, word, block)
        return not was_pending

    def _link(self, channel: Channel, word: int, block: int) -> None:
        if self._shared.test_and_set_bit(word, abi.EVTCHN_FIFO_LINKED):
            return
        port, priority = channel.port, channel.priority
        queue = (channel.vcpu, priority)
        # The port may be the tail of the queue it was in last: that queue is empty now, although the word is LINKED.
        if self.tails.get(channel.queue) == port:
            self.tails[channel.queue] = 0
        channel.queue = queue
        tail = self.tails.get(queue, 0)
        self.tails[queue] = port
        if tail and self._append(tail, port):
            return
        self._shared.write(block + _HEAD + 4 * priority, port.to_bytes(4, "little"))
        if not self._shared.test_and_set_bit(block, priority):
            self._domain.vcpus[channel.vcpu].mark_events_pending()

    def _append(self, tail: int, port: int) -> bool:
        """Links the word of `tail` to `port`. False when the guest has taken the tail off: the queue is empty."""
        word = self.word(tail)
        if word is None:
            return False
        for _ in range(LINK_TRIES):
            seen = self._shared.u32(word)
            if not seen & _LINKED:
                break
            if self._shared.compare_exchange_u32(word, seen, seen & ~(_BUSY | _LINK_MASK) | port) == seen:
                return True
            # BUSY asks the guest not to unmask, so that one of the next tries succeeds.
            self._shared.test_and_set_bit(word, abi.EVTCHN_FIFO_BUSY)
        self._shared.test_and_clear_bit(word, abi.EVTCHN_FIFO_BUSY)
        return False

    def clear_pending(self, channel: Channel) -> None:
        """Nobody who gets the port next must see an old event. A linked port stays linked: the guest takes it off."""
        word = self.word(channel.port)
        if word is not None:
            self._shared.test_and_clear_bit(word, abi.EVTCHN_FIFO_PENDING)

    def unmask(self, channel: Channel) -> None:
        """Clears the mask bit, and links the event if it is pending."""
        word = self.word(channel.port)
        if word is None:
            return
        self._shared.test_and_clear_bit(word, abi.EVTCHN_FIFO_MASKED)
        if self._shared.test_bit(word, abi.EVTCHN_FIFO_PENDING):
            self._domain.evtchn.set_pending(channel.port)

    def is_pending(self, channel: Channel) -> bool:
        """Whether the event is pending."""
        word = self.word(channel.port)
        return word is not None and self._shared.test_bit(word, abi.EVTCHN_FIFO_PENDING)

    def is_busy(self, channel: Channel) -> bool:
        """Whether a closed port is still in a queue: it must not be used for anything else yet."""
        word = self.word(channel.port)
        return word is not None and self._shared.test_bit(word, abi.EVTCHN_FIFO_LINKED)

    def set_priority(self, channel: Channel, priority: int) -> None:
        """EVTCHNOP_set_priority: the queue for later events; one that is linked stays where it is.

        :raises XenError: EINVAL.
        """
        if priority >= abi.EVTCHN_FIFO_MAX_QUEUES:
            raise XenError(Errno.EINVAL)
        channel.priority = priority

    def audit(self) -> list[str]:
        """Where the books are wrong. The words themselves are the guest's, and may be anything."""
        out = []
        channels = self._domain.evtchn.channels
        for queue, port in self.tails.items():
            if port and (port >= len(channels) or channels[port].queue != queue):
                out.append(f"queue {queue}: its tail {port} was put elsewhere")
        for vcpu_id, maddr in self.blocks.items():
            if vcpu_id >= len(self._domain.vcpus) or maddr % PAGE_SIZE > MAX_OFFSET:
                out.append(f"control block of vcpu {vcpu_id} at {maddr:#x}")
        for mfn in set(self.frames):
            info = self._domain.host.machine.frame_info(mfn)
            if info.owner != self._domain.domid or info.type != FrameType.WRITABLE:
                out.append(f"frame {mfn:#x} of the event array or a control block is {info.type} of {info.owner}")
        for channel in channels:
            if channel.latched and channel.port < self._raised:
                out.append(f"port {channel.port}: latched although it has a word")
        return out
