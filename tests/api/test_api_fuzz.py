# SPDX-License-Identifier: Apache-2.0
"""Random requests, made from the OpenAPI document, to a Domain 0 whose domains are in all states at once.

Seconds and first seed: DOMZERO_API_FUZZ_SECONDS, DOMZERO_FUZZ_SEED. Several clients ask at the same time: the owner on
the Unix socket, and over TCP a user of each of the six roles, who has each operation answered at least once; domains
come, go and are killed meanwhile. Each answer is one that the document describes, which has no 5xx but 504 for a worker
that does not answer; at the end Domain 0 lives, has said nothing of a fault, its processes are those of its records,
and nobody has done what their role does not cover.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from dom0_server import Server
from openapi_cases import OUTGOING, Case, Cases
from openapi_check import OpenApi
from waiting import until
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect, unix_connect

from domzero.dom0.actions import Action
from domzero.dom0.actors import Role

SECONDS = float(os.environ.get("DOMZERO_API_FUZZ_SECONDS", "4"))
LIVE_MAX = 16
CLOSED = {1000, 1001, 1002, 1003, 1007, 1009, 4403, 4404, 4408}
"""With what Domain 0 closes a console's websocket."""
STREAM: dict[str, Any] = {"max_size": None, "max_queue": None, "open_timeout": 60, "close_timeout": 1}
LINES = [
    "echo hello",
    "store name",
    "log x",
    "flood 5000",
    "crash",
    "poweroff",
    "reboot",
    "watchdog",
    "fault",
    "suspend",
]
KEEP = {f"on_{end}": "preserve" for end in ("poweroff", "reboot", "crash", "watchdog")}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


class Population:
    """Domains in all states, and their names, numbers and uuids.

    :param url: of the API on the Unix socket.
    """

    def __init__(self, server: Server, kernel: str, seed: int) -> None:
        self._server = server
        self._kernel = kernel
        self._chance = random.Random(seed)
        self._api = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero/v1", timeout=60
        )
        self.ids: list[str] = ["0", "Domain-0", "nobody", str(uuid.UUID(int=1))]
        self.tasks: list[str] = [str(uuid.UUID(int=2))]
        self.states: Counter[str] = Counter()
        self._kept = list(self.ids)

    def known(self, name: str, chance: random.Random) -> Any | None:
        """A value that means something to this Domain 0, for a field or parameter of this name."""
        if name == "domain":
            return chance.choice(self.ids)
        if name == "task_id":
            return chance.choice(self.tasks)
        if name == "kernel":
            return chance.choice([self._kernel] * 8 + ["/dev/zero", "/", "/etc/hostname", "/nowhere"])
        if name == "name":
            return chance.choice([f"n{chance.randrange(10**6)}"] * 4 + self.ids)
        if name == "memory_mib":
            return chance.choice([16, 16, 16, 32, 4])
        if name == "uuid":
            return str(uuid.UUID(int=chance.getrandbits(128))) if chance.random() < 0.9 else chance.choice(self.ids)
        if name == "engine":
            return chance.choice(["auto"] * 8 + ["interpreter", "translator", "kvm"])
        if name == "console":
            return chance.choice([""] * 8 + ["pty", "x"])
        if name in ("disks", "vifs", "shares", "channels"):
            return chance.choice([[]] * 9 + [["x"]])
        if name == "timeout":
            return chance.choice(["0.01", "0.2", "1", "0", "-1", "301", "nan", "inf"])
        if name == "data":
            return chance.choice(LINES) + "\n"
        return None

    def begin(self) -> None:
        """Makes the first ones, and waits for the states that they are to be in."""
        self.renew()
        ends = {"paused", "crashed", "shutdown"}
        until(lambda: ends <= {domain["state"] for domain in self._api.get("/domains").json()})

    def renew(self) -> None:
        """Makes what there is too little of, ends what there is too much of, and takes down what there is."""
        domains = self._api.get("/domains", params={"ended": True}).json()
        live = [domain for domain in domains if domain["exists"]]
        self.states.update({domain["state"] for domain in domains})
        self.tasks = [task["id"] for task in self._api.get("/tasks").json()] + self.tasks[-1:]
        for domain in live[: len(live) - LIVE_MAX] if len(live) > LIVE_MAX else []:
            self._api.delete(f"/domains/{domain['uuid']}")
        ids = [str(domain[key]) for domain in domains for key in ("uuid", "name", "domid") if domain[key] is not None]
        self.ids = self._kept + ids[-3 * 40 :]
        present = Counter(domain["state"] for domain in live)
        chance = self._chance
        if present["running"] + present["blocked"] < 4:
            self._create(**chance.choice([{}, KEEP]))
        if present["paused"] < 2:
            self._create(paused=True)
        for state, line in (("crashed", "crash"), ("shutdown", "poweroff")):
            if present[state] < 2:
                key = self._create(**KEEP)
                self._api.post(f"/domains/{key}/console", json={"data": line + "\n"})
        self._create(memory_mib=256, kernel=self._kernel, disks=[])  # a little while in `building`
        if live and chance.random() < 0.4:  # its worker dies, or does not answer any more
            victim = chance.choice(live)["pid"]
            if victim in self._server.workers():
                with suppress(ProcessLookupError):
                    os.kill(victim, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP]))

    def _create(self, **fields: Any) -> str:
        key = str(uuid.UUID(int=self._chance.getrandbits(128)))
        self.ids = [*self.ids, key]  # asked about before it is there
        self._api.post(
            "/domains", json={"name": f"p{key[:8]}", "kernel": self._kernel, "memory_mib": 16, "uuid": key} | fields
        )
        return key

    def clear(self) -> None:
        """Ends all, and makes sure that nothing is left."""
        until(lambda: all(task["state"] != "running" for task in self._api.get("/tasks").json()))
        for domain in self._api.get("/domains").json():
            self._api.delete(f"/domains/{domain['uuid']}")
        until(lambda: self._api.get("/domains").json() == [] and self._server.workers() == [], what="an empty host")


