# SPDX-License-Identifier: Apache-2.0
"""Requests that are odd, large or malformed: each gets a short answer that says so, and hurts nobody else."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from dom0_server import Server
from waiting import until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect

Create = Callable[..., dict[str, object]]
JSON = {"content-type": "application/json"}
ODD_KEYS = ["%00", "a%00b", "%ED%A0%80", "%1b%5b2J", "%E2%80%AE", ".", "..", "%2E", "%2E%2E", "%20", "%2F", "x" * 200]


def raw(where: str | tuple[str, int], request: bytes) -> bytes:
    """What the server answers to these bytes."""
    family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(30)
        sock.connect(where)
        sock.sendall(request)
        data = b""
        while part := sock.recv(65536):
            data += part
    return data


def status_of(where: str | tuple[str, int], *headers: str, path: str = "/v1") -> int:
    lines = [f"GET {path} HTTP/1.1", "Connection: close", *headers, "", ""]
    return int(raw(where, "\r\n".join(lines).encode("latin-1")).split()[1])


HANDSHAKE = ("Host: localhost", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
LONG = "x" * 9000


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        (f"GET /v1/domains/{LONG}/console/stream", (KEY,), 414),
        (f"GET /v1/domains/x/console/stream?token={LONG}", (KEY,), 414),
        ("GET /v1/domains/x/console/stream", (KEY, f"Authorization: Bearer {LONG}"), 431),
        ("GET /v1/domains/x/console/stream", (KEY, *(f"X{n}: x" for n in range(200))), 431),
        ("POST /v1/domains/x/console/stream", (KEY,), 405),
        ("GET /v1/domains/x/console/stream", (KEY, "Content-Length: 5"), 400),
        ("GET /v1/domains/x/console/stream", (KEY, "Transfer-Encoding: chunked"), 400),
        ("GET /v1/domains/x/console/stream", (), 400),
        ("GET /v1/domains/x/console/stream", ("Sec-WebSocket-Key: x",), 400),
    ],
)
def test_a_handshake_that_is_none_is_answered_and_its_connection_ends(
    tcp: Server, line: str, headers: tuple[str, ...], status: int
) -> None:
    request = "\r\n".join([f"{line} HTTP/1.1", *HANDSHAKE, *headers, "", ""]).encode()
    for where in (str(tcp.socket), tcp.address):
        assert raw(where, request).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.fixture(scope="module")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Domain 0 on loopback TCP."""
    server = Server(tmp_path_factory.mktemp("tcp"), "--listen", "127.0.0.1:0")
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("host", "over_tcp", "over_unix"),
    [
        ("localhost", 200, 200),
        ("LOCALHOST:1", 200, 200),
        ("127.0.0.1", 200, 200),
        ("127.1.2.3:80", 200, 200),
        ("[::1]:80", 200, 200),
        ("domzero", 403, 200),
        ("evil.example", 403, 200),
        ("user@localhost", 400, 400),
        ("localhost.evil.example", 403, 200),
        ("127.0.0.1.evil.example", 403, 200),
        ("0", 403, 200),
        ("[::1", 400, 400),
        ("::1", 400, 400),
        ("[x]", 400, 400),
        ("localhost:x", 400, 400),
        ("a b", 400, 400),
    ],
)
def test_any_host_will_do_on_the_unix_socket_and_loopback_ones_over_tcp(
    server: Server, tcp: Server, host: str, over_tcp: int, over_unix: int
) -> None:
    assert status_of(tcp.address, f"Host: {host}", f"Authorization: Bearer {tcp.token}") == over_tcp
    assert status_of(str(server.socket), f"Host: {host}") == over_unix


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 200),
        ("http://[::1", 400),
        ("http://user@localhost", 403),
        ("null", 403),
        ("http://evil.example", 403),
        ("http://[x]", 400),
    ],
)
def test_an_origin_is_this_host_or_refused(tcp: Server, origin: str, status: int) -> None:
    headers = "Host: localhost", f"Origin: {origin}", f"Authorization: Bearer {tcp.token}"
    assert status_of(tcp.address, *headers) == status


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/domains", "GET, POST"),
        ("PUT", "/domains/x/vcpus", "GET"),
        ("POST", "/domains/x", "DELETE, GET, PATCH, PUT"),
        ("DELETE", "/domains/x/console", "GET, POST"),
        ("POST", "/host/dmesg", "DELETE, GET"),
        ("GET", "/domains/x/pause", "POST"),
        ("DELETE", "/host", "GET"),
    ],
)
def test_405_lists_all_methods_of_the_path(api: httpx.Client, method: str, path: str, allowed: str) -> None:
    response = api.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("key", ODD_KEYS)
@pytest.mark.parametrize("rest", ["", "/console", "/wait?timeout=1", "/audit"])
def test_odd_words_for_a_domain_are_not_found(server: Server, key: str, rest: str) -> None:
    answer = raw(
        str(server.socket), f"GET /v1/domains/{key}{rest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"404", answer
    assert json.loads(body)["detail"].isprintable()


def test_a_trailing_slash_is_no_redirect(server: Server) -> None:
    for path in ("/v1/domains/", "/v1/domains//pause", "/v1/host/"):
        assert status_of(str(server.socket), "Host: x", path=path) == 404


def test_a_stream_of_no_domain_is_closed_with_a_reason(server: Server) -> None:
    for key in ("nobody", "%00", "%F0%9F%90%A7" * 60):
        with unix_connect(str(server.socket), f"ws://x/v1/domains/{key}/console/stream") as stream:
            with pytest.raises(ConnectionClosed) as caught:
                stream.recv()
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 4404


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "a\\ud800", "kernel": "/k"}',
        b'{"name": "a", "kernel": "/k\\udfff"}',
        b'{"name": "a", "kernel": "/k", "cmdline": "\\ud800"}',
        b'{"name": "a", "kernel": "/k", "\\ud800": 1}',
        b'{"name": "a", "kernel": "/k", "disks": ["\\ud800"]}',
        b'{"name": "a", "kernel": "/k", "engine": "\\ud800"}',
        b'{"name": "a", "kernel": "/k", "uuid": "\\ud800"}',
        b'{"name": "a", "kernel": "/k", "memory_mib": NaN}',
        b'{"name": "a", "kernel": "/k", "memory_mib": 1e999}',
    ],
)
def test_text_that_is_none_is_the_fields_fault(api: httpx.Client, body: bytes) -> None:
    response = api.post("/domains", content=body, headers=JSON)
    assert response.status_code == 422
    assert response.json()["errors"]


