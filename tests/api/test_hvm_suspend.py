# SPDX-License-Identifier: Apache-2.0
"""Domains whose machine is QEMU's are suspended and resumed, saved and restored, through Domain 0."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import until

from domzero.lab.listing import listing

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not here")
Create = Callable[..., dict[str, object]]
READY = "full: ready"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pvh") / "full.elf"
    path.write_bytes(listing("full").pvh_elf())
    return str(path)


def console(api: httpx.Client, name: str) -> str:
    return api.get(f"/domains/{name}/console").text


def clock(api: httpx.Client, name: str) -> int:
    """The guest's time stamp counter: a machine that begins anew begins it anew."""
    until(lambda: READY in console(api, name), 60, "the guest's first words")
    before = console(api, name).count("\n")
    assert api.post(f"/domains/{name}/console", json={"data": "t"}).status_code == 204
    until(lambda: console(api, name).count("\n") > before, 60, "its clock")
    return int(console(api, name).splitlines()[-1], 16)


def done(api: httpx.Client, answer: httpx.Response) -> Any:
    """What came of it, when its task is over."""
    assert answer.status_code < 300, answer.text
    if answer.status_code != 202:
        return answer.json()
    task = answer.json()
    until(lambda: api.get(f"/tasks/{task['id']}").json()["state"] != "running", 60, "the task")
    return api.get(f"/tasks/{task['id']}").json()


def state(api: httpx.Client, name: str) -> str:
    return str(api.get(f"/domains/{name}").json()["state"])


def test_a_pvh_domain_is_suspended_resumed_saved_and_restored(
    api: httpx.Client, create: Create, kernel: str, tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    shape = {"kernel": kernel, "type": "pvh", "engine": "tcg", "memory_mib": 32, "disks": [f"{disk},raw,xvda"]}
    uuid = create("still", **shape, vifs=["bridge=suspended"], persistent=True)["uuid"]
    later = tmp_path / "later.img"
    later.write_bytes(bytes(1 << 20))
    assert api.post("/domains/still/disks", json={"spec": f"{later},raw,xvdb"}).status_code < 300
    first = clock(api, "still")

    done(api, api.post("/domains/still/suspend"))
    domain = api.get("/domains/still").json()
    assert (domain["state"], domain["exists"], domain["pid"]) == ("suspended", False, None)
    assert api.post("/domains/still/start").status_code == 409
    done(api, api.post("/domains/still/resume"))
    second = clock(api, "still")
    assert second > first and console(api, "still").count(READY) == 1 and state(api, "still") == "running"
    assert [each["vdev"] for each in api.get("/domains/still/disks").json()] == ["xvda", "xvdb"]

    # A checkpoint: it goes on, and another one begins there when it has ended.
    path = tmp_path / "still.save"
    done(api, api.post("/domains/still/save", json={"path": str(path), "leave_running": True}))
    third = clock(api, "still")
    assert third > second and path.stat().st_size > 0
    assert api.post("/domains/still/pause").status_code < 300
    done(api, api.post("/domains/still/suspend"))
    assert api.delete("/domains/still").status_code < 300
    assert state(api, "still") == "halted"
    assert api.delete("/domains/still/definition").status_code < 300
    done(api, api.post("/restore", json={"path": str(path), "name": "again"}))
    assert api.get("/domains/again").json()["uuid"] != uuid
    assert "ready" not in console(api, "again")
    assert api.post("/domains/again/console", json={"data": "t"}).status_code == 204
    until(lambda: console(api, "again").count("\n") == 1, 60, "its clock")
    assert second < int(console(api, "again"), 16)

    # What is not of this machine is not gone on with, and says so.
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    damaged = api.post("/restore", json={"path": str(path), "name": "damaged"})
    text = json.dumps(done(api, damaged)) if damaged.status_code == 202 else damaged.text
    assert "the file is damaged" in text
    assert api.get("/domains/damaged").status_code == 404


def test_what_qemu_does_not_migrate_is_refused_by_name_and_runs_on(
    api: httpx.Client, create: Create, kernel: str, tmp_path: Path
) -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not here (qemu-utils)")
    import subprocess

    disk = tmp_path / "disk.vmdk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", disk, "1M"], check=True)
    shape = {"kernel": kernel, "type": "pvh", "engine": "tcg", "memory_mib": 32, "disks": [f"{disk},vmdk,xvda"]}
    create("refused", **shape, persistent=True)
    clock(api, "refused")
    refused = api.post("/domains/refused/suspend")
    assert refused.status_code == 422 and "vmdk format" in refused.text
    until(lambda: state(api, "refused") == "running", 10, "it to go on")
    clock(api, "refused")
