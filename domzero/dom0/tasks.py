# SPDX-License-Identifier: Apache-2.0
"""Work that takes longer: it can be found again, watched and cancelled; how it ended is kept in the database.

Every door's tasks are in one book: what was begun over REST is a task object of XenAPI's, and the other way round. A
client of XenAPI's may also keep tasks for work of its own, and says itself how that goes.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from domzero.dom0.database import Database
from domzero.dom0.events import Journal, Operation
from domzero.errors import DomzeroError

KEPT = 1000
UNDER_WAY_OF_USER_MAX = 400
"""Tasks of one user's that are not over, with which they may still begin another one over XenAPI."""
RESULT_MAX = 64 << 10
"""Characters of a result; a longer one is kept by nobody."""


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
    :param job: None for one of an earlier Domain 0, and for a client's own.
    :param progress: 0 to 1.
    :param step: what is done now, in words.
    :param error: how it failed.
    :param failure: the same in XenAPI's words, once it is over.
    :param result: what it has given, as text.
    :param name: what a client calls it; empty: its kind is all there is to say.
    :param notes: that clients keep with it.
    :param is_clients: a client does the work, and says how it goes.
    :param session: by which it was asked for.
    :param gives_up: it was cancelled, and takes back what it has begun.
    """

    kind: str
    actor: str
    domain: uuid.UUID | None
    job: asyncio.Task[Any] | None = None
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    state: TaskState = TaskState.RUNNING
    progress: float = 0.0
    step: str = ""
    created_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    error: BaseException | None = None
    failure: list[str] = field(default_factory=list)
    result: str = ""
    name: str = ""
    description: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    is_clients: bool = False
    session: str | None = None
    gives_up: bool = False

    @property
    def is_over(self) -> bool:
        """Whether there will be no more."""
        return self.state is not TaskState.RUNNING

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


def report_domain(identity: uuid.UUID) -> None:
    """Says which domain the task is about in which this is called, if it is one: that was not known at its begin."""
    if (task := _current.get()) is not None:
        task.domain = identity


def report_step(text: str) -> None:
    """Says what is done now in the task in which this is called, if it is one."""
    if (task := _current.get()) is not None:
        task.step = text


class Tasks:
    """The tasks that somebody may still ask for.

    `explain` says an error in XenAPI's words: `failure` of those that end from then on.
    """

    def __init__(self, database: Database, events: Journal) -> None:
        self._database = database
        self._events = events
        self._tasks: OrderedDict[uuid.UUID, Task] = OrderedDict()
        self._jobs: set[asyncio.Task[Any]] = set()
        self.explain: Callable[[BaseException], list[str]] = lambda error: ["INTERNAL_ERROR", type(error).__name__]
        self._load()

    def _load(self) -> None:
        for row in self._database.rows("SELECT * FROM tasks ORDER BY created_at DESC LIMIT ?", (KEPT,))[::-1]:
            domain = None if row["domain"] is None else uuid.UUID(row["domain"])
            task = Task(row["kind"], row["actor"], domain, None, uuid.UUID(row["id"]), TaskState(row["state"]))
            task.created_at, task.ended_at, task.result = row["created_at"], row["ended_at"], row["result"] or ""
            task.name, task.description, task.is_clients = row["name"], row["description"], bool(row["clients"])
            task.notes, task.failure = json.loads(row["notes"]), json.loads(row["failure"])
            task.progress = row["progress"]
            if task.state is TaskState.RUNNING and not task.is_clients:
                task.state, task.ended_at = TaskState.FAILED, task.created_at
                task.error = TaskLost("Domain 0 ended before it was done")
                task.failure = ["INTERNAL_ERROR", str(task.error)]
                self._save(task)
            elif row["message"] is not None:
                task.error = DomzeroError(row["message"])
            self._tasks[task.id] = task

    def begin(
        self,
        kind: str,
        work: Coroutine[Any, Any, Any],
        actor: str,
        domain: uuid.UUID | None,
        *,
        text: Callable[[Any], str] = lambda _: "",
        session: str | None = None,
    ) -> Task:
        """Starts work that can be asked for from now on.

        :param text: makes the task's result of what the work returns.
        """
        task = Task(kind, actor, domain, session=session)

        async def run() -> Any:
            _current.set(task)
            return await work

        task.job = asyncio.get_running_loop().create_task(run())
        task.job.add_done_callback(lambda _: self._ended(task, text))
        self._jobs.add(task.job)
        self._keep(task)
        return task

    def add(self, name: str, description: str, actor: str, session: str | None) -> Task:
        """Keeps a task whose client does the work."""
        task = Task("client", actor, None, name=name, description=description, session=session, is_clients=True)
        self._keep(task)
        return task

    def has_room_for(self, actor: str) -> bool:
        """Whether somebody may begin another one: what is under way is never given up for it."""
        under_way = [task for task in self._tasks.values() if not task.is_over]
        return len(under_way) < KEPT and sum(task.actor == actor for task in under_way) < UNDER_WAY_OF_USER_MAX

    def _keep(self, task: Task) -> None:
        self._tasks[task.id] = task
        self._save(task)
        self._events.note("task", task.id, Operation.ADD)
        for old in list(self._tasks.values()):
            if len(self._tasks) <= KEPT:
                break
            if old.is_over:
                self.forget(old)

    def _ended(self, task: Task, text: Callable[[Any], str]) -> None:
        job = task.job
        assert job is not None
        self._jobs.discard(job)
        task.ended_at, task.step = time.time(), ""
        if job.cancelled():
            task.state = TaskState.CANCELLED
        elif (error := job.exception()) is not None:
            task.state, task.error, task.failure = TaskState.FAILED, error, self.explain(error)
        else:
            task.state, task.progress, task.result = TaskState.DONE, 1.0, text(job.result())
        if task.id in self._tasks and not self._database.is_closed:
            self._save(task)
            self._events.note("task", task.id)

    def finish(self, task: Task, state: TaskState, *, result: str = "", failure: list[str] | None = None) -> None:
        """A client's own work is over."""
        task.progress = 1.0
        self.change(task, state=state, result=result, failure=failure or [])

    def change(self, task: Task, **values: Any) -> None:
        """Sets fields of a task that are its client's to set."""
        for name, value in values.items():
            setattr(task, name, value)
        if task.is_over and task.ended_at is None:
            task.ended_at = time.time()
        if task.id in self._tasks:
            self._save(task)
            self._events.note("task", task.id)

    def _save(self, task: Task) -> None:
        message = None if task.error is None else str(task.error)[:RESULT_MAX]
        with self._database.write() as cursor:
            cursor.execute(
                "INSERT OR REPLACE INTO tasks (id, kind, actor, domain, state, created_at, ended_at, code, message, "
                "result, progress, failure, name, description, notes, clients) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
                    task.result if len(task.result) <= RESULT_MAX else "",
                    task.progress,
                    json.dumps(task.failure),
                    task.name,
                    task.description,
                    json.dumps(task.notes),
                    task.is_clients,
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
            task.gives_up = not task.job.done()
            task.job.cancel()
            self._events.note("task", task.id)
        elif not task.is_over:
            self.finish(task, TaskState.CANCELLED)

    def forget(self, task: Task) -> None:
        """Nobody asks for it any more; work that is under way goes on."""
        if self._tasks.pop(task.id, None) is not None:
            with self._database.write() as cursor:
                cursor.execute("DELETE FROM tasks WHERE id = ?", (str(task.id),))
            self._events.note("task", task.id, Operation.DEL)

    async def close(self) -> None:
        """Gives up what is under way."""
        jobs = [job for job in self._jobs if not job.done()]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
