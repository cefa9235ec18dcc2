# SPDX-License-Identifier: Apache-2.0
"""Event channels: the host's ends of a domain's ports.

The ports, their bindings, both ways in which a guest sees its events and every check are the machine's
(`crates/machine/src/evtchn`), for hypercalls and back ends alike.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from domzero import _machine
from domzero._machine import XenRefused
from domzero.abi.errno import Errno
from domzero.hypervisor.back_ends import BackEnds
from domzero.hypervisor.errors import XenError


class EventDomain(Protocol):
    """A domain with event channels: what these need of it."""

    back_ends: BackEnds

    @property
    def evtchn(self) -> _machine.EventChannels:
        """Its ports."""


@contextmanager
def told() -> Iterator[None]:
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
            self._hw = domain.evtchn.bind_host(port, domid, self._back_ends.bells, self._number)
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


def alloc_unbound(domain: EventDomain, remote_domid: int = 0) -> int:
    """A new port of `domain` that waits for `remote_domid`: what the toolstack does for the store and the console."""
    with told():
        return domain.evtchn.alloc_unbound(remote_domid)


def bind_backend(domain: EventDomain, port: int, callback: Callable[[], None], domid: int = 0) -> BackendPort:
    """Connects host code to a port of `domain` that waits for `domid`.

    :param callback: answers the guest's events: on the back ends' own thread without `host.lock`, never in the call
        that sends; in a deterministic run in a vCPU's thread, with it. Called once for all events since the last call.
    :raises XenError: EINVAL when the port does not wait for that domain.
    """
    with told():
        return BackendPort(domain, port, callback, domid)


def bind_device(domain: EventDomain, port: int) -> _machine.EventPort:
    """The same for a back end in the machine, which answers on a thread of its own: whatever is given the port says
    what the guest's events wake.

    :raises XenError: EINVAL when the port does not wait for Domain 0.
    """
    with told():
        return domain.evtchn.bind_host(port, 0, None, 0)
