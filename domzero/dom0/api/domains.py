# SPDX-License-Identifier: Apache-2.0
"""/v1/domains: create, read, change, end."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from domzero.dom0.api.models import (
    ABOUT,
    AuditInfo,
    CoreDump,
    CoreInfo,
    DesiredState,
    DomainCreate,
    DomainInfo,
    DomainPatch,
    Model,
    Nmi,
    Pinning,
    SysRq,
    TaskInfo,
    VcpuInfo,
)
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.api.tasks import Task, Tasks
from domzero.dom0.changes import Changes
from domzero.dom0.cpuspec import parse_cpus
from domzero.dom0.life import DomainState
from domzero.dom0.manager import Manager
from domzero.dom0.records import Record
from domzero.dom0.roster import NotFound
from domzero.errors import ConfigError, DomzeroError

router = APIRouter(prefix="/v1", tags=["domains"], responses={422: RESPONSES[422]})

ASKED: dict[int | str, dict[str, Any]] = {status: RESPONSES[status] for status in (404, 409, 504)}
"""What a request that the domain's worker is asked for can lead to."""

LONG: dict[str, Any] = {"model": TaskInfo, "description": "It takes longer: ask for the task in `Location`."}


def _later(task: Task) -> JSONResponse:
    """The answer while a task goes on."""
    return JSONResponse(task.info().model_dump(mode="json"), 202, {"Location": f"/v1/tasks/{task.id}"})


async def get_manager(request: Request) -> Manager:  # async, as all of these: FastAPI calls others in threads
    """The one manager of the application."""
    manager: Manager = request.app.state.manager
    return manager


async def get_tasks(request: Request) -> Tasks:
    """The tasks of the application."""
    tasks: Tasks = request.app.state.tasks
    return tasks


ManagerDep = Annotated[Manager, Depends(get_manager)]
Key = Annotated[str, Path(description="uuid, name or domid", max_length=200)]


async def get_record(domain: Key, manager: ManagerDep) -> Record:
    """The domain in the path; 404."""
    return manager.find(domain)


RecordDep = Annotated[Record, Depends(get_record)]


def forbid_nulls(patch: Model) -> None:
    """A field that stays as it is is left out: ConfigError."""
    for field in patch.model_fields_set:
        if getattr(patch, field) is None:
            raise ConfigError("null is not a value; leave the field out", key=field)


async def info(manager: Manager, record: Record) -> DomainInfo:
    """A domain with its present state."""
    await manager.refresh(record)
    return DomainInfo.of(record)


@router.post(
    "/domains",
    status_code=201,
    response_model=DomainInfo,
    responses={
        202: LONG,
        409: RESPONSES[409],
    },
)
async def create_domain(
    body: DomainCreate, manager: ManagerDep, tasks: Annotated[Tasks, Depends(get_tasks)], response: Response
) -> DomainInfo | JSONResponse:
    """Builds a domain and starts it (or leaves it paused, or only defines it)."""
    config, about = body.to_config(), body.to_about()
    if not body.start:
        record: Record | Task = await manager.define(config, about)
    else:
        creation = manager.create(config, about, persistent=body.persistent)
        record = await tasks.run("create", creation, config.uuid)
    if isinstance(record, Task):
        return _later(record)
    response.headers["Location"] = f"/v1/domains/{record.uuid}"
    return await info(manager, record)


@router.get("/domains")
async def list_domains(
    manager: ManagerDep,
    ended: Annotated[bool, Query(description="Also those that have ended, if kept.")] = False,
    halted: Annotated[bool, Query(description="Also those that are defined and do not run.")] = False,
) -> list[DomainInfo]:
    """All domains but Domain 0."""
    records = manager.all(halted=halted, ended=ended)
    await asyncio.gather(*(manager.refresh(record) for record in records))
    return [DomainInfo.of(record) for record in records]


@router.get("/domains/{domain}", responses={404: RESPONSES[404]})
async def read_domain(record: RecordDep, manager: ManagerDep) -> DomainInfo:
    """One domain; one that has ended stays readable for a while."""
    return await info(manager, record)


