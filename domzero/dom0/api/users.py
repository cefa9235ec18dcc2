# SPDX-License-Identifier: Apache-2.0
"""/v1/sessions, /v1/users and their tokens and grants: who may do what."""

from __future__ import annotations

import datetime
import time
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import Field, SecretStr

from domzero.dom0.actions import AddToken, AddUser, ChangeUser, Grant, RemoveToken, RemoveUser
from domzero.dom0.actors import Role
from domzero.dom0.api.access import COOKIE, session_of
from domzero.dom0.api.asking import ActionsDep, ActorDep, ServicesDep, needs
from domzero.dom0.api.models import Model, to_time
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.sessions import Door
from domzero.dom0.users import NAME, PASSWORD_MAX, NotAuthenticated, Token, User
from domzero.errors import ConfigError

router = APIRouter(prefix="/v1", tags=["users"], responses={422: RESPONSES[422]})
Name = Annotated[str, Field(max_length=64, pattern=f"^{NAME.pattern}$", examples=["anna"])]
ADMIN = [needs(Role.POOL_ADMIN, "users")]
HERE: dict[int | str, dict[str, Any]] = {404: RESPONSES[404]}


class LogIn(Model):
    """Who logs in: with name and password, or with a token."""

    user: Annotated[str, Field(max_length=64)] = ""
    password: Annotated[SecretStr | None, Field(max_length=PASSWORD_MAX)] = None
    token: Annotated[SecretStr | None, Field(max_length=1024)] = None


class SessionInfo(Model):
    """Who is logged in, and what they may do."""

    user: str
    role: Annotated[Role | None, Field(description="For everything; null: only what is granted.")]
    grants: Annotated[dict[UUID, Role], Field(description="Roles on single domains.")]
    csrf: Annotated[str | None, Field(description="Goes with each change as X-Domzero-CSRF; null: none is needed.")]


@router.post("/sessions", status_code=201, responses={401: RESPONSES[401]})
async def log_in(body: LogIn, request: Request, services: ServicesDep, response: Response) -> SessionInfo:
    """Logs in: the session is a cookie, for pages in browsers. Programs rather send a token with each request."""
    if body.token is not None:
        actor = services.of_token(body.token.get_secret_value())
        if actor is None:
            raise NotAuthenticated("no such token")
    elif body.password is not None and body.user:
        actor = await services.log_in(body.user, body.password.get_secret_value(), "session")
    else:
        raise ConfigError("user and password, or a token", key="user")
    session = services.sessions.open(
        Door.PAGE, replace(actor, via="session"), request.headers.get("user-agent", "")[:200]
    )
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, session.id, httponly=True, samesite="strict", secure=secure, path="/")
    return SessionInfo(user=actor.name, role=actor.role, grants=dict(actor.grants), csrf=session.csrf)


@router.get("/sessions/current")
async def read_session(request: Request, services: ServicesDep, actor: ActorDep) -> SessionInfo:
    """Who asks."""
    identifier = session_of(request.headers)
    session = None if identifier is None or actor.via != "session" else services.sessions.get(Door.PAGE, identifier)
    csrf = None if session is None else session.csrf
    return SessionInfo(user=actor.name, role=actor.role, grants=dict(actor.grants), csrf=csrf)


@router.delete("/sessions/current", status_code=204)
async def log_out(request: Request, services: ServicesDep, response: Response) -> None:
    """Logs out."""
    if (identifier := session_of(request.headers)) is not None:
        services.sessions.close(identifier)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")


class UserInfo(Model):
    """Somebody who may log in."""

    name: str
    role: Role | None
    grants: dict[UUID, Role]
    has_password: bool
    locked_until: datetime.datetime | None
    created_at: datetime.datetime

    @classmethod
    def of(cls, user: User) -> UserInfo:
        """From Domain 0's own record."""
        return cls(
            name=user.name,
            role=user.role,
            grants=user.grants,
            has_password=user.has_password,
            locked_until=to_time(user.locked_until) if user.locked_until > time.time() else None,
            created_at=to_time(user.created_at),
        )


class UserCreate(Model):
    """A new user."""

    name: Name
    role: Annotated[Role | None, Field(description="For everything; absent: only what is granted.")] = None
    password: Annotated[SecretStr | None, Field(description="Absent: only tokens.")] = None


class UserPatch(Model):
    """What is changed of a user; what is left out stays."""

    role: Annotated[Role | None, Field(description="null: only what is granted.")] = None
    password: Annotated[SecretStr | None, Field(description="null: none, only tokens.")] = None


class GrantBody(Model):
    """What a user may do with one domain."""

    role: Role


