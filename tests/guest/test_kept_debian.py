# SPDX-License-Identifier: Apache-2.0
"""Linux notices nothing when its Domain 0 is killed and another one goes on: console, xenstore, disk and network."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import pyxs  # type: ignore[import-untyped]
from linux_domains import SHELL, TICK, LinuxDomains, ticks
from runtime_dir import short_runtime_directory
from waiting import until

from domzero.dom0.images.cache import Image

pytestmark = [pytest.mark.guest, pytest.mark.timeout(7200)]
SECTOR = 512
# The number of a turn goes to the disk, and stays there; an answer from the neighbour is a line in a file.
WRITE = "(n=0; while :; do n=$((n + 1)); printf '%-512d' $n | dd of=/dev/xvda bs=512 conv=fsync 2>/dev/null; done) &"
PING = "(while :; do ping -c 1 -W 5 10.0.0.{neighbour} >/dev/null && echo x >>/tmp/answers; done) &"
# struct xsd_sockmsg: type, req_id, tx_id, len; then names that end with a zero. 2 is XS_READ, 4 XS_WATCH.
READ_NAME = r"printf '\2\0\0\0\7\0\0\0\0\0\0\0\5\0\0\0name\0' >&4; dd bs=1 count=17 <&4 2>/dev/null | tail -c 1"
WATCH = r"printf '\4\0\0\0\1\0\0\0\0\0\0\0\11\0\0\0data/w\0t\0' >&3; dd bs=1 count=44 <&3 2>/dev/null | wc -c"
EVENT = r"echo event $(dd bs=1 count=25 <&3 2>/dev/null | tail -c 9 | tr '\0' ' ')"


class Machines(LinuxDomains):
    """With a disk and an interface each."""

    def __init__(self, directory: Path, image: Image) -> None:
        self._image = image
        super().__init__(directory, "--keep-domains")

    def start(self, name: str) -> Path:
        """A domain with a disk, which is this file, and an interface."""
        disk = self.directory / f"{name}.img"
        disk.write_bytes(bytes(1 << 20))
        body = {
            "name": name, "kernel": self._image.kernel, "ramdisk": self._image.ramdisk, "memory_mib": 96,
            "cmdline": self._image.cmdline, "disks": [f"{disk},raw,xvda"], "vifs": ["bridge=lan"],
        }  # fmt: skip
        assert self.api.post("/domains", json=body).status_code in (201, 202)
        return disk

    def has_rebooted(self, name: str) -> bool:
        return self.domain(name)["reboots"] == 1 and SHELL in self.console(name)


@pytest.fixture
def machines(tmp_path: Path, debian: Image) -> Iterator[Machines]:
    with ExitStack() as stack:
        stack.enter_context(short_runtime_directory())
        machines = Machines(tmp_path, debian)
        stack.callback(machines.close)
        yield machines


def written(disk: Path) -> int:
    """The number of the last turn."""
    return int(disk.read_bytes()[:SECTOR].strip(b" \0") or 0)


def has_written(disk: Path, turn: int) -> bool:
    return written(disk) > turn


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_linux_notices_nothing_when_its_domain_0_is_killed(machines: Machines, kills: int) -> None:
    disk = machines.start("a")
    machines.start("b")
    for number, name in enumerate(("a", "b"), 1):
        machines.says(name, SHELL)
        machines.type(name, f"ip addr add 10.0.0.{number}/24 dev eth0; ip link set eth0 up; echo up $((1 + {number}))")
        machines.says(name, rf"^up {number + 1}")
    machines.type("a", "exec 3<>/dev/xen/xenbus 4<>/dev/xen/xenbus")
    machines.type("a", WATCH)
    machines.says("a", r"^44\r?$")
    machines.type("a", WRITE)
    machines.type("a", PING.format(neighbour=2))
    machines.type("a", TICK)
    dice = random.Random(11)
    before = machines.domain("a")
    for number in range(kills):
        machines.says("a", rf"tick {20 * number + 5};")
        threading.Event().wait(dice.random() * 0.2)
        machines.kill()
        turn = written(disk)
        until(partial(has_written, disk, turn + 3), 60, "disk I/O while there is no Domain 0")
        machines.begin()
        after = machines.domain("a")
        assert {key: after[key] for key in ("pid", "domid", "reboots")} == {
            key: before[key] for key in ("pid", "domid", "reboots")
        }
        last = ticks(machines.console("a"))[-1]
        machines.says("a", rf"tick {last + 3};")
        seen = ticks(machines.console("a"))
        assert seen == list(range(seen[0], seen[0] + len(seen))), "no line is lost, and none comes twice"
        machines.type("a", f"echo lived $(({number} + 100)) $(cut -d. -f1 /proc/uptime)")
        machines.says("a", rf"^lived {number + 100} \d+")
        machines.type("a", f"echo read {number} $({READ_NAME})")
        machines.says("a", rf"^read {number} a\r?$")
        machines.type("a", f": >/tmp/answers; until [ -s /tmp/answers ]; do usleep 1000; done; echo came {number}")
        machines.says("a", rf"^came {number}\r?$")
    with pyxs.Client(unix_socket_path=str(machines.server.xenstore)) as client:
        client[f"/local/domain/{before['domid']}/data/w".encode()] = b"new"
    machines.type("a", EVENT)
    machines.says("a", r"^event data/w t")
    assert machines.console("a").count(SHELL) == 1, "it has not booted again"
    machines.api.post("/domains/a/shutdown")
    until(lambda: not machines.domain("a")["exists"], 120)
    assert machines.domain("a")["exit"]["reason"] == "poweroff"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 100])
def test_linux_boots_though_its_domain_0_is_killed_meanwhile(machines: Machines, kills: int) -> None:
    """Most of what a guest says to xenstore it says while it boots, and its devices connect."""
    dice = random.Random(5)
    started = 0
    for number in range(kills):
        name = f"boots{number}"
        machines.start(name)
        pid = machines.domain(name)["pid"]
        threading.Event().wait(dice.random() * 2.5)
        machines.kill()
        machines.begin()
        found = machines.api.get(f"/domains/{name}")
        if found.status_code == 404 or found.json()["pid"] != pid or not found.json()["exists"]:
            continue  # it was being built, which is not gone on with
        started += 1
        machines.says(name, SHELL)
        machines.type(name, "echo $(cat /sys/class/net/eth0/address) $(cat /sys/block/xvda/size); reboot -f")
        machines.says(name, r"^00:16:3e:\S+ 2048\r?$")
        until(partial(machines.has_rebooted, name), 180)
        machines.api.delete(f"/domains/{name}")
    assert started
