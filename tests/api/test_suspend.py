# SPDX-License-Identifier: Apache-2.0
"""Suspended and saved domains at Domain 0's doors, with a small guest."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from kept import Kept
from runtime_dir import short_runtime_directory
from waiting import until
from xenapi_client import over_socket

Create = Callable[..., dict[str, Any]]


def post(api: httpx.Client, path: str, body: dict[str, Any] | None = None, **query: Any) -> dict[str, Any]:
    """A request that may become a task, to its end."""
    response = api.post(path, json=body, params=query)
    found: dict[str, Any] = response.json()
    while response.status_code == 202 and found["state"] == "running":
        found = api.get(f"/tasks/{found['id']}", params={"wait": 60}).json()
    assert response.is_success and not found.get("error"), found
    return found


def refusal(method: Any, *parameters: Any) -> list[str]:
    """How XenAPI refuses a message."""
    with pytest.raises(XenAPI.Failure) as caught:
        method(*parameters)
    details: list[str] = caught.value.details
    return details


def says(api: httpx.Client, name: str, text: str) -> None:
    until(lambda: text in api.get(f"/domains/{name}/console").text, what=text)


def answers(api: httpx.Client, name: str, word: str) -> None:
    """The guest reads its console, and answers there."""
    assert api.post(f"/domains/{name}/console", json={"data": f"echo {word}\n"}).is_success
    says(api, name, f"{word}\r\n")


@pytest.fixture
def keeps(server: Server) -> Path:
    """Where Domain 0 keeps suspended domains."""
    return server.socket.with_name("d.sock.suspended")


def test_a_domain_is_suspended_and_resumed(api: httpx.Client, create: Create, keeps: Path) -> None:
    create("sus", persistent=True)
    says(api, "sus", "hello")
    post(api, "/domains/sus/suspend")
    found = api.get("/domains/sus").json()
    assert (found["state"], found["domid"], found["exists"]) == ("suspended", None, False)
    (file,) = keeps.iterdir()
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == (f"{found['uuid']}.save", 0o600)
    for request, method in (("start", "POST"), ("pause", "POST"), ("suspend", "POST"), ("shutdown", "POST")):
        assert api.request(method, f"/domains/sus/{request}").status_code == 409, request
    assert api.patch("/domains/sus", json={"memory_target_mib": 8}).status_code == 409
    post(api, "/domains/sus/resume")
    says(api, "sus", "resumed\r\n")
    answers(api, "sus", "again")
    assert not list(keeps.iterdir())
    assert api.post("/domains/sus/resume").status_code == 409
    assert api.get("/domains/sus/audit").json() == {"problems": []}
    post(api, "/domains/sus/suspend")
    post(api, "/domains/sus/resume", paused=True)
    assert api.get("/domains/sus").json()["state"] == "paused"
    assert api.post("/domains/sus/unpause").is_success
    answers(api, "sus", "thrice")


def test_what_ends_a_suspended_domain_removes_its_file(api: httpx.Client, create: Create, keeps: Path) -> None:
    create("gone", persistent=True)
    says(api, "gone", "hello")
    post(api, "/domains/gone/suspend")
    post(api, "/domains/gone/reset")
    assert not list(keeps.iterdir())
    says(api, "gone", "hello")
    post(api, "/domains/gone/suspend")
    assert api.delete("/domains/gone/definition").status_code == 204
    assert not list(keeps.iterdir())


def test_a_domain_that_is_not_defined_is_saved_to_a_file_only(
    api: httpx.Client, create: Create, tmp_path: Path
) -> None:
    create("once")
    says(api, "once", "hello")
    assert api.post("/domains/once/suspend").status_code == 409
    path = tmp_path / "once.save"
    assert post(api, "/domains/once/save", {"path": str(path)}).get("bytes", path.stat().st_size) == path.stat().st_size
    assert api.get("/domains", params={"name": "once"}).json() == []
    post(api, "/restore", {"path": str(path)})
    says(api, "once", "resumed\r\n")
    answers(api, "once", "here")


def test_a_checkpoint_goes_on_and_is_restored_under_other_names(
    api: httpx.Client, create: Create, tmp_path: Path
) -> None:
    uuid = create("check")["uuid"]
    says(api, "check", "hello")
    path = str(tmp_path / "check.save")
    post(api, "/domains/check/save", {"path": path, "leave_running": True})
    says(api, "check", "went on\r\n")
    answers(api, "check", "still")
    assert api.post("/restore", json={"path": path}).status_code == 409, "its name is taken"
    for name in ("check-2", "check-3"):
        post(api, "/restore", {"path": path, "name": name})
        says(api, name, "resumed\r\n")
        answers(api, name, name)
    assert api.get("/domains/check-2").json()["uuid"] not in (uuid, api.get("/domains/check-3").json()["uuid"])
    post(api, "/domains/check/save", {"path": path, "leave_paused": True})
    assert api.get("/domains/check").json()["state"] == "paused"
    assert api.post("/domains/check/unpause").is_success
    answers(api, "check", "at-last")


def test_a_guest_goes_on_when_its_file_cannot_be_written(api: httpx.Client, create: Create) -> None:
    create("full")
    says(api, "full", "hello")
    full = api.post("/domains/full/save", json={"path": "/dev/shm/nowhere/x"})
    assert (full.status_code, full.json()["errors"][0]["field"]) == (422, "path")
    answers(api, "full", "fine")
    relative = api.post("/domains/full/save", json={"path": "x.save"})
    assert relative.status_code == 422
    answers(api, "full", "here")


@pytest.mark.parametrize(
    "content", [b"", b"no such thing at all, but long enough to be read", b"DZSAVED\n\2\0\0\0\0\0\0\0"]
)
def test_what_is_no_saved_domain_is_refused(api: httpx.Client, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.save"
    path.write_bytes(content)
    refused = api.post("/restore", json={"path": str(path)})
    assert refused.status_code == 422 and refused.json()["detail"].startswith(f"{path}: ")


def test_a_damaged_file_makes_no_domain(api: httpx.Client, create: Create, tmp_path: Path) -> None:
    create("damaged")
    says(api, "damaged", "hello")
    path = tmp_path / "d.save"
    post(api, "/domains/damaged/save", {"path": str(path)})
    data = bytearray(path.read_bytes())
    data[-100] ^= 4
    path.write_bytes(data)
    refused = api.post("/restore", json={"path": str(path)})
    assert refused.status_code == 422 and "damaged" in refused.json()["detail"]
    assert api.get("/domains").json() == []
    data[-100] ^= 4
    path.write_bytes(data)
    post(api, "/restore", {"path": str(path)})
    answers(api, "damaged", "whole")


def test_a_suspended_domain_whose_file_is_damaged_stays_suspended(
    api: httpx.Client, create: Create, keeps: Path
) -> None:
    create("bad", persistent=True)
    says(api, "bad", "hello")
    post(api, "/domains/bad/suspend")
    (file,) = keeps.iterdir()
    data = bytearray(file.read_bytes())
    data[-60] ^= 1
    file.write_bytes(data)
    assert api.post("/domains/bad/resume").status_code == 422
    assert api.get("/domains/bad").json()["state"] == "suspended"
    data[-60] ^= 1
    file.write_bytes(data)
    post(api, "/domains/bad/resume")
    answers(api, "bad", "whole")


def test_cancelling_lets_the_guest_go_on(api: httpx.Client, create: Create, keeps: Path) -> None:
    create("cancel", persistent=True)
    says(api, "cancel", "hello")
    assert api.post("/domains/cancel/console", json={"data": "echo spins\nspin\n"}).is_success
    says(api, "cancel", "spins\r\n")  # it does not answer any more
    task = api.post("/domains/cancel/suspend").json()
    assert (task["state"], task["step"]) == ("running", "the guest suspends itself")
    assert api.delete(f"/tasks/{task['id']}").json()["state"] == "cancelled"
    assert api.get("/domains/cancel").json()["state"] in ("running", "blocked")
    assert not list(keeps.iterdir())


def test_both_are_roles_matters_and_leave_a_line(api: httpx.Client, create: Create, tmp_path: Path) -> None:
    create("lines", persistent=True)
    says(api, "lines", "hello")
    path = str(tmp_path / "lines.save")
    post(api, "/domains/lines/save", {"path": path, "leave_running": True})
    post(api, "/domains/lines/suspend")
    post(api, "/domains/lines/resume")
    identity = api.get("/domains/lines").json()["uuid"]
    lines = api.get("/audit", params={"domain": identity}).json()
    actions = [(line["action"], line["outcome"]) for line in lines]
    assert actions[:3] == [("domain.resume", "ok"), ("domain.suspend", "ok"), ("domain.save", "ok")]


def test_xenapi_suspends_and_resumes(server: Server, api: httpx.Client, create: Create) -> None:
    identity = create("xapi", persistent=True)["uuid"]
    says(api, "xapi", "hello")
    x = over_socket(server.socket).xenapi
    vm = x.VM.get_by_uuid(identity)
    assert "suspend" in x.VM.get_allowed_operations(vm)
    assert refusal(x.VM.resume, vm, False, False) == ["VM_BAD_POWER_STATE", vm, "suspended", "running"]
    x.VM.suspend(vm)
    record = x.VM.get_record(vm)
    assert (record["power_state"], record["domid"], record["resident_on"]) == ("Suspended", "-1", "OpaqueRef:NULL")
    assert record["suspend_VDI"] == "OpaqueRef:NULL", "its state is Domain 0's own file"
    assert set(record["allowed_operations"]) == {"resume", "resume_on", "hard_shutdown"}
    assert refusal(x.VM.start, vm, False, False)[0] == "VM_BAD_POWER_STATE"
    task = x.Async.VM.resume(vm, False, False)
    until(lambda: x.task.get_status(task) == "success")
    assert x.VM.get_power_state(vm) == "Running"
    answers(api, "xapi", "there")
    x.VM.suspend(vm)
    x.VM.hard_shutdown(vm)
    assert x.VM.get_power_state(vm) == "Halted"


def test_the_verbs(server: Server, api: httpx.Client, create: Create, tmp_path: Path) -> None:
    create("verbs", persistent=True)
    says(api, "verbs", "hello")
    path = str(tmp_path / "verbs.save")
    for words in (
        ("suspend", "verbs"),
        ("resume", "verbs"),
        ("save", "-c", "verbs", path),
        ("restore", "--name", "other", path),
        ("xl", "save", "-c", "other", path),
        ("xl", "save", "other", path),
        ("xl", "restore", path),
    ):
        done = server.cli(*words)
        assert done.returncode == 0, (words, done.stderr)
    answers(api, "verbs", "one")
    answers(api, "other", "two")
    failed = server.cli("xl", "restore", str(tmp_path / "nothing"))
    assert failed.returncode == 3
    assert server.cli("resume", "verbs").returncode == 1


def test_a_killed_domain_0_leaves_the_running_domain_or_the_suspended_one(shell: str, tmp_path: Path) -> None:
    with short_runtime_directory():
        kept = Kept(tmp_path, shell)
        try:
            kept.create("k", persistent=True)
            kept.type("k", "echo spins\nspin\n")
            until(lambda: "spins\r\n" in kept.console("k"))
            task = kept.api.post("/domains/k/suspend").json()
            assert task["state"] == "running"
            kept.restart()
            assert kept.domain("k")["state"] in ("running", "blocked")
            kept.api.post("/domains/k/reset")
            until(lambda: kept.console("k").count("hello") == 2)
            post(kept.api, "/domains/k/suspend")
            kept.restart()
            assert kept.domain("k")["state"] == "suspended"
            post(kept.api, "/domains/k/resume")
            kept.answers("k", "back")
            kept.restart()
            kept.answers("k", "kept")
        finally:
            kept.api.delete("/domains/k")
            kept.api.delete("/domains/k/definition")
            assert kept.end(15) == 0
    assert os.listdir(tmp_path / "d.sock.suspended") == []
