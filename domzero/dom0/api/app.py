# SPDX-License-Identifier: Apache-2.0
"""The HTTP application: routers, errors, and its description."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domzero import __version__
from domzero.dom0.api import (
    consoles,
    disks,
    domains,
    front_ends,
    hosts,
    images,
    metrics,
    saving,
    screens,
    tasks,
    users,
    vifs,
)
from domzero.dom0.api import storage as storage_routes
from domzero.dom0.api.access import COOKIE, Access
from domzero.dom0.api.idempotency import Idempotency
from domzero.dom0.api.models import Problem
from domzero.dom0.api.problems import RESPONSES, install
from domzero.dom0.api.rate import Rate
from domzero.dom0.api.routing import Index
from domzero.dom0.manager import Manager
from domzero.dom0.services import Services
from domzero.dom0.storage import Storage
from domzero.dom0.uploads import is_upload
from domzero.dom0.web.files import ROUTES as PAGE
from domzero.dom0.xenapi.handlers import ROUTES as HANDLERS
from domzero.dom0.xenapi.registry import forget_what_is_gone, snapshots
from domzero.dom0.xenapi.routes import ROUTES
from domzero.dom0.xenapi.rrd import ROUTES as RRD
from domzero.dom0.xenapi.vncsnapshot import ROUTES as SNAPSHOT
from domzero.dom0.xenapi.world import World

DESCRIPTION = """Domain 0: creates, changes and ends domains.

Domains are named by uuid, name or domid. Errors are `application/problem+json`, with the field at fault in `errors`.
The console is also a websocket: `/v1/domains/{domain}/console/stream`, binary messages both ways.
Over TCP requests show the token of this Domain 0 or of one of its users (`Authorization: Bearer`), or a name and a
password (`Basic`), or the cookie that `POST /v1/sessions` has set; a websocket may offer a token as the subprotocol
`bearer.TOKEN` or as `?token=TOKEN` instead. On the Unix socket none is needed.
A POST with an `Idempotency-Key` is done once: the same request with the same key has the first one's answer for a day.
"""
BODY_MAX = 128 << 10


class BodyLimit:
    """Answers 413 to requests with a body that no request of this API needs; uploads have bounds of their own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or is_upload(scope["method"], scope["path"]):
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


def create_app(
    manager: Manager | None = None,
    token: str | None = None,
    *,
    storage: Path | None = None,
    anywhere: bool = False,
    url: str | None = None,
    rate: Rate | None = None,
) -> FastAPI:
    """The application; its manager, and with it all domains, end with its lifespan.

    :param token: what requests over TCP have to show; without one there are none.
    :param storage: the directory of the first storage, if there is none yet.
    :param anywhere: what comes over TCP is encrypted, and may come from other hosts.
    :param url: where it is reached over TCP.
    :param rate: at which users may ask; None: the usual one.
    """
    services = Services(manager or Manager(), token)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.metrics = metrics.Metrics(services.manager)
        app.state.storage = Storage(services.manager, storage)
        app.state.xenapi = World(services, app.state.storage, snapshots, url)
        forget_what_is_gone(app.state.xenapi)
        yield
        await app.state.metrics.close()
        await services.close()

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
    app.add_middleware(Idempotency)
    app.add_middleware(Access, services=services, anywhere=anywhere, rate=rate or Rate())
    app.state.services = services
    install(app)
    for router in (
        domains.router,
        saving.router,
        disks.router,
        storage_routes.router,
        images.router,
        vifs.router,
        vifs.networks_router,
        tasks.router,
        users.router,
        consoles.router,
        screens.router,
        front_ends.router,
        hosts.router,
        metrics.router,
    ):
        app.router.routes.extend(router.routes)  # `include_router` would try each route twice
    app.router.routes.extend([*PAGE, *ROUTES, *HANDLERS, *RRD, *SNAPSHOT])

    @app.get("/v1", tags=["host"])
    async def about() -> dict[str, str]:
        """Says that this is Domain 0."""
        return {"name": "domzero", "version": __version__, "openapi": "/openapi.json", "docs": "/docs"}

    app.router.routes.insert(0, Index(app.router.routes))
    original = app.openapi

    def openapi() -> dict[str, object]:
        schema = original()
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault("Problem", Problem.model_json_schema(ref_template="#/components/schemas/{model}"))
        schemas["Problem"].pop("$defs", None)
        for path in schema["paths"].values():
            for operation in path.values():
                for status in (400, 401, 403, 429, 431, *([413] if "requestBody" in operation else [])):
                    operation["responses"].setdefault(str(status), RESPONSES[status])
        schema["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            "password": {"type": "http", "scheme": "basic"},
            "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
        }
        schema["security"] = [{}, {"token": []}, {"password": []}, {"session": []}]  # none on the Unix socket
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app
