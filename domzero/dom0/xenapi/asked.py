# SPDX-License-Identifier: Apache-2.0
"""What only clients of XenAPI can ask for: fields that are theirs, networks' names, transfers of disks.

All else that they ask for are Domain 0's own actions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

from domzero.dom0.actions import Action
from domzero.dom0.actors import Role
from domzero.dom0.manager import Manager


@dataclass(slots=True, frozen=True, kw_only=True)
class Asked(Action[Any]):
    """One of those.

    :param message: its name.
    :param about: the object's uuid.
    :param work: does it.
    """

    kind: ClassVar[str] = "xenapi"
    role: ClassVar[Role] = Role.POOL_ADMIN
    message: str
    about: UUID | None = None
    domain: UUID | None = None
    work: Callable[[], Awaitable[Any]] = field(repr=False)

    @property
    def target(self) -> UUID | None:
        """The domain that it is about."""
        return self.domain

    def detail(self) -> dict[str, Any]:
        """Which message, and on what."""
        return {"message": self.message, "object": str(self.about)}

    async def run(self, manager: Manager) -> Any:
        """Does it."""
        return await self.work()


class _ByVmOperator(Asked):
    role: ClassVar[Role] = Role.VM_OPERATOR


class _ByVmAdmin(Asked):
    role: ClassVar[Role] = Role.VM_ADMIN


class _ByPoolOperator(Asked):
    role: ClassVar[Role] = Role.POOL_OPERATOR


ASKED: dict[Role, type[Asked]] = {
    Role.VM_OPERATOR: _ByVmOperator,
    Role.VM_ADMIN: _ByVmAdmin,
    Role.POOL_OPERATOR: _ByPoolOperator,
    Role.POOL_ADMIN: Asked,
}
"""By the least role that may ask."""
