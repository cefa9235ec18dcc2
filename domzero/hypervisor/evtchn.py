# SPDX-License-Identifier: Apache-2.0
"""Event channels: what the layers above need of a domain's ports.

The ports, their bindings, both ways in which a guest sees its events and every check are the machine's
(`crates/machine/src/evtchn`), for hypercalls and back ends alike.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from domzero import _machine
from domzero._machine import XenRefused
from domzero.abi.errno import Errno
from domzero.abi.event_channel import EvtchnStat
from domzero.hypervisor.back_ends import BackEnds
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.limits import Limits
from domzero.hypervisor.platform import Platform

ALL_AT_ONCE = (1 << 32) - 1


class EventDomain(Protocol):
    """A domain with event channels: what these need of it."""

    host: Platform
    hw: _machine.Domain
    limits: Limits
    back_ends: BackEnds

    @property
    def shared_info_maddr(self) -> int:
        """Machine address of shared_info."""

    @property
    def evtchn(self) -> "EventChannels":
        """Its ports."""


@contextmanager
def _told() -> Iterator[None]:
    """What the machine refuses, as the hypercalls know it."""
    try:
        yield
    except XenRefused as refused:
        raise XenError(Errno(refused.errno)) from None


class BackendPort:
    """The host's end of an event channel, and what answers the guest's events: a `back_ends.Due`."""

    __slots__ = ("_back_ends", "_hw", "_number", "callback", "is_due")

    def __init__(self, domain: EventDomain, port: int, callback: Callable[[], None], domid: int) -> None:
        self.callback = callback
        self.is_due = False
        self._back_ends = domain.back_ends
        self._number = self._back_ends.expect(self)
        try:
            self._hw = domain.evtchn.hw.bind_host(port, domid, self._back_ends.bells, self._number)
        except BaseException:
            self._back_ends.forget(self._number)
            raise

    @property
    def hw(self) -> _machine.EventPort:
        """As a back end in the machine uses it."""
        return self._hw

    @property
    def port(self) -> int:
        """The guest's port."""
        return self._hw.port

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed it."""
        return self._hw.is_open

    def notify(self) -> None:
        """Sends an event to the guest. Callable from any thread; does nothing once the channel is closed."""
        self._hw.notify()

    def close(self) -> None:
        """Lets go of the channel; the guest's port waits for a new peer."""
        self._hw.close()
        self._back_ends.forget(self._number)


