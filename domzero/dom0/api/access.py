# SPDX-License-Identifier: Apache-2.0
"""Who asks over HTTP, and no page of another site.

The peers of the Unix socket are the owner and root: `dom0.connections` looks when they connect.
"""

from __future__ import annotations

import base64
import ipaddress
import math
import platform
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from domzero.dom0.actors import OWNER, OWNER_NAME, Actor
from domzero.dom0.api.models import Problem
from domzero.dom0.api.problems import problem, respond
from domzero.dom0.api.rate import Rate
from domzero.dom0.services import Services
from domzero.dom0.sessions import Door
from domzero.dom0.users import NotAuthenticated
from domzero.dom0.web.files import is_public
from domzero.dom0.xenapi.http_access import PATHS as HANDLERS
from domzero.dom0.xenapi.routes import PATHS as XENAPI

PUBLIC = ("/openapi.json", "/docs", "/docs/oauth2-redirect")
"""Needs no token: the description of the API, the same on every host."""
LOG_IN = "/v1/sessions"
"""Where a POST shows who asks by its body."""
HEADERS_MAX = 128
"""As many as a websocket's request may have."""
COOKIE = "domzero_session"
CSRF_HEADER = "x-domzero-csrf"
SUBPROTOCOL = "bearer."
"""Before the token, in the name of a websocket's subprotocol."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]*)?")
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|\[::1\]", re.IGNORECASE)


@dataclass(slots=True, frozen=True)
class _Refused(Exception):
    problem: Problem
    retry_after: int = 0
    """Seconds."""


class Access:
    """Finds out who asks (`request.state.actor`), and refuses who is nobody.

    Whoever shows credentials is whom they say: `Authorization: Bearer` with the owner's token of this start or a
    user's, `Basic` with name and password, or the cookie of a session, with its CSRF token where something is changed.
    A websocket may also offer the subprotocol `bearer.TOKEN` or have `?token=TOKEN` in its address, as browsers let a
    page set no headers there. Without credentials, whoever came over the Unix socket is the owner, and whoever came
    over TCP is nobody.

    A browser that makes requests for another site's page sends a foreign Origin, or by DNS rebinding a foreign Host:
    over TCP only names of the loopback interface count, and with TLS also addresses and the host's own name. No browser
    reaches the Unix socket: any Host will do on it.
    """

    def __init__(self, app: ASGIApp, services: Services, *, anywhere: bool, rate: Rate) -> None:
        self._app = app
        self._anywhere = anywhere
        self._rate = rate
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            if len(scope["headers"]) > HEADERS_MAX:
                what = f"{len(scope['headers'])} headers: at most {HEADERS_MAX}"
                raise _Refused(problem(431, "TOO_MANY_HEADERS", what))
            headers = Headers(scope=scope)
            _check_site(scope, headers, self._anywhere)
            actor = await self._actor(scope, headers)
            if actor is not None and actor.name != OWNER_NAME and (seconds := self._rate.take(actor.name)):
                raise _Refused(problem(429, "TOO_MANY_REQUESTS", f"{actor.name} asks too often"), math.ceil(seconds))
        except _Refused as refused:
            if scope["type"] == "websocket":
                await receive()
            response = respond(refused.problem)
            if refused.problem.status == 401:
                response.headers["WWW-Authenticate"] = 'Bearer realm="domzero"'
            if refused.retry_after:
                response.headers["Retry-After"] = str(refused.retry_after)
            await response(scope, receive, send)
            return
        scope.setdefault("state", {})["actor"] = actor
        await self._app(scope, receive, send)

    async def _actor(self, scope: Scope, headers: Headers) -> Actor | None:
        """Who asks; None for what nobody in particular may ask."""
        if _needs_none(scope):
            return OWNER if not _is_tcp(scope) else None
        try:
            actor = await self._shown(scope, headers)
        except NotAuthenticated as error:
            raise _unauthorized(str(error)) from None
        if actor is not None:
            return actor
        if _is_tcp(scope):
            raise _unauthorized("over TCP a request needs the token of this Domain 0, or a user's")
        return OWNER

    async def _shown(self, scope: Scope, headers: Headers) -> Actor | None:
        """Who the credentials belong to that a request shows, if it shows any. NotAuthenticated."""
        if (authorization := headers.get("authorization")) is not None:
            scheme, _, value = authorization.partition(" ")
            if scheme.lower() == "basic":
                return await self._services.log_in(*_basic(value), "basic")
            actor = self._services.of_token(value.strip()) if scheme.lower() == "bearer" else None
            if actor is None:
                raise NotAuthenticated("no such token")
            return actor
        if scope["type"] == "websocket" and (tokens := _websocket_tokens(scope)):
            for token in tokens:
                if (actor := self._services.of_token(token)) is not None:
                    return actor
            raise NotAuthenticated("no such token")
        return self._of_cookie(scope, headers)

    def _of_cookie(self, scope: Scope, headers: Headers) -> Actor | None:
        identifier = session_of(headers)
        session = None if identifier is None else self._services.sessions.get(Door.PAGE, identifier)
        if session is None:
            return None
        actor = self._services.again(session.actor)
        if actor is None:
            self._services.sessions.close(session.id)
            return None
        if scope["type"] == "websocket":
            if headers.get("origin") is None:  # a browser always says which page it is for
                raise NotAuthenticated("a session's websocket comes from a page")
        elif scope["method"] not in _SAFE:
            shown = headers.get(CSRF_HEADER, "").encode("utf-8", "replace")
            if not secrets.compare_digest(session.csrf.encode(), shown):
                raise _Refused(problem(403, "FORBIDDEN", f"{CSRF_HEADER} must be what the login has answered"))
        return actor


def session_of(headers: Headers) -> str | None:
    """What the session's cookie says."""
    with suppress(CookieError):
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        return None if morsel is None else morsel.value
    return None


