# SPDX-License-Identifier: Apache-2.0
"""Who sends a request to one of XAPI's HTTP handlers: by session_id (in the query or a cookie) or by HTTP Basic."""

from __future__ import annotations

import base64
from contextlib import suppress

from starlette.requests import HTTPConnection

from domzero.dom0.actors import Actor
from domzero.dom0.users import NotAuthenticated
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.world import Peer, World

_HANDLERS = (
    "/console",
    "/vncsnapshot",
    "/import_raw_vdi",
    "/export_raw_vdi",
    "/import",
    "/export",
    "/rrd_updates",
    "/vm_rrd",
    "/host_rrd",
)
_UPLOADS = ("/import_raw_vdi", "/import")


def both(path: str) -> tuple[str, str]:
    """A handler's path, and with a slash behind it, as some clients have it."""
    return path, f"{path}/"


PATHS = tuple(each for path in _HANDLERS for each in both(path))
"""Handlers that find out themselves who asks."""
UPLOADS = tuple(each for path in _UPLOADS for each in both(path))
"""Of them, those whose bodies have no bound but what they are written to."""


def world_of(request: HTTPConnection) -> World:
    """What the handler is about."""
    world: World = request.app.state.xenapi
    return world


def peer_of(request: HTTPConnection) -> Peer:
    """Who sends it, as far as the socket tells."""
    server = request.scope.get("server")
    return Peer(over_tcp=server is None or server[1] is not None)


async def authenticate(request: HTTPConnection) -> Actor:
    """Who asks. Failure: nobody who may."""
    world = world_of(request)
    session = request.query_params.get("session_id") or request.cookies.get("session_id")
    if session:
        return world.actor_of(world.session(session))
    user, password = _basic(request)
    try:
        return await world.authenticate(peer_of(request), user, password)
    except NotAuthenticated as error:
        what = "a session_id, or a name and a password are needed"
        raise Failure("SESSION_AUTHENTICATION_FAILED", user[:200], what) from error


def _basic(request: HTTPConnection) -> tuple[str, str]:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
            return user, password
    return "", ""
