# SPDX-License-Identifier: Apache-2.0
"""Storage and the disks in it, whether a domain has them or not."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID, uuid4

from domzero.dom0.actions.base import Action
from domzero.dom0.actors import Role
from domzero.dom0.manager import Manager
from domzero.dom0.storage import Disk, Repository, Storage

R = TypeVar("R")


@dataclass(slots=True, frozen=True, kw_only=True)
class StorageAction(Action[R], Generic[R]):
    """Something that is done with storage.

    :param storage: Domain 0's.
    """

    storage: Storage = field(repr=False)

    def detail(self) -> dict[str, Any]:
        """What it is about."""
        names = [one.name for one in dataclasses.fields(self) if one.name != "storage"]
        return {name: str(value) for name in names if (value := getattr(self, name)) is not None}


@dataclass(slots=True, frozen=True, kw_only=True)
class AddStorage(StorageAction[Repository]):
    """Take a directory of the host in, with the disks in it."""

    kind: ClassVar[str] = "storage.add"
    role: ClassVar[Role] = Role.POOL_ADMIN
    name: str
    path: str
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    async def run(self, manager: Manager) -> Repository:
        """Takes it in."""
        made = self.storage.add_repository(
            Repository(
                uuid=uuid4(), name=self.name, path=Path(self.path), description=self.description, labels=self.labels
            )
        )
        await self.storage.scan(made)
        return made


@dataclass(slots=True, frozen=True, kw_only=True)
class ChangeStorage(StorageAction[Repository]):
    """Give storage another name, description or labels.

    :param changes: fields of `Repository`.
    """

    kind: ClassVar[str] = "storage.change"
    role: ClassVar[Role] = Role.POOL_OPERATOR
    repository: UUID
    changes: dict[str, Any]

    async def run(self, manager: Manager) -> Repository:
        """Changes it."""
        return self.storage.change_repository(self.storage.repository(self.repository), **self.changes)


@dataclass(slots=True, frozen=True, kw_only=True)
class ScanStorage(StorageAction[list[Disk]]):
    """Look for disks that came or went."""

    kind: ClassVar[str] = "storage.scan"
    role: ClassVar[Role] = Role.VM_ADMIN
    repository: UUID

    async def run(self, manager: Manager) -> list[Disk]:
        """Those that came."""
        return await self.storage.scan(self.storage.repository(self.repository))


@dataclass(slots=True, frozen=True, kw_only=True)
class RemoveStorage(StorageAction[None]):
    """Forget a directory; the files stay."""

    kind: ClassVar[str] = "storage.remove"
    role: ClassVar[Role] = Role.POOL_OPERATOR
    repository: UUID

    async def run(self, manager: Manager) -> None:
        """Forgets it."""
        self.storage.remove_repository(self.storage.repository(self.repository))


@dataclass(slots=True, frozen=True, kw_only=True)
class CreateDisk(StorageAction[Disk]):
    """Make an empty disk.

    :param repository: None: the default one.
    """

    kind: ClassVar[str] = "disk.create"
    role: ClassVar[Role] = Role.VM_ADMIN
    bytes: int
    repository: UUID | None = None
    name: str = ""
    format: str = "raw"
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    async def run(self, manager: Manager) -> Disk:
        """Makes it."""
        return await self.storage.create(
            self.storage.repository(self.repository),
            self.bytes,
            name=self.name,
            format=self.format,
            description=self.description,
            labels=self.labels,
        )


@dataclass(slots=True, frozen=True, kw_only=True)
class CopyDisk(StorageAction[Disk]):
    """Make another disk with the same content.

    :param repository: where; None: beside it.
    """

    kind: ClassVar[str] = "disk.copy"
    role: ClassVar[Role] = Role.VM_ADMIN
    disk: UUID
    repository: UUID | None = None
    name: str = ""

    async def run(self, manager: Manager) -> Disk:
        """Makes it."""
        disk = self.storage.disk(self.disk)
        return await self.storage.copy(disk, self.storage.repository(self.repository or disk.storage), name=self.name)


@dataclass(slots=True, frozen=True, kw_only=True)
class ResizeDisk(StorageAction[Disk]):
    """Make a disk larger that no domain uses."""

    kind: ClassVar[str] = "disk.resize"
    role: ClassVar[Role] = Role.VM_ADMIN
    disk: UUID
    bytes: int

    async def run(self, manager: Manager) -> Disk:
        """Resizes it."""
        disk = self.storage.disk(self.disk)
        await self.storage.resize(disk, self.bytes)
        return disk


@dataclass(slots=True, frozen=True, kw_only=True)
class ChangeDisk(StorageAction[Disk]):
    """Give a disk another name, description or labels.

    :param changes: fields of `Disk`.
    """

    kind: ClassVar[str] = "disk.change"
    role: ClassVar[Role] = Role.VM_ADMIN
    disk: UUID
    changes: dict[str, Any]

    async def run(self, manager: Manager) -> Disk:
        """Changes it."""
        return self.storage.change(self.storage.disk(self.disk), **self.changes)


@dataclass(slots=True, frozen=True, kw_only=True)
class DeleteDisk(StorageAction[None]):
    """Delete a disk that no domain has."""

    kind: ClassVar[str] = "disk.delete"
    role: ClassVar[Role] = Role.VM_ADMIN
    disk: UUID

    async def run(self, manager: Manager) -> None:
        """Deletes it."""
        await self.storage.delete(self.storage.disk(self.disk))
