# SPDX-License-Identifier: Apache-2.0
"""What XenAPI's classes are made of: Domain 0, and what this door keeps besides."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from domzero.dom0.config import DomainConfig
from domzero.dom0.life import DomainState
from domzero.dom0.manager import Manager
from domzero.dom0.names import DOMAIN_0
from domzero.dom0.records import Record
from domzero.dom0.xenapi.fields import Fields
from domzero.dom0.xenapi.journal import Journal, Snapshots
from domzero.dom0.xenapi.sessions import Session, Sessions
from domzero.dom0.xenapi.tasks import TaskBook

NAMESPACE = uuid5(NAMESPACE_URL, "domzero:xenapi")


def derived(base: UUID, what: str) -> UUID:
    """The identity of something that another object has one of, the same after each start."""
    return uuid5(base, what)


def _host_identity() -> UUID:
    name = platform.node()
    with suppress(OSError):
        name = Path("/etc/machine-id").read_text().strip() or name
    return uuid5(NAMESPACE, f"host:{name}")


@dataclass(frozen=True)
class Peer:
    """Who sends a message, as HTTP's door found out.

    :param over_tcp: it came over TCP, and nothing is known of who sent it.
    """

    over_tcp: bool


class World:
    """All there is.

    :param look: how all objects are now, for events.
    :param token: what a password over TCP has to be; None: nothing passes.
    """

    def __init__(
        self, manager: Manager, look: Callable[[World], Awaitable[Snapshots]], token: str | None = None
    ) -> None:
        self.manager = manager
        self.url = "http://localhost"
        self.address = "127.0.0.1"
        self._token = token
        self.host = _host_identity()
        self.pool = derived(self.host, "pool")
        self.sessions = Sessions()
        self.fields = Fields()
        self.journal = Journal(lambda: look(self))
        self.tasks = TaskBook(self.journal.stir)
        config = DomainConfig(kernel="", name=DOMAIN_0, uuid=derived(self.host, "control domain"))
        self.control_domain = Record(config, domid=0, state=DomainState.RUNNING, started_at=manager.started_at)

    def authenticate(self, peer: Peer, _user: str, password: str) -> bool:
        """Whether somebody with this password may log in. On the Unix socket that is known before anything is said."""
        if not peer.over_tcp:
            return True
        token = (self._token or "").encode()
        return bool(token) and secrets.compare_digest(token, password.encode("utf-8", "replace"))

    def record(self, identity: UUID) -> Record | None:
        """A domain, Domain 0 among them."""
        return self.records().get(identity)

    def records(self) -> dict[UUID, Record]:
        """All domains that exist."""
        return {record.uuid: record for record in (self.control_domain, *self.manager.all(halted=True))}

    async def close(self) -> None:
        """Ends what is under way."""
        await self.tasks.close()


@dataclass(frozen=True)
class Call:
    """One message that is being carried out."""

    world: World
    session: Session | None
    peer: Peer

    @property
    def open_session(self) -> Session:
        """The session that it came with; a message without one has no business here."""
        if self.session is None:
            raise AssertionError("a message without a session asks for one")
        return self.session
