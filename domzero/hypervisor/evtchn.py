"""Event channels, 2-level ABI: ports, bindings, pending and mask bits, and channels whose other end is host code."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from domzero.abi.errno import Errno
from domzero.abi.event_channel import EvtchnStat
from domzero.abi.layout import layout_for, offset_of
from domzero.abi.xen import DOMID_SELF, NR_VIRQS, Virq, shared_info
from domzero.hypervisor.errors import XenError

if TYPE_CHECKING:
    from domzero.hypervisor.domain import Domain
    from domzero.hypervisor.vcpu import Vcpu

BUCKET = 64
"""Ports become valid in steps of this many."""
MAX_PORTS = 1024
"""What Xen's toolstack allows a domain by default (max_event_channels = 1023)."""

PER_VCPU_VIRQS = frozenset({Virq.VIRQ_TIMER, Virq.VIRQ_DEBUG, Virq.VIRQ_XENOPROF, Virq.VIRQ_XENPMU})


@dataclass(slots=True, eq=False)
class Channel:
    """One port of a domain."""

    port: int
    state: EvtchnStat = EvtchnStat.EVTCHNSTAT_closed
    vcpu: int = 0
    remote_domid: int = 0
    remote_port: int = 0
    virq: int = 0
    backend: "BackendPort | None" = None

    def free(self) -> None:
        """Back to the state of a port that was never used."""
        self.state = EvtchnStat.EVTCHNSTAT_closed
        self.vcpu = self.remote_domid = self.remote_port = self.virq = 0
        self.backend = None


class BackendPort:
    """The host's end of an event channel."""

    __slots__ = ("_domain", "callback", "is_open", "port")

    def __init__(self, domain: "Domain", port: int, callback: Callable[[], None]) -> None:
        self._domain = domain
        self.port = port
        self.callback = callback
        self.is_open = True

    def notify(self) -> None:
        """Sends an event to the guest. Callable from any thread; does nothing once the channel is closed."""
        with self._domain.host.lock:
            if self.is_open:
                self._domain.evtchn.set_pending(self.port)

    def close(self) -> None:
        """Lets go of the channel; the guest's port waits for a new peer."""
        with self._domain.host.lock:
            if self.is_open:
                self.is_open = False
                self._domain.evtchn.peer_closed(self.port)