class TokenCreate(Model):
    """A new token."""

    description: Annotated[str, Field(max_length=200)] = ""
    role: Annotated[Role | None, Field(description="The most that it gives; absent: all that its user may.")] = None
    expires_in_seconds: Annotated[int | None, Field(ge=1, le=10 * 366 * 86400, description="Absent: never.")] = None


class TokenInfo(Model):
    """A token, without its text."""

    id: UUID
    user: str
    description: str
    role: Role | None
    created_at: datetime.datetime
    expires_at: datetime.datetime | None

    @classmethod
    def of(cls, token: Token) -> TokenInfo:
        """From Domain 0's own record."""
        return cls(
            id=token.id,
            user=token.user,
            description=token.description,
            role=token.role,
            created_at=to_time(token.created_at),
            expires_at=None if token.expires_at is None else to_time(token.expires_at),
        )


class NewToken(TokenInfo):
    """A token with its text, which is shown this once."""

    token: str


@router.get("/users", dependencies=ADMIN)
async def list_users(services: ServicesDep) -> list[UserInfo]:
    """All users but the owner."""
    return [UserInfo.of(user) for user in services.users.all()]


@router.post("/users", status_code=201)
async def add_user(body: UserCreate, services: ServicesDep, actions: ActionsDep, actor: ActorDep) -> UserInfo:
    """A new user."""
    password = None if body.password is None else body.password.get_secret_value()
    action = AddUser(users=services.users, name=body.name, user_role=body.role, password=password)
    return UserInfo.of(await actions.perform(actor, action))


@router.get("/users/{name}", responses=HERE, dependencies=ADMIN)
async def read_user(name: str, services: ServicesDep) -> UserInfo:
    """One user."""
    return UserInfo.of(services.users.get(name))


@router.patch("/users/{name}", responses=HERE)
async def change_user(
    name: str, body: UserPatch, services: ServicesDep, actions: ActionsDep, actor: ActorDep
) -> UserInfo:
    """Changes role or password; who has logged in by the old password is logged out at every door."""
    password = None if body.password is None else body.password.get_secret_value()
    action = ChangeUser(
        users=services.users,
        name=name,
        sets_role="role" in body.model_fields_set,
        user_role=body.role,
        sets_password="password" in body.model_fields_set,
        password=password,
    )
    await actions.perform(actor, action)
    return UserInfo.of(services.users.get(name))


@router.delete("/users/{name}", status_code=204, responses=HERE)
async def remove_user(name: str, services: ServicesDep, actions: ActionsDep, actor: ActorDep) -> None:
    """Removes a user with tokens, grants and sessions."""
    await actions.perform(actor, RemoveUser(users=services.users, name=name))


@router.put("/users/{name}/grants/{domain}", responses=HERE)
async def grant(
    name: str, domain: UUID, body: GrantBody, services: ServicesDep, actions: ActionsDep, actor: ActorDep
) -> UserInfo:
    """Gives a user a role on one domain."""
    await actions.perform(actor, Grant(users=services.users, name=name, on=domain, user_role=body.role))
    return UserInfo.of(services.users.get(name))


@router.delete("/users/{name}/grants/{domain}", responses=HERE)
async def revoke(name: str, domain: UUID, services: ServicesDep, actions: ActionsDep, actor: ActorDep) -> UserInfo:
    """Takes it again."""
    await actions.perform(actor, Grant(users=services.users, name=name, on=domain, user_role=None))
    return UserInfo.of(services.users.get(name))


@router.get("/users/{name}/tokens", responses=HERE, dependencies=ADMIN)
async def list_tokens(name: str, services: ServicesDep) -> list[TokenInfo]:
    """A user's tokens."""
    services.users.get(name)
    return [TokenInfo.of(token) for token in services.users.tokens(name)]


@router.post("/users/{name}/tokens", status_code=201, responses=HERE)
async def add_token(
    name: str, body: TokenCreate, services: ServicesDep, actions: ActionsDep, actor: ActorDep
) -> NewToken:
    """A new token; its text is in this answer, and nowhere else."""
    expires = None if body.expires_in_seconds is None else time.time() + body.expires_in_seconds
    action = AddToken(users=services.users, name=name, description=body.description, most=body.role, expires_at=expires)
    token, text = await actions.perform(actor, action)
    return NewToken(**TokenInfo.of(token).model_dump(), token=text)


@router.delete("/users/{name}/tokens/{token}", status_code=204, responses=HERE)
async def remove_token(name: str, token: UUID, services: ServicesDep, actions: ActionsDep, actor: ActorDep) -> None:
    """Revokes a token."""
    await actions.perform(actor, RemoveToken(users=services.users, name=name, token=token))
