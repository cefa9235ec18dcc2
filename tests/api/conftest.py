"""A real Domain 0 in a process of its own, and a small guest for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from openapi_check import OpenApi

ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], bool], seconds: float = 30, what: str = "it") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)


class Server:
    """`domzero serve` on a socket in a temporary directory."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.socket = directory / "d.sock"
        self.log = directory / "serve.log"
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "DOMZERO_SOCKET": str(self.socket)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "domzero", "serve", "-v", *arguments], env=self.env, stderr=log
            )
        until(lambda: "listens" in self.log.read_text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()

    def cli(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs `domzero` with these arguments."""
        return subprocess.run(
            [sys.executable, "-m", "domzero", *arguments],
            env=self.env,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def stop(self, signum: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("dom0"))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def openapi(server: Server) -> OpenApi:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero") as client:
        return OpenApi(client.get("/openapi.json").json())


@pytest.fixture
def api(server: Server, openapi: OpenApi) -> Iterator[httpx.Client]:
    """A client whose traffic is checked against the OpenAPI document; leaves no domains behind."""

    def check(response: httpx.Response) -> None:
        response.read()
        openapi.check(response.request, response)

    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(server.socket)),
        base_url="http://domzero/v1",
        timeout=60,
        event_hooks={"response": [check]},
    ) as client:
        yield client
        for domain in client.get("/domains", params={"ended": True}).json():
            client.delete(f"/domains/{domain['uuid']}")
            client.delete(f"/domains/{domain['uuid']}")


@pytest.fixture(scope="session")
def machine() -> None:
    """Skips where the machine is not compiled."""
    pytest.importorskip("domzero._machine", reason="the machine is not compiled", exc_type=ImportError)


@pytest.fixture(scope="session")
def shell(machine: None) -> str:
    """The kernel of guests/shell."""
    if shutil.which("gcc") is None or shutil.which("make") is None:
        pytest.skip("needs gcc and make")
    if not Path("/usr/include/xen/xen.h").exists():
        pytest.skip("needs Xen's headers (libxen-dev)")
    subprocess.run(["make", "-s", "-C", str(ROOT / "guests" / "shell")], check=True)
    return str(ROOT / "guests" / "shell" / "shell")


@pytest.fixture
def create(api: httpx.Client, shell: str) -> Callable[..., dict[str, object]]:
    """Creates a domain that runs the shell guest."""

    def create(name: str, **fields: object) -> dict[str, object]:
        body = {"name": name, "kernel": shell, "memory_mib": 16, **fields}
        response = api.post("/domains", json=body)
        assert response.status_code == 201, response.text
        domain: dict[str, object] = response.json()
        return domain

    return create