@pytest.mark.parametrize("body", [b"[" * 50_000, b'{"memory_mib": ' + b"9" * 5000 + b"}", b'{"name": "\xff"}'])
def test_a_body_that_cannot_be_read_is_a_described_400(api: httpx.Client, body: bytes) -> None:
    assert api.post("/domains", content=body, headers=JSON).status_code in (400, 422)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x" * 100_000, "kernel": "/k"},
        {"name": "x", "kernel": "/" + "k" * 100_000},
        {"name": "x", "kernel": "/k", "engine": "e" * 100_000},
        {"name": "x", "kernel": "/k", "x" * 100_000: 1},
        {"name": "x", "kernel": "/k", "uuid": "u" * 100_000},
        {"name": "x", "kernel": "/k", **{f"k{n}": 1 for n in range(9000)}},
        {"name": "x", "kernel": "/k", **{f"k{n}" + "y" * 5000: 1 for n in range(19)}},
        {"name": "x", "kernel": "/k", "disks": [1] * 30_000},
        {"name": "x", "kernel": "/k", "vifs": [[]] * 200},
        [1] * 40_000,
    ],
)
def test_an_answer_does_not_repeat_what_was_sent(api: httpx.Client, body: object) -> None:
    response = api.post("/domains", json=body)
    assert response.status_code == 422
    assert len(response.content) < 30_000
    assert len(response.json()["errors"]) <= 20


def test_forty_thousand_unknown_keys_are_more_than_a_request_needs(api: httpx.Client) -> None:
    body = {"name": "x", "kernel": "/k", **{f"key-{n}": n for n in range(40_000)}}
    response = api.post("/domains", json=body)
    assert response.status_code == 413


def test_fields_of_another_request_are_refused_with_the_reason(api: httpx.Client, create: Create, shell: str) -> None:
    path = f"/domains/{create('fixed')['uuid']}"
    for body, why in (
        ({"memory_mib": 32}, "fixed when a domain is created"),
        ({"memory_mb": 32}, "did you mean memory_mib?"),
        ({"name": "a\nb"}, "only printable characters"),
        ({"name": "a/b"}, "without '/'"),
    ):
        answer = api.patch(path, json=body)
        assert answer.status_code == 422 and why in answer.json()["errors"][0]["message"]
    answer = api.post("/domains", json={"name": "new", "kernel": shell, "state": "paused"})
    assert answer.status_code == 422 and "for domains that exist" in answer.text


def test_a_patch_changes_all_or_nothing(api: httpx.Client, create: Create) -> None:
    create("whole")
    create("taken")
    for change in (
        {"name": "new", "memory_target_mib": 500},
        {"name": "taken", "memory_target_mib": 8},
        {"name": "27", "memory_target_mib": 8, "state": "paused"},
        {"memory_target_mib": None, "name": "new", "state": "paused"},
        {"name": "new", "memory_target_mib": 500, "state": "paused"},
    ):
        assert api.patch("/domains/whole", json=change).status_code in (409, 422)
        domain = api.get("/domains/whole").json()
        assert (domain["memory_target_mib"], domain["state"] in ("running", "blocked")) == (16, True)
    domain = api.patch("/domains/whole", json={"name": "new", "memory_target_mib": 8, "state": "paused"}).json()
    assert (domain["name"], domain["memory_target_mib"], domain["state"]) == ("new", 8, "paused")


def test_a_domain_is_found_by_its_domid_before_its_name(api: httpx.Client, create: Create) -> None:
    domain = create("seven")
    assert api.get(f"/domains/{domain['domid']}").json()["name"] == "seven"
    assert api.patch("/domains/seven", json={"name": str(domain["domid"])}).status_code == 422
    assert api.patch("/domains/seven", json={"name": str(domain["uuid"])}).status_code == 422


def test_a_guests_escapes_are_shown_in_logs_and_raw_on_its_console(
    server: Server, api: httpx.Client, create: Create
) -> None:
    create("rude")
    api.post("/domains/rude/console", json={"data": "log bad\x1b[2Jx\r\x9by\n"})
    api.post("/domains/rude/console", json={"data": "echo good\x1b[2J\n"})
    until(lambda: b"good\x1b[2J" in api.get("/domains/rude/console").content)
    shown = server.cli("dmesg").stdout
    assert "bad\\x1b[2Jx" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_more_headers_than_any_request_needs_are_refused(server: Server, api: httpx.Client) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.socket))
        for extra, status in ((127, 200), (128, 431)):
            sock.sendall(b"GET /v1 HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * extra + b"\r\n")
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            found = json.loads(answer.read())
            assert answer.status == status, found
        assert found["code"] == "TOO_MANY_HEADERS" and found["detail"] == "129 headers: at most 128"