def _check_site(scope: Scope, headers: Headers, anywhere: bool) -> None:
    host, origin = headers.get("host"), headers.get("origin")
    match = _HOST.fullmatch(host or "localhost")
    if match is None or len(headers.getlist("host")) > 1:
        raise _Refused(problem(400, "BAD_REQUEST", "malformed Host"))
    if _is_tcp(scope) and not _LOOPBACK.fullmatch(match[1]) and not (anywhere and _is_of_this_host(match[1])):
        what = f"no such host here: {match[1]}: say localhost, 127.0.0.1 or [::1]"
        raise _Refused(problem(403, "FORBIDDEN", what))
    if origin is not None:
        try:
            site = urlsplit(origin).netloc
        except ValueError:
            raise _Refused(problem(400, "BAD_REQUEST", "malformed Origin")) from None
        if site != host:
            raise _Refused(problem(403, "FORBIDDEN", "requests must not come from another site's page"))


def _is_of_this_host(name: str) -> bool:
    """Whether a browser that says this name has not been led here by another site's: an address, or the host's name."""
    with suppress(ValueError):
        ipaddress.ip_address(name.strip("[]"))
        return True
    node = platform.node().lower()
    return name.lower() in (node, node.partition(".")[0])


def _basic(value: str) -> tuple[str, str]:
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise NotAuthenticated("malformed Basic credentials") from None
    if not colon:
        raise NotAuthenticated("malformed Basic credentials")
    return name, password


def _websocket_tokens(scope: Scope) -> list[str]:
    offered = scope.get("subprotocols", [])
    shown = [name.removeprefix(SUBPROTOCOL) for name in offered if name.startswith(SUBPROTOCOL)]
    with suppress(ValueError):  # more fields than any request has
        shown += parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=20).get("token", [])
    return shown


def _unauthorized(detail: str) -> _Refused:
    return _Refused(problem(401, "SESSION_AUTHENTICATION_FAILED", detail))


def _needs_none(scope: Scope) -> bool:
    """Whether a request needs no credentials: XenAPI's messages and logins say in their bodies who sends them, and
    XAPI's handlers find that out in their own ways; the page's files are the same for everybody."""
    if scope["path"] in HANDLERS:
        return True
    if scope["type"] != "http":
        return False
    if scope["method"] == "POST" and (scope["path"] in XENAPI or scope["path"] == LOG_IN):
        return True
    return scope["path"] in PUBLIC or is_public(scope["path"])


def _is_tcp(scope: Scope) -> bool:
    """Whether a request came over TCP: over anything that is not surely the Unix socket."""
    server = scope.get("server")
    return server is None or server[1] is not None
