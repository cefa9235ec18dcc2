# SPDX-License-Identifier: Apache-2.0
"""Who has logged in: the page's cookie, and XenAPI's session references.

A session is a secret that its client shows in the place of a password or a token. What it gives is looked up whenever
it is shown (`Users.again`): it ends with the token, the password or the user that it was opened by.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from enum import Enum
from uuid import UUID, uuid4

from domzero.dom0.actors import Actor
from domzero.dom0.bell import Bell

SESSIONS_MAX = 3000
SESSIONS_OF_USER_MAX = 500


class Door(Enum):
    """What a session is for, and for how long: seconds without a use, and in all."""

    PAGE = (12 * 3600.0, 7 * 24 * 3600.0)
    XENAPI = (24 * 3600.0, float("inf"))


@dataclass(slots=True, eq=False)
class Session:
    """One login.

    :param actor: who it is, with what they might at the login.
    :param shown: the name that was given at the login.
    :param origin: what the client calls itself.
    :param id: the secret.
    :param uuid: names it where the secret must not be seen.
    :param csrf: what a page of ours sends along with each change, and another site's page cannot know.
    :param last_active: Unix time.
    :param notes: that its client keeps with it.
    :param event_classes: that XenAPI's legacy messages of `event` have registered.
    :param event_token: of what they have told already.
    """

    door: Door
    actor: Actor
    shown: str
    origin: str
    id: str
    uuid: UUID = field(default_factory=uuid4)
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    created_at: float = field(default_factory=time.time)
    last_active: float = field(default_factory=time.time)
    started_mono: float = field(default_factory=time.monotonic)
    used_mono: float = field(default_factory=time.monotonic)
    notes: dict[str, str] = field(default_factory=dict)
    event_classes: set[str] = field(default_factory=set)
    event_token: str = ""

    @property
    def user(self) -> str:
        """Whose it is."""
        return self.actor.name

    @property
    def is_over(self) -> bool:
        """Whether it has not been used for long, or is old."""
        now = time.monotonic()
        idle, life = self.door.value
        return now - self.used_mono > idle or now - self.started_mono > life


class Sessions:
    """The sessions; the ones that were used longest ago give way to new ones.

    :param bell: rung when one is closed.
    """

    def __init__(self, bell: Bell | None = None) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._bell = bell or Bell()

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._sessions

    def open(self, door: Door, actor: Actor, origin: str = "", *, shown: str = "") -> Session:
        """A new one.

        :param shown: the name that was given; empty: the user's.
        """
        identifier = secrets.token_urlsafe(32) if door is Door.PAGE else str(uuid4())
        actor = replace(actor, proof=replace(actor.proof, session=identifier))
        session = Session(door, actor, shown or actor.name, origin, identifier)
        theirs = [each for each in self._sessions.values() if each.user == session.user]
        if len(theirs) >= SESSIONS_OF_USER_MAX:
            self.close(theirs[0].id)
        self._sessions[session.id] = session
        while len(self._sessions) > SESSIONS_MAX:
            self.close(next(iter(self._sessions)))
        return session

    def get(self, door: Door, identifier: str) -> Session | None:
        """The session of this id at a door, if it is not over."""
        session = self._sessions.get(identifier)
        if session is None or session.door is not door:
            return None
        if session.is_over:
            self.close(identifier)
            return None
        session.used_mono, session.last_active = time.monotonic(), time.time()
        self._sessions.move_to_end(identifier)
        return session

    def close(self, identifier: str) -> None:
        """Logs out; what was opened by it ends."""
        if self._sessions.pop(identifier, None) is not None:
            self._bell.ring()

    def all(self, door: Door) -> list[Session]:
        """Those of a door that are not over."""
        return [session for session in self._sessions.values() if session.door is door and not session.is_over]
