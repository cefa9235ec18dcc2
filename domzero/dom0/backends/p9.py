# SPDX-License-Identifier: Apache-2.0
"""The 9pfs back end (io/9pfs.h): a directory of the host that a guest mounts."""

from __future__ import annotations

import errno

from domzero import _machine
from domzero.dom0.backends.devices import Devices
from domzero.dom0.backends.rings import RingsDevice
from domzero.dom0.backends.xenbus import Front, FrontendError, Nodes
from domzero.dom0.descriptors import raise_limit
from domzero.dom0.sharespec import ShareSpec
from domzero.dom0.xenstore.remote import StoreApi
from domzero.errors import ConfigError
from domzero.hypervisor.domain import Domain

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


class ShareDevice(RingsDevice):
    """One shared directory of one domain."""

    kind = "9pfs"

    def __init__(self, domain: Domain, spec: ShareSpec, share: _machine.Share) -> None:
        super().__init__(domain, spec.devid)
        self.spec = spec
        self.share = share

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

    def take_rings(self, front: Front) -> _machine.ShareRings:
        """Connects its rings."""
        version = front.number("version")
        if version != VERSION:
            raise FrontendError(f"version {version}: {VERSION} is possible")
        rings = front.number("num-rings")
        if not 1 <= rings <= MAX_RINGS:
            raise FrontendError(f"{rings} rings: 1 to {MAX_RINGS} are possible")
        refs = [front.number(f"ring-ref{ring}") for ring in range(rings)]
        return _machine.ShareRings(
            self._domain.grants.hw,
            self.share,
            refs,
            ports=[self.bind(front.number(f"event-channel-{ring}")) for ring in range(rings)],
            broken=self.broken,
            thread=f"9pfs{self.devid}",
        )

    def close(self) -> None:
        """Lets go of the directory."""
        self.share.close()


class DomainShares:
    """The shared directories of one domain, from when it is built to its end."""

    def __init__(self, store: StoreApi, domain: Domain) -> None:
        self._devices: Devices[ShareDevice] = Devices(store, domain, "p9")

    def plug(self, spec: ShareSpec, share: _machine.Share) -> None:
        """Gives the domain a directory that is open already; it is closed with the domain."""
        self._devices.plug(ShareDevice(self._devices.domain, spec, share), f"a share {spec.devid}")

    def close(self) -> None:
        """Lets go of all of them. Not with `host.lock` held."""
        self._devices.close()
