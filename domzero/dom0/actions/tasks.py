# SPDX-License-Identifier: Apache-2.0
"""What is done with tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

from domzero.dom0.actions.base import Action
from domzero.dom0.actors import Actor, Role
from domzero.dom0.manager import Manager
from domzero.dom0.tasks import Task, Tasks


@dataclass(slots=True, frozen=True, kw_only=True)
class CancelTask(Action[None]):
    """Give work up that is under way: one's own, or another's."""

    kind: ClassVar[str] = "task.cancel"
    role: ClassVar[Role] = Role.POOL_OPERATOR
    tasks: Tasks = field(repr=False)
    task: Task = field(repr=False)

    @property
    def target(self) -> UUID | None:
        """The domain that it is about."""
        return self.task.domain

    def may_be_done_by(self, actor: Actor) -> bool:
        """Whoever has begun it may."""
        return actor.name == self.task.actor

    def detail(self) -> dict[str, Any]:
        """Which."""
        return {"task": str(self.task.id), "kind": self.task.kind, "actor": self.task.actor}

    async def run(self, manager: Manager) -> None:
        """Cancels it."""
        self.tasks.cancel(self.task)
