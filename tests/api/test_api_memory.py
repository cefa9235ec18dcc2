# SPDX-License-Identifier: Apache-2.0
"""How much memory domains have and may have, over HTTP: target, limit, and what Domain 0 accounts for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from waiting import until

Create = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(120)
MIB = 256
"""Frames."""
SLACK = 256
"""Frames that a domain may have beyond its limit, as xl's may."""


def console(api: httpx.Client, name: str) -> str:
    return api.get(f"/domains/{name}/console").text


def said(api: httpx.Client, name: str, line: str, answer: str) -> None:
    """Types a line, and waits for one more of these answers."""
    before = console(api, name).count(answer)
    api.post(f"/domains/{name}/console", json={"data": line + "\n"})
    until(lambda: console(api, name).count(answer) > before, what=f"{answer!r} after {line!r}")


def memory(api: httpx.Client, name: str) -> tuple[int, int, int]:
    """Target, limit, and what it has."""
    domain = api.get(f"/domains/{name}").json()
    return domain["memory_target_mib"], domain["memory_limit_mib"], domain["current_memory_mib"]


def until_memory(api: httpx.Client, name: str, wanted: tuple[int, int, int]) -> None:
    """Workers are not asked each time."""
    until(lambda: memory(api, name) == wanted, what=f"{wanted}, and not {memory(api, name)}")


def wait_booted(api: httpx.Client, name: str, times: int = 1) -> None:
    until(lambda: console(api, name).count("hello") >= times, what="its start")


def test_a_memory_target_reaches_the_guest_and_has_bounds(api: httpx.Client, create: Create) -> None:
    create("balloon")
    wait_booted(api, "balloon")
    assert api.patch("/domains/balloon", json={"memory_target_mib": 8}).json()["memory_target_mib"] == 8
    said(api, "balloon", "store memory/target", "value 8192")
    for target in (17, 3):
        refused = api.patch("/domains/balloon", json={"memory_target_mib": target})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "memory_target_mib")


def test_a_domain_has_no_more_than_its_target_unless_its_limit_is_higher(api: httpx.Client, create: Create) -> None:
    assert create("larger", maxmem_mib=24)["maxmem_mib"] == 24
    wait_booted(api, "larger")
    said(api, "larger", "store memory/static-max", "value 24576")
    until_memory(api, "larger", (16, 16, 16))
    said(api, "larger", "take 9999", f"took {SLACK}\r\n")
    assert api.patch("/domains/larger", json={"memory_target_mib": 20}).status_code == 200
    said(api, "larger", "take 9999", f"took {4 * MIB}\r\n")
    until_memory(api, "larger", (20, 20, 21))
    assert api.patch("/domains/larger", json={"memory_limit_mib": 22}).status_code == 200
    said(api, "larger", "take 9999", f"took {2 * MIB}\r\n")
    said(api, "larger", "store memory/target", "value 20480")
    until_memory(api, "larger", (20, 22, 23))
    for limit in (19, 25):
        refused = api.patch("/domains/larger", json={"memory_limit_mib": limit})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "memory_limit_mib")
    assert api.patch("/domains/larger", json={"memory_target_mib": 25}).status_code == 422
    # A lower target takes nothing away: the guest gives it back.
    assert api.patch("/domains/larger", json={"memory_target_mib": 18}).status_code == 200
    until_memory(api, "larger", (18, 18, 23))
    said(api, "larger", "take 1", "took 0\r\n")
    said(api, "larger", "give 1500", "gave 1500\r\n")
    said(api, "larger", "take 9999", f"took {1500 - 4 * MIB}\r\n")
    until_memory(api, "larger", (18, 18, 19))
    assert api.get("/domains/larger/audit").json()["problems"] == []


def test_a_domain_starts_again_with_its_memory_target(api: httpx.Client, create: Create) -> None:
    create("anew", maxmem_mib=32)
    wait_booted(api, "anew")
    api.patch("/domains/anew", json={"memory_target_mib": 8, "memory_limit_mib": 32})
    until_memory(api, "anew", (8, 32, 16))
    api.post("/domains/anew/console", json={"data": "reboot\n"})
    wait_booted(api, "anew", times=2)
    until(lambda: bool(api.get("/domains/anew").json()["reboots"] == 1), what="the restart")
    until_memory(api, "anew", (8, 8, 8))
    again = api.get("/domains/anew").json()
    assert (again["memory_mib"], again["maxmem_mib"]) == (8, 32)
    assert api.patch("/domains/anew", json={"memory_target_mib": 32}).status_code == 200


def test_a_domain_cannot_be_promised_what_the_host_has_not(api: httpx.Client, create: Create, host_mib: int) -> None:
    create("greedy", maxmem_mib=host_mib + 1)
    wait_booted(api, "greedy")
    for field in ("memory_target_mib", "memory_limit_mib"):
        refused = api.patch("/domains/greedy", json={field: host_mib + 1})
        assert (refused.status_code, refused.json()["code"]) == (409, "HOST_NOT_ENOUGH_FREE_MEMORY")
        assert refused.json()["errors"][0]["field"] == field
    until_memory(api, "greedy", (16, 16, 16))


@pytest.fixture
def host_mib(api: httpx.Client) -> int:
    return int(api.get("/host").json()["total_memory"])


def test_less_than_its_start_is_no_maximum(api: httpx.Client) -> None:
    refused = api.post("/domains", json={"name": "less", "kernel": "/k", "memory_mib": 16, "maxmem_mib": 15})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "maxmem_mib")
