# SPDX-License-Identifier: Apache-2.0
"""Weights: what two busy domains get of one processor. Measured by the host, while both want all of it."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from created import created
from dom0_server import Server
from waiting import until

from domzero.dom0.weights import NICE

Create = Callable[..., dict[str, Any]]
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="vCPUs are told from other threads by their processor"),
]
PR_CAPBSET_DROP, CAP_SYS_NICE = 24, 23
MEASURED_NS = 400_000_000
"""Of both together: 100 times what a scheduler lets a thread run at once."""


def spin(api: httpx.Client, name: str) -> None:
    until(lambda: "hello" in api.get(f"/domains/{name}/console").text)
    assert api.post(f"/domains/{name}/console", json={"data": "spin\n"}).status_code == 204
    until(lambda: vcpu_ns(api, name) > 10_000_000, what="a busy domain")


def thread_of(api: httpx.Client, name: str) -> Path:
    """Of its vCPU: the one thread that may only run on one processor, when the one before has gone."""
    tasks = Path(f"/proc/{api.get(f'/domains/{name}').json()['pid']}/task")
    found: list[Path] = []

    def is_one() -> bool:
        found[:] = []
        for task in tasks.iterdir():
            with suppress(ProcessLookupError):
                if len(os.sched_getaffinity(int(task.name))) == 1:
                    found.append(task)
        return len(found) == 1

    until(is_one)
    return found[0]


def vcpu_ns(api: httpx.Client, name: str) -> int:
    return int((thread_of(api, name) / "schedstat").read_text().split()[0])


def measured(api: httpx.Client) -> float:
    """How much more the first gets, of what both get."""
    threads = [thread_of(api, name) / "schedstat" for name in ("first", "second")]

    def used() -> list[int]:
        return [int(thread.read_text().split()[0]) for thread in threads]

    before = used()
    until(lambda: sum(used()) - sum(before) >= MEASURED_NS, what="work of two domains")
    first, second = (now - then for now, then in zip(used(), before, strict=True))
    return first / second


def until_measured(api: httpx.Client, ratio: float) -> None:
    """Waits until it is so: the kernel takes some time to know how busy a group is."""
    until(lambda: measured(api) == pytest.approx(ratio, rel=0.15), what=f"a ratio of {ratio}")


def weighed(api: httpx.Client, name: str, weight: int) -> None:
    answer = api.patch(f"/domains/{name}", json={"cpu_weight": weight})
    assert (answer.status_code, answer.json()["cpu_weight"]) == (200, weight)


def until_told(api: httpx.Client, **steps: int) -> None:
    """Waits until the host has been told how far domains are behind the heaviest: it takes few changes of groups a
    second."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    for name, behind in steps.items():
        group = Path(f"/proc/{api.get(f'/domains/{name}').json()['pid']}/autogroup")

        def is_told(name: str = name, behind: int = behind, group: Path = group) -> bool:
            thread = os.getpriority(os.PRIO_PROCESS, int(thread_of(api, name).name))
            return thread == own + NICE + behind and (
                not (group.exists() and group.read_text()) or group.read_text().endswith(f"nice {NICE + behind}\n")
            )

        until(is_told, what=f"{behind} steps of {name}")


def check_that_weights_hold(api: httpx.Client, create: Create) -> None:
    processor = str(max(os.sched_getaffinity(0)))
    create("first", cpus=[processor], cpu_weight=512)
    create("second", cpus=[processor])
    spin(api, "first")
    spin(api, "second")
    until_told(api, first=0, second=3)
    until_measured(api, 2)
    weighed(api, "second", 128)
    until_told(api, first=0, second=6)
    until_measured(api, 4)
    weighed(api, "second", 1024)  # it needs a nice value back
    until_told(api, first=3, second=0)
    until_measured(api, 0.5)
    weighed(api, "first", 1024)
    until_told(api, first=0, second=0)
    until_measured(api, 1)


def test_weights_hold_between_busy_domains(api: httpx.Client, create: Create) -> None:
    check_that_weights_hold(api, create)


def test_a_weight_stays_over_a_reboot_and_is_shown(server: Server, api: httpx.Client, create: Create) -> None:
    processor = str(min(os.sched_getaffinity(0)))
    create("first", cpus=[processor])
    create("second", cpus=[processor], cpu_weight=300)
    assert server.cli("sched-credit2", "-d", "first", "-w", "600").returncode == 0
    rows = [line.split() for line in server.cli("sched-credit2").stdout.splitlines()[1:]]
    assert [(row[0], *row[2:]) for row in rows] == [("first", "600", "0"), ("second", "300", "0")]
    shown = json.loads(server.cli("sched-credit2", "--json").stdout)
    assert [domain["cpu_weight"] for domain in shown] == [600, 300]
    for words in (("-w", "10"), ("-d", "first", "-w", "0"), ("-d", "first", "-w", "65536")):
        assert server.cli("sched-credit2", *words).returncode == 2
    until(lambda: "hello" in api.get("/domains/second/console").text)
    until_told(api, first=0, second=3)
    assert api.post("/domains/second/reboot").status_code == 202
    until(lambda: api.get("/domains/second").json()["reboots"] == 1)
    until(lambda: api.get("/domains/second").json()["state"] in ("running", "blocked"))
    assert api.get("/domains/second").json()["cpu_weight"] == 300
    until_told(api, first=0, second=3)
    api.delete("/domains/first")
    until_told(api, second=0)


@pytest.fixture
def ordinary(tmp_path: Path) -> Iterator[Server]:
    """A Domain 0 that may not raise priorities, whoever runs this."""

    def drop() -> None:
        if os.geteuid() == 0:
            assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0) == 0

    server = Server(tmp_path, before=drop)
    yield server
    assert server.stop() == 0


def test_weights_hold_without_the_right_to_raise_priorities(ordinary: Server, shell: str) -> None:
    transport = httpx.HTTPTransport(uds=str(ordinary.socket))
    with httpx.Client(transport=transport, base_url="http://domzero/v1", timeout=60) as api:

        def create(name: str, **fields: Any) -> dict[str, Any]:
            answer = api.post("/domains", json={"name": name, "kernel": shell, "memory_mib": 16, **fields})
            return created(api, answer)

        check_that_weights_hold(api, create)
        of_thread = vcpu_ns(api, "first") / 1e9
        seconds = api.get("/domains/first/vcpus").json()[0]["cpu_time_seconds"]
        assert seconds > of_thread + 0.1  # of the thread that it had before, too
