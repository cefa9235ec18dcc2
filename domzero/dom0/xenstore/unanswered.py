# SPDX-License-Identifier: Apache-2.0
"""What a client of the store has there and waits for, kept at the client's end, so that another Domain 0 can be told.

A worker whose Domain 0 has gone begins again with the next one: it says which watches and transactions its client has,
which change it has heard of last, and repeats the requests that were not answered. Requests are answered in their
order, and the client gets whole messages only, so nothing is answered twice, and nothing half.

To repeat them does no harm: what was done and not answered is done to the same end again (WRITE, MKDIR, RM, SET_PERMS),
or is made anew with the connection (WATCH, UNWATCH, TRANSACTION_START); a transaction that was open ends with EAGAIN.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from enum import IntEnum

from domzero.dom0.xenstore.wire import Decoder, Message, Op, ProtocolError

NUMBER = struct.Struct("<Q")
BYTES_MAX = 64 * 1024
"""Of requests that wait for their answers; the client's others stay where they are."""


class Frame(IntEnum):
    """What a frame between a client's end and the store's carries."""

    DATA = 0
    RESET = 1
    ERROR = 2
    WATCH = 3
    """From the client's end, before all else: it has this watch already. The payload is that of the request WATCH."""
    TRANSACTION = 4
    """As `WATCH`: it has this transaction, which nobody knows any more."""
    SEEN = 5
    """The client has been told of all changes up to this one; from its end, the last before its requests."""
    FRESH = 6
    """As `WATCH`, and the client may not have had the event that each watch begins with."""


class Unanswered:
    """The books of one client. Its `home` is what relative paths begin with."""

    def __init__(self) -> None:
        self.home = ""
        self.bytes = 0
        """Of requests without an answer."""
        self._asked = Decoder()
        self._told = Decoder()
        self._requests: deque[Message] = deque()
        self._seen = 0
        self._watches: dict[tuple[str, str], bytes] = {}
        self._fresh: set[tuple[str, str]] = set()
        self._transactions: set[int] = set()

    def ask(self, data: bytes) -> None:
        """Bytes from the client, on their way to the store."""
        self.bytes += len(data)
        self._asked.feed(data)
        try:
            while (message := self._asked.next()) is not None:
                self._requests.append(message)
        except ProtocolError:
            pass  # the store says so, and answers nothing any more

    def tell(self, data: bytes) -> bytes:
        """Bytes from the store: those of them, and of what came before, that are whole messages, for the client."""
        self._told.feed(data)
        whole = b""
        while (message := self._told.next()) is not None:
            whole += message.encode()
            if message.type != Op.WATCH_EVENT and self._requests:
                self._answered(self._requests.popleft(), message)
        return whole

    def has_seen(self, number: int) -> None:
        """It has been told of all changes up to this one, and of all its watches."""
        self._seen = number
        self._fresh.clear()

    def _answered(self, request: Message, answer: Message) -> None:
        self.bytes -= len(request.encode())
        if request.type == Op.TRANSACTION_END:
            self._transactions.discard(request.tx_id)
        if answer.type == Op.ERROR:
            return
        if request.type == Op.TRANSACTION_START:
            self._transactions.add(int(answer.payload.rstrip(b"\0")))
        elif request.type == Op.WATCH:
            watch = self._watch_of(request.payload)
            self._watches[watch] = request.payload
            self._fresh.add(watch)
        elif request.type == Op.UNWATCH:
            self._watches.pop(self._watch_of(request.payload), None)
        elif request.type == Op.RESET_WATCHES:
            self._watches.clear()
            self._transactions.clear()

    def _watch_of(self, payload: bytes) -> tuple[str, str]:
        path, token = payload.decode("latin-1").split("\0")[:2]
        return (path if path.startswith(("/", "@")) else f"{self.home}/{path}"), token

    def reset(self) -> None:
        """The client has begun anew."""
        self.bytes = 0
        self._asked.clear()
        self._told.clear()
        self._requests.clear()
        self._watches.clear()
        self._fresh.clear()
        self._transactions.clear()

    def again(self) -> Iterator[tuple[Frame, bytes]]:
        """The frames for another Domain 0."""
        self._told.clear()  # what came half comes whole
        for watch, payload in self._watches.items():
            yield (Frame.FRESH if watch in self._fresh else Frame.WATCH), payload
        for tx_id in sorted(self._transactions):
            yield Frame.TRANSACTION, NUMBER.pack(tx_id)
        yield Frame.SEEN, NUMBER.pack(self._seen)
        for request in self._requests:
            yield Frame.DATA, request.encode()
        if rest := self._asked.rest:
            yield Frame.DATA, rest


__all__ = ["BYTES_MAX", "NUMBER", "Frame", "Unanswered"]
