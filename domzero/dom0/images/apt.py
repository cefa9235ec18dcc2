# SPDX-License-Identifier: Apache-2.0
"""The machine's own package client, used as an ordinary user: its mirrors and keys, no dpkg lock, nothing installed."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from domzero.errors import ImageError

Progress = Callable[[str], None]
_LISTS_MAX_AGE_S = 24 * 3600
_TIMEOUT_S = 1200
_NO_SPACE = "No space left on device"  # as LC_ALL=C has it
_NOT_FOUND = "No packages found"


@dataclass(slots=True, frozen=True)
class Package:
    """What the package lists say."""

    name: str
    version: str
    depends: str
    size: int


class Apt:
    """apt-get and apt-cache, with the system's package lists or, where these are missing or old, with lists of our own.

    :param directory: where our own lists are kept.
    """

    def __init__(self, directory: Path, progress: Progress) -> None:
        if shutil.which("apt-get") is None or shutil.which("apt-cache") is None:
            raise ImageError("images are fetched with apt-get, and it is not here", hint="any Debian or Ubuntu has it")
        self._directory = directory
        self._progress = progress
        self._private = False

    def _options(self) -> list[str]:
        options = [f"APT::Sandbox::User={_user()}", "APT::Architecture=amd64", "Acquire::Languages=none"]
        if self._private:
            root = self._directory
            options += [
                f"Dir::State={root}/state",
                f"Dir::State::status={root}/status",
                f"Dir::Cache={root}/cache",
                f"Dir::Log={root}/log",
                "Debug::NoLocking=true",
                "APT::Update::Post-Invoke-Success::=true",
                "APT::Update::Error-Mode=any",  # a list that could not be had or written is no success
            ]
        return [word for option in options for word in ("-o", option)]

    def _run(self, tool: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [tool, *self._options(), *arguments]
        environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        try:
            return subprocess.run(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise ImageError(
                f"{tool} did not answer for {_TIMEOUT_S // 60} minutes: is the mirror reachable?"
            ) from error
        except OSError as error:
            raise ImageError(f"{tool}: {error.strerror}") from error

    def show(self, name: str) -> Package | None:
        """The newest version of a package that the lists know."""
        result = self._run("apt-cache", "show", "--no-all-versions", name)
        fields = dict(re.findall(r"^(Package|Version|Depends|Size): (.*)$", result.stdout, re.MULTILINE))
        if fields.get("Package") != name or "Version" not in fields:
            if result.returncode and _NOT_FOUND not in result.stderr:
                raise ImageError(f"apt-cache failed: {_reason(result)}", hint=self._hint(result))
            return None
        return Package(name, fields["Version"], fields.get("Depends", ""), int(fields.get("Size", 0)))

    def update(self, *, force: bool = False) -> None:
        """Switches to lists of our own, and fetches them unless they are from today.

        :raises ImageError: the mirrors cannot be reached.
        """
        self._private = True
        stamp = self._directory / "updated"
        with suppress(OSError):
            if not force and time.time() - stamp.stat().st_mtime < _LISTS_MAX_AGE_S:
                return
        try:
            for part in ("state/lists/partial", "cache/archives/partial", "log"):
                (self._directory / part).mkdir(parents=True, exist_ok=True)
            (self._directory / "status").touch()
        except OSError as error:
            raise ImageError(
                f"{self._directory}: {error.strerror}", hint="XDG_CACHE_HOME says where images are kept"
            ) from error
        self._progress("fetching package lists (into Domzero's own cache)")
        result = self._run("apt-get", "update", "-q")
        if result.returncode:
            raise ImageError(f"apt-get update failed: {_reason(result)}", hint=self._hint(result))
        with suppress(OSError):  # without it the lists are fetched once more
            stamp.touch()

    def download(self, package: Package, directory: Path) -> Path:
        """Downloads a package.

        :raises ImageError: it cannot be had.
        """
        before = set(directory.glob("*.deb"))
        target = f"{package.name}={package.version}"
        result = self._run("apt-get", "download", "-q", target, cwd=directory)
        new = set(directory.glob("*.deb")) - before
        if result.returncode or not new:
            raise ImageError(f"apt-get download {target} failed: {_reason(result)}", hint=self._hint(result))
        return new.pop()

    def _hint(self, result: subprocess.CompletedProcess[str]) -> str:
        output = result.stdout + result.stderr
        if _NO_SPACE in output:
            return f"make room where {self._directory} is, or choose another XDG_CACHE_HOME"
        if "died unexpectedly" in output:
            return "is there a limit on the size of files (ulimit -f)?"
        return "is the network there?"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a uid without a name, as containers have
        return ""


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    """The first error in apt's output; a full disk is behind others that come before it."""
    if _NO_SPACE in result.stdout + result.stderr:
        return _NO_SPACE
    lines = (result.stderr + "\n" + result.stdout).splitlines()
    errors = [line[2:].strip() for line in lines if line.startswith("E:")] or [line for line in lines if line.strip()]
    return errors[0] if errors else f"exit status {result.returncode}"
