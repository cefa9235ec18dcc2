# SPDX-License-Identifier: Apache-2.0
"""What was opened with a token, a password or by a user ends with it: sessions, and what stays open, at every door."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from waiting import until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

PASSWORD, OTHER_PASSWORD = "correct horse", "battery staple"
MIB = 1 << 20
Json = dict[str, Any]


@pytest.fixture(scope="module")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("standing"), "--listen", "127.0.0.1:0")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def owner(tcp: Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {tcp.token}"}
    with httpx.Client(base_url=f"{tcp.url}/v1", timeout=60, headers=headers) as client:
        yield client


@pytest.fixture(scope="module")
def domain(owner: httpx.Client, shell: str) -> str:
    """A domain that runs, with a screen and an interface."""
    body = {"name": "open", "kernel": shell, "memory_mib": 16, "vfbs": ["vnc=0"], "vifs": ["bridge=standing"]}
    answer = owner.post("/domains", json=body)
    until(lambda: owner.get("/domains/open").json().get("state") in ("running", "blocked"))
    assert answer.status_code in (201, 202), answer.text
    return str(owner.get("/domains/open").json()["uuid"])


@pytest.fixture
def token(owner: httpx.Client) -> Iterator[Callable[..., tuple[str, Callable[[], None]]]]:
    """A new token of a user `anna`, and what revokes it."""
    assert owner.post("/users", json={"name": "anna", "role": "pool-operator", "password": PASSWORD}).status_code == 201

    def make(**fields: Any) -> tuple[str, Callable[[], None]]:
        made = owner.post("/users/anna/tokens", json=fields).json()

        def revoke() -> None:
            assert owner.delete(f"/users/anna/tokens/{made['id']}").status_code == 204

        return made["token"], revoke

    yield make
    owner.delete("/users/anna")


def log_in(server: Server, user: str, password: str) -> Any:
    session = XenAPI.Session(server.url)
    session.xenapi.login_with_password(user, password)
    return session


# --- sessions


@pytest.mark.parametrize("what", ["revoked", "expired", "removed"])
def test_a_xenapi_session_ends_with_its_token(
    tcp: Server, owner: httpx.Client, token: Callable[..., Any], what: str
) -> None:
    text, revoke = token(**({"expires_in_seconds": 1} if what == "expired" else {}))
    handle = log_in(tcp, "anna", text).handle
    client = XenAPI.Session(tcp.url)
    if what == "revoked":
        revoke()
    elif what == "removed":
        owner.delete("/users/anna")
    else:
        until(lambda: client.VM.get_all(handle)["Status"] == "Failure")
    assert client.VM.get_all(handle)["ErrorDescription"] == ["SESSION_INVALID", handle]


def test_a_session_ends_with_the_password_and_follows_the_role(
    tcp: Server, owner: httpx.Client, token: Callable[..., Any]
) -> None:
    text, _ = token()
    by_password, by_token = log_in(tcp, "anna", PASSWORD), log_in(tcp, "anna", text)
    (network, *_) = by_token.xenapi.network.get_all()
    assert owner.patch("/users/anna", json={"role": "read-only"}).status_code == 200
    for session in (by_password, by_token):
        with pytest.raises(XenAPI.Failure, match="RBAC_PERMISSION_DENIED"):
            session.xenapi.network.add_tags(network, "x")
    with httpx.Client(base_url=f"{tcp.url}/v1") as page:
        assert page.post("/sessions", json={"user": "anna", "password": PASSWORD}).status_code == 201
        assert owner.patch("/users/anna", json={"password": OTHER_PASSWORD}).status_code == 200
        assert page.get("/domains").status_code == 401
    assert tcp_failure(tcp, by_password.handle) == "SESSION_INVALID"
    assert tcp_failure(tcp, by_token.handle) == ""  # the token counts as before


def tcp_failure(server: Server, handle: str) -> str:
    answer = XenAPI.Session(server.url).VM.get_all(handle)
    return "" if answer["Status"] == "Success" else str(answer["ErrorDescription"][0])


def test_a_pages_session_gives_what_its_token_gives_and_ends_with_it(tcp: Server, token: Callable[..., Any]) -> None:
    text, revoke = token(role="read-only")
    with httpx.Client(base_url=f"{tcp.url}/v1") as page:
        login = page.post("/sessions", json={"token": text}).json()
        assert login["role"] == "read-only" and page.get("/sessions/current").json()["role"] == "read-only"
        csrf = {"X-Domzero-CSRF": login["csrf"]}
        assert page.delete("/host/dmesg", headers=csrf).status_code == 403
        revoke()
        assert page.get("/domains").status_code == 401


# --- what stays open


def closes(websocket: ClientConnection) -> int:
    """The code with which Domain 0 closes it."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            websocket.recv(timeout=60)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


@pytest.mark.parametrize("path", ["console/stream", "vnc"])
@pytest.mark.parametrize("why", ["revoked", "expired", "role", "removed"])
def test_a_console_and_a_screen_are_closed(
    tcp: Server, owner: httpx.Client, domain: str, token: Callable[..., Any], path: str, why: str
) -> None:
    text, revoke = token(**({"expires_in_seconds": 1} if why == "expired" else {}))
    address = f"ws://{tcp.url.removeprefix('http://')}/v1/domains/{domain}/{path}?token={text}"
    with connect(address) as websocket:
        websocket.recv(timeout=60)  # the history, or RFB's first words
        if why == "revoked":
            revoke()
        elif why == "role":
            owner.patch("/users/anna", json={"role": "read-only"})
        elif why == "removed":
            owner.delete("/users/anna")
        assert closes(websocket) == 4403


