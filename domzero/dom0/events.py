# SPDX-License-Identifier: Apache-2.0
"""What has changed since when: a journal that keeps the last change of each object, in the database.

A reader shows the token of what it has seen, and gets each object that changed after it once, however often it did.
The journal of one that comes back after a restart of Domain 0 is still there. Only objects that were removed are
forgotten, the oldest first: who has a token from before that is told, and reads everything again.

XenAPI's objects are in it, too, in kinds of their own (`OBJECTS`), which readers get that ask for them: one sequence of
tokens for all doors.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from sqlite3 import Cursor, Row

from domzero.dom0.bell import wait_set
from domzero.dom0.database import Database

REMOVED_KEPT = 30_000
OBJECTS = "xenapi."
"""Begins the kinds of XenAPI's objects."""
_FORGOTTEN = "events_forgotten"


class Operation(str, Enum):
    """What happened to an object (XenAPI's event_operation)."""

    ADD = "add"
    MOD = "mod"
    DEL = "del"


@dataclass(slots=True, frozen=True)
class Event:
    """The last change of an object.

    :param token: of the journal with this event in it.
    :param at: Unix time.
    :param kind: of object: domain, task, disk, storage, network, user, ...
    :param ref: which of them: its uuid, or its name.
    """

    token: int
    at: float
    kind: str
    ref: str
    operation: Operation
    audience: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Seen:
    """An object of XenAPI's, as it was seen last.

    :param kind: its class.
    :param digest: of what its changes are seen by.
    :param audience: who may know of it beside those who may look at everything.
    :param born: the token with which it came.
    :param changed: the token of its last change.
    :param at: Unix time of that.
    """

    kind: str
    ref: str
    digest: str
    audience: tuple[str, ...]
    born: int = 0
    changed: int = 0
    at: float = 0.0


class Journal:
    """The events."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._come = asyncio.Event()
        self._removed = 0
        self._closed = False

    @property
    def token(self) -> int:
        """Of all that has happened until now."""
        return int(self._database.rows("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'")[0][0])

    def note(self, kind: str, ref: object, operation: Operation = Operation.MOD) -> None:
        """Something has happened to an object."""
        with self._database.write() as cursor:
            self._write(cursor, Seen(kind, str(ref), "", ()), operation)
        self._come.set()
        self._come = asyncio.Event()

    def note_objects(self, changes: Iterable[tuple[Seen, Operation]]) -> list[Seen]:
        """Something was seen to have happened to objects of XenAPI's; they, with when it was."""
        with self._database.write() as cursor:
            return [
                self._write(cursor, replace(seen, kind=OBJECTS + seen.kind), operation) for seen, operation in changes
            ]

    def _write(self, cursor: Cursor, seen: Seen, operation: Operation) -> Seen:
        known = cursor.execute(
            "DELETE FROM events WHERE class = ? AND ref = ? RETURNING id, operation, born", (seen.kind, seen.ref)
        ).fetchone()
        born = None if operation is Operation.ADD else _born(known)
        at = time.time()
        cursor.execute(
            "INSERT INTO events (at, class, ref, operation, born, digest, audience) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                at,
                seen.kind,
                seen.ref,
                operation.value,
                born,
                seen.digest or None,
                json.dumps(seen.audience) if seen.audience else None,
            ),
        )
        token = cursor.lastrowid or 0
        if operation is Operation.DEL:
            self._removed += 1
            if self._removed % 1000 == 0:
                self._forget(cursor)
        kind = seen.kind.removeprefix(OBJECTS)
        return replace(seen, kind=kind, born=token if born is None else born, changed=token, at=at)

    def objects(self) -> list[Seen]:
        """XenAPI's objects that were there when they were seen last."""
        rows = self._database.rows("SELECT * FROM events WHERE class GLOB ? AND operation != 'del'", (f"{OBJECTS}*",))
        return [
            Seen(
                row["class"].removeprefix(OBJECTS),
                row["ref"],
                row["digest"] or "",
                tuple(json.loads(row["audience"] or "[]")),
                _born(row),
                row["id"],
                row["at"],
            )
            for row in rows
        ]

    @property
    def is_closed(self) -> bool:
        """Whether nobody waits any longer."""
        return self._closed

    def close(self) -> None:
        """Nobody waits any longer."""
        self._closed = True
        self._come.set()

    @staticmethod
    def _forget(cursor: Cursor) -> None:
        """Keeps the last objects that were removed."""
        row = cursor.execute(
            "SELECT id FROM events WHERE operation = 'del' ORDER BY id DESC LIMIT 1 OFFSET ?", (REMOVED_KEPT,)
        ).fetchone()
        if row is not None:
            cursor.execute("DELETE FROM events WHERE operation = 'del' AND id <= ?", (row[0],))
            cursor.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (_FORGOTTEN, str(row[0])))

    def has_lost(self, token: int) -> bool:
        """Whether something that happened after this token is forgotten, or the token is not of this journal."""
        rows = self._database.rows("SELECT value FROM settings WHERE key = ?", (_FORGOTTEN,))
        return token > self.token or (bool(rows) and token < int(rows[0][0]))

    def since(self, token: int, kinds: Collection[str] | None = None) -> list[Event]:
        """What changed after a token, oldest first.

        :param kinds: of objects; all but XenAPI's if None.
        """
        rows = self._database.rows(
            "SELECT * FROM events WHERE id > ? AND class NOT GLOB ? ORDER BY id", (token, f"{OBJECTS}*")
        )
        return [_event(row, token) for row in rows if kinds is None or row["class"] in kinds]

    def removed_objects(self, token: int) -> list[Event]:
        """XenAPI's objects that were removed after a token, oldest first."""
        rows = self._database.rows(
            "SELECT * FROM events WHERE id > ? AND class GLOB ? AND operation = 'del' ORDER BY id",
            (token, f"{OBJECTS}*"),
        )
        return [_event(row, token) for row in rows]

    async def wait(self, token: int, kinds: Collection[str] | None = None, timeout: float = 30.0) -> list[Event]:
        """As `since`; waits until there is something, so many seconds have passed, or Domain 0 ends."""
        deadline = time.monotonic() + timeout
        while (
            not (found := self.since(token, kinds)) and not self._closed and (rest := deadline - time.monotonic()) > 0
        ):
            await wait_set(self._come, rest)
        return found


def _born(row: Row | None) -> int:
    """The token with which the object of a row came; 0: before all of them."""
    if row is None or row["operation"] == "del":
        return 0
    if row["born"] is not None:
        return int(row["born"])
    return int(row["id"]) if row["operation"] == "add" else 0


def _event(row: Row, token: int) -> Event:
    """As somebody sees it who has seen all until a token."""
    operation = Operation(row["operation"])
    if operation is not Operation.DEL:
        operation = Operation.ADD if _born(row) > token else Operation.MOD
    kind, audience = row["class"].removeprefix(OBJECTS), tuple(json.loads(row["audience"] or "[]"))
    return Event(row["id"], row["at"], kind, row["ref"], operation, audience)
