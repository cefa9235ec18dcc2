# SPDX-License-Identifier: Apache-2.0
"""Storage: directories with disks in them, one file each, that Domain 0 knows by uuid and name.

A file is made under a name that counts for nothing, and gets its own when it is whole; then the disk is there. What a
Domain 0 that was killed has left half-made goes at the next start.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from sqlite3 import IntegrityError
from typing import Any
from uuid import UUID, uuid4

from domzero.dom0.about import DESCRIPTION_MAX, check_labels
from domzero.dom0.events import Operation
from domzero.dom0.images import qemu
from domzero.dom0.images.copying import copy_file
from domzero.dom0.images.locks import exclusive
from domzero.dom0.images.qcow2 import backing_of, size_of
from domzero.dom0.manager import BadState, Manager
from domzero.dom0.names import NAME_MAX, as_uuid, is_text, shown
from domzero.dom0.roster import NotFound
from domzero.errors import ConfigError, ImageError, ResourceError

FORMATS = ("raw", "qcow2")
BYTES_MIN, BYTES_MAX = 512, 1 << 46
"""Of a disk: up to 64 TiB."""
DISKS_MAX = 10_000
DEFAULT_NAME = "Local storage"
NEW = ".new-"
"""Begins names of files that are not disks yet, or never will be."""
_SECTOR = 512


@dataclass(slots=True, frozen=True, kw_only=True)
class Repository:
    """A directory for disks (XenAPI's SR)."""

    uuid: UUID
    name: str
    path: Path
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    created_at: float = field(default_factory=time.time)

    def room(self) -> tuple[int, int]:
        """Bytes of its file system, and those that are free for this user."""
        try:
            found = os.statvfs(self.path)
        except OSError:
            return 0, 0
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


@dataclass(slots=True, frozen=True, kw_only=True)
class Disk:
    """A disk in a repository (XenAPI's VDI).

    :param storage: its repository's.
    """

    uuid: UUID
    storage: UUID
    name: str
    path: Path
    format: str
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    created_at: float = field(default_factory=time.time)

    @property
    def bytes(self) -> int:
        """As its guest sees it; 0: the file is not there."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return 0
        try:
            return os.fstat(fd).st_size if self.format == "raw" else size_of(fd)
        except (OSError, ImageError):
            return 0
        finally:
            os.close(fd)

    @property
    def allocated(self) -> int:
        """Bytes of its file on the host's disk."""
        try:
            return self.path.stat().st_blocks * 512
        except OSError:
            return 0


class Storage:
    """All repositories and disks.

    :param default: where the first repository is made, if there is none; None: nowhere.
    """

    def __init__(self, manager: Manager, default: Path | None = None) -> None:
        self._manager = manager
        self._database = manager.database
        self._busy: dict[UUID, str] = {}
        self._disks: list[Disk] | None = None
        if default is not None and not self.repositories():
            self._open_default(default)
        for repository in self.repositories():
            with suppress(OSError):
                for left in repository.path.glob(f"{NEW}*"):
                    left.unlink(missing_ok=True)

    def _open_default(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            self._manager.say(f"there is no storage: {path}: {error.strerror}")
            return
        self._insert(Repository(uuid=uuid4(), name=DEFAULT_NAME, path=path))

    # --- repositories

    def repositories(self) -> list[Repository]:
        """All of them, the oldest first: that is the default one."""
        rows = self._database.rows("SELECT * FROM storage ORDER BY created_at, uuid")
        return [
            Repository(
                uuid=UUID(row["uuid"]),
                name=row["name"],
                path=Path(row["path"]),
                description=row["description"],
                labels=json.loads(row["labels"]),
                created_at=row["created_at"],
            )
            for row in rows
        ]

    def repository(self, key: str | UUID | None = None) -> Repository:
        """One by its uuid or name, or the default one. NotFound."""
        found = self.repositories()
        if key is not None:
            identity = key if isinstance(key, UUID) else as_uuid(key)
            found = [each for each in found if (each.name == key if identity is None else each.uuid == identity)]
        if not found:
            raise NotFound(f"no such storage: {shown(str(key)[:NAME_MAX])}" if key else "there is no storage")
        return found[0]

    def add_repository(self, repository: Repository) -> Repository:
        """Takes a directory in, which is made if it is not there. ConfigError."""
        _check(repository.name, repository.description, repository.labels)
        if not repository.path.is_absolute() or not is_text(str(repository.path)):
            raise ConfigError("an absolute path", key="path")
        try:
            repository.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{repository.path}: {error.strerror}", key="path") from error
        if not os.access(repository.path, os.W_OK | os.X_OK):
            raise ConfigError(f"{repository.path} cannot be written", key="path")
        self._insert(repository)
        self._manager.events.note("storage", repository.uuid, Operation.ADD)
        return repository

    def _insert(self, it: Repository) -> None:
        try:
            with self._database.write() as cursor:
                cursor.execute(
                    "INSERT INTO storage (uuid, name, path, description, labels, created_at) VALUES (?, ?, ?, ?, ?, ?)",
                    (str(it.uuid), it.name, str(it.path), it.description, json.dumps(it.labels), it.created_at),
                )
        except IntegrityError as error:
            key = "path" if "path" in str(error) else "uuid" if "uuid" in str(error) else "name"
            raise ConfigError(f"there is a storage with this {key} already", key=key) from error

    def change_repository(self, it: Repository, **changes: Any) -> Repository:
        """Gives it another name, description or labels. ConfigError."""
        it = replace(it, **changes)
        _check(it.name, it.description, it.labels)
        try:
            with self._database.write() as cursor:
                cursor.execute(
                    "UPDATE storage SET name = ?, description = ?, labels = ? WHERE uuid = ?",
                    (it.name, it.description, json.dumps(it.labels), str(it.uuid)),
                )
        except IntegrityError as error:
            raise ConfigError("there is a storage with this name already", key="name") from error
        self._manager.events.note("storage", it.uuid)
        return it

    def remove_repository(self, it: Repository) -> None:
        """Forgets a directory and its disks; the files stay. BadState: a domain has one of them."""
        for disk in self.disks(it):
            self._check_free(disk)
        with self._database.write() as cursor:
            cursor.execute("DELETE FROM disks WHERE storage = ?", (str(it.uuid),))
            cursor.execute("DELETE FROM storage WHERE uuid = ?", (str(it.uuid),))
        self._disks = None
        self._manager.events.note("storage", it.uuid, Operation.DEL)

    # --- disks

    def disks(self, repository: Repository | None = None) -> list[Disk]:
        """Those of a repository, or all, the oldest first."""
        if self._disks is None:
            self._disks = self._load()
        if repository is None:
            return list(self._disks)
        return [disk for disk in self._disks if disk.storage == repository.uuid]

    def _load(self) -> list[Disk]:
        rows = self._database.rows(
            "SELECT disks.*, storage.path FROM disks JOIN storage ON storage.uuid = disks.storage "
            "ORDER BY disks.created_at, disks.uuid"
        )
        return [
            Disk(
                uuid=UUID(row["uuid"]),
                storage=UUID(row["storage"]),
                name=row["name"],
                path=Path(row["path"]) / row["file"],
                format=row["format"],
                description=row["description"],
                labels=json.loads(row["labels"]),
                created_at=row["created_at"],
            )
            for row in rows
        ]

    def _note(self, identity: UUID, operation: Operation = Operation.MOD) -> None:
        self._disks = None
        self._manager.events.note("disk", identity, operation)

    def disk(self, key: str | UUID) -> Disk:
        """One by its uuid, or by a name that no other has. NotFound."""
        identity = key if isinstance(key, UUID) else as_uuid(key)
        found = [disk for disk in self.disks() if (disk.name == key if identity is None else disk.uuid == identity)]
        if len(found) != 1:
            many = f"{len(found)} disks have this name" if found else "no such disk"
            raise NotFound(f"{many}: {shown(str(key)[:NAME_MAX])}")
        return found[0]

    def users(self, disk: Disk) -> list[str]:
        """Names of the domains that have it."""
        path = str(disk.path)
        return [
            record.name
            for record in self._manager.all(halted=True)
            if any(spec.absolute() == path for spec in record.config.disk_specs if spec.target)
        ]

    async def create(
        self,
        repository: Repository,
        bytes: int,
        *,
        name: str = "",
        format: str = "raw",
        description: str = "",
        labels: dict[str, str] | None = None,
        identity: UUID | None = None,
    ) -> Disk:
        """Makes an empty disk. ConfigError, ImageError, ResourceError.

        :param bytes: rounded up to a whole sector.
        """
        if format not in FORMATS:
            raise ConfigError(f"no such format: {shown(format[:40])}", key="format", hint=", ".join(FORMATS))
        if not BYTES_MIN <= bytes <= BYTES_MAX:
            raise ConfigError(f"{bytes} is not possible: {BYTES_MIN} to {BYTES_MAX}", key="bytes")
        bytes = -(-bytes // _SECTOR) * _SECTOR
        make = partial(_make_raw, bytes=bytes) if format == "raw" else partial(qemu.create, size=bytes)
        new = self._new(repository, name, format, description, labels or {}, identity)
        return await self._build(new, make)

    async def copy(self, disk: Disk, repository: Repository, *, name: str = "") -> Disk:
        """Makes another disk with the same content; they share blocks where the file system can. BadState: in use."""
        new = self._new(repository, name or disk.name, disk.format, disk.description, dict(disk.labels), None)
        async with self._alone(disk, "it is copied"):
            return await self._build(new, partial(_copy, disk.path, disk.name))

    async def resize(self, disk: Disk, bytes: int) -> None:
        """Makes a disk larger that no domain uses. ConfigError, BadState, ImageError."""
        if not disk.bytes <= bytes <= BYTES_MAX:
            raise ConfigError(f"{bytes} is not possible: the disk has {disk.bytes}", key="bytes")
        bytes = -(-bytes // _SECTOR) * _SECTOR
        async with self._alone(disk, "it is resized"):
            await asyncio.to_thread(_grow, disk, bytes)
        self._note(disk.uuid)

    async def delete(self, disk: Disk) -> None:
        """Deletes a disk that no domain has. BadState."""
        self._check_free(disk)
        async with self._alone(disk, "it is deleted"):
            await asyncio.to_thread(_unlink, disk)
        with self._database.write() as cursor:
            cursor.execute("DELETE FROM disks WHERE uuid = ?", (str(disk.uuid),))
        self._note(disk.uuid, Operation.DEL)

    def change(self, disk: Disk, **changes: Any) -> Disk:
        """Gives it another name, description or labels. ConfigError."""
        disk = replace(disk, **changes)
        _check(disk.name, disk.description, disk.labels)
        with self._database.write() as cursor:
            cursor.execute(
                "UPDATE disks SET name = ?, description = ?, labels = ? WHERE uuid = ?",
                (disk.name, disk.description, json.dumps(disk.labels), str(disk.uuid)),
            )
        self._note(disk.uuid)
        return disk

    async def scan(self, repository: Repository) -> list[Disk]:
        """Takes in disks that lie in the directory and are not known, and forgets those whose files are gone."""
        known = {disk.path.name: disk for disk in self.disks(repository)}
        files = await asyncio.to_thread(_images, repository.path)
        for name, disk in known.items():
            if name not in files and not disk.path.exists():
                with self._database.write() as cursor:
                    cursor.execute("DELETE FROM disks WHERE uuid = ?", (str(disk.uuid),))
                self._note(disk.uuid, Operation.DEL)
        new = []
        for name, format in files.items():
            if name not in known and len(self.disks()) < DISKS_MAX:
                stem = as_uuid(Path(name).stem)
                taken = stem is not None and any(disk.uuid == stem for disk in self.disks())
                disk = Disk(
                    uuid=uuid4() if stem is None or taken else stem,
                    storage=repository.uuid,
                    name=name[:NAME_MAX],
                    path=repository.path / name,
                    format=format,
                )
                self._keep(disk)
                new.append(disk)
        return new

    @asynccontextmanager
    async def using(self, disk: Disk, why: str) -> AsyncIterator[None]:
        """Keeps a disk that no domain uses from being used, while its file is read or written. BadState."""
        async with self._alone(disk, why):
            with exclusive_or_busy(disk):
                yield

    # --- how

    def _new(
        self,
        repository: Repository,
        name: str,
        format: str,
        description: str,
        labels: dict[str, str],
        identity: UUID | None,
    ) -> Disk:
        _check(name or "disk", description, labels)
        if len(self.disks()) >= DISKS_MAX:
            raise ResourceError(f"there are {DISKS_MAX} disks already")
        identity = identity or uuid4()
        path = repository.path / f"{identity}.{format}"
        return Disk(
            uuid=identity,
            storage=repository.uuid,
            name=name,
            path=path,
            format=format,
            description=description,
            labels=labels,
        )

    async def _build(self, disk: Disk, make: Callable[[Path], None]) -> Disk:
        """Lets `make` fill a file; then the disk is there."""
        part = disk.path.with_name(f"{NEW}{uuid4().hex}")
        work = asyncio.get_running_loop().run_in_executor(None, _make_whole, make, part, disk.path)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(lambda _: disk.path.unlink(missing_ok=True))
            raise
        except OSError as error:
            raise ImageError(f"{disk.path.parent}: {error.strerror}") from error
        self._keep(disk)
        return disk

    def _keep(self, disk: Disk) -> None:
        try:
            with self._database.write() as cursor:
                cursor.execute(
                    "INSERT INTO disks (uuid, storage, name, file, format, description, labels, created_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        str(disk.uuid),
                        str(disk.storage),
                        disk.name,
                        disk.path.name,
                        disk.format,
                        disk.description,
                        json.dumps(disk.labels),
                        disk.created_at,
                    ),
                )
        except IntegrityError as error:
            raise ConfigError("there is a disk with this uuid already", key="uuid") from error
        self._note(disk.uuid, Operation.ADD)

    def _check_free(self, disk: Disk) -> None:
        if users := self.users(disk):
            raise BadState(f"the disk {disk.name or disk.uuid} belongs to {', '.join(users)}", hint="detach it first")

    @asynccontextmanager
    async def _alone(self, disk: Disk, why: str) -> AsyncIterator[None]:
        """Only one piece of work at a time with a disk."""
        if disk.uuid in self._busy:
            raise BadState(f"the disk {disk.name or disk.uuid} is busy: {self._busy[disk.uuid]}")
        self._busy[disk.uuid] = why
        try:
            yield
        finally:
            del self._busy[disk.uuid]


def exclusive_or_busy(disk: Disk) -> Any:
    """As `images.locks.exclusive`, of a disk."""
    return exclusive(disk.path, disk.name or str(disk.uuid))


def _check(name: str, description: str, labels: dict[str, str]) -> None:
    if len(name) > NAME_MAX or not is_text(name) or not name.isprintable():
        raise ConfigError(f"up to {NAME_MAX} printable characters", key="name")
    if len(description) > DESCRIPTION_MAX or not is_text(description):
        raise ConfigError(f"at most {DESCRIPTION_MAX} characters", key="description")
    check_labels(labels)


def _make_whole(make: Callable[[Path], None], part: Path, path: Path) -> None:
    try:
        make(part)
        part.chmod(0o600)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _make_raw(path: Path, bytes: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, bytes)
    finally:
        os.close(fd)


def _copy(source: Path, name: str, target: Path) -> None:
    with exclusive(source, name):
        copy_file(source, target)


def _grow(disk: Disk, bytes: int) -> None:
    with exclusive_or_busy(disk):
        if disk.format == "raw":
            os.truncate(disk.path, bytes)
            return
    qemu.resize(disk.path, disk.format, bytes)  # which locks the file itself


def _unlink(disk: Disk) -> None:
    if disk.path.exists():
        with exclusive_or_busy(disk):
            disk.path.unlink()


def _images(directory: Path) -> dict[str, str]:
    """Names of the images in a directory, with their formats by the ends of their names; those that stand alone."""
    found = {}
    with suppress(OSError):
        for path in sorted(directory.iterdir()):
            format = {".raw": "raw", ".img": "raw", ".iso": "raw", ".qcow2": "qcow2"}.get(path.suffix)
            if format is None or path.name.startswith(".") or path.is_symlink() or not path.is_file():
                continue
            if format == "raw" or _stands_alone(path):
                found[path.name] = format
    return found


def _stands_alone(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return backing_of(fd) is None
    except ImageError:
        return False
    finally:
        os.close(fd)