def test_a_grant_that_is_taken_closes_the_console(
    tcp: Server, owner: httpx.Client, domain: str, token: Callable[..., Any]
) -> None:
    text, _ = token()
    owner.patch("/users/anna", json={"role": None})
    owner.put(f"/users/anna/grants/{domain}", json={"role": "vm-operator"})
    with connect(
        f"ws://{tcp.url.removeprefix('http://')}/v1/domains/{domain}/console/stream?token={text}"
    ) as websocket:
        websocket.recv(timeout=60)
        assert owner.delete(f"/users/anna/grants/{domain}").status_code == 200
        assert closes(websocket) == 4403


def test_a_logout_closes_what_the_session_has_opened(
    tcp: Server, owner: httpx.Client, domain: str, token: Callable[..., Any]
) -> None:
    text, _ = token()
    session = log_in(tcp, "anna", text)
    _, console = session.xenapi.VM.get_consoles(f"OpaqueRef:{domain}")
    address = f"{tcp.url.replace('http', 'ws', 1)}/console?ref={console}&session_id={session.handle}"
    with connect(address) as websocket:
        websocket.recv(timeout=60)
        session.xenapi.session.logout()
        assert closes(websocket) == 4403


def test_a_tunnel_ends(tcp: Server, domain: str, token: Callable[..., Any]) -> None:
    text, revoke = token()
    session = log_in(tcp, "anna", text)
    _, console = session.xenapi.VM.get_consoles(f"OpaqueRef:{domain}")
    with socket.create_connection(tcp.address, timeout=60) as client:
        request = f"CONNECT /console?ref={console}&session_id={session.handle} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.sendall(request.encode())
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 OK\r\n")
        revoke()
        while client.recv(1 << 16):
            pass  # it ends


def test_streams_of_events_and_frames_end(tcp: Server, domain: str, token: Callable[..., Any]) -> None:
    for path, accept in (("/events", "text/event-stream"), (f"/domains/{domain}/vifs/0/capture", "*/*")):
        text, revoke = token()
        headers = {"Authorization": f"Bearer {text}", "Accept": accept}
        with (
            httpx.Client(base_url=f"{tcp.url}/v1", headers=headers, timeout=60) as client,
            client.stream("GET", path) as stream,
        ):
            assert stream.status_code == 200, path
            pieces = stream.iter_raw()
            assert next(pieces)
            revoke()
            for _ in pieces:
                pass  # it ends


def test_who_waits_for_something_hears_that_they_may_not_any_more(tcp: Server, token: Callable[..., Any]) -> None:
    text, revoke = token()
    session = log_in(tcp, "anna", text)
    seen = session.xenapi_request("event.from", (["vm"], "", 0.0))["token"]
    found: list[Any] = []

    def wait_for_event() -> None:
        answer = getattr(XenAPI.Session(tcp.url).event, "from")(session.handle, ["vm"], seen, 50.0)
        found.append(answer["ErrorDescription"][0])

    def wait_for_change() -> None:
        with httpx.Client(base_url=f"{tcp.url}/v1", headers={"Authorization": f"Bearer {text}"}, timeout=60) as client:
            found.append(client.get("/events", params={"kinds": "domain", "wait": 50}).status_code)

    threads = [threading.Thread(target=each) for each in (wait_for_event, wait_for_change)]
    for each in threads:
        each.start()
    revoke()  # they wait, or are about to: refused all the same
    for each in threads:
        each.join(40)
    assert sorted(map(str, found)) == ["401", "SESSION_INVALID"]


@pytest.fixture
def disk(tcp: Server) -> Iterator[str]:
    x = log_in(tcp, "root", tcp.token).xenapi
    (sr,) = x.SR.get_by_name_label("Local storage")
    vdi = x.VDI.create({"SR": sr, "virtual_size": str(256 * MIB)})
    yield vdi
    x.VDI.destroy(vdi)


def test_a_transfer_is_cut(tcp: Server, owner: httpx.Client, disk: str, token: Callable[..., Any]) -> None:
    text, revoke = token()
    session = log_in(tcp, "anna", text)
    client = http.client.HTTPConnection(*tcp.address, timeout=60)
    client.request("GET", f"/export_raw_vdi?vdi={disk}&session_id={session.handle}")
    answer = client.getresponse()
    assert answer.status == 200 and answer.read(MIB)
    revoke()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    client.close()

    text, revoke = token()
    session = log_in(tcp, "anna", text)
    client = http.client.HTTPConnection(*tcp.address, timeout=60)
    client.putrequest("PUT", f"/import_raw_vdi?vdi={disk}&session_id={session.handle}")
    client.putheader("Content-Length", str(8 * MIB))
    client.endheaders()
    client.send(b"x" * 2 * MIB)
    x = log_in(tcp, "root", tcp.token).xenapi
    until(lambda: int(x.VDI.get_physical_utilisation(disk)) > 0)
    revoke()
    with suppress(ConnectionError):
        client.send(bytes(6 * MIB))
    assert client.getresponse().status == 401
    (line,) = [each for each in owner.get("/audit").json() if "import_raw_vdi" in each["detail"]]
    assert line["actor"] == "anna" and "counts no more" in line["outcome"]
    client.close()
