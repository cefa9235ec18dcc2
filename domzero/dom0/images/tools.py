# SPDX-License-Identifier: Apache-2.0
"""Programs of the host that images are made with: found where ordinary users' PATH does not look, run to their end."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Container, Sequence

from domzero.errors import ImageError

Progress = Callable[[str], None]
"""Takes a line that says what is done now."""
Meter = Callable[[str, float], None]
"""Takes what is done now, and how much of it is (0 to 1)."""

PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "mke2fs": "e2fsprogs",
    "sfdisk": "fdisk",
    "qemu-img": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "openssl": "openssl",
}
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_TIMEOUT_S = 3600


def search_path() -> str:
    """PATH, and where Debian keeps mke2fs and sfdisk."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])


def find_tool(name: str) -> str | None:
    """Where a program is, or None."""
    return shutil.which(name, path=search_path())


FEW_ARENAS = {"MALLOC_ARENA_MAX": "2"}
"""For a program with threads and a bound on its address space: glibc reserves 64 MiB for each of eight heaps per
processor of the host, which fills 2 GiB with 64 threads from four processors on."""


def need_tools(*names: str) -> list[str]:
    """Where these programs are.

    :raises ImageError: some are missing: says which packages have them.
    """
    found = [find_tool(name) for name in names]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[name] for name in missing))
        raise ImageError(f"this needs {' and '.join(missing)}", hint=f"apt-get install {packages}")
    return [path for path in found if path is not None]


def run_tool(
    command: Sequence[str],
    *,
    stdin: str = "",
    seconds: float = _TIMEOUT_S,
    memory: int | None = None,
    pass_fds: Sequence[int] = (),
    statuses: Container[int] = (0,),
) -> str:
    """Runs a program to its end and returns what it prints on stdout.

    :param statuses: exit statuses that are no failure.
    :param memory: bytes of address space that it may have: for those that read files from elsewhere.
    :raises ImageError: it failed; its last line on stderr says why.
    """
    name = os.path.basename(command[0])
    limit = None if memory is None else lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        result = subprocess.run(
            command,
            input=stdin,
            env={**os.environ, "LC_ALL": "C", "PATH": search_path(), **({} if memory is None else FEW_ARENAS)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            pass_fds=pass_fds,
            preexec_fn=limit,
        )
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{name} has not ended after {seconds:.0f} seconds") from error
    except OSError as error:
        raise ImageError(f"{name}: {error.strerror}") from error
    if result.returncode not in statuses:
        raise ImageError(f"{name} failed: {last_line(result.stderr) or f'exit status {result.returncode}'}")
    return result.stdout


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
