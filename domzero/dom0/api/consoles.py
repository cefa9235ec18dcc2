# SPDX-License-Identifier: Apache-2.0
"""A domain's console: its history, input over HTTP, and both directions live over a websocket."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Response, WebSocket
from starlette.websockets import WebSocketDisconnect

from domzero.dom0.actions import Actions, TypeText
from domzero.dom0.actors import Actor, PermissionDenied, Role
from domzero.dom0.api.asking import ActionsDep, ActorDep, ManagerDep, RecordDep, record_for
from domzero.dom0.api.models import ConsoleInfo, ConsoleInput
from domzero.dom0.api.output import Output
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.backends.channels import hosts_consoles
from domzero.dom0.manager import BadState, Manager
from domzero.dom0.records import Record
from domzero.dom0.roster import NotFound
from domzero.dom0.services import Services
from domzero.dom0.standing import Standing
from domzero.dom0.worker_handle import WorkerGone

router = APIRouter(prefix="/v1", tags=["console"], responses={404: RESPONSES[404], 422: RESPONSES[422]})

ConsoleOf = Annotated[Record, record_for(Role.VM_OPERATOR, "a console")]
CLOSE_FORBIDDEN = 4403
CLOSE_NOT_FOUND = 4404
CLOSE_TOO_SLOW = 4408
CLOSE_GOING_AWAY = 1001
CLOSE_NORMAL = 1000
REASON_MAX = 120


@router.get(
    "/domains/{domain}/console",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Bytes as printed."}},
)
async def console_history(record: ConsoleOf) -> Response:
    """What the domain has printed, the last 256 KiB of it; kept after its end. Live: websocket `…/console/stream`."""
    headers = {"X-Console-Total": str(record.console.total)}
    return Response(record.console.history, media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/domains/{domain}/consoles", responses={409: RESPONSES[409]})
async def list_consoles(record: ConsoleOf, manager: ManagerDep) -> list[ConsoleInfo]:
    """Its consoles: the first one, and its channels."""
    if record.domid is None or record.gone:
        raise BadState(f"domain {record.name} is {record.state.value}")
    found = hosts_consoles(manager.store.get, record.config, record.domid)
    return [ConsoleInfo(**asdict(console)) for console in found]


@router.post("/domains/{domain}/console", status_code=204, responses={409: RESPONSES[409]})
async def console_input(record: RecordDep, body: ConsoleInput, actions: ActionsDep, actor: ActorDep) -> None:
    """Types text on the domain's console."""
    await actions.perform(actor, TypeText(domain=record.uuid, data=body.data.encode()))


@router.websocket("/domains/{domain}/console/stream")
async def console_stream(
    websocket: WebSocket,
    domain: str,
    history: Annotated[bool, Query()] = True,
) -> None:
    """The console both ways, as binary messages (text is taken, too). Closes when the domain has ended for good."""
    record = await let_in(websocket, domain, "a console")
    if record is None:
        return
    await websocket.accept(subprotocol_of(websocket))
    standing = standing_of(websocket, websocket.state.actor, "a console", record)
    await relay(websocket, websocket.app.state.services.manager, record, standing, history=history)


async def relay(websocket: WebSocket, manager: Manager, record: Record, standing: Standing, *, history: bool) -> None:
    """A console both ways over a websocket that was accepted, until one end goes or the domain has ended for good.

    :param standing: of who has it: it ends when they may not have it any more.
    :param history: what was printed before comes first.
    """
    output = Output()
    remove = record.console.add_sink(output.put, replay=history)
    sender = asyncio.create_task(_send_output(websocket, output))
    typist = asyncio.create_task(_take_input(websocket, record))
    overrun = asyncio.create_task(output.wait_overrun())
    refused = asyncio.create_task(standing.ends())
    jobs = {sender, typist, overrun, refused, asyncio.create_task(_wait_for_end(manager, record))}
    try:
        await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        remove()
        if refused.done():
            sender.cancel()
            await websocket.close(CLOSE_FORBIDDEN, reason(str(refused.result())))
            return
        output.finish()
        await asyncio.wait({sender, typist, overrun}, return_when=asyncio.FIRST_COMPLETED)
        code = CLOSE_GOING_AWAY if manager.closing.is_set() else CLOSE_NORMAL
        if output.overrun:
            code = CLOSE_TOO_SLOW
            sender.cancel()
        await websocket.close(code, reason(f"domain {record.name} is {record.state.value}"))
    except (WebSocketDisconnect, RuntimeError):
        pass  # the client went first
    finally:
        remove()
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


async def let_in(websocket: WebSocket, domain: str, what: str) -> Record | None:
    """The domain of a websocket, for who has the role of an operator on it; else it is closed with the reason."""
    actions: Actions = websocket.app.state.services.actions
    actor: Actor = websocket.state.actor
    try:
        record = actions.find(actor, domain)
        actor.check(Role.VM_OPERATOR, what, record.uuid)
    except (NotFound, PermissionDenied) as error:
        await websocket.accept(subprotocol_of(websocket))
        await websocket.close(CLOSE_NOT_FOUND if isinstance(error, NotFound) else CLOSE_FORBIDDEN, reason(str(error)))
        return None
    return record


def standing_of(websocket: WebSocket, actor: Actor, what: str, record: Record) -> Standing:
    """Whether somebody may still have a console or a screen that they have opened."""
    services: Services = websocket.app.state.services
    return services.standing(actor, Role.VM_OPERATOR, what, record.uuid)


def reason(text: str) -> str:
    """A close frame takes 123 bytes."""
    return text.encode()[:REASON_MAX].decode(errors="ignore")


def subprotocol_of(websocket: WebSocket) -> str | None:
    """The one of those that a client offers that is spoken here."""
    return "binary" if "binary" in websocket.scope.get("subprotocols", []) else None


async def _send_output(websocket: WebSocket, output: Output) -> None:
    while data := await output.take():
        await websocket.send_bytes(data)


async def _take_input(websocket: WebSocket, record: Record) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes") or (message.get("text") or "").encode()
        if data and (worker := record.worker) is not None:
            with suppress(WorkerGone):
                await worker.console_input(data)


async def _wait_for_end(manager: Manager, record: Record) -> None:
    while not await manager.wait_ended(record, 3600) and not manager.closing.is_set():
        pass
    # Output that came with the end is on its way through this same loop.
    await asyncio.sleep(0.05)
