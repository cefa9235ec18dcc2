# SPDX-License-Identifier: Apache-2.0
"""Who may talk to Domain 0 over HTTP: the owner's token over TCP, and no page of another site.

The peers of the Unix socket are the owner and root: `dom0.connections` looks when they connect.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from domzero.dom0.api.models import Problem
from domzero.dom0.api.problems import problem, respond
from domzero.dom0.xenapi.routes import PATHS as XENAPI

PUBLIC = ("/openapi.json", "/docs", "/docs/oauth2-redirect")
"""Needs no token: the description of the API, the same on every host."""
SUBPROTOCOL = "bearer."
"""Before the token, in the name of a websocket's subprotocol."""
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]*)?")
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|\[::1\]", re.IGNORECASE)


class Access:
    """Refuses requests of others than the owner.

    Over TCP a request shows the token that only the owner can read: as `Authorization: Bearer TOKEN`; a websocket may
    also offer the subprotocol `bearer.TOKEN` or have `?token=TOKEN` in its address, as browsers let a page set no
    headers there. A browser that makes requests for another site's page sends a foreign Origin, or by DNS rebinding a
    foreign Host: only names of the loopback interface count over TCP. No browser reaches the Unix socket: any Host will
    do on it, and no token is asked for.

    :param token: None if there is no TCP socket; nothing passes over TCP then.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        refused = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
        response = respond(refused)
        if refused.status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="domzero"'
        await response(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        over_tcp = _is_tcp(scope)
        host, origin = headers.get("host"), headers.get("origin")
        match = _HOST.fullmatch(host or "localhost")
        if match is None or len(headers.getlist("host")) > 1:
            return problem(400, "BAD_REQUEST", "malformed Host")
        if over_tcp and not _LOOPBACK.fullmatch(match[1]):
            return problem(403, "FORBIDDEN", f"no such host here: {match[1]}: say localhost, 127.0.0.1 or [::1]")
        if origin is not None:
            try:
                site = urlsplit(origin).netloc
            except ValueError:
                return problem(400, "BAD_REQUEST", "malformed Origin")
            if site != host:
                return problem(403, "FORBIDDEN", "requests must not come from another site's page")
        if over_tcp and not _needs_none(scope) and not self._has_token(scope, headers):
            return problem(401, "SESSION_AUTHENTICATION_FAILED", "over TCP a request needs the token of this Domain 0")
        return None

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        shown = []
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            shown.append(value.strip())
        if scope["type"] == "websocket":
            offered = scope.get("subprotocols", [])
            shown += [name.removeprefix(SUBPROTOCOL) for name in offered if name.startswith(SUBPROTOCOL)]
            with suppress(ValueError):  # more fields than any request has
                shown += parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=20).get("token", [])
        token = (self._token or "").encode()
        return bool(token) and any(secrets.compare_digest(token, word.encode("utf-8", "replace")) for word in shown)


def _needs_none(scope: Scope) -> bool:
    """Whether a request needs no token: XenAPI's messages say themselves who sends them."""
    if scope["type"] != "http":
        return False
    return scope["path"] in PUBLIC or (scope["method"] == "POST" and scope["path"] in XENAPI)


def _is_tcp(scope: Scope) -> bool:
    """Whether a request came over TCP: over anything that is not surely the Unix socket."""
    server = scope.get("server")
    return server is None or server[1] is not None
