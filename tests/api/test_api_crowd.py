# SPDX-License-Identifier: Apache-2.0
"""Crowds of connections, slow ones and ones that never read: the owner is answered, and nothing grows."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn
from dom0_server import Server
from starlette.types import Receive, Scope, Send
from waiting import until
from websockets.sync.client import unix_connect

from domzero.dom0.api.output import BACKLOG_MAX, CHUNK, QUEUE_MAX, Output
from domzero.dom0.connections import (
    HEAD_MAX,
    PONGS_MAX,
    REQUEST_SECONDS,
    Connection,
    Connections,
    Websocket,
)
from domzero.dom0.stall import STALL_SECONDS

Create = Callable[..., dict[str, object]]
IDLE, HALF_OPEN = 1500, 200
HALF = b"POST /v1/domains HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\nContent-Type: application/json\r\n"
UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """This process is the crowd."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 3 * (IDLE + HALF_OPEN):
        pytest.skip(f"only {limits[1]} descriptors for this process")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 * (IDLE + HALF_OPEN), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def crowd(where: str | tuple[str, int], idle: int, half_open: int) -> Iterator[None]:
    """Connections that send nothing, and ones that send half a request: of its headers, or of its body."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(32) as pool:
        family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
        socks = [stack.enter_context(socket.socket(family)) for _ in range(idle + half_open)]

        def come(number: int) -> None:
            socks[number].connect(where)  # TCP tries again after a second where the queue of a listener is full
            if number >= idle:
                with contextlib.suppress(OSError):  # it may have had to give way already
                    socks[number].sendall(HALF if number % 2 else HALF + b"\r\n{")

        list(pool.map(come, range(len(socks))))
        yield


def test_a_crowd_on_either_door_does_not_lock_the_owner_out(tmp_path: Path, shell: str) -> None:
    server = Server(tmp_path, "--listen", "127.0.0.1:0")
    assert server.cli("create", "--kernel", shell, "--memory", "16", "--name", "x", "-q").returncode == 0
    stream = unix_connect(str(server.socket), "ws://x/v1/domains/x/console/stream")
    with stream, crowd(server.address, IDLE, HALF_OPEN), crowd(str(server.socket), IDLE, HALF_OPEN):
        assert "x " in server.cli("list").stdout
        assert server.cli("pause", "x").returncode == 0
        assert "Domain-0" in server.cli("list", "--url", server.url).stdout
        assert server.cli("destroy", "x").returncode == 0
        stream.recv(timeout=30)  # a console in use has not given way
    assert len(server.log.read_text().splitlines()) < 30
    assert server.stop() == 0


def test_few_descriptors_go_to_the_owner_first_and_then_to_workers(tmp_path: Path, shell: str) -> None:
    server = Server(tmp_path, "--listen", "127.0.0.1:0", nofile=128)
    transport = httpx.HTTPTransport(uds=str(server.socket))
    with crowd(server.address, 300, 100), httpx.Client(transport=transport, base_url="http://x/v1", timeout=60) as api:
        body = {"kernel": shell, "memory_mib": 16, "paused": True}

        def create(name: str) -> httpx.Response:
            return api.post("/domains", json={**body, "name": name})

        assert create("first").is_success
        refused = next(answer for n in range(30) if not (answer := create(f"n{n}")).is_success)
        assert "file descriptors" in refused.json()["detail"]
        with crowd(str(server.socket), 200, 50):
            assert "first" in server.cli("list").stdout
            assert server.cli("destroy", "first").returncode == 0
    assert "Traceback" not in server.log.read_text()
    assert len(server.log.read_text().splitlines()) < 120
    assert server.stop() == 0


def test_nonsense_over_and_over_fills_no_log(tmp_path: Path) -> None:
    server = Server(tmp_path, "--listen", "127.0.0.1:0")
    for _ in range(200):
        for request in (b"\x00\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"):
            with socket.create_connection(server.address) as sock:
                sock.sendall(request)
                assert sock.recv(100).startswith(b"HTTP/1.1 4")
    assert len(server.log.read_text().splitlines()) < 20
    assert server.stop() == 0


def test_readers_that_never_read_are_cut_off_and_cost_little(server: Server, create: Create, api: httpx.Client) -> None:
    domain = create("loud")

    def resident_kib(what: str) -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.split(f"{what}:")[1].split()[0])

    before = resident_kib("VmRSS")
    with contextlib.ExitStack() as stack:
        readers = []
        for _ in range(20):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(server.socket))
            sock.sendall(UPGRADE % f"/v1/domains/{domain['uuid']}/console/stream".encode())
            assert sock.recv(12) == b"HTTP/1.1 101"
            readers.append(sock)

        def printed() -> int:
            return int(api.get("/domains/loud/console").headers["x-console-total"])

        total = BACKLOG_MAX + (1 << 20)
        floods = ("flood " + "x" * 40 + "\n") * 3  # each 40,000 lines of 46 bytes
        api.post("/domains/loud/console", json={"data": floods})
        until(lambda: printed() > total, what="so much output")
        assert resident_kib("VmHWM") < before + 20 * 5 * 1024
        for sock in readers:
            sock.settimeout(30)
            data = b""
            while part := sock.recv(1 << 20):
                data += part
            assert len(data) < BACKLOG_MAX
            assert data[data.rindex(b"\x88") + 2 :].startswith((4408).to_bytes(2, "big"))


def test_output_on_its_way_is_bounded_whole_or_dropped() -> None:
    async def run() -> None:
        output = Output()
        for number in range(100):
            output.put(bytes([number]) * 1000)
        output.finish()
        output.put(b"late")
        data = b""
        while part := await output.take():
            assert len(part) <= CHUNK
            data += part
        assert data == b"".join(bytes([number]) * 1000 for number in range(100))
        output = Output()
        for _ in range(1000):
            output.put(b"x" * 65536)
            assert len(output) <= QUEUE_MAX
        assert output.overrun and len(output) == 0 and await output.take() == b""

    asyncio.run(run())


# --- the protocols in this process, and their time


class Waiting:
    """An application that reads a body, or that sends what never ends."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            if scope["path"] == "/quiet":
                while (await receive())["type"] != "websocket.disconnect":
                    pass
            for _ in range(3):
                await send({"type": "websocket.send", "bytes": b"x" * 300_000})
                self.sent += 1
            return
        if scope["path"] == "/body":
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})


