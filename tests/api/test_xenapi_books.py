# SPDX-License-Identifier: Apache-2.0
"""One set of books: what one door has begun another sees and ends, and Domain 0 finds again when it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from waiting import until
from xenapi_client import code_of

from domzero.dom0.api.app import create_app
from domzero.dom0.tasks import TaskState
from domzero.dom0.xenapi.dispatch import dispatch
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.world import Peer
from domzero.errors import ConfigError

PASSWORD = "correct horse"
Send = Callable[..., Coroutine[Any, Any, Any]]


def with_world(scene: Callable[[Any, Send], Coroutine[Any, Any, None]]) -> None:
    """Runs a scene in a Domain 0 without a server, with what sends messages to it as its owner."""

    async def run() -> None:
        app = create_app()
        async with app.router.lifespan_context(app):
            world = app.state.xenapi

            async def bare(method: str, *parameters: Any) -> Any:
                return (await dispatch(world, Peer(over_tcp=False), method, list(parameters))).value

            session = await bare("session.login_with_password", "root", "")
            await scene(app.state.services, lambda method, *parameters: bare(method, session, *parameters))

    asyncio.run(run())


@pytest.mark.usefixtures("machine")
def test_a_task_of_another_door_is_an_object_with_its_end() -> None:
    async def scene(services: Any, send: Send) -> None:
        go = asyncio.Event()

        async def work(error: Exception | None) -> None:
            await go.wait()
            if error is not None:
                raise error

        domain = uuid4()
        tasks = [services.tasks.begin("domain.start", work(error), "anna", domain)
                 for error in (None, ConfigError("no", key="kernel"), RuntimeError())]  # fmt: skip
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        references = [f"OpaqueRef:{task.id}" for task in tasks]
        assert await send("task.get_all") == references
        assert await send("task.get_by_name_label", "domain.start") == references
        assert await send("task.get_status", references[0]) == "pending"
        with pytest.raises(Failure, match="OPERATION_NOT_ALLOWED"):
            await send("task.set_status", references[0], "success")
        go.set()
        for task in tasks:
            await task.wait()
        await asyncio.sleep(0)
        assert [await send("task.get_status", each) for each in references] == ["success", "failure", "failure"]
        assert [await send("task.get_error_info", each) for each in references] == [
            [], ["INVALID_VALUE", "kernel", "kernel: no"], ["INTERNAL_ERROR", "RuntimeError"],
        ]  # fmt: skip

    with_world(scene)


@pytest.mark.usefixtures("machine")
def test_a_task_of_another_door_is_cancelled() -> None:
    async def scene(services: Any, send: Send) -> None:
        begun = asyncio.Event()

        async def work() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)  # takes back what it has begun

        task = services.tasks.begin("domain.create", work(), "owner", None)
        await begun.wait()
        reference = f"OpaqueRef:{task.id}"
        await send("task.cancel", reference)
        await asyncio.sleep(0)
        assert await send("task.get_status", reference) == "cancelling"
        await task.wait()
        await asyncio.sleep(0)
        assert task.state is TaskState.CANCELLED and await send("task.get_status", reference) == "cancelled"
        assert await send("task.get_error_info", reference) == ["TASK_CANCELLED", reference]

    with_world(scene)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], Server]]]:
    """Starts Domain 0, each time with the same database."""
    servers: list[Server] = []

    def start() -> Server:
        if servers:
            assert servers[-1].stop() == 0
        (directory := tmp_path / str(len(servers))).mkdir()
        arguments = ("--listen", "127.0.0.1:0", "--database", str(tmp_path / "d.db"))
        servers.append(Server(directory, *arguments))
        return servers[-1]

    yield tmp_path, start
    assert servers[-1].stop() == 0


def log_in(server: Server, user: str = "root", password: str = "") -> Any:
    session = XenAPI.Session(server.url)
    session.xenapi.login_with_password(user, password or server.token)
    return session


def rest(server: Server) -> httpx.Client:
    return httpx.Client(base_url=f"{server.url}/v1", headers={"Authorization": f"Bearer {server.token}"}, timeout=60)


def test_messages_in_the_background_are_tasks_of_every_door_and_outlive_domain_0(
    places: tuple[Path, Callable[[], Server]],
) -> None:
    server = places[1]()
    session = log_in(server)
    x = session.xenapi
    seen = session.xenapi_request("event.from", (["pbd"], "", 0.0))["token"]
    wait = session.xenapi_request("Async.event.from", (["pbd"], seen, 600.0))
    done = x.Async.SR.get_supported_types()
    vm = x.VM.create({"name_label": "x", "memory_static_max": str(16 << 20)})
    failed = x.Async.VM.unpause(vm)
    own = x.task.create("upload", "of mine")
    x.task.set_progress(own, 0.5)
    x.task.add_to_other_config(own, "a", "b")
    until(lambda: [x.task.get_status(each) for each in (done, failed)] == ["success", "failure"])
    ids = {name: reference.removeprefix("OpaqueRef:") for name, reference in
           (("wait", wait), ("done", done), ("failed", failed), ("own", own))}  # fmt: skip
    with rest(server) as client:
        found = {task["id"]: task for task in client.get("/tasks").json()}
        assert found[ids["wait"]]["kind"] == "Async.event.from" and found[ids["wait"]]["state"] == "running"
        assert (found[ids["failed"]]["state"], found[ids["failed"]]["domain"]) == ("failed", vm[10:])
        assert (found[ids["own"]]["kind"], found[ids["own"]]["name"]) == ("client", "upload")
        assert client.delete(f"/tasks/{ids['wait']}").json()["state"] == "cancelled"
    over = (("wait", wait), ("done", done), ("failed", failed))
    records = {name: x.task.get_record(reference) for name, reference in over}
    assert records["wait"]["status"] == "cancelled"
    again = places[1]()
    y = log_in(again).xenapi
    assert {name: y.task.get_record(f"OpaqueRef:{ids[name]}") for name in records} == records
    assert records["done"]["result"].startswith("<value>") and records["failed"]["error_info"][1] == vm
    record = y.task.get_record(own)
    assert (record["status"], record["progress"], record["other_config"]) == ("pending", 0.5, {"a": "b"})
    assert (record["name_label"], record["name_description"]) == ("upload", "of mine")
    y.task.set_status(own, "success")
    with rest(again) as client:
        assert client.get(f"/tasks/{ids['own']}").json()["state"] == "done"


def test_a_user_sees_and_ends_their_own_tasks(places: tuple[Path, Callable[[], Server]]) -> None:
    server = places[1]()
    with rest(server) as client:
        for name in ("anna", "bob"):
            client.post("/users", json={"name": name, "password": PASSWORD, "role": "read-only"})
        anna, bob = log_in(server, "anna", PASSWORD), log_in(server, "bob", PASSWORD)
        task = anna.xenapi.task.create("mine", "")
        with pytest.raises(XenAPI.Failure, match="RBAC_PERMISSION_DENIED"):
            bob.xenapi.task.cancel(task)
        auth = ("bob", PASSWORD)
        assert httpx.delete(f"{server.url}/v1/tasks/{task[10:]}", auth=auth).status_code == 403
        assert httpx.delete(f"{server.url}/v1/tasks/{task[10:]}", auth=("anna", PASSWORD)).status_code == 200
        assert bob.xenapi.task.get_status(task) == "cancelled"


def test_a_token_of_events_is_good_after_a_restart_and_lost_only_when_that_is_true(
    places: tuple[Path, Callable[[], Server]], shell: str
) -> None:
    session = log_in(places[1]())
    x = session.xenapi
    vms = {name: x.VM.create({"name_label": name, "PV_kernel": shell, "memory_static_max": str(16 << 20)})
           for name in ("stays", "runs", "renamed", "goes")}  # fmt: skip
    x.VM.start(vms["runs"], False, False)
    x.VM.destroy(x.VM.create({"name_label": "gone before", "memory_static_max": str(16 << 20)}))
    before = session.xenapi_request("event.from", (["vm"], "", 0.0))
    assert {event["ref"] for event in before["events"]} >= set(vms.values())
    x.VM.set_name_label(vms["renamed"], "another")  # the token has not seen it
    x.VM.destroy(vms["goes"])

    again = log_in(places[1]())
    after = again.xenapi_request("event.from", (["vm", "console"], before["token"], 0.0))
    seen = {event["ref"]: event["operation"] for event in after["events"] if event["ref"] in vms.values()}
    assert seen == {vms["runs"]: "mod", vms["renamed"]: "mod", vms["goes"]: "del"}
    new = again.xenapi.VM.create({"name_label": "new", "memory_static_max": str(16 << 20)})
    more = again.xenapi_request("event.from", (["vm"], after["token"], 0.0))
    assert [(event["ref"], event["operation"]) for event in more["events"]] == [(new, "add")]
    assert int(more["events"][0]["id"]) > int(max(event["id"] for event in after["events"]))

    (places[0] / "d.db").unlink()  # another book
    assert code_of(log_in(places[1]()), "event.from", ["vm"], more["token"], 0.0) == "EVENTS_LOST"


@pytest.mark.usefixtures("machine")
def test_nothing_is_lost_to_who_reads_while_objects_come_and_go() -> None:
    async def scene(services: Any, send: Send) -> None:
        token = (await send("event.from", ["*"], "", 0.0))["token"]
        assert (await send("event.from", ["*"], token, 0.0))["events"] == []
        vm = await send("VM.create", {"name_label": "a"})
        found = await send("event.from", ["vm"], token, 0.0)
        assert [(each["operation"], each["ref"]) for each in found["events"]] == [("add", vm)]
        await send("VM.set_name_label", vm, "b")
        for since, operation in ((token, "add"), (found["token"], "mod")):
            (event,) = (await send("event.from", ["vm"], since, 0.0))["events"]
            assert (event["operation"], event["snapshot"]["name_label"]) == (operation, "b")
        kinds = {event.kind for event in services.manager.events.since(0)}
        assert kinds and not any("." in kind for kind in kinds)  # REST's readers have their own

    with_world(scene)
