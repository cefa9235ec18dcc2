# SPDX-License-Identifier: Apache-2.0
"""The one way in which something is done: permission, audit line, and the work."""

from __future__ import annotations

import dataclasses
import json
import time
from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from domzero.dom0.actors import Actor, PermissionDenied, Role
from domzero.dom0.database import Database
from domzero.dom0.hostfiles import HostFile
from domzero.dom0.manager import Manager
from domzero.dom0.places import check_files
from domzero.dom0.records import Record
from domzero.dom0.roster import NotFound
from domzero.dom0.tasks import Task, Tasks
from domzero.errors import DomzeroError

R = TypeVar("R")
AUDIT_KEPT = 100_000
AUDIT_TEXT_MAX = 2000


@dataclass(slots=True, frozen=True, kw_only=True)
class Action(Generic[R]):
    """Something that can be done.

    `kind` is its name (`domain.start`), `role` the least that may do it.
    """

    kind: ClassVar[str]
    role: ClassVar[Role]

    @property
    def target(self) -> UUID | None:
        """The domain that it is about."""
        return None

    @abstractmethod
    async def run(self, manager: Manager) -> R:
        """Does it, asked for by somebody who may."""

    def may_be_done_by(self, actor: Actor) -> bool:
        """Whether somebody may do it without the role, because it is theirs."""
        return False

    def detail(self) -> dict[str, Any]:
        """What the audit line says of it."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "domain"]
        return {name: _plain(getattr(self, name)) for name in names}

    def host_files(self) -> list[HostFile]:
        """Files and directories of the host that it names: Domain 0 would open them as its owner."""
        return []


@dataclass(slots=True, frozen=True, kw_only=True)
class DomainAction(Action[R]):
    """Something that is done with a domain that is there.

    :param domain: its uuid.
    """

    domain: UUID

    @property
    def target(self) -> UUID | None:
        """The domain."""
        return self.domain

    async def run(self, manager: Manager) -> R:
        """Does it with the domain's record."""
        return await self.apply(manager, manager.find(str(self.domain)))

    def kept_files(self, record: Record) -> list[HostFile]:
        """Those of its files that the domain has already, for the same use."""
        return []

    @abstractmethod
    async def apply(self, manager: Manager, record: Record) -> R:
        """Does it."""


@dataclass(slots=True, frozen=True)
class AuditLine:
    """Who did what, and what came of it.

    :param at: Unix time.
    :param outcome: `ok`, `refused`, `cancelled`, or the error.
    """

    id: int
    at: float
    actor: str
    via: str
    action: str
    domain: str | None
    detail: str
    outcome: str


class Actions:
    """What doors give actions to."""

    def __init__(self, manager: Manager, tasks: Tasks) -> None:
        self.manager = manager
        self.tasks = tasks
        self._audit = AuditLog(manager.database)

    async def perform(self, actor: Actor, action: Action[R]) -> R:
        """Does it and waits for the end. PermissionDenied, and whatever the action raises."""
        self.check(actor, action)
        outcome = "cancelled"
        try:
            result = await action.run(self.manager)
            outcome = "ok"
            return result
        except DomzeroError as error:
            outcome = str(error)
            raise
        except Exception as error:
            outcome = f"a fault of Domain 0: {type(error).__name__}"
            raise
        finally:
            self._audit.write(actor, action, outcome)

    def begin(self, actor: Actor, action: Action[Any]) -> Task:
        """Does it in a task. PermissionDenied at once."""
        self.check(actor, action)
        return self.tasks.begin(action.kind, self.perform(actor, action), actor.name, action.target)

    def check(self, actor: Actor, action: Action[Any]) -> None:
        """Raises PermissionDenied, with a line in the audit log, unless the actor may."""
        try:
            if not action.may_be_done_by(actor):
                actor.check(action.role, action.kind, action.target)
            if not actor.may(Role.POOL_ADMIN):
                check_files(self._new_files(action), self.manager.database, self._files_of(actor))
        except PermissionDenied:
            self._audit.write(actor, action, "refused")
            raise

    def _new_files(self, action: Action[Any]) -> list[HostFile]:
        """What an action names beyond what its domain has already, whoever gave it that."""
        named = action.host_files()
        if not named or not isinstance(action, DomainAction):
            return named
        try:
            kept = action.kept_files(self.manager.find(str(action.domain)))
        except NotFound:
            kept = []
        return [file for file in named if file not in kept]

    def _files_of(self, actor: Actor) -> list[HostFile] | None:
        """The files of the domains that an actor may look at; None: they may look at all."""
        if actor.may(Role.READ_ONLY):
            return None
        records = [record for record in self.manager.all(halted=True) if self.visible(actor, record)]
        return [file for record in records for file in record.config.host_files()]

    def visible(self, actor: Actor, record: Record) -> bool:
        """Whether an actor may see a domain."""
        return actor.may(Role.READ_ONLY, record.uuid)

    def find(self, actor: Actor, key: str) -> Record:
        """The domain of this domid, uuid or name; NotFound, too, for one that the actor may not see."""
        record = self.manager.find(key)
        if not self.visible(actor, record):
            raise NotFound(f"no such domain: {key[:80]}")
        return record

    def audit(self, *, before: int | None = None, limit: int = 100, domain: UUID | None = None) -> list[AuditLine]:
        """The last lines, newest first."""
        return self._audit.lines(before=before, limit=limit, domain=domain)


class AuditLog:
    """The table of who did what."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, actor: Actor, action: Action[Any], outcome: str) -> None:
        """A line; the oldest go when there are too many."""
        detail = json.dumps(action.detail())
        with self._database.write() as cursor:
            cursor.execute(
                "INSERT INTO audit (at, actor, via, action, domain, detail, outcome) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    time.time(),
                    actor.name,
                    actor.via,
                    action.kind,
                    None if action.target is None else str(action.target),
                    detail[:AUDIT_TEXT_MAX],
                    outcome[:AUDIT_TEXT_MAX],
                ),
            )
            if (last := cursor.lastrowid or 0) % 1000 == 0:
                cursor.execute("DELETE FROM audit WHERE id <= ?", (last - AUDIT_KEPT,))

    def lines(self, *, before: int | None, limit: int, domain: UUID | None) -> list[AuditLine]:
        """The last lines, newest first."""
        rows = self._database.rows(
            "SELECT * FROM audit WHERE id < ? AND (? IS NULL OR domain = ?) ORDER BY id DESC LIMIT ?",
            (
                before if before is not None else 1 << 62,
                *(2 * [None if domain is None else str(domain)]),
                limit,
            ),
        )
        return [AuditLine(**dict(row)) for row in rows]


def _plain(value: object) -> Any:
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _plain(item) for name, item in fields.items() if item is not None}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


__all__ = ["AUDIT_KEPT", "Action", "Actions", "AuditLine", "AuditLog", "DomainAction"]
