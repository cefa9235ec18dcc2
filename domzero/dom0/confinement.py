# SPDX-License-Identifier: Apache-2.0
"""What a worker takes from itself before it is told anything: files, sockets, programs, other processes.

The mechanism is `crates/confine`. A worker that is confined goes on to read and write what it was given; it opens
nothing (but files in the directories that its guest shares), connects to nothing, starts nothing but threads, and
signals nobody.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from contextlib import suppress

from domzero import _machine

SWITCH = "DOMZERO_NO_CONFINE"
"""In the environment of `domzero serve`: workers stay unconfined, as with --no-confine."""
OOM_SCORE = 500
"""When memory runs out, workers go before Domain 0 and what else the user runs."""
DATA_BYTES = 4 << 30
"""Private memory of a worker at most, beside an eighth of the host's: decoded code of 32 vCPUs, their stacks, images
while they are unpacked, tables by frame. The guest's own memory is no part of it."""
FILES = 4096
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TZDIR", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX")
_KEPT_PREFIXES = ("PYTHON", "RUST_", "DOMZERO_")


def is_wanted() -> bool:
    """Whether the environment does not say otherwise."""
    return not os.environ.get(SWITCH)


def small_environment() -> dict[str, str]:
    """What of this process's environment the fork server, and so each worker, has."""
    return {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}


def described(*, confined: bool) -> str:
    """How workers are confined here, in a few words for `domzero info`."""
    if not confined:
        return "none"
    version = _machine.landlock_version()
    return "no_new_privs, seccomp, " + (f"landlock {version}" if version else "no landlock in this kernel")


def step_down() -> None:
    """Limits that need no other kernel than any: no core file with a guest's memory, bounded memory and files."""
    os.chdir("/")
    time.tzset()  # reads the zone, which nobody can later
    for name, value in (("oom_score_adj", OOM_SCORE), ("coredump_filter", 0)):
        # A core goes to a program, too, which RLIMIT_CORE does not stop: nothing of memory is in it.
        with suppress(OSError):
            fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, str(value).encode())
            finally:
                os.close(fd)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    _lower(resource.RLIMIT_DATA, DATA_BYTES + memory // 8)
    _lower(resource.RLIMIT_NOFILE, FILES)


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def confine(
    directories: Sequence[tuple[int, bool]] = (), *, terminal: bool = False, makes_code: bool = False
) -> list[str]:
    """Confines this process, which has one thread; what could not be done, a line each.

    :param directories: descriptors, which it takes, of those whose files it serves, and whether it writes them.
    :param terminal: it goes on to change the settings of its terminal.
    :param makes_code: it goes on to map memory of the translator's that is run, and not written at the same address.
    """
    return _machine.confine(list(directories), terminal, makes_code)
