# SPDX-License-Identifier: Apache-2.0
"""The devices of one kind that a domain has: plugged in when it is built or while it runs, and taken away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from domzero.dom0.backends.xenbus import BackEnd, Device
from domzero.dom0.xenstore.remote import StoreApi
from domzero.errors import ConfigError
from domzero.hypervisor.domain import Domain

D = TypeVar("D", bound=Device)


class Devices(Generic[D]):
    """Methods may be called from any thread but a vCPU's, without `host.lock`.

    :param key: the part of a configuration that these are, in errors.
    """

    def __init__(self, store: StoreApi, domain: Domain, key: str) -> None:
        self._store = store
        self.domain = domain
        self._key = key
        self._lock = threading.Lock()
        self._devices: dict[int, tuple[D, BackEnd]] = {}
        self._is_closed = False
        self.on_gone: Callable[[int], None] = lambda devid: None
        """Called with the number of a device that was unplugged when its guest has let go of it, or had no choice."""

    def check_free(self, devid: int, what: str) -> None:
        """Raises ConfigError when there is such a device."""
        with self._lock:
            self._forget_gone()
            if devid in self._devices:
                raise ConfigError(f"there is {what} already", key=self._key)

    def plug(self, device: D, what: str) -> None:
        """Gives the domain a device, which is closed with the domain; the guest is told by its nodes in xenstore.

        :raises ConfigError: there is one with its number, or the domain has ended; it is closed then.
        """
        with self._lock:
            self._forget_gone()
            if self._is_closed or device.devid in self._devices:
                device.close()
                raise ConfigError(f"there is {what} already", key=self._key)
            back_end = BackEnd(
                self._store, self.domain, device, self.domain.log, on_gone=lambda: self.on_gone(device.devid)
            )
            back_end.start()
            self._devices[device.devid] = device, back_end

    def unplug(self, devid: int, what: str, *, force: bool) -> None:
        """Asks the guest to let go of a device; with `force` it has no choice. ConfigError: there is none."""
        self.find(devid, what)[1].unplug(force=force)

    def find(self, devid: int, what: str) -> tuple[D, BackEnd]:
        """A device and its back end. ConfigError: there is none."""
        with self._lock:
            self._forget_gone()
            found = self._devices.get(devid)
        if found is None:
            raise ConfigError(f"there is no {what}", key=self._key)
        return found

    def all(self) -> list[tuple[D, BackEnd]]:
        """Those that there are, in the order of their numbers."""
        with self._lock:
            self._forget_gone()
            return [self._devices[devid] for devid in sorted(self._devices)]

    def close(self) -> None:
        """Lets go of all of them."""
        with self._lock:
            self._is_closed = True
            devices, self._devices = list(self._devices.values()), {}
        for _, back_end in devices:
            back_end.close()

    def _forget_gone(self) -> None:
        for devid, (_, back_end) in list(self._devices.items()):
            if back_end.is_gone:
                del self._devices[devid]
