# SPDX-License-Identifier: Apache-2.0
"""One event channel: a port of a domain, and what the parts that deliver events see of its domain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from domzero import _machine
from domzero.abi.event_channel import EVTCHN_FIFO_PRIORITY_DEFAULT, EvtchnStat
from domzero.hypervisor.back_ends import BackEnds
from domzero.hypervisor.domids import Domids
from domzero.hypervisor.limits import Limits
from domzero.hypervisor.platform import Platform
from domzero.hypervisor.vcpu_info import VcpuInfo


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
    priority: int = EVTCHN_FIFO_PRIORITY_DEFAULT
    latched: bool = False
    """An event came while the guest had given no page for this port (FIFO)."""
    listed: bool = True
    """Whether the port is in the heap of free ones; one that was just given out may be."""
    queue: tuple[int, int] = (0, 0)
    """The queue this port was put into last, by vCPU and priority (FIFO); outlives its user, as the link does."""

    def free(self) -> None:
        """Back to the state of a port that was never used."""
        self.state = EvtchnStat.EVTCHNSTAT_closed
        self.vcpu = self.remote_domid = self.remote_port = self.virq = 0
        self.backend = None
        self.latched = False


class Ports(Protocol):
    """The ports of a domain, as another one and a back end use them."""

    channels: list[Channel]

    def channel(self, port: int) -> Channel:
        """The channel behind a port; XenError EINVAL when there is none."""

    def set_pending(self, port: int) -> None:
        """Makes an event pending on a port."""

    def peer_closed(self, port: int) -> None:
        """The other end of an interdomain channel has gone."""


class EventVcpu(Protocol):
    """A vCPU that gets events."""

    vcpu_id: int
    info: VcpuInfo
    poll_ports: frozenset[int] | None

    def mark_events_pending(self) -> None:
        """An event waits for it."""

    def unblock(self) -> None:
        """It sleeps no more."""


class EventDomain(Protocol):
    """A domain with event channels: what these need of it."""

    host: Platform
    domid: int
    is_32bit: bool
    is_dying: bool
    hw: _machine.Domain
    limits: Limits
    back_ends: BackEnds

    @property
    def shared_info_maddr(self) -> int:
        """Machine address of shared_info."""

    @property
    def domids(self) -> Domids["EventDomain"]:
        """Domain numbers as this one means them."""

    @property
    def evtchn(self) -> Ports:
        """Its ports."""

    @property
    def vcpus(self) -> Sequence[EventVcpu]:
        """Its vCPUs."""


class BackendPort:
    """The host's end of an event channel."""

    __slots__ = ("_domain", "callback", "is_due", "is_open", "port")

    def __init__(self, domain: EventDomain, port: int, callback: Callable[[], None]) -> None:
        self._domain = domain
        self.port = port
        self.callback = callback
        self.is_open = True
        self.is_due = False
        """The guest has sent an event that waits for its answer (see `back_ends`)."""

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
