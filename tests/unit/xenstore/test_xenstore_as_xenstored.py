# SPDX-License-Identifier: Apache-2.0
"""Domzero's store beside Xen's: the same requests (tools/real_xenstored.py), the same answers and events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from xsclient import Client

from domzero.dom0.xenstore import Connection, Op, Store
from domzero.dom0.xenstore.wire import HEADER

RECORD = Path(__file__).with_name("xenstored.txt")


def test_random_requests_are_answered_as_by_xens_xenstored() -> None:
    store = Store()
    clients = [Client(store, 0) for _ in range(3)]
    for client in clients:
        client.connection = Connection(store, 0, tool=True)
    tx = 0
    told: list[list[object]] = []
    lines = [json.loads(line) for line in RECORD.read_text().splitlines()]
    asked = 0
    for number, line in enumerate(lines):
        if line[0] == "event":
            assert told and told.pop(0) == line, f"line {number + 1}"
            continue
        assert told == [], f"line {number + 1}: events that xenstored does not send"
        client, op, in_tx, payload, kind, expected = line
        reply = clients[client].raw(op, payload.encode("latin-1"), tx if in_tx else 0)
        answer = "" if reply[0] == Op.TRANSACTION_START else reply[3].decode("latin-1")
        if reply[0] == Op.DIRECTORY_PART:
            answer = answer.partition("\0")[2]
        assert (reply[0], answer) == (kind, expected), f"line {number + 1}: {line}"
        if op == Op.TRANSACTION_START:
            tx = int(reply[3][:-1])
        asked += 1
        for other, receiver in enumerate(clients):
            events = sorted(f"{path}\0{token}\0" for path, token in receiver.take_events())
            told += [["event", other, event] for event in events]
    assert asked > 800 and told == []


W, U, WRITE, RESET = (Op.WATCH, b"/\0t\0"), (Op.UNWATCH, b"/\0t\0"), (Op.WRITE, b"/a\0v"), (Op.RESET_WATCHES, b"\0")


@pytest.mark.parametrize(
    ("requests", "events"),
    [
        ([W, RESET], ["/"]),
        ([W, U], ["/"]),
        ([W, WRITE, (Op.WRITE, b"/b\0v"), WRITE, U], ["/", "/a", "/b"]),
        ([W, U, W, RESET], ["/"]),
        ([(Op.WATCH, b"/a\0t\0"), W, WRITE, (Op.UNWATCH, b"/a\0t\0"), RESET], ["/a", "/"]),
    ],
)
def test_events_that_wait_outlive_their_watch_as_in_xens_xenstored(
    requests: list[tuple[Op, bytes]], events: list[str]
) -> None:
    """Sent in one piece to Debian's xenstored 4.17.5; between its replies these events came."""
    client = Client(Store(), 0)
    client.connection.receive(b"".join(HEADER.pack(op, 1, 0, len(payload)) + payload for op, payload in requests))
    assert client.take_events() == [(path, "t") for path in events]
    assert [reply[0] for reply in client.replies] == [op for op, _ in requests]
