# SPDX-License-Identifier: Apache-2.0
"""Consoles beside the first one (io/console.h through xenbus, as xen-pv-channel(7) has them): hvc1, hvc2 and so on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from domzero.dom0.backends.devices import Devices
from domzero.dom0.backends.xenbus import Device, Front, FrontendError, Nodes
from domzero.dom0.channelspec import ChannelSpec
from domzero.dom0.config import DomainConfig
from domzero.dom0.console import Console, ConsoleRing
from domzero.dom0.console_io import ConsoleLink
from domzero.dom0.console_relay import OpenConsole
from domzero.dom0.xenstore.remote import StoreApi
from domzero.dom0.xenstore_nodes import CONSOLE_LIMIT, home
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.errors import GrantError, XenError
from domzero.hypervisor.evtchn import BackendPort, bind_backend
from domzero.hypervisor.grant import map_backend, unmap_backend

HISTORY_SIZE = 4096


class ChannelDevice(Device):
    """One channel of one domain."""

    kind = "console"

    def __init__(self, domain: Domain, spec: ChannelSpec, end: OpenConsole) -> None:
        self.devid = spec.devid
        self.broken: Callable[[str], None] = lambda _: None
        self.spec = spec
        self._domain = domain
        self._tty = end.tty
        self._console = Console(HISTORY_SIZE)
        self._link = ConsoleLink(self._console, end.sock)
        self._ring: ConsoleRing | None = None
        self._port: BackendPort | None = None
        self._ref = 0

    def front_nodes(self) -> Nodes:
        """Written by the toolstack for the front end."""
        return {
            "name": self.spec.name,
            "type": "ioemu",
            "output": self.spec.connection,
            "tty": self._tty,
            "limit": CONSOLE_LIMIT,
            "protocol": "vt100",
        }

    def back_nodes(self) -> Nodes:
        """Written by the toolstack and the back end."""
        spec = self.spec
        path: Nodes = {"path": spec.path} if spec.path else {"tty": self._tty}
        return {"name": spec.name, "connection": spec.connection, "protocol": "vt100", **path}

    def connect(self, front: Front) -> Nodes:
        """Takes the ring that the front end has written into its nodes."""
        ref, number = front.number("ring-ref"), front.number("port")
        try:
            page = map_backend(self._domain, ref, writable=True)
        except GrantError as error:
            raise FrontendError(f"ring-ref {ref}: {error}") from error
        try:
            self._port = port = bind_backend(self._domain, number, self._pump)
        except XenError as error:
            unmap_backend(self._domain, ref, writable=True)
            raise FrontendError(f"port {number}: {error}") from error
        self._ref, self._ring = ref, ConsoleRing(page, self._console, port.notify)
        self._console.attach(self._ring)
        return {}

    def _pump(self) -> None:
        if (ring := self._ring) is not None:
            ring.pump()

    def disconnect(self) -> None:
        """Lets go of the ring: nothing touches its page any more."""
        ring, self._ring = self._ring, None
        port, self._port = self._port, None
        if ring is None or port is None:
            return
        self._console.attach(None)
        ring.close()
        ring.settle()
        port.close()
        unmap_backend(self._domain, self._ref, writable=True)

    def drain(self) -> None:
        """Takes the guest's last words."""
        if (ring := self._ring) is not None:
            ring.drain()

    def close(self) -> None:
        """Lets go of what is behind it."""
        self._link.close()


@dataclass(slots=True, frozen=True)
class HostsConsole:
    """A console, as programs of the host find it.

    :param number: 0 is the first one.
    :param connection: `pty` or `socket`; empty if it is neither.
    :param place: the pty, or the socket.
    :param state: of a channel's back end.
    """

    number: int
    name: str = ""
    connection: str = ""
    place: str = ""
    state: int | None = None


def hosts_consoles(get: Callable[[str], str | None], config: DomainConfig, domid: int) -> list[HostsConsole]:
    """Those of a domain, from nodes that its guest cannot write.

    :param get: reads xenstore as Domain 0 does; None for what is not there.
    """
    main = get(f"{home(domid)}/console/tty") or ""
    found = [HostsConsole(0, connection=config.console, place=main)] if config.console else [HostsConsole(0)]
    for spec in config.channel_specs:
        back = f"/local/domain/0/backend/console/{domid}/{spec.devid}"
        place = spec.path or get(f"{back}/tty") or ""
        state = get(f"{back}/state")
        found.append(HostsConsole(spec.devid, spec.name, spec.connection, place, None if state is None else int(state)))
    return found


class DomainChannels:
    """The channels of one domain, from when it is built to its end."""

    def __init__(self, store: StoreApi, domain: Domain) -> None:
        self._devices: Devices[ChannelDevice] = Devices(store, domain, "channel")

    def plug(self, spec: ChannelSpec, end: OpenConsole) -> None:
        """Gives the domain a channel; what is behind it is closed with the domain."""
        self._devices.plug(ChannelDevice(self._devices.domain, spec, end), f"a channel {spec.devid}")

    def drain(self) -> None:
        """Takes the last words of a guest that has stopped."""
        for device, _ in self._devices.all():
            device.drain()

    def close(self) -> None:
        """Lets go of all of them. Not with `host.lock` held."""
        self._devices.close()
