# SPDX-License-Identifier: Apache-2.0
"""task and event: what takes time, and what has changed; message and user, of which there are none."""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from uuid import UUID

from domzero.dom0.actions import CancelTask
from domzero.dom0.actors import Role
from domzero.dom0.standing import Standing
from domzero.dom0.tasks import Task
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.fields import VALUE_MAX
from domzero.dom0.xenapi.journal import Event, Wants
from domzero.dom0.xenapi.table import Audience, Found, Kind, Message, kept, may_see, message, ro, rw
from domzero.dom0.xenapi.tasks import STATES, all_tasks, error_info, status
from domzero.dom0.xenapi.values import (
    DATETIME,
    FLOAT,
    INT,
    STRING,
    STRING_MAP,
    STRINGS,
    Enum,
    Map,
    Record,
    Ref,
    Set,
    reference,
    time_text,
)
from domzero.dom0.xenapi.world import Call

STATUS = Enum("enum task_status_type", ("pending", "success", "failure", "cancelling", "cancelled"))
CLASSES_MAX = 1000
TEXT_MAX = 1000
"""Characters of a task's name and description."""
_TASK = Ref("task")


async def _create(call: Call, label: str, description: str) -> UUID:
    """task.create: one whose client says how it goes."""
    tasks, name = call.world.tasks, call.actor.name
    if not tasks.has_room_for(name):
        raise Failure("TOO_MANY_PENDING_TASKS")
    return tasks.add(label[:TEXT_MAX], description[:TEXT_MAX], name, call.open_session.id).id


async def _destroy(call: Call, task: Found) -> None:
    """task.destroy."""
    _check_own(call, task.it)
    call.world.tasks.forget(task.it)


async def _cancel(call: Call, task: Found) -> None:
    """task.cancel."""
    if not task.it.is_over:
        await call.do(CancelTask(tasks=call.world.tasks, task=task.it))


def _check_own(call: Call, task: Task) -> None:
    if call.actor.name != task.actor:
        call.actor.check(Role.POOL_OPERATOR, "another user's task", task.domain)


def _change(name: str) -> Any:
    async def put(call: Call, task: Task, value: Any) -> None:
        _check_own(call, task)
        if not task.is_clients:
            raise Failure("OPERATION_NOT_ALLOWED", "Domain 0 does this task's work, and says how it goes")
        call.world.tasks.change(task, **{name: value})

    return put


async def _put_status(call: Call, task: Task, value: str) -> None:
    await _change("state")(call, task, STATES[value])
    task.gives_up = value == "cancelling"


async def _put_other_config(call: Call, task: Task, value: dict[str, str]) -> None:
    _check_own(call, task)
    if len(json.dumps(value)) > VALUE_MAX:
        raise Failure("INVALID_VALUE", "other_config", f"at most {VALUE_MAX} bytes")
    call.world.tasks.change(task, notes=value)


TASK = Kind(
    "task",
    (
        ro("uuid", STRING, lambda w, it: it.id),
        ro("name_label", STRING, lambda w, it: it.name or it.kind),
        ro("name_description", STRING, lambda w, it: it.description),
        ro("allowed_operations", Set(Enum("enum task_allowed_operations")),
           lambda w, it: [] if it.is_over else ["cancel", "destroy"]),
        ro("current_operations", Map(STRING, Enum("enum task_allowed_operations")), default={}),
        ro("created", DATETIME, lambda w, it: it.created_at),
        ro("finished", DATETIME, lambda w, it: it.ended_at or 0),
        rw("status", STATUS, lambda w, it: status(it), _put_status),
        ro("resident_on", Ref("host"), lambda w, it: w.host),
        rw("progress", FLOAT, lambda w, it: 1.0 if it.is_over else it.progress, _change("progress")),
        ro("type", STRING, default="<none/>"),
        rw("result", STRING, lambda w, it: it.result, _change("result")),
        rw("error_info", STRINGS, lambda w, it: error_info(it), _change("failure")),
        rw("other_config", STRING_MAP, lambda w, it: it.notes, _put_other_config),
        ro("subtask_of", Ref("task")),
        ro("subtasks", Set(Ref("task")), default=[]),
        ro("backtrace", STRING, default=""),
    ),
    all_tasks,
    find=lambda w, identity: w.tasks.get(identity),
    audience=lambda w, it: (it.actor,) if it.domain is None else (it.actor, it.domain),
    explicit=(
        message("create", _create, _TASK, open=True, label=STRING, description=STRING),
        message("destroy", _destroy, open=True, self=_TASK),
        message("cancel", _cancel, open=True, task=_TASK),
    ),
)  # fmt: skip


