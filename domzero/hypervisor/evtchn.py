# SPDX-License-Identifier: Apache-2.0
"""Event channels: ports, bindings, and channels whose other end is host code.

How a guest sees pending events is `evtchn_2l`'s and `evtchn_fifo`'s business.
"""

import heapq
from collections.abc import Callable
from typing import Protocol

from domzero.abi.errno import Errno
from domzero.abi.event_channel import EVTCHN_FIFO_PRIORITY_DEFAULT, EvtchnStat
from domzero.abi.xen import NR_VIRQS, Virq
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.evtchn_2l import TwoLevel
from domzero.hypervisor.evtchn_channel import BackendPort, Channel, EventDomain, EventVcpu
from domzero.hypervisor.evtchn_fifo import MAX_OFFSET, WORDS_PER_PAGE, Fifo

BUCKET = 64
"""Ports become valid in steps of this many."""
PER_VCPU_VIRQS = frozenset({Virq.VIRQ_TIMER, Virq.VIRQ_DEBUG, Virq.VIRQ_XENOPROF, Virq.VIRQ_XENPMU})


class EventChannels:
    """All ports of one domain. Every method needs `host.lock`."""

    def __init__(self, domain: EventDomain) -> None:
        self.domain = domain
        self.ops: TwoLevel | Fifo = TwoLevel(domain)
        self.channels = [Channel(0)]
        """Port 0 is there and never used."""
        self._free: list[int] = []
        """A heap of closed ports: the lowest is given out first."""
        self._grow()
        self.virqs: dict[tuple[int, int], int] = {}
        """(vcpu, virq) to port; global ones under vCPU 0's number whatever vCPU they notify."""
        self._reset_at = 0
        self._expanding: dict[int, int] = {}
        """vCPUs in a long EVTCHNOP_expand_array, and the frame that they have given."""

    # --- ports

    def _grow(self) -> None:
        first = len(self.channels)
        ports = range(first, (first // BUCKET + 1) * BUCKET)
        self.channels.extend(Channel(port) for port in ports)
        self._free.extend(ports)  # they are higher than all others, so it stays a heap

    def channel(self, port: int) -> Channel:
        """The channel behind a port.

        :raises XenError: EINVAL, when the domain has not so many ports.
        """
        if not 0 <= port < len(self.channels):
            raise XenError(Errno.EINVAL, f"port {port}")
        return self.channels[port]

    def _free_port(self) -> Channel:
        """The lowest port that may be used; the caller gives it a state, which takes it off the heap."""
        if self.domain.is_dying:
            raise XenError(Errno.EINVAL)
        limit = min(self.domain.limits.event_channels + 1, self.ops.max_ports)
        busy: list[int] = []
        try:
            while True:
                while self._free and self._free[0] < limit:
                    channel = self.channels[self._free[0]]
                    if channel.state is EvtchnStat.EVTCHNSTAT_closed:
                        if not self.ops.is_busy(channel):
                            channel.priority = EVTCHN_FIFO_PRIORITY_DEFAULT
                            return channel
                        busy.append(channel.port)
                    channel.listed = False
                    heapq.heappop(self._free)
                if len(self.channels) >= limit:
                    raise XenError(Errno.ENOSPC)
                self._grow()
        finally:
            for port in busy:
                self._list_free(self.channels[port])

    def _list_free(self, channel: Channel) -> None:
        if not channel.listed:
            channel.listed = True
            heapq.heappush(self._free, channel.port)

    def _vcpu(self, vcpu_id: int) -> EventVcpu:
        vcpus = self.domain.vcpus
        if not 0 <= vcpu_id < len(vcpus):
            raise XenError(Errno.ENOENT, f"vcpu {vcpu_id}")
        return vcpus[vcpu_id]

    # --- binding

    def alloc_unbound(self, remote_domid: int) -> int:
        """A port that waits for `remote_domid` to bind to it."""
        channel = self._free_port()
        channel.remote_domid = self.domain.domids.number(remote_domid)
        channel.state = EvtchnStat.EVTCHNSTAT_unbound
        return channel.port

    def bind_interdomain(self, remote_domid: int, remote_port: int) -> int:
        """Connects a new port to a port of another domain that waits for this one."""
        self.domain.domids.check_any(remote_domid)
        remote = self.domain.domids.find_any(remote_domid)
        if remote is None:
            # Domain 0 exists, and has no port that waits for a guest: its backends bind to the guest's.
            raise XenError(Errno.EINVAL)
        local = self._free_port()
        peer = remote.evtchn.channel(remote_port)
        if peer.state is not EvtchnStat.EVTCHNSTAT_unbound or peer.remote_domid != self.domain.domid:
            raise XenError(Errno.EINVAL)
        local.state = peer.state = EvtchnStat.EVTCHNSTAT_interdomain
        local.remote_domid, local.remote_port = remote.domid, peer.port
        peer.remote_domid, peer.remote_port = self.domain.domid, local.port
        # Notifications sent before the channel was bound were lost.
        self.set_pending(local.port)
        return local.port

    def bind_virq(self, virq: int, vcpu_id: int) -> int:
        """Connects a new port to a virtual interrupt."""
        if virq >= NR_VIRQS:
            raise XenError(Errno.EINVAL)
        if virq not in PER_VCPU_VIRQS and vcpu_id != 0:
            raise XenError(Errno.EINVAL)
        self._vcpu(vcpu_id)
        if (vcpu_id, virq) in self.virqs:
            raise XenError(Errno.EEXIST)
        channel = self._free_port()
        channel.state = EvtchnStat.EVTCHNSTAT_virq
        channel.vcpu, channel.virq = vcpu_id, virq
        self.virqs[vcpu_id, virq] = channel.port
        return channel.port

    def bind_ipi(self, vcpu_id: int) -> int:
        """A new port that notifies a vCPU of the same domain."""
        self._vcpu(vcpu_id)
        channel = self._free_port()
        channel.state = EvtchnStat.EVTCHNSTAT_ipi
        channel.vcpu = vcpu_id
        return channel.port

    def bind_vcpu(self, port: int, vcpu_id: int) -> None:
        """Chooses the vCPU that a port notifies."""
        self._vcpu(vcpu_id)
        channel = self.channel(port)
        match channel.state:
            case EvtchnStat.EVTCHNSTAT_unbound | EvtchnStat.EVTCHNSTAT_interdomain:
                channel.vcpu = vcpu_id
            case EvtchnStat.EVTCHNSTAT_virq if channel.virq not in PER_VCPU_VIRQS:
                channel.vcpu = vcpu_id
            case _:
                raise XenError(Errno.EINVAL)

    # --- closing

    def close(self, port: int) -> None:
        """Frees a port; its peer waits for a new one."""
        channel = self.channel(port)
        match channel.state:
            case EvtchnStat.EVTCHNSTAT_closed:
                raise XenError(Errno.EINVAL)
            case EvtchnStat.EVTCHNSTAT_virq:
                self.virqs = {key: bound for key, bound in self.virqs.items() if bound != port}
            case EvtchnStat.EVTCHNSTAT_interdomain if channel.backend is not None:
                channel.backend.is_open = False
            case EvtchnStat.EVTCHNSTAT_interdomain:
                remote = self.domain.domids.find(channel.remote_domid)
                if remote is not None:
                    remote.evtchn.peer_closed(channel.remote_port)
            case _:
                pass
        self.ops.clear_pending(channel)
        channel.free()
        self._list_free(channel)

    def peer_closed(self, port: int) -> None:
        """The other end of an interdomain channel has gone."""
        channel = self.channels[port]
        channel.state = EvtchnStat.EVTCHNSTAT_unbound
        channel.remote_port = 0
        channel.backend = None

    def reset(self, ports_at_once: int | None = None, *, resume: bool = False) -> bool:
        """EVTCHNOP_reset: closes every port and goes back to the 2-level ABI.

        :param ports_at_once: how many to look at in this call; all when not given.
        :param resume: goes on with a reset that has begun.
        :returns: whether it is done.
        :raises XenError: EBUSY, when another one is going on, or there is none to resume.
        """
        if resume is not bool(self._reset_at):
            raise XenError(Errno.EBUSY)
        end = len(self.channels) if ports_at_once is None else self._reset_at + ports_at_once
        for channel in self.channels[self._reset_at : end]:
            if channel.state is not EvtchnStat.EVTCHNSTAT_closed:
                self.close(channel.port)
        if end < len(self.channels):
            self._reset_at = end
            return False
        self._reset_at = 0
        self._expanding.clear()
        if isinstance(self.ops, Fifo):
            self.ops.release()
            self.ops = TwoLevel(self.domain)
            for channel in self.channels:
                channel.latched = False
                channel.queue = (0, 0)
        return True

    def close_all(self) -> None:
        """The domain is being destroyed."""
        self._reset_at = 0
        self.reset()

    # --- the FIFO ABI

    def init_control(self, vcpu_id: int, gfn: int, offset: int) -> None:
        """EVTCHNOP_init_control: gives a vCPU its control block; the first one changes the domain to the FIFO ABI.

        :raises XenError: ENOENT, EINVAL.
        """
        vcpu = self._vcpu(vcpu_id)
        if offset > MAX_OFFSET or offset % 8:
            raise XenError(Errno.EINVAL)
        if isinstance(self.ops, Fifo):
            self.ops.add_block(vcpu, gfn, offset)
            return
        fifo = Fifo(self.domain)
        fifo.add_block(vcpu, gfn, offset)
        for channel in self.channels:
            # There is no event array yet: what is pending now is raised when its page comes.
            channel.priority = EVTCHN_FIFO_PRIORITY_DEFAULT
            if channel.state is not EvtchnStat.EVTCHNSTAT_closed:
                channel.latched = self.ops.is_pending(channel)
                self.ops.clear_pending(channel)
        self.ops = fifo

    def expand_array(self, gfn: int, *, vcpu_id: int = 0, ports_at_once: int = WORDS_PER_PAGE) -> bool:
        """EVTCHNOP_expand_array: one more page of event words; what was pending without one is raised.

        :param vcpu_id: who asks: the same vCPU with the same frame goes on with what it has begun.
        :param ports_at_once: how many ports to look at in this call.
        :returns: whether it is done.
        :raises XenError: EOPNOTSUPP, ENOSPC, EINVAL.
        """
        if not isinstance(self.ops, Fifo):
            raise XenError(Errno.EOPNOTSUPP)
        if self._expanding.get(vcpu_id) != gfn:
            self.ops.add_page(gfn)
        if not self.ops.raise_latched(ports_at_once):
            self._expanding[vcpu_id] = gfn
            return False
        self._expanding.pop(vcpu_id, None)
        return True

    def set_priority(self, port: int, priority: int) -> None:
        """EVTCHNOP_set_priority.

        :raises XenError: EINVAL, ENOSYS with the 2-level ABI, EACCES for a closed port.
        """
        channel = self.channel(port)
        if isinstance(self.ops, Fifo) and channel.state is EvtchnStat.EVTCHNSTAT_closed:
            raise XenError(Errno.EACCES)
        self.ops.set_priority(channel, priority)

    # --- sending

    def send(self, port: int) -> None:
        """EVTCHNOP_send: notifies the other end."""
        channel = self.channel(port)
        match channel.state:
            case EvtchnStat.EVTCHNSTAT_interdomain if channel.backend is not None:
                self.domain.back_ends.ring(channel.backend)
            case EvtchnStat.EVTCHNSTAT_interdomain:
                remote = self.domain.domids.find(channel.remote_domid)
                if remote is not None:
                    remote.evtchn.set_pending(channel.remote_port)
            case EvtchnStat.EVTCHNSTAT_ipi:
                self.set_pending(port)
            case EvtchnStat.EVTCHNSTAT_unbound:
                pass
            case _:
                raise XenError(Errno.EINVAL)

    def send_virq(self, vcpu_id: int, virq: int) -> None:
        """Raises a virtual interrupt; lost when no port is bound to it."""
        port = self.virqs.get((vcpu_id if virq in PER_VCPU_VIRQS else 0, virq))
        if port is not None:
            self.set_pending(port)

    def set_pending(self, port: int) -> None:
        """Makes an event pending on a port of this domain and tells its vCPU, unless masked."""
        if self.ops.set_pending(self.channels[port]):
            for vcpu in self.domain.vcpus:
                if vcpu.poll_ports is not None and port in vcpu.poll_ports:
                    vcpu.unblock()

    def unmask(self, port: int) -> None:
        """EVTCHNOP_unmask: clears the mask bit, and notifies if the event is pending."""
        channel = self.channel(port)
        if channel.state is not EvtchnStat.EVTCHNSTAT_closed:
            self.ops.unmask(channel)

    def is_pending(self, port: int) -> bool:
        """Whether an event is pending on a port that is in use.

        :raises XenError: EINVAL for any other.
        """
        channel = self.channel(port)
        if channel.state is EvtchnStat.EVTCHNSTAT_closed:
            raise XenError(Errno.EINVAL)
        return self.ops.is_pending(channel)

    @property
    def frames(self) -> list[int]:
        """Frames of the guest that are written here: each holds a writable reference."""
        return self.ops.frames

    def audit(self) -> list[str]:
        """Where the books are wrong."""
        out = [f"d{self.domain.domid}: {problem}" for problem in self.ops.audit()]
        virqs = {}
        for channel in self.channels:
            problem = self._audit_channel(channel)
            if problem:
                out.append(f"d{self.domain.domid} port {channel.port} ({channel.state.name}): {problem}")
            if channel.state is EvtchnStat.EVTCHNSTAT_virq:
                virqs[channel.port] = channel.virq
        if {port: virq for (_, virq), port in self.virqs.items()} != virqs:
            out.append(f"d{self.domain.domid}: virtual interrupts {self.virqs}, ports say {virqs}")
        closed = {c.port for c in self.channels[1:] if c.state is EvtchnStat.EVTCHNSTAT_closed}
        listed = {c.port for c in self.channels[1:] if c.listed}
        if not closed <= listed or listed != set(self._free) or len(listed) != len(self._free):
            out.append(f"d{self.domain.domid}: closed {closed}, said to be listed {listed}, listed {self._free}")
        return out

    def _audit_channel(self, channel: Channel) -> str:
        if channel.vcpu >= len(self.domain.vcpus):
            return f"notifies vcpu {channel.vcpu}"
        match channel.state:
            case EvtchnStat.EVTCHNSTAT_interdomain if channel.backend is not None:
                return (
                    "" if channel.backend.is_open and channel.backend.port == channel.port else "its backend has gone"
                )
            case EvtchnStat.EVTCHNSTAT_interdomain:
                remote = self.domain.domids.find(channel.remote_domid)
                if remote is None or channel.remote_port >= len(remote.evtchn.channels):
                    return f"its peer d{channel.remote_domid} {channel.remote_port} is not there"
                peer = remote.evtchn.channels[channel.remote_port]
                back = (peer.state, peer.remote_domid, peer.remote_port)
                if back != (EvtchnStat.EVTCHNSTAT_interdomain, self.domain.domid, channel.port):
                    return f"its peer d{channel.remote_domid} {channel.remote_port} says {back}"
            case EvtchnStat.EVTCHNSTAT_virq if (
                self.virqs.get((channel.vcpu if channel.virq in PER_VCPU_VIRQS else 0, channel.virq)) != channel.port
            ):
                return f"virtual interrupt {channel.virq} goes elsewhere"
            case EvtchnStat.EVTCHNSTAT_closed if channel.backend is not None or channel.latched:
                return "closed, and in use"
            case _:
                pass
        return ""

    def bind_backend(self, port: int, callback: Callable[[], None], domid: int = 0) -> BackendPort:
        """Connects host code, acting for domain `domid`, to a port that waits for that domain."""
        channel = self.channel(port)
        if channel.state is not EvtchnStat.EVTCHNSTAT_unbound or channel.remote_domid != domid:
            raise XenError(Errno.EINVAL, f"port {port} does not wait for domain {domid}")
        channel.state = EvtchnStat.EVTCHNSTAT_interdomain
        channel.remote_port = 0
        channel.backend = BackendPort(self.domain, port, callback)
        return channel.backend


class ChannelDomain(EventDomain, Protocol):
    """A domain to whose ports the toolstack and back ends connect."""

    @property
    def evtchn(self) -> EventChannels:
        """Its ports."""


def alloc_unbound(domain: ChannelDomain, remote_domid: int = 0) -> int:
    """A new port of `domain` that waits for `remote_domid`: what the toolstack does for the store and the console."""
    with domain.host.lock:
        return domain.evtchn.alloc_unbound(remote_domid)


def bind_backend(domain: ChannelDomain, port: int, callback: Callable[[], None], domid: int = 0) -> BackendPort:
    """Connects host code to a port of `domain` that waits for `domid`.

    :param callback: answers the guest's events: on the back ends' own thread without `host.lock`, never in the call
        that sends; in a deterministic run in a vCPU's thread, with it. Called once for all events since the last call.
    :raises XenError: EINVAL when the port does not wait for that domain.
    """
    with domain.host.lock:
        return domain.evtchn.bind_backend(port, callback, domid)
