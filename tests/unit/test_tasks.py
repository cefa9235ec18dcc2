# SPDX-License-Identifier: Apache-2.0
"""Tasks: found again, watched, cancelled; and what is left of them when Domain 0 is killed."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from domzero.dom0.actors import OWNER
from domzero.dom0.api.asking import perform_or_task
from domzero.dom0.database import Database
from domzero.dom0.events import Journal
from domzero.dom0.tasks import KEPT, Tasks, TaskState, report_progress
from domzero.errors import ConfigError, DomzeroError


async def work(go: asyncio.Event, error: DomzeroError | None = None) -> str:
    report_progress(0.25)
    await go.wait()
    if error is not None:
        raise error
    return "done"


def test_a_task_is_watched_and_ends() -> None:
    async def scene() -> None:
        with closing(Database()) as database:
            tasks, go, domain = Tasks(database, Journal(database)), asyncio.Event(), uuid4()
            task = tasks.begin("domain.start", work(go), "anna", domain)
            bad = tasks.begin("domain.start", work(go, ConfigError("no", key="kernel")), "anna", None)
            assert not await task.wait(0.01)
            assert (task.state, task.progress, task.domain) == (TaskState.RUNNING, 0.25, domain)
            assert tasks.get(task.id) is task and tasks.all() == [task, bad]
            go.set()
            assert await task.wait() and await bad.wait()
            await asyncio.sleep(0)
            assert (task.state, task.progress) == (TaskState.DONE, 1.0)
            assert (bad.state, str(bad.error)) == (TaskState.FAILED, "kernel: no")
            tasks.forget(task)
            assert tasks.get(task.id) is None

    asyncio.run(scene())


def test_a_task_is_cancelled() -> None:
    async def scene() -> None:
        with closing(Database()) as database:
            tasks = Tasks(database, Journal(database))
            task = tasks.begin("domain.start", work(asyncio.Event()), "anna", None)
            await asyncio.sleep(0)
            tasks.cancel(task)
            await task.wait()
            await asyncio.sleep(0)
            assert (task.state, task.error) == (TaskState.CANCELLED, None)

    asyncio.run(scene())


def test_what_a_killed_domain_0_was_doing_has_failed_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "d.db"

    async def before() -> None:
        with closing(Database(path)) as database:
            tasks, go = Tasks(database, Journal(database)), asyncio.Event()
            go.set()
            for kind, job, actor in (("a", work(go), "anna"), ("b", work(go, DomzeroError("no")), "bob")):
                await tasks.begin(kind, job, actor, None).wait()
            tasks.begin("c", work(asyncio.Event()), "anna", None)
            await asyncio.sleep(0)

    asyncio.run(before())
    with closing(Database(path)) as database:
        found = [(task.kind, task.actor, task.state) for task in Tasks(database, Journal(database)).all()]
        assert found == [
            ("a", "anna", TaskState.DONE),
            ("b", "bob", TaskState.FAILED),
            ("c", "anna", TaskState.FAILED),
        ]
        last = Tasks(database, Journal(database)).all()[-1]
        assert str(last.error) == "Domain 0 ended before it was done"


def test_the_oldest_that_are_over_are_forgotten_and_none_that_runs() -> None:
    async def scene() -> None:
        with closing(Database()) as database:
            tasks, go, never = Tasks(database, Journal(database)), asyncio.Event(), asyncio.Event()
            go.set()
            running = tasks.begin("runs", work(never), "anna", None)
            for _ in range(KEPT + 10):
                await tasks.begin("ends", work(go), "anna", None).wait()
                await asyncio.sleep(0)
            assert len(tasks.all()) == KEPT and tasks.get(running.id) is running
            assert database.rows("SELECT count(*) FROM tasks")[0][0] == KEPT
            await tasks.close()

    asyncio.run(scene())


@pytest.mark.parametrize("fraction", [-1.0, 0.5, 2.0])
def test_progress_outside_a_task_is_nothing(fraction: float) -> None:
    report_progress(fraction)


def test_a_request_whose_task_is_given_up_meanwhile_gets_that_task() -> None:
    async def scene() -> None:
        with closing(Database()) as database:
            tasks = Tasks(database, Journal(database))
            begun = tasks.begin("image.import", work(asyncio.Event()), "anna", None)
            services: Any = SimpleNamespace(tasks=tasks, actions=SimpleNamespace(begin=lambda actor, action: begun))
            asking = asyncio.create_task(perform_or_task(services, OWNER, cast(Any, None), cast(Any, None)))
            await asyncio.sleep(0)
            tasks.cancel(begun)
            answer = await asking
            assert (answer.status_code, json.loads(answer.body)["state"]) == (202, "cancelled")
            assert tasks.get(begun.id) is begun

    asyncio.run(scene())
