# SPDX-License-Identifier: Apache-2.0
"""The life of domains, over HTTP against a real Domain 0 with real workers."""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from building import build_shell
from created import created
from dom0_server import Server, children
from waiting import unchanged, until

from domzero.dom0.weights import NICE

Create = Callable[..., dict[str, object]]


def console(api: httpx.Client, key: object) -> str:
    return api.get(f"/domains/{key}/console").content.decode()


def type_line(api: httpx.Client, key: object, line: str) -> None:
    assert api.post(f"/domains/{key}/console", json={"data": line + "\n"}).status_code == 204


def booted(api: httpx.Client, key: object, times: int = 1) -> None:
    until(lambda: len(re.findall("hello.*\n", console(api, key))) == times, what="the guest's greeting, all of it")


def gone(api: httpx.Client, key: object) -> dict[str, object]:
    domain: dict[str, object] = api.get(f"/domains/{key}/wait", params={"timeout": 30}).json()
    assert domain["exists"] is False
    return domain


def test_a_domain_is_created_runs_and_can_be_found_by_uuid_name_and_domid(api: httpx.Client, create: Create) -> None:
    domain = create("life", cmdline="some words")
    booted(api, "life")
    assert console(api, "life") == "hello some words\r\n"
    for key in (domain["uuid"], domain["domid"], "life"):
        assert api.get(f"/domains/{key}").json()["uuid"] == domain["uuid"]
    assert [found["name"] for found in api.get("/domains").json()] == ["life"]


def test_the_location_of_a_new_domain_is_told(api: httpx.Client, shell: str) -> None:
    identity = str(uuid.uuid4())
    body = {"name": "placed", "kernel": shell, "memory_mib": 16, "uuid": identity}
    response = api.post("/domains", json=body)
    assert response.headers["location"] == f"/v1/domains/{identity}"
    assert response.json()["uuid"] == identity


def test_a_guest_that_powers_off_is_gone_but_its_console_stays(api: httpx.Client, create: Create) -> None:
    create("off")
    booted(api, "off")
    type_line(api, "off", "echo last words")
    type_line(api, "off", "poweroff")
    domain = gone(api, "off")
    assert domain["state"] == "shutdown"
    assert isinstance(domain["exit"], dict) and domain["exit"]["reason"] == "poweroff"
    assert "last words" in console(api, "off")
    assert api.get("/domains").json() == []
    assert [ended["name"] for ended in api.get("/domains", params={"ended": True}).json()] == ["off"]


def test_a_shutdown_is_asked_of_the_guest_through_xenstore(api: httpx.Client, create: Create) -> None:
    create("polite")
    booted(api, "polite")
    assert api.post("/domains/polite/shutdown").status_code == 202
    assert gone(api, "polite")["state"] == "shutdown"
    assert "asked to poweroff" in console(api, "polite")


def test_desired_states_are_reached_by_patch(api: httpx.Client, create: Create) -> None:
    create("desired")
    booted(api, "desired")
    assert api.patch("/domains/desired", json={"state": "paused"}).json()["state"] == "paused"
    assert api.patch("/domains/desired", json={"state": "paused"}).json()["state"] == "paused"
    assert api.patch("/domains/desired", json={"state": "running"}).json()["state"] in ("running", "blocked")
    assert api.patch("/domains/desired", json={"state": "shutdown"}).status_code == 200
    gone(api, "desired")


def test_a_paused_domain_does_nothing_until_it_is_unpaused(api: httpx.Client, create: Create) -> None:
    assert create("asleep", paused=True)["state"] == "paused"
    assert unchanged(lambda: console(api, "asleep")) == ""
    assert api.post("/domains/asleep/unpause").json()["state"] in ("running", "blocked")
    booted(api, "asleep")
    assert api.post("/domains/asleep/pause").json()["state"] == "paused"
    type_line(api, "asleep", "echo awake")
    assert "awake" not in unchanged(lambda: console(api, "asleep"))
    api.post("/domains/asleep/unpause")
    until(lambda: "awake" in console(api, "asleep"))


