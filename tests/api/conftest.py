# SPDX-License-Identifier: Apache-2.0
"""A real Domain 0 in a process of its own, and a small guest for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from building import build_shell
from created import created
from dom0_server import Server
from openapi_check import OpenApi

GRUB_CONFIG = """serial --unit=0
terminal_input console serial
terminal_output console serial
echo hello of $grub_platform
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("dom0"))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def openapi(server: Server) -> OpenApi:
    transport = httpx.HTTPTransport(uds=str(server.socket))
    with httpx.Client(transport=transport, base_url="http://domzero", timeout=60) as client:
        return OpenApi(client.get("/openapi.json").json())


@pytest.fixture
def api(server: Server, openapi: OpenApi) -> Iterator[httpx.Client]:
    """A client whose traffic is checked against the OpenAPI document; leaves no domains and definitions behind."""

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
        for domain in client.get("/domains", params={"ended": True, "halted": True}).json():
            path = f"/domains/{domain['uuid']}"
            if domain["persistent"]:
                client.delete(f"{path}/definition")
            if domain["state"] != "halted":
                client.delete(path)
                client.delete(path)


@pytest.fixture(scope="session")
def machine() -> None:
    """Skips where the machine is not compiled."""
    pytest.importorskip("domzero._machine", reason="the machine is not compiled", exc_type=ImportError)


@pytest.fixture(scope="session")
def shell(machine: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The kernel of guests/shell."""
    return build_shell(tmp_path_factory.mktemp("shell"))


@pytest.fixture
def create(api: httpx.Client, shell: str) -> Callable[..., dict[str, object]]:
    """Creates a domain that runs the shell guest."""

    def create(name: str, **fields: object) -> dict[str, object]:
        body = {"name": name, "kernel": shell, "memory_mib": 16, **fields}
        return created(api, api.post("/domains", json=body))

    return create


@pytest.fixture(scope="session")
def grub_cd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rescue CD of GRUB's, whose shell is on the screen and on the serial port."""
    if shutil.which("grub-mkrescue") is None or shutil.which("xorriso") is None:
        pytest.skip("grub-mkrescue is not here (grub-pc-bin, grub-common, xorriso, mtools)")
    directory = tmp_path_factory.mktemp("grub")
    (directory / "cd" / "boot" / "grub").mkdir(parents=True)
    (directory / "cd" / "boot" / "grub" / "grub.cfg").write_text(GRUB_CONFIG)
    iso = directory / "grub.iso"
    subprocess.run(["grub-mkrescue", "-o", iso, directory / "cd"], check=True, capture_output=True)
    return iso
