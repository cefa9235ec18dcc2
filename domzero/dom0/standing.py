# SPDX-License-Identifier: Apache-2.0
"""What stays open (consoles, screens, streams, transfers) ends when who has opened it may not any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from domzero.dom0.actors import Actor, PermissionDenied, Role
from domzero.dom0.bell import Bell
from domzero.dom0.users import NotAuthenticated

T = TypeVar("T")
LOOK_SECONDS = 3600.0
"""Between two looks when nothing was said."""


class Standing:
    """Whether somebody may still do what they have begun: looked up again when what users may has changed.

    :param again: what they may now; None: what they have shown counts no more.
    :param role: that it needs; None: none, being somebody is enough.
    :param what: it is.
    """

    def __init__(
        self,
        again: Callable[[Actor], Actor | None],
        bell: Bell,
        actor: Actor,
        role: Role | None,
        what: str,
        domain: UUID | None,
    ) -> None:
        self.actor = actor
        self._again = again
        self._bell = bell
        self._role = role
        self._what = what
        self._domain = domain
        self._seen = -1

    def check(self) -> Actor:
        """Who it is, with what they may now. NotAuthenticated, PermissionDenied."""
        expires = self.actor.proof.expires_at
        if self._seen == self._bell.count and (expires is None or time.time() < expires):
            return self.actor
        self._seen = self._bell.count
        now = self._again(self.actor)
        if now is None:
            self._seen = -1
            raise NotAuthenticated("what was shown at the login counts no more")
        self.actor = now
        if self._role is not None:
            try:
                now.check(self._role, self._what, self._domain)
            except PermissionDenied:
                self._seen = -1
                raise
        return now

    async def ends(self) -> NotAuthenticated | PermissionDenied:
        """Waits until they may not any more; why."""
        while True:
            try:
                self.check()
            except (NotAuthenticated, PermissionDenied) as error:
                return error
            expires = self.actor.proof.expires_at
            seconds = LOOK_SECONDS if expires is None else min(LOOK_SECONDS, max(0.0, expires - time.time()) + 0.01)
            await self._bell.wait(self._seen, seconds)

    async def during(self, work: Awaitable[T]) -> T:
        """Waits for something as long as they may; it is given up then. NotAuthenticated, PermissionDenied."""
        job, ending = asyncio.ensure_future(work), asyncio.ensure_future(self.ends())
        try:
            await asyncio.wait({job, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                raise ending.result()
            self.check()
            return job.result()
        finally:
            for each in (job, ending):
                each.cancel()
            await asyncio.gather(job, ending, return_exceptions=True)

    async def pieces(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What comes from a source, as long as they may. NotAuthenticated, PermissionDenied."""
        async for piece in source:
            self.check()
            yield piece


__all__ = ["LOOK_SECONDS", "Standing"]
