# SPDX-License-Identifier: Apache-2.0
"""/v1/domains: create, read, change, end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from domzero.dom0.actions import (
    ChangeDomain,
    CreateDomain,
    DefineDomain,
    DestroyDomain,
    DumpCore,
    PauseDomain,
    PinVcpu,
    PressSysRq,
    RebootDomain,
    RedefineDomain,
    ReplaceNextConfig,
    ResetDomain,
    SendNmi,
    ShutDownDomain,
    StartDomain,
    UndefineDomain,
    UnpauseDomain,
)
from domzero.dom0.actors import Role
from domzero.dom0.api.asking import (
    ASKED,
    LONG,
    ActionsDep,
    ActorDep,
    ManagerDep,
    RecordDep,
    ServicesDep,
    forbid_nulls,
    perform_or_task,
    record_for,
)
from domzero.dom0.api.listing import NDJSON, Page, page_of
from domzero.dom0.api.matching import IfMatch, Tags, etag, names
from domzero.dom0.api.models import (
    ABOUT,
    AuditInfo,
    CoreDump,
    CoreInfo,
    DomainCreate,
    DomainInfo,
    DomainPatch,
    Nmi,
    Pinning,
    SysRq,
    VcpuInfo,
)
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.changes import Changes
from domzero.dom0.cpuspec import parse_cpus
from domzero.dom0.freshness import refresh
from domzero.dom0.life import DomainState
from domzero.dom0.manager import BadState, Manager
from domzero.dom0.records import Record

router = APIRouter(prefix="/v1", tags=["domains"], responses={422: RESPONSES[422]})
ABSENT: dict[int | str, dict[str, Any]] = {404: RESPONSES[404], 409: RESPONSES[409]}


async def info(manager: Manager, record: Record) -> DomainInfo:
    """A domain with its present state."""
    await refresh(record)
    return DomainInfo.of(record)


@router.post("/domains", status_code=201, response_model=DomainInfo, responses={202: LONG, 409: RESPONSES[409]})
async def create_domain(body: DomainCreate, services: ServicesDep, actor: ActorDep, response: Response) -> Any:
    """Builds a domain and starts it (or leaves it paused, or only defines it)."""
    config, about = body.to_config(), body.to_about()
    action = (
        CreateDomain(config=config, about=about, persistent=body.persistent)
        if body.start
        else DefineDomain(config=config, about=about)
    )

    async def answer(record: Record) -> DomainInfo:
        response.headers["Location"] = f"/v1/domains/{record.uuid}"
        return await info(services.manager, record)

    return await perform_or_task(services, actor, action, answer)


@router.get(
    "/domains",
    response_model=list[DomainInfo] | list[dict[str, Any]],
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def list_domains(
    request: Request,
    actions: ActionsDep,
    actor: ActorDep,
    manager: ManagerDep,
    page: Annotated[Page, Depends(page_of)],
    ended: Annotated[bool, Query(description="Also those that have ended, if kept.")] = False,
    halted: Annotated[bool, Query(description="Also those that are defined and do not run.")] = False,
    name: Annotated[str, Query(max_length=200, description="Only these: a pattern with * and ?.")] = "",
    state: Annotated[list[DomainState] | None, Query(description="Only those in this state, or these.")] = None,
    label: Annotated[
        list[str] | None,
        Query(max_length=20, description="Only those with this label: KEY, or KEY=VALUE."),
    ] = None,
) -> Any:
    """All domains but Domain 0, as far as who asks may see them; as NDJSON for who accepts that."""
    records = [record for record in manager.all(halted=halted, ended=ended) if actions.visible(actor, record)]
    if name:
        records = [record for record in records if fnmatchcase(record.name, name)]
    for wanted in label or ():
        key, equals, value = wanted.partition("=")
        records = [each for each in records if _has(each.about.labels, key, value if equals else None)]
    records, following = page.cut(records, lambda record: (record.created_at, str(record.uuid)))
    await asyncio.gather(*(refresh(record) for record in records))
    found = [DomainInfo.of(record) for record in records if state is None or record.state in state]
    return page.answer(request, found, following)


def _has(labels: dict[str, str], key: str, value: str | None) -> bool:
    return key in labels and value in (None, labels[key])


@router.get(
    "/domains/{domain}",
    response_model=DomainInfo,
    responses={304: {"description": "It is as `If-None-Match` has it."}, 404: RESPONSES[404]},
)
async def read_domain(record: RecordDep, manager: ManagerDep, response: Response, if_none_match: Tags = None) -> Any:
    """One domain; one that has ended stays readable for a while."""
    response.headers["ETag"] = etag(record)
    if if_none_match is not None and names(if_none_match, record):
        return Response(status_code=304, headers={"ETag": etag(record)})
    return await info(manager, record)


@router.put("/domains/{domain}", responses={**ABSENT, 412: RESPONSES[412]}, dependencies=[IfMatch])
async def redefine_domain(
    record: RecordDep, body: DomainCreate, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> DomainInfo:
    """Gives a halted domain another definition; its uuid stays."""
    action = RedefineDomain(domain=record.uuid, config=body.to_config(), about=body.to_about())
    return await info(manager, await actions.perform(actor, action))


@router.put("/domains/{domain}/next-config", responses=ABSENT)
async def replace_next_config(
    record: RecordDep, body: DomainCreate, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> DomainInfo:
    """Lets a domain that runs start with another configuration the next time; its uuid and its name stay."""
    action = ReplaceNextConfig(domain=record.uuid, config=body.to_config())
    return await info(manager, await actions.perform(actor, action))


@router.post("/domains/{domain}/start", response_model=DomainInfo, responses={202: LONG, **ABSENT})
async def start_domain(
    record: RecordDep,
    services: ServicesDep,
    actor: ActorDep,
    paused: Annotated[bool, Query(description="Leave it paused.")] = False,
) -> Any:
    """Starts a domain that is halted."""
    action = StartDomain(domain=record.uuid, paused=paused)
    return await perform_or_task(services, actor, action, lambda started: info(services.manager, started))


@router.post("/domains/{domain}/reset", response_model=DomainInfo, responses={202: LONG, **ABSENT})
async def reset_domain(record: RecordDep, services: ServicesDep, actor: ActorDep) -> Any:
    """Ends a defined domain at once and starts it again, as the button does."""
    action = ResetDomain(domain=record.uuid)
    return await perform_or_task(services, actor, action, lambda _: info(services.manager, record))


@router.get("/domains/{domain}/definition", responses=ABSENT)
async def read_definition(record: Annotated[Record, record_for(Role.VM_ADMIN, "a definition")]) -> DomainCreate:
    """What a halted domain starts with, all of it: changed or not, `PUT` of the domain takes it."""
    if record.state is not DomainState.HALTED:
        raise BadState(f"domain {record.name} is {record.state.value}", hint="shut it down first")
    return DomainCreate.of(record)


@router.delete("/domains/{domain}/definition", status_code=204, responses=ABSENT)
async def undefine_domain(record: RecordDep, actions: ActionsDep, actor: ActorDep) -> None:
    """Forgets its definition. One that runs goes on, and is gone with its end."""
    await actions.perform(actor, UndefineDomain(domain=record.uuid))


@router.patch("/domains/{domain}", responses={**ASKED, 412: RESPONSES[412]}, dependencies=[IfMatch])
async def change_domain(
    record: RecordDep, body: DomainPatch, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> DomainInfo:
    """Changes name, memory target or limit, vCPUs, cap, state or what is kept beside it: all that is asked for, or
    nothing."""
    forbid_nulls(body)
    about = body.model_dump(include=ABOUT, exclude_unset=True)
    action = ChangeDomain(
        domain=record.uuid,
        changes=Changes(**body.model_dump(exclude={"state", *ABOUT})),
        about=replace(record.about, **about) if about else None,
        state=None if body.state is None else DomainState(body.state.value),
    )
    await actions.perform(actor, action)
    return await info(manager, record)


@router.delete("/domains/{domain}", status_code=204, responses={**ABSENT, 412: RESPONSES[412]}, dependencies=[IfMatch])
async def destroy_domain(record: RecordDep, actions: ActionsDep, actor: ActorDep) -> None:
    """Ends a domain at once, as pulling the plug does. One that has ended is forgotten, a halted one undefined; a
    suspended one is halted, and its state given up."""
    is_halted = record.persistent and record.gone and record.saved is None
    await actions.perform(actor, (UndefineDomain if is_halted else DestroyDomain)(domain=record.uuid))


@router.post("/domains/{domain}/pause", responses=ASKED)
async def pause_domain(record: RecordDep, actions: ActionsDep, actor: ActorDep, manager: ManagerDep) -> DomainInfo:
    """Stops its vCPUs."""
    await actions.perform(actor, PauseDomain(domain=record.uuid))
    return await info(manager, record)


@router.post("/domains/{domain}/unpause", responses=ASKED)
async def unpause_domain(record: RecordDep, actions: ActionsDep, actor: ActorDep, manager: ManagerDep) -> DomainInfo:
    """Lets its vCPUs go on."""
    await actions.perform(actor, UnpauseDomain(domain=record.uuid))
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
async def pin_vcpus(
    record: RecordDep, body: Pinning, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> list[VcpuInfo]:
    """Lets a vCPU, or all, run on some of the host's processors only; until the domain is started again."""
    await actions.perform(actor, PinVcpu(domain=record.uuid, vcpu=body.vcpu, cpus=parse_cpus(body.cpus)))
    return [VcpuInfo.of(vcpu, usage) for vcpu, usage in await manager.vcpus(record)]


