# SPDX-License-Identifier: Apache-2.0
"""A Debian with its packages, as an archive in the cache: named by what it was made from, so that each is made once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import IO

import zstandard

from domzero.dom0.images import mmdebstrap
from domzero.dom0.images.cache import cache_dir
from domzero.dom0.images.overlay import early_files, make_tar
from domzero.dom0.images.sources import SUITE, apt_options, sources_for
from domzero.dom0.images.tools import Meter, Progress
from domzero.errors import ConfigError, ImageError

REVISION = 2
"""Grows when what is made of the same recipe changes."""
KERNEL = "linux-image-amd64"
DEFAULT_SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "systemd-resolved", "udev", "dbus", "kmod", "initramfs-tools", "zstd", "lz4"),
    *("xz-utils", "e2fsprogs", "openssh-server", "sudo", "ca-certificates", "iproute2", "iputils-ping"),
    *("procps", "less", "nano"),
)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+~:-]+)?")
_LEVEL = 3
_KEPT = 4
"""Archives in the cache, some 200 MB each."""
_PART = ".new-"
_JUST_MADE_S = 10
"""And not held yet, perhaps."""


@dataclass(slots=True, frozen=True)
class BaseRecipe:
    """What a base is made from."""

    suite: str = DEFAULT_SUITE
    sources: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    kernel: str = KERNEL
    apt_options: tuple[str, ...] = ()
    revision: int = REVISION

    @property
    def digest(self) -> str:
        """Names it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def make_recipe(
    suite: str = DEFAULT_SUITE, mirrors: Sequence[str] = (), packages: Sequence[str] = (), kernel: str = KERNEL
) -> BaseRecipe:
    """The recipe that options mean, with the machine's mirrors where none are given. Raises ConfigError."""
    if not SUITE.fullmatch(suite):
        raise ConfigError(f"{suite[:40]!r} is no suite", key="suite", hint="such as bookworm")
    check_packages((*packages, kernel))
    return BaseRecipe(
        suite, tuple(sources_for(suite, mirrors)), tuple(sorted(set(packages))), kernel, tuple(apt_options())
    )


def check_packages(names: Sequence[str]) -> None:
    """Raises ConfigError for what can be no package."""
    for name in names:
        if not _PACKAGE.fullmatch(name):
            raise ConfigError(f"{name[:80]!r} is no package", key="packages")


def find_base(recipe: BaseRecipe, cache: Path | None = None) -> Path | None:
    """Its archive in the cache, if it is there."""
    path = _directory(cache) / f"{recipe.digest}.tar.zst"
    return path if path.is_file() else None


def make_base(recipe: BaseRecipe, progress: Progress, meter: Meter | None, cache: Path | None = None) -> Path:
    """Makes a base and returns its archive, in the place of an older one if there is one.

    :raises ImageError: no network, no such packages, no namespaces.
    """
    mode = mmdebstrap.choose_mode()
    directory = _directory(cache)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _tidy(directory)
        with tempfile.TemporaryDirectory(prefix=_PART, dir=directory) as work, _held(Path(work)):
            early, part = Path(work) / "early.tar", Path(work) / "base.tar.zst"
            early.write_bytes(make_tar(early_files()))
            failure = mmdebstrap.run(
                mode,
                command(recipe, early),
                progress=progress,
                meter=meter,
                output=lambda stream: _compress(stream, part),
            )
            if failure is not None:
                raise ImageError(f"mmdebstrap failed: {failure.reason()}", hint=_hint(failure))
            target = directory / f"{recipe.digest}.tar.zst"
            part.rename(target)
    except OSError as error:
        raise ImageError(
            f"{error.filename or directory}: {error.strerror}", hint="XDG_CACHE_HOME says where the cache is"
        ) from error
    return target


def command(recipe: BaseRecipe, early: Path) -> list[str]:
    """Arguments of mmdebstrap that make it, as an archive on stdout.

    :param early: an archive of what has to be there before the kernel.
    """
    return [
        "--variant=minbase",
        "--format=tar",
        "--architectures=amd64",
        "--skip=output/dev",
        *(f"--aptopt={option}" for option in recipe.apt_options),
        f"--include={','.join((*PACKAGES, recipe.kernel, *recipe.packages))}",
        f"--essential-hook=tar-in {shlex.quote(str(early))} /",
        recipe.suite,
        "-",
        *recipe.sources,
    ]


def unpack(archive: Path, target: IO[bytes]) -> None:
    """Writes a base's tar archive into a pipe.

    :raises ImageError: it is damaged.
    """
    try:
        with archive.open("rb") as file:
            zstandard.ZstdDecompressor().copy_stream(file, target)
    except zstandard.ZstdError as error:
        archive.unlink(missing_ok=True)
        raise ImageError(f"{archive} was damaged, and is deleted now", hint="build again") from error


def _directory(cache: Path | None) -> Path:
    return (cache or cache_dir()) / "bases"


def _compress(stream: IO[bytes], target: Path) -> None:
    with target.open("wb") as file:
        zstandard.ZstdCompressor(_LEVEL, threads=-1, write_checksum=True).copy_stream(stream, file)
        file.flush()
        os.fsync(file.fileno())


def _tidy(directory: Path) -> None:
    """Deletes the oldest archives, and what a process that was killed has left."""
    archives = sorted(directory.glob("*.tar.zst"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in archives[_KEPT - 1 :]:
        path.unlink(missing_ok=True)
    for work in directory.glob(f"{_PART}*"):
        with suppress(OSError):  # its process has it, or has just deleted it
            if time.time() - work.stat().st_mtime > _JUST_MADE_S:
                with _held(work):
                    shutil.rmtree(work)


@contextmanager
def _held(work: Path) -> Iterator[None]:
    """Tells others that a directory is somebody's. OSError: it is another's."""
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flock(fd, LOCK_EX | LOCK_NB)
        yield
    finally:
        os.close(fd)


def _hint(failure: mmdebstrap.Failure) -> str:
    text = "\n".join(failure.lines)
    if failure.is_of_space:
        return f"make room in {mmdebstrap.temporary_directory()}, or set TMPDIR"
    if "Unable to locate package" in text:
        return "is it a package of this suite?"
    if "NO_PUBKEY" in text or "is not signed" in text:
        return "the keys of this suite are missing: apt-get install debian-archive-keyring"
    return "is the mirror there, and does it have this suite?"
