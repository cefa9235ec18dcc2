# SPDX-License-Identifier: Apache-2.0
"""/v1/domains: suspend and resume, save and restore."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from domzero.dom0.actions import RestoreDomain, ResumeDomain, SaveDomain, SuspendDomain
from domzero.dom0.api.asking import LONG, ActorDep, RecordDep, ServicesDep, perform_or_task
from domzero.dom0.api.domains import ABSENT, info
from domzero.dom0.api.models import DomainCreate, DomainInfo, Model
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.records import Record

router = APIRouter(prefix="/v1", tags=["domains"], responses={422: RESPONSES[422]})
ANSWERS: dict[int | str, dict[str, Any]] = {202: LONG, **ABSENT, 504: RESPONSES[504]}
_PATH = Field(max_length=4096, description="Absolute, on the host.")


class SaveRequest(Model):
    """Where a domain is saved to."""

    path: Annotated[str, _PATH]
    leave_running: Annotated[bool, Field(description="It goes on afterwards: a checkpoint.")] = False
    leave_paused: Annotated[bool, Field(description="It is there afterwards, paused.")] = False
    config: Annotated[
        DomainCreate | None, Field(description="With which it is restored; with the same vCPUs, memory and devices.")
    ] = None


class SavedInfo(Model):
    """A domain that was saved."""

    path: str
    bytes: int


class RestoreRequest(Model):
    """What a domain is made of."""

    path: Annotated[str, _PATH]
    name: Annotated[
        str | None, Field(max_length=200, description="Other than the saved one's: with a uuid of its own.")
    ] = None
    paused: bool = False
    persistent: Annotated[bool, Field(description="It is defined, too.")] = False
    config: Annotated[
        DomainCreate | None, Field(description="In place of the saved one; with the same vCPUs, memory and devices.")
    ] = None


@router.post("/domains/{domain}/suspend", response_model=DomainInfo, responses=ANSWERS)
async def suspend_domain(record: RecordDep, services: ServicesDep, actor: ActorDep) -> Any:
    """Suspends a defined domain to a file of Domain 0's, from which it is resumed."""
    action = SuspendDomain(domain=record.uuid)
    return await perform_or_task(services, actor, action, lambda _: info(services.manager, record))


@router.post("/domains/{domain}/resume", response_model=DomainInfo, responses=ANSWERS)
async def resume_domain(
    record: RecordDep,
    services: ServicesDep,
    actor: ActorDep,
    paused: Annotated[bool, Query(description="Leave it paused.")] = False,
) -> Any:
    """Goes on with a suspended domain."""
    action = ResumeDomain(domain=record.uuid, paused=paused)
    return await perform_or_task(services, actor, action, lambda resumed: info(services.manager, resumed))


@router.post("/domains/{domain}/save", status_code=201, response_model=SavedInfo, responses=ANSWERS)
async def save_domain(record: RecordDep, body: SaveRequest, services: ServicesDep, actor: ActorDep) -> Any:
    """Saves a domain to a file of the host, and ends it unless it is to go on."""

    async def answer(size: int) -> SavedInfo:
        return SavedInfo(path=body.path, bytes=size)

    action = SaveDomain(
        domain=record.uuid,
        path=body.path,
        leave_running=body.leave_running,
        leave_paused=body.leave_paused,
        config=None if body.config is None else body.config.to_config(),
    )
    return await perform_or_task(services, actor, action, answer)


@router.post("/restore", status_code=201, response_model=DomainInfo, responses={202: LONG, 409: RESPONSES[409]})
async def restore_domain(body: RestoreRequest, services: ServicesDep, actor: ActorDep, response: Response) -> Any:
    """Makes a domain of a file that one was saved to; it goes on from there."""

    async def answer(record: Record) -> DomainInfo:
        response.headers["Location"] = f"/v1/domains/{record.uuid}"
        return await info(services.manager, record)

    action = RestoreDomain(
        path=body.path,
        name=body.name,
        paused=body.paused,
        persistent=body.persistent,
        config=None if body.config is None else body.config.to_config(),
    )
    return await perform_or_task(services, actor, action, answer)
