# SPDX-License-Identifier: Apache-2.0
"""Core dumps that are asked for, and those that a configuration wants (what they say: tests/guest/test_coredump.py)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from created import changed
from dom0_server import Server
from waiting import until

Json = dict[str, object]
Create = Callable[..., Json]


def is_core(path: Path) -> bool:
    done = subprocess.run(["readelf", "-hSW", path], capture_output=True, text=True)
    return done.returncode == 0 and "CORE (Core file)" in done.stdout and ".xen_pages" in done.stdout


def test_a_running_domain_is_dumped_and_goes_on(
    server: Server, api: httpx.Client, create: Create, tmp_path: Path
) -> None:
    domain = create("dumped")
    path = tmp_path / "core"
    answer = api.post(f"/domains/{domain['uuid']}/core", json={"path": str(path)})
    changed(api, answer)
    assert answer.status_code == 202 or answer.json() == {"path": str(path), "bytes": path.stat().st_size}
    assert is_core(path) and path.stat().st_mode & 0o777 == 0o600
    before = path.stat().st_ino
    assert server.cli("dump-core", "dumped", str(path)).returncode == 0  # replaces it
    assert is_core(path) and path.stat().st_ino != before
    assert os.listdir(tmp_path) == ["core"]
    api.post(f"/domains/{domain['uuid']}/console", json={"data": "echo still here\n"})
    until(lambda: b"still here\r\n" in api.get(f"/domains/{domain['uuid']}/console").content)
    assert api.get(f"/domains/{domain['uuid']}/audit").json()["problems"] == []


def test_a_core_dump_that_cannot_be_written_leaves_nothing(
    server: Server, api: httpx.Client, create: Create, tmp_path: Path
) -> None:
    domain = create("kept")
    path = f"/domains/{domain['uuid']}/core"
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/null")
    for bad in (
        "core",
        "",
        "/no/such/directory/core",
        str(tmp_path),
        f"{tmp_path}/fifo",
        f"{tmp_path}/link",
        "/a\0b",
        "/",
        "//",
    ):
        answer = api.post(path, json={"path": bad})
        assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "path", bad
    assert sorted(os.listdir(tmp_path)) == ["fifo", "link"]
    assert server.cli("dump-core", "kept", f"{tmp_path}/no/core").returncode == 2
    assert server.cli("dump-core", "nobody", f"{tmp_path}/core").returncode == 1


@pytest.mark.parametrize("action", ["coredump-destroy", "coredump-restart"])
def test_a_crash_leaves_the_core_that_was_asked_for(
    server: Server, api: httpx.Client, create: Create, action: str
) -> None:
    server.dumps.mkdir(exist_ok=True)
    domain = create(action, on_crash=action)
    api.post(f"/domains/{domain['uuid']}/console", json={"data": "fault\n"})
    core = server.dumps / f"{action}.core"
    until(core.exists)
    assert is_core(core)
    if action == "coredump-destroy":
        until(lambda: not api.get(f"/domains/{domain['uuid']}").json()["exists"])
        assert api.get(f"/domains/{domain['uuid']}").json()["exit"]["reason"] == "crash"
    else:
        until(lambda: api.get(f"/domains/{domain['uuid']}").json()["reboots"] == 1)
    assert os.listdir(server.dumps) == [core.name]
    core.unlink()


def test_a_preserved_domain_can_be_dumped_after_its_end(api: httpx.Client, create: Create, tmp_path: Path) -> None:
    domain = create("late", on_crash="preserve")
    path = f"/domains/{domain['uuid']}"
    api.post(f"{path}/console", json={"data": "fault\n"})
    until(lambda: api.get(path).json()["state"] == "crashed")
    assert api.post(f"{path}/core", json={"path": f"{tmp_path}/core"}).status_code == 201
    assert is_core(tmp_path / "core")
    api.delete(path)
    assert api.post(f"{path}/core", json={"path": f"{tmp_path}/late"}).status_code == 409


def test_a_worker_that_dies_while_it_dumps_leaves_no_file(
    api: httpx.Client, create: Create, server: Server, tmp_path: Path
) -> None:
    domain = create("dies")
    pid = int(str(domain["pid"]))
    os.kill(pid, signal.SIGSTOP)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero/v1") as other:
        task = other.post(f"/domains/{domain['uuid']}/core", json={"path": f"{tmp_path}/core"}, timeout=30)
    assert task.status_code == 202 and len(os.listdir(tmp_path)) == 1
    os.kill(pid, signal.SIGKILL)
    until(lambda: api.get(f"/tasks/{task.json()['id']}").json()["state"] == "failed")
    assert os.listdir(tmp_path) == []
