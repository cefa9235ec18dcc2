# SPDX-License-Identifier: Apache-2.0
"""Images over HTTP: brought in, cloned larger, removed, by whom; work on one that is watched and given up."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    unnamed = images.post("/images/imports", json={"file": "a\0b", "name": "other"})
    assert (unnamed.status_code, "no file can have this name" in unnamed.text) == (422, True), unnamed.text
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


def names(dom0: Server) -> set[str]:
    """What is in the directory of images: those that are there, and what is half made."""
    return {path.name for path in (dom0.socket.parent / "data/domzero/images").iterdir()} - {".lock", ".layers"}


def test_a_disk_is_sent_and_kept_with_its_holes(images: httpx.Client, dom0: Server) -> None:
    disk = b"a boot sector".ljust(1 << 20, b"\0") + bytes(7 << 20) + b"the end"
    made(images, images.put("/images/sent", params={"format": "raw", "file": "its name.img"}, content=disk))
    (image,) = [each for each in images.get("/images").json() if each["name"] == "sent"]
    assert (image["bytes"], image["origin"]) == ((8 << 20) + 512, "its name.img (raw), uploaded")
    kept = dom0.socket.parent / "data/domzero/images/sent/disk.raw"
    assert kept.read_bytes().rstrip(b"\0") == disk and kept.stat().st_blocks * 512 < 1 << 20
    again = images.put("/images/sent", content=disk)
    assert again.status_code == 422 and "already" in again.json()["detail"]
    assert images.put("/images/damaged", params={"format": "vmdk"}, content=b"no disk").status_code in (202, 422)

    def audited() -> list[str]:
        return [line["detail"] for line in images.get("/audit").json() if line["action"] == "image.upload"]

    until(lambda: "damaged" in audited()[0], what="the line of what may have become a task")
    images.delete("/images/sent")


@pytest.mark.parametrize("how", ["its sender goes", "its task is cancelled", "there is no room"])
def test_of_a_disk_that_does_not_come_nothing_is_left(images: httpx.Client, dom0: Server, how: str) -> None:
    before = names(dom0)
    length = 1 << 60 if how == "there is no room" else 32 << 20
    head = f"PUT /v1/images/half HTTP/1.1\r\nHost: domzero\r\nContent-Length: {length}\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(dom0.socket))
        client.sendall(head.encode() + bytes(8 << 20))
        if how == "there is no room":
            answer = client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 422 ") and b"there is room for" in answer
        else:
            until(lambda: upload(images)["progress"] >= 0.2, what="a quarter of it")
            assert len(names(dom0)) == len(before) + 1
        if how == "its task is cancelled":
            assert images.delete(f"/tasks/{upload(images)['id']}").json()["state"] == "cancelled"
            assert b'"state":"cancelled"' in client.recv(4096)
    until(lambda: names(dom0) == before, what="nothing of it")
    until(lambda: upload(images)["state"] != "running")
    assert "half" not in {image["name"] for image in images.get("/images").json()}


def upload(images: httpx.Client) -> dict[str, Any]:
    """The last one's task."""
    tasks: list[dict[str, Any]] = images.get("/tasks").json()
    return next((task for task in reversed(tasks) if task["kind"] == "image.upload"), {"progress": 0, "state": ""})


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
                client.put("/images/debian", content=b"a disk"),
            ]
            refused[role] = [answer.status_code for answer in answers]
    assert refused == {
        "read-only": [403, 422, 403, 403, 403, 403, 403],
        "vm-admin": [200, 422, 403, 404, 403, 403, 403],
        "vm-power-admin": [200, 422, 403, 404, 403, 403, 403],
        "pool-operator": [200, 422, 403, 404, 422, 404, 422],
    }


def test_a_kernel_that_is_sent_starts_domains(dom0: Server, images: httpx.Client, shell: str) -> None:
    kernel = Path(shell).read_bytes()
    sent = images.put("/images/mine", params={"kind": "kernel", "cmdline": "a b", "file": "vmlinuz"}, content=kernel)
    assert sent.status_code == 201, sent.text
    image = sent.json()
    assert (image["kind"], image["cmdline"], image["ramdisk"]) == ("kernel", "a b", None)
    assert images.put("/images/mine", params={"kind": "kernel"}, content=kernel).status_code == 422
    assert images.put("/images/mine", content=bytes(4096)).status_code == 422  # a disk of this name
    assert images.put("/images/none/ramdisk", content=b"x").status_code == 404
    bad = images.put("/images/text", params={"kind": "kernel"}, content=b"no kernel")
    assert (bad.status_code, "neither bzImage nor ELF" in bad.text) == (422, True)
    image = images.put("/images/mine/ramdisk", content=b"a ramdisk" * 1000).json()
    assert image["ramdisk"] is not None and image in images.get("/images").json()
    assert "mine" in dom0.cli("image", "list").stdout
    body = {"name": "sent", "memory_mib": 16, **{key: image[key] for key in ("kernel", "ramdisk", "cmdline")}}
    assert images.post("/domains", json=body).status_code in (201, 202)
    until(lambda: "hello" in images.get("/domains/sent/console").text, what="the kernel's greeting")
    images.delete("/domains/sent")
    assert images.delete("/images/mine").status_code == 204
    assert "mine" not in {image["name"] for image in images.get("/images").json()}


@pytest.mark.parametrize(("role", "may_send"), [("vm-admin", False), ("pool-operator", True)])
def test_who_may_send_images_sends_kernels_and_who_makes_domains_uses_them(
    dom0: Server, images: httpx.Client, shell: str, role: str, may_send: bool
) -> None:
    images.post("/users", json={"name": role, "role": role, "password": "correct horse"})
    token = images.post(f"/users/{role}/tokens", json={}).json()["token"]
    if not may_send:
        images.put("/images/theirs", params={"kind": "kernel"}, content=Path(shell).read_bytes())
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"{dom0.url}/v1", headers=headers, timeout=60) as client:
        for path in ("/images/other", "/images/theirs/ramdisk"):
            answer = client.put(path, params={"kind": "kernel"}, content=Path(shell).read_bytes())
            assert (answer.status_code != 403) is may_send, answer.text
        name = "other" if may_send else "theirs"
        image = next(image for image in client.get("/images").json() if image["name"] == name)
        body = {"name": role, "kernel": image["kernel"], "memory_mib": 16, "persistent": True, "start": False}
        assert client.post("/domains", json=body).status_code == 201
        disk = {"spec": f"{image['kernel']},raw,xvda,rw"}
        assert client.post(f"/domains/{role}/disks", json=disk).status_code == 403  # all domains start from it
        assert client.delete(f"/domains/{role}/definition").status_code == 204
    images.delete(f"/images/{name}")
    images.delete(f"/users/{role}")
