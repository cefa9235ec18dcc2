# SPDX-License-Identifier: Apache-2.0
"""The client of QMP: what it asks is in the schema, answers come to who asked, and descriptors go with commands."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from domzero.dom0.json_values import MessageError
from domzero.dom0.qemu.qmp import BURST, CHUNK, QmpClient, QmpError, QmpGone, commands_of, number, objects

SCHEMA = [
    {"name": "stop", "meta-type": "command", "arg-type": "0"},
    {"name": "0", "meta-type": "object", "members": []},
    {"name": "balloon", "meta-type": "command", "arg-type": "1"},
    {"name": "1", "meta-type": "object", "members": [{"name": "value", "type": "int"}]},
    {"name": "device_add", "meta-type": "command", "arg-type": "1"},
    {"name": "blockdev-add", "meta-type": "command", "arg-type": "2"},
    {"name": "2", "meta-type": "object", "members": [{"name": "driver"}], "variants": [{"case": "a", "type": "1"}]},
    {"name": "STOP", "meta-type": "event", "arg-type": "0"},
]


class Peer:
    """The other end of a client's socket."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.lost: list[str] = []
        self.sock, ours = socket.socketpair()
        self.sock.setblocking(False)
        self.client = QmpClient(ours, on_event=lambda *event: self.events.append(event), on_lost=self.lost.append)

    async def heard(self) -> dict[str, Any]:
        """The next command."""
        line = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        command: dict[str, Any] = json.loads(line)
        return command

    def say(self, *messages: Any) -> None:
        """Messages, a line each."""
        self.sock.send(b"".join(json.dumps(message).encode() + b"\r\n" for message in messages))


def with_peer(scene: Callable[[Peer], Awaitable[None]]) -> None:
    async def run() -> None:
        peer = Peer()
        try:
            await scene(peer)
        finally:
            peer.client.close()
            peer.sock.close()

    asyncio.run(run())


def test_commands_follow_the_greeting() -> None:
    async def scene(peer: Peer) -> None:
        beginning = asyncio.ensure_future(peer.client.begin())
        await asyncio.sleep(0)
        peer.say({"QMP": {"version": {}}})
        command = await peer.heard()
        assert command["execute"] == "qmp_capabilities"
        peer.say({"return": {}, "id": command["id"]})
        await beginning

    with_peer(scene)


def test_answers_come_to_who_asked_in_any_order_and_events_between() -> None:
    async def scene(peer: Peer) -> None:
        asked = [asyncio.ensure_future(peer.client.ask(name)) for name in ("one", "two")]
        commands: list[dict[str, Any]] = []
        while len(commands) < 2:
            data = await asyncio.get_running_loop().sock_recv(peer.sock, 65536)
            commands += [json.loads(line) for line in data.splitlines()]
        peer.say(
            {"return": 2, "id": commands[1]["id"]},
            {"event": "STOP", "data": {"a": 1}, "timestamp": {}},
            {"event": "RESUME"},
            {"error": {"class": "GenericError", "desc": "no such thing"}, "id": commands[0]["id"]},
        )
        assert await asked[1] == 2
        with pytest.raises(QmpError, match="no such thing"):
            await asked[0]
        assert peer.events == [("STOP", {"a": 1}), ("RESUME", {})]

    with_peer(scene)


def test_what_a_qemus_schema_does_not_have_is_not_asked() -> None:
    async def scene(peer: Peer) -> None:
        peer.client.use(commands_of(SCHEMA))
        with pytest.raises(MessageError, match="no command reset"):
            await peer.client.ask("reset")
        with pytest.raises(MessageError, match="balloon has no size"):
            await peer.client.ask("balloon", {"size": 1})
        for command, arguments in (("device_add", {"driver": "x", "bus": "y"}), ("blockdev-add", {"value": 1})):
            asked = asyncio.ensure_future(peer.client.ask(command, arguments))
            heard = await peer.heard()
            assert heard["arguments"] == arguments
            peer.say({"return": {}, "id": heard["id"]})
            assert await asked == {}

    with_peer(scene)


def test_descriptors_go_with_their_command() -> None:
    async def scene(peer: Peer) -> None:
        read, write = os.pipe()
        asked = asyncio.ensure_future(peer.client.ask("getfd", {"fdname": "a"}, [write]))
        await asyncio.sleep(0.01)
        line, fds, _, _ = socket.recv_fds(peer.sock, 65536, 4)
        os.write(fds[0], b"x")
        assert os.read(read, 1) == b"x" and json.loads(line)["execute"] == "getfd"
        peer.say({"return": {}, "id": json.loads(line)["id"]})
        await asked
        for fd in (read, write, *fds):
            os.close(fd)

    with_peer(scene)


def test_who_waits_hears_that_it_has_ended() -> None:
    async def scene(peer: Peer) -> None:
        asked = asyncio.ensure_future(peer.client.ask("stop"))
        await peer.heard()
        peer.sock.close()
        with pytest.raises(QmpGone):
            await asked
        with pytest.raises(QmpGone):
            await peer.client.ask("stop")
        assert peer.lost == [""]

    with_peer(scene)


def test_others_have_their_turn_while_there_is_always_more_to_read() -> None:
    async def scene(peer: Peer) -> None:
        async def at_once() -> bytes:
            return b'{"event": "X"}\n'

        peer.client._peek, peer.client._take = at_once, lambda count: None  # type: ignore[method-assign]
        peer.say({"event": "FIRST"})
        while len(peer.events) < 3:
            await asyncio.sleep(0)  # would never end

    with_peer(scene)


def test_more_than_a_burst_is_read_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    async def scene(peer: Peer) -> None:
        sent = 0
        for _ in range(400):
            with suppress(BlockingIOError):
                sent += peer.sock.send(b" " * 4095 + b"\n")
            await sleep(0)
        assert sent > BURST + CHUNK
        assert waited[0] == 0 and waited[-1] > 0

    monkeypatch.setattr("domzero.dom0.qemu.qmp.time.monotonic", lambda: 0.0)
    monkeypatch.setattr("domzero.dom0.qemu.qmp.asyncio.sleep", noted)
    with_peer(scene)


def test_values_are_what_they_should_be() -> None:
    assert number({"a": {"b": 7}}, "a", "b") == 7
    assert number({"a": 3}, "a", "b") == 0
    wrongs: list[Any] = [True, -1, "1", 1.5, [], None]
    for wrong in wrongs:
        with pytest.raises(MessageError):
            number({"a": wrong}, "a")
    for wrong in ({}, [1], None, "x"):
        with pytest.raises(MessageError):
            objects(wrong, "list")
        with pytest.raises(MessageError):
            commands_of(wrong)
    broken = [{"name": "a", "meta-type": "command", "arg-type": "b"}, {"name": "b", "members": [{}, 7], "variants": 3}]
    with pytest.raises(MessageError):
        commands_of(broken)
    around = [{"name": "a", "meta-type": "command", "arg-type": "b"}, {"name": "b", "variants": [{"type": "b"}]}]
    assert commands_of(around) == {"a": frozenset()}
