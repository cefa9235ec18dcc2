# SPDX-License-Identifier: Apache-2.0
"""vCPUs of running domains, SysRq and NMIs, over HTTP and by the verbs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import httpx
from dom0_server import Server
from waiting import until

Json = dict[str, object]
Create = Callable[..., Json]


def test_vcpus_are_listed_set_and_pinned(server: Server, api: httpx.Client, create: Create) -> None:
    domain = create("several", vcpus=2, max_vcpus=4)
    assert (domain["vcpus"], domain["max_vcpus"]) == (2, 4)
    path = f"/domains/{domain['uuid']}"
    vcpus = api.get(f"{path}/vcpus").json()
    assert [vcpu["vcpu"] for vcpu in vcpus] == [0, 1, 2, 3]
    assert vcpus[0]["processor"] in os.sched_getaffinity(0) and vcpus[0]["state"] in ("running", "blocked")
    assert {vcpu["state"] for vcpu in vcpus[1:]} == {"offline"}  # this guest's kernel uses one

    def offered() -> list[str]:
        root = f"/local/domain/{domain['domid']}/cpu"
        return [server.read_store(f"{root}/{cpu}/availability") for cpu in range(4)]

    assert offered() == ["online", "online", "offline", "offline"]
    assert server.cli("vcpu-set", "several", "3").returncode == 0
    assert offered() == ["online", "online", "online", "offline"]
    assert api.get(path).json()["vcpus"] == 3
    for count in ("0", "5", "-1"):
        result = server.cli("vcpu-set", "several", count)
        assert result.returncode != 0 and "vcpus" in result.stderr
    assert offered() == ["online", "online", "online", "offline"]

    processor = min(os.sched_getaffinity(0))
    assert server.cli("vcpu-pin", "several", "0", str(processor)).returncode == 0
    assert [vcpu["affinity"] == [processor] for vcpu in api.get(f"{path}/vcpus").json()] == [True, *[False] * 3]
    pid = api.get(path).json()["pid"]
    assert [affinity for affinity in affinities(pid) if affinity == {processor}] == [{processor}]
    assert server.cli("vcpu-pin", "several", "all", "all").returncode == 0
    assert all(affinity == os.sched_getaffinity(0) for affinity in affinities(pid))
    for words in (("0", "4000"), ("9", "all"), ("x", "all"), ("0", "^all")):
        assert server.cli("vcpu-pin", "several", *words).returncode == 2

    lines = server.cli("vcpu-list", "several").stdout.splitlines()
    head = "Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)"
    assert lines[0] == head and len(lines) == 5
    assert lines[4].split() == ["several", str(domain["domid"]), "3", "-", "--p", "0.0", "all", "/", "all"]
    shown = json.loads(server.cli("vcpu-list", "--json").stdout)
    assert [(row["domain"], len(row["vcpus"])) for row in shown] == [("several", 4)]


def affinities(pid: int) -> list[set[int]]:
    """Of each thread of a process, as the host has it."""
    return [os.sched_getaffinity(int(thread)) for thread in os.listdir(f"/proc/{pid}/task")]


def test_changes_are_made_together_or_not_at_all(api: httpx.Client, create: Create) -> None:
    domain = create("whole", max_vcpus=2)
    path = f"/domains/{domain['uuid']}"
    answer = api.patch(path, json={"name": "other", "vcpus": 3})
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "vcpus"
    assert api.get(path).json()["name"] == "whole"
    answer = api.patch(path, json={"name": "other", "vcpus": 2})
    assert answer.status_code == 200 and (answer.json()["name"], answer.json()["vcpus"]) == ("other", 2)


def test_vcpus_keep_to_their_processors_from_the_start(api: httpx.Client, create: Create, shell: str) -> None:
    processor = max(os.sched_getaffinity(0))
    domain = create("kept", vcpus=2, cpus=[str(processor)])
    vcpus = api.get(f"/domains/{domain['uuid']}/vcpus").json()
    assert vcpus[0]["affinity"] == [processor]
    assert vcpus[1]["affinity"] == sorted(os.sched_getaffinity(0))
    body = {"name": "bad", "kernel": shell, "memory_mib": 16, "cpus": ["4000"]}
    answer = api.post("/domains", json=body)
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "cpus"


def test_sysrq_and_nmi_reach_the_domain_or_say_why_not(server: Server, api: httpx.Client, create: Create) -> None:
    domain = create("pressed")
    assert server.cli("sysrq", "pressed", "h").returncode == 0
    assert server.read_store(f"/local/domain/{domain['domid']}/control/sysrq") == "h"
    for key in ("", "hh", "\n", "é"):
        assert server.cli("sysrq", "pressed", key).returncode == 2
    assert server.cli("trigger", "pressed", "nmi").returncode == 0
    assert server.cli("trigger", "pressed", "nmi", "7").returncode == 2
    assert server.cli("trigger", "pressed", "melt").returncode == 2
    assert server.cli("trigger", "pressed", "power").returncode == 0
    after = api.get(f"/domains/{domain['uuid']}/wait").json()
    assert after["exit"]["reason"] == "poweroff"


def test_a_cap_bounds_what_a_busy_domain_uses(server: Server, api: httpx.Client, create: Create) -> None:
    domain = create("busy", cap=20)
    path = f"/domains/{domain['uuid']}"
    assert domain["cap"] == 20
    assert api.post(f"{path}/console", json={"data": "spin\n"}).status_code == 204

    def used() -> float:
        seconds: float = api.get(f"{path}/vcpus").json()[0]["cpu_time_seconds"]
        return seconds

    until(lambda: used() > 0.2)
    began, before = time.monotonic(), used()
    until(lambda: used() >= before + 0.5)
    # More than this the cap never gives, however fast the host is: a load makes it less.
    after = used()
    assert after - before <= 0.2 * (time.monotonic() - began) + 0.1
    assert server.cli("sched-credit2", "-d", "busy", "-c", "0").returncode == 0
    assert api.get(path).json()["cap"] == 0
    lines = server.cli("sched-credit2", "-d", "busy").stdout.splitlines()
    assert lines[0] == "Name                                ID Weight  Cap"
    assert lines[1].split() == ["busy", str(domain["domid"]), "256", "0"]
    for words in (("-c", "10"), ("-d", "busy", "-c", "-1"), ("-d", "busy", "-c", "3201")):
        assert server.cli("sched-credit2", *words).returncode == 2
