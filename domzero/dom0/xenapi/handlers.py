# SPDX-License-Identifier: Apache-2.0
"""XAPI's HTTP handlers for disks and consoles: what clients use beside messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from domzero.dom0.actors import Actor, PermissionDenied, Role
from domzero.dom0.api.consoles import relay, subprotocol_of
from domzero.dom0.api.screens import show_screen
from domzero.dom0.images.receiving import TooLong
from domzero.dom0.sessions import Door, Session
from domzero.dom0.standing import Standing
from domzero.dom0.storage import BYTES_MAX, Disk
from domzero.dom0.tasks import Task, TaskState
from domzero.dom0.users import NotAuthenticated
from domzero.dom0.xenapi import raw_vdi, wire_xml, xva
from domzero.dom0.xenapi.asked import ASKED
from domzero.dom0.xenapi.classes.vm_changes import check_not_blocked
from domzero.dom0.xenapi.failure import Failure, failure_of
from domzero.dom0.xenapi.http_access import authenticate, both, peer_of, world_of
from domzero.dom0.xenapi.objects import HALTED, SCREEN, consoles, power_state
from domzero.dom0.xenapi.table import may_see
from domzero.dom0.xenapi.values import identity_of, reference
from domzero.dom0.xenapi.world import Call, World
from domzero.errors import DomzeroError

_STATUS = {
    "SESSION_AUTHENTICATION_FAILED": 401,
    "SESSION_INVALID": 401,
    "HANDLE_INVALID": 404,
    "INVALID_VALUE": 400,
    "RBAC_PERMISSION_DENIED": 403,
    "VDI_TOO_SMALL": 413,
    "HOST_NOT_ENOUGH_FREE_MEMORY": 507,
}


def refusal(error: DomzeroError) -> Response:
    """An error as an answer: its code, and what it is about."""
    failure = failure_of(error)
    status = _STATUS.get(failure.code, 409)
    headers = {"WWW-Authenticate": 'Basic realm="domzero"'} if status == 401 else {}
    return PlainTextResponse(": ".join(failure.description) + "\n", status, headers)


def object_in(request: HTTPConnection, *names: str) -> UUID:
    """The object that the first of these parameters names, by reference or uuid. Failure."""
    for name in names:
        if text := request.query_params.get(name):
            if (identity := identity_of(text)) is None:
                raise Failure("HANDLE_INVALID", name, text)
            return identity
    raise Failure("INVALID_VALUE", names[0], "it has to be in the query")


class Reported:
    """Tells the task that the client names, if it does, how its transfer goes."""

    def __init__(self, request: HTTPConnection, actor: Actor) -> None:
        self._world = world_of(request)
        self._task: Task | None = None
        if text := request.query_params.get("task_id"):
            identity = identity_of(text)
            task = self._world.tasks.get(identity) if identity is not None else None
            if task is None or not task.is_clients or task.actor != actor.name:
                raise Failure("HANDLE_INVALID", "task", text)
            self._task = task

    def done(self, result: str = "") -> None:
        """It is over."""
        if self._task is not None and not self._task.is_over:
            self._world.tasks.finish(self._task, TaskState.DONE, result=result)

    def failed(self, error: DomzeroError) -> None:
        """It is, and has not worked."""
        if self._task is not None and not self._task.is_over:
            self._world.tasks.finish(self._task, TaskState.FAILED, failure=failure_of(error).description)


def _disk(request: HTTPConnection) -> Disk:
    identity = object_in(request, "vdi", "vdi_uuid", "uuid", "ref")
    disk = next((disk for disk in world_of(request).storage.disks() if disk.uuid == identity), None)
    if disk is None:
        raise Failure("HANDLE_INVALID", "VDI", reference(identity))
    return disk


def _format(request: HTTPConnection) -> str:
    name = request.query_params.get("format", "raw")
    if name not in raw_vdi.FORMATS:
        raise Failure("INVALID_VALUE", "format", f"{name[:40]}: raw, vhd or qcow2")
    return raw_vdi.FORMATS[name]


async def body_of(request: Request, standing: Standing) -> AsyncIterator[bytes]:
    """The body, until its end or until the client goes: some announce more than they send.

    :param standing: of who sends it. NotAuthenticated, PermissionDenied: they may not any more.
    """
    try:
        async for piece in standing.pieces(request.stream()):
            yield piece
    except ClientDisconnect:
        return


def _standing(request: HTTPConnection, actor: Actor, role: Role, what: str, domain: UUID | None = None) -> Standing:
    return world_of(request).services.standing(actor, role, what, domain)


Transfer = Callable[[Request, Actor, Reported], Awaitable[Response]]


def _transfer(work: Transfer, *, is_upload: bool = False) -> Callable[[Request], Awaitable[Response]]:
    """The handler that does a transfer for who may ask for it; an error is its answer, and told to its task."""

    async def told(request: Request, actor: Actor, report: Reported) -> Response:
        try:
            return await work(request, actor, report)
        except DomzeroError as error:
            report.failed(error)
            return refusal(error)

    async def handler(request: Request) -> Response:
        try:
            actor = await authenticate(request)
            report = Reported(request, actor)
        except DomzeroError as error:
            return refusal(error)
        if is_upload and _has_no_end(request):
            return AnsweredFirst(told(request, actor, report))
        return await told(request, actor, report)

    return handler


async def _import_raw_vdi(request: Request, actor: Actor, report: Reported) -> Response:
    """PUT /import_raw_vdi."""
    world = world_of(request)
    disk, format = _disk(request), _format(request)
    body = body_of(request, _standing(request, actor, Role.VM_ADMIN, "import_raw_vdi"))
    work = partial(raw_vdi.receive, world.storage, disk, format, body)
    action = ASKED[Role.VM_ADMIN](message="import_raw_vdi", about=disk.uuid, work=work)
    try:
        await world.services.actions.perform(actor, action)
    except TooLong:
        raise Failure("VDI_TOO_SMALL", reference(disk.uuid), str(disk.bytes)) from None
    report.done()
    world.journal.stir()
    return Response(status_code=200)


async def _export_raw_vdi(request: Request, actor: Actor, report: Reported) -> Response:
    """GET /export_raw_vdi."""
    stack = AsyncExitStack()
    disk, format = _disk(request), _format(request)
    actor.check(Role.VM_ADMIN, "export_raw_vdi")
    fd, size = await stack.enter_async_context(raw_vdi.opened(world_of(request).storage, disk, format))
    headers = {"Content-Length": str(size), "Content-Disposition": f'attachment; filename="{disk.uuid}.{format}"'}
    standing = _standing(request, actor, Role.VM_ADMIN, "export_raw_vdi")
    return Streamed(standing.pieces(raw_vdi.pieces(fd, size, stack.aclose)), stack, report, headers)


async def _export(request: Request, actor: Actor, report: Reported) -> Response:
    """GET /export: an XVA of a VM that is halted."""
    world = world_of(request)
    identity = object_in(request, "uuid", "ref")
    vm = world.record(identity)
    if vm is None or vm in (world.control_domain, world.template) or not may_see(actor, [identity]):
        raise Failure("HANDLE_INVALID", "VM", reference(identity))
    actor.check(Role.VM_ADMIN, "export", identity)
    check_not_blocked(world, vm, "export")
    if power_state(vm) != HALTED:
        raise Failure("VM_BAD_POWER_STATE", reference(identity), HALTED.lower(), power_state(vm).lower())
    if request.query_params.get("use_compression", "false") not in ("false", ""):
        raise Failure("INVALID_VALUE", "use_compression", "compress what comes")
    exported = xva.Exported(world, vm)
    headers = {"Content-Disposition": f'attachment; filename="{identity}.xva"'}
    standing = _standing(request, actor, Role.VM_ADMIN, "export", identity)
    return Streamed(standing.pieces(xva.write(world, exported)), AsyncExitStack(), report, headers)


async def _import(request: Request, actor: Actor, report: Reported) -> Response:
    """PUT /import: a VM of an XVA."""
    world = world_of(request)
    sr = object_in(request, "sr_id", "sr_uuid") if {"sr_id", "sr_uuid"} & set(request.query_params) else None
    call = Call(world, Session(Door.XENAPI, actor, actor.name, "", str(uuid4())), peer_of(request))
    body = body_of(request, _standing(request, actor, Role.VM_ADMIN, "import"))
    made = await xva.Importer(call, sr).run(body)
    report.done(wire_xml.value_text([reference(made)]))
    world.journal.stir()
    return PlainTextResponse(f"{reference(made)}\n")


def _has_no_end(request: Request) -> bool:
    """Whether a length was announced that no disk has, by a client that does not know it and closes when all is sent.

    Such a client wants its answer first, as XAPI gives it: how the transfer went its task tells.
    """
    text = request.headers.get("content-length", "")
    return text.isdecimal() and int(text[:20]) > BYTES_MAX


class AnsweredFirst(Response):
    """An answer that is sent before the body is read.

    :param work: reads it, and tells the task.
    """

    def __init__(self, work: Awaitable[Response]) -> None:
        super().__init__()
        self._work = work

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await self._work
        await send({"type": "http.response.body", "body": b""})


class Streamed(StreamingResponse):
    """An answer that gives back what it needed when it is over, however that comes."""

    def __init__(
        self, content: AsyncIterator[bytes], stack: AsyncExitStack, report: Reported, headers: dict[str, str]
    ) -> None:
        super().__init__(
            content, media_type="application/octet-stream", headers=headers, background=BackgroundTask(report.done)
        )
        self._stack = stack
        self._report = report

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        try:
            async with self._stack:
                await super().__call__(scope, receive, send)
        except (NotAuthenticated, PermissionDenied) as error:  # the answer ends before its length: it is cut
            self._report.failed(error)
        finally:
            self._report.failed(Failure("CLIENT_ERROR", "the client went before the end"))


async def console(websocket: WebSocket) -> None:
    """/console, as a websocket, and what `connections.Tunnel` makes of CONNECT /console."""
    try:
        actor = await authenticate(websocket)
        world: World = world_of(websocket)
        identity = object_in(websocket, "uuid", "ref")
        found = consoles(world).get(identity)
        record = found.vm if found is not None else world.record(identity)
        if record is None or record.worker is None or not may_see(actor, [record.uuid]):
            state = "" if record is None or not may_see(actor, [record.uuid]) else f" ({power_state(record).lower()})"
            raise Failure("HANDLE_INVALID", "console", reference(identity) + state)
        actor.check(Role.VM_OPERATOR, "a console", record.uuid)
        standing = _standing(websocket, actor, Role.VM_OPERATOR, "a console", record.uuid)
        if found is not None and found.protocol == SCREEN:
            await show_screen(websocket, world.manager, record, standing)
            return
    except DomzeroError as error:
        await websocket.send_denial_response(refusal(error))
        return
    await websocket.accept(subprotocol_of(websocket))
    await relay(websocket, world.manager, record, standing, history=True)


_HANDLERS = (
    ("/import_raw_vdi", _transfer(_import_raw_vdi, is_upload=True), ["PUT", "POST"]),
    ("/export_raw_vdi", _transfer(_export_raw_vdi), ["GET"]),
    ("/import", _transfer(_import, is_upload=True), ["PUT", "POST"]),
    ("/export", _transfer(_export), ["GET"]),
)
ROUTES = [
    *(
        Route(each, handler, methods=methods, include_in_schema=False)
        for path, handler, methods in _HANDLERS
        for each in both(path)
    ),
    *(WebSocketRoute(path, console) for path in both("/console")),
]
