# SPDX-License-Identifier: Apache-2.0
"""A domain's states, how it ended, and what comes next: the one rule of `domzero run` and of Domain 0.

Pure: no clock, no threads. The actions are xl's (`handle_domain_death`): suspend keeps the domain, a reason that nobody
knows destroys it, and so does a soft reset, which Xen has for HVM alone, unless something else is asked for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum

from domzero.abi.sched import ShutdownReason
from domzero.dom0.config import Action, DomainConfig

QUICK_S = 1.0
"""A start that ends sooner is a quick one. The next start waits until this time has passed (xl waits two seconds)."""
QUICK_CRASHES_MAX = 3
"""So many quick crashes in a row are answered with another start; after one more the domain is given up."""
MESSAGE_MAX = 1000


class DomainState(str, Enum):
    """What a domain is doing, in xl's words. The last five are ends; a preserved domain is in one and still exists."""

    BUILDING = "building"
    RUNNING = "running"
    BLOCKED = "blocked"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"
    DESTROYED = "destroyed"
    HALTED = "halted"
    """It is defined, and does not exist as a domain."""
    SUSPENDED = "suspended"
    """The same, and it goes on from a file when it is resumed."""

    @property
    def is_end(self) -> bool:
        """Whether the guest does not run any more."""
        return self in _ENDS


_ENDS = (
    DomainState.SHUTDOWN,
    DomainState.CRASHED,
    DomainState.DESTROYED,
    DomainState.HALTED,
    DomainState.SUSPENDED,
)


class EndReason(str, Enum):
    """Why a domain ended: what its guest told Xen (xl.cfg's `on_...`), or what was done to it."""

    POWEROFF = "poweroff"
    REBOOT = "reboot"
    SUSPEND = "suspend"
    CRASH = "crash"
    WATCHDOG = "watchdog"
    SOFT_RESET = "soft_reset"
    UNKNOWN = "unknown"
    """A shutdown reason that is none of Xen's."""
    DESTROYED = "destroyed"
    """By request."""
    FAILED = "failed"
    """It could not be started (again)."""
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    TERMINATED = "terminated"
    CLOSED = "closed"
    """Nobody reads its console any more."""

    @property
    def exit_status(self) -> int:
        """What `domzero run` and `domzero create -F` end with."""
        return _FACTS[self][0]

    @property
    def words(self) -> str:
        """What a person is told."""
        return _FACTS[self][1]

    @property
    def is_crash(self) -> bool:
        """Whether its guest failed."""
        return self in (EndReason.CRASH, EndReason.WATCHDOG)

    @property
    def is_forced(self) -> bool:
        """Whether somebody else ended it."""
        return self in _FORCED


_FORCED = (
    EndReason.DESTROYED,
    EndReason.TIMEOUT,
    EndReason.INTERRUPTED,
    EndReason.TERMINATED,
    EndReason.CLOSED,
)
_FACTS = {
    EndReason.POWEROFF: (0, "the guest powered off"),
    EndReason.REBOOT: (4, "the guest asked for a reboot"),
    EndReason.SUSPEND: (5, "the guest suspended itself"),
    EndReason.CRASH: (3, "the guest crashed"),
    EndReason.WATCHDOG: (6, "the guest's watchdog fired"),
    EndReason.SOFT_RESET: (1, "the guest asked for a soft reset, which no PV domain has"),
    EndReason.UNKNOWN: (1, "the guest shut down for a reason that Xen does not know"),
    EndReason.DESTROYED: (1, "the domain was destroyed"),
    EndReason.FAILED: (1, "the domain could not be started"),
    EndReason.TIMEOUT: (124, "timeout: the guest was ended"),
    EndReason.INTERRUPTED: (130, "interrupted: the guest was ended"),
    EndReason.TERMINATED: (143, "terminated: the guest was ended"),
    EndReason.CLOSED: (1, "stdout was closed: the guest was ended"),
}

