# SPDX-License-Identifier: Apache-2.0
"""Linux domains of a Domain 0 that is killed and followed by another one: their consoles, and a counter on them."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import httpx
from dom0_server import Server
from waiting import until

SHELL = "A busybox shell follows"
TICK = '(i=0; while :; do i=$((i + 1)); echo "tick $i;"; usleep 50000; done) &'
PATIENCE_S = 240


class LinuxDomains:
    """A Domain 0, and one after it, with Linux domains."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory, self._arguments = directory, arguments
        self.begin()

    def begin(self) -> None:
        self.server = Server(self.directory, *self._arguments)
        transport = httpx.HTTPTransport(uds=str(self.server.socket))
        self.api = httpx.Client(transport=transport, base_url="http://domzero/v1", timeout=120)

    def kill(self) -> None:
        self.api.close()
        self.server.stop(signal.SIGKILL)

    def domain(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/domains/{name}").json()
        return found

    def console(self, name: str) -> str:
        return self.api.get(f"/domains/{name}/console").text

    def type(self, name: str, line: str) -> None:
        assert self.api.post(f"/domains/{name}/console", json={"data": line + "\n"}).is_success

    def says(self, name: str, pattern: str) -> str:
        """Waits for a line; its first group, if it has one."""
        said = re.compile(pattern, re.M)
        until(lambda: said.search(self.console(name)) is not None, PATIENCE_S, pattern)
        match = said.search(self.console(name))
        assert match is not None
        return match[1] if match.groups() else match[0]

    def close(self) -> None:
        for domain in self.api.get("/domains", params={"halted": True}).json():
            self.api.delete(f"/domains/{domain['uuid']}")
            if domain["persistent"]:
                self.api.delete(f"/domains/{domain['uuid']}/definition")
        assert self.server.stop() == 0
        self.api.close()


def ticks(console: str) -> list[int]:
    return [int(number) for number in re.findall(r"tick (\d+);", console)]
