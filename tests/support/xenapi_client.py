# SPDX-License-Identifier: Apache-2.0
"""XenAPI's own client for Python (PyPI's XenAPI), and JSON-RPC, on a Domain 0 under test."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any

import httpx
import XenAPI  # type: ignore[import-untyped]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class _Transport(XenAPI.UDSTransport):  # type: ignore[misc]
    """As the client's own, which cannot have a path with an underscore."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._connection: Any = None
        self._path = path

    def make_connection(self, host: str) -> http.client.HTTPConnection:
        self._extra_headers: list[tuple[str, str]] = []
        if self._connection is None or self._connection[0] != host:
            self._connection = host, _Connection(self._path)
        connection: http.client.HTTPConnection = self._connection[1]
        return connection


def over_socket(path: Path) -> Any:
    """A session over the Unix socket, logged in."""
    session = XenAPI.Session("http://localhost/", transport=_Transport(path))
    session.xenapi.login_with_password("root", "", "2.21", "domzero's tests")
    return session


def remove_all(proxy: Any) -> None:
    """Ends and removes all VMs that are no templates of Domain 0's own, and the disks that can be."""
    for vm, record in proxy.VM.get_all_records().items():
        if record["is_control_domain"] or record["is_default_template"]:
            continue
        if record["power_state"] != "Halted":
            proxy.VM.hard_shutdown(vm)
        if vm in proxy.VM.get_all():
            proxy.VM.destroy(vm)
    for vdi, record in proxy.VDI.get_all_records().items():
        if record["managed"]:
            proxy.VDI.destroy(vdi)


def over_tcp(url: str, password: str) -> Any:
    """A session over TCP, logged in."""
    session = XenAPI.Session(url)
    session.xenapi.login_with_password("root", password, "2.21", "domzero's tests")
    return session


def json_rpc(client: httpx.Client, method: str, *parameters: Any) -> Any:
    """What a message is answered with over JSON-RPC 2.0; AssertionError: a failure."""
    body = {"jsonrpc": "2.0", "method": method, "params": list(parameters), "id": 1}
    answer = client.post("/jsonrpc", json=body)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    found = answer.json()
    assert "error" not in found, found
    return found["result"]


def code_of(session: Any, method: str, *parameters: Any) -> str:
    """What a message is refused with; empty: it is not."""
    try:
        session.xenapi_request(method, parameters)
    except XenAPI.Failure as failure:
        return str(failure.details[0])
    return ""
