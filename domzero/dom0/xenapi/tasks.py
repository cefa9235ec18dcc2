# SPDX-License-Identifier: Apache-2.0
"""Tasks: what `Async.` gives at once, and what clients make for themselves."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from domzero.dom0.xenapi.failure import Failure, failure_of
from domzero.errors import DomzeroError

KEPT = 1000
"""Tasks; the oldest that is over gives way to a new one."""


@dataclass(eq=False)
class Task:
    """One piece of work, or what a client says of its own.

    :param result: as XML-RPC's `<value>`, empty for none.
    """

    name: str
    description: str = ""
    id: UUID = field(default_factory=uuid4)
    status: str = "pending"
    progress: float = 0.0
    result: str = ""
    error: list[str] = field(default_factory=list)
    created_at: float = field(default_factory=time.time)
    finished_at: float = 0.0
    job: asyncio.Task[Any] | None = None
    other_config: dict[str, str] = field(default_factory=dict)
    session: str | None = None
    user: str = ""

    @property
    def is_over(self) -> bool:
        """Whether there will be no more."""
        return self.status in ("success", "failure", "cancelled")


class TaskBook:
    """The tasks that somebody may still ask for.

    :param changed: called when one has changed.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._tasks: OrderedDict[UUID, Task] = OrderedDict()
        self._changed = changed

    def all(self) -> dict[UUID, Task]:
        """All that are kept."""
        return dict(self._tasks)

    def add(self, task: Task) -> Task:
        """Keeps one. Failure: there are too many that are not over."""
        if len(self._tasks) >= KEPT:
            old = next((each for each in self._tasks.values() if each.is_over), None)
            if old is None:
                raise Failure("TOO_MANY_PENDING_TASKS")
            del self._tasks[old.id]
        self._tasks[task.id] = task
        self._changed()
        return task

    def start(self, task: Task, work: Coroutine[Any, Any, Any], text: Callable[[Any], str]) -> Task:
        """Begins work.

        :param text: makes the task's result of what the work returns.
        """
        try:
            self.add(task)
        except Failure:
            work.close()
            raise
        task.job = asyncio.get_running_loop().create_task(work)
        task.job.add_done_callback(lambda job: self._done(task, job, text))
        return task

    def _done(self, task: Task, job: asyncio.Task[Any], text: Callable[[Any], str]) -> None:
        if job.cancelled():
            self.finish(task, "cancelled", error=["TASK_CANCELLED", f"OpaqueRef:{task.id}"])
        elif isinstance(error := job.exception(), DomzeroError):
            self.finish(task, "failure", error=failure_of(error).description)
        elif error is not None:
            self.finish(task, "failure", error=["INTERNAL_ERROR", type(error).__name__])
            asyncio.get_running_loop().call_exception_handler({"message": task.name, "exception": error})
        else:
            self.finish(task, "success", result=text(job.result()))

    def finish(self, task: Task, status: str, *, result: str = "", error: list[str] | None = None) -> None:
        """It is over."""
        task.status, task.result, task.error = status, result, error or []
        task.progress, task.finished_at = 1.0, time.time()
        self._changed()

    def change(self, task: Task, **values: Any) -> None:
        """Sets some of its fields."""
        for name, value in values.items():
            setattr(task, name, value)
        if task.is_over and not task.finished_at:
            task.finished_at = time.time()
        self._changed()

    def cancel(self, task: Task) -> None:
        """Gives it up."""
        if task.job is not None and not task.job.done():
            task.status = "cancelling"
            task.job.cancel()
            self._changed()
        elif not task.is_over:
            self.finish(task, "cancelled")

    def forget(self, task: Task) -> None:
        """Removes it; work that is under way goes on."""
        self._tasks.pop(task.id, None)
        self._changed()

    async def close(self) -> None:
        """Gives up what is under way."""
        jobs = [task.job for task in self._tasks.values() if task.job is not None and not task.job.done()]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
