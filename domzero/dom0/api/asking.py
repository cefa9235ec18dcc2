# SPDX-License-Identifier: Apache-2.0
"""What the requests of the API are about, and who makes them: FastAPI's dependencies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from fastapi.responses import JSONResponse

from domzero.dom0.actions import Action, Actions
from domzero.dom0.actors import Actor, Role
from domzero.dom0.api.models import Model
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.api.task_models import TaskInfo
from domzero.dom0.manager import Manager
from domzero.dom0.records import Record
from domzero.dom0.services import Services
from domzero.dom0.tasks import Task
from domzero.errors import ConfigError

QUICK_SECONDS = 1.0
"""What takes longer is answered with its task."""

ASKED: dict[int | str, dict[str, Any]] = {status: RESPONSES[status] for status in (404, 409, 504)}
"""What a request that the domain's worker is asked for can lead to."""

LONG: dict[str, Any] = {"model": TaskInfo, "description": "It takes longer: ask for the task in `Location`."}


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _actor(request: Request) -> Actor:
    actor: Actor = request.state.actor
    return actor


# These rest on the request alone, not on each other: FastAPI takes a fifth of a request's time to follow three.


async def get_services(request: Request) -> Services:  # async, as all of these: FastAPI calls others in threads
    """What the application works with."""
    return _services(request)


async def get_actor(request: Request) -> Actor:
    """Who asks."""
    return _actor(request)


async def get_manager(request: Request) -> Manager:
    """The one manager of the application."""
    return _services(request).manager


async def get_actions(request: Request) -> Actions:
    """What the application can do."""
    return _services(request).actions


ServicesDep = Annotated[Services, Depends(get_services)]
ActorDep = Annotated[Actor, Depends(get_actor)]
ManagerDep = Annotated[Manager, Depends(get_manager)]
ActionsDep = Annotated[Actions, Depends(get_actions)]
Key = Annotated[str, Path(description="uuid, name or domid", max_length=200)]


async def get_record(domain: Key, request: Request) -> Record:
    """The domain in the path; 404, too, for one that the actor may not see."""
    return _services(request).actions.find(_actor(request), domain)


RecordDep = Annotated[Record, Depends(get_record)]


def needs(role: Role, what: str) -> Any:
    """The dependency of a request that looks at something and changes nothing: PermissionDenied."""

    async def check(request: Request) -> None:
        _actor(request).check(role, what)

    return Depends(check)


def record_for(role: Role, what: str) -> Any:
    """As `RecordDep`, for who has this role on it."""

    async def get(domain: Key, request: Request) -> Record:
        actor = _actor(request)
        record = _services(request).actions.find(actor, domain)
        actor.check(role, what, record.uuid)
        return record

    return Depends(get)


async def perform_or_task(
    services: Services, actor: Actor, action: Action[Any], answer: Callable[[Any], Awaitable[Any]]
) -> Any:
    """Does something that may take long: the answer, or 202 with the task that goes on with it, or was given up."""
    return await answer_or_task(services, services.actions.begin(actor, action), answer)


async def answer_or_task(services: Services, task: Task, answer: Callable[[Any], Awaitable[Any]]) -> Any:
    """What a task leads to, soon or later."""
    assert task.job is not None
    if not await task.wait(QUICK_SECONDS) or task.job.cancelled():
        return later(task)
    services.tasks.forget(task)  # nobody has heard of it
    return await answer(task.job.result())


def later(task: Task) -> JSONResponse:
    """The answer while a task goes on."""
    return JSONResponse(TaskInfo.of(task).model_dump(mode="json"), 202, {"Location": f"/v1/tasks/{task.id}"})


def forbid_nulls(patch: Model) -> None:
    """A field that stays as it is is left out: ConfigError."""
    for field in patch.model_fields_set:
        if getattr(patch, field) is None:
            raise ConfigError("null is not a value; leave the field out", key=field)