@contextlib.asynccontextmanager
async def serving(nofile: int = 1024) -> AsyncIterator[tuple[Connections, tuple[str, int]]]:
    config = uvicorn.Config(Waiting(), http=Connection, ws=Websocket, log_config=None, ws_per_message_deflate=False)
    config.load()
    state, loop = Connections(nofile), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(config, state, {}, loop), "127.0.0.1", 0, backlog=512)
    async with server:
        yield state, server.sockets[0].getsockname()
        for client in list(state.connections):
            client.transport.abort()
        await turns(lambda: not state.connections)


async def turns(condition: Callable[[], bool]) -> None:
    """Lets the loop turn until the condition holds."""
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost", b"HTTP/1.1 408 "),
        (b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx", b""),
    ],
)
def test_a_request_that_does_not_come_ends_its_connection(request_: bytes, answer: bytes) -> None:
    async def run() -> None:
        async with serving() as (state, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(request_)
            await turns(lambda: len(state.connections) == 1)
            (client,) = state.connections
            now = asyncio.get_running_loop().time()
            state.check(now + REQUEST_SECONDS / 2)
            for byte in b" : x":  # dripping helps nobody
                writer.write(bytes([byte]) if request_ else b"")
                await asyncio.sleep(0)
            assert not client.transport.is_closing()
            state.check(now + REQUEST_SECONDS + 5)
            assert (await reader.read()).startswith(answer)
            await turns(lambda: not state.connections)
            assert len(state.door(client.transport)) == 0
            writer.close()

    asyncio.run(run())


def test_headers_larger_than_any_request_needs_are_refused(server: Server) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.socket))
        sock.sendall(b"GET /v1 HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (HEAD_MAX - 100))
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.setblocking(True)
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(b"x" * HEAD_MAX)
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


def test_an_answer_that_is_not_taken_ends_its_connection() -> None:
    async def run() -> None:
        async with serving() as (state, address):
            with socket.create_connection(address) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await turns(lambda: any(client.transport.get_write_buffer_size() for client in state.connections))
                (client,) = state.connections
                size = -1
                while size != (size := client.transport.get_write_buffer_size()):
                    await asyncio.sleep(0.01)
                assert size < 256 << 10
                now = asyncio.get_running_loop().time()
                state.check(now)
                state.check(now + 1)
                assert not client.transport.is_closing()
                state.check(now + 2 + STALL_SECONDS)
                await turns(lambda: not state.connections)

    asyncio.run(run())


def test_pings_that_are_never_read_back_end_their_websocket() -> None:
    async def run() -> None:
        async with serving() as (state, address):
            with socket.create_connection(address) as sock:
                sock.sendall(UPGRADE % b"/quiet")
                await turns(lambda: any(isinstance(client, Websocket) for client in state.connections))
                (client,) = state.connections
                sock.setblocking(False)
                ping, most = b"\x89\xfd\0\0\0\0" + b"p" * 125, 0
                while state.connections:
                    with contextlib.suppress(OSError):
                        sock.send(ping * 500)
                    await asyncio.sleep(0)
                    most = max(most, client.transport.get_write_buffer_size())
                assert most <= PONGS_MAX + 131

    asyncio.run(run())


def test_the_oldest_that_waits_gives_way_and_what_works_does_not() -> None:
    async def run() -> None:
        async with serving(nofile=1024) as (state, address):
            most = 1024 // 8
            with contextlib.ExitStack() as stack:

                def connect(request: bytes) -> socket.socket:
                    sock = stack.enter_context(socket.create_connection(address))
                    sock.sendall(request)
                    sock.setblocking(False)
                    return sock

                loop = asyncio.get_running_loop()
                console = connect(UPGRADE % b"/quiet")
                await turns(lambda: any(isinstance(client, Websocket) for client in state.connections))
                idle = [connect(b"") for _ in range(most)]
                with contextlib.suppress(ConnectionResetError):
                    assert await loop.sock_recv(idle[0], 1) == b""
                busy = [connect(UPGRADE % b"/quiet") for _ in range(most - 1)]
                await turns(lambda: sum(isinstance(client, Websocket) for client in state.connections) == most)
                late = connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await loop.sock_recv(late, 100)).startswith(b"HTTP/1.1 503 ")
                for sock in (console, *busy):
                    assert await loop.sock_recv(sock, 12) == b"HTTP/1.1 101"

    asyncio.run(run())
