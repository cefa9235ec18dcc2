# SPDX-License-Identifier: Apache-2.0
"""A process that ends with the one that has started it."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with(parent: int, signum: signal.Signals = signal.SIGKILL) -> None:
    """Asks the kernel to end this process with its parent, also if that is killed.

    :param parent: the parent's process id: if it is another's by now, this process ends at once.
    :param signum: what it is sent then.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


__all__ = ["die_with"]