class EventChannels:
    """All ports of one domain. Every method needs `host.lock`."""

    def __init__(self, domain: "Domain") -> None:
        self.domain = domain
        self.channels = [Channel(port) for port in range(BUCKET)]
        self.virqs: dict[tuple[int, int], int] = {}
        """(vcpu, virq) to port; global ones under vCPU 0's number whatever vCPU they notify."""
        layout = layout_for(shared_info, domain.is_32bit)
        base = domain.shared_info_maddr
        self._pending = base + offset_of(layout, "evtchn_pending")
        self._mask = base + offset_of(layout, "evtchn_mask")
        self._word_shift = 5 if domain.is_32bit else 6
        self._shared = domain.host.shared

    # --- ports

    def _valid(self, port: int) -> Channel:
        if not 0 < port < len(self.channels):
            raise XenError(Errno.EINVAL, f"port {port}")
        return self.channels[port]

    def _free_port(self) -> Channel:
        if self.domain.is_dying:
            raise XenError(Errno.EINVAL)
        for channel in self.channels[1:]:
            if channel.state is EvtchnStat.EVTCHNSTAT_closed:
                return channel
        if len(self.channels) >= MAX_PORTS:
            raise XenError(Errno.ENOSPC)
        first = len(self.channels)
        self.channels.extend(Channel(port) for port in range(first, first + BUCKET))
        return self.channels[first]

    def _vcpu(self, vcpu_id: int) -> "Vcpu":
        vcpu = self.domain.vcpu(vcpu_id)
        if vcpu is None:
            raise XenError(Errno.ENOENT, f"vcpu {vcpu_id}")
        return vcpu

    def _other(self, domid: int) -> "Domain":
        if domid == DOMID_SELF:
            return self.domain
        domain = self.domain.host.domains.get(domid)
        if domain is None:
            raise XenError(Errno.ESRCH, f"domain {domid}")
        return domain

    # --- binding

    def alloc_unbound(self, remote_domid: int) -> int:
        """A port that waits for `remote_domid` to bind to it."""
        channel = self._free_port()
        channel.remote_domid = self.domain.domid if remote_domid == DOMID_SELF else remote_domid
        channel.state = EvtchnStat.EVTCHNSTAT_unbound
        return channel.port

    def bind_interdomain(self, remote_domid: int, remote_port: int) -> int:
        """Connects a new port to a port of another domain that waits for this one."""
        remote = self._other(remote_domid)
        local = self._free_port()
        peer = remote.evtchn._valid(remote_port)
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
        channel = self._valid(port)
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
        channel = self._valid(port)
        match channel.state:
            case EvtchnStat.EVTCHNSTAT_closed:
                raise XenError(Errno.EINVAL)
            case EvtchnStat.EVTCHNSTAT_virq:
                self.virqs = {key: bound for key, bound in self.virqs.items() if bound != port}
            case EvtchnStat.EVTCHNSTAT_interdomain if channel.backend is not None:
                channel.backend.is_open = False
            case EvtchnStat.EVTCHNSTAT_interdomain:
                remote = self.domain.host.domains.get(channel.remote_domid)
                if remote is not None:
                    remote.evtchn.peer_closed(channel.remote_port)
            case _:
                pass
        # The bit must not be seen by whoever gets the port next.
        self._shared.test_and_clear_bit(self._pending, port)
        channel.free()

    def peer_closed(self, port: int) -> None:
        """The other end of an interdomain channel has gone."""
        channel = self.channels[port]
        channel.state = EvtchnStat.EVTCHNSTAT_unbound
        channel.remote_port = 0
        channel.backend = None

    def reset(self) -> None:
        """EVTCHNOP_reset: closes every port."""
        for channel in self.channels:
            if channel.state is not EvtchnStat.EVTCHNSTAT_closed:
                self.close(channel.port)

    close_all = reset

    # --- sending

    def send(self, port: int) -> None:
        """EVTCHNOP_send: notifies the other end."""
        channel = self._valid(port)
        match channel.state:
            case EvtchnStat.EVTCHNSTAT_interdomain if channel.backend is not None:
                channel.backend.callback()
            case EvtchnStat.EVTCHNSTAT_interdomain:
                remote = self.domain.host.domains.get(channel.remote_domid)
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
        if self._shared.test_and_set_bit(self._pending, port):
            return
        channel = self.channels[port]
        if not self._shared.test_bit(self._mask, port):
            self._select(self.domain.vcpus[channel.vcpu], port)
        for vcpu in self.domain.vcpus:
            if vcpu.poll_ports is not None and (port in vcpu.poll_ports):
                vcpu.unblock()

    def _select(self, vcpu: "Vcpu", port: int) -> None:
        if not self._shared.test_and_set_bit(vcpu.pending_sel_maddr, port >> self._word_shift):
            vcpu.mark_events_pending()

    def unmask(self, port: int) -> None:
        """EVTCHNOP_unmask: clears the mask bit, and notifies if the event is pending."""
        channel = self._valid(port)
        if self._shared.test_and_clear_bit(self._mask, port) and self._shared.test_bit(self._pending, port):
            self._select(self.domain.vcpus[channel.vcpu], port)

    def is_pending(self, port: int) -> bool:
        """Whether an event is pending on a valid port."""
        self._valid(port)
        return self._shared.test_bit(self._pending, port)

    def channel(self, port: int) -> Channel:
        """The channel behind a valid port, for EVTCHNOP_status."""
        return self._valid(port)

    def bind_backend(self, port: int, callback: Callable[[], None], domid: int = 0) -> BackendPort:
        """Connects host code, acting for domain `domid`, to a port that waits for that domain."""
        channel = self._valid(port)
        if channel.state is not EvtchnStat.EVTCHNSTAT_unbound or channel.remote_domid != domid:
            raise XenError(Errno.EINVAL, f"port {port} does not wait for domain {domid}")
        channel.state = EvtchnStat.EVTCHNSTAT_interdomain
        channel.remote_port = 0
        channel.backend = BackendPort(self.domain, port, callback)
        return channel.backend


def alloc_unbound(domain: "Domain", remote_domid: int = 0) -> int:
    """A new port of `domain` that waits for `remote_domid`: what the toolstack does for the store and the console."""
    with domain.host.lock:
        return domain.evtchn.alloc_unbound(remote_domid)


def bind_backend(domain: "Domain", port: int, callback: Callable[[], None], domid: int = 0) -> BackendPort:
    """Connects host code to a port of `domain` that waits for `domid`.

    :param callback: runs with `host.lock` held, in the hypercall in which the guest sends; must not wait.
    :raises XenError: EINVAL when the port does not wait for that domain.
    """
    with domain.host.lock:
        return domain.evtchn.bind_backend(port, callback, domid)