def test_a_guest_that_waits_is_blocked_and_one_that_computes_is_running(api: httpx.Client, create: Create) -> None:
    create("idle")
    booted(api, "idle")
    until(lambda: bool(api.get("/domains/idle").json()["state"] == "blocked"), what="blocked")
    type_line(api, "idle", "spin")
    until(lambda: bool(api.get("/domains/idle").json()["state"] == "running"), what="running")
    before = api.get("/domains/idle").json()["cpu_time_seconds"]
    until(lambda: bool(api.get("/domains/idle").json()["cpu_time_seconds"] > before + 0.1), what="time used")


@pytest.mark.parametrize("how", ["by request", "by itself"])
def test_a_reboot_starts_it_again_with_another_domid_and_the_same_uuid(
    api: httpx.Client, create: Create, how: str
) -> None:
    domain = create("again")
    booted(api, "again")
    if how == "by request":
        assert api.post("/domains/again/reboot").status_code == 202
    else:
        type_line(api, "again", "reboot")
    booted(api, "again", times=2)
    until(lambda: bool(api.get("/domains/again").json()["state"] in ("running", "blocked")), what="the restart")
    after = api.get("/domains/again").json()
    assert (after["uuid"], after["reboots"]) == (domain["uuid"], 1)
    assert after["domid"] != domain["domid"]
    assert api.get(f"/domains/{domain['domid']}").status_code == 404


def test_what_happens_at_an_end_is_configurable(api: httpx.Client, create: Create) -> None:
    create("keep", on_crash="preserve", on_reboot="destroy")
    booted(api, "keep")
    type_line(api, "keep", "crash")
    until(lambda: bool(api.get("/domains/keep").json()["state"] == "crashed"), what="the crash")
    domain = api.get("/domains/keep/wait").json()
    assert (domain["exists"], domain["exit"]["reason"]) == (True, "crash")
    assert api.post("/domains/keep/pause").status_code == 409
    assert api.delete("/domains/keep").status_code == 204
    create("end", on_reboot="destroy")
    booted(api, "end")
    type_line(api, "end", "reboot")
    ended = gone(api, "end")
    assert isinstance(ended["exit"], dict) and ended["exit"]["reason"] == "reboot"


def test_a_crash_says_why_in_the_domain_and_in_the_log(api: httpx.Client, create: Create) -> None:
    domain = create("faulty")
    booted(api, "faulty")
    type_line(api, "faulty", "fault")
    end = gone(api, "faulty")
    assert end["state"] == "crashed"
    assert isinstance(end["exit"], dict) and "invalid opcode" in str(end["exit"]["message"]).lower()
    log = "\n".join(api.get("/host/dmesg").json()["lines"])
    assert f"(XEN) d{domain['domid']}" in log and "RIP:" in log


def test_destroy_ends_even_a_guest_that_never_listens(api: httpx.Client, create: Create, server: Server) -> None:
    create("deaf")
    booted(api, "deaf")
    type_line(api, "deaf", "spin")
    assert api.delete("/domains/deaf").status_code == 204
    assert api.get("/domains/deaf").json()["state"] == "destroyed"
    assert server.workers() == []
    assert api.delete("/domains/deaf").status_code == 204
    assert api.get("/domains/deaf").status_code == 404


def test_the_death_of_a_worker_is_a_crash_of_its_domain_alone(api: httpx.Client, create: Create) -> None:
    other = create("bystander")
    victim = create("victim", on_crash="destroy")
    booted(api, "victim")
    assert isinstance(victim["pid"], int)
    os.kill(victim["pid"], signal.SIGKILL)
    domain = gone(api, "victim")
    assert domain["state"] == "crashed"
    assert isinstance(domain["exit"], dict) and "SIGKILL" in str(domain["exit"]["message"])
    booted(api, other["uuid"])
    assert "victim" not in [found["name"] for found in api.get("/domains").json()]


