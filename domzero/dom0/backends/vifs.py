# SPDX-License-Identifier: Apache-2.0
"""The network interfaces of one domain."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from uuid import UUID

from domzero.dom0.backends.devices import Devices
from domzero.dom0.backends.net import NetDevice
from domzero.dom0.device_stats import VifStats
from domzero.dom0.vifspec import DOWN, UP, VifSpec, mac_text
from domzero.dom0.wire import Wire
from domzero.dom0.xenstore.remote import StoreApi
from domzero.errors import ConfigError
from domzero.hypervisor.domain import Domain


class DomainVifs:
    """Methods may be called from any thread but a vCPU's, without `host.lock`."""

    def __init__(self, store: StoreApi, domain: Domain, uuid: UUID) -> None:
        self._devices: Devices[NetDevice] = Devices(store, domain, "vif")
        self._uuid = uuid

    def plug(self, spec: VifSpec, wire: Wire) -> None:
        """Gives the domain an interface, and the interface its wire."""
        device = NetDevice(self._devices.domain, spec, spec.mac_of(self._uuid), wire)
        self._devices.plug(device, f"an interface {spec.devid}")

    def attach(self, spec: VifSpec, wire: Wire) -> None:
        """Plugs an interface in; the guest is told by its nodes in xenstore.

        :param wire: closed with the interface or when it is refused.
        """
        mac = spec.mac_of(self._uuid)
        if any(device.mac == mac for device in self.devices):
            wire.close()
            raise ConfigError(f"there is an interface {mac_text(mac)} already", key="vif")
        self.plug(spec, wire)

    def detach(self, devid: int, *, force: bool) -> None:
        """Asks the guest to let go of an interface; with `force` it has no choice. ConfigError: there is none."""
        self._devices.unplug(devid, f"interface {devid}", force=force)

    def set(self, spec: VifSpec) -> None:
        """Changes the settings of an interface to those of `spec`. ConfigError: there is none of its number."""
        device, back_end = self._devices.find(spec.devid, f"interface {spec.devid}")
        back_end.change(device.set(spec))

    def capture(self, devid: int, fd: int, *, snaplen: int, frames: int) -> None:
        """Writes a copy of an interface's frames to a socket, which is the capture's from here on. ConfigError."""
        try:
            device, _ = self._devices.find(devid, f"interface {devid}")
        except ConfigError:
            os.close(fd)
            raise
        if not device.link.capture(fd, f"vif{self._devices.domain.domid}.{devid}", snaplen, frames):
            raise ConfigError(f"interface {devid} is captured by too many already", key="vif")

    @property
    def devices(self) -> list[NetDevice]:
        """Those that there are, in the order of their numbers."""
        return [device for device, _ in self._devices.all()]

    def stats(self) -> Iterator[VifStats]:
        """The interfaces that there are, in the order of their numbers."""
        for device, back_end in self._devices.all():
            spec, counts = device.spec, device.link.counts
            yield VifStats(
                devid=device.devid,
                mac=mac_text(device.mac),
                network=spec.network,
                mtu=spec.effective_mtu,
                spec=spec.text(),
                state=int(back_end.state),
                link=UP if spec.is_up else DOWN,
                rate=spec.rate.text if spec.rate else None,
                sent_frames=counts.sent_frames,
                sent_bytes=counts.sent_bytes,
                received_frames=counts.received_frames,
                received_bytes=counts.received_bytes,
                errors=counts.errors,
                spoofed=counts.spoofed,
                dropped=counts.dropped,
            )

    def tell_gone(self, told: Callable[[int], None]) -> None:
        """Lets `told` have the number of each interface that is taken away, when it is, in whatever thread."""
        self._devices.on_gone = told

    def close(self) -> None:
        """Lets go of all of them. Not with `host.lock` held."""
        self._devices.close()
