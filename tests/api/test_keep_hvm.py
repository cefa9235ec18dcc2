# SPDX-License-Identifier: Apache-2.0
"""Domains with a machine of QEMU's go on without their Domain 0 (`--keep-domains`), as PV domains do."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from kept import Kept, is_gone, keeper_of
from waiting import until

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not here (qemu-system-x86)"
)
FEW, MANY = (
    pytest.param(3, id="few", marks=pytest.mark.slow),
    pytest.param(50, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(7200)]),
)


class Machines(Kept):
    """With domains in GRUB's shell, which answers on the serial port."""

    iso = Path()

    def start(self, name: str, **fields: Any) -> dict[str, Any]:
        body = {"name": name, "type": "hvm", "memory_mib": 32, "engine": "tcg", **fields}
        body["disks"] = [f"{self.iso},raw,hda,cdrom", *fields.get("disks", ())]
        assert self.api.post("/domains", json=body).status_code in (201, 202)
        until(lambda: "grub>" in self.console(name), what="GRUB's prompt")
        return self.domain(name)

    def says(self, name: str, words: str) -> None:
        """The guest reads its console and answers there: what is typed does not hold the answer."""
        self.type(name, f"echo ${{grub_platform}}-{words}\r")
        until(lambda: f"pc-{words}" in self.console(name), what="GRUB's answer")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, shell: str, grub_cd: Path) -> Iterator[Machines]:
    directory = tmp_path_factory.mktemp("kept")
    kept = Machines(directory, shell)
    kept.iso = grub_cd
    yield kept
    for domain in kept.api.get("/domains").json():
        kept.api.delete(f"/domains/{domain['uuid']}")
    assert kept.end(signal.SIGTERM) == 0
    until(lambda: not keeper_of(directory), what="the keeper's end")
    left = {path.name for path in directory.iterdir()}
    assert left <= {"serve.log", "d.sock.db", "d.sock.db.lock", "d.sock.storage", "d.sock.suspended"}, (
        "nothing else is left"
    )


def test_a_machine_goes_on_with_its_pty_its_screen_and_its_disks(kept: Machines, tmp_path: Path) -> None:
    """Killed, and then asked to end; the domain notices neither."""
    screen, disk = tmp_path / "screen.sock", tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    before = kept.start("one", console="pty", vfbs=[f"vnc=1,vnclisten=unix:{screen}"], disks=[f"{disk},raw,hdb"])
    kept.says("one", "before")
    console, consoles, nodes = kept.console("one"), kept.api.get("/domains/one/consoles").json(), kept.nodes()
    for signum in (signal.SIGKILL, signal.SIGTERM):
        kept.restart(signum)
        after = kept.domain("one")
        same = ("uuid", "domid", "pid", "started_at", "created_at", "reboots", "memory_limit_mib", "engine", "state")
        assert {name: after[name] for name in same} == {name: before[name] for name in same}
        until(lambda: kept.console("one").startswith(console), what="the console's history")
        assert kept.nodes() == nodes and kept.api.get("/domains/one/consoles").json() == consoles
        kept.says("one", f"after-{signum.name}")
        with open(next(each["place"] for each in consoles if each["connection"] == "pty"), "r+b", buffering=0) as pty:
            pty.write(f"echo typed-${{grub_platform}}-{signum.name}\r".encode())
            said = b""
            while f"typed-pc-{signum.name}".encode() not in said:
                said += pty.read(4096)
        with socket.socket(socket.AF_UNIX) as viewer:
            viewer.settimeout(30)
            viewer.connect(str(screen))
            assert viewer.recv(12).startswith(b"RFB ")
    vdevs = {each["vdev"] for each in kept.api.get("/domains/one/disks").json()}
    assert vdevs == {"hda", "hdb"}
    assert kept.console("one").count("hello of pc") == 1, "it was not started again"
    kept.api.delete("/domains/one")
    until(lambda: is_gone(before["pid"]) and not screen.exists())


