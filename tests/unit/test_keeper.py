# SPDX-License-Identifier: Apache-2.0
"""The keeper of workers, between a Domain 0 that is killed and the next one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from domzero.dom0.forking import ChildEnded, Kill, Spawn, Spawned
from domzero.dom0.forkserver import FDS
from domzero.dom0.keep.protocol import Hello, Hold, Kept, Packet, Ready, Welcome, decode, encode, worker_name

PACKET_MAX = 1 << 16


class Keeper:
    """The process, and its socket's path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(path))
            listener.listen(4)
            command = [sys.executable, "-m", "domzero.dom0.keep.keeper", str(path), str(listener.fileno()), "1", "wire"]
            self.process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(30)
        sock.connect(str(self.path))
        return sock


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper(tmp_path / "k")
    yield keeper
    with suppress(ProcessLookupError):
        keeper.process.send_signal(signal.SIGCONT)
    keeper.process.kill()
    keeper.process.wait()


def receive(sock: socket.socket) -> tuple[Packet, int]:
    data, fds, _, _ = socket.recv_fds(sock, PACKET_MAX, 64)
    for fd in fds:
        os.close(fd)
    assert data, "the keeper has closed the connection"
    return decode(data)


def greet(sock: socket.socket) -> list[Packet]:
    """What the keeper says that there is."""
    sock.send(encode(Hello(keeps=True)))
    assert isinstance(receive(sock)[0], Welcome)
    found: list[Packet] = []
    while not isinstance(message := receive(sock)[0], Ready):
        found.append(message)
    return found


def spawn(sock: socket.socket, request_id: int) -> list[socket.socket]:
    """Asks for a worker, and has the other ends of its sockets, which it lives on."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(FDS)]
    socket.send_fds(sock, [encode(Spawn(False, (), False, True), request_id)], [theirs.fileno() for _, theirs in pairs])
    for _, theirs in pairs:
        theirs.close()
    return [ours for ours, _ in pairs]


class Killed:
    """A Domain 0 that has a worker, says something more and is killed, all while the keeper reads nothing."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.sock = keeper.connect()
        assert greet(self.sock) == []
        self.ends = spawn(self.sock, 1)
        spawned, request_id = receive(self.sock)
        assert isinstance(spawned, Spawned) and request_id == 1
        self.worker = spawned.pid
        self.hold(worker_name(self.worker, 1))
        os.kill(keeper.process.pid, signal.SIGSTOP)

    def hold(self, name: str) -> None:
        socket.send_fds(self.sock, [encode(Hold(name))], [end.fileno() for end in self.ends[:2]])

    def next(self) -> socket.socket:
        """The connection of the Domain 0 that follows, which has greeted the keeper."""
        self.sock.close()
        sock = self.keeper.connect()
        sock.send(encode(Hello(keeps=True)))
        return sock


def test_a_domain_0_that_comes_before_the_last_words_of_a_killed_one_are_heard_is_welcome(keeper: Keeper) -> None:
    killed = Killed(keeper)
    for number in range(20):
        killed.hold(f"file {number}")
    with killed.next() as second:
        os.kill(keeper.process.pid, signal.SIGCONT)
        assert isinstance(receive(second)[0], Welcome)
        found = [receive(second)[0] for _ in range(23)]
        assert found == [
            Hold(worker_name(killed.worker, 1)),
            *(Hold(f"file {number}") for number in range(20)),
            Kept(killed.worker, None, ""),
            Ready(),
        ]


def test_a_worker_that_a_killed_domain_0_wanted_is_not_given_to_the_next_one(keeper: Keeper) -> None:
    """Both number their requests from 1."""
    killed = Killed(keeper)
    unwanted = spawn(killed.sock, 1)
    with killed.next() as second:
        wanted = spawn(second, 1)
        os.kill(keeper.process.pid, signal.SIGCONT)
        found = []
        while not isinstance(message := receive(second)[0], Spawned):
            found.append(message)
        assert Ready() in found
        own = message.pid
        for end in unwanted:
            end.settimeout(30)
            assert end.recv(1) == b"", "the worker that nobody wants has ended"
        second.send(encode(Kill(own)))
        ended = []
        while own not in ended:
            message = receive(second)[0]
            assert isinstance(message, ChildEnded), "there is no worker more"
            ended.append(message.pid)
        for end in wanted:
            end.close()


def test_while_a_domain_0_is_there_no_other_one_is_heard(keeper: Keeper) -> None:
    with keeper.connect() as first, keeper.connect() as second:
        greet(first)
        assert second.recv(PACKET_MAX) == b""
