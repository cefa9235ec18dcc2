# SPDX-License-Identifier: Apache-2.0
"""File descriptors of the Domain 0 process: as many as the system allows, and some held back for who needs them most.

A domain takes about five (control, files, two of xenstore, its worker's stderr), a client one. The kernel gives the
lowest number that is free: a number near the limit says that nearly all are taken.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass, field

from domzero.errors import ResourceError

FOR_OWNER = 64
"""Left by workers: the owner's Unix socket is answered when everything else is taken."""
FOR_WORKERS = 128
"""Left by clients over TCP, beyond those."""
UNLIMITED = 1 << 20


def raise_limit() -> int:
    """Raises the soft limit to the hard one (RLIMIT_NOFILE).

    :returns: descriptors that this process may have.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = UNLIMITED if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def limit() -> int:
    """Descriptors that this process may have now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


@dataclass(slots=True, kw_only=True)
class Descriptors:
    """What has descriptors, which whoever takes them has to close."""

    fds: list[int] = field(default_factory=list)

    def take(self) -> list[int]:
        """Gives them away."""
        fds, self.fds = self.fds, []
        return fds

    def close(self) -> None:
        """Closes those that nobody took."""
        for fd in self.take():
            os.close(fd)


def check_for_worker() -> None:
    """Raises ResourceError when a worker would take what is held back for the owner's requests."""
    try:
        lowest = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.close(lowest)
    except OSError:
        lowest = limit()
    if lowest >= limit() - FOR_OWNER:
        raise ResourceError(
            f"Domain 0 has nearly all of its {limit()} file descriptors in use", hint="raise the hard limit: ulimit -Hn"
        )
