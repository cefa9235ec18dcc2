# SPDX-License-Identifier: Apache-2.0
"""Debian in a machine of QEMU's beside a PV one: a network, disks that come and go, and a state that is kept."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from created import changed
from waiting import until

from domzero.dom0.images.cache import ImageCache
from domzero.dom0.images.debian import fetch_debian
from domzero.errors import ImageError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not here"),
]
Create = Callable[..., dict[str, object]]
MIB = 1 << 20
COUNTING = "(i=0; while :; do i=$((i+1)); echo $i > /mnt/next; mv /mnt/next /mnt/count; sleep 0.1; done) & true"


@pytest.fixture(scope="module")
def debian() -> dict[str, str]:
    try:
        image, _ = fetch_debian(print, ImageCache())
    except ImageError as error:
        pytest.skip(f"no image of Debian: {error}")
    return {"kernel": image.kernel, "ramdisk": image.ramdisk}


class Shell:
    """A domain's console, with a shell on it."""

    def __init__(self, api: httpx.Client, name: str) -> None:
        self._api, self._name, self._count = api, name, 0
        until(lambda: "guest:" in self.text and "# " in self.text, 480, f"the prompt of {name}")

    @property
    def text(self) -> str:
        """All that was printed."""
        return self._api.get(f"/domains/{self._name}/console").text

    def run(self, command: str, seconds: float = 180) -> str:
        """What a command prints."""
        self._count += 1
        begin, end = f"<{self._count}", f"{self._count}>"
        line = f"echo '<'{self._count}; {command}; echo {self._count}'>'\r"
        assert self._api.post(f"/domains/{self._name}/console", json={"data": line}).status_code == 204
        until(lambda: f"\n{end}\n" in self.text.replace("\r", ""), seconds, f"{command} in {self._name}")
        return self.text.replace("\r", "").rpartition(f"\n{begin}\n")[2].rpartition(f"{end}\n")[0]


@pytest.mark.timeout(900)
def test_a_pv_and_a_pvh_domain_reach_each_other_and_disks_come_and_go(
    api: httpx.Client, create: Create, debian: dict[str, str], tmp_path: Path
) -> None:
    shape = {**debian, "memory_mib": 192}
    create("pv", cmdline="console=hvc0", vifs=["bridge=hvmtest"], **shape)
    create("pvh", cmdline="console=ttyS0", vifs=["bridge=hvmtest"], type="pvh", engine="tcg", **shape)
    ported, unported = Shell(api, "pv"), Shell(api, "pvh")
    ported.run("ip address add 10.9.0.1/24 dev eth0")
    unported.run("ip address add 10.9.0.2/24 dev eth0")
    assert "0% packet loss" in unported.run("ping -c 3 -W 5 10.9.0.1")
    # Large TCP frames of the PV domain are cut for QEMU's card.
    unported.run("(nc -l -p 9 | wc -c) & sleep 1")
    ported.run("dd if=/dev/zero bs=1M count=8 2>/dev/null | nc -w 3 10.9.0.2 9", 120)
    until(lambda: str(8 * MIB) in unported.text, 60, "8 MiB from the PV domain")

    disk = tmp_path / "disk.img"
    disk.write_bytes(b"first sector".ljust(MIB, b"\0"))
    assert api.post("/domains/pvh/disks", json={"spec": f"{disk},raw,xvdb,rw"}).status_code < 300
    until(lambda: "vda" in unported.run("ls /sys/block"), 60, "the disk in the guest")
    assert "first sector" in unported.run("head -c 12 /dev/vda; echo")
    unported.run("echo written | dd of=/dev/vda conv=notrunc 2>/dev/null; sync")
    assert disk.read_bytes()[:7] == b"written"
    grown = api.post("/domains/pvh/disks/xvdb/size", json={"bytes": 2 * MIB})
    assert grown.status_code < 300, grown.text
    assert "4096" in unported.run("cat /sys/block/vda/size")
    assert api.delete("/domains/pvh/disks/xvdb").status_code < 300
    until(lambda: "vda" not in unported.run("ls /sys/block"), 60, "the disk to go")
    until(lambda: api.get("/domains/pvh/disks").json() == [], 30, "the record of the disk to go")

    assert api.post("/domains/pvh/shutdown").status_code == 202  # by the power button, which acpid hears in the guest
    until(lambda: api.get("/domains/pvh").json()["exit"] is not None, 60, "its end")
    assert api.get("/domains/pvh").json()["exit"]["reason"] == "poweroff"


