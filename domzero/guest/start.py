# SPDX-License-Identifier: Apache-2.0
"""A domain for a program: its host, its wiring and its back ends, in this process."""

from __future__ import annotations

import random
import uuid as uuid_module
from collections.abc import Callable

from domzero.abi.xen import PAGE_SHIFT
from domzero.builder.domain import build_domain
from domzero.builder.image import KernelImage
from domzero.builder.layout import plan
from domzero.dom0.config import DomainConfig
from domzero.dom0.console import Console, ConsoleRing
from domzero.dom0.xenstore import RingBackend, Store
from domzero.dom0.xenstore_nodes import write_nodes
from domzero.errors import ResourceError
from domzero.hypervisor.clock import VirtualClock
from domzero.hypervisor.domain import Limits
from domzero.hypervisor.host import Host


class Start:
    """One start of a domain, paused at its kernel's first instruction.

    :param virtual_time: time is driven by instructions; nothing in the domain then depends on the host's clock.
    :raises DomzeroError: nothing is left then.
    """

    def __init__(
        self,
        config: DomainConfig,
        image: KernelImage,
        ramdisk: bytes,
        log: Callable[[str], None],
        *,
        virtual_time: bool,
    ) -> None:
        pages = config.memory_mib << (20 - PAGE_SHIFT)
        plan(image, pages, len(ramdisk))  # before anything is made
        clock = VirtualClock() if virtual_time else None
        if virtual_time:
            config.seed = config.seed or 0
            config.uuid = uuid_module.UUID(int=random.Random(config.seed).getrandbits(128), version=4)
        try:
            self.host = Host(config.static_max_mib, clock=clock, seed=config.seed, log=log)
        except (MemoryError, OverflowError, OSError) as error:
            raise ResourceError(f"no room for {config.static_max_mib} MiB: {error}", key="memory") from error
        try:
            built = build_domain(
                self.host,
                image,
                pages=pages,
                max_pages=config.static_max_mib << (20 - PAGE_SHIFT),
                vcpus=config.vcpus,
                cmdline=config.cmdline,
                ramdisk=ramdisk,
                name=config.name,
                uuid=config.uuid,
                limits=Limits(
                    event_channels=config.max_event_channels,
                    grant_frames=config.max_grant_frames,
                    maptrack_frames=config.max_maptrack_frames,
                    grant_version=config.max_grant_version,
                ),
            )
            self.domain = built.domain
            self.layout = built.layout
            domid = self.domain.domid
            self.store = Store()
            write_nodes(self.store, config, domid, built.store, built.console)
            if clock is not None:
                self.store.write(f"/vm/{config.uuid}/start_time", f"{clock.epoch_ns / 1e9:.2f}")
            connection = self.store.connect(domid)
            self._xenstore, store_port = built.store.connect(lambda page, send: RingBackend(page, connection, send))
            self.console = Console()
            self._ring, console_port = built.console.connect(lambda page, send: ConsoleRing(page, self.console, send))
            self._ports = [store_port, console_port]
            self.domain.console_sink = self._console_io
            self.console.attach(self._ring)
            self.store.introduce(domid)
        except BaseException:
            self.host.close()
            raise

    def _console_io(self, data: bytes) -> None:
        """What small kernels print with: the hypervisor's console, as long as the guest's own is not used."""
        if not self._ring.used:
            self.console.output(data)

    def drain(self) -> None:
        """Takes the last words of a domain that has stopped."""
        self._ring.drain()

    def close(self) -> None:
        """Destroys the domain and gives everything back."""
        self.console.attach(None)
        self._ring.close()
        self._xenstore.close()
        for port in self._ports:
            port.close()
        self.host.close()
