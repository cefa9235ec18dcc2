# SPDX-License-Identifier: Apache-2.0
"""Who asks for something, and what they may: the roles of XAPI, and grants on single domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from domzero.errors import DomzeroError


class PermissionDenied(DomzeroError):
    """The actor's role does not cover it.

    :param role: the least that would.
    """

    def __init__(self, role: Role, what: str) -> None:
        super().__init__(f"{what} needs the role {role.value}")
        self.role = role


class Role(str, Enum):
    """What somebody may do: each role covers those before it. Names and order are XAPI's."""

    READ_ONLY = "read-only"
    """Looks at everything but users, tokens and the audit log."""
    VM_OPERATOR = "vm-operator"
    """Starts and stops domains, and uses their consoles."""
    VM_ADMIN = "vm-admin"
    """Makes, changes and removes domains."""
    VM_POWER_ADMIN = "vm-power-admin"
    """Changes what domains may have of the host: weights, pinning, memory dumps."""
    POOL_OPERATOR = "pool-operator"
    """Storage, networks, the log: whatever is the host's."""
    POOL_ADMIN = "pool-admin"
    """Everything; users and their roles."""

    @property
    def rank(self) -> int:
        """Its place in the order."""
        return _ORDER.index(self)

    def covers(self, other: Role) -> bool:
        """Whether who has it may do what the other one may."""
        return self.rank >= other.rank


_ORDER = list(Role)


@dataclass(slots=True, frozen=True)
class Proof:
    """What somebody has shown of who they are; what is opened by it stays open as long as it counts.

    :param token: a user's token, by its id.
    :param password: what the user's password was kept as: another password is kept as something else.
    :param session: the id of the session that was opened.
    :param expires_at: Unix time; None: it does not expire.
    """

    token: UUID | None = None
    password: str | None = field(default=None, repr=False)
    session: str | None = field(default=None, repr=False)
    expires_at: float | None = None


@dataclass(slots=True, frozen=True)
class Actor:
    """Somebody who asks.

    :param role: for everything; None: only what is granted.
    :param grants: roles on single domains, by uuid.
    :param via: the door: `unix`, `token`, `session`, `basic`, `xenapi`, or `domzero` for what Domain 0 does by itself.
    :param proof: by which they are who they are; the owner needs none.
    """

    name: str
    role: Role | None
    grants: Mapping[UUID, Role] = field(default_factory=dict)
    via: str = "unix"
    proof: Proof = field(default_factory=Proof)

    def may(self, role: Role, domain: UUID | None = None) -> bool:
        """Whether they have this role, for everything or on this domain."""
        if self.role is not None and self.role.covers(role):
            return True
        granted = None if domain is None else self.grants.get(domain)
        return granted is not None and granted.covers(role)

    def check(self, role: Role, what: str, domain: UUID | None = None) -> None:
        """Raises PermissionDenied unless they may."""
        if not self.may(role, domain):
            raise PermissionDenied(role, what)


OWNER_NAME = "owner"
OWNER = Actor(OWNER_NAME, Role.POOL_ADMIN)
"""The user whose Domain 0 it is."""
DOMAIN_0 = Actor("domzero", Role.POOL_ADMIN, via="domzero")
"""Domain 0 itself, for what it does without being asked."""
