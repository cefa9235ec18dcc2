# SPDX-License-Identifier: Apache-2.0
"""XAPI's HTTP handlers: contents of disks in and out, consoles."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from waiting import until
from websockets.sync.client import connect, unix_connect
from websockets.typing import Subprotocol
from xenapi_client import over_socket, over_tcp

MIB = 1 << 20
Create = Callable[..., dict[str, object]]


@pytest.fixture(scope="module")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("tcp"), "--listen", "127.0.0.1:0")
    yield server
    assert server.stop() == 0


@pytest.fixture
def xenapi(tcp: Server) -> Iterator[Any]:
    proxy = over_tcp(tcp.url, tcp.token).xenapi
    yield proxy
    for vdi, record in proxy.VDI.get_all_records().items():
        if record["managed"]:
            proxy.VDI.destroy(vdi)


@pytest.fixture
def disk(xenapi: Any) -> Callable[..., str]:
    """Makes a disk; its reference."""

    def make(size: int = 4 * MIB, format: str = "raw") -> str:
        (sr,) = xenapi.SR.get_by_name_label("Local storage")
        given = {"SR": sr, "virtual_size": str(size), "type": "user", "sm_config": {"image-format": format}}
        made: str = xenapi.VDI.create(given)
        return made

    return make


def file_of(server: Server, xenapi: Any, vdi: str) -> Path:
    (path,) = server.socket.parent.glob(f"d.sock.storage/{xenapi.VDI.get_uuid(vdi)}.*")
    return path


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    return subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], capture_output=True, check=False)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_curl_writes_and_reads_a_disk_with_a_password(
    tcp: Server, xenapi: Any, disk: Callable[..., str], tmp_path: Path, chunked: bool
) -> None:
    vdi, source, target = disk(), tmp_path / "in", tmp_path / "out"
    source.write_bytes(bytes(MIB) + os.urandom(MIB) + bytes(2 * MIB))
    how = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    user = ("-u", f"root:{tcp.token}")
    put = curl(*user, *how, "-T", str(source), "-f", f"{tcp.url}/import_raw_vdi?vdi={vdi}")
    assert put.returncode == 0, put.stderr
    assert file_of(tcp, xenapi, vdi).read_bytes() == source.read_bytes()
    assert int(xenapi.VDI.get_physical_utilisation(vdi)) < 4 * MIB  # zeros are no data
    get = curl(*user, "-o", str(target), "-f", f"{tcp.url}/export_raw_vdi?vdi={xenapi.VDI.get_uuid(vdi)}&format=raw")
    assert get.returncode == 0, get.stderr
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("format", ["vhd", "qcow2"])
def test_other_formats_pass_through(tcp: Server, xenapi: Any, disk: Callable[..., str], format: str) -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("no qemu-img")
    first, second = disk(8 * MIB), disk(16 * MIB, "qcow2")
    content = os.urandom(MIB)
    auth = ("root", tcp.token)
    put = httpx.put(f"{tcp.url}/import_raw_vdi", params={"vdi": first}, content=content, auth=auth)
    assert put.status_code == 200, put.text
    exported = httpx.get(f"{tcp.url}/export_raw_vdi", params={"vdi": first, "format": format}, auth=auth)
    assert exported.status_code == 200, exported.text
    put = httpx.put(
        f"{tcp.url}/import_raw_vdi", params={"vdi": second, "format": format}, content=exported.content, auth=auth
    )
    assert put.status_code == 200, put.text
    assert xenapi.VDI.get_virtual_size(second) == str(16 * MIB)
    raw = httpx.get(f"{tcp.url}/export_raw_vdi", params={"vdi": second}, auth=auth)
    assert raw.content[: MIB + 1] == content + b"\0"
    assert len(raw.content) == 16 * MIB
    assert list(tcp.socket.parent.glob("d.sock.storage/.*")) == []


def test_a_session_or_a_password_is_needed(tcp: Server, xenapi: Any, disk: Callable[..., str]) -> None:
    vdi = disk()
    url = f"{tcp.url}/export_raw_vdi?vdi={vdi}"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, auth=("root", "wrong")).status_code == 401
    assert httpx.get(f"{url}&session_id=OpaqueRef:x").status_code == 401
    assert httpx.put(f"{tcp.url}/import_raw_vdi?vdi={vdi}", content=b"x").status_code == 401
    session = over_tcp(tcp.url, tcp.token)
    assert len(httpx.get(f"{url}&session_id={session.handle}").content) == 4 * MIB
    cookies = {"session_id": session.handle}
    assert len(httpx.get(url, cookies=cookies).content) == 4 * MIB
    session.xenapi.session.logout()
    assert httpx.get(f"{url}&session_id={session.handle}").status_code == 401


def test_what_does_not_fit_or_does_not_exist_is_refused(tcp: Server, xenapi: Any, disk: Callable[..., str]) -> None:
    vdi, auth = disk(MIB), ("root", tcp.token)
    url = f"{tcp.url}/import_raw_vdi"
    long = httpx.put(url, params={"vdi": vdi}, content=bytes(MIB + 1), auth=auth)
    assert (long.status_code, long.text.split(":")[0]) == (413, "VDI_TOO_SMALL")
    assert file_of(tcp, xenapi, vdi).stat().st_size == MIB
    assert httpx.put(url, params={"vdi": "OpaqueRef:x"}, content=b"", auth=auth).status_code == 404
    assert httpx.put(url, content=b"", auth=auth).status_code == 400
    assert httpx.put(url, params={"vdi": vdi, "format": "iso"}, content=b"", auth=auth).status_code == 400
    vhd = httpx.put(url, params={"vdi": vdi, "format": "vhd"}, content=b"no vhd", auth=auth)
    assert (vhd.status_code, vhd.text.split(":")[0]) == (409, "VDI_IO_ERROR")


def test_who_goes_before_the_announced_end_has_sent_all(tcp: Server, xenapi: Any, disk: Callable[..., str]) -> None:
    vdi = disk(2 * MIB)
    session = over_tcp(tcp.url, tcp.token)
    with socket.create_connection(tcp.address) as client:  # with a slash, as Xen Orchestra has it
        head = f"PUT /import_raw_vdi/?vdi={vdi}&session_id={session.handle} HTTP/1.1\r\nHost: localhost\r\n"
        client.sendall(head.encode() + b"Content-Length: 1125899906842624\r\n\r\n")
        assert answers(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")  # such clients wait for it
        client.sendall(b"A" * MIB)
    path = file_of(tcp, xenapi, vdi)
    until(lambda: path.read_bytes()[:MIB] == b"A" * MIB)
    assert path.stat().st_size == 2 * MIB


def test_a_clients_task_hears_of_its_transfer(tcp: Server, xenapi: Any, disk: Callable[..., str]) -> None:
    vdi, auth = disk(MIB), ("root", tcp.token)
    task = xenapi.task.create("upload", "")
    params = {"vdi": vdi, "task_id": task}
    assert httpx.put(f"{tcp.url}/import_raw_vdi", params=params, content=b"x", auth=auth).status_code == 200
    assert (xenapi.task.get_status(task), xenapi.task.get_progress(task)) == ("success", 1.0)
    task = xenapi.task.create("export", "")
    params = {"vdi": vdi, "task_id": task}
    assert httpx.get(f"{tcp.url}/export_raw_vdi", params=params, auth=auth).status_code == 200
    until(lambda: xenapi.task.get_status(task) == "success")
    task = xenapi.task.create("wrong", "")
    params = {"vdi": "OpaqueRef:x", "task_id": task}
    assert httpx.put(f"{tcp.url}/import_raw_vdi", params=params, content=b"x", auth=auth).status_code == 404
    assert xenapi.task.get_error_info(task)[0] == "HANDLE_INVALID"


def test_a_disk_that_a_domain_runs_with_is_left_alone(server: Server, api: httpx.Client, shell: str) -> None:
    proxy = over_socket(server.socket).xenapi
    (sr,) = proxy.SR.get_by_name_label("Local storage")
    vdi = proxy.VDI.create({"SR": sr, "virtual_size": str(MIB), "type": "user"})
    vm = proxy.VM.create({"name_label": "busy", "PV_kernel": shell, "memory_static_max": str(16 * MIB)})
    proxy.VBD.create({"VM": vm, "VDI": vdi, "userdevice": "0"})
    proxy.VM.start(vm, False, False)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://localhost") as client:
        refused = client.put("/import_raw_vdi", params={"vdi": vdi}, content=b"x")
        assert (refused.status_code, "in use" in refused.text) == (409, True), refused.text
        proxy.VM.hard_shutdown(vm)
        assert client.put("/import_raw_vdi", params={"vdi": vdi}, content=b"x").status_code == 200
    proxy.VM.destroy(vm)
    proxy.VDI.destroy(vdi)


def test_a_console_is_a_websocket(server: Server, create: Create) -> None:
    domain = create("console")
    session = over_socket(server.socket)
    (console,) = session.xenapi.VM.get_consoles(f"OpaqueRef:{domain['uuid']}")
    location = session.xenapi.console.get_location(console)
    path = location.partition("localhost")[2]
    binary = Subprotocol("binary")
    address = f"ws://localhost{path}&session_id={session.handle}"
    with unix_connect(str(server.socket), address, subprotocols=[binary]) as socket_:
        assert socket_.subprotocol == binary
        socket_.send(b"echo over the websocket\n")
        seen = b""
        while b"over the websocket\r\n" not in seen.replace(b"echo over", b""):
            message = socket_.recv(60)
            seen += message if isinstance(message, bytes) else message.encode()


def answers(client: socket.socket, wanted: bytes) -> bytes:
    """What comes until it has this in it, or ends."""
    client.settimeout(60)
    seen = b""
    while wanted not in seen and (data := client.recv(65536)):
        seen += data
    return seen


def test_a_console_is_a_tunnel(server: Server, create: Create) -> None:
    domain = create("tunnel")
    session = over_socket(server.socket)
    (console,) = session.xenapi.VM.get_consoles(f"OpaqueRef:{domain['uuid']}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.socket))
        client.sendall(b"CONN")  # in two pieces
        client.sendall(f"ECT /console?ref={console}&session_id={session.handle} HTTP/1.0\r\n\r\n".encode())
        head = answers(client, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        client.sendall(b"echo tunnelled text\n")
        assert b"tunnelled text" in answers(client, b"tunnelled text")
        session.xenapi.VM.hard_shutdown(f"OpaqueRef:{domain['uuid']}")
        answers(client, b"never said")  # it ends with the domain


@pytest.mark.parametrize("by", ["websocket", "tunnel"])
def test_a_screen_is_a_console_of_rfb(server: Server, create: Create, by: str) -> None:
    domain = create(f"screen-{by}", vfbs=["vnc=0"])
    session = over_socket(server.socket)
    x = session.xenapi
    consoles = x.VM.get_consoles(f"OpaqueRef:{domain['uuid']}")
    assert [x.console.get_protocol(each) for each in consoles] == ["rfb", "vt100"]
    target = f"/console?ref={consoles[0]}&session_id={session.handle}"
    if by == "websocket":
        with unix_connect(
            str(server.socket), f"ws://localhost{target}", subprotocols=[Subprotocol("binary")]
        ) as viewer:
            assert viewer.recv(60) == b"RFB 003.008\n"
    else:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(server.socket))
            client.sendall(f"CONNECT {target} HTTP/1.0\r\n\r\n".encode())
            assert answers(client, b"RFB 003.008\n").endswith(b"\r\n\r\nRFB 003.008\n")
            client.sendall(b"RFB 003.008\n")
            assert answers(client, b"\x01\x01") == b"\x01\x01"  # no password: the session is known
    x.VM.hard_shutdown(f"OpaqueRef:{domain['uuid']}")


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not here")
def test_a_vm_of_full_virtualization_is_made_and_starts(xenapi: Any, disk: Callable[..., str]) -> None:
    boot = {"order": "dc", "firmware": "bios"}
    vm = xenapi.VM.create({"name_label": "full", "HVM_boot_policy": "BIOS order", "HVM_boot_params": boot,
                           "memory_static_max": str(64 * MIB)})  # fmt: skip
    vbd = xenapi.VBD.create({"VM": vm, "VDI": disk(), "userdevice": "0", "mode": "RW", "type": "Disk"})
    assert xenapi.VBD.get_device(vbd) == "hda" and xenapi.VM.get_domain_type(vm) == "hvm"
    assert "0" not in xenapi.VM.get_allowed_VBD_devices(vm)
    xenapi.VM.set_HVM_boot_params(vm, {"order": "c", "mine": "x"})
    assert xenapi.VM.get_HVM_boot_params(vm) == {"order": "c", "firmware": "bios", "mine": "x"}
    xenapi.VM.set_domain_type(vm, "pv")
    assert xenapi.VM.get_HVM_boot_policy(vm) == ""
    xenapi.VM.set_HVM_boot_policy(vm, "BIOS order")
    assert xenapi.VM.get_domain_type(vm) == "hvm"
    xenapi.VM.start(vm, False, False)
    metrics = xenapi.VM.get_metrics(vm)
    assert xenapi.VM_metrics.get_hvm(metrics) and xenapi.VM_metrics.get_current_domain_type(metrics) == "hvm"
    assert [xenapi.console.get_protocol(each) for each in xenapi.VM.get_consoles(vm)] == ["rfb", "vt100"]
    xenapi.VM.hard_shutdown(vm)
    xenapi.VM.destroy(vm)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/console?uuid=x", b"401"),
        ("/console?uuid=x&session_id={}", b"404"),
        ("/console?session_id={}", b"400"),
        ("/elsewhere?session_id={}", b"401"),
        ("host:443", b"401"),
    ],
)
def test_a_tunnel_to_nothing_is_refused(tcp: Server, target: str, status: bytes) -> None:
    session = over_tcp(tcp.url, tcp.token)
    with socket.create_connection(tcp.address) as client:
        request = f"CONNECT {target.format(session.handle)} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.sendall(request.encode())
        assert answers(client, b"\r\n\r\n").split()[1] == status


@pytest.mark.parametrize("request_", [b"CONNECT \r\n\r\n", b"CONNECT /console HTTP/1.1\r\n" + b"a" * (64 << 10)])
def test_a_tunnels_request_that_is_none_is_refused(tcp: Server, request_: bytes) -> None:
    with socket.create_connection(tcp.address) as client:
        client.sendall(request_)
        assert answers(client, b"\r\n\r\n").split()[1] == b"400"


def test_a_websocket_without_a_session_is_refused_over_tcp(tcp: Server) -> None:
    with pytest.raises(Exception, match="401"), connect(f"ws://{tcp.url.removeprefix('http://')}/console?uuid=x"):
        pass


def test_all_of_it_is_there_with_tls(tmp_path: Path, shell: str) -> None:
    server = Server(tmp_path, "--listen", "127.0.0.1:0", "--tls")
    try:
        session = XenAPI.Session(server.url, ignore_ssl=True)
        session.xenapi.login_with_password("root", server.token)
        vm = session.xenapi.VM.create({"name_label": "x", "PV_kernel": shell, "memory_static_max": str(16 * MIB)})
        session.xenapi.VM.start(vm, False, False)
        (console,) = session.xenapi.VM.get_consoles(vm)
        location = session.xenapi.console.get_location(console)
        assert location.startswith(f"{server.url}/console?uuid=")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(server.address) as plain, context.wrap_socket(plain) as client:
            request = f"CONNECT /console?ref={console}&session_id={session.handle} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            client.sendall(request.encode())
            assert answers(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
            client.sendall(b"echo through TLS\n")
            assert b"through TLS" in answers(client, b"through TLS")
    finally:
        assert server.stop() == 0
