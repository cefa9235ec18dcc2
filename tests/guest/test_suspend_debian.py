# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel, suspended and resumed by Domain 0: processes, disk, xenstore and time go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from linux_domains import SHELL, TICK, LinuxDomains, ticks
from runtime_dir import short_runtime_directory
from waiting import until

from domzero.dom0.images.cache import Image

pytestmark = [pytest.mark.guest, pytest.mark.timeout(7200)]


class Machine(LinuxDomains):
    """With a counter on each console, and one domain that most is about."""

    def __init__(self, directory: Path, image: Image, *arguments: str) -> None:
        self._image = image
        super().__init__(directory, *arguments)

    def kill_and_begin(self) -> None:
        self.kill()
        self.begin()

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A request that may become a task, to its end."""
        response = self.api.post(path, json=body)
        found: dict[str, Any] = response.json()
        while response.status_code == 202 and found["state"] == "running":
            found = self.api.get(f"/tasks/{found['id']}", params={"wait": 60}).json()
        assert response.is_success and not found.get("error"), found
        return found

    def start(self, name: str = "a", **fields: Any) -> Path:
        """A domain with a disk, which is this file, and a counter on its console."""
        disk = self.directory / f"{name}.img"
        disk.write_bytes(bytes(1 << 20))
        body = {
            "name": name, "kernel": self._image.kernel, "ramdisk": self._image.ramdisk, "memory_mib": 128,
            "cmdline": self._image.cmdline, "disks": [f"{disk},raw,xvda"], "persistent": True, **fields,
        }  # fmt: skip
        self.post("/domains", body)
        until(lambda: SHELL in self.console(name), 240, "a shell")
        self.type(name, f"stty cols 500; {TICK}")
        until(lambda: last_tick(self.console(name)) > 5, 240, "ticks")
        return disk

    def ticks_on(self, name: str = "a", since: int = 0) -> None:
        """Its counter goes on where it was."""
        until(lambda: last_tick(self.console(name)) > since + 5, 240, "more ticks")
        numbers = ticks(self.console(name))
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "none is left out or comes twice"


@pytest.fixture
def machine(tmp_path: Path, debian: Image) -> Iterator[Machine]:
    with ExitStack() as stack:
        stack.enter_context(short_runtime_directory())
        machine = Machine(tmp_path, debian)
        stack.callback(machine.close)
        yield machine


def last_tick(console: str) -> int:
    return max(ticks(console), default=0)


def test_linux_with_two_vcpus_is_suspended_and_goes_on_under_another_domain_0(machine: Machine) -> None:
    machine.start(vcpus=2)
    machine.type("a", "echo kept >/tmp/file; echo written | dd of=/dev/xvda conv=fsync 2>/dev/null; echo is-''there")
    machine.says("a", "is-there")
    before = last_tick(machine.console("a"))
    machine.post("/domains/a/suspend")
    assert (machine.domain("a")["state"], machine.domain("a")["domid"]) == ("suspended", None)
    kept = list((machine.directory / "d.sock.suspended").iterdir())
    assert len(kept) == 1

    machine.kill_and_begin()
    assert machine.domain("a")["state"] == "suspended"
    assert machine.api.post("/domains/a/start").status_code == 409, "it is resumed, not started"
    machine.post("/domains/a/resume")
    machine.ticks_on()
    assert ticks(machine.console("a"))[0] > before - 2, "the counter goes on, it does not begin again"
    machine.type("a", "echo $(cat /tmp/file) $(head -c 7 /dev/xvda) $(nproc) are-''there")
    assert machine.says("a", "(.*) are-there") == "kept written 2"
    assert not list((machine.directory / "d.sock.suspended").iterdir()), "its file is gone with its resumption"
    assert machine.api.get("/domains/a/audit").json() == {"problems": []}


def test_a_checkpoint_is_restored_twice_beside_the_domain_that_goes_on(machine: Machine) -> None:
    machine.start(disks=[])  # two would write to one
    path = str(machine.directory / "check.save")
    machine.post("/domains/a/save", {"path": path, "leave_running": True})
    at = last_tick(machine.console("a"))
    machine.ticks_on(since=at)
    for name in ("b", "c"):
        machine.post("/restore", {"path": path, "name": name})
        machine.ticks_on(name)
        assert machine.api.get(f"/domains/{name}/audit").json() == {"problems": []}
    assert len({machine.domain(name)["uuid"] for name in "abc"}) == 3
    for name in "bc":
        machine.api.delete(f"/domains/{name}")


@pytest.mark.slow
def test_memory_is_the_same_after_twenty_times(machine: Machine) -> None:
    machine.start(vcpus=2, memory_mib=192)
    machine.type("a", "head -c 60000000 /dev/urandom >/tmp/big; echo sum1 $(md5sum </tmp/big) is-''there")
    checksum = machine.says("a", "sum1 ([0-9a-f]{32}) .*is-there")
    for turn in range(20):
        since = last_tick(machine.console("a"))
        machine.post("/domains/a/suspend")
        machine.post("/domains/a/resume")
        machine.ticks_on(since=since)
        assert machine.api.get("/domains/a/audit").json() == {"problems": []}, turn
    machine.type("a", "echo sum2 $(md5sum </tmp/big) is-''there")
    assert machine.says("a", "sum2 ([0-9a-f]{32}) .*is-there") == checksum


def numbered(disk: Path) -> int:
    """The number that the guest has written last."""
    return int(disk.read_bytes()[:512].strip(b" \0") or 0)


@pytest.mark.slow
def test_a_busy_disk_a_network_and_a_balloon_go_on(machine: Machine) -> None:
    for number, name in ((1, "a"), (2, "b")):
        disk = machine.start(name, vcpus=2, memory_mib=160, vifs=["bridge=lan"])
        machine.type(name, f"ifconfig eth0 10.0.0.{number} up; echo net-''{name}")
        machine.says(name, f"net-{name}")
    disk = machine.directory / "a.img"
    assert machine.api.patch("/domains/a", json={"memory_target_mib": 128}).is_success
    until(lambda: machine.domain("a")["current_memory_mib"] <= 130, 240, "the balloon")
    machine.type(
        "a",
        "(n=0; while :; do n=$((n + 1)); printf '%-512d' $n | dd of=/dev/xvda bs=512 conv=fsync 2>/dev/null; done) &",
    )
    until(lambda: numbered(disk) > 5, 240, "writing")
    for _ in range(3):
        machine.post("/domains/a/suspend")
        at = numbered(disk)
        assert at == numbered(disk), "nobody writes"
        machine.post("/domains/a/resume")
        until(lambda at=at: numbered(disk) > at, 240, "writing on")  # type: ignore[misc]
    assert 120 <= machine.domain("a")["current_memory_mib"] <= 132
    machine.type("a", "ping -c 3 10.0.0.2 && echo a-''answered")
    machine.says("a", "a-answered")
    assert machine.api.patch("/domains/a", json={"memory_target_mib": 160}).is_success
    until(lambda: machine.domain("a")["current_memory_mib"] >= 158, 240, "the balloon")
