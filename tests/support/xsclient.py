# SPDX-License-Identifier: Apache-2.0
"""A small client for `Connection`: sends requests, keeps replies and watch events apart."""

from __future__ import annotations

import socket
from pathlib import Path

from domzero.dom0.xenstore import Connection, Op, Store
from domzero.dom0.xenstore.wire import HEADER


class Client:
    """Talks the wire protocol to a store as one domain."""

    def __init__(self, store: Store, domid: int) -> None:
        self.connection = Connection(store, domid)
        self.events: list[tuple[str, str]] = []
        self.replies: list[tuple[int, int, int, bytes]] = []
        self._buffer = b""

    def poll(self) -> None:
        self._buffer += self.connection.take_output()
        while len(self._buffer) >= HEADER.size:
            kind, req_id, tx_id, length = HEADER.unpack_from(self._buffer)
            payload = self._buffer[HEADER.size : HEADER.size + length]
            self._buffer = self._buffer[HEADER.size + length :]
            if kind == Op.WATCH_EVENT:
                path, token, _ = payload.decode().split("\0")
                self.events.append((path, token))
            else:
                self.replies.append((kind, req_id, tx_id, payload))

    def raw(self, kind: int, payload: bytes, tx: int = 0) -> tuple[int, int, int, bytes]:
        self.connection.receive(HEADER.pack(kind, 7, tx, len(payload)) + payload)
        self.poll()
        return self.replies.pop(0)

    def call(self, kind: int, *strings: str | bytes, tx: int = 0, nul: bool = True) -> bytes | str:
        """The reply's payload, or the name of the error as a string."""
        parts = [part if isinstance(part, bytes) else part.encode() for part in strings]
        reply = self.raw(kind, b"\0".join(parts) + (b"\0" if nul else b""), tx)
        assert reply[1:3] == (7, tx)
        if reply[0] == Op.ERROR:
            return reply[3].rstrip(b"\0").decode()
        assert reply[0] == kind
        return reply[3]

    def write(self, path: str, value: str, tx: int = 0) -> bytes | str:
        return self.call(Op.WRITE, path, value, tx=tx, nul=False)

    def read(self, path: str, tx: int = 0) -> bytes | str:
        return self.call(Op.READ, path, tx=tx)

    def begin(self) -> int:
        reply = self.call(Op.TRANSACTION_START, "")
        assert isinstance(reply, bytes)
        return int(reply.rstrip(b"\0"))

    def end(self, tx: int, commit: bool = True) -> bytes | str:
        return self.call(Op.TRANSACTION_END, "T" if commit else "F", tx=tx)

    def take_events(self) -> list[tuple[str, str]]:
        self.poll()
        events, self.events = self.events, []
        return events


class SocketClient:
    """Talks the wire protocol to xenstore's Unix socket; one request at a time, events kept apart."""

    def __init__(self, path: Path, timeout: float = 60) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.sock.connect(str(path))
        self.events: list[tuple[bytes, bytes]] = []
        self._buffer = b""

    def __enter__(self) -> SocketClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, kind: int, payload: bytes, tx: int = 0) -> None:
        self.sock.sendall(HEADER.pack(kind, 7, tx, len(payload)) + payload)

    def message(self) -> tuple[int, bytes]:
        """The next message: type and payload. ConnectionError at the end."""
        while True:
            if len(self._buffer) >= HEADER.size:
                kind, _, _, length = HEADER.unpack_from(self._buffer)
                end = HEADER.size + length
                if len(self._buffer) >= end:
                    payload, self._buffer = self._buffer[HEADER.size : end], self._buffer[end:]
                    return kind, payload
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError("the socket was closed")
            self._buffer += data

    def reply(self) -> bytes | str:
        """The payload of the next message that is no event, or the name of its error."""
        while True:
            kind, payload = self.message()
            if kind == Op.WATCH_EVENT:
                path, token, _ = payload.split(b"\0")
                self.events.append((path, token))
            else:
                return payload.rstrip(b"\0").decode() if kind == Op.ERROR else payload

    def call(self, kind: int, payload: bytes, tx: int = 0) -> bytes | str:
        self.send(kind, payload, tx)
        return self.reply()

    def event(self) -> tuple[bytes, bytes]:
        """The next watch event: path and token."""
        if not self.events:
            kind, payload = self.message()
            assert kind == Op.WATCH_EVENT
            path, token, _ = payload.split(b"\0")
            return path, token
        return self.events.pop(0)
