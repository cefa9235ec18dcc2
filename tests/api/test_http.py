# SPDX-License-Identifier: Apache-2.0
"""What HTTP has for programs: entity tags, repeated requests, pages, fields and lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from dom0_server import Server

Json = dict[str, Any]
ALL = {"halted": True}


@pytest.fixture
def define(api: httpx.Client, shell: str) -> Callable[..., Json]:
    def define(name: str, **fields: object) -> Json:
        body = {"name": name, "kernel": shell, "memory_mib": 16, "persistent": True, "start": False, **fields}
        answer = api.post("/domains", json=body)
        assert answer.status_code == 201, answer.text
        domain: Json = answer.json()
        return domain

    return define


def test_a_change_of_what_somebody_else_has_changed_is_refused(api: httpx.Client, define: Callable[..., Json]) -> None:
    path = f"/domains/{define('web')['uuid']}"
    seen = api.get(path).headers["ETag"]
    assert api.get(path, headers={"If-None-Match": seen}).status_code == 304
    assert api.patch(path, json={"description": "mine"}, headers={"If-Match": seen}).status_code == 200
    assert api.get(path, headers={"If-None-Match": seen}).status_code == 200
    for method, body in (("PATCH", {"description": "theirs"}), ("DELETE", None)):
        late = api.request(method, path, json=body, headers={"If-Match": seen})
        assert (late.status_code, late.json()["code"]) == (412, "PRECONDITION_FAILED")
    assert api.get(path).json()["description"] == "mine"
    assert api.delete(path, headers={"If-Match": f'"x", {api.get(path).headers["ETag"]}'}).status_code == 204


def test_a_repeated_request_is_done_once(api: httpx.Client, shell: str, define: Callable[..., Json]) -> None:
    body = {"name": "once", "kernel": shell, "memory_mib": 16, "persistent": True, "start": False}
    headers = {"Idempotency-Key": "a1"}
    first = api.post("/domains", json=body, headers=headers)
    again = api.post("/domains", json=body, headers=headers)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json() and again.headers["Idempotency-Replayed"] == "true"
    other = api.post("/domains", json={**body, "name": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert api.post("/domains", json=body).status_code == 409
    assert api.post("/domains", json=body, headers={"Idempotency-Key": "x" * 201}).status_code == 400


def test_requests_at_the_same_time_with_one_key_are_one(server: Server, api: httpx.Client, shell: str) -> None:
    body = {"name": "race", "kernel": shell, "memory_mib": 16}

    def create(_number: int) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), timeout=60) as client:
            return client.post("http://domzero/v1/domains", json=body, headers={"Idempotency-Key": "race"})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(create, range(4)))
    assert {answer.status_code for answer in answers} <= {201, 202}
    assert len({answer.text for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1


def test_lists_have_pages_fields_filters_and_lines(api: httpx.Client, define: Callable[..., Json]) -> None:
    for number in range(5):
        define(f"w{number}", labels={"team": "red" if number % 2 else "blue", "tier": ""})
    names, target = [], "/domains?halted=true&limit=2&fields=name,state"
    while target:
        answer = api.get(target)
        assert all(set(row) == {"name", "state"} for row in answer.json())
        names += [row["name"] for row in answer.json()]
        if len(names) == 2:
            define("w9")  # comes at the end
        link = answer.links.get("next", {}).get("url", "")
        target = link.removeprefix("/v1")
    assert names == ["w0", "w1", "w2", "w3", "w4", "w9"]

    def found(**query: Any) -> list[str]:
        return [row["name"] for row in api.get("/domains", params={**ALL, **query}).json()]

    assert found(name="w[12]*") == ["w1", "w2"]
    assert found(label="team=red") == ["w1", "w3"]
    assert found(label=["team", "team=blue"]) == ["w0", "w2", "w4"]
    assert found(state="running") == [] and len(found(state=["running", "halted"])) == 6
    lines = api.get("/domains", params=ALL, headers={"Accept": "application/x-ndjson"})
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line)["name"] for line in lines.text.splitlines()] == names
    for query in ({"after": "nonsense"}, {"after": "W10"}, {"fields": "nmae"}, {"limit": 0}):
        assert api.get("/domains", params={**ALL, **query}).status_code == 422, query
