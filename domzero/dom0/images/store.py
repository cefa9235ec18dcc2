# SPDX-License-Identifier: Apache-2.0
"""Disk images: $XDG_DATA_HOME/domzero/images, one directory each, complete or not there at all.

Among them, in `.layers`, lie disks that no longer change because images that were cloned from one another rest on them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from domzero.builder.files import read_file
from domzero.dom0.images.locks import exclusive
from domzero.dom0.images.options import check_image_name
from domzero.dom0.images.qcow2 import size_of
from domzero.dom0.paths import locked_directory
from domzero.errors import ConfigError, ImageError

LAYERS = ".layers"
_RECORD = "disk.json"
_RECORD_MAX = 1 << 20
_TEMPORARY = (".new-", ".old-")


def data_dir() -> Path:
    """The user's data directory for Domzero: what is in it cannot be fetched again."""
    base = os.environ.get("XDG_DATA_HOME") or ""
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share") / "domzero"


@dataclass(slots=True, frozen=True)
class DiskImage:
    """A disk that a domain can start from.

    :param disk: its file; in the record without directory.
    :param format: of the file: "raw" or "qcow2".
    :param size: bytes, as its guest sees it.
    :param boot: how it is started: "pvgrub" lets GRUB's PV kernel find the kernel in it.
    :param origin: where it is from, in words.
    :param created: when, in ISO 8601.
    :param layers: files of `.layers` that it rests on, the nearest first.
    :param untouched: size and time of the file when it had nothing of its own yet, only what it rests on.
    :param recipe: what it was built with.
    """

    name: str
    disk: str
    format: str
    size: int
    origin: str
    created: str
    boot: str = "pvgrub"
    layers: tuple[str, ...] = ()
    untouched: tuple[int, int] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Draft:
    """An image that is being made: a directory to fill."""

    def __init__(self, store: DiskStore, name: str, path: Path, *, replace_old: bool) -> None:
        self.path = path
        self._store = store
        self._name = name
        self._replace = replace_old

    def keep(self, image: DiskImage) -> DiskImage:
        """Makes it an image: from now on it is there, also after a power failure.

        :param image: its record, with the disk's name in this directory.
        """
        _sync(self.path / image.disk)
        _write_record(self.path, image)
        self.path.chmod(0o700)
        target = self._store.root / self._name
        try:
            if self._replace and target.exists():
                self._store.remove(self._name)
            self.path.rename(target)
        except OSError as error:
            if target.exists():
                raise ImageError(f"there is an image {self._name} now") from error
            raise
        _sync(self._store.root)
        return self._store.find(self._name)


class DiskStore:
    """The disk images of a user.

    :param base: the data directory; the user's by default.
    """

    def __init__(self, base: Path | None = None) -> None:
        base = base or data_dir()
        self.root = base / "images"
        self.layers = self.root / LAYERS

    def images(self) -> list[DiskImage]:
        """All of them, by name."""
        records = sorted(self.root.glob(f"[!.]*/{_RECORD}"))
        return [image for record in records if (image := self._load(record)) is not None]

    def get(self, name: str) -> DiskImage | None:
        """An image by its name."""
        with suppress(ConfigError):
            return self._load(self.root / check_image_name(name) / _RECORD)
        return None

    def find(self, name: str) -> DiskImage:
        """An image by its name; raises ConfigError if there is none."""
        image = self.get(name)
        if image is None:
            raise ConfigError(f"no such disk image: {name}", key="image", hint="`domzero image list` shows them")
        return image

    @contextmanager
    def draft(self, name: str, *, replace_old: bool = False) -> Iterator[Draft]:
        """Something to make an image in; what is not kept by the end of the block vanishes.

        :param replace_old: an image of this name gives way, unless it is in use.
        :raises ConfigError: the name cannot be, or is taken.
        """
        self.check_new(name, replace_old=replace_old)
        with self.workplace() as path:
            try:
                yield Draft(self, name, path, replace_old=replace_old)
            except OSError as error:
                raise ImageError(f"{error.filename or self.root}: {error.strerror or error}") from error

    def check_new(self, name: str, *, replace_old: bool = False) -> None:
        """Raises ConfigError for a name that no image can have, or that one has already."""
        check_image_name(name)
        if not replace_old and (self.root / name).exists():
            raise ConfigError(f"there is an image {name} already", key="name", hint="--name gives it another one")

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A directory for what is half made: it vanishes at the end of the block, or is swept away after a kill."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self.locked():
                self._sweep()
                path = Path(tempfile.mkdtemp(prefix=_TEMPORARY[0], dir=self.root))
                lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise ImageError(
                f"{self.root}: {error.strerror}", hint="XDG_DATA_HOME says where disk images are kept"
            ) from error
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)

    def remove(self, name: str) -> DiskImage:
        """Deletes an image, and layers that nothing rests on any more.

        :raises ConfigError: there is none of this name.
        :raises ImageError: it is in use.
        """
        image = self.find(name)
        try:
            with exclusive(Path(image.disk), name):
                grave = Path(tempfile.mkdtemp(prefix=_TEMPORARY[1], dir=self.root))
                (self.root / name).rename(grave / name)
                shutil.rmtree(grave)
        except OSError as error:
            raise ImageError(f"{self.root / name}: {error.strerror}") from error
        self.collect()
        return image

    def rewrite(self, image: DiskImage) -> None:
        """Changes an image's record, at once or not at all.

        :param image: with the name of its disk in its directory.
        """
        _write_record(self.root / image.name, image)

    def collect(self) -> None:
        """Deletes the layers that no image rests on."""
        with suppress(OSError), self.locked():
            used = {layer for image in self.images() for layer in image.layers}
            for path in list(self.layers.iterdir()):
                if path.name not in used:
                    path.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps every other process from changing what belongs to no single image."""
        with locked_directory(self.root):
            yield

    def _sweep(self) -> None:
        """Deletes what was left half-made by processes that are gone."""
        for path in [path for prefix in _TEMPORARY for path in self.root.glob(f"{prefix}*")]:
            with suppress(OSError):
                lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(lock)

    def _load(self, record: Path) -> DiskImage | None:
        try:
            fields = json.loads(read_file(record, "image", _RECORD_MAX))
            untouched = fields["untouched"]
            fields |= {"layers": tuple(fields["layers"]), "untouched": untouched and (untouched[0], untouched[1])}
            image = DiskImage(**fields)
            disk = record.parent / image.disk
            if image.name != record.parent.name or disk.parent != record.parent or not disk.is_file():
                return None
            size = max(image.size, _size_now(disk, image.format))  # it may have grown in a domain
        except (ImageError, OSError, ValueError, TypeError, KeyError):
            return None  # an image of another version of Domzero, or none: the same as not there
        return replace(image, disk=str(disk), size=size)


def _size_now(disk: Path, format: str) -> int:
    fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.fstat(fd).st_size // 512 * 512 if format == "raw" else size_of(fd)
    finally:
        os.close(fd)


def _write_record(directory: Path, image: DiskImage) -> None:
    path = directory / f".{_RECORD}.new"
    path.write_text(json.dumps(image.as_dict(), indent=2) + "\n")
    _sync(path)
    path.rename(directory / _RECORD)
    _sync(directory)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
