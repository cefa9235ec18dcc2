# SPDX-License-Identifier: Apache-2.0
"""What is done with the hypervisor itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from domzero.dom0.actions.base import Action
from domzero.dom0.actors import Role
from domzero.dom0.debug_keys import press
from domzero.dom0.manager import Manager


@dataclass(slots=True, frozen=True, kw_only=True)
class PressDebugKeys(Action[None]):
    """Let the hypervisor write into its log what these keys are for."""

    kind: ClassVar[str] = "host.debug-keys"
    role: ClassVar[Role] = Role.POOL_OPERATOR
    keys: str

    async def run(self, manager: Manager) -> None:
        """Presses them, one by one."""
        await press(manager, self.keys)


@dataclass(slots=True, frozen=True, kw_only=True)
class ClearLog(Action[None]):
    """Empty the hypervisor's log."""

    kind: ClassVar[str] = "host.clear-log"
    role: ClassVar[Role] = Role.POOL_OPERATOR

    async def run(self, manager: Manager) -> None:
        """Empties it."""
        manager.log.clear()
