# SPDX-License-Identifier: Apache-2.0
"""What XenAPI's classes are made of: Domain 0, and what this door keeps besides."""

from __future__ import annotations

import platform
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, UUID, uuid5

from domzero.dom0.about import About
from domzero.dom0.actions import Action
from domzero.dom0.actors import OWNER, Actor, Role
from domzero.dom0.config import DomainConfig
from domzero.dom0.life import DomainState
from domzero.dom0.names import DOMAIN_0
from domzero.dom0.records import Record
from domzero.dom0.services import Services
from domzero.dom0.sessions import Door, Session
from domzero.dom0.standing import Standing
from domzero.dom0.storage import Storage
from domzero.dom0.users import NotAuthenticated
from domzero.dom0.xenapi.asked import ASKED
from domzero.dom0.xenapi.failure import Failure, explain
from domzero.dom0.xenapi.fields import Fields
from domzero.dom0.xenapi.journal import Journal, Snapshots
from domzero.dom0.xenapi.values import identity_of, reference

T = TypeVar("T")
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
    :param url: where Domain 0 is reached over TCP; None: it is not.
    :param storage: of Domain 0.
    :param services: Domain 0, what can be done there, and who may.
    """

    def __init__(
        self,
        services: Services,
        storage: Storage,
        look: Callable[[World], Awaitable[Snapshots]],
        url: str | None = None,
    ) -> None:
        manager = services.manager
        self.services = services
        self.manager = manager
        self.storage = storage
        self.url = url or "http://localhost"
        self.address = urlsplit(self.url).hostname or "localhost"
        self.host = _host_identity()
        self.pool = derived(self.host, "pool")
        self.sessions = services.sessions
        self.fields = Fields(manager.database)
        self.journal = Journal(lambda: look(self), manager.events, manager.database)
        self.tasks = services.tasks
        self.tasks.explain = explain
        config = DomainConfig(kernel="", name=DOMAIN_0, uuid=derived(self.host, "control domain"))
        self.control_domain = Record(config, domid=0, state=DomainState.RUNNING, started_at=manager.started_at)
        config = DomainConfig(kernel="", name="Other PV guest", uuid=derived(NAMESPACE, "template"), memory_mib=512)
        about = About(description="A domain without disks and kernel", template=True)
        self.template = Record(config, state=DomainState.HALTED, about=about, created_at=manager.started_at)
        self._memo: dict[str, Any] | None = None

    async def authenticate(self, peer: Peer, user: str, password: str) -> Actor:
        """Who this is. On the Unix socket that is known before anything is said. NotAuthenticated."""
        if not peer.over_tcp:
            return OWNER
        return await self.services.log_in(user, password, "xenapi")

    def session(self, shown: Any) -> Session:
        """The session of a reference. Failure: SESSION_INVALID."""
        identity = identity_of(shown) if isinstance(shown, str) else None
        session = None if identity is None else self.sessions.get(Door.XENAPI, str(identity))
        if session is None:
            raise Failure("SESSION_INVALID", shown if isinstance(shown, str) else "")
        return session

    def open_sessions(self) -> dict[UUID, Session]:
        """Those of this door, by what their references say."""
        return {UUID(session.id): session for session in self.sessions.all(Door.XENAPI)}

    def actor_of(self, session: Session) -> Actor:
        """Who has opened a session, with what they may now; it may be closed, while what was begun by it goes on.

        Failure: what was shown at the login counts no more.
        """
        now = self.services.users.again(session.actor)
        if now is None:
            self.sessions.close(session.id)
            raise Failure("SESSION_INVALID", reference(UUID(session.id)))
        return now

    def record(self, identity: UUID) -> Record | None:
        """A domain, Domain 0 among them."""
        return self.records().get(identity)

    def records(self) -> dict[UUID, Record]:
        """All domains that exist."""
        every = (self.control_domain, self.template, *self.manager.all(halted=True))
        return {record.uuid: record for record in every}

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gives: the same for all who want it in one `still`."""
        if self._memo is None:
            return make()
        if key not in self._memo:
            self._memo[key] = make()
        found: T = self._memo[key]
        return found

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing changes in this block, which awaits nothing."""
        outer = self._memo
        self._memo = {} if outer is None else outer
        try:
            yield
        finally:
            self._memo = outer


@dataclass(frozen=True)
class Call:
    """One message that is being carried out.

    :param message: its name.
    """

    world: World
    session: Session | None
    peer: Peer
    message: str = ""

    @property
    def actor(self) -> Actor:
        """Who sends it."""
        return self.world.actor_of(self.open_session)

    async def do(self, action: Action[T]) -> T:
        """Asks Domain 0 for something. PermissionDenied, and what the action raises."""
        return await self.world.services.actions.perform(self.actor, action)

    async def do_instead(
        self, action: Action[Any], work: Callable[[], Awaitable[T]], about: UUID, domain: UUID | None = None
    ) -> T:
        """Does something that is XenAPI's alone, for who may do the action that would be done in its place otherwise.

        PermissionDenied, and what it raises.

        :param about: the object.
        """
        self.check(action)
        asked = ASKED[Role.VM_ADMIN if action.role.covers(Role.VM_ADMIN) else Role.VM_OPERATOR]
        done: T = await self.do(asked(message=self.message, about=about, domain=domain or action.target, work=work))
        return done

    def check(self, action: Action[Any]) -> None:
        """Whether Domain 0 might be asked for it. PermissionDenied."""
        self.world.services.actions.check(self.actor, action)

    async def during(self, work: Awaitable[T]) -> T:
        """Waits for something as long as who asks may. Failure: their session has ended."""
        try:
            return await self.standing().during(work)
        except NotAuthenticated as error:
            raise Failure("SESSION_INVALID", reference(UUID(self.open_session.id))) from error

    def standing(self) -> Standing:
        """Whether who asks is still somebody."""
        return self.world.services.standing(self.open_session.actor)

    def check_role(self, role: Role, what: str) -> None:
        """Whether who sends it has a role. PermissionDenied."""
        self.actor.check(role, what)

    @property
    def open_session(self) -> Session:
        """The session that it came with; a message without one has no business here."""
        if self.session is None:
            raise AssertionError("a message without a session asks for one")
        return self.session
