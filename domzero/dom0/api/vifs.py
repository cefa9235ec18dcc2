# SPDX-License-Identifier: Apache-2.0
"""/v1/domains/DOMAIN/vifs: plug in, change, take away, capture; and /v1/networks: where they meet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from domzero.dom0 import networks, vif_changes
from domzero.dom0.actions import AttachVif, DetachVif, SetVif
from domzero.dom0.actors import Role
from domzero.dom0.api.asking import (
    ASKED,
    ActionsDep,
    ActorDep,
    ManagerDep,
    RecordDep,
    ServicesDep,
    forbid_nulls,
    needs,
    record_for,
)
from domzero.dom0.api.device_models import NetworkInfo, VifAttach, VifInfo, VifPatch
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.device_changes import still_there
from domzero.dom0.manager import Manager
from domzero.dom0.records import Record
from domzero.dom0.standing import Standing
from domzero.dom0.vifspec import INTERFACES_MAX

router = APIRouter(prefix="/v1/domains/{domain}/vifs", tags=["domains"], responses={422: RESPONSES[422]})
networks_router = APIRouter(prefix="/v1/networks", tags=["host"])
Devid = Annotated[int, Path(description="The interface's number", ge=0, lt=INTERFACES_MAX, examples=[0])]
PCAPNG = "application/x-pcapng"
_CHUNK = 1 << 16


async def _info(manager: Manager, record: Record, devid: int) -> VifInfo:
    return VifInfo.of(still_there(await vif_changes.list_vifs(manager, record), devid, "the interface"))


@router.get("", responses=ASKED)
async def list_vifs(record: RecordDep, manager: ManagerDep) -> list[VifInfo]:
    """Its network interfaces, and what its guest did with them."""
    return [VifInfo.of(vif) for vif in await vif_changes.list_vifs(manager, record)]


@router.post("", status_code=201, responses=ASKED)
async def attach_vif(
    record: RecordDep, body: VifAttach, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> VifInfo:
    """Plugs a network interface in, while the domain runs or is halted."""
    spec = await actions.perform(actor, AttachVif(domain=record.uuid, spec=body.spec))
    return await _info(manager, record, spec.devid)


@router.patch("/{devid}", responses=ASKED)
async def set_vif(
    record: RecordDep, devid: Devid, body: VifPatch, actions: ActionsDep, actor: ActorDep, manager: ManagerDep
) -> VifInfo:
    """Changes a network interface while the domain runs; it stays so at its next starts."""
    forbid_nulls(body)
    await actions.perform(actor, SetVif(domain=record.uuid, devid=devid, link=body.link, rate=body.rate))
    return await _info(manager, record, devid)


@router.delete("/{devid}", status_code=204, responses=ASKED)
async def detach_vif(
    record: RecordDep,
    devid: Devid,
    actions: ActionsDep,
    actor: ActorDep,
    force: Annotated[bool, Query(description="Take it away even if the guest uses it.")] = False,
) -> None:
    """Takes a network interface away; 409 if the guest still uses it."""
    await actions.perform(actor, DetachVif(domain=record.uuid, devid=devid, force=force))


@router.get(
    "/{devid}/capture",
    response_class=StreamingResponse,
    responses={**ASKED, 200: {"content": {PCAPNG: {"schema": {"type": "string"}}}, "description": "A pcapng file."}},
)
async def capture_vif(
    record: Annotated[Record, record_for(Role.VM_ADMIN, "what an interface sends and receives")],
    devid: Devid,
    manager: ManagerDep,
    services: ServicesDep,
    actor: ActorDep,
    snaplen: Annotated[
        int, Query(description="Bytes of each frame", ge=1, le=networks.SNAPLEN_MAX)
    ] = networks.SNAPLEN_MAX,
    frames: Annotated[int, Query(description="Ends after so many; 0: no bound", ge=0, lt=1 << 63)] = 0,
    timeout: Annotated[float, Query(description="Ends after so many seconds", gt=0, le=86400)] = 86400,
) -> StreamingResponse:
    """The frames that the guest sends and receives from now on; how many a slow reader has missed is in the file."""
    source = await vif_changes.capture_vif(manager, record, devid, snaplen=snaplen, frames=frames)
    standing = services.standing(actor, Role.VM_ADMIN, "a capture", record.uuid)
    return StreamingResponse(_pass_on(source, timeout, manager, standing), media_type=PCAPNG)


async def _pass_on(
    source: socket.socket, timeout_s: float, manager: Manager, standing: Standing
) -> AsyncIterator[bytes]:
    reader, writer = await asyncio.open_connection(sock=source, limit=_CHUNK)
    ends = asyncio.get_running_loop().call_later(timeout_s, writer.write_eof)
    jobs = [asyncio.create_task(manager.closing.wait()), asyncio.create_task(standing.ends())]
    for job in jobs:
        job.add_done_callback(lambda _: writer.close())
    try:
        while data := await reader.read(_CHUNK):
            yield data
    finally:
        ends.cancel()
        for job in jobs:
            job.cancel()
        writer.close()


@networks_router.get("", dependencies=[needs(Role.READ_ONLY, "networks")])
async def list_networks() -> list[NetworkInfo]:
    """The networks of domains that there are now, and who is connected to them."""
    found = await asyncio.to_thread(networks.networks)
    return [NetworkInfo(**asdict(network)) for network in found]
