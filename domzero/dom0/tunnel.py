# SPDX-License-Identifier: Apache-2.0
"""CONNECT /console: a console as bare bytes behind a request's head, as XAPI's clients ask for it.

ASGI has no CONNECT. The application sees a websocket instead, that is neither framed nor pinged: who may have it, and
what it is connected to, is found out in one place for both.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any
from urllib.parse import unquote

import h11
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from domzero.dom0.stall import Stall

TUNNEL = b"CONNECT "
"""Begins a request for one."""
HEAD_MAX = 32 << 10
HEAD_SECONDS = 20.0
BEHIND_MAX = 256 << 10
"""Bytes that the domain has not taken before the client has to wait."""
ACCEPTED = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n"
MALFORMED = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Tunnel(asyncio.Protocol):
    """One such connection.

    :param state: whose `connections` and `tasks` it is among; its door is left by `leave`.
    """

    def __init__(
        self, config: Config, state: ServerState, app_state: dict[str, Any], transport: asyncio.Transport
    ) -> None:
        self.transport = transport
        self._config = config
        self._state = state
        self._app_state = app_state
        self._head = h11.Connection(h11.SERVER, HEAD_MAX)
        self._since = asyncio.get_running_loop().time()
        self._stall = Stall()
        self._task: asyncio.Task[None] | None = None
        self._pieces: deque[bytes] = deque()
        self._behind = 0
        self._come = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._accepted = self._closed = False
        state.connections.add(self)  # type: ignore[arg-type]

    # --- asyncio

    def data_received(self, data: bytes) -> None:
        """asyncio: of the head, or for the console."""
        if self._task is not None:
            self._take(data)
            return
        self._head.receive_data(data)
        try:
            event = self._head.next_event()
        except h11.RemoteProtocolError:
            event = h11.ConnectionClosed()
        if event is h11.NEED_DATA:
            return
        if not isinstance(event, h11.Request):
            self.transport.write(MALFORMED)
            self.transport.close()
            return
        self._task = asyncio.get_running_loop().create_task(self._run(event))
        self._state.tasks.add(self._task)
        self._task.add_done_callback(self._state.tasks.discard)
        if rest := self._head.trailing_data[0]:
            self._take(rest)

    def _take(self, data: bytes) -> None:
        self._pieces.append(data)
        self._behind += len(data)
        if self._behind > BEHIND_MAX:
            self.transport.pause_reading()
        self._come.set()

    def eof_received(self) -> bool:
        """asyncio: the client sends no more, and may still read."""
        return self._accepted

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is gone."""
        self._closed = True
        self._state.connections.discard(self)
        self._state.door(self.transport).leave(self.transport)  # type: ignore[attr-defined]
        self._come.set()
        self._writable.set()

    def pause_writing(self) -> None:
        """asyncio: the client has not taken much."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """asyncio: it has."""
        self._writable.set()

    # --- the server

    def shutdown(self) -> None:
        """uvicorn: the server ends."""
        self.transport.close()

    def waits_for_client(self) -> bool:
        """Whether its head is not here."""
        return self._task is None

    def check(self, now: float) -> None:
        """Ends it when its head does not come, or its output is not taken after its end."""
        late = self._task is None and now - self._since > HEAD_SECONDS
        if late or (self.transport.is_closing() and self._stall.is_over(self.transport, now)):
            self.transport.abort()

    # --- ASGI

    async def _run(self, request: h11.Request) -> None:
        path, _, query = request.target.partition(b"?")
        scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "ws",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "root_path": "",
            "path": unquote(path.decode("ascii", "replace")),
            "raw_path": path,
            "query_string": query,
            "headers": [(key.lower(), value) for key, value in request.headers],
            "subprotocols": [],
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }
        begun = False

        async def receive() -> dict[str, Any]:
            nonlocal begun
            if not begun:
                begun = True
                return {"type": "websocket.connect"}
            while not self._pieces and not self._closed:
                self._come.clear()
                await self._come.wait()
            if not self._pieces:
                return {"type": "websocket.disconnect", "code": 1006}
            data = self._pieces.popleft()
            self._behind -= len(data)
            if self._behind <= BEHIND_MAX and not self._closed:
                self.transport.resume_reading()
            return {"type": "websocket.receive", "bytes": data}

        try:
            await self._config.loaded_app(scope, receive, self._send)
        finally:
            if not self._accepted and not self.transport.is_closing():
                self.transport.write(REFUSED)
            self.transport.close()

    async def _send(self, message: Any) -> None:
        kind = message["type"]
        if self._closed:
            raise OSError("the client is gone")
        if kind == "websocket.accept":
            self._accepted = True
            self.transport.write(ACCEPTED)
        elif kind == "websocket.send":
            await self._writable.wait()
            self.transport.write(message.get("bytes") or (message.get("text") or "").encode())
        elif kind == "websocket.close":
            if not self._accepted:
                self._accepted = True
                self.transport.write(REFUSED)
            self.transport.close()
        elif kind == "websocket.http.response.start":
            self._accepted = True
            lines = [f"HTTP/1.1 {message['status']} Refused".encode(), b"Connection: close"]
            lines += [key + b": " + value for key, value in message["headers"]]
            self.transport.write(b"\r\n".join([*lines, b"", b""]))
        elif kind == "websocket.http.response.body":
            self.transport.write(message.get("body", b""))
