# SPDX-License-Identifier: Apache-2.0
"""The HTTP application: routers, errors, and who may talk to it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domzero import __version__
from domzero.dom0.api import consoles, domains, hosts
from domzero.dom0.api.models import Problem
from domzero.dom0.api.problems import RESPONSES, install, problem, respond
from domzero.dom0.api.tasks import Tasks
from domzero.dom0.manager import Manager

DESCRIPTION = """Domain 0: creates, changes and ends domains.

Domains are named by uuid, name or domid. Errors are `application/problem+json`, with the field at fault in `errors`.
The console is also a websocket: `/v1/domains/{domain}/console/stream`, binary messages both ways.
"""
BODY_MAX = 128 << 10
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]*)?")
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|\[::1\]", re.IGNORECASE)


class LocalOnly:
    """Refuses requests that a browser makes for somebody else's page.

    There are no credentials yet: who can open the socket is trusted. On loopback TCP a web page could make a browser
    send requests; those carry a foreign Origin, or by DNS rebinding a foreign Host: only names of the loopback
    interface count there. No browser reaches the Unix socket, so any Host will do on it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        refused = _refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4403, "reason": "not from this host"})
        else:
            await respond(refused)(scope, receive, send)


def _refusal(scope: Scope) -> Problem | None:
    headers = Headers(scope=scope)
    host, origin = headers.get("host"), headers.get("origin")
    match = _HOST.fullmatch(host or "localhost")
    if match is None or len(headers.getlist("host")) > 1:
        return problem(400, "BAD_REQUEST", "malformed Host")
    server = scope.get("server")
    over_tcp = server is not None and server[1] is not None
    if over_tcp and not _LOOPBACK.fullmatch(match[1]):
        return problem(403, "FORBIDDEN", f"no such host here: {match[1]}: say localhost, 127.0.0.1 or [::1]")
    if origin is not None:
        try:
            site = urlsplit(origin).netloc
        except ValueError:
            return problem(400, "BAD_REQUEST", "malformed Origin")
        if site != host:
            return problem(403, "FORBIDDEN", "requests must not come from another site's page")
    return None


class BodyLimit:
    """Answers 413 to requests with a body that no request of this API needs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = 0

        async def counted() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            if length > BODY_MAX:
                raise HTTPException(413, f"at most {BODY_MAX} bytes")
            return message

        await self._app(scope, counted, send)


def create_app(manager: Manager | None = None) -> FastAPI:
    """The application; its manager, and with it all domains, end with its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.manager = manager or Manager()
        app.state.tasks = Tasks()
        yield
        await app.state.manager.close()
        await app.state.tasks.close()

    app = FastAPI(
        title="Domzero",
        version="1",
        summary="HTTP API of Domain 0",
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(BodyLimit)
    app.add_middleware(LocalOnly)
    install(app)
    for router in (domains.router, domains.tasks_router, consoles.router, hosts.router):
        app.include_router(router)

    @app.get("/v1", tags=["host"])
    async def about() -> dict[str, str]:
        """Says that this is Domain 0."""
        return {"name": "domzero", "version": __version__, "openapi": "/openapi.json", "docs": "/docs"}

    original = app.openapi

    def openapi() -> dict[str, object]:
        schema = original()
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault("Problem", Problem.model_json_schema(ref_template="#/components/schemas/{model}"))
        schemas["Problem"].pop("$defs", None)
        for path in schema["paths"].values():
            for operation in path.values():
                for status in (400, 403, 413) if "requestBody" in operation else (400, 403):
                    operation["responses"].setdefault(str(status), RESPONSES[status])
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app
