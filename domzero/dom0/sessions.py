# SPDX-License-Identifier: Apache-2.0
"""Who has logged in: the page's cookie, and XenAPI's session references."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field

IDLE_SECONDS = 12 * 3600.0
LIFE_SECONDS = 7 * 24 * 3600.0
SESSIONS_MAX = 2000
SESSIONS_OF_USER_MAX = 200


@dataclass(slots=True, eq=False)
class Session:
    """One login.

    :param id: 256 random bits as text: the cookie.
    :param csrf: what a page of ours sends along with each change, and another site's page cannot know.
    """

    user: str
    origin: str = ""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    created_at: float = field(default_factory=time.time)
    started_mono: float = field(default_factory=time.monotonic)
    used_mono: float = field(default_factory=time.monotonic)

    @property
    def is_over(self) -> bool:
        """Whether it has not been used for long, or is old."""
        now = time.monotonic()
        return now - self.used_mono > IDLE_SECONDS or now - self.started_mono > LIFE_SECONDS


class Sessions:
    """The sessions; the ones that were used longest ago give way to new ones."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def open(self, user: str, origin: str = "") -> Session:
        """A new one."""
        session = Session(user, origin)
        theirs = [each for each in self._sessions.values() if each.user == user]
        if len(theirs) >= SESSIONS_OF_USER_MAX:
            self.close(theirs[0].id)
        self._sessions[session.id] = session
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return session

    def get(self, identifier: str) -> Session | None:
        """The session of this id, if it is not over."""
        session = self._sessions.get(identifier)
        if session is None:
            return None
        if session.is_over:
            self.close(identifier)
            return None
        session.used_mono = time.monotonic()
        self._sessions.move_to_end(identifier)
        return session

    def close(self, identifier: str) -> None:
        """Logs out."""
        self._sessions.pop(identifier, None)

    def close_all(self, user: str) -> None:
        """Logs a user out everywhere."""
        for session in [each for each in self._sessions.values() if each.user == user]:
            self.close(session.id)

    def all(self) -> list[Session]:
        """Those that are not over."""
        return [session for session in self._sessions.values() if not session.is_over]
