# SPDX-License-Identifier: Apache-2.0
"""What two Domain 0s, one after the other, hear of one keeper and of one worker at the moments when it matters."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import threading
from contextlib import closing
from pathlib import Path

import pytest
from kept import processes_with
from waiting import until

pytest.importorskip("domzero._machine", reason="the machine is not built", exc_type=ImportError)

from domzero.dom0 import file_passing
from domzero.dom0.console import Console
from domzero.dom0.control_channel import ControlChannel
from domzero.dom0.keep.link import KeptSpawner
from domzero.dom0.messages import (
    Answer,
    Audit,
    Audited,
    Done,
    FrameKind,
    InputTaken,
    Message,
    Resume,
    Resumed,
    Stop,
    decode,
    encode,
)
from domzero.dom0.socket_frames import FrameDecoder, encode_frame
from domzero.dom0.worker import Worker
from domzero.dom0.worker_handle import INPUT_AHEAD, WorkerHandle
from domzero.dom0.worker_spawner import Child, WorkerSpawner
from domzero.dom0.xenstore import Store
from domzero.dom0.xenstore.unanswered import Frame
from domzero.dom0.xenstore.wire import Message as XenstoreMessage
from domzero.dom0.xenstore.wire import Op


def keeper_at(path: Path) -> int:
    """Process id of the keeper of a socket."""
    found = processes_with(b"domzero.dom0.keep.keeper", bytes(path))
    assert found, "there is no keeper"
    return found[0]


class Impatient(KeptSpawner):
    """One whose keeper goes on when it has connected."""

    stopped = 0

    def _connect(self) -> socket.socket | None:
        sock = super()._connect()
        stopped, self.stopped = self.stopped, 0
        if stopped:
            os.kill(stopped, signal.SIGCONT)
        return sock


def test_a_domain_0_that_comes_while_the_keeper_of_nothing_ends_begins_another(tmp_path: Path) -> None:
    async def main() -> None:
        first, second = KeptSpawner(tmp_path / "k"), Impatient(tmp_path / "k")
        first.prepare()
        second.stopped = keeper_at(tmp_path / "k")
        os.kill(second.stopped, signal.SIGSTOP)
        first.close()
        second.prepare()
        assert keeper_at(tmp_path / "k")
        second.close()

    asyncio.run(main())
    until(lambda: not (tmp_path / "k").exists(), what="the keeper's end")


def test_input_that_is_taken_while_a_domain_0_takes_over_counts_once() -> None:
    async def main() -> None:
        ours, theirs = file_passing.pair()
        read, write = os.pipe()
        spawner = WorkerSpawner()
        handle = WorkerHandle(
            spawner, Store(), 1, (), on_console=lambda _: None, on_event=lambda _: None, on_gone=lambda _: None
        )
        child = Child(spawner, os.getpid())
        child.kill = lambda: None  # type: ignore[method-assign]
        resuming = asyncio.create_task(handle.take_over(child, [ours.detach(), read], ""))
        sockets = await asyncio.to_thread(file_passing.receive_sockets, theirs)
        asked = await asyncio.to_thread(read_messages, sockets[0], 1)
        resumed = Resumed(True, False, None, INPUT_AHEAD, (), ())
        both = [encode(resumed, asked[0][1]), encode(InputTaken(INPUT_AHEAD))]
        sockets[0].sendall(b"".join(encode_frame(FrameKind.MESSAGE, each) for each in both))
        assert await resuming == resumed
        await asyncio.wait_for(handle.console_input(b"typed"), 60)  # does not wait for what has been taken
        child.ended.set_result(0)
        os.close(write)
        handle.leave()
        for sock in (*sockets, theirs):
            sock.close()
        await asyncio.sleep(0)

    asyncio.run(main())


class Asking(Worker):
    """A worker whose audit asks xenstore."""

    def _do(self, message: Message, files: list[int]) -> Answer:
        if not isinstance(message, Audit):
            return super()._do(message, files)
        self._store.write("/local/domain/1/node", "value")
        return Audited(("done",))


def test_a_worker_that_asks_xenstore_when_domain_0_is_killed_is_the_next_ones() -> None:
    """It is in the middle of a request, and would wait for ever for an answer of the one that has gone."""
    files, their_files = file_passing.pair()
    old = [socket.socketpair() for _ in range(3)]
    worker = Asking(old[0][1], old[1][1], old[2][1], their_files, keeps=True)
    thread = threading.Thread(target=worker.run)
    thread.start()
    old[0][0].sendall(encode_frame(FrameKind.MESSAGE, encode(Audit(), 3)))
    assert old[2][0].recv(1 << 16), "it asks the store"
    for ours, _ in old:
        ours.close()  # a kill
    new = [socket.socketpair() for _ in range(3)]
    file_passing.send_files(files, file_passing.RESUMPTION, [theirs.fileno() for _, theirs in new])
    for _, theirs in new:
        theirs.close()
    control, _, toolstack = (ours for ours, _ in new)
    control.sendall(encode_frame(FrameKind.MESSAGE, encode(Resume(), 3)))
    seen, (kind, request) = read_frames(toolstack, 2)
    assert seen[0] == Frame.SEEN and kind == Frame.DATA and b"/local/domain/1/node\0value" in request
    asked = XenstoreMessage(Op.WRITE, struct.unpack_from("<I", request, 4)[0], 0, b"OK\0")
    toolstack.sendall(encode_frame(Frame.DATA, asked.encode()))
    assert read_messages(control, 1) == [(Resumed(False, False, None, 0, (), ()), 3)], "and not the audit's answer"
    control.sendall(encode_frame(FrameKind.MESSAGE, encode(Stop(), 4)))
    assert read_messages(control, 1) == [(Done(), 4)]
    thread.join(60)
    assert not thread.is_alive()
    for sock in (files, their_files, *(ours for ours, _ in new)):
        sock.close()


def read_frames(sock: socket.socket, count: int) -> list[tuple[int, bytes]]:
    decoder = FrameDecoder()
    found: list[tuple[int, bytes]] = []
    while len(found) < count:
        found += decoder.feed(sock.recv(1 << 16))
    return found


def read_messages(sock: socket.socket, count: int) -> list[tuple[Message, int]]:
    decoder = FrameDecoder()
    found: list[tuple[Message, int]] = []
    while len(found) < count:
        found += [decode(payload) for kind, payload in decoder.feed(sock.recv(1 << 16)) if kind == FrameKind.MESSAGE]
    return found


def test_an_answer_to_a_domain_0_that_has_gone_is_not_taken_for_one_to_the_next() -> None:
    """A core dump is written by a thread, and is ready after another Domain 0 has asked with the same number."""
    console = Console()
    first, ours = socket.socketpair()
    channel = ControlChannel(ours, hold=console.hold, release=console.release, keeps=True)
    session = channel.session
    channel.detach()
    ours.close()
    second, ours = socket.socketpair()
    with closing(first), closing(second), closing(ours):
        channel.resume(ours)
        channel.send(Audited(()), 1, session)
        channel.send(Done(), 1, channel.session)
        assert read_messages(second, 1) == [(Done(), 1)]
        channel.finish()
