# SPDX-License-Identifier: Apache-2.0
"""Network interfaces of running domains, over HTTP and by the verbs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import no_confinement
import pytest
import pyxs  # type: ignore[import-untyped]
from building import build_guests
from dom0_server import Server
from runtime_dir import short_runtime_directory
from waiting import until

from domzero.dom0 import network

Json = dict[str, object]
Create = Callable[..., Json]

LAN = f"bridge=test{os.getpid()}"


def test_interfaces_are_attached_listed_and_detached(api: httpx.Client, create: Create) -> None:
    domain = create("one", vifs=[LAN, f"{LAN},mac=00:16:3e:01:02:03"])
    path = f"/domains/{domain['uuid']}/vifs"
    first, second = api.get(path).json()
    assert (second["devid"], second["mac"], second["mtu"]) == (1, "00:16:3e:01:02:03", 1500)
    answer = api.post(path, json={"spec": f"{LAN},mtu=1400"})
    assert answer.status_code == 201 and answer.json()["devid"] == 2
    assert answer.json()["mtu"] == 1400
    assert api.post(path, json={"spec": f"{LAN},mac=00:16:3E:01:02:03"}).status_code == 422  # taken
    assert api.post(path, json={"spec": f"{LAN},devid=1"}).status_code == 422
    assert api.post(path, json={"spec": "bridge=../lan"}).status_code == 422
    assert api.delete(f"{path}/0").status_code == 204
    assert api.delete(f"{path}/0").status_code == 422
    assert api.delete(f"{path}/64").status_code == 422
    # The others are what they were, also after a reboot, and the number is free again.
    kept = api.get(f"/domains/{domain['uuid']}").json()["vifs"]
    assert [text.partition(",")[0] for text in kept] == ["devid=1", "devid=2"]
    assert api.post(path, json={"spec": LAN}).json()["devid"] == 0
    assert [vif["mac"] for vif in api.get(path).json()][:2] == [first["mac"], second["mac"]]


def test_the_rate_and_the_link_change_while_a_domain_runs_and_stay_so(
    api: httpx.Client, server: Server, create: Create
) -> None:
    domain = create("bound", vifs=[f"{LAN},rate=10Mb/s", f"{LAN},link=down"])
    path = f"/domains/{domain['uuid']}/vifs"
    first, second = api.get(path).json()
    assert (first["rate"], first["link"]) == ("10Mb/s", "up")
    assert (second["rate"], second["link"]) == (None, "down")

    def nodes(devid: int) -> dict[str, str]:
        at = f"/local/domain/0/backend/vif/{domain['domid']}/{devid}"
        with pyxs.Client(unix_socket_path=str(server.xenstore)) as store:
            there = {name.decode() for name in store.list(at.encode())}
        return {name: server.read_store(f"{at}/{name}") for name in ("rate", "carrier") if name in there}

    assert nodes(0) == {"rate": "62500,50000", "carrier": "1"} and nodes(1) == {"carrier": "0"}
    changed = api.patch(f"{path}/0", json={"link": "down", "rate": ""}).json()
    assert (changed["rate"], changed["link"]) == (None, "down") and nodes(0) == {"carrier": "0"}
    (vif,) = [
        json.loads(server.cli("network-set", "--json", str(domain["name"]), "1", "link=up", "rate=1MB/s@20ms").stdout)
    ]
    assert (vif["rate"], vif["link"]) == ("1MB/s@20ms", "up") and nodes(1) == {"rate": "20000,20000", "carrier": "1"}
    kept = api.get(f"/domains/{domain['uuid']}").json()["vifs"]
    assert "link=down" in kept[0] and "rate" not in kept[0] and "rate=1MB/s@20ms" in kept[1]
    assert api.patch(f"{path}/0", json={}).json() == changed
    assert api.patch(f"{path}/0", json={"rate": "fast"}).status_code == 422
    assert api.patch(f"{path}/0", json={"link": "sideways"}).status_code == 422
    assert api.patch(f"{path}/9", json={"link": "up"}).status_code == 422
    wrong = server.cli("network-set", str(domain["name"]), "1", "speed=1")
    assert wrong.returncode == 2 and "what is 'speed=1'?" in wrong.stderr


def test_the_verbs_are_those_of_xl(server: Server, create: Create) -> None:
    name = str(create("plugged")["name"])
    assert server.cli("network-attach", name, LAN, "mac=00:16:3e:01:02:04").returncode == 0
    (vif,) = json.loads(server.cli("network-list", "--json", name).stdout)
    assert (vif["devid"], vif["mac"]) == (0, "00:16:3e:01:02:04")
    listed = server.cli("network-list", name).stdout
    assert "00:16:3e:01:02:04" in listed and "/local/domain/0/backend/vif/" in listed
    wrong = server.cli("network-attach", name, "mtu=fast")
    assert wrong.returncode == 2 and "no MTU" in wrong.stderr
    assert server.cli("network-detach", name, "00:16:3E:01:02:04").returncode == 0
    gone = server.cli("network-detach", name, "0")
    assert gone.returncode == 2 and "there is no interface 0" in gone.stderr
    assert json.loads(server.cli("network-list", "--json", name).stdout) == []


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Server]:
    """A Domain 0 with networks of its own."""
    with short_runtime_directory():
        server = Server(tmp_path)
        try:
            yield server
        finally:
            server.process.terminate()
            server.process.wait(60)


def test_what_processes_are_not_confined_by_is_in_the_log(
    tmp_path: Path, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(network.CHOICE, network.OWN)
    server = Server(tmp_path, python_path=no_confinement.python_path(tmp_path / "site"))

    def dmesg() -> str:
        return server.cli("dmesg").stdout

    note = f"(DOM0) the user network of web is not confined by {no_confinement.MISSING}\n"
    try:
        made = server.cli("create", "--name", "web", "--kernel", shell, "--memory", "16", "--vif", "")
        assert made.returncode == 0, made.stderr
        until(lambda: re.search(rf"process \d+ is not confined by {no_confinement.MISSING}\n", dmesg()) is not None)
        assert dmesg().count(note) == 1
        assert server.cli("network-attach", "web", "").returncode == 0
        assert dmesg().count(note) == 2
    finally:
        assert server.stop() == 0


def test_networks_are_listed_with_who_is_on_them(alone: Server, shell: str) -> None:
    assert json.loads(alone.cli("net", "list", "--json").stdout) == []
    missing = alone.cli("net", "show", "lan")
    assert missing.returncode == 2 and "there is no network 'lan'" in missing.stderr
    for name in ("one", "two"):
        assert (
            alone.cli("create", "--name", name, "--kernel", shell, "--memory", "16", "--vif", "bridge=lan").returncode
            == 0
        )
    ended = subprocess.Popen(
        [sys.executable, "-m", "domzero", "net", "capture", "lan", "-w", "-"],
        env=alone.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert ended.stdout is not None and ended.stdout.read(28)[:4] == b"\n\r\r\n"
    ended.send_signal(signal.SIGINT)
    assert b"0 frames captured, 0 left out" in ended.communicate(timeout=60)[1] and ended.returncode == 0
    (lan,) = json.loads(alone.cli("net", "list", "--json").stdout)
    macs = [json.loads(alone.cli("network-list", "--json", name).stdout)[0]["mac"] for name in ("one", "two")]
    assert lan["name"] == "lan" and [(port["domain"], port["devid"]) for port in lan["ports"]] == [
        ("one", 0),
        ("two", 0),
    ]
    assert [port["mac"] for port in lan["ports"]] == macs
    assert "one/0, two/0" in alone.cli("net", "list").stdout and macs[1] in alone.cli("net", "show", "lan").stdout
    assert alone.cli("network-detach", "--force", "one", "0").returncode == 0
    until(lambda: len(json.loads(alone.cli("net", "show", "--json", "lan").stdout)["ports"]) == 1)


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not here: apt-get install tcpdump")
def test_what_passes_is_captured_and_read_by_tcpdump(alone: Server, tmp_path: Path) -> None:
    guests = build_guests(tmp_path / "guests", "devices")
    kernel = str(guests / "64" / "device_net")
    for number in ("1", "2"):
        spec = ["--cmdline", number, "--memory", "16", "--vif", "bridge=lan", "--paused"]
        assert alone.cli("create", "--name", f"n{number}", "--kernel", kernel, *spec).returncode == 0
    whole, one = tmp_path / "lan.pcapng", tmp_path / "one.pcapng"
    commands = [("lan", "-w", str(whole)), ("n2/0", "-w", str(one), "-c", "5", "-s", "30")]
    captures = [
        subprocess.Popen(
            [sys.executable, "-m", "domzero", "net", "capture", *command],
            env=alone.env,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    try:
        until(lambda: all(path.exists() and path.stat().st_size >= 28 for path in (whole, one)))
        for number in ("1", "2"):
            assert alone.cli("unpause", f"n{number}").returncode == 0
        assert captures[1].communicate(timeout=60)[1].splitlines()[-1] == "domzero: 5 frames captured, 0 left out"
        # It ends with the network, which ends with its domains.
        assert captures[0].communicate(timeout=120)[1].endswith(" frames captured, 0 left out\n")
    finally:
        for capture in captures:
            capture.kill()
            capture.wait()
    assert captures[0].returncode == 0 and _read(whole).count("echo reply") >= 40
    assert "ARP, Request who-has 10.0.0.1 tell 10.0.0.2" in _read(whole)
    assert len(_read(one).splitlines()) == 5 and "[|" in _read(one), "frames are cut off behind 30 bytes"


def _read(path: Path) -> str:
    return subprocess.run(
        ["tcpdump", "-n", "-r", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
    ).stdout


def test_a_capture_over_http_ends_by_itself_when_it_is_told_to(api: httpx.Client, create: Create) -> None:
    domain = create("watched", vifs=[LAN])
    path = f"/domains/{domain['uuid']}/vifs"
    answer = api.get(f"{path}/0/capture", params={"timeout": 0.01})
    assert answer.headers["content-type"] == "application/x-pcapng" and answer.content[:4] == b"\n\r\r\n"
    assert api.get(f"{path}/1/capture").status_code == 422
    assert api.get(f"{path}/0/capture", params={"snaplen": 0}).status_code == 422
    assert any(network["name"] == LAN.partition("=")[2] for network in api.get("/networks").json())


@pytest.mark.parametrize("width", ["64", "32"])
def test_a_guest_uses_an_interface_that_is_plugged_in_and_lets_go_of_it(
    alone: Server, tmp_path: Path, width: str
) -> None:
    kernel = str(build_guests(tmp_path / "guests", "devices") / width / "device_net_plug")
    create = alone.cli("create", "--name", "plugged", "--kernel", kernel, "--memory", "16")
    assert create.returncode == 0, create.stderr

    def vifs() -> list[dict[str, int]]:
        found: list[dict[str, int]] = json.loads(alone.cli("network-list", "--json", "plugged").stdout)
        return found

    def get(path: str) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(alone.socket))) as client:
            return client.get(f"http://domzero/v1/domains/plugged{path}")

    def said() -> str:
        return get("/console").text

    def configured() -> list[str]:
        found: list[str] = get("").json()["vifs"]
        return found

    for time in range(2):
        until(lambda: f"ready {time}" in said(), what="a guest that waits")  # noqa: B023 - called in this turn
        assert alone.cli("network-attach", "plugged", "bridge=lan").returncode == 0
        until(lambda: vifs()[0]["state"] == 4 and vifs()[0]["sent_frames"] == 1)
        if time:  # it lets go of it when nobody waits any more
            assert alone.cli("pause", "plugged").returncode == 0
            detached = alone.cli("network-detach", "plugged", "0")
            assert detached.returncode != 0 and "still uses interface 0" in detached.stderr
            assert len(vifs()) == len(configured()) == 1
            assert alone.cli("unpause", "plugged").returncode == 0
            until(lambda: vifs() == [])
        else:
            detached = alone.cli("network-detach", "plugged", "0")
            assert detached.returncode == 0, detached.stderr
        assert vifs() == [] and configured() == []
    assert alone.cli("shutdown", "plugged").returncode == 0
    until(lambda: "PASS net_plug" in said())
    assert "  FAIL" not in said()
