# SPDX-License-Identifier: Apache-2.0
"""xenstore's Unix socket: whose it is, when it is there, and what clients that mean no good can do with it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dom0_server import Server, children
from other_user import NOBODY, as_user
from waiting import unchanged, until
from xsclient import SocketClient

from domzero.dom0.xenstore import Op
from domzero.dom0.xenstore.unix_socket import CLIENTS_MAX
from domzero.dom0.xenstore.wire import HEADER, PAYLOAD_MAX

OK = b"OK\0"


@pytest.fixture(scope="module")
def public() -> Iterator[Server]:
    """A Domain 0 whose directory anybody can enter."""
    directory = Path(tempfile.mkdtemp(prefix="domzero-"))
    directory.chmod(0o755)
    server = Server(directory)
    yield server
    assert server.stop() == 0
    shutil.rmtree(directory)


def memory_kib(server: Server) -> int:
    """What the Domain 0 process has in memory."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def works(server: Server) -> bool:
    with SocketClient(server.xenstore) as client:
        return client.call(Op.READ, b"/local/domain/0/name\0") == b"Domain-0"


def test_another_user_cannot_open_it_nor_is_answered_when_it_can(public: Server) -> None:
    def ask() -> bytes:
        with SocketClient(public.xenstore) as client:
            reply = client.call(Op.READ, b"name\0")
            assert isinstance(reply, bytes)
            return reply

    assert public.xenstore.stat().st_mode & 0o777 == 0o600
    assert as_user(NOBODY, ask) == b"PermissionError"
    public.xenstore.chmod(0o666)
    assert as_user(NOBODY, ask) in (b"ConnectionError", b"ConnectionResetError", b"BrokenPipeError")
    assert as_user(0, ask) == b"Domain-0"
    public.xenstore.chmod(0o600)


def test_it_goes_with_domain_0_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    server = Server(tmp_path)
    client = SocketClient(server.xenstore)
    second = subprocess.run(
        [sys.executable, "-m", "domzero", "serve", "--socket", str(tmp_path / "other.sock")],
        env=server.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 1
    assert "a xenstore is running already" in second.stderr and "--xenstore-socket" in second.stderr
    assert not (tmp_path / "other.sock").exists()
    server.stop(signal.SIGKILL)
    assert server.xenstore.is_socket()
    with pytest.raises(ConnectionError):
        client.call(Op.READ, b"name\0")
    again = Server(tmp_path)
    assert works(again)
    client = SocketClient(again.xenstore)
    assert again.stop() == 0
    with pytest.raises(ConnectionError):
        client.call(Op.READ, b"name\0")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "d.sock.db",
        "d.sock.db.lock",
        "d.sock.storage",
        "serve.log",
    ]


