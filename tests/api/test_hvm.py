# SPDX-License-Identifier: Apache-2.0
"""Systems that nobody has ported, in a QEMU below the same Domain 0: seen on their screens, typed to, killed, hung."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from created import changed, created
from dom0_server import Server
from rfb_client import Viewer
from vga_text import VGABIOS, screen_text
from waiting import until
from websockets.sync.client import unix_connect
from websockets.typing import Subprotocol

from domzero.dom0.qemu.program import FIRMWARE

QEMU = shutil.which("qemu-system-x86_64")
pytestmark = pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not here (qemu-system-x86)")
IPXE = Path("/usr/lib/ipxe/ipxe.iso")
MEMTEST = Path("/usr/lib/memtest86+/memtest86+x64.iso")
SCREEN_SECONDS = 60
Create = Callable[..., dict[str, object]]


@pytest.fixture
def start(api: httpx.Client) -> Create:
    """Starts a domain of type hvm, with TCG, so that it is the same everywhere."""

    def start(name: str, **fields: object) -> dict[str, object]:
        body = {"name": name, "type": "hvm", "memory_mib": 64, "engine": "tcg", **fields}
        return created(api, api.post("/domains", json=body))

    return start


def cd(path: Path) -> list[str]:
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return [f"{path},raw,hda,cdrom"]


def seen(api: httpx.Client, name: str) -> str:
    if not VGABIOS.exists():
        pytest.skip(f"{VGABIOS}, whose font reads screens, is not here (seabios)")
    response = api.get(f"/domains/{name}/screenshot")
    assert response.status_code == 200, response.text
    return screen_text(response.content)


def wait_seen(api: httpx.Client, name: str, text: str) -> None:
    until(lambda: text in seen(api, name), SCREEN_SECONDS, f"{text!r} on the screen of {name}")


def console(api: httpx.Client, name: str) -> str:
    return api.get(f"/domains/{name}/console").text


def test_four_systems_that_are_not_linux_are_seen_on_their_screens(
    api: httpx.Client, start: Create, grub_cd: Path
) -> None:
    start("seabios", hvm={"boot": "c"})
    start("ipxe", disks=cd(IPXE))
    start("memtest", disks=cd(MEMTEST))
    domain = start("grub", disks=cd(grub_cd))
    assert (domain["type"], domain["engine"], domain["state"]) == ("hvm", "tcg", "running")
    wait_seen(api, "seabios", "No bootable device")
    wait_seen(api, "ipxe", "Open Source Network Boot Firmware")
    wait_seen(api, "memtest", "Memtest86+")
    wait_seen(api, "grub", "GNU GRUB")


def test_the_serial_port_is_the_console(api: httpx.Client, start: Create, grub_cd: Path) -> None:
    start("talks", disks=cd(grub_cd))
    until(lambda: "grub>" in console(api, "talks"), SCREEN_SECONDS, "GRUB's prompt")
    assert "hello of pc" in console(api, "talks")
    assert api.post("/domains/talks/console", json={"data": "echo a${grub_cpu}z\r"}).status_code < 300
    until(lambda: "ai386z" in console(api, "talks"), 30, "GRUB's answer")
    api.post("/domains/talks/console", json={"data": "reboot\r"})
    until(lambda: api.get("/domains/talks").json()["reboots"] == 1, 30, "the reboot")
    until(lambda: api.get("/domains/talks").json()["state"] == "running", 30, "its next start")
    assert api.get("/domains/talks").json()["exit"]["reason"] == "reboot"


@pytest.mark.slow
@pytest.mark.skipif(not any(code.is_file() for code, _ in FIRMWARE), reason="UEFI for guests is not here (ovmf)")
def test_uefi_comes_to_its_shell_and_obeys_it(api: httpx.Client, start: Create) -> None:
    start("uefi", memory_mib=256, hvm={"firmware": "uefi"})
    until(lambda: "Shell>" in console(api, "uefi"), 240, "the shell of UEFI")
    assert "UEFI Interactive Shell" in console(api, "uefi")
    api.post("/domains/uefi/console", json={"data": "memmap\r"})
    until(lambda: "Total Memory:" in console(api, "uefi"), 60, "its map of memory")
    api.post("/domains/uefi/console", json={"data": "reset -s\r"})
    until(lambda: api.get("/domains/uefi").json()["exit"] is not None, 60, "its end")
    assert api.get("/domains/uefi").json()["exit"]["reason"] == "poweroff"


def test_the_screen_is_live_by_rfb(server: Server, api: httpx.Client, start: Create) -> None:
    start("watched", hvm={"boot": "c"})
    uri = "ws://domzero/v1/domains/watched/vnc"
    with unix_connect(str(server.socket), uri, max_size=None, subprotocols=[Subprotocol("binary")]) as websocket:
        greeting = websocket.recv(timeout=30)
        assert isinstance(greeting, bytes) and greeting.startswith(b"RFB 003.008")
    start("listens", hvm={"boot": "c"}, vfbs=["vnc=1,vncpasswd=secret"])
    place = api.get("/domains/listens/vnc").json()
    host, _, port = place["address"].rpartition(":")
    assert place["password"] and host == "127.0.0.1"
    with socket.create_connection((host, int(port)), 30) as connection:
        assert Viewer(connection, password="secret").width >= 640
    assert "secret" not in api.get("/domains/listens").text


def test_a_qemu_that_is_killed_is_its_domains_crash(api: httpx.Client, start: Create) -> None:
    domain = start("killed", hvm={"boot": "c"}, persistent=True)
    os.kill(int(str(domain["pid"])), signal.SIGKILL)
    until(lambda: api.get("/domains/killed").json()["state"] == "halted", 30, "its end")
    end = api.get("/domains/killed").json()["exit"]
    assert end["reason"] == "crash" and "its QEMU ended with signal SIGKILL" in end["message"]
    assert not Path(f"/proc/{domain['pid']}").exists()


def test_a_qemu_that_hangs_does_not_hang_domain_0(api: httpx.Client, start: Create) -> None:
    domain = start("hung", hvm={"boot": "c"})
    pid = int(str(domain["pid"]))
    os.kill(pid, signal.SIGSTOP)
    assert api.post("/domains/hung/pause").status_code == 504
    assert "hung" in [each["name"] for each in api.get("/domains").json()]
    assert start("lives", hvm={"boot": "c"})["state"] == "running"
    assert api.delete("/domains/hung").status_code < 300
    assert not Path(f"/proc/{pid}").exists()


def test_a_disk_that_is_written_has_one_domain(api: httpx.Client, start: Create, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    start("first", disks=[f"{disk},raw,hda"])
    body = {"name": "second", "type": "hvm", "memory_mib": 64, "engine": "tcg", "disks": [f"{disk},raw,hda"]}
    refused = api.post("/domains", json=body)
    assert refused.status_code == 422 and "in use" in refused.text
    stats = api.get("/domains/first/disks").json()[0]
    assert (stats["vdev"], stats["bytes"]) == ("hda", 1 << 20)


def test_what_qemus_machine_does_not_have_is_refused_by_name(api: httpx.Client, start: Create) -> None:
    start("plain", hvm={"boot": "c"})
    assert "cap" in api.patch("/domains/plain", json={"cap": 50}).text
    body = {
        "name": "no",
        "type": "hvm",
        "memory_mib": 64,
        "seed": 1,
        "shares": ["tag=a,path=/tmp"],
        "engine": "translator",
    }
    refused = api.post("/domains", json=body)
    assert refused.status_code == 422
    for key in ("seed", "p9", "engine"):
        assert key in refused.text


def test_disks_interfaces_and_media_come_and_go(api: httpx.Client, start: Create, tmp_path: Path) -> None:
    first, second = tmp_path / "first.img", tmp_path / "second.img"
    first.write_bytes(bytes(1 << 20))
    second.write_bytes(bytes(2 << 20))
    start("changes", hvm={"boot": "c"}, disks=["format=raw,vdev=hdc,devtype=cdrom,target="])
    for target, size in ((second, 2 << 20), (first, 1 << 20)):
        changed(api, api.put("/domains/changes/disks/hdc/medium", json={"target": str(target)}))
        assert api.get("/domains/changes/disks").json()[0]["bytes"] == size
    changed(api, api.delete("/domains/changes/disks/hdc/medium"))
    assert api.get("/domains/changes/disks").json()[0]["bytes"] == 0
    changed(api, api.post("/domains/changes/disks", json={"spec": f"{first},raw,xvdb,rw"}))
    changed(api, api.post("/domains/changes/disks/xvdb/size", json={"bytes": 3 << 20}))
    assert [each["bytes"] for each in api.get("/domains/changes/disks").json()] == [0, 3 << 20]
    assert first.stat().st_size == 3 << 20
    changed(api, api.patch("/domains/changes/disks/xvdb", json={"iops": 100}))
    assert (
        "has its place only at a start" in api.post("/domains/changes/disks", json={"spec": f"{second},raw,hdb"}).text
    )
    changed(api, api.post("/domains/changes/vifs", json={"spec": "bridge=hvmchanges,model=e1000"}))
    assert [each["devid"] for each in api.get("/domains/changes/vifs").json()] == [0]


@pytest.fixture
def without_qemu(tmp_path: Path) -> Iterator[httpx.Client]:
    """A Domain 0 on a host without QEMU."""
    before = os.environ.get("DOMZERO_QEMU")
    os.environ["DOMZERO_QEMU"] = "no-such-qemu"
    try:
        server = Server(tmp_path)
    finally:
        os.environ.pop("DOMZERO_QEMU") if before is None else os.environ.update(DOMZERO_QEMU=before)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero/v1") as api:
        yield api
    assert server.stop() == 0


def test_without_qemu_an_error_says_what_to_install(without_qemu: httpx.Client, shell: str) -> None:
    refused = without_qemu.post("/domains", json={"name": "x", "type": "hvm", "memory_mib": 64}, timeout=60)
    assert refused.status_code == 422 and "apt-get install qemu-system-x86" in refused.text
    made = without_qemu.post("/domains", json={"name": "pv", "kernel": shell, "memory_mib": 16}, timeout=60)
    assert made.status_code in (201, 202)
    assert without_qemu.get("/host", timeout=60).json()["full_virtualization"].startswith("none:")


@pytest.mark.parametrize("count", [5, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_nothing_is_left_of_domains_that_come_and_go(
    server: Server, api: httpx.Client, start: Create, tmp_path: Path, count: int
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))

    def cycle(name: str) -> int:
        domain = start(name, hvm={"boot": "c"}, vfbs=["vnc=1"], disks=[f"{disk},raw,hda"], vifs=["bridge=hvmcycle"])
        changed(api, api.delete(f"/domains/{name}"))
        return int(str(domain["pid"]))

    def held() -> tuple[int, int]:
        process = Path(f"/proc/{server.process.pid}")
        return len(os.listdir(process / "fd")), len(os.listdir(process / "task"))

    def resident() -> int:
        return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for number in range(3):
        cycle(f"warm{number}")
    before, memory = held(), resident()
    pids = [cycle(f"cycle{number}") for number in range(count)]
    until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)), 60, "all to be given back")
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert "hvmcycle" not in [each["name"] for each in api.get("/networks").json()]
    assert resident() - memory < 16 << 20, "memory of Domain 0"
    assert not [each for each in api.get("/domains").json() if each["name"].startswith("cycle")]


def test_a_card_of_qemus_is_counted_bounded_and_captured_by_its_networks_switch(
    api: httpx.Client, start: Create
) -> None:
    mac = "00:16:3e:00:09:05"
    vif = f"bridge=hvmcard,mac={mac},model=e1000,ip=10.9.0.5,rate=1MB/s"
    start("card", hvm={"boot": "n"}, vifs=[vif])  # iPXE asks for an address, again and again
    captured = api.get("/domains/card/vifs/0/capture", params={"frames": 1, "timeout": 120})
    assert captured.content[:4] == b"\x0a\x0d\x0d\x0a" and bytes.fromhex(mac.replace(":", "")) in captured.content
    (found,) = api.get("/domains/card/vifs").json()
    assert found["sent_frames"] > 0 and found["sent_bytes"] > 0 and found["rate"] == "1MB/s" and found["spoofed"] == 0
    networks = {each["name"]: each["ports"] for each in api.get("/networks").json()}
    (port,) = networks["hvmcard"]
    assert (port["domain"], port["mac"], port["stations"]) == ("card", mac, [mac])
    changed(api, api.patch("/domains/card/vifs/0", json={"rate": "1B/s@1000s"}))
    assert api.get("/domains/card/vifs").json()[0]["rate"] == "1B/s@1000s"
    changed(api, api.patch("/domains/card/vifs/0", json={"link": "down"}))
    assert api.get("/domains/card/vifs").json()[0]["link"] == "down"
    refused = api.post("/domains", json={"name": "no", "type": "hvm", "memory_mib": 64, "vifs": ["rate=1MB/s"]})
    assert refused.status_code == 422 and "rate" in refused.text