@router.post("/domains/{domain}/core", status_code=201, response_model=CoreInfo, responses={202: LONG, **ABSENT})
async def dump_core(record: RecordDep, body: CoreDump, services: ServicesDep, actor: ActorDep) -> Any:
    """Writes a core dump in Xen's ELF format; the vCPUs stand still meanwhile."""

    async def answer(size: int) -> CoreInfo:
        return CoreInfo(path=body.path, bytes=size)

    return await perform_or_task(services, actor, DumpCore(domain=record.uuid, path=body.path), answer)


@router.post("/domains/{domain}/sysrq", status_code=202, responses=ABSENT)
async def press_sysrq(
    record: RecordDep, body: SysRq, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> DomainInfo:
    """Presses a key together with SysRq in the guest."""
    await actions.perform(actor, PressSysRq(domain=record.uuid, key=body.key))
    return await info(manager, record)


@router.post("/domains/{domain}/nmi", status_code=202, responses=ASKED)
async def send_nmi(
    record: RecordDep, body: Nmi, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> DomainInfo:
    """Sends a vCPU a non-maskable interrupt."""
    await actions.perform(actor, SendNmi(domain=record.uuid, vcpu=body.vcpu))
    return await info(manager, record)


@router.post("/domains/{domain}/shutdown", status_code=202, responses=ASKED)
async def shut_down_domain(record: RecordDep, actions: ActionsDep, actor: ActorDep, manager: ManagerDep) -> DomainInfo:
    """Asks the guest to power off."""
    await actions.perform(actor, ShutDownDomain(domain=record.uuid))
    return await info(manager, record)


@router.post("/domains/{domain}/reboot", status_code=202, responses=ASKED)
async def reboot_domain(record: RecordDep, actions: ActionsDep, actor: ActorDep, manager: ManagerDep) -> DomainInfo:
    """Asks the guest to reboot."""
    await actions.perform(actor, RebootDomain(domain=record.uuid))
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