def test_a_rename_is_seen_by_name_and_by_the_guest(api: httpx.Client, create: Create) -> None:
    create("old")
    create("taken")
    booted(api, "old")
    assert api.patch("/domains/old", json={"name": "new"}).json()["name"] == "new"
    assert api.get("/domains/old").status_code == 404
    type_line(api, "new", "store name")
    until(lambda: "value new" in console(api, "new"))
    clash = api.patch("/domains/new", json={"name": "taken"})
    assert (clash.status_code, clash.json()["code"]) == (409, "DUPLICATE_VM")
    assert clash.json()["errors"][0]["field"] == "name"


def test_a_guest_sees_only_its_own_home(api: httpx.Client, create: Create) -> None:
    first, second = create("first"), create("second")
    booted(api, "first")
    type_line(api, "first", f"store /local/domain/{second['domid']}/name")
    type_line(api, "first", f"store /local/domain/{first['domid']}/name")
    until(lambda: "error EACCES" in console(api, "first") and "value first" in console(api, "first"))


def test_two_domains_cannot_have_one_name_or_uuid(api: httpx.Client, create: Create, shell: str) -> None:
    domain = create("one")
    same_name = api.post("/domains", json={"name": "one", "kernel": shell})
    assert (same_name.status_code, same_name.json()["errors"][0]["field"]) == (409, "name")
    same_uuid = api.post("/domains", json={"name": "two", "kernel": shell, "uuid": domain["uuid"]})
    assert (same_uuid.status_code, same_uuid.json()["errors"][0]["field"]) == (409, "uuid")


def test_many_domains_one_after_the_other_leave_nothing_behind(
    api: httpx.Client, create: Create, server: Server
) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))

    def threads() -> int:
        return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))

    def one(n: int) -> None:
        create(f"passing-{n}")
        booted(api, f"passing-{n}")
        type_line(api, f"passing-{n}", "poweroff")
        gone(api, f"passing-{n}")

    for n in range(3):
        one(n)
    before = descriptors(), threads()
    for n in range(3, 10):
        one(n)
    until(lambda: (descriptors(), threads()) <= before, what="the end of what belonged to domains")
    assert server.workers() == []


def test_several_domains_run_side_by_side(api: httpx.Client, create: Create, server: Server) -> None:
    names = [f"peer-{n}" for n in range(5)]
    for name in names:
        create(name)
    for name in names:
        booted(api, name)
        type_line(api, name, f"echo I am {name}")
    for name in names:
        until(lambda name=name: f"I am {name}" in console(api, name))  # type: ignore[misc]
    assert len(server.workers()) == 5


def test_more_memory_than_the_host_has_is_refused(api: httpx.Client, shell: str) -> None:
    response = api.post("/domains", json={"name": "huge", "kernel": shell, "memory_mib": 500 * 1024})
    assert (response.status_code, response.json()["code"]) == (409, "HOST_NOT_ENOUGH_FREE_MEMORY")
    assert response.json()["errors"][0]["field"] == "memory_mib"


def test_a_guest_that_crashes_again_and_again_is_restarted_with_a_pause(api: httpx.Client, shell: str) -> None:
    body = {"name": "loop", "kernel": shell, "memory_mib": 16, "on_crash": "restart"}
    created(api, api.post("/domains", json=body))
    for times in (1, 2):
        booted(api, "loop", times)
        type_line(api, "loop", "crash")
    booted(api, "loop", 3)
    assert api.get("/domains/loop").json()["reboots"] == 2


def test_a_preserved_domain_whose_worker_dies_is_gone_with_its_first_reason(api: httpx.Client, create: Create) -> None:
    domain = create("kept", on_poweroff="preserve")
    booted(api, "kept")
    type_line(api, "kept", "poweroff")
    until(lambda: bool(api.get("/domains/kept").json()["state"] == "shutdown"), what="the end")
    assert isinstance(domain["pid"], int)
    os.kill(domain["pid"], signal.SIGKILL)
    until(lambda: not api.get("/domains/kept").json()["exists"], what="the end of its record")
    after = api.get("/domains/kept").json()
    assert (after["state"], after["exit"]["reason"]) == ("shutdown", "poweroff")


def test_a_merge_patch_is_a_patch_and_null_is_no_value(api: httpx.Client, create: Create) -> None:
    create("merge")
    headers = {"Content-Type": "application/merge-patch+json"}
    changed = api.patch("/domains/merge", content=b'{"state": "paused"}', headers=headers)
    assert changed.json()["state"] == "paused"
    refused = api.patch("/domains/merge", content=b'{"name": null}', headers=headers)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "name")


