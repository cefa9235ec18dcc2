# SPDX-License-Identifier: Apache-2.0
"""Events: what has changed since a client looked last. One for each object, however often it changed meanwhile.

All objects are compared with what they were; nothing that changes has to tell what it changed, only that it is worth
looking. What is seen goes into Domain 0's one journal (`dom0.events`), with a digest of each object: a token names a
moment of that journal's, and is good after a restart, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from domzero.dom0 import events
from domzero.dom0.database import Database
from domzero.dom0.events import Operation, Seen
from domzero.dom0.names import as_uuid
from domzero.dom0.xenapi.failure import Failure

LOOK_SECONDS = 5.0
"""Between two looks while somebody waits and nothing was said."""
TIMEOUT_MAX = 3600.0
_NAME = "xenapi_events"


@dataclass(slots=True)
class _Entry:
    seen: Seen
    compared: Any
    snapshot: Any
    audience: Audience


@dataclass(frozen=True)
class Event:
    """One of them.

    :param operation: add, mod or del.
    :param id: the journal's number.
    """

    kind: str
    operation: str
    reference: UUID
    snapshot: Any
    id: int
    at: float


Audience = Collection[UUID | str]
"""Who may look at an object beside those who may look at everything: who may look at one of these domains, and the
users of these names."""
Snapshots = dict[str, dict[UUID, tuple[Any, Any, Audience]]]
"""By class and object: what its changes are seen by, its record, and its audience."""
Wants = Callable[[str, UUID, Audience], bool]
"""Whether somebody wants to know of an object of a class, and may."""


class Journal:
    """All objects as they were seen last.

    :param look: how they are now.
    :param journal: Domain 0's.
    """

    def __init__(self, look: Callable[[], Awaitable[Snapshots]], journal: events.Journal, database: Database) -> None:
        self._look = look
        self._journal = journal
        self._name = _name_of(database)
        self._known: dict[tuple[str, UUID], Seen] = {(seen.kind, UUID(seen.ref)): seen for seen in journal.objects()}
        self._entries: dict[tuple[str, UUID], _Entry] = {}
        self._stirred = asyncio.Event()
        self._looking = asyncio.Lock()

    def stir(self) -> None:
        """Something may have changed."""
        self._stirred.set()

    @property
    def generation(self) -> int:
        """The number of what was seen last."""
        return self._journal.token

    def counts(self, may_see: Callable[[Audience], bool]) -> dict[str, int]:
        """Objects of each class, of those that somebody may look at."""
        found: dict[str, int] = {}
        for (kind, _), entry in self._entries.items():
            if may_see(entry.audience):
                found[kind] = found.get(kind, 0) + 1
        return found

    async def refresh(self) -> None:
        """Looks at everything."""
        async with self._looking:
            self._stirred.clear()
            self._compare(await self._look())

    def _compare(self, now: Snapshots) -> None:
        changes: list[tuple[Seen, Operation]] = []
        entries: dict[tuple[str, UUID], _Entry] = {}
        for kind, objects in now.items():
            for identity, (compared, snapshot, audience) in objects.items():
                key = (kind, identity)
                entry, known = self._entries.get(key), self._known.get(key)
                if entry is not None and entry.compared == compared and known is not None:
                    entries[key] = _Entry(known, compared, snapshot, audience)
                    continue
                seen = Seen(kind, str(identity), _digest(compared), tuple(map(str, audience)))
                if known is None:
                    changes.append((seen, Operation.ADD))
                elif known.digest != seen.digest:
                    changes.append((seen, Operation.MOD))
                entries[key] = _Entry(known or seen, compared, snapshot, audience)
        changes += [(seen, Operation.DEL) for key, seen in self._known.items() if key not in entries]
        if changes:
            for seen in self._journal.note_objects(changes):
                key = (seen.kind, UUID(seen.ref))
                if key in entries:
                    self._known[key] = entries[key].seen = seen
                else:
                    del self._known[key]
        self._entries = entries

    def token(self) -> str:
        """The present moment's."""
        return f"{self._journal.token},{self._name}"

    def _since(self, token: str) -> int:
        if not token:
            return -1
        number, comma, name = token.partition(",")
        if not comma or not (number.isascii() and number.isdecimal()) or len(number) > 18 or len(name) > 64:
            raise Failure("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
        if name != self._name or self._journal.has_lost(int(number)):
            raise Failure("EVENTS_LOST")
        return int(number)

    def _events(self, since: int, wants: Wants) -> list[Event]:
        found = [
            Event(
                kind,
                "add" if entry.seen.born > since else "mod",
                identity,
                entry.snapshot,
                entry.seen.changed,
                entry.seen.at,
            )
            for (kind, identity), entry in self._entries.items()
            if entry.seen.changed > since and wants(kind, identity, entry.audience)
        ]
        if since >= 0:
            for gone in self._journal.removed_objects(since):
                audience = [as_uuid(each) or each for each in gone.audience]
                if wants(gone.kind, identity := UUID(gone.ref), audience):
                    found.append(Event(gone.kind, "del", identity, None, gone.token, gone.at))
        return sorted(found, key=lambda event: event.id)

    async def since(self, token: str, wants: Wants, timeout: float) -> tuple[list[Event], str]:
        """What has happened since a token, waiting for something for a time, and the token of the moment after that:
        others look meanwhile, and it is theirs a turn of the event loop later. Failure: EVENTS_LOST.

        :param token: empty: everything that is there.
        :param wants: whom it is for.
        """
        since = self._since(token)
        deadline = time.monotonic() + min(max(0.0, timeout), TIMEOUT_MAX)
        while True:
            await self.refresh()
            if since >= 0 and self._journal.has_lost(since):
                raise Failure("EVENTS_LOST")
            found = self._events(since, wants)
            left = deadline - time.monotonic()
            if found or left <= 0 or self._journal.is_closed:
                return found, self.token()
            await self._anything(min(left, LOOK_SECONDS))

    async def _anything(self, seconds: float) -> None:
        """Returns when something may have changed."""
        waits = [
            asyncio.ensure_future(self._stirred.wait()),
            asyncio.ensure_future(self._journal.wait(self._journal.token, None, seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


def _name_of(database: Database) -> str:
    """What tokens of this database have in them, so that another one's are known."""
    with database.write() as cursor:
        cursor.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (_NAME, secrets.token_hex(4)))
    return str(database.rows("SELECT value FROM settings WHERE key = ?", (_NAME,))[0]["value"])


def _digest(compared: Any) -> str:
    return hashlib.sha256(json.dumps(compared, sort_keys=True, default=str).encode()).hexdigest()[:32]
