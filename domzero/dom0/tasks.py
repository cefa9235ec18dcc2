# SPDX-License-Identifier: Apache-2.0
"""Work that takes longer: it can be found again, watched and cancelled; how it ended is kept in the database."""

from __future__ import annotations

import asyncio
import contextvars
import time
import uuid
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from domzero.dom0.database import Database
from domzero.dom0.events import Journal, Operation
from domzero.errors import DomzeroError

KEPT = 256
RESULT_MAX = 4096


class TaskState(str, Enum):
    """Where a task is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskLost(DomzeroError):
    """The Domain 0 that did it has ended."""


@dataclass(slots=True, eq=False)
class Task:
    """One piece of work.

    :param actor: who asked for it.
    :param domain: that it is about.
    :param job: None for one of an earlier Domain 0.
    :param progress: 0 to 1.
    :param error: how it failed.
    """

    kind: str
    actor: str
    domain: uuid.UUID | None
    job: asyncio.Task[Any] | None = None
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    state: TaskState = TaskState.RUNNING
    progress: float = 0.0
    created_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    error: BaseException | None = None
    result: str = ""

    async def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is over, at most so many seconds; whether it is."""
        if self.job is not None and not self.job.done():
            await asyncio.wait({self.job}, timeout=timeout)
        return self.job is None or self.job.done()


_current: contextvars.ContextVar[Task | None] = contextvars.ContextVar("task", default=None)


def report_progress(fraction: float) -> None:
    """Says how far the task has come in which this is called, if it is one."""
    if (task := _current.get()) is not None:
        task.progress = min(1.0, max(task.progress, fraction))


class Tasks:
    """The tasks that somebody may still ask for."""

    def __init__(self, database: Database, events: Journal) -> None:
        self._database = database
        self._events = events
        self._tasks: OrderedDict[uuid.UUID, Task] = OrderedDict()
        self._load()

    def _load(self) -> None:
        for row in self._database.rows("SELECT * FROM tasks ORDER BY created_at DESC LIMIT ?", (KEPT,))[::-1]:
            domain = None if row["domain"] is None else uuid.UUID(row["domain"])
            task = Task(row["kind"], row["actor"], domain, None, uuid.UUID(row["id"]), TaskState(row["state"]))
            task.created_at, task.ended_at, task.result = row["created_at"], row["ended_at"], row["result"] or ""
            if task.state is TaskState.RUNNING:
                task.state, task.ended_at = TaskState.FAILED, task.created_at
                task.error = TaskLost("Domain 0 ended before it was done")
                self._save(task)
            elif row["message"] is not None:
                task.error = DomzeroError(row["message"])
            task.progress = 1.0 if task.state is TaskState.DONE else 0.0
            self._tasks[task.id] = task

    def begin(self, kind: str, work: Coroutine[Any, Any, Any], actor: str, domain: uuid.UUID | None) -> Task:
        """Starts work that can be asked for from now on."""
        task = Task(kind, actor, domain)

        async def run() -> Any:
            _current.set(task)
            return await work

        task.job = asyncio.get_running_loop().create_task(run())
        task.job.add_done_callback(lambda _: self._ended(task))
        self._tasks[task.id] = task
        self._save(task)
        self._events.note("task", task.id, Operation.ADD)
        for old in list(self._tasks.values()):
            if len(self._tasks) <= KEPT:
                break
            if old.state is not TaskState.RUNNING:
                self.forget(old)
        return task

    def _ended(self, task: Task) -> None:
        job = task.job
        assert job is not None
        task.ended_at = time.time()
        if job.cancelled():
            task.state = TaskState.CANCELLED
        elif (error := job.exception()) is not None:
            task.state, task.error = TaskState.FAILED, error
        else:
            task.state, task.progress = TaskState.DONE, 1.0
        if task.id in self._tasks and not self._database.is_closed:
            self._save(task)
            self._events.note("task", task.id)

    def _save(self, task: Task) -> None:
        message = None if task.error is None else str(task.error)[:RESULT_MAX]
        with self._database.write() as cursor:
            cursor.execute(
                "INSERT OR REPLACE INTO tasks (id, kind, actor, domain, state, created_at, ended_at, code, message, "
                "result) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    str(task.id),
                    task.kind,
                    task.actor,
                    None if task.domain is None else str(task.domain),
                    task.state.value,
                    task.created_at,
                    task.ended_at,
                    None if task.error is None else type(task.error).__name__,
                    message,
                    task.result[:RESULT_MAX],
                ),
            )

    def get(self, task_id: uuid.UUID) -> Task | None:
        """A task that is kept."""
        return self._tasks.get(task_id)

    def all(self) -> list[Task]:
        """All that are kept, oldest first."""
        return list(self._tasks.values())

    def cancel(self, task: Task) -> None:
        """Gives work up that is under way; what it has begun is taken back."""
        if task.job is not None:
            task.job.cancel()

    def forget(self, task: Task) -> None:
        """Nobody asks for it any more."""
        if self._tasks.pop(task.id, None) is not None:
            with self._database.write() as cursor:
                cursor.execute("DELETE FROM tasks WHERE id = ?", (str(task.id),))
            self._events.note("task", task.id, Operation.DEL)

    async def close(self) -> None:
        """Gives up what is under way."""
        jobs = [task.job for task in self._tasks.values() if task.job is not None and not task.job.done()]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
