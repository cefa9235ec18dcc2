# SPDX-License-Identifier: Apache-2.0
"""What VMs have used, as XAPI's clients ask for it."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from uuid import UUID
from xml.etree import ElementTree

import httpx
import pytest
from dom0_server import Server

Create = Callable[..., dict[str, object]]
MINUTE, DAY, MIB = 60, 86400, 1 << 20


@pytest.fixture
def raw(server: Server) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(server.socket))
    return httpx.Client(transport=transport, base_url="http://localhost", timeout=60)


def measured(server: Server, uuid: object, at: int) -> None:
    """Writes into the history what a minute and its hour were."""
    counters = (30 * 10**9, 0, 0, 6000, 600, 0, 0, 120, 240, 0)
    with closing(sqlite3.connect(f"{server.socket}.db", timeout=30)) as database:
        for step in (60, 3600):
            row = (str(uuid), step, at // step * step, 60.0, 16.0, *counters)
            database.execute(f"INSERT OR REPLACE INTO metrics VALUES ({', '.join('?' * len(row))})", row)
        database.commit()


def test_what_was_used_since_a_time_is_told_in_both_forms(server: Server, raw: httpx.Client, create: Create) -> None:
    domain = create("measured", vifs=["bridge=lan8"])
    at = int(time.time()) // MINUTE * MINUTE - 5 * MINUTE
    measured(server, domain["uuid"], at)
    params = {"start": str(at - 1), "json": "true", "vm_uuid": str(domain["uuid"])}
    found = json.loads(raw.get("/rrd_updates", params=params).content)
    names = [each.rpartition(":")[2] for each in found["meta"]["legend"]]
    assert names == ["cpu0", "memory", "vif_0_rx", "vif_0_tx"]
    assert {each.split(":")[2] for each in found["meta"]["legend"]} == {domain["uuid"]}
    (row,) = [each for each in found["data"] if each["t"] == at]
    assert row["values"] == [0.5, 16 * MIB, 4.0, 2.0]
    del params["json"]
    xml = ElementTree.fromstring(raw.get("/rrd_updates", params=params).text)
    assert [each.text for each in xml.findall("meta/legend/entry")] == found["meta"]["legend"]
    (row,) = [each for each in xml.findall("data/row") if each.findtext("t") == str(at)]
    assert [each.text for each in row.findall("v")] == ["0.5000", f"{16 * MIB}.0000", "4.0000", "2.0000"]


def test_a_vms_whole_history_is_a_day_by_minute_and_a_month_by_hour(
    server: Server, raw: httpx.Client, create: Create
) -> None:
    domain = create("whole")
    at = int(time.time()) // MINUTE * MINUTE - 5 * MINUTE
    measured(server, domain["uuid"], at)
    rrd = ElementTree.fromstring(raw.get("/vm_rrd", params={"uuid": str(domain["uuid"])}).text)
    assert [each.findtext("name") for each in rrd.findall("ds")] == ["cpu0", "memory"]
    days, months = rrd.findall("rra")
    assert (days.findtext("pdp_per_row"), len(days.findall("database/row"))) == ("1", DAY // MINUTE)
    assert (months.findtext("pdp_per_row"), len(months.findall("database/row"))) == ("60", 31 * 24)
    last = [row.findtext("v") for row in days.findall("database/row")][-10:]
    assert "0.5000" in last and "NaN" in last


def test_the_hosts_history_is_told_beside_those_of_vms(server: Server, raw: httpx.Client) -> None:
    at = int(time.time()) // MINUTE * MINUTE - 5 * MINUTE
    measured(server, UUID(int=0), at)
    rrd = ElementTree.fromstring(raw.get("/host_rrd").text)
    names = ["cpu_avg", "memory_total_kib", "memory_free_kib"]
    assert [each.findtext("name") for each in rrd.findall("ds")] == names
    rows = [[each.text for each in row] for row in rrd.findall("rra/database/row")]
    assert f"{30 / 60 / (os.cpu_count() or 1):.4f}" in [row[0] for row in rows]
    assert f"{16 << 10}.0000" in [row[2] for row in rows]
    params = {"start": str(at - 1), "json": "true", "host": "true", "vm_uuid": str(UUID(int=1))}
    found = json.loads(raw.get("/rrd_updates", params=params).content)
    kinds = [each.split(":") for each in found["meta"]["legend"]]
    assert [(kind[1], kind[3]) for kind in kinds] == [("host", name) for name in names]
    assert [row["values"][2] for row in found["data"] if row["t"] == at] == [16 << 10]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/rrd_updates?start=x", 400),
        ("/rrd_updates?cf=MAX", 400),
        ("/rrd_updates?start=99999999999", 200),
        ("/rrd_updates?vm_uuid=x", 404),
        ("/vm_rrd", 400),
        ("/host_rrd?session_id=x", 401),
        ("/vncsnapshot", 400),
        ("/vncsnapshot?uuid=7b3c2f4e-0000-4000-8000-000000000000", 404),
        ("/vncsnapshot?session_id=x", 401),
        ("/vm_rrd?uuid=7b3c2f4e-0000-4000-8000-000000000000", 404),
        ("/vm_rrd?uuid=7b3c2f4e-0000-4000-8000-000000000000&session_id=x", 401),
    ],
)
def test_wrong_questions_have_answers(raw: httpx.Client, path: str, status: int) -> None:
    assert raw.get(path).status_code == status
