# SPDX-License-Identifier: Apache-2.0
"""Metrics of real domains, over HTTP."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from dom0_server import Server
from prometheus_client.parser import text_string_to_metric_families
from waiting import until

Create = Callable[..., dict[str, object]]


def scrape(server: Server) -> str:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero") as client:
        response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return response.text


def values(text: str, domain: str) -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.get(label, "") for label in ("disk", "kind", "interface")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("domain") == domain
    }


def test_what_a_domain_uses_is_shown_to_prometheus(server: Server, create: Create, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    create("shown", disks=[f"{image},raw,xvda,rw"], vifs=["mac=00:16:3e:01:02:03"])
    until(lambda: "hello" in server.cli("console", "--history", "shown").stdout)
    found = values(scrape(server), "shown")
    assert found["domzero_disk_size_bytesxvda"] == 1 << 20
    assert found["domzero_network_up0"] == 1
    assert found["domzero_domain_cpu_seconds_total"] > 0
    assert found["domzero_domain_exits_totalhypercall"] > 0
    assert found["domzero_domain_memory_bytes"] == 16 << 20
    server.cli("console", "shown", stdin="echo again\npoweroff\n")
    until(lambda: not values(scrape(server), "shown"))


def test_promtool_finds_nothing_to_lint(server: Server, create: Create) -> None:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if (promtool := shutil.which("promtool", path=places)) is None:
        pytest.skip("promtool is not here: tools/promtool.sh fetches it from Debian")
    create("linted", vifs=[""])
    result = subprocess.run([promtool, "check", "metrics"], input=scrape(server), capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_all_metrics_at_one_moment_are_json_too(api: httpx.Client, create: Create) -> None:
    domain = create("now", vcpus=2, paused=True)
    until(lambda: bool(api.get("/metrics").json()["domains"]))  # what was measured just before is answered again
    answer = api.get("/metrics").json()
    (found,) = answer["domains"]
    assert (found["uuid"], found["domid"], found["state"]) == (domain["uuid"], domain["domid"], "paused")
    assert len(found["vcpu_time_seconds"]) == found["vcpus"] == 2
    assert {each["kind"] for each in found["exits"]} >= {"hypercall"}
    assert answer["host"]["nr_cpus"] >= 1


def test_the_past_of_a_domain_is_read_in_steps(server: Server, api: httpx.Client, create: Create) -> None:
    domain = create("past", paused=True)
    minute = int(time.time()) // 3600 * 3600 - 3600
    with closing(sqlite3.connect(f"{server.socket}.db", timeout=20)) as database, database:
        for n in range(2):
            row = (domain["uuid"], 60, minute + 60 * n, 30.0, 16.0, 15 * 10**9, *range(9))
            database.execute(f"INSERT INTO metrics VALUES ({', '.join('?' * len(row))})", row)
    path = f"/domains/{domain['uuid']}/metrics"
    points = api.get(path, params={"since": f"{minute}"}).json()["points"]
    assert [(point["seconds"], point["cpu"], point["memory_mib"]) for point in points[:2]] == [(30.0, 0.5, 16.0)] * 2
    assert points[0]["disk_writes"] == round(1 / 30, 3)
    (both,) = api.get(path, params={"since": f"{minute}", "step": 120}).json()["points"][:1]
    assert (both["seconds"], both["cpu"]) == (60.0, 0.5)
    assert api.get(path, params={"since": f"{minute}", "step": 3600}).json() == {"step": 3600, "points": []}
    for bad in ({"step": 61}, {"step": 3660}, {"step": 1}, {"since": "2026-01-01T00:00:00"}, {"since": "x"}):
        assert api.get(path, params=bad).status_code == 422, bad
    assert api.get(path, params={"since": "9999-12-31T23:59:59Z"}).json()["points"] == []
    assert api.get(path, params={"since": "0001-01-01T00:00:00Z"}).status_code == 200
    assert api.get("/domains/nobody/metrics").status_code == 404
