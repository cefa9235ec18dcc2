# SPDX-License-Identifier: Apache-2.0
"""Asks a real xenstored random requests and writes what it answers: `python tools/real_xenstored.py SOCKET > FILE`.

`tests/unit/xenstore/xenstored.txt` is such a file, and a test asks Domzero's store the same. A line is a request or an
event, all of it as JSON: `[client, operation, in transaction, payload, operation of the reply, payload of the reply]`,
`["event", client, payload]`. Three clients; only paths below /probe and in Domain 0's home are touched, and removed at
the end.

That file is from Debian's xenstored 4.17.7. It ran on a host without Xen: a library loaded before it stood for Xen's
event channels, grants and /proc/xen, which requests on the socket do not touch.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from pathlib import Path

from domzero.dom0.xenstore import Op
from domzero.dom0.xenstore.wire import Decoder, Message

REQUESTS = 900
CLIENTS = 3
QUIET_SECONDS = 0.01
"""After so long an event that was due has come."""
PATHS = ["", "/a", "/a/b", "/a/b/c", "/d", "/d/e", "/a/x", "/q/r/s"]
PLACES = [f"/probe{path}" for path in PATHS]
ODD = [
    "",
    "rel/x",
    "@unknown",
    "//",
    "/a//b",
    "/a/",
    "/probe/",
    "/a b",
    "/" + "y" * 3080,
    "z" * 2049,
    "/probe/.x",
    "/probe/a+b",
]
MUCH = (Op.DIRECTORY, Op.READ, Op.WATCH, Op.UNWATCH, Op.WRITE, Op.WRITE, Op.MKDIR, Op.RM, Op.SET_PERMS, Op.GET_PERMS)
OPERATIONS = (*MUCH, *MUCH, Op.DIRECTORY_PART, Op.RESET_WATCHES, Op.IS_DOMAIN_INTRODUCED, Op.GET_DOMAIN_PATH)


class Client:
    """One connection to xenstored."""

    def __init__(self, path: Path) -> None:
        self.events: list[bytes] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(str(path))
        self._decoder = Decoder()

    def call(self, op: int, payload: bytes, tx: int) -> Message:
        self._sock.sendall(Message(op, 1, tx, payload).encode())
        while (message := self._decoder.next()) is None or message.type == Op.WATCH_EVENT:
            if message is None:
                self._decoder.feed(self._sock.recv(1 << 16))
            else:
                self.events.append(message.payload)
        return message

    def take_events(self) -> list[bytes]:
        self._sock.settimeout(QUIET_SECONDS)
        try:
            while data := self._sock.recv(1 << 16):
                self._decoder.feed(data)
        except TimeoutError:
            pass
        self._sock.settimeout(None)
        while (message := self._decoder.next()) is not None:
            self.events.append(message.payload)
        events, self.events = self.events, []
        return events


def payload_of(op: Op, rng: random.Random) -> bytes:
    """A request's payload, sensible or not."""
    path = (rng.choice(PLACES) if rng.random() < 0.85 else rng.choice(ODD)).encode() + b"\0"
    if op == Op.WRITE:
        return path + rng.choice([b"", b"v", b"w" * 10])
    if op in (Op.WATCH, Op.UNWATCH):
        return path + rng.choice([b"t\0", b"u\0"])
    if op == Op.SET_PERMS:
        return path + rng.choice([b"n0\0", b"b1\0", b"n0\0r1\0w2\0", b"x0\0", b"n\0", b"", b"r0\0n0\0"])
    if op == Op.DIRECTORY_PART:
        return path + rng.choice([b"0\0", b"2\0", b"100\0"])
    if op in (Op.IS_DOMAIN_INTRODUCED, Op.GET_DOMAIN_PATH):
        return rng.choice([b"0\0", b"1\0", b"32751\0"])
    return b"\0" if op == Op.RESET_WATCHES else path


def shown(op: int, payload: bytes) -> str:
    """A reply's payload without what may differ: numbers of transactions and generations."""
    if op == Op.TRANSACTION_START:
        return ""
    text = payload.decode("latin-1")
    return text.partition("\0")[2] if op == Op.DIRECTORY_PART else text


def main() -> int:
    """Prints the file."""
    rng = random.Random(417)
    clients = [Client(Path(sys.argv[1])) for _ in range(CLIENTS)]
    owner, tx = 0, 0

    def ask(number: int, op: Op, payload: bytes, tx: int) -> Message:
        reply = clients[number].call(op, payload, tx)
        line = [number, int(op), bool(tx), payload.decode("latin-1"), reply.type, shown(reply.type, reply.payload)]
        print(json.dumps(line))
        for number, client in enumerate(clients):
            for event in sorted(client.take_events()):
                print(json.dumps(["event", number, event.decode("latin-1")]))
        return reply

    ask(0, Op.WRITE, b"/probe\0", 0)
    for _ in range(REQUESTS):
        if tx and rng.random() < 0.2:
            ask(owner, Op.TRANSACTION_END, rng.choice([b"T\0", b"T\0", b"F\0"]), tx)
            tx = 0
        elif not tx and rng.random() < 0.05:
            owner = rng.randrange(CLIENTS)
            tx = int(ask(owner, Op.TRANSACTION_START, b"\0", 0).payload[:-1])
        else:
            op = rng.choice(OPERATIONS)
            if op != Op.RESET_WATCHES or rng.random() < 0.2:
                ask(
                    owner if tx else rng.randrange(CLIENTS),
                    op,
                    payload_of(op, rng),
                    0 if op == Op.RESET_WATCHES else tx,
                )
                if op == Op.RESET_WATCHES:
                    tx = 0 if tx else tx
    for path in (b"/probe\0", b"rel\0"):
        clients[0].call(Op.RM, path, 0)
    time.sleep(QUIET_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
