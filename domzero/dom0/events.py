# SPDX-License-Identifier: Apache-2.0
"""What has changed since when: a journal that keeps the last change of each object, in the database.

A reader shows the token of what it has seen, and gets each object that changed after it once, however often it did.
The journal of one that comes back after a restart of Domain 0 is still there. Only objects that were removed are
forgotten, the oldest first: who has a token from before that is told, and reads everything again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from sqlite3 import Cursor

from domzero.dom0.database import Database

REMOVED_KEPT = 10_000
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
            known = cursor.execute(
                "DELETE FROM events WHERE class = ? AND ref = ? RETURNING operation", (kind, str(ref))
            ).fetchone()
            if operation is Operation.MOD and known is not None and known[0] == "add":
                operation = Operation.ADD  # a reader may not have seen it yet
            cursor.execute(
                "INSERT INTO events (at, class, ref, operation) VALUES (?, ?, ?, ?)",
                (time.time(), kind, str(ref), operation.value),
            )
            if operation is Operation.DEL:
                self._removed += 1
                if self._removed % 1000 == 0:
                    self._forget(cursor)
        self._come.set()
        self._come = asyncio.Event()

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

        :param kinds: of objects; all if None.
        """
        rows = self._database.rows("SELECT * FROM events WHERE id > ? ORDER BY id", (token,))
        return [
            Event(row["id"], row["at"], row["class"], row["ref"], Operation(row["operation"]))
            for row in rows
            if kinds is None or row["class"] in kinds
        ]

    async def wait(self, token: int, kinds: Collection[str] | None = None, timeout: float = 30.0) -> list[Event]:
        """As `since`; waits until there is something, so many seconds have passed, or Domain 0 ends."""
        deadline = time.monotonic() + timeout
        while (
            not (found := self.since(token, kinds)) and not self._closed and (rest := deadline - time.monotonic()) > 0
        ):
            with suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(self._come.wait(), rest)
        return found
