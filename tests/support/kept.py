# SPDX-License-Identifier: Apache-2.0
"""A Domain 0 whose domains outlive it, for tests that kill it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from dom0_server import Server
from waiting import until


class Kept:
    """A Domain 0 with `--keep-domains` that can be killed and followed by another one."""

    def __init__(self, directory: Path, shell: str) -> None:
        self.directory = directory
        self.shell = shell
        self.begin("--keep-domains")

    def begin(self, *arguments: str) -> None:
        self.server = Server(self.directory, *arguments)
        transport = httpx.HTTPTransport(uds=str(self.server.socket))
        self.api = httpx.Client(transport=transport, base_url="http://domzero/v1", timeout=60)

    def end(self, signum: int = signal.SIGKILL) -> int:
        self.api.close()
        return self.server.stop(signum)

    def restart(self, signum: int = signal.SIGKILL, *arguments: str) -> None:
        self.end(signum)
        self.begin(*(arguments or ("--keep-domains",)))

    def create(self, name: str, **fields: Any) -> dict[str, Any]:
        body = {"name": name, "kernel": self.shell, "memory_mib": 8, **fields}
        assert self.api.post("/domains", json=body).status_code in (201, 202)
        until(lambda: "hello" in self.console(name))
        return self.domain(name)

    def domain(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/domains/{name}").json()
        return found

    def console(self, name: str) -> str:
        return self.api.get(f"/domains/{name}/console").text

    def type(self, name: str, text: str) -> None:
        assert self.api.post(f"/domains/{name}/console", json={"data": text}).status_code == 204

    def answers(self, name: str, words: str) -> None:
        """The guest reads its console, and answers there."""
        self.type(name, f"echo {words}\n")
        until(lambda: f"{words}\r\n" in self.console(name))

    def act_meanwhile(self, pids: Mapping[str, int], words: Mapping[str, str], enter: str = "\n") -> None:
        """Kills Domain 0; then domains do what was typed on their consoles, those without words are killed, and the
        next Domain 0 comes."""
        for name, text in words.items():
            os.kill(pids[name], signal.SIGSTOP)  # it takes the command when Domain 0 has gone
            self.type(name, f"{text}{enter}")
        self.end()
        killed = pids.keys() - words.keys()
        for name, pid in pids.items():
            os.kill(pid, signal.SIGKILL if name in killed else signal.SIGCONT)
        until(lambda: all(is_gone(pids[name]) for name in killed))
        self.begin("--keep-domains")

    def nodes(self) -> dict[str, str]:
        """All that is in xenstore."""
        import pyxs  # type: ignore[import-untyped]

        with pyxs.Client(unix_socket_path=str(self.server.xenstore)) as client:
            return {path.decode(): value.decode() for path, value, _ in client.walk(b"/")}

    @property
    def keeper(self) -> int:
        """The keeper's process id; 0: there is none."""
        return keeper_of(self.directory)


def keeper_of(directory: Path) -> int:
    """Whose command line names the keeper and this directory; 0: nobody's."""
    return next(iter(processes_with(b"domzero.dom0.keep.keeper", bytes(directory / "d.sock.db.keeper"))), 0)


def processes_with(*words: bytes) -> list[int]:
    """Process ids of those whose command lines have all of this."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes()
            if all(word in line for word in words):
                found.append(int(process.name))
    return found


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()
