# SPDX-License-Identifier: Apache-2.0
"""What is done with images that domains start from."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

from domzero.dom0.actions.base import Action
from domzero.dom0.actors import Role
from domzero.dom0.images.disks import clone_disk
from domzero.dom0.images.options import FirstBoot, check_image_name
from domzero.dom0.images.seed import Documents, keep_seed, user_data
from domzero.dom0.images.store import DiskImage, DiskStore
from domzero.dom0.manager import Manager
from domzero.dom0.roster import NotFound


@dataclass(slots=True, frozen=True, kw_only=True)
class CloneImage(Action[DiskImage]):
    """Make another disk with the same contents, for a machine of its own.

    :param first: what the clone's first start finds; None: what the image's would.
    """

    kind: ClassVar[str] = "image.clone"
    role: ClassVar[Role] = Role.POOL_ADMIN
    image: str
    name: str
    first: FirstBoot | None = None

    async def run(self, manager: Manager) -> DiskImage:
        """Clones it."""
        check_image_name(self.name)
        if self.first is not None:
            self.first.check()
        return await asyncio.to_thread(self._clone)

    def detail(self) -> dict[str, Any]:
        """The two names: there may be a password in the rest."""
        return {"image": self.image, "name": self.name}

    def _clone(self) -> DiskImage:
        store = DiskStore()
        if store.get(self.image) is None:
            raise NotFound(f"no such disk image: {self.image}")
        clone = clone_disk(store, self.image, self.name)
        if self.first is not None:
            try:
                keep_seed(clone, Documents(user_data(self.first), self.first.hostname))
            except BaseException:
                store.remove(self.name)
                raise
        return clone
