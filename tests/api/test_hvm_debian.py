# SPDX-License-Identifier: Apache-2.0
"""Debian in a machine of QEMU's beside Debian as a PV domain: one network, disks that come and go."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
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
        until(lambda: "guest:" in self.text and "# " in self.text, 180, f"the prompt of {name}")

    @property
    def text(self) -> str:
        """All that was printed."""
        return self._api.get(f"/domains/{self._name}/console").text

    def run(self, command: str, seconds: float = 60) -> str:
        """What a command prints."""
        self._count += 1
        begin, end = f"<{self._count}", f"{self._count}>"
        line = f"echo '<'{self._count}; {command}; echo {self._count}'>'\r"
        assert self._api.post(f"/domains/{self._name}/console", json={"data": line}).status_code == 204
        until(lambda: f"\n{end}" in self.text.replace("\r", ""), seconds, f"{command} in {self._name}")
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

    assert api.post("/domains/pvh/shutdown").status_code == 202  # nobody listens to the button here
    assert api.delete("/domains/pvh").status_code < 300