def test_a_domain_may_be_destroyed_while_it_is_built(api: httpx.Client, shell: str, server: Server) -> None:
    answers: list[httpx.Response] = []
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero/v1") as other:
        body = {"name": "early", "kernel": shell, "memory_mib": 2048}
        creator = threading.Thread(target=lambda: answers.append(other.post("/domains", json=body, timeout=60)))
        creator.start()
        until(lambda: api.get("/domains/early").status_code == 200, what="its record")
        assert api.delete("/domains/early").status_code == 204
        creator.join(60)
    assert answers[0].status_code in (201, 202, 409)
    until(lambda: server.workers() == [], what="the end of its worker")


def test_of_two_requests_for_one_name_at_once_one_is_served(api: httpx.Client, shell: str, server: Server) -> None:
    statuses: list[int] = []

    def post() -> None:
        body = {"name": "twin", "kernel": shell, "memory_mib": 16}
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket)), base_url="http://domzero/v1") as one:
            statuses.append(one.post("/domains", json=body, timeout=60).status_code)

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) in ([201, 409, 409, 409], [202, 409, 409, 409])


def test_the_death_of_the_fork_server_ends_its_workers_and_the_next_domain_gets_another(tmp_path: Path) -> None:
    kernel = build_shell(tmp_path)
    first = Server(tmp_path)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(first.socket)), base_url="http://domzero/v1") as api:
            body = {"name": "a", "kernel": kernel, "memory_mib": 16}
            assert api.post("/domains", json=body, timeout=60).status_code in (201, 202)
            until(lambda: bool(api.get("/domains/a").json()["state"] in ("running", "blocked")), what="its start")
            workers = first.workers()
            (fork_server,) = children(first.process.pid)
            os.kill(fork_server, signal.SIGKILL)
            until(lambda: bool(api.get("/domains/a").json()["state"] == "crashed"), what="the crash")
            until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), what="the workers' end")
            assert api.post("/domains", json={**body, "name": "b"}, timeout=60).status_code in (201, 202)
            until(lambda: len(first.workers()) == 1, what="another worker")
    finally:
        assert first.stop() == 0


@pytest.mark.parametrize(("limit", "value"), [(resource.RLIMIT_FSIZE, 1 << 20), (resource.RLIMIT_AS, 300 << 20)])
def test_a_domain_for_which_a_process_may_have_no_room_is_a_problem_and_no_fault(
    tmp_path: Path, limit: int, value: int
) -> None:
    kernel = build_shell(tmp_path)
    server = Server(tmp_path)
    try:
        transport = httpx.HTTPTransport(uds=str(server.socket))
        with httpx.Client(transport=transport, base_url="http://domzero/v1", timeout=60) as api:
            until(lambda: bool(children(server.process.pid)), what="the fork server")
            resource.prlimit(children(server.process.pid)[0], limit, (value, value))
            answer = api.post("/domains", json={"name": "a", "kernel": kernel, "memory_mib": 512})
            problem = answer.json()
            if answer.status_code == 202:
                until(lambda: api.get(f"/tasks/{answer.json()['id']}").json()["state"] == "failed", what="the refusal")
                problem = api.get(f"/tasks/{answer.json()['id']}").json()["error"]
            assert (problem["status"], problem["code"]) == (409, "HOST_NOT_ENOUGH_FREE_MEMORY")
            assert "could not be made" in problem["detail"]
            assert "Traceback" not in "".join(api.get("/host/dmesg").json()["lines"])
            assert server.workers() == []
    finally:
        assert server.stop() == 0


def test_workers_have_less_of_the_processors_than_domain_0(server: Server, create: Create) -> None:
    pid = create("modest")["pid"]
    assert isinstance(pid, int)
    own = os.getpriority(os.PRIO_PROCESS, server.process.pid)
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, own + NICE)
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists() and group.read_text():
        until(lambda: group.read_text().endswith(f"nice {NICE}\n"))
