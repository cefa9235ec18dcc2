# SPDX-License-Identifier: Apache-2.0
"""Connections of clients: whose they are, how many there may be, and how long they may take.

uvicorn's protocols do HTTP and websockets. What is added here: peers of the Unix socket are checked; each listening
socket has a number of connections of its own, and one that waits for its client gives way to a new one; a request has
to come, and an answer to be taken, within a time.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.protocol import State

from domzero.dom0 import descriptors
from domzero.dom0.joined_writes import JoinedWrites
from domzero.dom0.listeners import peer_is_owner
from domzero.dom0.stall import Stall
from domzero.dom0.tunnel import TUNNEL, Tunnel
from domzero.dom0.uploads import is_upload

UNIX_MAX, TCP_MAX = 4096, 1024
"""Connections over each socket; fewer where this process may not have as many descriptors."""
REQUEST_SECONDS = 20.0
"""From a connection, or the first byte of a further request, to the last byte of its body."""
KEEP_ALIVE_SECONDS = 15
"""From an answer to the next request."""


HEAD_MAX = 32 << 10
"""Bytes of a request's line and headers."""
PONGS_MAX = 256 << 10
"""Bytes of answers to pings that a client has not read."""

FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
MALFORMED = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_INCOMPLETE = (h11.IDLE, h11.SEND_BODY)


class _Client(Protocol):
    """What the two protocols have in common here."""

    transport: asyncio.Transport

    def waits_for_client(self) -> bool:
        """Whether nothing would be lost but time if it were closed."""

    def check(self, now: float) -> None:
        """Ends what takes too long; called about once a second."""


