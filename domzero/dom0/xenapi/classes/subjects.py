# SPDX-License-Identifier: Apache-2.0
"""role and subject: Domain 0's users, and what they may do. A user has one role here, or none but grants on domains."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

from domzero.dom0.actions import AddUser, ChangeUser, RemoveUser
from domzero.dom0.actors import Role
from domzero.dom0.users import User
from domzero.dom0.xenapi.construct import Given
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.permissions import permission_id, permission_ids, permissions_of, roles_with
from domzero.dom0.xenapi.table import EVERYBODY, Found, Kind, Message, message, ro
from domzero.dom0.xenapi.values import BOOL, STRING, STRING_MAP, STRINGS, VOID, Record, Ref, Set, reference
from domzero.dom0.xenapi.world import NAMESPACE, Call, World

ROLES = {
    "pool-admin": "Everything",
    "pool-operator": "All domains, disks, networks and the host; no users",
    "vm-power-admin": "All domains, with their devices and their memory",
    "vm-admin": "Domains: making, changing and removing them",
    "vm-operator": "Domains: starting, stopping, console",
    "read-only": "Looking",
}
"""XAPI's, the mightiest first."""
_ROLE, _SUBJECT = Ref("role"), Ref("subject")


def role_id(name: str) -> UUID:
    """Of a role."""
    return uuid5(NAMESPACE, f"role:{name}")


def _roles(world: World) -> dict[UUID, str]:
    return {role_id(name): name for name in ROLES}


def _find(world: World, identity: UUID) -> str | None:
    """A role or a permission, which XAPI has among its roles, too."""
    return _roles(world).get(identity) or permission_ids().get(identity)


def _role_identity(name: str) -> UUID:
    return role_id(name) if name in ROLES else permission_id(name)


def _of(name: str) -> list[str]:
    """The permissions of a role; a permission has none but itself."""
    return permissions_of(Role(name)) if name in ROLES else [name]


async def _get_permissions(call: Call, role: Found) -> list[UUID]:
    """role.get_permissions."""
    return [permission_id(name) for name in _of(role.it)]


async def _get_permission_names(call: Call, role: Found) -> list[str]:
    """role.get_permissions_name_label."""
    return _of(role.it)


async def _get_by_permission(call: Call, permission: Found) -> list[UUID]:
    """role.get_by_permission."""
    return [role_id(role.value) for role in roles_with(permission.it)]


async def _get_by_permission_name(call: Call, label: str) -> list[UUID]:
    """role.get_by_permission_name_label."""
    return [role_id(role.value) for role in roles_with(label)]


ROLE = Kind(
    "role",
    (
        ro("uuid", STRING, lambda w, name: _role_identity(name)),
        ro("name_label", STRING, lambda w, name: name),
        ro("name_description", STRING, lambda w, name: ROLES.get(name, "A basic permission")),
        ro(
            "subroles", Set(_ROLE), lambda w, name: [permission_id(each) for each in _of(name)] if name in ROLES else []
        ),
        ro("is_internal", BOOL, lambda w, name: name not in ROLES),
    ),
    _roles,
    find=_find,
    audience=lambda w, it: (EVERYBODY,),
    explicit=(
        message("get_permissions", _get_permissions, Set(_ROLE), open=True, self=_ROLE),
        message("get_permissions_name_label", _get_permission_names, STRINGS, open=True, self=_ROLE),
        message("get_by_permission", _get_by_permission, Set(_ROLE), open=True, permission=_ROLE),
        message("get_by_permission_name_label", _get_by_permission_name, Set(_ROLE), open=True, label=STRING),
    ),
)


def subject_id(name: str) -> UUID:
    """Of a user."""
    return uuid5(NAMESPACE, f"user:{name}")


async def _create(call: Call, values: dict[str, Any]) -> UUID:
    """subject.create: a user without a password and a role; both are given to them at other doors, a role here, too."""
    name = Given(values).need("subject_identifier", STRING)
    users = call.world.services.users
    add = AddUser(users=users, name=name, user_role=None, password=None)
    call.check(add)
    if any(user.name == name for user in users.all()):
        raise Failure("SUBJECT_ALREADY_EXISTS")
    await call.do(add)
    return subject_id(name)


async def _destroy(call: Call, subject: Found) -> None:
    """subject.destroy: the user goes, with tokens, grants and sessions."""
    await call.do(RemoveUser(users=call.world.services.users, name=subject.it.name))


async def _set_role(call: Call, user: User, role: Role | None) -> None:
    users = call.world.services.users
    await call.do(
        ChangeUser(users=users, name=user.name, sets_role=True, user_role=role, sets_password=False, password=None)
    )


async def _add_to_roles(call: Call, subject: Found, role: Found) -> None:
    """subject.add_to_roles: each role covers those before it, so that the mightiest is the user's."""
    if role.it not in ROLES:
        raise Failure("ROLE_NOT_FOUND", reference(role.identity))
    user, wanted = subject.it, Role(role.it)
    if user.role is not None and user.role.covers(wanted):
        raise Failure("ROLE_ALREADY_EXISTS")
    await _set_role(call, user, wanted)


async def _remove_from_roles(call: Call, subject: Found, role: Found) -> None:
    """subject.remove_from_roles."""
    if role.it not in ROLES or subject.it.role is not Role(role.it):
        raise Failure("ROLE_NOT_FOUND", reference(role.identity))
    await _set_role(call, subject.it, None)


async def _get_subjects_permissions(call: Call, subject: Found) -> list[str]:
    """subject.get_permissions_name_label: what the user may with everything, without grants on single domains."""
    return permissions_of(subject.it.role)


def _subjects(world: World) -> dict[UUID, User]:
    return {subject_id(user.name): user for user in world.services.users.all()}


SUBJECT = Kind(
    "subject",
    (
        ro("uuid", STRING, lambda w, it: subject_id(it.name)),
        ro("subject_identifier", STRING, lambda w, it: it.name),
        ro("other_config", STRING_MAP, lambda w, it: {"subject-name": it.name}),
        ro("roles", Set(_ROLE), lambda w, it: [role_id(it.role.value)] if it.role else []),
    ),
    _subjects,
    explicit=(
        message("create", _create, _SUBJECT, args=Record("subject")),
        message("destroy", _destroy, self=_SUBJECT),
        Message("add_to_roles", (("self", _SUBJECT), ("role", _ROLE)), VOID, _add_to_roles),
        Message("remove_from_roles", (("self", _SUBJECT), ("role", _ROLE)), VOID, _remove_from_roles),
        message("get_permissions_name_label", _get_subjects_permissions, STRINGS, self=_SUBJECT),
    ),
)