_OF_XEN = {
    ShutdownReason.SHUTDOWN_poweroff: EndReason.POWEROFF,
    ShutdownReason.SHUTDOWN_reboot: EndReason.REBOOT,
    ShutdownReason.SHUTDOWN_suspend: EndReason.SUSPEND,
    ShutdownReason.SHUTDOWN_crash: EndReason.CRASH,
    ShutdownReason.SHUTDOWN_watchdog: EndReason.WATCHDOG,
    ShutdownReason.SHUTDOWN_soft_reset: EndReason.SOFT_RESET,
}


@dataclass(slots=True, frozen=True)
class End:
    """The end of one start of a domain.

    :param detail: what there is to say besides: a crash report, the number of an unknown reason.
    :param at: Unix time.
    """

    reason: EndReason
    detail: tuple[str, ...] = ()
    at: float = field(default_factory=time.time, compare=False)

    @classmethod
    def of_shutdown(cls, code: int, report: tuple[str, ...] = ()) -> End:
        """The end that a guest told Xen.

        :param code: as Xen keeps it (enum sched_shutdown_reason, 8 bits).
        :param report: of a crash.
        """
        reason = _OF_XEN.get(code, EndReason.UNKNOWN)  # type: ignore[call-overload]
        if reason is EndReason.UNKNOWN:
            return cls(reason, (f"shutdown reason {code}",))
        return cls(reason, report if reason.is_crash else ())

    def noted(self, note: str) -> End:
        """With one more line of detail, unless it is empty."""
        return End(self.reason, (*self.detail, note), self.at) if note else self

    @property
    def state(self) -> DomainState:
        """What a domain that ended so is in."""
        if self.reason.is_forced:
            return DomainState.DESTROYED
        failed = self.reason.is_crash or self.reason is EndReason.FAILED
        return DomainState.CRASHED if failed else DomainState.SHUTDOWN

    @property
    def message(self) -> str:
        """One line."""
        text = f"{self.reason.value}: {self.detail[0]}" if self.detail else self.reason.value
        return text[:MESSAGE_MAX]


@dataclass(slots=True, frozen=True)
class Next:
    """What comes after an end.

    :param delay_s: before a restart.
    :param quick_crashes: in a row until now, for the next call.
    :param core: a core dump comes before it.
    :param note: why it is not what the configuration asks for; or empty.
    """

    action: Action
    delay_s: float = 0.0
    quick_crashes: int = 0
    note: str = ""
    core: bool = False


def after_end(config: DomainConfig, end: End, lived_s: float, quick_crashes: int = 0) -> Next:
    """What comes next.

    :param lived_s: seconds from the start to the end.
    :param quick_crashes: what the last answer said (0 at first).
    """
    wanted = {
        EndReason.POWEROFF: config.on_poweroff,
        EndReason.REBOOT: config.on_reboot,
        EndReason.SUSPEND: Action.PRESERVE,
        EndReason.CRASH: config.on_crash,
        EndReason.WATCHDOG: config.on_watchdog,
        EndReason.SOFT_RESET: config.on_soft_reset,
    }.get(end.reason, Action.DESTROY)
    action, core = wanted.after_dump, wanted.dumps_core
    if action is not Action.RESTART:
        return Next(action, core=core)
    is_quick = lived_s < QUICK_S
    delay_s = QUICK_S - max(0.0, lived_s) if is_quick else 0.0
    if not (is_quick and end.reason.is_crash):
        return Next(action, delay_s, core=core)
    if quick_crashes >= QUICK_CRASHES_MAX:
        return Next(
            Action.DESTROY,
            core=core,
            note=f"not restarted: {quick_crashes + 1} starts in a row ended within {QUICK_S:g} s",
        )
    return Next(action, delay_s, quick_crashes + 1, core=core)


__all__ = ["DomainState", "End", "EndReason", "Next", "after_end"]
