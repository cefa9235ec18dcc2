# SPDX-License-Identifier: Apache-2.0
"""What Domain 0 knows of a domain, whether it lives or has ended."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field

from domzero.dom0.about import About
from domzero.dom0.config import DomainConfig
from domzero.dom0.console import Console
from domzero.dom0.handles import Handle
from domzero.dom0.life import DomainState, End, Next

LOG_LINES = 2000


@dataclass(slots=True, eq=False)
class Saving:
    """A domain that is being saved.

    :param suspended: done when its guest has suspended itself.
    :param progress: of its file, of 1.
    """

    suspended: asyncio.Event = field(default_factory=asyncio.Event)
    progress: float = 0.0


@dataclass(slots=True, eq=False)
class Record:
    """A domain. It keeps its record, uuid and console over reboots, and gets a new domid with each.

    `ending` says that all it has is being given back, `gone` that this is done.
    """

    config: DomainConfig
    domid: int | None = None
    state: DomainState = DomainState.BUILDING
    console: Console = field(default_factory=Console)
    worker: Handle | None = None
    exit: End | None = None
    following: Next | None = None
    """What comes after `exit`; None until that is decided."""
    quick_crashes: int = 0
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    started_mono: float = 0.0
    """Of the monotonic clock."""
    cpu_ns: int = 0
    refreshing: asyncio.Task[None] | None = None
    """The question how the worker is, if it has not been answered yet."""
    refreshed_mono: float = 0.0
    """When it was answered last."""
    engine: str | None = None
    """What executes its code, or did at its last start."""
    plugging: asyncio.Lock = field(default_factory=asyncio.Lock)
    """A device is being given a name."""
    steps_down: int = 0
    """Nice values that its vCPUs are behind those of the heaviest domain (`weights`)."""
    memory_target_mib: int = 0
    """What its balloon driver is asked for."""
    memory_limit_mib: int = 0
    """What its hypervisor lets it have."""
    current_memory_mib: int = 0
    """What it had when its worker was asked last."""
    reboots: int = 0
    generation: int = 1
    """How often it has been changed: its ETag."""
    persistent: bool = False
    """It is defined: after its end it is halted, and can be started again."""
    about: About = field(default_factory=About)
    next_config: DomainConfig | None = None
    """What it starts with when it is started again, if that is something else."""
    saved: str | None = None
    """While it is suspended: the file that it goes on from."""
    saving: Saving | None = None
    """It is being saved: its guest was asked to suspend itself."""
    ending: bool = False
    gone: bool = False

    @property
    def uuid(self) -> uuid.UUID:
        """Its identity."""
        return self.config.uuid

    @property
    def name(self) -> str:
        """Its name, unique among the domains that exist."""
        return self.config.name

    def take_next(self) -> None:
        """Makes what it was to start with its configuration."""
        if self.next_config is not None:
            self.next_config.name = self.name
            self.config, self.next_config = self.next_config, None
            self.memory_target_mib = self.memory_limit_mib = self.config.memory_mib

    @property
    def rests(self) -> DomainState:
        """What it is in when it does not run, if it is defined."""
        return DomainState.HALTED if self.saved is None else DomainState.SUSPENDED

    @property
    def is_up(self) -> bool:
        """Whether its guest is there, and not on its way out."""
        return not (self.ended or self.ending or self.worker is None or self.state is DomainState.BUILDING)

    @property
    def ended(self) -> bool:
        """Whether its guest does not run any more."""
        return self.state.is_end


class DomainLog:
    """The last lines of what hypervisor and Domain 0 say: `domzero dmesg`."""

    def __init__(self, limit: int = LOG_LINES) -> None:
        self._limit = limit
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Keeps a line, cut to a sane length."""
        self._lines.append(line[:1000])
        if len(self._lines) > 2 * self._limit:
            del self._lines[: -self._limit]

    def lines(self) -> list[str]:
        """What is kept, oldest first."""
        return self._lines[-self._limit :]

    def clear(self) -> None:
        """Forgets everything."""
        self._lines.clear()
