# SPDX-License-Identifier: Apache-2.0
"""The image cache: $XDG_CACHE_HOME/domzero/images, one directory per image, complete or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from domzero.builder.files import read_file
from domzero.errors import ConfigError, ImageError

_RECORD = "image.json"
_RECORD_MAX = 1 << 16


def cache_dir() -> Path:
    """The user's cache directory for Domzero."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "domzero"


@dataclass(slots=True, frozen=True)
class Image:
    """A kernel with a ramdisk that can be booted.

    :param ramdisk: empty: there is none.
    """

    name: str
    distribution: str
    version: str
    kernel: str
    ramdisk: str
    cmdline: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


class ImageCache:
    """What is in the cache.

    :param root: the cache's directory; the user's by default.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or cache_dir()) / "images"

    def images(self) -> list[Image]:
        """All images, newest first."""
        found: list[tuple[float, Image]] = []
        for record in self.root.glob(f"*/{_RECORD}"):
            image = self._load(record)
            if image is not None:
                found.append((record.stat().st_mtime, image))
        return [image for _, image in sorted(found, key=lambda item: item[0], reverse=True)]

    def find(self, name: str) -> Image:
        """An image by name, or the newest of a distribution ("debian").

        :raises ConfigError: there is none.
        """
        for image in self.images():
            if name in (image.name, image.distribution):
                return image
        raise ConfigError(f"no such image: {name}", key="image", hint="`domzero image fetch debian` gets one")

    def get(self, name: str) -> Image | None:
        """An image by its full name."""
        return self._load(self.root / name / _RECORD)

    def remove(self, name: str) -> Image:
        """Deletes an image; raises ConfigError if there is none of this name."""
        image = self.find(name)
        try:
            shutil.rmtree(self.root / image.name)
        except OSError as error:
            raise ImageError(f"{self.root / image.name}: {error.strerror}") from error
        return image

    @contextmanager
    def new(self, image: Image) -> Iterator[Path]:
        """A directory to fill; it becomes the image when the block ends well, and vanishes otherwise.

        Paths in `image` are names of files in that directory.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=self.root))
        except OSError as error:
            raise ImageError(
                f"{self.root}: {error.strerror}", hint="XDG_CACHE_HOME says where images are kept"
            ) from error
        try:
            yield temporary
            (temporary / _RECORD).write_text(json.dumps(image.as_dict(), indent=2) + "\n")
            temporary.chmod(0o755)
            target = self.root / image.name
            if target.exists():
                shutil.rmtree(target)
            temporary.rename(target)
        except OSError as error:
            raise ImageError(f"{self.root}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _load(self, record: Path) -> Image | None:
        try:
            fields = json.loads(read_file(record, "image", _RECORD_MAX))
            image = Image(**fields)
            kernel, ramdisk = record.parent / image.kernel, record.parent / image.ramdisk if image.ramdisk else None
        except (ImageError, ValueError, TypeError):
            return None  # an image of another version of Domzero, or none: the same as not there
        if not kernel.is_file() or (ramdisk is not None and not ramdisk.is_file()):
            return None
        return replace(image, kernel=str(kernel), ramdisk="" if ramdisk is None else str(ramdisk))