class Door:
    """The connections over one listening socket.

    :param most: so many at once.
    :param ceiling: no connection has a descriptor of this number or above: others need them.
    """

    def __init__(self, most: int, ceiling: int) -> None:
        self._most = most
        self._ceiling = ceiling
        self._clients: dict[asyncio.Transport, _Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def enter(self, transport: asyncio.Transport, client: _Client) -> bool:
        """Takes a connection in, in the place of the oldest that waits for its client if there is no other."""
        number: int = transport.get_extra_info("socket").fileno()
        if len(self._clients) >= self._most or number >= self._ceiling:
            idle = next((other for other, it in self._clients.items() if it.waits_for_client()), None)
            if idle is None:
                return False
            del self._clients[idle]
            idle.abort()
        self._clients[transport] = client
        return True

    def upgrade(self, transport: asyncio.Transport, client: _Client) -> None:
        """The connection has another protocol from now on."""
        self._clients[transport] = client

    def leave(self, transport: asyncio.Transport) -> None:
        """The connection is gone."""
        self._clients.pop(transport, None)


class Connections(ServerState):
    """uvicorn's state, and the doors.

    :param nofile: descriptors that the process may have.
    """

    def __init__(self, nofile: int) -> None:
        super().__init__()
        self._unix = Door(min(UNIX_MAX, nofile // 4), nofile)
        self._tcp = Door(min(TCP_MAX, nofile // 8), nofile - descriptors.FOR_OWNER - descriptors.FOR_WORKERS)

    def door(self, transport: asyncio.Transport) -> Door:
        """The door that a connection came through."""
        return self._unix if _is_unix(transport) else self._tcp

    def check(self, now: float) -> None:
        """Ends what takes too long.

        :param now: the event loop's time.
        """
        for client in list(self.connections):
            cast(_Client, client).check(now)


class Connection(H11Protocol):
    """An HTTP connection, also until it becomes a websocket's."""

    def __init__(
        self,
        config: Config,
        server_state: Connections,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._state = server_state
        self._waiting_since: float | None = self.loop.time()
        self._stall = Stall()
        self._start: bytes | None = b""

    def _become_tunnel(self, data: bytes) -> None:
        tunnel = Tunnel(self.config, self._state, self.app_state, self.transport)
        self.connections.discard(self)
        self._state.door(self.transport).upgrade(self.transport, tunnel)
        self.transport.set_protocol(tunnel)
        tunnel.data_received(data)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """asyncio: a client has connected. Only the owner of this process and root may do so on the Unix socket."""
        transport = JoinedWrites(transport, self.loop)
        super().connection_made(transport)
        self._door = self._state.door(transport)  # that of TLS has no socket any more when it is lost
        if not _is_permitted(transport):
            transport.write(FORBIDDEN)
            transport.close()
        elif not self._door.enter(transport, self):
            transport.write(BUSY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is gone."""
        self._door.leave(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """asyncio: a piece of a request, of none or of several."""
        if self._start is not None:
            data, self._start = self._start + data, None
            if TUNNEL.startswith(data[: len(TUNNEL)]):
                if len(data) < len(TUNNEL):
                    self._start = data
                else:
                    self._become_tunnel(data)
                return
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY and is_upload(self.scope["method"], self.scope["path"]):
            self._waiting_since = self.loop.time()  # it may be long, as long as it goes on
        elif self.conn.their_state not in _INCOMPLETE:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = self.loop.time()

    def waits_for_client(self) -> bool:
        """Whether no whole request is here."""
        return self.conn.their_state in _INCOMPLETE

    def check(self, now: float) -> None:
        """Ends a connection whose request does not come, or whose answer is not taken."""
        if self._stall.is_over(self.transport, now):
            self.transport.abort()
        elif self.flow.read_paused:
            self._waiting_since = now if self._waiting_since is not None else None  # it waits for us
        elif self._waiting_since is not None and now - self._waiting_since > REQUEST_SECONDS:
            if not self.transport.is_closing() and self.conn.our_state is h11.IDLE:
                self.transport.write(LATE)
            self.transport.close()


class Websocket(WebSocketsSansIOProtocol):
    """A websocket. What is sent waits until the client has taken what was sent before; a close does not."""

    def __init__(
        self,
        config: Config,
        server_state: Connections,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._state = server_state
        self._stall = Stall()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """uvicorn: a connection asks to become a websocket."""
        super().connection_made(transport)
        self._door = self._state.door(self.transport)
        self._door.upgrade(self.transport, self)

    def data_received(self, data: bytes) -> None:
        """asyncio: the request, which HTTP has accepted already, or frames.

        What `websockets` refuses of a request before it is one (long lines, many headers, another method than GET) is
        answered here: uvicorn waits for a request then, and nothing would ever end the connection.
        """
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()) or MALFORMED)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is gone."""
        self._door.leave(self.transport)
        super().connection_lost(exc)

    def handle_ping(self) -> None:
        """A ping: answered unless too many answers wait to be read."""
        if self.transport.get_write_buffer_size() > PONGS_MAX:
            self.transport.abort()
        else:
            super().handle_ping()

    async def send(self, message) -> None:  # type: ignore[no-untyped-def]
        """ASGI."""
        if message["type"] == "websocket.close":
            self.writable.set()
        await super().send(message)

    def shutdown(self) -> None:
        """uvicorn: Domain 0 ends. One whose client has closed it is cut: uvicorn would send a close, and fail."""
        if self.handshake_complete and not self.close_sent and self.conn.state is not State.OPEN:
            self.stop_keepalive()
            self.transport.abort()
        else:
            super().shutdown()

    def waits_for_client(self) -> bool:
        """Never: somebody looks at a console."""
        return False

    def check(self, now: float) -> None:
        """Ends a websocket that was closed and whose client does not take the rest; open ones are pinged by uvicorn."""
        if (self.close_sent or self.transport.is_closing()) and self._stall.is_over(self.transport, now):
            self.transport.abort()


def _is_unix(transport: asyncio.Transport) -> bool:
    sock: socket.socket = transport.get_extra_info("socket")
    return sock.family == socket.AF_UNIX


def _is_permitted(transport: asyncio.Transport) -> bool:
    """Whether a peer on the Unix socket is this process's user or root; over TCP the token decides."""
    return not _is_unix(transport) or peer_is_owner(transport.get_extra_info("socket"))
