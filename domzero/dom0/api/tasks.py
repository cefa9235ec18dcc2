# SPDX-License-Identifier: Apache-2.0
"""/v1/tasks: long work; /v1/events: what has changed; /v1/audit: who did what."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from domzero.dom0.actions import AuditLine, CancelTask
from domzero.dom0.actors import Actor, Role
from domzero.dom0.api.asking import ActionsDep, ActorDep, ServicesDep, needs
from domzero.dom0.api.models import Model, to_time
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.api.task_models import TaskInfo
from domzero.dom0.events import Event, Journal, Operation
from domzero.dom0.roster import NotFound
from domzero.dom0.services import Services
from domzero.dom0.tasks import Task
from domzero.dom0.users import NotAuthenticated
from domzero.errors import ConfigError

router = APIRouter(prefix="/v1", responses={422: RESPONSES[422]})
EVENT_STREAM = "text/event-stream"
KEEP_ALIVE_SECONDS = 15.0
"""Between comments on a stream on which nothing happens: whoever is gone is noticed."""


def _find(services: Services, actor: Actor, identity: UUID, role: Role = Role.READ_ONLY) -> Task:
    task = services.tasks.get(identity)
    if task is None or not (task.actor == actor.name or actor.may(Role.READ_ONLY, task.domain)):
        raise NotFound(f"no such task: {identity}")
    if task.actor != actor.name:
        actor.check(role, "another one's task", task.domain)
    return task


@router.get("/tasks", tags=["tasks"])
async def list_tasks(services: ServicesDep, actor: ActorDep) -> list[TaskInfo]:
    """Tasks under way, and some that are over, oldest first."""
    found = [
        task for task in services.tasks.all() if task.actor == actor.name or actor.may(Role.READ_ONLY, task.domain)
    ]
    return [TaskInfo.of(task) for task in found]


@router.get("/tasks/{task_id}", tags=["tasks"], responses={404: RESPONSES[404]})
async def read_task(
    task_id: UUID,
    services: ServicesDep,
    actor: ActorDep,
    wait: Annotated[float, Query(ge=0, le=300, description="Seconds to wait for its end")] = 0,
) -> TaskInfo:
    """One task."""
    task = _find(services, actor, task_id)
    if wait:
        closing = asyncio.ensure_future(services.manager.closing.wait())
        ending = asyncio.ensure_future(task.wait(wait))
        standing = services.standing(actor)
        try:
            await standing.during(asyncio.wait({closing, ending}, return_when=asyncio.FIRST_COMPLETED))
        finally:
            closing.cancel()
            ending.cancel()
        task = _find(services, standing.actor, task_id)
    return TaskInfo.of(task)


@router.delete("/tasks/{task_id}", tags=["tasks"], responses={404: RESPONSES[404]})
async def cancel_task(task_id: UUID, services: ServicesDep, actor: ActorDep) -> TaskInfo:
    """Cancels work that is under way; forgets what is over."""
    task = _find(services, actor, task_id)
    if not task.is_over:
        await services.actions.perform(actor, CancelTask(tasks=services.tasks, task=task))
        await task.wait(5.0)
    else:
        _find(services, actor, task_id, Role.POOL_OPERATOR)
        services.tasks.forget(task)
    return TaskInfo.of(task)


class EventInfo(Model):
    """The last change of an object."""

    token: Annotated[int, Field(description="Show it to go on after this event.")]
    at: datetime.datetime
    kind: Annotated[str, Field(examples=["domain", "task"])]
    ref: Annotated[str, Field(description="Which: its uuid or name.")]
    operation: Operation


class EventList(Model):
    """What has changed."""

    events: list[EventInfo]
    token: Annotated[int, Field(description="Of all this: the next request's `since`.")]
    lost: Annotated[
        bool, Field(description="Objects that were removed since then are forgotten: read everything again.")
    ]


@router.get(
    "/events",
    tags=["events"],
    response_model=EventList,
    responses={200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}}},
)
async def read_events(
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    since: Annotated[int | None, Query(ge=0, lt=1 << 62, description="A token; from now on if absent.")] = None,
    kinds: Annotated[str, Query(max_length=200, description="Of objects, with commas; all if absent.")] = "",
    wait: Annotated[float, Query(ge=0, le=300, description="Seconds to wait for something")] = 0,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> EventList | StreamingResponse:
    """What has changed since a token, each object once: as JSON, or as server-sent events for who accepts them."""
    wanted = {kind.strip() for kind in kinds.split(",") if kind.strip()} or None
    if last_event_id is not None:
        if not (last_event_id.isascii() and last_event_id.isdecimal()):
            raise ConfigError("a number is expected", key="Last-Event-ID")
        since = int(last_event_id)
    journal = services.manager.events
    token = journal.token if since is None else since
    if EVENT_STREAM in request.headers.get("accept", ""):
        return StreamingResponse(_stream(services, actor, token, wanted), media_type=EVENT_STREAM)
    lost = journal.has_lost(token)
    standing = services.standing(actor)
    found, token = await standing.during(_wait(journal, 0 if lost else token, wanted, wait))
    actor = standing.actor
    return EventList(
        events=[_info(event) for event in found if _visible(services, actor, event)],
        token=token,
        lost=lost,
    )


async def _wait(journal: Journal, token: int, kinds: set[str] | None, seconds: float) -> tuple[list[Event], int]:
    """What has happened since a token, and the token after that: of the same turn of the event loop."""
    found = await journal.wait(token, kinds, seconds)
    return found, journal.token


def _info(event: Event) -> EventInfo:
    return EventInfo(token=event.token, at=to_time(event.at), kind=event.kind, ref=event.ref, operation=event.operation)


def _visible(services: Services, actor: Actor, event: Event) -> bool:
    """Whether an actor may know of it: of users who administers them, of a domain and its tasks who may see it."""
    if event.kind == "user":
        return actor.may(Role.POOL_ADMIN)
    if actor.may(Role.READ_ONLY):
        return True
    try:
        identity = UUID(event.ref)
    except ValueError:
        return False
    if event.kind == "task":
        task = services.tasks.get(identity)
        return task is not None and (task.actor == actor.name or actor.may(Role.READ_ONLY, task.domain))
    return event.kind == "domain" and actor.may(Role.READ_ONLY, identity)


async def _stream(services: Services, actor: Actor, token: int, kinds: set[str] | None) -> AsyncIterator[bytes]:
    """Ends when who reads counts as nobody any more."""
    journal, closing = services.manager.events, services.manager.closing
    standing = services.standing(actor)
    if journal.has_lost(token):
        yield b"event: lost\ndata: {}\n\n"
        token = 0
    yield f"id: {token}\nevent: token\ndata: {token}\n\n".encode()
    while not closing.is_set():
        try:
            found = await standing.during(journal.wait(token, kinds, KEEP_ALIVE_SECONDS))
        except NotAuthenticated:
            return
        for event in found:
            if _visible(services, standing.actor, event):
                data = json.dumps(_info(event).model_dump(mode="json"))
                yield f"id: {event.token}\nevent: {event.kind}\ndata: {data}\n\n".encode()
            token = event.token
        if not found:
            yield b": nothing\n\n"


class AuditEntry(Model):
    """Who did what, and what came of it."""

    id: int
    at: datetime.datetime
    actor: str
    via: Annotated[str, Field(description="unix, token, session, basic; domzero: Domain 0 by itself")]
    action: Annotated[str, Field(examples=["domain.start"])]
    domain: UUID | None
    detail: Annotated[str, Field(description="JSON, cut to a sane length.")]
    outcome: Annotated[str, Field(description="ok, refused, cancelled, or the error")]

    @classmethod
    def of(cls, line: AuditLine) -> AuditEntry:
        """From Domain 0's own record."""
        return cls(
            id=line.id,
            at=to_time(line.at),
            actor=line.actor,
            via=line.via,
            action=line.action,
            domain=None if line.domain is None else UUID(line.domain),
            detail=line.detail,
            outcome=line.outcome,
        )


@router.get("/audit", tags=["users"], dependencies=[needs(Role.POOL_ADMIN, "the audit log")])
async def read_audit(
    actions: ActionsDep,
    before: Annotated[int | None, Query(ge=0, lt=1 << 62, description="An id; the last ones if absent.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    domain: UUID | None = None,
) -> list[AuditEntry]:
    """Who did what, newest first."""
    return [AuditEntry.of(line) for line in actions.audit(before=before, limit=limit, domain=domain)]
