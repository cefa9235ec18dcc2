# SPDX-License-Identifier: Apache-2.0
"""Events: what has changed since a client looked last. One for each object, however often it changed meanwhile.

The journal compares what all objects are with what they were; nothing that changes has to tell it what it changed, only
that it is worth looking. A token names a moment of this journal's.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from domzero.dom0.xenapi.failure import Failure

GONE_KEPT = 10_000
"""Objects that are gone and whose end is still told."""
LOOK_SECONDS = 5.0
"""Between two looks while somebody waits and nothing was said."""
TIMEOUT_MAX = 3600.0


@dataclass(slots=True)
class _Entry:
    born: int
    changed: int
    digest: Any
    snapshot: Any
    at: float
    audience: Audience


@dataclass(frozen=True)
class Event:
    """One of them.

    :param operation: add, mod or del.
    :param id: the generation in which it happened.
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
    :param wait: returns when Domain 0 has noted an event, or so many seconds have passed.
    """

    def __init__(self, look: Callable[[], Awaitable[Snapshots]], wait: Callable[[float], Awaitable[object]]) -> None:
        self._look = look
        self._wait = wait
        self._name = secrets.token_hex(4)
        self._generation = 0
        self._entries: dict[tuple[str, UUID], _Entry] = {}
        self._gone: OrderedDict[tuple[str, UUID], tuple[int, float, Audience]] = OrderedDict()
        self._lost_before = 0
        self._stirred = asyncio.Event()
        self._looking = asyncio.Lock()

    def stir(self) -> None:
        """Something may have changed."""
        self._stirred.set()

    @property
    def generation(self) -> int:
        """The present one."""
        return self._generation

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
        generation, at = self._generation + 1, time.time()
        seen: set[tuple[str, UUID]] = set()
        for kind, objects in now.items():
            for identity, (digest, snapshot, audience) in objects.items():
                key = (kind, identity)
                seen.add(key)
                entry = self._entries.get(key)
                if entry is None:
                    self._entries[key] = _Entry(generation, generation, digest, snapshot, at, audience)
                    self._gone.pop(key, None)
                    self._generation = generation
                elif entry.digest != digest:
                    entry.changed, entry.digest, entry.at = generation, digest, at
                    self._generation = generation
                    entry.snapshot, entry.audience = snapshot, audience
                else:
                    entry.snapshot, entry.audience = snapshot, audience
        for key in self._entries.keys() - seen:
            self._gone[key] = (generation, at, self._entries.pop(key).audience)
            self._generation = generation
        while len(self._gone) > GONE_KEPT:
            _, (lost, _at, _audience) = self._gone.popitem(last=False)
            self._lost_before = lost

    def token(self) -> str:
        """The present moment's."""
        return f"{self._generation},{self._name}"

    def _since(self, token: str) -> int:
        if not token:
            return -1
        number, comma, name = token.partition(",")
        if not comma or not (number.isascii() and number.isdecimal()) or len(number) > 19 or len(name) > 64:
            raise Failure("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
        if name != self._name or int(number) < self._lost_before:
            raise Failure("EVENTS_LOST")
        return int(number)

    def _events(self, since: int, wants: Wants) -> list[Event]:
        found = [
            Event(kind, "add" if entry.born > since else "mod", identity, entry.snapshot, entry.changed, entry.at)
            for (kind, identity), entry in self._entries.items()
            if entry.changed > since and wants(kind, identity, entry.audience)
        ]
        if since >= 0:
            found += [
                Event(kind, "del", identity, None, generation, at)
                for (kind, identity), (generation, at, audience) in self._gone.items()
                if generation > since and wants(kind, identity, audience)
            ]
        return sorted(found, key=lambda event: event.id)

    async def since(self, token: str, wants: Wants, timeout: float) -> list[Event]:
        """What has happened since a token, waiting for something for a time. Failure: EVENTS_LOST.

        :param token: empty: everything that is there.
        :param wants: whom it is for.
        """
        since = self._since(token)
        deadline = time.monotonic() + min(max(0.0, timeout), TIMEOUT_MAX)
        while True:
            await self.refresh()
            if since < self._lost_before and since >= 0:
                raise Failure("EVENTS_LOST")
            events = self._events(since, wants)
            left = deadline - time.monotonic()
            if events or left <= 0:
                return events
            await self._anything(min(left, LOOK_SECONDS))

    async def _anything(self, seconds: float) -> None:
        """Returns when something may have changed."""
        waits = [asyncio.ensure_future(self._stirred.wait()), asyncio.ensure_future(self._wait(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
