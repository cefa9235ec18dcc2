# SPDX-License-Identifier: Apache-2.0
"""A start of a domain for a program: an `Instance` with a store and a console of its own, in this process."""

from __future__ import annotations

import random
import uuid as uuid_module
from collections.abc import Callable

from domzero.builder.image import KernelImage
from domzero.dom0.config import DomainConfig
from domzero.dom0.console import Console
from domzero.dom0.instance import Instance
from domzero.dom0.xenstore import Store
from domzero.hypervisor.clock import VirtualClock

_DOMID = 1


class Start:
    """One start of a domain, paused at its kernel's first instruction.

    :param image: its kernel; read from `config.kernel` when not given.
    :param virtual_time: time is driven by instructions; nothing in the domain then depends on the host's clock.
    :raises DomzeroError: nothing is left then.
    """

    def __init__(
        self,
        config: DomainConfig,
        log: Callable[[str], None],
        *,
        virtual_time: bool,
        image: KernelImage | None = None,
    ) -> None:
        clock = VirtualClock() if virtual_time else None
        if virtual_time:
            config.seed = config.seed or 0
            config.uuid = uuid_module.UUID(int=random.Random(config.seed).getrandbits(128), version=4)
        self.store = Store()
        self.console = Console()
        self._instance = Instance.build(
            config, self.store, self.console, domid=_DOMID, log=log, clock=clock, image=image
        )
        self.host = self._instance.host
        self.domain = self._instance.domain
        self.layout = self._instance.layout
        if clock is not None:
            self.store.write(f"/vm/{config.uuid}/start_time", f"{clock.epoch_ns / 1e9:.2f}")
        self.store.introduce(_DOMID)

    def drain(self) -> None:
        """Takes the last words of a domain that has stopped."""
        self._instance.drain()

    def close(self) -> None:
        """Destroys the domain and gives everything back."""
        self._instance.close()