class Client(threading.Thread):
    """Asks until it is told to stop; `failure` says what was wrong."""

    def __init__(
        self,
        server: Server,
        openapi: OpenApi,
        population: Population,
        seed: int,
        stop: threading.Event,
        token: str,
    ) -> None:
        """:param token: with which it asks over TCP; empty: it is the owner on the Unix socket."""
        super().__init__(daemon=True)
        self.failure: str | None = None
        self.counts: Counter[str] = Counter()
        self._server = server
        self._openapi = openapi
        self._population = population
        self._chance = random.Random(seed)
        self._over_tcp = bool(token)
        self._token = token
        self.answered: set[tuple[str, str]] = set()
        """Operations: method and path of the document."""
        self._cases = Cases(openapi.document, self._chance, lambda name: population.known(name, self._chance))
        self._stop_asked = stop
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        """Thread."""
        what: object = None
        try:
            while not self._stop_asked.is_set():
                if self._chance.random() < 0.04:
                    what = "a websocket"
                    self._websocket()
                else:
                    what = case = self._cases.next()
                    self._request(case)
        except Exception as error:  # noqa: BLE001 - told by the test
            self.failure = f"{error!r}: {what}"[:3000]
            self._stop_asked.set()

    def _request(self, case: Case) -> None:
        chance, headers = self._chance, dict(case.headers)
        host = (
            "localhost" if chance.random() < 0.97 else chance.choice(["", "x", "[::1]", "[", "a b", "localhost:x", "é"])
        )
        refusable = host != "localhost"
        if chance.random() < 0.03:
            headers["Origin"] = chance.choice(["http://localhost", "http://[", "null", "", "http://x", "\xff"])
            refusable = True
        if self._over_tcp:
            token = self._token if chance.random() < 0.97 else chance.choice(["", "x", self._token + "x", "\xe9"])
            headers["Authorization"] = f"Bearer {token}"
            refusable = refusable or token != self._token
        try:
            answer, body = self._exchange(case, host, headers)
        except (TimeoutError, ConnectionError, http.client.HTTPException, BrokenPipeError):
            self._connection = None  # it may have been idle for too long, or closed after an odd request
            self.counts["closed"] += 1
            return
        self.counts[str(answer.status)] += 1
        if refusable and answer.status in (400, 401, 403):
            return
        if answer.status == 400 and not body.startswith(b"{"):  # no HTTP at all
            return
        if case.method == "HEAD":
            assert answer.status in (404, 405) and body == b""
            return
        path = case.path
        self.answered.add((case.method.lower(), case.template))
        self._openapi.check_answer(case.method, path, answer.status, answer.headers.get("Content-Type", ""), body)

    def _exchange(self, case: Case, host: str, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        if self._connection is None:
            if self._over_tcp:
                self._connection = http.client.HTTPConnection(*self._server.address, timeout=60)
            else:
                self._connection = _UnixConnection(str(self._server.socket))
        connection = self._connection
        connection.putrequest(case.method, case.target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host.encode("utf-8"))
        for name, value in headers.items():
            connection.putheader(name, value.encode("latin-1"))
        body, cut = case.body, self._chance.random() < 0.01
        if body is not None:
            connection.putheader("Content-Length", str(len(body) + cut))
        connection.endheaders(body)
        if cut or self._chance.random() < 0.01:  # and goes without waiting
            connection.close()
            self._connection = None
            raise ConnectionError
        if case.path.endswith("/wait") or "wait=" in case.target:
            connection.sock.settimeout(1)
        answer = connection.getresponse()
        if connection.sock is not None:  # an odd request is answered, and the connection closed
            connection.sock.settimeout(60)
        return answer, answer.read()

    def _websocket(self) -> None:
        chance = self._chance
        key = self._cases.text("domain", {"type": "string"}).encode("utf-8", "replace")
        path = f"/v1/domains/{quote(key, safe='')}/console/stream"
        query = chance.choice(["", "?history=false", "?history=x", "?history=", "?token=x", "?" + "a=b&" * 100])
        headers = {"Authorization": f"Bearer {self._token}"} if self._over_tcp and chance.random() < 0.95 else {}
        try:
            if self._over_tcp:
                uri = self._server.url.replace("http", "ws", 1) + path + query
                stream = connect(uri, additional_headers=headers, **STREAM)
            else:
                uri = f"ws://localhost{path}{query}"
                stream = unix_connect(str(self._server.socket), uri, **STREAM)
        except InvalidStatus as error:
            status = error.response.status_code
            self.counts[f"websocket {status}"] += 1
            assert status in (400, 401, 403, 404, 414), f"{uri}: {error.response}"
            return
        with stream:
            try:
                self._talk(stream)
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd is not None else None
                self.counts[f"websocket closed {code}"] += 1
                assert code in CLOSED or code is None, f"{uri}: closed with {code}"
            except (OSError, WebSocketException):
                pass

    def _talk(self, stream: ClientConnection) -> None:
        chance = self._chance
        for _ in range(chance.randint(0, 6)):
            what = chance.random()
            if what < 0.4:
                stream.send(chance.choice(LINES).encode() + b"\n")
            elif what < 0.5:
                stream.send(chance.choice(["text", "\0", "é" * 2000, ""]))
            elif what < 0.6:
                stream.send(os.urandom(chance.choice([0, 1, 5000, 1 << 20, (1 << 20) + 1])))
            elif what < 0.7:
                stream.ping(b"x" * chance.choice([0, 125]))
            elif what < 0.75:
                stream.socket.sendall(os.urandom(20))
            elif what < 0.8:
                # Not close(): the library's thread may still read from this descriptor, and its number would be that of
                # the next socket, whose answers that thread would then take.
                stream.socket.shutdown(socket.SHUT_RDWR)
                stream.recv_events_thread.join(60)
                return
            elif what < 0.85:
                stream.close(chance.choice([1000, 1001, 3000, 4999]), "x" * chance.choice([0, 123]))
                return
            with suppress(TimeoutError):
                stream.recv(timeout=chance.choice([0, 0.01, 0.1]))


def users_of_each_role(client: httpx.Client) -> list[str]:
    """Makes a user of each role; their tokens."""
    tokens = []
    for role in Role:
        assert client.post("/v1/users", json={"name": f"fuzz-{role.value}", "role": role.value}).status_code == 201
        tokens.append(client.post(f"/v1/users/fuzz-{role.value}/tokens", json={}).json()["token"])
    return tokens


def done_without_permission(server: Server) -> list[tuple[str, str, str]]:
    """Lines of the audit log of what a user of a lower role than it needs has done, or tried without being refused."""
    least: dict[str, Role] = {}
    kinds: list[Any] = [Action]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if hasattr(kind, "kind"):
            least[kind.kind] = kind.role
    with closing(sqlite3.connect(server.socket.with_name("d.sock.db"))) as database:
        lines = database.execute("SELECT actor, action, outcome FROM audit WHERE actor LIKE 'fuzz-%'").fetchall()
    return [
        (actor, action, outcome)
        for actor, action, outcome in lines
        if outcome != "refused" and not Role(actor.removeprefix("fuzz-")).covers(least[action])
    ]


@pytest.fixture
def fuzzed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A Domain 0 of its own, on both sockets, with images of its own: those that are sent become some."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    server = Server(tmp_path, "--listen", "127.0.0.1:0")
    yield server
    server.stop()


@pytest.mark.timeout(SECONDS * 2 + 300)
def test_no_request_in_any_state_is_answered_by_what_is_not_described(fuzzed: Server, shell: str) -> None:
    server, seed = fuzzed, int(os.environ.get("DOMZERO_FUZZ_SEED", "1"))
    client = httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero")
    openapi = OpenApi(client.get("/openapi.json").json())
    population, stop = Population(server, shell, seed), threading.Event()
    population.begin()
    paths = {path: methods for path, methods in openapi.document["paths"].items() if path not in OUTGOING}
    described = {(method, path) for path, methods in paths.items() for method in methods}
    tokens = ["", server.token, *users_of_each_role(client)]
    clients = [
        Client(server, openapi, population, seed * len(tokens) + number, stop, token)
        for number, token in enumerate(tokens)
    ]
    for thread in clients:
        thread.start()
    end = time.monotonic() + SECONDS
    while not stop.wait(0.2):
        population.renew()
        if time.monotonic() > end and all(thread.answered >= described for thread in clients):
            break
    stop.set()
    for thread in clients:
        thread.join(120)
    counts = sum((thread.counts for thread in clients), Counter[str]())
    print(f"seed {seed}: {counts.total()} requests: {dict(counts.most_common())}; states {dict(population.states)}")
    log = server.log.read_text()
    assert [thread.failure for thread in clients if thread.failure or thread.is_alive()] == []
    assert server.process.poll() is None
    assert "Traceback" not in log and "a fault of" not in log, log[-5000:]
    population.clear()
    assert server.stop() == 0
    assert "Traceback" not in (log := server.log.read_text()), log[-5000:]
    assert done_without_permission(server) == []
    assert counts["200"] > 20 and counts["websocket closed 4404"], counts
    assert not any(described - thread.answered for thread in clients)
