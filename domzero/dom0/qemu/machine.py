# SPDX-License-Identifier: Apache-2.0
"""What requests need of a domain's QEMU."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeAlias

from domzero.dom0.config import DomainConfig
from domzero.dom0.messages import Answer, Change
from domzero.dom0.qemu.process import QemuProcess
from domzero.dom0.qemu.qmp import QmpClient


class Machine(Protocol):
    """`handle.QemuHandle`."""

    config: DomainConfig | None
    accelerator: str
    """kvm or tcg, once it is started."""
    strays: set[str]
    """Devices that it has and should not have, and that are going."""

    @property
    def process(self) -> QemuProcess:
        """The process. WorkerGone."""

    @property
    def qmp(self) -> QmpClient:
        """Its monitor. WorkerGone."""

    async def add_viewer(self, fd: int, *, is_known: bool) -> None:
        """Shows its screen to whoever is at the other end of a socket."""

    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        """Does something beside what goes on, until it ends."""

    def tell(self, change: Change) -> None:
        """Tells Domain 0 of something."""


Job: TypeAlias = Callable[[Machine, Any, Sequence[int]], Awaitable[Answer]]
"""Carries out a request that came with these files."""

__all__ = ["Job", "Machine"]
