# SPDX-License-Identifier: Apache-2.0
"""xenstore for programs on this host: the wire protocol on a Unix socket, as xenstored serves it.

Who may open the socket is Domain 0 itself, with bounds of its own (`quotas.TOOL`). Requests are done in turns, as
those of domains are; a client that does not read its replies is not read either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket

from domzero.dom0 import descriptors
from domzero.dom0.linelimit import Seldom
from domzero.dom0.listeners import BACKLOG, peer_is_owner
from domzero.dom0.xenstore.connection import Connection
from domzero.dom0.xenstore.store import Store
from domzero.dom0.xenstore.wire import RingError

logger = logging.getLogger(__name__)
logger.addFilter(Seldom(60.0))

CLIENTS_MAX = 256
"""Connections at once; fewer where this process may not have as many descriptors."""
OUTPUT_PIECE = 16 * 1024
"""Bytes that are given to the socket at once; asyncio says when it has enough of them."""


class ToolServer:
    """The listening socket and its clients, until `close`."""

    def __init__(self, store: Store, nofile: int) -> None:
        self.store = store
        self._most = min(CLIENTS_MAX, nofile // 16)
        self._ceiling = nofile - descriptors.FOR_OWNER - descriptors.FOR_WORKERS
        self._clients: set[ToolClient] = set()
        self._server: asyncio.AbstractServer | None = None

    async def start(self, sock: socket.socket) -> None:
        """Serves a listening socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: ToolClient(self, loop), sock=sock, backlog=min(BACKLOG, self._most)
        )

    def close(self) -> None:
        """Ends the socket and all connections."""
        if self._server is not None:
            self._server.close()
        for client in list(self._clients):
            client.close()

    def enter(self, client: ToolClient, sock: socket.socket) -> bool:
        """Takes a client in if it is the owner's, and there is room."""
        if not peer_is_owner(sock):
            return False
        if len(self._clients) >= self._most or sock.fileno() >= self._ceiling:
            logger.warning("xenstore's socket has %d clients: no more are taken", len(self._clients))
            return False
        self._clients.add(client)
        return True

    def leave(self, client: ToolClient) -> None:
        """The client is gone."""
        self._clients.discard(client)


class ToolClient(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: ToolServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._connection: Connection | None = None
        self._transport: asyncio.Transport | None = None
        self._may_write = True
        self._working = False
        self._pump_due = False
        self._turn_due = False

    def close(self) -> None:
        """Ends it at once; what waits to be written is dropped."""
        if self._connection is not None:
            self._connection.close()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._server.enter(self, transport.get_extra_info("socket")):
            transport.abort()
            return
        self._connection = Connection(self._server.store, 0, on_output=self._output_ready, tool=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is gone."""
        self._transport = None
        self._server.leave(self)
        if self._connection is not None:
            self._connection.close()

    def pause_writing(self) -> None:
        """asyncio: the client does not read."""
        self._may_write = False

    def resume_writing(self) -> None:
        """asyncio: the client reads again."""
        self._may_write = True
        self._pump()

    def data_received(self, data: bytes) -> None:
        """asyncio: requests, whole or not."""
        if self._connection is not None:
            self._working = True
            self._connection.receive(data)
            self._working = False
            self._pump()

    def _output_ready(self) -> None:
        """Called from any thread; while a turn is under way, what it gives is taken at its end."""
        if not self._working and not self._pump_due:
            self._pump_due = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: Domain 0 is going down
                self._loop.call_soon_threadsafe(self._pump)

    def _next_turn(self) -> None:
        self._turn_due = False
        if self._connection is not None:
            self._working = True
            self._connection.turn()
            self._working = False
            self._pump()

    def _pump(self) -> None:
        """Gives the client its replies and events; what is left of its requests waits for the loop's next round, in
        which all others have their turns."""
        self._pump_due = False
        connection, transport = self._connection, self._transport
        if connection is None or transport is None or transport.is_closing():
            return
        while self._may_write and (data := connection.take_output(OUTPUT_PIECE)):
            transport.write(data)
        if connection.error != RingError.NONE:
            self.close()
        elif connection.has_work:
            transport.pause_reading()
            if not self._turn_due:
                self._turn_due = True
                self._loop.call_soon(self._next_turn)
        elif connection.wants_input:
            transport.resume_reading()
        else:
            transport.pause_reading()
