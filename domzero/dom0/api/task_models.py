# SPDX-License-Identifier: Apache-2.0
"""What goes over the HTTP API about tasks."""

from __future__ import annotations

import asyncio
import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from domzero.dom0.api.models import Model, Problem, to_time
from domzero.dom0.api.problems import problem, problem_of
from domzero.dom0.tasks import Task, TaskState
from domzero.errors import DomzeroError


class TaskInfo(Model):
    """Work that takes longer than a request should."""

    id: UUID
    kind: Annotated[str, Field(examples=["domain.create"], description="`client`: XenAPI's client does the work.")]
    name: Annotated[str, Field(description="What its client calls it; empty: nothing.")]
    state: TaskState
    progress: Annotated[float, Field(description="0 to 1; what cannot say how far it is goes from 0 to 1 at its end.")]
    step: Annotated[str, Field(description="What is done now, in words; empty: nothing is said of it.")]
    created_at: datetime.datetime
    ended_at: datetime.datetime | None
    actor: Annotated[str, Field(description="Who asked for it.")]
    domain: Annotated[UUID | None, Field(description="The domain it is about.")]
    error: Problem | None

    @classmethod
    def of(cls, task: Task) -> TaskInfo:
        """From Domain 0's own record."""
        return cls(
            id=task.id,
            kind=task.kind,
            name=task.name,
            state=task.state,
            progress=task.progress,
            step=task.step,
            created_at=to_time(task.created_at),
            ended_at=None if task.ended_at is None else to_time(task.ended_at),
            actor=task.actor,
            domain=task.domain,
            error=_failure(task.error),
        )


def _failure(error: BaseException | None) -> Problem | None:
    if error is None or isinstance(error, asyncio.CancelledError):
        return None
    if isinstance(error, DomzeroError):
        return problem_of(error)
    return problem(500, "INTERNAL_ERROR", f"a fault of Domain 0: {type(error).__name__}")
