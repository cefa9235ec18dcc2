# SPDX-License-Identifier: Apache-2.0
"""session: logging in and out. Who may is decided at HTTP's door, which every client passes."""

from __future__ import annotations

from uuid import UUID

from domzero.dom0.actors import OWNER_NAME, Role
from domzero.dom0.sessions import Door, Session
from domzero.dom0.users import NotAuthenticated
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.permissions import permissions_of
from domzero.dom0.xenapi.table import EVERYBODY, Kind, message, ro, rw
from domzero.dom0.xenapi.values import BOOL, DATETIME, STRING, STRING_MAP, STRINGS, Ref, Set
from domzero.dom0.xenapi.world import Call, World

_SELF = Ref("session")


async def login(call: Call, user: str, password: str, version: str = "", originator: str = "") -> UUID:
    """session.login_with_password. Who comes over the Unix socket is known already: any name and password will do."""
    try:
        actor = await call.world.authenticate(call.peer, user, password)
    except NotAuthenticated as error:
        raise Failure("SESSION_AUTHENTICATION_FAILED", user[:200], error.message) from error
    return UUID(call.world.sessions.open(Door.XENAPI, actor, originator[:1000], shown=user[:200]).id)


async def logout(call: Call) -> None:
    """session.logout."""
    call.world.sessions.close(call.open_session.id)


async def get_all_subject_identifiers(call: Call) -> list[str]:
    """session.get_all_subject_identifiers: the users who have logged in here, without the owner."""
    call.check_role(Role.READ_ONLY, "session.get_all_subject_identifiers")
    return sorted({each.user for each in call.world.sessions.all(Door.XENAPI)} - {OWNER_NAME})


async def logout_subject_identifier(call: Call, subject: str) -> None:
    """session.logout_subject_identifier: a user's sessions at this door, without the one that asks."""
    for each in call.world.sessions.all(Door.XENAPI):
        if each.user == subject and subject != OWNER_NAME and each is not call.session:
            call.world.sessions.close(each.id)


async def _put_other_config(call: Call, session: Session, value: dict[str, str]) -> None:
    session.notes = value


def _tasks(world: World, session: Session) -> list[UUID]:
    return [task.id for task in world.tasks.all() if task.session == session.id]


def _permissions(world: World, session: Session) -> list[str]:
    """Of who has opened it, for everything: what is granted on single domains is not among them. The owner's are not
    listed, as XAPI does with a local superuser's."""
    actor = world.services.users.again(session.actor)
    return [] if actor is None or actor.name == OWNER_NAME else permissions_of(actor.role)


SESSION = Kind(
    "session",
    (
        ro("uuid", STRING, lambda w, it: it.uuid),
        ro("this_host", Ref("host"), lambda w, it: w.host),
        ro("this_user", Ref("user")),
        ro("last_active", DATETIME, lambda w, it: it.last_active),
        ro("pool", BOOL, default=False),
        rw("other_config", STRING_MAP, lambda w, it: it.notes, _put_other_config),
        ro("is_local_superuser", BOOL, lambda w, it: it.actor.name == OWNER_NAME),
        ro("subject", Ref("subject")),
        ro("validation_time", DATETIME, lambda w, it: it.created_at),
        ro("auth_user_sid", STRING, default=""),
        ro("auth_user_name", STRING, lambda w, it: it.shown),
        ro("rbac_permissions", STRINGS, _permissions),
        ro("tasks", Set(Ref("task")), _tasks),
        ro("parent", Ref("session")),
        ro("originator", STRING, lambda w, it: it.origin),
        ro("client_certificate", BOOL, default=False),
    ),
    World.open_sessions,
    audience=lambda w, it: (EVERYBODY,),
    visible=False,
    explicit=(
        message("login_with_password", login, _SELF, optional=2, session=False, uname=STRING, pwd=STRING,
                version=STRING, originator=STRING),
        message("slave_local_login_with_password", login, _SELF, session=False, uname=STRING, pwd=STRING),
        message("slave_local_login", None, _SELF, session=False, psecret=STRING),
        message("slave_login", None, _SELF, session=False, host=Ref("host"), psecret=STRING),
        message("create_from_db_file", None, _SELF, filename=STRING),
        message("change_password", None, old_pwd=STRING, new_pwd=STRING),
        message("logout", logout),
        message("local_logout", logout),
        message("get_all_subject_identifiers", get_all_subject_identifiers, STRINGS),
        message("logout_subject_identifier", logout_subject_identifier, role=Role.POOL_OPERATOR,
                subject_identifier=STRING),
    ),
)  # fmt: skip
