# SPDX-License-Identifier: Apache-2.0
"""The console over a websocket."""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from dom0_server import Server
from waiting import until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect
from websockets.typing import Subprotocol

Create = Callable[..., dict[str, object]]


@contextmanager
def stream(server: Server, key: object, query: str = "") -> Iterator[ClientConnection]:
    uri = f"ws://domzero/v1/domains/{key}/console/stream{query}"
    with unix_connect(str(server.socket), uri, max_size=None) as websocket:
        yield websocket


def read_until(websocket: ClientConnection, text: bytes) -> bytes:
    data = b""
    while text not in data:
        message = websocket.recv(timeout=30)
        assert isinstance(message, bytes)
        data += message
    return data


def test_what_is_typed_is_answered(server: Server, create: Create) -> None:
    domain = create("typed", paused=True)
    with stream(server, domain["uuid"]) as websocket:
        assert server.cli("unpause", "typed").returncode == 0
        read_until(websocket, b"hello")
        websocket.send(b"echo one\n")
        read_until(websocket, b"one\r\n")
        websocket.send("echo two\n")
        read_until(websocket, b"two\r\n")


def test_history_comes_first_unless_it_is_not_wanted(server: Server, create: Create) -> None:
    domain = create("history")
    with stream(server, domain["uuid"]) as first:
        read_until(first, b"hello \r\n")
    with stream(server, domain["uuid"]) as second, stream(server, domain["uuid"], "?history=false") as third:
        assert read_until(second, b"hello") == b"hello \r\n"
        second.send(b"echo now\n")
        assert read_until(third, b"now\r\n").replace(b"\r\n", b"") == b"now"


def test_the_stream_ends_with_the_domain_and_not_before_its_last_words(server: Server, create: Create) -> None:
    domain = create("ends")
    with stream(server, domain["uuid"]) as websocket:
        websocket.send(b"echo last words\npoweroff\n")
        read_until(websocket, b"last words\r\n")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                websocket.recv(timeout=30)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000
    with stream(server, domain["uuid"]) as websocket:
        read_until(websocket, b"last words\r\n")


def test_the_stream_goes_on_over_a_reboot(server: Server, create: Create) -> None:
    domain = create("on")
    with stream(server, domain["uuid"]) as websocket:
        websocket.send(b"reboot\n")
        read_until(websocket, b"hello \r\nhello \r\n")
        websocket.send(b"echo again\n")
        read_until(websocket, b"again\r\n")


def test_a_flood_of_output_comes_whole_to_a_reader_and_hurts_nobody_else(
    server: Server, create: Create, api: httpx.Client
) -> None:
    domain = create("flood")
    idle = create("quiet")
    received = []
    with stream(server, domain["uuid"], "?history=false") as websocket:
        reader = threading.Thread(target=lambda: received.append(read_until(websocket, b"flooded")))
        reader.start()
        websocket.send(b"flood 12345\n")
        assert api.get(f"/domains/{idle['uuid']}").json()["state"] in ("running", "blocked")
        reader.join(60)
        assert not reader.is_alive()
    assert received[0].count(b"repeated very often\r\n") == 5000
    assert len(api.get("/domains/flood/console").content) <= 256 * 1024


def test_an_unknown_domain_has_no_console(server: Server, api: httpx.Client) -> None:
    with stream(server, "nobody") as websocket, pytest.raises(ConnectionClosed) as closed:
        websocket.recv(timeout=30)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4404


def test_a_browser_on_another_sites_page_gets_no_console(server: Server) -> None:
    with pytest.raises(InvalidStatus):
        unix_connect(
            str(server.socket), "ws://domzero/v1/domains/x/console/stream", additional_headers={"Origin": "http://evil"}
        )


def test_the_binary_subprotocol_is_accepted(server: Server, create: Create) -> None:
    domain = create("sub")
    uri = f"ws://domzero/v1/domains/{domain['uuid']}/console/stream"
    with unix_connect(str(server.socket), uri, subprotocols=[Subprotocol("binary")]) as websocket:
        assert websocket.subprotocol == "binary"


def test_more_input_than_any_queue_holds_is_read_whole_by_a_slow_guest(server: Server, create: Create) -> None:
    domain = create("slow", paused=True)
    lines = [f"echo line {n} of many" for n in range(12_000)]
    with stream(server, domain["uuid"]) as websocket:

        def type_lines() -> None:
            for line in lines:
                websocket.send(line.encode() + b"\n")

        typist = threading.Thread(target=type_lines)
        typist.start()
        assert server.cli("unpause", "slow").returncode == 0
        data = read_until(websocket, b"line 11999 of many\r\n")
        typist.join(60)
    assert data.count(b" of many\r\n") == 12_000


def test_a_pty_and_channels_lead_to_a_worker_that_opens_nothing(
    server: Server, api: httpx.Client, create: Create, tmp_path: Path
) -> None:
    path = tmp_path / "agent.sock"
    channels = ["name=debug,connection=pty", f"name=agent,connection=socket,path={path}"]
    domain = create("ptys", console="pty", channels=channels)
    found = api.get(f"/domains/{domain['uuid']}/consoles")
    assert found.status_code == 200, found.text
    first, debug, agent = found.json()
    assert first["place"] == server.read_store(f"/local/domain/{domain['domid']}/console/tty")
    assert debug == {"number": 1, "name": "debug", "connection": "pty", "place": debug["place"], "state": 2}
    assert agent["place"] == str(path) and path.is_socket()
    assert server.cli("channel-list", "ptys").stdout.splitlines()[2].split()[:5] == ["2", "0", "2", "socket", str(path)]
    refused = server.cli("console", "-n", "7", "ptys")
    assert refused.returncode == 2 and "there is no console 7 (there are: 0, 1, 2)" in refused.stderr
    fd = os.open(first["place"], os.O_RDWR | os.O_NOCTTY)
    os.write(fd, b"echo one\n")
    said = b""
    while b"one\r\n" not in said:
        said += os.read(fd, 4096)
    os.write(fd, b"poweroff\n")
    until(lambda: not path.exists())
    os.close(fd)


def test_domain_0_ends_well_when_a_client_has_closed_its_websocket_but_not_yet_tls(shell: str, tmp_path: Path) -> None:
    server = Server(tmp_path, "--listen", "127.0.0.1:0", "--tls")
    (token,) = (file.read_text().strip() for file in tmp_path.glob("tcp-*.token"))
    address = re.search(r"https://([^:]+):(\d+)", server.log.read_text())
    assert address is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    body = {"name": "a", "kernel": shell, "memory_mib": 16}
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero/v1") as client:
        assert client.post("/domains", json=body, timeout=60).status_code in (201, 202)
    plain = socket.create_connection((address[1], int(address[2])), 60)
    with context.wrap_socket(plain) as sock:
        sock.sendall(
            b"GET /v1/domains/a/console/stream?token=" + token.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + b"A" * 22 + b"==\r\n\r\n"
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 101")
        sock.sendall(b"\x88\x82\0\0\0\0\x03\xe8")  # a close frame, 1000
        until(lambda: b"\x88\x02\x03\xe8" in sock.recv(4096), what="the answer")
        assert server.stop() == 0, server.log.read_text()
