# SPDX-License-Identifier: Apache-2.0
"""Domains that go on without their Domain 0 (`--keep-domains`), and the next one that goes on with them."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
from dom0_server import children
from kept import Kept, is_gone, keeper_of, processes_with
from waiting import until

FEW, MANY = (
    pytest.param(2, id="few"),
    pytest.param(100, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(7200)]),
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, shell: str) -> Iterator[Kept]:
    directory = tmp_path_factory.mktemp("kept")
    kept = Kept(directory, shell)
    yield kept
    for domain in kept.api.get("/domains").json():
        kept.api.delete(f"/domains/{domain['uuid']}")
    assert kept.end(signal.SIGTERM) == 0
    until(lambda: not keeper_of(directory), what="the keeper's end")
    left = {path.name for path in directory.iterdir()}
    assert left <= {"serve.log", "d.sock.db", "d.sock.db.lock", "d.sock.storage"}, "nothing else is left"


def test_a_domain_goes_on_when_domain_0_is_killed_and_the_next_one_goes_on_with_it(kept: Kept) -> None:
    before = kept.create("one")
    kept.answers("one", "before")
    console, nodes = kept.console("one"), kept.nodes()
    kept.restart()
    after = kept.domain("one")
    same = ("uuid", "domid", "pid", "started_at", "created_at", "reboots", "memory_limit_mib", "engine")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    until(lambda: kept.console("one") == console, what="the console's history")
    assert kept.nodes() == nodes
    kept.answers("one", "after")
    assert kept.console("one").count("hello") == 1, "it was not started again"
    kept.type("one", "store name\n")
    until(lambda: "value one" in kept.console("one"))
    other = kept.create("other")
    assert other["domid"] > after["domid"], "no number is given twice"
    assert kept.api.post("/domains/one/shutdown").status_code == 202  # the guest's watch fires
    until(lambda: not kept.domain("one")["exists"])
    assert kept.domain("one")["exit"]["reason"] == "poweroff"
    kept.api.delete("/domains/other")


def test_domains_go_on_when_domain_0_is_asked_to_end_and_it_says_so(kept: Kept) -> None:
    pid = kept.create("asked")["pid"]
    assert kept.end(signal.SIGTERM) == 0
    last = kept.server.log.read_text().splitlines()[-1]
    assert "1 domain left running" in last and "--keep-domains" in last
    assert not is_gone(pid)
    kept.begin("--keep-domains")
    assert kept.domain("asked")["pid"] == pid
    kept.answers("asked", "again")
    kept.api.delete("/domains/asked")


def test_what_a_guest_prints_meanwhile_is_there_once(kept: Kept) -> None:
    kept.create("prints")
    kept.type("prints", "flood 12\n")
    kept.restart()
    until(lambda: "flooded" in kept.console("prints"))
    assert kept.console("prints").count("\r\na line of output") == 2000
    kept.api.delete("/domains/prints")


def test_what_guests_do_meanwhile_is_heard_of(kept: Kept) -> None:
    pids = {}
    for name in ("off", "again", "bad", "killed", "stays"):
        pids[name] = kept.create(name, on_crash="preserve" if name == "stays" else "destroy")["pid"]
        kept.answers(name, "here")
    kept.act_meanwhile(pids, {"off": "poweroff", "again": "reboot", "bad": "crash", "stays": "crash"})
    until(lambda: not any(kept.domain(name)["exists"] for name in ("off", "bad", "killed")))
    assert kept.domain("off")["exit"]["reason"] == "poweroff"
    assert kept.domain("bad")["exit"]["reason"] == "crash"
    exit = kept.domain("killed")["exit"]
    assert exit["reason"] == "crash" and "SIGKILL" in exit["message"]
    until(lambda: kept.domain("again")["reboots"] == 1 and "hello" in kept.console("again"))
    until(lambda: kept.domain("stays")["state"] == "crashed")
    kept.restart()
    assert kept.domain("stays")["state"] == "crashed" and kept.domain("stays")["exists"]
    for name in ("again", "stays"):
        kept.api.delete(f"/domains/{name}")


def test_a_paused_domain_and_a_defined_one_are_what_they_were(kept: Kept) -> None:
    kept.create("paused", persistent=True, labels={"a": "b"})
    kept.api.post("/domains/paused/pause")
    kept.api.post("/domains", json={"name": "idle", "kernel": kept.shell, "persistent": True, "start": False})
    kept.restart()
    assert kept.domain("paused")["state"] == "paused" and kept.domain("paused")["persistent"]
    assert kept.domain("paused")["labels"] == {"a": "b"}
    assert kept.domain("idle")["state"] == "halted"
    kept.api.post("/domains/paused/unpause")
    kept.answers("paused", "on")
    for _ in range(2):
        kept.api.delete("/domains/paused")
    kept.api.delete("/domains/idle")


def test_ptys_sockets_and_screens_are_where_they_were(kept: Kept, tmp_path: Path) -> None:
    channel = tmp_path / "channel.sock"
    kept.create(
        "shown",
        console="pty",
        channels=[f"connection=socket,path={channel},name=c"],
        vfbs=[f"vnc=1,vnclisten=unix:{tmp_path / 'screen.sock'}"],
    )
    consoles = kept.api.get("/domains/shown/consoles").json()
    kept.restart()
    assert kept.api.get("/domains/shown/consoles").json() == consoles
    kept.answers("shown", "here")
    with open(next(each["place"] for each in consoles if each["connection"] == "pty"), "r+b", buffering=0) as pty:
        pty.write(b"echo typed there\n")
        said = b""
        while b"typed there\r\n" not in said:
            said += pty.read(4096)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(channel))
    with socket.socket(socket.AF_UNIX) as viewer:
        viewer.settimeout(30)
        viewer.connect(str(tmp_path / "screen.sock"))
        assert viewer.recv(12).startswith(b"RFB ")
    kept.api.delete("/domains/shown")
    until(lambda: not channel.exists() and not (tmp_path / "screen.sock").exists())


def test_the_qemu_nbd_of_a_disk_goes_on_too(kept: Kept, tmp_path: Path) -> None:
    if shutil.which("qemu-nbd") is None or shutil.which("qemu-img") is None:
        pytest.skip("qemu-nbd is not here")
    image = tmp_path / "disk.vhd"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vpc", "-o", "force_size=on", str(image), "16M"], check=True)
    kept.create("served", disks=[f"{image},vhd,xvda"])
    (server,) = processes_with(b"qemu-nbd", bytes(image))
    kept.restart()
    assert processes_with(b"qemu-nbd", bytes(image)) == [server]
    kept.api.delete("/domains/served")
    until(lambda: processes_with(b"qemu-nbd", bytes(image)) == [])


def test_another_domain_0_of_the_same_database_is_refused_while_there_is_one(kept: Kept) -> None:
    arguments = ["serve", "--keep-domains", "--socket", str(kept.directory / "e.sock")]
    arguments += ["--xenstore-socket", str(kept.directory / "x.sock")]
    second = kept.server.cli(*arguments, "--database", f"{kept.server.socket}.db")
    assert second.returncode != 0 and "another Domain 0 has it" in second.stderr


def test_a_kill_of_the_keeper_ends_the_domains_with_a_reason(kept: Kept) -> None:
    pid = kept.create("held")["pid"]
    os.kill(kept.keeper, signal.SIGKILL)
    until(lambda: not kept.domain("held")["exists"])
    until(lambda: is_gone(pid))
    assert kept.domain("held")["exit"]["reason"] == "crash"
    kept.create("next")  # under another keeper
    kept.restart()
    kept.answers("next", "here")
    kept.api.delete("/domains/next")


def test_a_domain_0_that_keeps_nothing_takes_over_and_ends_all_with_itself(tmp_path: Path, shell: str) -> None:
    kept = Kept(tmp_path, shell)
    pid = kept.create("one")["pid"]
    kept.restart(signal.SIGKILL, "-v")
    kept.answers("one", "here")
    assert kept.domain("one")["pid"] == pid
    kept.end(signal.SIGKILL)
    until(lambda: is_gone(pid) and not kept.keeper)


def test_domains_that_go_on_are_ended_on_request(tmp_path: Path, shell: str) -> None:
    kept = Kept(tmp_path, shell)
    pid = kept.create("one", persistent=True)["pid"]
    kept.restart(signal.SIGTERM, "--end-kept-domains")
    until(lambda: is_gone(pid))
    assert kept.domain("one")["state"] == "halted"
    assert kept.end(signal.SIGTERM) == 0
    assert not kept.keeper


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_a_kill_at_any_moment_loses_no_domain(kills: int, tmp_path: Path, shell: str) -> None:
    """Domains come and go while Domain 0 is killed; one that was answered to be there is, until its end was asked for,
    and there is no worker that no domain has."""
    kept = Kept(tmp_path, shell)
    dice = random.Random(3)
    old = kept.create("old")
    expected: dict[str, int] = {}
    for number in range(kills):
        stop = threading.Event()
        client = threading.Thread(target=come_and_go, args=(kept, number, expected, stop))
        client.start()
        client.join(dice.random() * 1.5)
        kept.server.stop(signal.SIGKILL)
        stop.set()
        client.join()
        kept.restart()
        kept.answers("old", f"echo {number}")
        assert kept.domain("old")["pid"] == old["pid"] and kept.domain("old")["domid"] == old["domid"]
        for name, pid in expected.items():
            assert kept.domain(name)["pid"] == pid
            kept.answers(name, f"still {number}")
        until(lambda: workers(kept) == {domain["pid"] for domain in kept.api.get("/domains").json()}, 60)
    for domain in kept.api.get("/domains").json():
        kept.api.delete(f"/domains/{domain['uuid']}")
    assert kept.end(signal.SIGTERM) == 0
    until(lambda: not kept.keeper)


def workers(kept: Kept) -> set[int]:
    return {worker for child in children(kept.keeper) for worker in children(child)}


def come_and_go(kept: Kept, number: int, expected: dict[str, int], stop: threading.Event) -> None:
    """Creates and destroys domains until Domain 0 has gone.

    :param expected: names and process ids of those that must be there afterwards.
    """
    transport = httpx.HTTPTransport(uds=str(kept.server.socket))
    with (
        suppress(httpx.HTTPError),
        closing(httpx.Client(transport=transport, base_url="http://d/v1", timeout=60)) as api,
    ):
        for turn in range(1000):
            name = f"d{number}x{turn}"
            answer = api.post("/domains", json={"name": name, "kernel": kept.shell, "memory_mib": 8})
            if answer.status_code == 201:
                expected[name] = api.get(f"/domains/{name}").json()["pid"]
            if len(expected) > 2 or stop.is_set():
                oldest = next(iter(expected))
                del expected[oldest]  # it may be there or not, whatever is answered
                api.delete(f"/domains/{oldest}")


def test_the_unit_for_systemd_leaves_workers_alone() -> None:
    unit = (Path(__file__).parents[2] / "docs" / "guide" / "domzero.service").read_text()
    assert re.search(r"^KillMode=process$", unit, re.MULTILINE) and "--keep-domains" in unit


def test_the_keeper_serves_nobody_else(kept: Kept) -> None:
    """A connection while Domain 0 is there is closed at once; the socket's mode lets other users make none."""
    path = kept.directory / "d.sock.db.keeper"
    assert path.stat().st_mode & 0o077 == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(path))
        assert sock.recv(100) == b""
    kept.create("alone")
    kept.api.delete("/domains/alone")
