# SPDX-License-Identifier: Apache-2.0
"""Who has logged in: a session's reference is the secret that its client shows with each message."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from domzero.dom0.actors import Actor
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.values import identity_of

SESSIONS_MAX = 1000
"""At once; the one that was used longest ago gives way to a new one."""
IDLE_SECONDS = 24 * 3600.0


@dataclass(eq=False)
class Session:
    """One login.

    :param id: what its reference says.
    :param actor: who it is, with what they might at the login.
    :param by_token: a token was shown: it may give less than its user may.
    :param classes: that the legacy messages of `event` have registered.
    """

    user: str
    actor: Actor
    by_token: bool = False
    originator: str = ""
    id: UUID = field(default_factory=uuid4)
    uuid: UUID = field(default_factory=uuid4)
    created_at: float = field(default_factory=time.time)
    last_active: float = field(default_factory=time.time)
    other_config: dict[str, str] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)
    token: str = ""


class Sessions:
    """All that are open."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[UUID, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, user: str, actor: Actor, *, by_token: bool = False, originator: str = "") -> Session:
        """A new one."""
        self._expire()
        session = Session(user, actor, by_token, originator)
        self._sessions[session.id] = session
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return session

    def get(self, reference: Any) -> Session:
        """The session of a reference. Failure: SESSION_INVALID."""
        identity = identity_of(reference) if isinstance(reference, str) else None
        session = self._sessions.get(identity) if identity is not None else None
        if session is not None and time.time() - session.last_active > IDLE_SECONDS:
            session = None
        if session is None:
            raise Failure("SESSION_INVALID", reference if isinstance(reference, str) else "")
        session.last_active = time.time()
        self._sessions.move_to_end(session.id)
        return session

    def all(self) -> dict[UUID, Session]:
        """Those that are open."""
        return dict(self._sessions)

    def close(self, session: Session) -> None:
        """Ends one."""
        self._sessions.pop(session.id, None)

    def _expire(self) -> None:
        oldest_wanted = time.time() - IDLE_SECONDS
        while self._sessions and next(iter(self._sessions.values())).last_active < oldest_wanted:
            self._sessions.popitem(last=False)