@router.put("/domains/{domain}", responses={404: RESPONSES[404], 409: RESPONSES[409]})
async def redefine_domain(record: RecordDep, body: DomainCreate, manager: ManagerDep) -> DomainInfo:
    """Gives a halted domain another definition; its uuid stays."""
    await manager.redefine(record, body.to_config(), body.to_about())
    return await info(manager, record)


@router.post(
    "/domains/{domain}/start",
    response_model=DomainInfo,
    responses={202: LONG, 404: RESPONSES[404], 409: RESPONSES[409]},
)
async def start_domain(
    record: RecordDep,
    manager: ManagerDep,
    tasks: Annotated[Tasks, Depends(get_tasks)],
    paused: Annotated[bool, Query(description="Leave it paused.")] = False,
) -> DomainInfo | JSONResponse:
    """Starts a domain that is halted."""
    done = await tasks.run("start", manager.start(record, paused=paused), record.uuid)
    return _later(done) if isinstance(done, Task) else await info(manager, record)


@router.delete("/domains/{domain}/definition", status_code=204, responses={404: RESPONSES[404], 409: RESPONSES[409]})
async def undefine_domain(record: RecordDep, manager: ManagerDep) -> None:
    """Forgets its definition. One that runs goes on, and is gone with its end."""
    await manager.undefine(record)


@router.patch("/domains/{domain}", responses=ASKED)
async def change_domain(record: RecordDep, body: DomainPatch, manager: ManagerDep) -> DomainInfo:
    """Changes name, memory target or limit, vCPUs, cap, state or what is kept beside it: all that is asked for, or
    nothing."""
    forbid_nulls(body)
    changes = Changes(**body.model_dump(exclude={"state", *ABOUT}))
    about = replace(record.about, **body.model_dump(include=ABOUT, exclude_unset=True))
    about.check()
    before = Changes.of(record)
    manager.check_changes(record, changes, runs=body.state is not None)
    await manager.change(record, changes)
    try:
        await _change_state(manager, record, body.state)
    except DomzeroError:
        with suppress(DomzeroError):  # it may have ended meanwhile
            await manager.change(record, before if changes.needs_guest else Changes(name=before.name))
        raise
    if about != record.about:
        record.about = about
        await manager.changed(record)
    return await info(manager, record)


async def _change_state(manager: Manager, record: Record, state: DesiredState | None) -> None:
    if state == DesiredState.SHUTDOWN:
        manager.request_shutdown(record, "poweroff")
    elif state == DesiredState.PAUSED and record.state != DomainState.PAUSED:
        await manager.pause(record)
    elif state == DesiredState.RUNNING and record.state not in (DomainState.RUNNING, DomainState.BLOCKED):
        await manager.unpause(record)


@router.delete("/domains/{domain}", status_code=204, responses={404: RESPONSES[404]})
async def destroy_domain(record: RecordDep, manager: ManagerDep) -> None:
    """Ends a domain at once, as pulling the plug does. One that has ended is forgotten, a halted one undefined."""
    if record.persistent and record.gone:
        await manager.undefine(record)
    else:
        await manager.destroy(record)


@router.post("/domains/{domain}/pause", responses=ASKED)
async def pause_domain(record: RecordDep, manager: ManagerDep) -> DomainInfo:
    """Stops its vCPUs."""
    await manager.pause(record)
    return await info(manager, record)


@router.post("/domains/{domain}/unpause", responses=ASKED)
async def unpause_domain(record: RecordDep, manager: ManagerDep) -> DomainInfo:
    """Lets its vCPUs go on."""
    await manager.unpause(record)
    return await info(manager, record)


@router.get("/domains/{domain}/audit", responses=ASKED)
async def audit_domain(record: RecordDep, manager: ManagerDep) -> AuditInfo:
    """Lets its hypervisor count all references, event channels and grants again."""
    return AuditInfo(problems=await manager.audit(record))


