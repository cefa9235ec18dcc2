# SPDX-License-Identifier: Apache-2.0
"""Who may talk to Domain 0: the owner, on each of its doors, and nobody else."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import httpx
import pytest
from dom0_server import Server, children
from other_user import NOBODY, as_user
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from domzero.cli.api_client import Dom0
from domzero.dom0.listeners import SocketLock, open_tcp, open_unix
from domzero.dom0.paths import private_directory
from domzero.dom0.token import TokenFile, find_token, read_token, token_path
from domzero.errors import ConfigError, DomzeroError

OPEN = {("post", "/v1/sessions")}
"""What is asked for without credentials: to log in, with a password."""
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + "A" * 22 + "=="
)


@pytest.fixture(scope="module")
def public() -> Iterator[Server]:
    """A Domain 0 on TCP whose directory anybody can enter, and whose Unix socket anybody can open."""
    directory = Path(tempfile.mkdtemp(prefix="domzero-"))
    directory.chmod(0o755)
    server = Server(directory, "--listen", "127.0.0.1:0")
    server.socket.chmod(0o666)
    yield server
    assert server.stop() == 0
    shutil.rmtree(directory)


def answer(family: int, where: str | tuple[str, int], path: str, *headers: str) -> bytes:
    """The first bytes of what is answered to a GET."""
    with socket.socket(family) as sock:
        sock.settimeout(30)
        sock.connect(where)
        with suppress(BrokenPipeError):  # who is not wanted need not be listened to
            sock.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())
        return sock.recv(4096)


@pytest.mark.parametrize("headers", [(), (UPGRADE,)], ids=["http", "websocket"])
def test_another_user_gets_nothing_on_any_door(public: Server, headers: tuple[str, ...]) -> None:
    unix = (socket.AF_UNIX, str(public.socket))
    tcp = (socket.AF_INET, public.address)
    path = "/v1/domains/x/console/stream" if headers else "/v1/domains"
    assert as_user(NOBODY, lambda: answer(*unix, path, *headers)).startswith(b"HTTP/1.1 403 ")
    assert as_user(NOBODY, lambda: answer(*tcp, path, *headers)).startswith(b"HTTP/1.1 401 ")
    assert as_user(0, lambda: answer(*unix, path, *headers)).split()[1] in (b"200", b"101")
    assert as_user(NOBODY, public.token_file.read_bytes) == b"PermissionError"
    assert as_user(NOBODY, (public.socket.parent / "d.sock.lock").read_bytes) == b"PermissionError"


def test_no_operation_over_tcp_is_anybodys_who_shows_nothing(public: Server) -> None:
    """But to log in. The document has them all."""
    transport = httpx.HTTPTransport(uds=str(public.socket))
    with httpx.Client(transport=transport, base_url="http://domzero") as owner, httpx.Client() as stranger:
        document = owner.get("/openapi.json").json()
        answers = {}
        for template, operations in document["paths"].items():
            path = re.sub(r"\{\w+\}", "x", template)
            for method in operations:
                answers[method, template] = stranger.request(method, f"{public.url}{path}").status_code
        assert len(answers) > 80
        assert {key for key, status in answers.items() if status != 401} == OPEN


def names_in(directory: Path) -> bytes:
    return b" ".join(bytes(path) for path in directory.iterdir())


def write_to(path: Path) -> bytes:
    with path.open("ab"):
        return b"open"


def send_nothing(pid: int) -> bytes:
    os.kill(pid, 0)
    return b"sent"


def test_another_user_reaches_no_file_or_process_of_domain_0(public: Server, shell: str) -> None:
    assert public.cli("create", "--kernel", shell, "--memory", "16", "--name", "mine", "-q").returncode == 0
    try:
        storage = public.socket.parent / "d.sock.storage"
        assert as_user(NOBODY, partial(names_in, storage)) == b"PermissionError"
        files = [path for path in public.socket.parent.iterdir() if path not in (public.socket, public.log, storage)]
        assert {path.name for path in files} == {
            *("d.sock.lock", "xenstored.sock", "xenstored.sock.lock"),
            *("d.sock.db", "d.sock.db.lock", "d.sock.db-shm", "d.sock.db-wal"),
            public.token_file.name,
        }
        for path in files:
            assert as_user(NOBODY, path.read_bytes) == b"PermissionError"
            assert as_user(NOBODY, partial(write_to, path)) == b"PermissionError"
        (server,) = children(public.process.pid)
        workers = public.workers()
        assert workers
        for pid in (public.process.pid, server, *workers):
            process = Path(f"/proc/{pid}")
            # its guest's memory, its environment, its sockets
            for name in ("mem", "environ", "maps"):
                read = (process / name).read_bytes
                assert as_user(NOBODY, read) == b"PermissionError", name
            assert as_user(NOBODY, partial(names_in, process / "fd")) == b"PermissionError"
            assert as_user(NOBODY, partial(send_nothing, pid)) == b"PermissionError"
    finally:
        assert public.cli("destroy", "mine").returncode == 0


def enter(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        return b"entered"


def test_another_user_reads_no_core_dump_and_enters_no_network(public: Server, shell: str) -> None:
    network = f"test{os.getpid()}"
    arguments = ("--kernel", shell, "--memory", "16", "--name", "dumped", "--vif", f"bridge={network}", "-q")
    assert public.cli("create", *arguments).returncode == 0
    directory = Path(tempfile.mkdtemp(prefix="domzero-"))
    directory.chmod(0o777)  # anybody's, as /tmp is: what protects the file is its own mode
    try:
        core = directory / "core"
        assert public.cli("dump-core", "dumped", str(core)).returncode == 0
        assert as_user(NOBODY, core.read_bytes) == b"PermissionError"
        assert as_user(NOBODY, partial(write_to, core)) == b"PermissionError"
        switch = private_directory("networks") / f"{network}.sock"
        assert as_user(0, partial(enter, switch)) == b"entered"
        assert as_user(NOBODY, partial(enter, switch)) == b"PermissionError"
        switch.parent.chmod(0o777)
        switch.parent.parent.chmod(0o755)
        assert private_directory("networks") == switch.parent  # who uses it next closes it again
        assert stat.S_IMODE(switch.parent.stat().st_mode) == 0o700
    finally:
        assert public.cli("destroy", "dumped").returncode == 0
        shutil.rmtree(directory)


def test_another_user_changes_no_image_and_reads_no_disk(tmp_path: Path) -> None:
    directory = Path(tempfile.mkdtemp(prefix="domzero-"))
    directory.chmod(0o755)
    env = {**os.environ, "XDG_DATA_HOME": str(directory), "HOME": str(directory)}
    try:
        source = tmp_path / "disk.img"
        source.write_bytes(b"secret" + bytes(1 << 20))
        source.chmod(0o644)
        command = [sys.executable, "-m", "domzero", "image", "import", str(source), "--name", "mine"]
        subprocess.run(command, env=env, check=True, timeout=60, capture_output=True)
        files = [path for path in directory.rglob("*") if path.is_file()]
        disks = [path for path in files if path.read_bytes().startswith(b"secret")]
        assert disks
        for path in disks:
            assert as_user(NOBODY, path.read_bytes) == b"PermissionError"
        for path in files:
            assert as_user(NOBODY, partial(write_to, path)) == b"PermissionError"
    finally:
        shutil.rmtree(directory)


def test_another_user_types_on_no_console_and_ends_no_domain(public: Server, shell: str) -> None:
    assert public.cli("create", "--kernel", shell, "--memory", "16", "--name", "quiet", "-q").returncode == 0
    doors = ((socket.AF_UNIX, str(public.socket), b"403"), (socket.AF_INET, public.address, b"401"))
    for family, where, refused in doors:
        for request in (
            "DELETE /v1/domains/quiet",
            "POST /v1/domains/quiet/pause",
            "POST /v1/domains/quiet/console",
            "GET /v1/domains/quiet/console",
            "GET /v1/host/dmesg",
        ):
            for token in ("", "Authorization: Bearer wrong\r\n"):

                def ask(
                    family: int = family,
                    where: str | tuple[str, int] = where,
                    request: str = request,
                    token: str = token,
                ) -> bytes:
                    with socket.socket(family) as sock:
                        sock.connect(where)
                        with suppress(BrokenPipeError):
                            body = '{"data": "poweroff\\n"}'
                            head = f"{request} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Type: application/json\r\n"
                            sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                        return sock.recv(4096)

                assert as_user(NOBODY, ask).split()[1] == refused, (request, token)
    assert public.cli("destroy", "quiet").returncode == 0  # it is there still


def test_a_request_over_tcp_without_the_token_is_a_problem_that_asks_for_one(public: Server) -> None:
    with httpx.Client(base_url=public.url) as client:
        for value in ("", "Bearer", "Bearer x", f"Basic {public.token}", public.token, f"Bearer {public.token}x"):
            response = client.get("/v1/domains", headers={"Authorization": value} if value else {})
            assert response.status_code == 401
            assert response.headers["www-authenticate"].startswith("Bearer ")
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["code"] == "SESSION_AUTHENTICATION_FAILED"
        assert client.post("/v1/domains", json={"name": "x", "kernel": "/k"}).status_code == 401
        assert client.get("/v1/nothing?token=" + public.token).status_code == 401
        for scheme in ("Bearer", "bearer"):
            assert client.get("/v1", headers={"Authorization": f"{scheme} {public.token}"}).status_code == 200


def test_the_description_of_the_api_needs_no_token_and_says_that_the_rest_does(public: Server) -> None:
    with httpx.Client(base_url=public.url) as client:
        assert client.get("/docs").status_code == 200
        document = client.get("/openapi.json").json()
        assert client.get("/openapi.json/").status_code == 401
    assert document["security"] == [{}, {"token": []}, {"password": []}, {"session": []}]
    assert all("401" in operation["responses"] for path in document["paths"].values() for operation in path.values())


def test_a_websocket_shows_the_token_as_a_browser_can(public: Server) -> None:
    uri = public.url.replace("http", "ws") + "/v1/domains/x/console/stream"
    token = public.token
    for wrong in (uri, uri + "?token=x", uri + f"?token={token}x", uri + "?" + "token=x&" * 1000):
        with pytest.raises(InvalidStatus) as caught:
            connect(wrong, subprotocols=[Subprotocol("bearer.x")])
        assert caught.value.response.status_code == 401
        assert caught.value.response.headers["www-authenticate"].startswith("Bearer ")
    offers = [Subprotocol("binary"), Subprotocol(f"bearer.{token}")]
    for websocket in (
        connect(uri, additional_headers={"Authorization": f"Bearer {token}"}),
        connect(f"{uri}?history=false&token={token}"),
        connect(uri, subprotocols=offers),
        connect(uri, subprotocols=offers[1:]),
    ):
        with websocket, pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=30)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4404


def test_the_verbs_find_the_token_or_are_given_it(public: Server, tmp_path: Path) -> None:
    assert stat.S_IMODE(public.token_file.stat().st_mode) == 0o600
    assert str(public.token_file) in public.log.read_text()
    assert public.cli("list", "--url", public.url).returncode == 0
    assert public.cli("list", "--url", public.url.replace("127.0.0.1", "localhost")).returncode == 0
    copy = tmp_path / "copy"
    copy.write_text(public.token)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(public.env, "DOMZERO_SOCKET", str(tmp_path / "elsewhere.sock"))
        missing = public.cli("list", "--url", public.url)
        assert missing.returncode == 1 and "--token-file" in missing.stderr
        assert public.cli("console", "x", "--url", public.url).returncode == 1
        assert public.cli("list", "--url", public.url, "--token-file", str(copy)).returncode == 0
        patch.setitem(public.env, "DOMZERO_TOKEN", public.token)
        assert public.cli("list", "--url", public.url).returncode == 0
        assert public.cli("console", "x", "--url", public.url).stderr.startswith("domzero: no such domain")
        copy.write_text("")
        assert public.cli("list", "--url", public.url, "--token-file", str(copy)).returncode == 2


def test_a_token_is_another_one_at_each_start_and_goes_with_its_server(tmp_path: Path) -> None:
    tokens = set()
    for _ in range(2):
        server = Server(tmp_path, "--listen", "127.0.0.1:0")
        tokens.add(server.token)
        assert server.stop() == 0
        assert not list(tmp_path.glob("*.token"))
    assert len(tokens) == 2 and all(len(token) >= 43 for token in tokens)


def test_the_token_of_one_address_is_never_sent_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMZERO_SOCKET", str(tmp_path / "d.sock"))
    monkeypatch.delenv("DOMZERO_TOKEN", raising=False)
    file = TokenFile(token_path(tmp_path, "127.0.0.1", 8080))
    assert find_token("127.0.0.1", 8080) == find_token("localhost", 8080) == file.token
    assert find_token("127.0.0.1", 80) is find_token("127.0.0.2", 8080) is find_token("example.org", 8080) is None
    with Dom0(url="http://example.org:8080") as dom0:
        assert "Authorization" not in dom0._headers
    file.remove()
    assert find_token("127.0.0.1", 8080) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff", b"a\x00b"])
def test_a_file_that_holds_no_token_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "t"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        read_token(file)


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_tcp_connections_send_at_once(host: str, family: socket.AddressFamily) -> None:
    try:
        listening = open_tcp(host, 0)
    except (DomzeroError, OSError):
        pytest.skip(f"this host has no {host}")

    async def option() -> int:
        accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        async with await asyncio.start_server(lambda _, writer: accepted.set_result(writer), sock=listening):
            with socket.socket(family) as client:
                client.connect(listening.getsockname()[:2])
                writer = await accepted
                sock: socket.socket = writer.get_extra_info("socket")
                value = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                writer.close()
        return value

    assert asyncio.run(option())


def _compete(path: Path, begin: Barrier, results: multiprocessing.Queue[int], finish: Event) -> None:
    begin.wait()
    try:
        SocketLock(path)
        sock = open_unix(path)
    except DomzeroError:
        results.put(0)
    else:
        results.put(os.getpid())
        finish.wait()
        sock.close()


def test_one_of_many_takes_a_stale_socket(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    fork = multiprocessing.get_context("fork")
    for _ in range(40):
        with socket.socket(socket.AF_UNIX) as stale:
            path.unlink(missing_ok=True)
            stale.bind(str(path))
        begin, results, finish = fork.Barrier(4), fork.Queue(), fork.Event()
        processes = [fork.Process(target=_compete, args=(path, begin, results, finish)) for _ in range(4)]
        for process in processes:
            process.start()
        winners = [pid for pid in (results.get(timeout=60) for _ in processes) if pid]
        assert len(winners) == 1
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        finish.set()
        for process in processes:
            process.join()


def test_a_deleted_socket_does_not_let_a_second_domain_0_in(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.socket.unlink()
    second = server.cli("serve")
    assert second.returncode == 1
    assert f"running already as process {server.process.pid}" in second.stderr and "deleted" in second.stderr
    assert not server.socket.exists()
    server.stop(signal.SIGKILL)
    third = Server(tmp_path)  # the lock went with the process
    assert third.stop() == 0
    assert not (tmp_path / "d.sock.lock").exists()
