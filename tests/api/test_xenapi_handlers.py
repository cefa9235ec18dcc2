# SPDX-License-Identifier: Apache-2.0
"""Each of XAPI's HTTP handlers, by each way to say who asks, and with each kind of body."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from created import created
from dom0_server import Server
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol
from xenapi_client import over_tcp

MIB = 1 << 20
ASKERS = ("query", "cookie", "basic")
BODIES = ("length", "chunked")


@dataclass
class Scene:
    """A Domain 0 with a VM that is halted, with a disk, and one that runs, with a screen."""

    server: Server
    session: Any
    disk: str
    halted: str
    running: str
    consoles: list[str]

    def given(self, asker: str) -> dict[str, Any]:
        """What httpx is told of who asks."""
        every: dict[str, dict[str, Any]] = {
            "query": {"params": {"session_id": self.session.handle}},
            "cookie": {"headers": {"Cookie": f"session_id={self.session.handle}"}},
            "basic": {"auth": ("root", self.server.token)},
            "nobody": {},
            "wrong password": {"auth": ("root", "wrong")},
            "wrong session": {"params": {"session_id": "OpaqueRef:8cf4a8f6-0000-4000-8000-000000000000"}},
        }
        return every[asker]

    def ask(self, method: str, path: str, asker: str, content: Any = None, **params: str) -> httpx.Response:
        """One request."""
        given = self.given(asker)
        query = params | given.pop("params", {})
        return httpx.request(method, f"{self.server.url}{path}", params=query, content=content, timeout=60, **given)

    def line(self, asker: str) -> tuple[str, dict[str, str]]:
        """What follows the query, and the headers, of a console's request."""
        given = self.given(asker)
        query = "".join(f"&{name}={value}" for name, value in given.get("params", {}).items())
        headers = dict(given.get("headers", {}))
        if "auth" in given:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(given["auth"]).encode()).decode()
        return query, headers


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, shell: str) -> Iterator[Scene]:
    server = Server(tmp_path_factory.mktemp("handlers"), "--listen", "127.0.0.1:0")
    session = over_tcp(server.url, server.token)
    x = session.xenapi
    (sr,) = x.SR.get_by_name_label("Local storage")
    halted = x.VM.create({"name_label": "halted", "memory_static_max": str(16 * MIB)})
    disk = x.VDI.create({"SR": sr, "virtual_size": str(MIB)})
    x.VBD.create({"VM": halted, "VDI": disk, "userdevice": "0", "mode": "RW", "type": "Disk"})
    body = {"name": "running", "kernel": shell, "memory_mib": 16, "vfbs": ["vnc=0"]}
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=f"{server.url}/v1", headers=headers, timeout=60) as api:
        running = f"OpaqueRef:{created(api, api.post('/domains', json=body))['uuid']}"
    yield Scene(server, session, disk, halted, running, x.VM.get_consoles(running))
    assert server.stop() == 0


def pieces(content: bytes) -> Iterator[bytes]:
    """A body whose length is not said: it is sent in chunks."""
    for at in range(0, len(content), 100_000):
        yield content[at : at + 100_000]


@pytest.mark.parametrize("asker", ASKERS)
def test_what_is_fetched_is_fetched_by_whoever_is_known(scene: Scene, asker: str) -> None:
    disk = scene.ask("GET", "/export_raw_vdi", asker, vdi=scene.disk)
    assert (disk.status_code, len(disk.content), disk.headers["Content-Length"]) == (200, MIB, str(MIB))
    whole = scene.ask("GET", "/export", asker, ref=scene.halted)
    assert whole.status_code == 200 and whole.content.startswith(b"ova.xml\0")
    assert whole.headers["Transfer-Encoding"] == "chunked" and "Content-Length" not in whole.headers
    shot = scene.ask("GET", "/vncsnapshot", asker, ref=scene.running)
    assert shot.status_code == 200 and shot.content.startswith(b"\x89PNG")
    for path, params in (("/rrd_updates", {"start": "0"}), ("/vm_rrd", {"ref": scene.running}), ("/host_rrd", {})):
        found = scene.ask("GET", path, asker, None, **params)
        assert found.status_code == 200 and found.text.lstrip().startswith("<"), path


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("asker", ASKERS)
def test_what_is_sent_is_taken_with_a_length_and_in_chunks(scene: Scene, asker: str, body: str) -> None:
    x, content = scene.session.xenapi, os.urandom(MIB)
    sent = content if body == "length" else pieces(content)
    assert scene.ask("PUT", "/import_raw_vdi", asker, sent, vdi=scene.disk).status_code == 200
    assert scene.ask("GET", "/export_raw_vdi", asker, vdi=scene.disk).content == content
    whole = scene.ask("GET", "/export", asker, ref=scene.halted).content
    x.VM.set_name_label(scene.halted, "before")
    made = scene.ask("PUT", "/import", asker, whole if body == "length" else pieces(whole))
    assert made.status_code == 200, made.text
    vm = made.text.strip()
    (vdi,) = [x.VBD.get_VDI(vbd) for vbd in x.VM.get_VBDs(vm)]
    assert scene.ask("GET", "/export_raw_vdi", asker, vdi=vdi).content == content
    x.VM.destroy(vm)
    x.VDI.destroy(vdi)
    x.VM.set_name_label(scene.halted, "halted")


@pytest.mark.parametrize("asker", ASKERS)
def test_a_console_is_opened_by_whoever_is_known(scene: Scene, asker: str) -> None:
    query, headers = scene.line(asker)
    target = f"/console?ref={scene.consoles[0]}{query}"
    address = scene.server.url.replace("http", "ws", 1) + target
    with connect(address, subprotocols=[Subprotocol("binary")], additional_headers=headers) as viewer:
        assert viewer.subprotocol == "binary" and viewer.recv(60) == b"RFB 003.008\n"
    with socket.create_connection(scene.server.address) as client:
        client.settimeout(60)
        lines = [
            f"CONNECT {target} HTTP/1.1",
            "Host: localhost",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        seen = b""
        while not seen.endswith(b"RFB 003.008\n") and (data := client.recv(65536)):
            seen += data
        assert seen.startswith(b"HTTP/1.1 200 ") and seen.endswith(b"\r\n\r\nRFB 003.008\n")


@pytest.mark.parametrize("asker", ["nobody", "wrong password", "wrong session"])
def test_nobody_else_has_anything(scene: Scene, asker: str) -> None:
    for method, path, params in (
        ("GET", "/export_raw_vdi", {"vdi": scene.disk}),
        ("PUT", "/import_raw_vdi", {"vdi": scene.disk}),
        ("GET", "/export", {"ref": scene.halted}),
        ("PUT", "/import", {}),
        ("GET", "/vncsnapshot", {"ref": scene.running}),
        ("GET", "/rrd_updates", {"start": "0"}),
        ("GET", "/vm_rrd", {"ref": scene.running}),
        ("GET", "/host_rrd", {}),
    ):
        content = b"x" if method == "PUT" else None
        assert scene.ask(method, path, asker, content, **params).status_code == 401, path
    query, headers = scene.line(asker)
    target = f"/console?ref={scene.consoles[0]}{query}"
    with (
        pytest.raises(InvalidStatus, match="401"),
        connect(scene.server.url.replace("http", "ws", 1) + target, additional_headers=headers),
    ):
        pass