def test_what_machines_do_meanwhile_is_heard_of(kept: Machines) -> None:
    pids = {name: kept.start(name)["pid"] for name in ("off", "again", "killed")}
    kept.act_meanwhile(pids, {"off": "halt", "again": "reboot"}, enter="\r")
    until(lambda: not any(kept.domain(name)["exists"] for name in ("off", "killed")))
    assert kept.domain("off")["exit"]["reason"] == "poweroff"
    exit = kept.domain("killed")["exit"]
    assert exit["reason"] == "crash" and "SIGKILL" in exit["message"]
    until(lambda: kept.domain("again")["reboots"] == 1 and "grub>" in kept.console("again"))
    kept.api.delete("/domains/again")


@pytest.mark.slow
def test_a_paused_machine_stays_paused_and_a_domain_0_that_keeps_nothing_ends_it_with_itself(
    tmp_path: Path, shell: str, grub_cd: Path
) -> None:
    kept = Machines(tmp_path, shell)
    kept.iso = grub_cd
    pid = kept.start("one")["pid"]
    kept.api.post("/domains/one/pause")
    kept.restart(signal.SIGKILL, "-v")
    assert kept.domain("one")["state"] == "paused" and kept.domain("one")["pid"] == pid
    kept.api.post("/domains/one/unpause")
    kept.says("one", "here")
    kept.end(signal.SIGKILL)
    until(lambda: is_gone(pid) and not kept.keeper)


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_a_kill_at_any_moment_loses_no_machine(kills: int, kept: Machines) -> None:
    """One goes on, and another one is being started, changed or ended."""
    dice = random.Random(9)
    old = kept.start("old")
    for number in range(kills):
        body = {"name": f"new{number}", "type": "hvm", "memory_mib": 32, "engine": "tcg", "hvm": {"boot": "c"}}
        kept.api.post("/domains", json=body)
        kept.says("old", f"begins-{number}")
        kept.end() if dice.random() < 0.9 else kept.end(signal.SIGTERM)
        kept.begin("--keep-domains")
        assert kept.domain("old")["pid"] == old["pid"] and kept.domain("old")["domid"] == old["domid"]
        kept.says("old", f"still-{number}")
        kept.api.delete(f"/domains/new{number}")
    kept.api.delete("/domains/old")
    until(lambda: is_gone(old["pid"]))


def ask_somebody_who_may_die(kept: Machines, path: str) -> None:
    transport = httpx.HTTPTransport(uds=str(kept.server.socket))
    with suppress(httpx.TransportError), httpx.Client(transport=transport, base_url="http://domzero") as client:
        client.post(path)


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_a_kill_while_it_is_suspended_or_resumed_loses_no_machine(kills: int, kept: Machines) -> None:
    """It runs afterwards, or is suspended; never paused, and never twice."""
    dice = random.Random(7)
    kept.start("held", persistent=True)
    for number in range(kills):
        kept.says("held", f"begins-{number}")
        for verb in ("suspend", "resume"):
            asked = threading.Thread(target=ask_somebody_who_may_die, args=(kept, f"/v1/domains/held/{verb}"))
            asked.start()
            asked.join(dice.uniform(0, 1.0))
            kept.end()
            asked.join()
            kept.begin("--keep-domains")
            until(lambda: kept.domain("held")["state"] in ("running", "blocked", "suspended"), what="either")
            if verb == "suspend" and kept.domain("held")["state"] != "suspended":
                kept.says("held", f"on-{number}")
                assert kept.api.post("/domains/held/suspend").status_code < 300
                until(lambda: kept.domain("held")["state"] == "suspended", what="it to be suspended")
        if kept.domain("held")["state"] == "suspended":
            assert kept.api.post("/domains/held/resume").status_code < 300
            until(lambda: kept.domain("held")["state"] in ("running", "blocked"), what="it to be resumed")
        kept.says("held", f"still-{number}")
    kept.api.delete("/domains/held")
    kept.api.delete("/domains/held/definition")
