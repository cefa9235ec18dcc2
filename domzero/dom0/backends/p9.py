# SPDX-License-Identifier: Apache-2.0
"""The 9pfs back end (io/9pfs.h): a directory of the host that a guest mounts."""

from __future__ import annotations

import errno
from collections.abc import Callable

from domzero import _machine
from domzero.dom0.backends.xenbus import BackEnd, Front, FrontendError, Nodes
from domzero.dom0.descriptors import raise_limit
from domzero.dom0.sharespec import ShareSpec
from domzero.dom0.xenstore.remote import StoreApi
from domzero.errors import ConfigError
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.errors import XenError
from domzero.hypervisor.evtchn import bind_device

VERSION = 1
MAX_RINGS = 4
MAX_RING_PAGE_ORDER = 9


def use_share(spec: ShareSpec, fd: int) -> _machine.Share:
    """The share in an open directory, which it takes. ConfigError: it cannot be used."""
    raise_limit()  # what a guest has open are descriptors of this process
    try:
        return _machine.Share(fd, spec.writable)
    except OSError as error:
        is_old = error.errno == errno.ENOSYS
        reason = "shared directories need Linux 5.8 or newer" if is_old else error.strerror or str(error)
        raise ConfigError(f"{spec.path}: {reason}", key="p9") from error


class ShareDevice:
    """One shared directory of one domain: a `xenbus.Device`."""

    kind = "9pfs"

    def __init__(self, domain: Domain, spec: ShareSpec, share: _machine.Share) -> None:
        self.spec = spec
        self.devid = spec.devid
        self.share = share
        self.broken: Callable[[str], None] = lambda _: None
        self._domain = domain
        self._rings: _machine.ShareRings | None = None
        self._ports: list[_machine.EventPort] = []

    def front_nodes(self) -> Nodes:
        """Written by the toolstack for the front end."""
        return {"tag": self.spec.tag}

    def back_nodes(self) -> Nodes:
        """Written by the toolstack and the back end."""
        return {
            "path": self.spec.path,
            "security_model": "none",
            "versions": VERSION,
            "max-rings": MAX_RINGS,
            "max-ring-page-order": MAX_RING_PAGE_ORDER,
        }

    def connect(self, front: Front) -> Nodes:
        """Takes the rings that the front end has written into its nodes."""
        version = front.number("version")
        if version != VERSION:
            raise FrontendError(f"version {version}: {VERSION} is possible")
        rings = front.number("num-rings")
        if not 1 <= rings <= MAX_RINGS:
            raise FrontendError(f"{rings} rings: 1 to {MAX_RINGS} are possible")
        try:
            self._connect(front, rings)
        except FrontendError:
            self.disconnect()
            raise
        return {}

    def _connect(self, front: Front, rings: int) -> None:
        refs = [front.number(f"ring-ref{ring}") for ring in range(rings)]
        for ring in range(rings):
            number = front.number(f"event-channel-{ring}")
            try:
                self._ports.append(bind_device(self._domain, number))
            except XenError as error:
                raise FrontendError(f"event channel {number}: {error}") from error
        try:
            self._rings = _machine.ShareRings(
                self._domain.grants.hw,
                self.share,
                refs,
                ports=self._ports,
                broken=self.broken,
                thread=f"9pfs{self.devid}",
            )
        except _machine.MachineError as error:
            raise FrontendError(str(error)) from error

    def disconnect(self) -> None:
        """Lets go of all rings; what was asked for before is done."""
        ports, self._ports = self._ports, []
        rings, self._rings = self._rings, None
        for port in ports:
            port.close()
        if rings is not None:
            rings.close()

    def close(self) -> None:
        """Lets go of the directory."""
        self.share.close()


class DomainShares:
    """The shared directories of one domain, from when it is built to its end."""

    def __init__(self, store: StoreApi, domain: Domain) -> None:
        self._store = store
        self._domain = domain
        self.devices: list[ShareDevice] = []
        self._back_ends: list[BackEnd] = []

    def plug(self, spec: ShareSpec, share: _machine.Share) -> None:
        """Gives the domain a directory that is open already."""
        device = ShareDevice(self._domain, spec, share)
        back_end = BackEnd(self._store, self._domain, device, self._domain.log)
        back_end.start()
        self.devices.append(device)
        self._back_ends.append(back_end)

    def close(self) -> None:
        """Lets go of all of them. Not with `host.lock` held."""
        for back_end in self._back_ends:
            back_end.close()
