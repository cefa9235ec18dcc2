# SPDX-License-Identifier: Apache-2.0
"""What every door of Domain 0 works with, in one place."""

from __future__ import annotations

import secrets
from dataclasses import replace
from uuid import UUID

from domzero.dom0.actions import Actions
from domzero.dom0.actors import OWNER_NAME, Actor, Role
from domzero.dom0.bell import Bell
from domzero.dom0.manager import Manager
from domzero.dom0.sessions import Sessions
from domzero.dom0.standing import Standing
from domzero.dom0.tasks import Tasks
from domzero.dom0.users import TOKEN_PREFIX, NotAuthenticated, Users

ROOT_NAME = "root"
"""What XenAPI's clients call the owner of a host."""


class Services:
    """Domains, what can be done with them, and who may.

    :param token: the owner's over TCP, of this start; None: there is none.
    """

    def __init__(self, manager: Manager, token: str | None = None) -> None:
        self.manager = manager
        self.tasks = Tasks(manager.database, manager.events)
        self.actions = Actions(manager, self.tasks)
        self._bell = Bell()
        self.users = Users(manager.database, manager.events, self._bell)
        self.sessions = Sessions(self._bell)
        self._token = token

    def of_token(self, text: str) -> Actor | None:
        """Whose token this is: the owner's of this start, or a user's."""
        if self._token and secrets.compare_digest(self._token.encode(), text.encode("utf-8", "replace")):
            return Actor(OWNER_NAME, Role.POOL_ADMIN, via="token")
        return self.users.of_token(text)

    async def log_in(self, name: str, password: str, via: str) -> Actor:
        """Who has this name and password; a token does in the place of a password. NotAuthenticated."""
        if name in (OWNER_NAME, ROOT_NAME) or password.startswith(TOKEN_PREFIX):
            actor = self.of_token(password)
            if actor is None or (actor.name != name and name not in (OWNER_NAME, ROOT_NAME)):
                raise NotAuthenticated("no such user and password")
            return replace(actor, via=via)
        return await self.users.log_in(name, password, via)

    def again(self, actor: Actor) -> Actor | None:
        """What somebody may now; None: their session was closed, or what they have shown counts no more."""
        session = actor.proof.session
        return self.users.again(actor) if session is None or session in self.sessions else None

    def standing(self, actor: Actor, role: Role | None = None, what: str = "", domain: UUID | None = None) -> Standing:
        """Whether somebody may still do what they have begun.

        :param role: that it needs, on the domain; None: they only have to be somebody.
        """
        return Standing(self.again, self._bell, actor, role, what, domain)

    async def close(self) -> None:
        """Ends everything."""
        await self.manager.close()
        await self.tasks.close()
