# SPDX-License-Identifier: Apache-2.0
"""Images over HTTP: brought in, cloned larger, removed, by whom; work on one that is watched and given up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dom0_server import Server, children
from openapi_check import OpenApi
from waiting import until

SLOW_APT = """#!/bin/sh
exec sleep 600
"""
EMPTY_APT = """#!/bin/sh
exit 0
"""


@pytest.fixture(scope="module")
def dom0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With images of its own, and an apt that knows nothing and takes long over it."""
    directory = tmp_path_factory.mktemp("images")
    tools = directory / "tools"
    tools.mkdir()
    for name, text in (("apt-get", SLOW_APT), ("apt-cache", EMPTY_APT)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (directory / "cache/domzero/grub").mkdir(parents=True)
    (directory / "cache/domzero/grub/grub-x86_64-xen.bin").touch()  # which need not be fetched then
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(directory / "data"))
        patch.setenv("XDG_CACHE_HOME", str(directory / "cache"))
        patch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        server = Server(directory, "--listen", "127.0.0.1:0")
    (directory / "disk.img").write_bytes(bytes(1 << 20))
    yield server
    assert server.stop() == 0


@pytest.fixture
def images(dom0: Server) -> Iterator[httpx.Client]:
    """Its owner; what goes over the wire is as the OpenAPI document says."""
    transport = httpx.HTTPTransport(uds=str(dom0.socket))
    with httpx.Client(transport=transport, base_url="http://domzero/v1", timeout=60) as client:
        openapi = OpenApi(client.get("http://domzero/openapi.json").json())

        def check(response: httpx.Response) -> None:
            response.read()
            openapi.check(response.request, response)

        client.event_hooks = {"response": [check]}
        yield client


def made(client: httpx.Client, answer: httpx.Response) -> None:
    """Waits for what may have become a task."""
    assert answer.status_code in (201, 202), answer.text
    if answer.status_code == 202:
        task = client.get(f"/tasks/{answer.json()['id']}", params={"wait": 60}).json()
        assert task["state"] == "done", task


def test_a_disk_is_imported_cloned_larger_and_removed(images: httpx.Client, dom0: Server) -> None:
    file = str(dom0.socket.parent / "disk.img")
    made(images, images.post("/images/imports", json={"file": file, "name": "base"}))
    assert images.post("/images/imports", json={"file": file, "name": "base"}).status_code in (202, 422)
    made(images, images.post("/images/base/clones", json={"name": "large", "size": "8M"}))
    refused = images.post("/images/base/clones", json={"name": "small", "size": "0M"})
    assert refused.status_code == 422
    found = {image["name"]: image["bytes"] for image in images.get("/images").json()}
    assert found == {"base": 1 << 20, "large": 8 << 20}
    events = images.get("/events", params={"since": 0, "kinds": "image"}).json()["events"]
    assert {event["ref"] for event in events} == {"base", "large"}
    assert images.delete("/images/large").status_code == 204
    assert images.delete("/images/large").status_code == 404
    assert images.delete("/images/debian").status_code == 404
    assert [image["name"] for image in images.get("/images").json()] == ["base"]


def test_what_is_fetched_is_watched_and_given_up_with_all_its_processes(images: httpx.Client, dom0: Server) -> None:
    before = children(dom0.process.pid)
    answer = images.post("/images/fetches", json={})
    assert answer.status_code == 202
    task = f"/tasks/{answer.json()['id']}"
    until(lambda: "package lists" in images.get(task).json()["step"], what="a step")
    (job,) = set(children(dom0.process.pid)) - set(before)
    (apt,) = children(job)
    given_up = images.delete(task).json()
    assert (given_up["state"], given_up["step"]) == ("cancelled", "")
    until(lambda: not Path(f"/proc/{apt}").exists() and children(dom0.process.pid) == before, what="the end")
    audit = images.get("/audit").json()[0]
    assert (audit["action"], audit["outcome"]) == ("image.fetch", "cancelled")


def test_what_cannot_be_built_is_said_at_once(images: httpx.Client) -> None:
    for wrong in (
        {"size": "1M"},
        {"packages": ["-o=x"]},
        {"suite": "sid"},
        {"first_boot": {"ssh_keys": ["no key"]}},
        {"name": "debian"},
        {"mirror": "http://example.org"},
    ):
        answer = images.post("/images/builds", json={"name": "built", **wrong})
        assert answer.status_code == 422, wrong


def test_images_are_for_operators_of_the_pool_and_the_hosts_files_for_its_owner(
    images: httpx.Client, dom0: Server
) -> None:
    file = str(dom0.socket.parent / "disk.img")
    refused: dict[str, list[int]] = {}
    for role in ("read-only", "vm-admin", "vm-power-admin", "pool-operator"):
        images.post("/users", json={"name": role, "role": role})
        token = images.post(f"/users/{role}/tokens", json={}).json()["token"]
        with httpx.Client(base_url=f"{dom0.url}/v1", headers={"Authorization": f"Bearer {token}"}) as client:
            answers = [
                client.get("/images"),
                client.post("/images/fetches", json={"distribution": "x"}),
                client.post("/images/imports", json={"file": file, "name": "stolen"}),
                client.post("/images/nobody/clones", json={"name": "x"}),
                client.post("/images/builds", json={"name": "debian"}),
                client.delete("/images/nobody"),
            ]
            refused[role] = [answer.status_code for answer in answers]
    assert refused == {
        "read-only": [403, 422, 403, 403, 403, 403],
        "vm-admin": [200, 422, 403, 404, 403, 403],
        "vm-power-admin": [200, 422, 403, 404, 403, 403],
        "pool-operator": [200, 422, 403, 404, 422, 404],
    }
