# SPDX-License-Identifier: Apache-2.0
"""A domain's screen over HTTP: a guest without front ends has a black one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import httpx
import pytest
from dom0_server import Server
from rfb_client import Viewer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, unix_connect
from websockets.typing import Subprotocol

Create = Callable[..., dict[str, object]]


class WebSocketViewer(Viewer):
    """As noVNC does it."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        self._data = b""
        super().__init__(self)  # type: ignore[arg-type]

    def settimeout(self, seconds: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        self._websocket.send(data)

    def recv(self, count: int) -> bytes:
        if not self._data:
            message = self._websocket.recv(timeout=60)
            assert isinstance(message, bytes)
            self._data = message
        data, self._data = self._data[:count], self._data[count:]
        return data


def watch(server: Server, key: object) -> ClientConnection:
    uri = f"ws://domzero/v1/domains/{key}/vnc"
    return unix_connect(str(server.socket), uri, max_size=None, subprotocols=[Subprotocol("binary")])


def raw(server: Server, path: str) -> httpx.Response:
    """Of XAPI's handlers, which the OpenAPI document does not describe."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero") as client:
        return client.get(path, timeout=60)


def test_a_picture_is_a_png_of_all_pixels(server: Server, api: httpx.Client, create: Create) -> None:
    domain = create("pictured", vfbs=["vnc=0"])
    picture = api.get(f"/domains/{domain['uuid']}/screenshot")
    assert picture.status_code == 200 and picture.headers["Content-Type"] == "image/png"
    data = picture.content
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and struct.unpack(">IIBB", data[16:26]) == (800, 600, 8, 2)
    at = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[at - 4 : at])
    assert zlib.decompress(data[at + 4 : at + 4 + length]) == bytes(600 * (1 + 3 * 800))
    xapi = raw(server, f"/vncsnapshot?uuid={domain['uuid']}")
    assert (xapi.status_code, xapi.headers["Content-Type"], xapi.content) == (200, "image/png", data)
    assert api.get(f"/domains/{domain['uuid']}/vnc").json() == {"address": None, "password": False, "tls": False}


def test_a_websocket_is_a_viewer_and_ends_with_the_domain(server: Server, api: httpx.Client, create: Create) -> None:
    domain = create("watched", vfbs=["vnc=1,vncdisplay=60,vncpasswd=geheim"])
    assert domain["vfbs"] == ["vnc=1,vnclisten=127.0.0.1,vncdisplay=60,vncunused=1,vncpasswd=********"]
    found = api.get("/domains/watched/vnc").json()
    assert found["password"] and found["address"].startswith("127.0.0.1:59")
    assert server.cli("vncviewer", "watched").stdout == f"{found['address']} (it asks for its password)\n"
    plugged = api.patch("/domains/watched", json={"vfbs": []})
    assert plugged.status_code == 422 and "fixed when a domain is created" in plugged.text
    with watch(server, "watched") as websocket:
        assert websocket.subprotocol == "binary"
        viewer = WebSocketViewer(websocket)
        assert viewer.name == "watched" and not any(viewer.picture()[2])
        assert server.cli("destroy", "watched").returncode == 0
        with pytest.raises(ConnectionClosed):
            websocket.recv(timeout=60)


def test_a_domain_without_a_screen_says_so(server: Server, api: httpx.Client, create: Create) -> None:
    blind = create("blind")
    xapi = raw(server, f"/vncsnapshot?ref=OpaqueRef:{blind['uuid']}")
    assert xapi.status_code == 409 and "has no framebuffer" in xapi.text
    for path in ("screenshot", "vnc"):
        answer = api.get(f"/domains/blind/{path}")
        assert answer.status_code == 409 and "has no framebuffer" in answer.json()["detail"]
    for key, code in (("blind", 4409), ("nobody", 4404)):
        with watch(server, key) as websocket, pytest.raises(ConnectionClosed) as caught:
            websocket.recv(timeout=60)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == code
    refused = api.post("/domains", json={"name": "x", "kernel": "/k", "vfbs": ["vnclisten=0.0.0.0"]})
    assert refused.status_code == 422 and refused.json()["errors"][0]["field"] == "vfbs"
