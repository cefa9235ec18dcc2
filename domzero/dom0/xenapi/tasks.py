# SPDX-License-Identifier: Apache-2.0
"""Domain 0's tasks as XenAPI has them."""

from __future__ import annotations

from uuid import UUID

from domzero.dom0.tasks import Task, TaskState
from domzero.dom0.xenapi.values import reference
from domzero.dom0.xenapi.world import World

STATUS = {
    TaskState.RUNNING: "pending",
    TaskState.DONE: "success",
    TaskState.FAILED: "failure",
    TaskState.CANCELLED: "cancelled",
}
STATES = {status: state for state, status in STATUS.items()} | {"cancelling": TaskState.RUNNING}


def all_tasks(world: World) -> dict[UUID, Task]:
    """Those that are kept."""
    return {task.id: task for task in world.services.tasks.all()}


def status(task: Task) -> str:
    """Where it is, in XenAPI's word."""
    return "cancelling" if task.gives_up and not task.is_over else STATUS[task.state]


def error_info(task: Task) -> list[str]:
    """How it failed."""
    if task.state is TaskState.CANCELLED and not task.failure:
        return ["TASK_CANCELLED", reference(task.id)]
    return task.failure
