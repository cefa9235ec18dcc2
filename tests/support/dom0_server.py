# SPDX-License-Identifier: Apache-2.0
"""A real Domain 0 in a process of its own, for tests."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from building import ROOT
from waiting import until


class Server:
    """`domzero serve` on a socket in a temporary directory.

    :param nofile: the hard limit of its file descriptors.
    :param before: called in its process first.
    :param python_path: where it looks for modules before domzero's own place.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        nofile: int | None = None,
        before: Callable[[], object] = lambda: None,
        python_path: str = "",
    ) -> None:
        def limit() -> None:
            before()
            if nofile is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))

        self.socket = directory / "d.sock"
        self.log = directory / "serve.log"
        self.xenstore = directory / "xenstored.sock"
        self.dumps = directory.with_name(f"{directory.name}-dumps")
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [python_path, str(ROOT)])),
            "DOMZERO_SOCKET": str(self.socket),
            "XENSTORED_PATH": str(self.xenstore),
            "DOMZERO_DUMP_DIR": str(self.dumps),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "domzero", "serve", "-v", *arguments], env=self.env, stderr=log, preexec_fn=limit
            )
        try:
            until(lambda: "listens" in self.log.read_text() or self.process.poll() is not None, 240, "Domain 0's start")
        except BaseException:
            self.process.kill()
            raise
        assert self.process.poll() is None, self.log.read_text()

    @property
    def url(self) -> str:
        """Its address on TCP."""
        match = re.search(r"https?://\S+:\d+", self.log.read_text())
        assert match is not None
        return match[0]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `url`."""
        host, _, port = self.url.partition("://")[2].rpartition(":")
        return host, int(port)

    @property
    def token_file(self) -> Path:
        """Where it keeps the token for TCP."""
        host, port = self.address
        return self.socket.parent / f"tcp-{host}-{port}.token"

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()

    def cli(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs `domzero` with these arguments."""
        return subprocess.run(
            [sys.executable, "-m", "domzero", *arguments],
            env=self.env,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def read_store(self, path: str) -> str:
        """The value of a node of its xenstore."""
        import pyxs  # type: ignore[import-untyped]

        with pyxs.Client(unix_socket_path=str(self.xenstore)) as client:
            value: bytes = client[path.encode()]
            return value.decode()

    def workers(self) -> list[int]:
        """Process ids of the workers: children of the fork server, which is Domain 0's only child."""
        return [worker for child in children(self.process.pid) for worker in children(child)]

    def stop(self, signum: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def children(pid: int) -> list[int]:
    """Process ids of a process's children."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended
        return []