def test_its_place_can_be_chosen_on_the_command_line(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    server = Server(tmp_path, "--xenstore-socket", str(chosen))
    with SocketClient(chosen) as client:
        assert client.call(Op.GET_DOMAIN_PATH, b"5\0") == b"/local/domain/5\0"
    assert not server.xenstore.exists()
    assert server.stop() == 0


@pytest.mark.parametrize("length", [PAYLOAD_MAX + 1, 1 << 31, 0xFFFFFFFF])
def test_a_length_that_no_message_has_ends_the_connection(server: Server, length: int) -> None:
    with SocketClient(server.xenstore) as client:
        client.sock.sendall(HEADER.pack(Op.READ, 1, 0, length))
        with pytest.raises(ConnectionError):
            client.message()
    assert works(server)


def test_half_messages_wait_and_hold_nobody_up(server: Server) -> None:
    request = HEADER.pack(Op.READ, 7, 0, 5) + b"name\0"
    clients = [SocketClient(server.xenstore) for _ in request]
    for cut, client in enumerate(clients):
        client.sock.sendall(request[:cut])
    assert unchanged(lambda: works(server), rounds=5)
    for cut, client in enumerate(clients):
        client.sock.sendall(request[cut:])
        assert client.reply() == b"Domain-0"
        client.sock.close()


def test_nonsense_is_answered_or_ends_its_own_connection_only(server: Server) -> None:
    rng = random.Random(7)
    for _ in range(200):
        with SocketClient(server.xenstore) as client:
            payload = rng.randbytes(rng.randrange(40))
            kind = rng.choice([rng.randrange(30), rng.getrandbits(32)])
            reply = client.call(kind, payload, rng.choice([0, 0, rng.getrandbits(32)]))
            assert isinstance(reply, bytes) or reply.startswith("E")
    assert works(server)


def test_a_client_that_never_reads_is_not_read_and_costs_little(server: Server) -> None:
    before = memory_kib(server)
    request = HEADER.pack(Op.READ, 7, 0, 5) + b"name\0"
    with SocketClient(server.xenstore) as client:
        client.sock.setblocking(False)
        sent = 0

        def stuffed() -> bool:
            nonlocal sent
            try:
                sent += client.sock.send(request * 1000)
            except BlockingIOError:
                works(server)  # a turn of its loop
                return True
            return False

        for _ in range(3):
            until(stuffed)
        assert sent < 64 << 20
        assert works(server)
    assert memory_kib(server) - before < 32 << 10


def test_events_that_are_never_read_are_bounded(server: Server) -> None:
    before = memory_kib(server)
    with SocketClient(server.xenstore) as sleeper, SocketClient(server.xenstore) as writer:
        for n in range(20):
            assert sleeper.call(Op.WATCH, b"/flood\0" + b"t" * 1000 + b"%d\0" % n) == OK
        for n in range(2000):
            assert writer.call(Op.WRITE, b"/flood/%d\0x" % n) == OK
        assert memory_kib(server) - before < 32 << 10, "40 MB of events were due"
        told = Counter(dict.fromkeys(range(20), 0))
        size = 0
        while min(told.values()) < 2:  # at the start, and for all that had no room
            path, token = sleeper.event()
            size += len(path) + len(token)
            told[int(token[1000:])] += path == b"/flood"
        assert size < 4 << 20
        assert writer.call(Op.RM, b"/flood\0") == OK


def test_more_clients_than_there_may_be_are_turned_away(tmp_path: Path) -> None:
    server = Server(tmp_path, nofile=1024)
    most = 1024 // 16
    assert most < CLIENTS_MAX
    clients = [SocketClient(server.xenstore) for _ in range(most)]
    for client in clients:
        assert client.call(Op.READ, b"name\0") == b"Domain-0"
    for _ in range(5):
        with SocketClient(server.xenstore) as late, pytest.raises(ConnectionError):
            late.call(Op.READ, b"name\0")
    assert server.log.read_text().count("no more are taken") == 1
    clients.pop().sock.close()
    until(lambda: works_or_refused(server))
    for client in clients:
        client.sock.close()
    assert server.stop() == 0


def works_or_refused(server: Server) -> bool:
    try:
        return works(server)
    except ConnectionError:
        return False


def test_a_flood_of_one_client_leaves_others_their_turns(server: Server) -> None:
    flood = HEADER.pack(Op.WRITE, 1, 0, 9) + b"/f/node\0x"
    with SocketClient(server.xenstore) as busy, SocketClient(server.xenstore) as other:
        busy.sock.sendall(flood * 2000)
        assert other.call(Op.READ, b"name\0") == b"Domain-0"
        busy.send(Op.READ, b"/last\0")
        assert [busy.reply() for _ in range(2001)] == [OK] * 2000 + ["ENOENT"]
        assert other.call(Op.RM, b"/f\0") == OK


def test_its_descriptors_go_with_its_clients(server: Server) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    assert works(server)
    before = descriptors()
    for _ in range(100):
        with SocketClient(server.xenstore) as client:
            client.call(Op.WATCH, b"/\0t\0")
            client.call(Op.TRANSACTION_START, b"\0")
    until(lambda: descriptors() <= before)


def test_no_worker_has_the_socket(server: Server, create: Callable[..., dict[str, object]]) -> None:
    create("other")
    assert server.workers()
    inode = {
        line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines() if str(server.xenstore) in line
    }
    assert inode
    for pid in [*children(server.process.pid), *server.workers()]:
        links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert not {f"socket:[{number}]" for number in inode} & links


def test_a_client_that_shuts_its_writing_end_has_its_replies(server: Server) -> None:
    with SocketClient(server.xenstore) as client:
        client.sock.sendall(HEADER.pack(Op.READ, 1, 0, 5) + b"name\0")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.reply() == b"Domain-0"
