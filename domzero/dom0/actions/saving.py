# SPDX-License-Identifier: Apache-2.0
"""Suspended and saved domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from domzero.dom0 import saving
from domzero.dom0.actions.base import Action, DomainAction
from domzero.dom0.actors import Role
from domzero.dom0.config import DomainConfig
from domzero.dom0.manager import Manager
from domzero.dom0.records import Record


@dataclass(slots=True, frozen=True, kw_only=True)
class SuspendDomain(DomainAction[None]):
    """Suspend a defined domain to a file of Domain 0's."""

    kind: ClassVar[str] = "domain.suspend"
    role: ClassVar[Role] = Role.VM_OPERATOR

    async def apply(self, manager: Manager, record: Record) -> None:
        """Suspends it."""
        await saving.suspend(manager, record)


@dataclass(slots=True, frozen=True, kw_only=True)
class ResumeDomain(DomainAction[Record]):
    """Go on with a suspended domain."""

    kind: ClassVar[str] = "domain.resume"
    role: ClassVar[Role] = Role.VM_OPERATOR
    paused: bool = False

    async def apply(self, manager: Manager, record: Record) -> Record:
        """Resumes it."""
        await saving.resume(manager, record, paused=self.paused)
        return record


@dataclass(slots=True, frozen=True, kw_only=True)
class SaveDomain(DomainAction[int]):
    """Save a domain to a file; its size.

    :param path: on the host, where the owner of Domain 0 may write: for who administers it.
    :param leave_running: it goes on afterwards.
    :param leave_paused: it is there afterwards, paused.
    :param config: with which it is restored, instead of its own.
    """

    kind: ClassVar[str] = "domain.save"
    role: ClassVar[Role] = Role.POOL_ADMIN
    path: str
    leave_running: bool = False
    leave_paused: bool = False
    config: DomainConfig | None = None

    def detail(self) -> dict[str, Any]:
        """Where to."""
        return {"path": self.path, "leave_running": self.leave_running, "leave_paused": self.leave_paused}

    async def apply(self, manager: Manager, record: Record) -> int:
        """Saves it."""
        return await saving.save(
            manager,
            record,
            self.path,
            leave_running=self.leave_running,
            leave_paused=self.leave_paused,
            config=self.config,
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class RestoreDomain(Action[Record]):
    """Make a domain of a file that `SaveDomain` has written.

    :param path: on the host: what is in it says which files the domain uses, so it is for who administers Domain 0.
    :param name: other than the saved one's.
    :param config: in place of the saved one.
    :param persistent: it is defined, too.
    """

    kind: ClassVar[str] = "domain.restore"
    role: ClassVar[Role] = Role.POOL_ADMIN
    path: str
    paused: bool = False
    name: str | None = None
    config: DomainConfig | None = None
    persistent: bool = False

    def detail(self) -> dict[str, Any]:
        """From where."""
        return {"path": self.path, "name": self.name, "paused": self.paused}

    async def run(self, manager: Manager) -> Record:
        """Restores it."""
        return await saving.restore(
            manager,
            self.path,
            paused=self.paused,
            name=self.name,
            config=self.config,
            persistent=self.persistent,
        )
