# SPDX-License-Identifier: Apache-2.0
"""The files of the page: the same for everybody, so no token is asked for; nothing of theirs runs on another page.

The page needs no inline script and no inline style: xterm.js, which writes style sheets and `style` attributes, is
given constructed ones by `js/xterm-styles.js`. Its files are read at the first request and stay in memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

STATIC = Path(__file__).parent / "static"
PREFIX = "/web/"
"""Of all files but the page itself."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".md": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".0": "text/plain; charset=utf-8",
    "": "text/plain; charset=utf-8",
}
"""By suffix; licences have none, or that of their version."""
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # QEMU sends parts of a screen as JPEG, and noVNC makes images of them
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asks each time whether it is still the same: a newer version is seen at once
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    tag: str


@cache
def _table() -> dict[str, _File]:
    """All files by their path below `static`: a request only chooses one of them."""
    found: dict[str, _File] = {}
    for path in STATIC.rglob("*"):
        if path.is_file() and path.suffix in TYPES:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:32]
            found[path.relative_to(STATIC).as_posix()] = _File(content, TYPES[path.suffix], f'"{digest}"')
    return found


def is_public(path: str) -> bool:
    """Whether a path is one of the page's files, or would be."""
    return path == "/" or path.startswith(PREFIX)


def _answer(request: Request, name: str) -> Response:
    file = _table().get(name)
    if file is None:
        return Response("no such file\n", 404, HEADERS, "text/plain; charset=utf-8")
    headers = {**HEADERS, "ETag": file.tag}
    if file.tag in (tag.strip() for tag in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


async def _page(request: Request) -> Response:
    return _answer(request, "index.html")


async def _file(request: Request) -> Response:
    return _answer(request, request.path_params["name"])


ROUTES = [
    Route("/", _page, methods=["GET"], include_in_schema=False),
    Route(PREFIX + "{name:path}", _file, methods=["GET"], include_in_schema=False),
]
