# SPDX-License-Identifier: Apache-2.0
"""Connections of clients: whose they are, before anything of them is read."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

from uvicorn.protocols.http.h11_impl import H11Protocol

FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_UCRED = struct.Struct("iII")  # struct ucred of <sys/socket.h>: pid, uid, gid


class Connection(H11Protocol):
    """An HTTP connection, also until it becomes a websocket's."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """asyncio: a client has connected. Only the owner of this process and root may do so on the Unix socket."""
        super().connection_made(transport)
        if not _is_permitted(transport):
            transport.write(FORBIDDEN)
            transport.close()


def _is_permitted(transport: asyncio.Transport) -> bool:
    """Whether a peer on the Unix socket is this process's user or root; over TCP the token decides."""
    sock: socket.socket = transport.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:
        return True
    _pid, uid, _gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid in (os.geteuid(), 0)
