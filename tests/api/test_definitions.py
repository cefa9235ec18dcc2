# SPDX-License-Identifier: Apache-2.0
"""Domains that are defined: they are halted after their end, and are there after Domain 0's."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from created import changed
from dom0_server import Server
from waiting import until

Json = dict[str, object]


@pytest.fixture
def define(api: httpx.Client, shell: str) -> Callable[..., Json]:
    def define(name: str, **fields: object) -> Json:
        body = {"name": name, "kernel": shell, "memory_mib": 16, "persistent": True, "start": False, **fields}
        answer = api.post("/domains", json=body)
        assert answer.status_code == 201, answer.text
        domain: Json = answer.json()
        return domain

    return define


def state(api: httpx.Client, domain: Json) -> object:
    return api.get(f"/domains/{domain['uuid']}").json()["state"]


def test_a_definition_starts_ends_and_starts_again(api: httpx.Client, define: Callable[..., Json]) -> None:
    domain = define("web", labels={"owner": "anna"}, description="the shop")
    path = f"/domains/{domain['uuid']}"
    assert (domain["state"], domain["domid"], domain["exists"]) == ("halted", None, False)
    assert domain["labels"] == {"owner": "anna"} and domain["description"] == "the shop"
    assert api.get("/domains").json() == []
    assert [each["name"] for each in api.get("/domains", params={"halted": True}).json()] == ["web"]
    for _ in range(2):
        changed(api, api.post(f"{path}/start"))
        until(lambda: api.get(path).json()["cpu_time_seconds"] > 0)
        assert api.post(f"{path}/start").status_code == 409
        assert api.delete(path).status_code == 204  # pulls the plug
        ended = api.get(path).json()
        assert (ended["state"], ended["exit"]["reason"]) == ("halted", "destroyed")
    changed(api, api.post(f"{path}/start", params={"paused": True}))
    assert state(api, domain) == "paused"
    assert api.delete(f"{path}/definition").status_code == 204  # it goes on, as any other
    assert api.get(path).json()["persistent"] is False
    assert api.delete(path).status_code == 204
    assert api.get(path).json()["state"] == "destroyed"


def test_what_halted_domains_cannot_do_is_said(api: httpx.Client, define: Callable[..., Json], shell: str) -> None:
    domain = define("web")
    path = f"/domains/{domain['uuid']}"
    for method, what in (("POST", "/pause"), ("POST", "/shutdown"), ("GET", "/vcpus"), ("GET", "/audit")):
        answer = api.request(method, path + what)
        assert (answer.status_code, "is halted" in answer.json()["detail"]) == (409, True), what
    taken = api.post("/domains", json={"name": "web", "kernel": shell})
    assert (taken.status_code, taken.json()["code"]) == (409, "DUPLICATE_VM")
    assert api.post("/domains", json={"name": "x", "kernel": shell, "start": False}).status_code == 422
    assert api.post("/domains", json={"name": "x", "kernel": shell, "autostart": True}).status_code == 422
    started = {"name": "x", "kernel": shell, "persistent": True, "template": True}
    assert api.post("/domains", json=started).status_code == 422
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def test_a_template_does_not_start(api: httpx.Client, define: Callable[..., Json]) -> None:
    domain = define("mould", template=True)
    answer = api.post(f"/domains/{domain['uuid']}/start")
    assert (answer.status_code, answer.json()["detail"].startswith("mould is a template")) == (409, True)


def test_a_start_that_fails_leaves_it_halted_with_the_reason(api: httpx.Client, define: Callable[..., Json]) -> None:
    domain = define("broken", kernel="/nowhere/vmlinuz")
    answer = api.post(f"/domains/{domain['uuid']}/start")
    assert answer.status_code == 422 and "/nowhere/vmlinuz" in answer.json()["detail"]
    after = api.get(f"/domains/{domain['uuid']}").json()
    assert (after["state"], after["exit"]["reason"]) == ("halted", "failed")


def test_the_definition_of_a_halted_domain_is_changed(
    api: httpx.Client, define: Callable[..., Json], shell: str, tmp_path: Path
) -> None:
    domain = define("web", max_vcpus=2)
    path = f"/domains/{domain['uuid']}"
    image = tmp_path / "disk"
    image.write_bytes(bytes(1 << 20))
    assert api.post(f"{path}/disks", json={"spec": f"{image},raw,xvdb"}).json()["vdev"] == "xvdb"
    assert api.post(f"{path}/disks", json={"spec": f"{image},raw,xvdb"}).status_code == 422
    assert api.post(f"{path}/vifs", json={"spec": "bridge=none-of-all"}).json()["state"] == 0
    assert api.patch(f"{path}/vifs/0", json={"link": "down"}).json()["link"] == "down"
    assert api.patch(f"{path}/disks/xvdb", json={"iops": 100}).json()["iops"] == 100
    shop = api.patch(path, json={"name": "shop", "vcpus": 2, "cpu_weight": 512, "autostart": True}).json()
    assert (shop["name"], shop["vcpus"], shop["cpu_weight"], shop["autostart"]) == ("shop", 2, 512, True)
    changed(api, api.post(f"{path}/start"))
    started = api.get(path).json()
    assert (started["vcpus"], len(started["disks"]), len(started["vifs"])) == (2, 1, 1)
    assert api.put(path, json={"name": "shop", "kernel": shell}).status_code == 409
    assert api.delete(path).status_code == 204
    assert api.delete(f"{path}/vifs/0").status_code == 204 and api.delete(f"{path}/disks/xvdb").status_code == 204
    body = {"name": "other", "kernel": shell, "memory_mib": 24, "persistent": True, "start": False}
    again = api.put(path, json=body).json()
    assert (again["name"], again["memory_mib"], again["uuid"], again["disks"]) == ("other", 24, domain["uuid"], [])


def test_definitions_are_there_after_a_kill_and_say_so(tmp_path: Path, shell: str) -> None:
    """Its own Domain 0, killed while one runs: the next has all of them, and starts those that it should. An interface
    has the address that it had."""
    vifs = [f"bridge=defined{os.getpid()}"]

    def client(server: Server) -> httpx.Client:
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero/v1", timeout=60
        )

    server = Server(tmp_path)
    with client(server) as api:
        defined: dict[str, Json] = {"auto": {"autostart": True}, "ran": {"start": True, "vifs": vifs}, "rests": {}}
        for name, fields in defined.items():
            body = {"name": name, "kernel": shell, "memory_mib": 16, "persistent": True, "start": False, **fields}
            assert api.post("/domains", json=body).status_code in (201, 202)
        until(lambda: api.get("/domains/ran").json()["state"] in ("running", "blocked"))
        worker = api.get("/domains/ran").json()["pid"]
        mac = api.get("/domains/ran/vifs").json()[0]["mac"]
        assert mac.startswith("00:16:3e:")
        pending = {"name": "x", "kernel": shell, "memory_mib": 24, "vifs": vifs}
        assert api.put("/domains/ran/next-config", json=pending).json()["memory_mib"] == 16
    server.stop(signal.SIGKILL)
    until(lambda: not Path(f"/proc/{worker}").exists())
    server = Server(tmp_path)
    try:
        with client(server) as api:
            until(lambda: api.get("/domains/auto").json()["exists"])
            ran, rests = api.get("/domains/ran").json(), api.get("/domains/rests").json()
            assert (ran["name"], ran["memory_mib"]) == ("ran", 24)  # what it was to start with next
            assert (ran["state"], ran["exit"]["message"]) == ("halted", "destroyed: Domain 0 was killed while it ran")
            assert (rests["state"], rests["exit"]) == ("halted", None)
            changed(api, api.post("/domains/ran/start"))
            assert api.get("/domains/ran/vifs").json()[0]["mac"] == mac
    finally:
        assert server.stop() == 0
    server = Server(tmp_path)
    try:
        with client(server) as api:
            names = {domain["name"] for domain in api.get("/domains", params={"halted": True}).json()}
            assert names == {"auto", "ran", "rests"}
    finally:
        assert server.stop() == 0


def test_the_verbs_define_start_and_change(server: Server, api: httpx.Client, shell: str) -> None:
    made = server.cli("create", "--define", "--kernel", shell, "--memory", "16", "--name", "web")
    assert (made.returncode, made.stderr) == (0, "domain web is defined\n")
    assert "web" not in server.cli("list").stdout
    row = next(line for line in server.cli("list", "--all").stdout.splitlines() if line.startswith("web"))
    assert row.split() == ["web", "-", "0", "1", "------", "0.0"]
    changed = server.cli("set", "web", "--autostart", "on", "--label", "team=red", "--label", "x=1", "--label", "x=")
    assert changed.returncode == 0
    domain = api.get("/domains/web").json()
    assert (domain["autostart"], domain["labels"]) == (True, {"team": "red"})
    assert server.cli("start", "web", "nobody").returncode == 1
    assert api.get("/domains/web").json()["state"] == "halted", "of a list with a slip in it, none is started"
    started = server.cli("start", "--paused", "web")
    assert started.returncode == 0 and started.stderr.startswith("domain web is domain ")
    assert api.get("/domains/web").json()["state"] == "paused"
    first = api.get("/domains/web").json()["domid"]
    assert server.cli("reset", "web").returncode == 0
    assert api.get("/domains/web").json()["domid"] != first
    assert server.cli("undefine", "web").returncode == 0 and server.cli("destroy", "web").returncode == 0
    assert server.cli("start", "web").returncode == 1
    assert server.cli("set", "web").returncode == 2
