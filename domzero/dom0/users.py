# SPDX-License-Identifier: Apache-2.0
"""Users beside the owner: their passwords, tokens, roles and grants, in the database.

A password is kept as argon2's hash, a token as the SHA-256 of its 256 random bits. What somebody may is looked up at
each request, and again for what stays open: a change of a role or a password, a token that is revoked or expires, or a
user that is removed, counts at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from dataclasses import dataclass, replace
from functools import cached_property
from sqlite3 import Row
from uuid import UUID, uuid4

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from domzero.dom0.actors import DOMAIN_0, OWNER_NAME, Actor, Proof, Role
from domzero.dom0.bell import Bell
from domzero.dom0.database import Database
from domzero.dom0.events import Journal, Operation
from domzero.dom0.roster import NotFound
from domzero.errors import ConfigError, DomzeroError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
PASSWORD_MIN, PASSWORD_MAX = 8, 1024
FREE_FAILURES = 5
"""Wrong passwords in a row before an account is locked, for twice as long after each further one."""
LOCK_SECONDS, LOCK_SECONDS_MAX = 30.0, 3600.0
TOKEN_PREFIX = "dz1_"
USERS_MAX, TOKENS_MAX = 1000, 100
_HASHERS = 2
"""Passwords that are looked at at a time: each takes 64 MiB and some 50 ms of a processor."""


class NotAuthenticated(DomzeroError):
    """Nobody has this name and password, or this token; or the account is locked."""


@dataclass(slots=True, frozen=True)
class User:
    """Somebody who may log in.

    :param role: for everything; None: only what is granted.
    :param grants: roles on single domains.
    """

    name: str
    role: Role | None
    grants: dict[UUID, Role]
    has_password: bool
    locked_until: float
    created_at: float


@dataclass(slots=True, frozen=True)
class Token:
    """What a program shows in the place of a password.

    :param role: the most that it gives; None: all that its user may.
    :param expires_at: Unix time; None: never.
    """

    id: UUID
    user: str
    description: str
    role: Role | None
    created_at: float
    expires_at: float | None


class Users:
    """The users, their tokens and grants.

    :param bell: rung when what somebody may has changed.
    """

    def __init__(self, database: Database, events: Journal, bell: Bell | None = None) -> None:
        self._database = database
        self._events = events
        self._bell = bell or Bell()
        self._hasher = PasswordHasher()
        self._slots = asyncio.Semaphore(_HASHERS)
        self._known: dict[bytes, float] = {}
        self._salt = secrets.token_bytes(16)

    # --- who is it

    async def log_in(self, name: str, password: str, via: str) -> Actor:
        """Who has this name and password. NotAuthenticated, which does not say whether there is such a name."""
        rows = self._database.rows("SELECT password, failures, locked_until FROM users WHERE name = ?", (name,))
        row = rows[0] if rows else None
        if row is not None and row["locked_until"] > time.time():
            raise NotAuthenticated(f"the account is locked for {row['locked_until'] - time.time():.0f} s")
        stored = None if row is None else row["password"]
        matches = len(password) <= PASSWORD_MAX and await self._verify(stored, password)
        if not matches or row is None or stored is None:
            if row is not None:
                self._failed(name)
            raise NotAuthenticated("no such user and password")
        if row["failures"]:
            with self._database.write() as cursor:
                cursor.execute("UPDATE users SET failures = 0, locked_until = 0 WHERE name = ?", (name,))
        actor = self.again(Actor(name, None, via=via, proof=Proof(password=stored)))
        if actor is None:
            raise NotAuthenticated("no such user and password")  # removed meanwhile
        return actor

    async def _verify(self, stored: str | None, password: str) -> bool:
        """Whether a password is the one of this hash; what was right a moment ago is not looked at again.

        :param stored: None: there is no password, and finding that out takes as long as a wrong one.
        """
        if stored is None:
            async with self._slots:
                stored = await asyncio.to_thread(lambda: self._nobodys)
        key = hashlib.sha256(self._salt + stored.encode() + password.encode("utf-8", "surrogatepass")).digest()
        now = time.monotonic()
        if self._known.get(key, 0.0) > now:
            return True
        async with self._slots:
            try:
                await asyncio.to_thread(self._hasher.verify, stored, password)
            except (VerificationError, InvalidHashError, UnicodeEncodeError):
                return False
        if len(self._known) > 1000:
            self._known.clear()
        self._known[key] = now + 60.0
        return True

    @cached_property
    def _nobodys(self) -> str:
        """The hash of a password that nobody has."""
        return self._hasher.hash(secrets.token_urlsafe())

    def _failed(self, name: str) -> None:
        with self._database.write() as cursor:
            (failures,) = cursor.execute(
                "UPDATE users SET failures = failures + 1 WHERE name = ? RETURNING failures", (name,)
            ).fetchone() or (0,)
            if failures >= FREE_FAILURES:
                lock = min(LOCK_SECONDS_MAX, LOCK_SECONDS * 2.0 ** (failures - FREE_FAILURES))
                cursor.execute("UPDATE users SET locked_until = ? WHERE name = ?", (time.time() + lock, name))

    def of_token(self, text: str) -> Actor | None:
        """Whose token this is, if it is one that counts."""
        if not text.startswith(TOKEN_PREFIX):
            return None
        rows = self._database.rows("SELECT id, user FROM tokens WHERE hash = ?", (_hash(text),))
        if not rows:
            return None
        return self.again(Actor(rows[0]["user"], None, via="token", proof=Proof(token=UUID(rows[0]["id"]))))

    def again(self, actor: Actor) -> Actor | None:
        """What somebody may now who has shown who they are before; None: what they have shown counts no more."""
        if actor.name in (OWNER_NAME, DOMAIN_0.name):
            return actor
        proof, most = actor.proof, None
        rows = self._database.rows("SELECT role, password FROM users WHERE name = ?", (actor.name,))
        if not rows:
            return None
        if proof.token is not None:
            tokens = self._database.rows("SELECT user, role, expires_at FROM tokens WHERE id = ?", (str(proof.token),))
            if not tokens or tokens[0]["user"] != actor.name:
                return None
            proof = replace(proof, expires_at=tokens[0]["expires_at"])
            if proof.expires_at is not None and proof.expires_at <= time.time():
                return None
            most = None if tokens[0]["role"] is None else Role(tokens[0]["role"])
        elif proof.password is None or proof.password != rows[0]["password"]:
            return None
        role = None if rows[0]["role"] is None else Role(rows[0]["role"])
        grants = self._grants(actor.name)
        if most is not None:
            role = None if role is None else min(role, most, key=lambda each: each.rank)
            grants = {domain: min(each, most, key=lambda one: one.rank) for domain, each in grants.items()}
        return Actor(actor.name, role, grants, actor.via, proof)

    def _changed(self, name: str, operation: Operation = Operation.MOD) -> None:
        self._events.note("user", name, operation)
        self._bell.ring()

    # --- users

    def all(self) -> list[User]:
        """All users, by name."""
        return [self._user(row) for row in self._database.rows("SELECT * FROM users ORDER BY name")]

    def get(self, name: str) -> User:
        """One of them. NotFound."""
        rows = self._database.rows("SELECT * FROM users WHERE name = ?", (name,))
        if not rows:
            raise NotFound(f"no such user: {name[:64]}")
        return self._user(rows[0])

    def _user(self, row: Row) -> User:
        role = None if row["role"] is None else Role(row["role"])
        has_password = row["password"] is not None
        grants = self._grants(row["name"])
        return User(row["name"], role, grants, has_password, row["locked_until"], row["created_at"])

    def _grants(self, name: str) -> dict[UUID, Role]:
        rows = self._database.rows("SELECT domain, role FROM grants WHERE user = ?", (name,))
        return {UUID(row["domain"]): Role(row["role"]) for row in rows}

    async def add(self, name: str, role: Role | None, password: str | None) -> User:
        """A new user. ConfigError."""
        if not NAME.fullmatch(name) or name in (OWNER_NAME, DOMAIN_0.name):
            raise ConfigError("1 to 64 of A-Z a-z 0-9 _ . @ -, and none of Domain 0's own", key="name")
        hashed = None if password is None else await self._hash_password(password)
        if self._database.rows("SELECT 1 FROM users WHERE name = ?", (name,)):
            raise ConfigError(f"there is a user {name} already", key="name")
        if self._database.rows("SELECT count(*) FROM users")[0][0] >= USERS_MAX:
            raise ConfigError(f"there are {USERS_MAX} users already", key="name")
        with self._database.write() as cursor:
            cursor.execute(
                "INSERT INTO users (name, role, password, created_at) VALUES (?, ?, ?, ?)",
                (name, None if role is None else role.value, hashed, time.time()),
            )
        self._changed(name, Operation.ADD)
        return self.get(name)

    async def set_password(self, name: str, password: str | None) -> None:
        """Gives a user another password, or none; a lock is lifted. NotFound, ConfigError."""
        self.get(name)
        hashed = None if password is None else await self._hash_password(password)
        with self._database.write() as cursor:
            cursor.execute(
                "UPDATE users SET password = ?, failures = 0, locked_until = 0 WHERE name = ?", (hashed, name)
            )
        self._changed(name)

    async def _hash_password(self, password: str) -> str:
        if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
            raise ConfigError(f"{PASSWORD_MIN} to {PASSWORD_MAX} characters", key="password")
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password)

    def set_role(self, name: str, role: Role | None) -> None:
        """Gives a user another role for everything. NotFound."""
        self.get(name)
        with self._database.write() as cursor:
            cursor.execute("UPDATE users SET role = ? WHERE name = ?", (None if role is None else role.value, name))
        self._changed(name)

    def grant(self, name: str, domain: UUID, role: Role | None) -> None:
        """Gives a user a role on one domain, or takes it. NotFound, ConfigError."""
        self.get(name)
        if role is not None and role.rank > Role.VM_POWER_ADMIN.rank:
            raise ConfigError(f"{role.value} is about the whole host, not one domain", key="role")
        with self._database.write() as cursor:
            if role is None:
                cursor.execute("DELETE FROM grants WHERE user = ? AND domain = ?", (name, str(domain)))
            else:
                cursor.execute("INSERT OR REPLACE INTO grants VALUES (?, ?, ?)", (name, str(domain), role.value))
        self._changed(name)

    def remove(self, name: str) -> None:
        """Removes a user with tokens and grants. NotFound."""
        self.get(name)
        with self._database.write() as cursor:
            cursor.execute("DELETE FROM users WHERE name = ?", (name,))
        self._changed(name, Operation.DEL)

    # --- tokens

    def tokens(self, name: str) -> list[Token]:
        """A user's tokens, oldest first."""
        rows = self._database.rows("SELECT * FROM tokens WHERE user = ? ORDER BY created_at", (name,))
        return [
            Token(
                UUID(row["id"]),
                row["user"],
                row["description"],
                None if row["role"] is None else Role(row["role"]),
                row["created_at"],
                row["expires_at"],
            )
            for row in rows
        ]

    def add_token(self, name: str, description: str, role: Role | None, expires_at: float | None) -> tuple[Token, str]:
        """A new token of a user's, and its text, which is kept nowhere. NotFound, ConfigError."""
        self.get(name)
        if len(self.tokens(name)) >= TOKENS_MAX:
            raise ConfigError(f"{name} has {TOKENS_MAX} tokens already", key="user")
        text = TOKEN_PREFIX + secrets.token_urlsafe(32)
        token = Token(uuid4(), name, description, role, time.time(), expires_at)
        with self._database.write() as cursor:
            cursor.execute(
                "INSERT INTO tokens (id, user, hash, description, role, created_at, expires_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    str(token.id),
                    name,
                    _hash(text),
                    description,
                    None if role is None else role.value,
                    token.created_at,
                    expires_at,
                ),
            )
        self._changed(name)
        return token, text

    def remove_token(self, name: str, token: UUID) -> None:
        """Revokes a token. NotFound."""
        with self._database.write() as cursor:
            if not cursor.execute("DELETE FROM tokens WHERE id = ? AND user = ?", (str(token), name)).rowcount:
                raise NotFound(f"no such token: {token}")
        self._changed(name)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
