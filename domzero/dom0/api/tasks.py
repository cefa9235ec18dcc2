# SPDX-License-Identifier: Apache-2.0
"""Long work: answered at once if it is quick, as a task if it is not."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from domzero.dom0.api.models import TaskInfo, TaskState, to_time
from domzero.dom0.api.problems import problem, problem_of
from domzero.errors import DomzeroError

QUICK_SECONDS = 2.0
KEPT = 256

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Task:
    """One piece of work."""

    kind: str
    job: asyncio.Task[Any]
    domain: uuid.UUID | None
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    created_at: float = field(default_factory=time.time)

    def info(self) -> TaskInfo:
        """Where it is."""
        state, failure = TaskState.RUNNING, None
        if self.job.done():
            error = None if self.job.cancelled() else self.job.exception()
            state = TaskState.DONE if error is None and not self.job.cancelled() else TaskState.FAILED
            if isinstance(error, DomzeroError):
                failure = problem_of(error)
            elif state == TaskState.FAILED:
                failure = problem(500, "INTERNAL_ERROR", repr(error))
        return TaskInfo(
            id=self.id,
            kind=self.kind,
            state=state,
            created_at=to_time(self.created_at),
            domain=self.domain,
            error=failure,
        )


class Tasks:
    """The tasks that somebody may still ask for."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[uuid.UUID, Task] = OrderedDict()

    async def run(self, kind: str, work: Coroutine[Any, Any, T], domain: uuid.UUID | None) -> T | Task:
        """Does the work: what it returns or raises if it was quick, or the task that goes on with it."""
        job = asyncio.get_running_loop().create_task(work)
        done, _ = await asyncio.wait({job}, timeout=QUICK_SECONDS)
        if done:
            return await job
        task = Task(kind, job, domain)
        self._tasks[task.id] = task
        for old in list(self._tasks.values()):
            if len(self._tasks) <= KEPT:
                break
            if old.job.done():
                del self._tasks[old.id]
        return task

    def get(self, task_id: uuid.UUID) -> Task | None:
        """A task that is kept."""
        return self._tasks.get(task_id)

    def all(self) -> list[Task]:
        """All that are kept, oldest first."""
        return list(self._tasks.values())

    async def close(self) -> None:
        """Gives up what is under way."""
        jobs = [task.job for task in self._tasks.values() if not task.job.done()]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
