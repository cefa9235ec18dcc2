# SPDX-License-Identifier: Apache-2.0
"""`domzero serve` for a benchmark, in a directory of the benchmark's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET = "d.sock"
XENSTORE = "xenstored.sock"


@contextmanager
def serving(directory: Path, *arguments: str) -> Iterator[int]:
    """Runs it until the end of the block: its process id. It listens on SOCKET and XENSTORE in that directory.

    :raises SystemExit: it does not start; with what it has said.
    """
    log = directory / "log"
    command = [sys.executable, "-m", "domzero", "serve", "--xenstore-socket", str(directory / XENSTORE), *arguments]
    with log.open("w") as out:
        # In a session of its own: where processes are grouped by session it has a share of its own, as a daemon has.
        server = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**os.environ, "DOMZERO_SOCKET": str(directory / SOCKET)},
        )
    try:
        while "listens" not in log.read_text():
            if server.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.01)
        yield server.pid
    finally:
        server.terminate()
        server.wait()