class EventChannels:
    """All ports of one domain."""

    def __init__(self, domain: EventDomain) -> None:
        self._domain = domain
        self.hw = domain.hw.create_events(
            domain.shared_info_maddr,
            domain.limits.event_channels,
            host_ends_above=domain.host.clock.virtual_start_ns is not None,
        )

    # --- binding

    def alloc_unbound(self, remote_domid: int) -> int:
        """A port that waits for `remote_domid` to bind to it.

        :raises XenError: EINVAL, ENOSPC, as all that give out a port.
        """
        with _told():
            return self.hw.alloc_unbound(remote_domid)

    def bind_interdomain(self, remote_domid: int, remote_port: int) -> int:
        """Connects a new port to a port of another domain that waits for this one.

        :raises XenError: ESRCH, EINVAL.
        """
        with _told():
            return self.hw.bind_interdomain(remote_domid, remote_port)

    def bind_virq(self, virq: int, vcpu_id: int) -> int:
        """Connects a new port to a virtual interrupt.

        :raises XenError: EINVAL, ENOENT, EEXIST.
        """
        with _told():
            return self.hw.bind_virq(virq, vcpu_id)

    def bind_ipi(self, vcpu_id: int) -> int:
        """A new port that notifies a vCPU of the same domain.

        :raises XenError: ENOENT.
        """
        with _told():
            return self.hw.bind_ipi(vcpu_id)

    def bind_vcpu(self, port: int, vcpu_id: int) -> None:
        """Chooses the vCPU that a port notifies.

        :raises XenError: ENOENT, EINVAL.
        """
        with _told():
            self.hw.bind_vcpu(port, vcpu_id)

    def bind_backend(self, port: int, callback: Callable[[], None], domid: int = 0) -> BackendPort:
        """Connects host code, acting for domain `domid`, to a port that waits for that domain.

        :raises XenError: EINVAL when it does not.
        """
        with _told():
            return BackendPort(self._domain, port, callback, domid)

    # --- closing

    def close(self, port: int) -> None:
        """Frees a port; its peer waits for a new one.

        :raises XenError: EINVAL.
        """
        with _told():
            self.hw.close_port(port)

    def reset(self, ports_at_once: int = ALL_AT_ONCE, *, resume: bool = False) -> bool:
        """EVTCHNOP_reset: closes every port and goes back to the 2-level ABI.

        :param ports_at_once: how many to look at in this call.
        :param resume: goes on with a reset that has begun.
        :returns: whether it is done.
        :raises XenError: EBUSY, when another one is going on, or there is none to resume.
        """
        with _told():
            return self.hw.reset(ports_at_once, resume)

    def close_all(self) -> None:
        """The domain is being destroyed: no port is given out any more."""
        self.hw.close()

    # --- the FIFO ABI

    def init_control(self, vcpu_id: int, gfn: int, offset: int) -> None:
        """EVTCHNOP_init_control: gives a vCPU its control block; the first one changes the domain to the FIFO ABI.

        :raises XenError: ENOENT, EINVAL.
        """
        with _told():
            self.hw.init_control(vcpu_id, gfn, offset)

    def expand_array(self, gfn: int, *, vcpu_id: int = 0, ports_at_once: int = ALL_AT_ONCE) -> bool:
        """EVTCHNOP_expand_array: one more page of event words; what was pending without one is raised.

        :param vcpu_id: who asks: the same vCPU with the same frame goes on with what it has begun.
        :param ports_at_once: how many ports to look at in this call.
        :returns: whether it is done.
        :raises XenError: EOPNOTSUPP, ENOSPC, EINVAL.
        """
        with _told():
            return self.hw.expand_array(vcpu_id, gfn, ports_at_once)

    def set_priority(self, port: int, priority: int) -> None:
        """EVTCHNOP_set_priority.

        :raises XenError: EINVAL, ENOSYS with the 2-level ABI, EACCES for a closed port.
        """
        with _told():
            self.hw.set_priority(port, priority)

    # --- sending

    def send(self, port: int) -> None:
        """EVTCHNOP_send: notifies the other end.

        :raises XenError: EINVAL.
        """
        with _told():
            self.hw.send(port)
        self._domain.back_ends.collect()

    def send_virq(self, vcpu_id: int, virq: int) -> None:
        """Raises a virtual interrupt; lost when no port is bound to it."""
        self.hw.send_virq(vcpu_id, virq)

    def set_pending(self, port: int) -> None:
        """Makes an event pending on a port of this domain and tells its vCPU, unless masked."""
        self.hw.set_pending(port)

    def unmask(self, port: int) -> None:
        """EVTCHNOP_unmask: clears the mask bit, and notifies if the event is pending.

        :raises XenError: EINVAL.
        """
        with _told():
            self.hw.unmask(port)

    # --- looking

    def is_pending(self, port: int) -> bool:
        """Whether an event is pending on a port that is in use.

        :raises XenError: EINVAL for any other.
        """
        with _told():
            return self.hw.is_pending(port)

    def channel(self, port: int) -> _machine.EventChannel:
        """A port as it is now.

        :raises XenError: EINVAL, when the domain has not so many ports.
        """
        with _told():
            return self.hw.channel(port)

    def state(self, port: int) -> EvtchnStat:
        """What a port is: `channel`'s status."""
        return EvtchnStat(self.channel(port).status)

    @property
    def channels(self) -> list[_machine.EventChannel]:
        """All ports as they are now."""
        return self.hw.channels

    @property
    def virqs(self) -> dict[tuple[int, int], int]:
        """(vcpu, virq) to port; global ones under vCPU 0's number whatever vCPU they notify."""
        return dict(self.hw.virqs)

    @property
    def frames(self) -> list[int]:
        """Frames of the guest that are written, once for each use: each holds a writable reference."""
        return self.hw.frames

    def audit(self) -> list[str]:
        """Where the books are wrong; with `host.lock` held, which who changes `frames` holds, too."""
        return self.hw.audit()


def alloc_unbound(domain: EventDomain, remote_domid: int = 0) -> int:
    """A new port of `domain` that waits for `remote_domid`: what the toolstack does for the store and the console."""
    return domain.evtchn.alloc_unbound(remote_domid)


def bind_backend(domain: EventDomain, port: int, callback: Callable[[], None], domid: int = 0) -> BackendPort:
    """Connects host code to a port of `domain` that waits for `domid`.

    :param callback: answers the guest's events: on the back ends' own thread without `host.lock`, never in the call
        that sends; in a deterministic run in a vCPU's thread, with it. Called once for all events since the last call.
    :raises XenError: EINVAL when the port does not wait for that domain.
    """
    return domain.evtchn.bind_backend(port, callback, domid)


def bind_device(domain: EventDomain, port: int) -> _machine.EventPort:
    """The same for a back end in the machine, which answers on a thread of its own: whatever is given the port says
    what the guest's events wake.

    :raises XenError: EINVAL when the port does not wait for Domain 0.
    """
    with _told():
        return domain.evtchn.hw.bind_host(port, 0, None, 0)
