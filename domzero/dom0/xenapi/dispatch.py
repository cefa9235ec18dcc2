# SPDX-License-Identifier: Apache-2.0
"""Carries messages out: finds them in the table, checks their parameters, and gives their results as text."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from domzero.dom0.actors import PermissionDenied, Role
from domzero.dom0.tasks import Task
from domzero.dom0.xenapi.asked import ASKED
from domzero.dom0.xenapi.failure import Failure, failure_of, handle_invalid
from domzero.dom0.xenapi.hidden import without_hidden
from domzero.dom0.xenapi.permissions import roles_with
from domzero.dom0.xenapi.registry import KINDS, MESSAGES
from domzero.dom0.xenapi.table import EVERYBODY, Found, Message, domain_of
from domzero.dom0.xenapi.values import Ref, Type, reference
from domzero.dom0.xenapi.wire_xml import value_text
from domzero.dom0.xenapi.world import Call, Peer, World
from domzero.errors import DomzeroError

logger = logging.getLogger(__name__)
ASYNC = "Async."
NAME_SHOWN = 200


@dataclass(frozen=True)
class Answer:
    """The value of a message.

    :param plain: it stands without a status in XML.
    """

    value: Any
    plain: bool = False


async def dispatch(world: World, peer: Peer, method: str, parameters: list[Any]) -> Answer:
    """Carries a message out. Failure, and no other error."""
    try:
        return await _dispatch(world, peer, method, parameters)
    except PermissionDenied as error:
        raise denied(method, error) from error
    except DomzeroError as error:
        raise failure_of(error) from error
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except Exception as error:
        logger.exception("a fault in %s", method[:NAME_SHOWN])
        raise Failure("INTERNAL_ERROR", type(error).__name__) from error


async def _dispatch(world: World, peer: Peer, method: str, parameters: list[Any]) -> Answer:
    if method == "system.listMethods":
        return Answer(sorted([*MESSAGES, "system.listMethods"]), plain=True)
    in_background = method.startswith(ASYNC)
    name = method.removeprefix(ASYNC)
    known = MESSAGES.get(name)
    if known is None or (in_background and known.implicit):
        raise Failure("MESSAGE_METHOD_UNKNOWN", method[:NAME_SHOWN])
    session = None
    if known.session:
        if not parameters:
            raise _count(known, name, 0)
        session = world.session(parameters[0])
        parameters = parameters[1:]
    if known.do is None:
        raise Failure("NOT_IMPLEMENTED", method)
    call = Call(world, session, peer, name)
    arguments = _arguments(call, known, name, parameters)
    work = _work(call, known, name, arguments)
    if not in_background:
        value = known.result.write(await work)
        world.journal.stir()
        return Answer(without_hidden(call, known.result, value) if known.session else value)
    return Answer(reference(_begin(call, known, method, arguments, work).id))


def _begin(call: Call, known: Message, method: str, arguments: list[Any], work: Coroutine[Any, Any, Any]) -> Task:
    """A task of a message. Failure: there are too many that are not over."""
    user, tasks = call.session.user if call.session else "", call.world.tasks
    if not tasks.has_room_for(user):
        work.close()
        raise Failure("TOO_MANY_PENDING_TASKS")
    domain = next((domain for each in arguments if isinstance(each, Found) and (domain := domain_of(each.it))), None)
    session = call.session.id if call.session else None
    return tasks.begin(
        method, work, user, domain, text=lambda value: _result_text(known.result, value), session=session
    )


def _work(call: Call, known: Message, name: str, arguments: list[Any]) -> Coroutine[Any, Any, Any]:
    """What is to be done, once it is known that who asks may. PermissionDenied."""
    assert known.do is not None
    found = next((each for each in arguments if isinstance(each, Found)), None)
    if known.session and not known.open and not name.startswith("session.") and _is_for_all(call, known, arguments):
        call.check_role(Role.READ_ONLY, name)
    if known.role is None:
        return known.do(call, *arguments)
    domain = domain_of(found.it) if found is not None else None
    do = partial(known.do, call, *arguments)
    about = found.identity if found is not None else None
    action = ASKED[known.role](message=name, about=about, domain=domain, work=do)
    return call.do(action)


def _is_for_all(call: Call, known: Message, arguments: list[Any]) -> bool:
    """Whether no object among the parameters says that who asks has something to do with it."""
    for (_, type), each in zip(known.parameters, arguments, strict=False):
        if isinstance(each, Found) and isinstance(type, Ref):
            return EVERYBODY in KINDS[type.kind].audience(call.world, each.it)
    return True


def denied(method: str, error: PermissionDenied) -> Failure:
    """That a role does not cover a message: its permission, and which roles have it."""
    permission = method.lower()
    roles = ", ".join(role.value for role in roles_with(permission) if role.covers(error.role)) or error.role.value
    return Failure("RBAC_PERMISSION_DENIED", permission, f"{error}; roles that have it: {roles}")


def _result_text(type: Type, value: Any) -> str:
    return "" if value is None else value_text(type.write(value))


def _count(known: Message, name: str, received: int) -> Failure:
    expected = len(known.parameters) + known.session
    return Failure("MESSAGE_PARAMETER_COUNT_MISMATCH", name, str(expected), str(received))


def _arguments(call: Call, known: Message, name: str, parameters: list[Any]) -> list[Any]:
    most = len(known.parameters)
    if not most - known.optional <= len(parameters) <= most:
        raise _count(known, name, len(parameters) + known.session)
    arguments = []
    for (where, type), value in zip(known.parameters, parameters, strict=False):
        read = type.read(value, where)
        arguments.append(_resolve(call, type, read) if isinstance(type, Ref) else read)
    return arguments


def _resolve(call: Call, type: Ref, identity: Any) -> Found | None:
    """The object that a reference names, if who asks may look at it; None for none, where that may be."""
    if identity is None:
        return None
    kind = KINDS.get(type.kind)
    actor = None if call.session is None else call.actor
    it = kind.find_for(call.world, actor, identity) if kind is not None else None
    if it is None:
        raise handle_invalid(type.kind, reference(identity))
    return Found(identity, it)
