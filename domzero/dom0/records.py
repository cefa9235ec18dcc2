"""What Domain 0 knows of a domain, whether it lives or has ended."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from enum import Enum

from domzero.dom0.config import DomainConfig
from domzero.dom0.console import Console
from domzero.dom0.workers import Worker

LOG_LINES = 2000


class DomainState(str, Enum):
    """Where a domain is in its life. The last three are ends; a preserved domain is in one and still exists."""

    BUILDING = "building"
    RUNNING = "running"
    BLOCKED = "blocked"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"
    DESTROYED = "destroyed"


ENDED = (DomainState.SHUTDOWN, DomainState.CRASHED, DomainState.DESTROYED)


class ExitReason(str, Enum):
    """How a domain ended: Xen's shutdown reasons, and what Domain 0 did."""

    POWEROFF = "poweroff"
    REBOOT = "reboot"
    SUSPEND = "suspend"
    CRASH = "crash"
    WATCHDOG = "watchdog"
    SOFT_RESET = "soft_reset"
    DESTROYED = "destroyed"
    FAILED = "failed"


@dataclass(slots=True)
class Exit:
    """An end, with a line that says more."""

    reason: ExitReason
    message: str
    at: float = field(default_factory=time.time)


@dataclass(slots=True, eq=False)
class Record:
    """A domain. It keeps its record, uuid and console over reboots, and gets a new domid with each.

    `ending` says that all it has is being given back, `gone` that this is done.
    """

    config: DomainConfig
    domid: int | None = None
    state: DomainState = DomainState.BUILDING
    console: Console = field(default_factory=Console)
    worker: Worker | None = None
    exit: Exit | None = None
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    cpu_ns: int = 0
    memory_target_mib: int = 0
    reboots: int = 0
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

    @property
    def ended(self) -> bool:
        """Whether its guest does not run any more."""
        return self.state in ENDED


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
