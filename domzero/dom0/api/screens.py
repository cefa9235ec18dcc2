# SPDX-License-Identifier: Apache-2.0
"""A domain's screen: as a picture, and live by RFB."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Response, WebSocket
from pydantic import Field
from starlette.websockets import WebSocketDisconnect

from domzero.dom0.actors import Role
from domzero.dom0.api.asking import ASKED, ManagerDep, record_for
from domzero.dom0.api.consoles import (
    CLOSE_FORBIDDEN,
    CLOSE_GOING_AWAY,
    CLOSE_NORMAL,
    let_in,
    reason,
    standing_of,
    subprotocol_of,
)
from domzero.dom0.api.models import Model
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.manager import BadState, Manager
from domzero.dom0.messages import AddViewer, Done, Picture, TakePicture
from domzero.dom0.records import Record
from domzero.dom0.standing import Standing
from domzero.errors import DomzeroError

router = APIRouter(prefix="/v1", tags=["screen"], responses={404: RESPONSES[404], 422: RESPONSES[422]})

ScreenOf = Annotated[Record, record_for(Role.VM_OPERATOR, "a screen")]
CHUNK = 64 << 10
CLOSE_REFUSED = 4409


class ScreenInfo(Model):
    """Where a domain's screen can be looked at."""

    address: Annotated[
        str | None,
        Field(description="`127.0.0.1:5900`, `[::1]:5900` or `unix:PATH`; null: only by Domain 0."),
    ]
    password: Annotated[bool, Field(description="Whether one is asked for there.")]
    tls: Annotated[bool, Field(description="Whether viewers have to speak TLS there.")]


_PICTURE: dict[int | str, dict[str, object]] = {
    200: {
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        "description": "The picture.",
    }
}


@router.get("/domains/{domain}/screenshot", response_class=Response, responses={**ASKED, **_PICTURE})
async def screenshot(record: ScreenOf, manager: ManagerDep) -> Response:
    """What the domain's framebuffer shows now, black if nothing."""
    return await picture_of(manager, record)


async def picture_of(manager: Manager, record: Record) -> Response:
    """The picture as an answer. BadState: the domain has no framebuffer, or does not run."""
    check_screen(record)
    fd = os.memfd_create("picture", os.MFD_CLOEXEC)
    try:
        picture = await manager.ask(record, TakePicture(), Picture, [fd])
        data = await asyncio.to_thread(os.pread, fd, picture.bytes, 0)
    finally:
        os.close(fd)
    return Response(data, media_type="image/png", headers={"Cache-Control": "no-store"})


def check_screen(record: Record) -> None:
    """Raises BadState for a domain without one."""
    if not record.config.has_screen:
        raise BadState(f"domain {record.name} has no framebuffer", hint="it is given one by its vfb, when it starts")


@router.get("/domains/{domain}/vnc", responses={409: RESPONSES[409]})
async def screen_address(record: ScreenOf, manager: ManagerDep) -> ScreenInfo:
    """Where its screen can be looked at by VNC; as a websocket, the same path is RFB itself, for noVNC."""
    check_screen(record)
    if record.domid is None or record.gone:
        raise BadState(f"domain {record.name} is {record.state.value}")
    nodes = f"/local/domain/0/backend/vfb/{record.domid}/0"
    return ScreenInfo(
        address=manager.store.get(f"{nodes}/address"),
        password=any(spec.password for spec in record.config.vfb_specs),
        tls=any(spec.tls for spec in record.config.vfb_specs),
    )


@router.websocket("/domains/{domain}/vnc")
async def screen_stream(websocket: WebSocket, domain: str) -> None:
    """RFB both ways, as binary messages (subprotocol `binary`), without another password. Closes with the domain."""
    record = await let_in(websocket, domain, "a screen")
    if record is None:
        return
    manager: Manager = websocket.app.state.services.manager
    standing = standing_of(websocket, websocket.state.actor, "a screen", record)
    try:
        await show_screen(websocket, manager, record, standing)
    except DomzeroError as error:
        await websocket.accept(subprotocol_of(websocket))
        await websocket.close(CLOSE_REFUSED, reason(str(error)))


async def show_screen(websocket: WebSocket, manager: Manager, record: Record, standing: Standing) -> None:
    """RFB both ways over a websocket, until one end goes. DomzeroError: it cannot be, and nothing was accepted.

    :param standing: of who looks: it ends when they may not any more.
    """
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        with theirs:
            check_screen(record)
            await manager.ask(record, AddViewer(), Done, [theirs.fileno()])
        await websocket.accept(subprotocol_of(websocket))
        closing = asyncio.create_task(manager.closing.wait())
        refused = asyncio.create_task(standing.ends())
        show, take = asyncio.create_task(_show(websocket, ours)), asyncio.create_task(_take(websocket, ours))
        jobs = {show, take, closing, refused}
        try:
            await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            if refused.done():
                show.cancel()
                await websocket.close(CLOSE_FORBIDDEN, reason(str(refused.result())))
            else:
                await websocket.close(CLOSE_GOING_AWAY if closing.done() else CLOSE_NORMAL)
        except (WebSocketDisconnect, RuntimeError):
            pass  # the client went first
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)


async def _show(websocket: WebSocket, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while data := await loop.sock_recv(sock, CHUNK):
            await websocket.send_bytes(data)


async def _take(websocket: WebSocket, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            await loop.sock_sendall(sock, message.get("bytes") or (message.get("text") or "").encode())