@pytest.fixture(scope="module")
def bios_disk(debian: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with Debian's kernel, that a BIOS starts by GRUB."""
    if shutil.which("grub-mkrescue") is None or shutil.which("xorriso") is None:
        pytest.skip("grub-mkrescue is not here (grub-pc-bin, grub-common, xorriso, mtools)")
    directory = tmp_path_factory.mktemp("bios")
    boot = directory / "disk" / "boot" / "grub"
    boot.mkdir(parents=True)
    for name, path in debian.items():
        shutil.copy(path, directory / "disk" / name)
    (boot / "grub.cfg").write_text("linux /kernel console=ttyS0\ninitrd /ramdisk\nboot\n")
    subprocess.run(["grub-mkrescue", "-o", directory / "disk.img", directory / "disk"], check=True, capture_output=True)
    return directory / "disk.img"


@pytest.mark.timeout(1200)
def test_hvm_debian_from_a_disk_of_a_bios_beside_a_pv_domain(
    api: httpx.Client, create: Create, debian: dict[str, str], bios_disk: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.img"
    data.write_bytes(b"first sector".ljust(MIB, b"\0"))
    disks = [f"{bios_disk},raw,hda,ro", f"{data},raw,xvdb"]
    own = "bridge=hvmbios,mac=00:16:3e:00:09:02,ip=10.9.0.2"
    shape = {"memory_mib": 256, "vcpus": 1, "max_vcpus": 2, "disks": disks, "vifs": [own]}
    create("pv", cmdline="console=hvc0", vifs=["bridge=hvmbios"], memory_mib=192, **debian)
    domain = create("hvm", type="hvm", kernel="", engine="tcg", hvm={"hdtype": "virtio"}, **shape)
    assert domain["type"] == "hvm"
    ported, unported = Shell(api, "pv"), Shell(api, "hvm")
    assert "BIOS-e820" in unported.run("dmesg | grep -m1 e820")

    # Disks: what it started from, and one that it writes.
    assert "vda" in unported.run("ls /sys/block") and "first sector" in unported.run("head -c 12 /dev/vdb; echo")
    unported.run("echo written | dd of=/dev/vdb conv=notrunc 2>/dev/null; sync")
    assert data.read_bytes()[:7] == b"written"

    # One network with the PV domain, from an address of its own only.
    ported.run("ip address add 10.9.0.1/24 dev eth0")
    unported.run("ip address add 10.9.0.2/24 dev eth0; ip link set eth0 up")
    assert "bytes from 10.9.0.1" in unported.run("ping -c 3 -W 5 10.9.0.1")
    assert "bytes from 10.9.0.2" in ported.run("ping -c 3 -W 5 10.9.0.2")
    unported.run("ip address add 10.9.0.66/24 dev eth0")
    assert "100% packet loss" in unported.run("ping -c 2 -W 2 -I 10.9.0.66 10.9.0.1")
    (vif,) = api.get("/domains/hvm/vifs").json()
    assert vif["sent_frames"] > 6 and vif["received_bytes"] > 300 and vif["spoofed"] >= 2

    # What it sends is bounded from now on, and captured.
    changed(api, api.patch("/domains/hvm/vifs/0", json={"rate": "1B/s@1s"}))
    assert "100% packet loss" in unported.run("ping -c 1 -W 1 10.9.0.1; ping -c 2 -W 2 10.9.0.1")
    changed(api, api.patch("/domains/hvm/vifs/0", json={"rate": ""}))
    assert api.get("/domains/hvm/vifs").json()[0]["rate"] is None
    typed = api.post("/domains/hvm/console", json={"data": "ping -c 5 10.9.0.1 &\r"})
    assert typed.status_code == 204
    captured = api.get("/domains/hvm/vifs/0/capture", params={"frames": 4, "timeout": 60})
    assert captured.content[:4] == b"\x0a\x0d\x0d\x0a" and bytes.fromhex("00163e000902") in captured.content

    # A second vCPU comes, and goes.
    assert [each["state"] for each in api.get("/domains/hvm/vcpus").json()] == ["running", "offline"]
    changed(api, api.patch("/domains/hvm", json={"vcpus": 2}))
    until(lambda: "cpu1" in unported.run("ls /sys/devices/system/cpu"), 60, "the second vCPU in the guest")
    unported.run("echo 1 > /sys/devices/system/cpu/cpu1/online")
    until(lambda: "2" in unported.run("grep -c ^processor /proc/cpuinfo"), 60, "two processors")
    changed(api, api.patch("/domains/hvm", json={"vcpus": 1}))
    until(lambda: api.get("/domains/hvm/vcpus").json()[1]["state"] == "offline", 60, "the second vCPU to go")
    assert "1" in unported.run("grep -c ^processor /proc/cpuinfo")

    # It powers off when its button is pressed.
    assert api.post("/domains/hvm/shutdown").status_code == 202
    until(lambda: api.get("/domains/hvm").json()["exit"] is not None, 60, "its end")
    assert api.get("/domains/hvm").json()["exit"]["reason"] == "poweroff"


def asked(api: httpx.Client, to: str, **fields: object) -> float:
    """Asks for something, and waits until it is done; seconds that it took."""
    begun = time.monotonic()
    answer = api.post(to, json=fields) if fields else api.post(to)
    assert answer.status_code < 300, answer.text
    if answer.status_code == 202:
        task = f"/tasks/{answer.json()['id']}"
        until(lambda: api.get(task).json()["state"] != "running", 240, "the task")
        assert api.get(task).json()["state"] == "done", api.get(task).json()
    return time.monotonic() - begun


def count(shell: Shell) -> int:
    return int(shell.run("cat /mnt/count"))


def life(api: httpx.Client, shell: Shell, name: str, peer: Shell, device: str, tmp_path: Path) -> None:
    """Suspends it and goes on, saves it and lets it run, saves it and makes it anew; it notices nothing."""
    shell.run("mount -t tmpfs none /mnt")
    shell.run(COUNTING)
    shell.run(
        f"head -c {4 * MIB} /dev/urandom > /mnt/file; cp /mnt/file {device}; sync; echo 3 > /proc/sys/vm/drop_caches"
    )
    total = shell.run("md5sum < /mnt/file")
    before = count(shell)

    def check(seen: int) -> int:
        first = count(shell)
        assert seen <= first < seen + 600
        until(lambda: count(shell) > first, 60, "the counter to go on")
        assert shell.run("md5sum < /mnt/file") == total
        shell.run("echo 3 > /proc/sys/vm/drop_caches")
        assert shell.run(f"head -c {4 * MIB} {device} | md5sum") == total
        shell.run(f"echo {seen} | dd of={device} bs=512 seek=16384 conv=notrunc 2>/dev/null; sync")
        assert "0% packet loss" in peer.run("ping -c 3 -W 10 10.9.1.1")
        return count(shell)

    took = {"suspend": asked(api, f"/domains/{name}/suspend")}
    assert api.get(f"/domains/{name}").json()["state"] == "suspended"
    took["resume"] = asked(api, f"/domains/{name}/resume")
    before = check(before)
    path = tmp_path / f"{name}.save"
    took["save -c"] = asked(api, f"/domains/{name}/save", path=str(path), leave_running=True)
    before = check(before)
    took["save"] = asked(api, f"/domains/{name}/save", path=str(path))
    assert api.get(f"/domains/{name}").json()["state"] == "halted"
    assert api.delete(f"/domains/{name}/definition").status_code < 300
    took["restore"] = asked(api, "/restore", path=str(path))
    check(before)
    size = path.stat().st_size / MIB
    print(f"\n{name}: {size:.0f} MiB,", ", ".join(f"{what} {seconds:.2f} s" for what, seconds in took.items()))


@pytest.mark.timeout(1800)
def test_debian_goes_on_where_it_was(
    api: httpx.Client, create: Create, debian: dict[str, str], bios_disk: Path, tmp_path: Path
) -> None:
    def made(name: str, **fields: Any) -> Shell:
        image = tmp_path / f"{name}.img"
        with image.open("wb") as file:
            file.truncate(16 * MIB)
        disks = [*fields.pop("disks", []), f"{image},raw,xvdb"]
        shape = {"memory_mib": 192, "engine": "tcg", "vifs": ["bridge=suspending"], "persistent": True}
        create(name, **{**shape, "disks": disks, **fields})
        return Shell(api, name)

    kernel = {**debian, "type": "pvh", "cmdline": "console=ttyS0"}
    peer = made("peer", **kernel)
    peer.run("ip address add 10.9.1.2/24 dev eth0")
    pvh = made("pvh", **kernel)
    pvh.run("ip address add 10.9.1.1/24 dev eth0")
    life(api, pvh, "pvh", peer, "/dev/vda", tmp_path)
    assert api.delete("/domains/pvh").status_code < 300
    hvm = made("hvm", type="hvm", kernel="", hvm={"hdtype": "virtio"}, disks=[f"{bios_disk},raw,hda,ro"])
    hvm.run("ip address add 10.9.1.1/24 dev eth0")
    life(api, hvm, "hvm", peer, "/dev/vdb", tmp_path)
