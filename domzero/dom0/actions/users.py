# SPDX-License-Identifier: Apache-2.0
"""Users, their tokens and grants: for who administers Domain 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from domzero.dom0.actions.base import Action
from domzero.dom0.actors import Role
from domzero.dom0.manager import Manager
from domzero.dom0.users import Token, User, Users

R = TypeVar("R")
_SECRET = ("users", "password")


@dataclass(slots=True, frozen=True, kw_only=True)
class _UserAction(Action[R]):
    role: ClassVar[Role] = Role.POOL_ADMIN
    users: Users
    name: str

    def detail(self) -> dict[str, Any]:
        """All but the password."""
        return {key: value for key, value in super(_UserAction, self).detail().items() if key not in _SECRET}


@dataclass(slots=True, frozen=True, kw_only=True)
class AddUser(_UserAction[User]):
    """A new user."""

    kind: ClassVar[str] = "user.add"
    user_role: Role | None
    password: str | None

    async def run(self, _manager: Manager) -> User:
        """Adds it."""
        return await self.users.add(self.name, self.user_role, self.password)


@dataclass(slots=True, frozen=True, kw_only=True)
class ChangeUser(_UserAction[None]):
    """Another role, another password, or both."""

    kind: ClassVar[str] = "user.change"
    sets_role: bool
    user_role: Role | None
    sets_password: bool
    password: str | None

    async def run(self, _manager: Manager) -> None:
        """Changes it."""
        self.users.get(self.name)
        if self.sets_password:
            await self.users.set_password(self.name, self.password)
        if self.sets_role:
            self.users.set_role(self.name, self.user_role)


@dataclass(slots=True, frozen=True, kw_only=True)
class RemoveUser(_UserAction[None]):
    """A user goes."""

    kind: ClassVar[str] = "user.remove"

    async def run(self, _manager: Manager) -> None:
        """Removes it."""
        self.users.remove(self.name)


@dataclass(slots=True, frozen=True, kw_only=True)
class Grant(_UserAction[None]):
    """A role on one domain, or none any more."""

    kind: ClassVar[str] = "user.grant"
    on: UUID
    user_role: Role | None

    @property
    def target(self) -> UUID | None:
        """The domain."""
        return self.on

    async def run(self, _manager: Manager) -> None:
        """Grants it."""
        self.users.grant(self.name, self.on, self.user_role)


@dataclass(slots=True, frozen=True, kw_only=True)
class AddToken(_UserAction[tuple[Token, str]]):
    """A new token.

    :param most: role that it gives; None: all that its user has.
    """

    kind: ClassVar[str] = "token.add"
    description: str
    most: Role | None
    expires_at: float | None

    async def run(self, _manager: Manager) -> tuple[Token, str]:
        """Adds it."""
        return self.users.add_token(self.name, self.description, self.most, self.expires_at)


@dataclass(slots=True, frozen=True, kw_only=True)
class RemoveToken(_UserAction[None]):
    """A token counts no more."""

    kind: ClassVar[str] = "token.remove"
    token: UUID

    async def run(self, _manager: Manager) -> None:
        """Revokes it."""
        self.users.remove_token(self.name, self.token)
