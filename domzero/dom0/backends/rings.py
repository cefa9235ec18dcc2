# SPDX-License-Identifier: Apache-2.0
"""Devices whose rings are served together, by one thread of the machine's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

from domzero import _machine
from domzero.dom0.backends.xenbus import Device, Front, FrontendError, Nodes
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.evtchn import bind_device


class Rings(Protocol):
    """All rings of a front end."""

    def close(self) -> None:
        """Lets go of them; what was asked for before is done."""


class RingsDevice(Device):
    """What such devices have in common: a `xenbus.Device`."""

    def __init__(self, domain: Domain, devid: int) -> None:
        self.devid = devid
        self.broken: Callable[[str], None] = lambda _: None
        self._domain = domain
        self._rings: Rings | None = None
        self._ports: list[_machine.EventPort] = []

    @abstractmethod
    def take_rings(self, front: Front) -> Rings:
        """Connects what the front end has written into its nodes; ports by `bind`. FrontendError, MachineError."""

    def bind(self, number: int) -> _machine.EventPort:
        """The host's end of a port of the guest, closed when the device is disconnected. FrontendError."""
        try:
            port = bind_device(self._domain, number)
        except XenError as error:
            raise FrontendError(f"event channel {number}: {error}") from error
        self._ports.append(port)
        return port

    def connect(self, front: Front) -> Nodes:
        """Takes the rings that the front end has written into its nodes."""
        try:
            self._rings = self.take_rings(front)
        except FrontendError:
            self.disconnect()
            raise
        except _machine.MachineError as error:
            self.disconnect()
            raise FrontendError(str(error)) from error
        return {}

    def disconnect(self) -> None:
        """Lets go of all rings."""
        ports, self._ports = self._ports, []
        rings, self._rings = self._rings, None
        for port in ports:
            port.close()
        if rings is not None:
            rings.close()