@router.get("/domains/{domain}/vcpus", responses=ASKED)
async def list_vcpus(record: RecordDep, manager: ManagerDep) -> list[VcpuInfo]:
    """Its vCPUs, with what they do now; those that are offline, too."""
    return [VcpuInfo.of(vcpu, usage) for vcpu, usage in await manager.vcpus(record)]


@router.put("/domains/{domain}/vcpus/affinity", responses=ASKED)
async def pin_vcpus(record: RecordDep, body: Pinning, manager: ManagerDep) -> list[VcpuInfo]:
    """Lets a vCPU, or all, run on some of the host's processors only; until the domain is started again."""
    await manager.pin_vcpu(record, body.vcpu, parse_cpus(body.cpus))
    return [VcpuInfo.of(vcpu, usage) for vcpu, usage in await manager.vcpus(record)]


@router.post(
    "/domains/{domain}/core",
    status_code=201,
    response_model=CoreInfo,
    responses={
        202: LONG,
        404: RESPONSES[404],
        409: RESPONSES[409],
    },
)
async def dump_core(
    record: RecordDep, body: CoreDump, manager: ManagerDep, tasks: Annotated[Tasks, Depends(get_tasks)]
) -> CoreInfo | JSONResponse:
    """Writes a core dump in Xen's ELF format; the vCPUs stand still meanwhile."""
    size = await tasks.run("dump-core", manager.dump_core(record, body.path), record.uuid)
    if isinstance(size, Task):
        return _later(size)
    return CoreInfo(path=body.path, bytes=size)


@router.post("/domains/{domain}/sysrq", status_code=202, responses={404: RESPONSES[404], 409: RESPONSES[409]})
async def press_sysrq(record: RecordDep, body: SysRq, manager: ManagerDep) -> DomainInfo:
    """Presses a key together with SysRq in the guest."""
    manager.send_sysrq(record, body.key)
    return await info(manager, record)


@router.post("/domains/{domain}/nmi", status_code=202, responses=ASKED)
async def send_nmi(record: RecordDep, body: Nmi, manager: ManagerDep) -> DomainInfo:
    """Sends a vCPU a non-maskable interrupt."""
    await manager.send_nmi(record, body.vcpu)
    return await info(manager, record)


@router.post("/domains/{domain}/shutdown", status_code=202, responses={404: RESPONSES[404], 409: RESPONSES[409]})
async def shut_down_domain(record: RecordDep, manager: ManagerDep) -> DomainInfo:
    """Asks the guest to power off."""
    manager.request_shutdown(record, "poweroff")
    return await info(manager, record)


@router.post("/domains/{domain}/reboot", status_code=202, responses={404: RESPONSES[404], 409: RESPONSES[409]})
async def reboot_domain(record: RecordDep, manager: ManagerDep) -> DomainInfo:
    """Asks the guest to reboot."""
    manager.request_shutdown(record, "reboot")
    return await info(manager, record)


@router.get("/domains/{domain}/wait", responses={404: RESPONSES[404]})
async def wait_for_end(
    record: RecordDep,
    manager: ManagerDep,
    timeout: Annotated[float, Query(gt=0, le=300, description="Seconds")] = 30,
) -> DomainInfo:
    """Answers when the domain has ended, or as it is after `timeout` seconds: look at `exit` and `exists`."""
    await manager.wait_ended(record, timeout)
    return await info(manager, record)


tasks_router = APIRouter(prefix="/v1", tags=["tasks"], responses={422: RESPONSES[422]})


@tasks_router.get("/tasks")
async def list_tasks(tasks: Annotated[Tasks, Depends(get_tasks)]) -> list[TaskInfo]:
    """Tasks under way, and some that are over."""
    return [task.info() for task in tasks.all()]


@tasks_router.get("/tasks/{task_id}", responses={404: RESPONSES[404]})
async def read_task(task_id: uuid.UUID, tasks: Annotated[Tasks, Depends(get_tasks)]) -> TaskInfo:
    """One task."""
    task = tasks.get(task_id)
    if task is None:
        raise NotFound(f"no such task: {task_id}")
    return task.info()