def _wants(classes: list[str], standing: Standing) -> Wants:
    """Whether somebody who named these classes, or objects as `class/reference`, wants to know of one, and may."""
    if len(classes) > CLASSES_MAX:
        raise Failure("INVALID_VALUE", "classes", f"at most {CLASSES_MAX}")
    everything = "*" in classes
    words = {word.lower() if "/" not in word else word for word in classes}
    pairs = {tuple(word.split("/", 1)) for word in words if "/" in word}
    exact = {(kind.lower(), name) for kind, name in pairs}

    def wants(kind: str, identity: UUID, audience: Audience) -> bool:
        named = everything or kind in words or (kind, reference(identity)) in exact or (kind, "*") in exact
        return named and may_see(standing.check(), audience)

    return wants


def _event(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": event.id,
        "timestamp": time_text(event.at),
        "class": event.kind,
        "operation": event.operation,
        "ref": reference(event.reference),
        "obj_uuid": str(event.reference),
    }
    if event.snapshot is not None:
        found["snapshot"] = event.snapshot
    return found


async def _from(call: Call, classes: list[str], token: str, timeout: float) -> dict[str, Any]:
    """event.from."""
    journal = call.world.journal
    standing = call.standing()
    events, token = await call.during(journal.since(token, _wants(classes, standing), timeout))
    return {
        "events": [_event(event) for event in events],
        "valid_ref_counts": journal.counts(partial(may_see, standing.check())),
        "token": token,
    }


async def _register(call: Call, classes: list[str]) -> None:
    """event.register: for `event.next`."""
    session = call.open_session
    if len(classes) > CLASSES_MAX:
        raise Failure("INVALID_VALUE", "classes", f"at most {CLASSES_MAX}")
    if not session.event_token:
        await call.world.journal.refresh()
        session.event_token = call.world.journal.token()
    session.event_classes |= {word.lower() for word in classes}


async def _unregister(call: Call, classes: list[str]) -> None:
    """event.unregister."""
    session = call.open_session
    session.event_classes -= {word.lower() for word in classes}
    if not session.event_classes:
        session.event_token = ""


async def _next(call: Call) -> list[dict[str, Any]]:
    """event.next: waits for one, a while."""
    session = call.open_session
    if not session.event_classes:
        raise Failure("SESSION_NOT_REGISTERED", reference(UUID(session.id)))
    wants = _wants(sorted(session.event_classes), call.standing())
    events, session.event_token = await call.during(call.world.journal.since(session.event_token, wants, 30.0))
    return [_event(event) for event in events]


async def _current(call: Call) -> int:
    """event.get_current_id."""
    return call.world.journal.generation


async def _inject(call: Call, kind: str, ref: str) -> str:
    """event.inject: a token that is after all that has happened."""
    await call.world.journal.refresh()
    return call.world.journal.token()


EVENT = Kind(
    "event",
    (),
    lambda w: {},
    visible=False,
    explicit=(
        message("from", _from, Record("event batch"), open=True, classes=STRINGS, token=STRING, timeout=FLOAT),
        message("register", _register, open=True, classes=STRINGS),
        message("unregister", _unregister, open=True, classes=STRINGS),
        message("next", _next, Set(Record("event")), open=True),
        message("get_current_id", _current, INT, open=True),
        *(message(name, None, self=STRING) for name in ("get_record", "get_by_uuid", "get_id", "set_id")),
        Message("inject", (("class", STRING), ("ref", STRING)), STRING, _inject, open=True),
    ),
)

USER = Kind(
    "user",
    (ro("uuid", STRING), ro("short_name", STRING), ro("fullname", STRING), kept("other_config")),
    lambda w: {},
    visible=False,
)


async def _no_messages(call: Call, *_about: Any) -> dict[UUID, Any]:
    """message.get, get_since and get_all_records_where: Domain 0 writes none."""
    return {}


MESSAGE = Kind(
    "message",
    (
        ro("uuid", STRING),
        ro("name", STRING),
        ro("priority", INT),
        ro("cls", Enum("enum cls")),
        ro("obj_uuid", STRING),
        ro("timestamp", DATETIME),
        ro("body", STRING),
    ),
    lambda w: {},
    explicit=(
        message("get_since", _no_messages, Map(Ref("message"), Record("message")), since=DATETIME),
        message(
            "get", _no_messages, Map(Ref("message"), Record("message")), cls=STRING, obj_uuid=STRING, since=DATETIME
        ),
        message("get_all_records_where", _no_messages, Map(Ref("message"), Record("message")), expr=STRING),
        message("create", None, name=STRING, priority=INT, cls=STRING, obj_uuid=STRING, body=STRING),
        message("destroy", None, self=Ref("message")),
        message("destroy_many", None, messages=STRINGS),
        message("destroy_all", None),
    ),
)

__all__ = ["EVENT", "MESSAGE", "TASK", "USER"]
