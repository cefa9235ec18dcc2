# SPDX-License-Identifier: Apache-2.0
"""`python -I -S launch.py PARENT QEMU ...`: takes from itself what a QEMU does not need, and becomes it.

Imports nothing of Domzero, and little else: it is there for some milliseconds. It is in a session of its own already.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
OOM_SCORE = 500
NICE = 5
FILES = 4096


def main(arguments: list[str]) -> None:
    """Becomes QEMU, which ends with Domain 0."""
    parent = int(arguments[0])
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    for name, value in (("oom_score_adj", OOM_SCORE), ("coredump_filter", 0)):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(str(value))
        except OSError:
            pass
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.nice(NICE)
    os.execv(arguments[1], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
