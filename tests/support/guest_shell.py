# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel with a busybox shell on its console, that does what is typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from waiting import until

from domzero.dom0.config import DomainConfig
from domzero.dom0.images.cache import Image
from domzero.dom0.lifecycle import DomainSession

PROMPT = b":/root# "


class GuestShell:
    """A domain with busybox' shell on its console."""

    def __init__(self, debian: Image, *, memory_mib: int = 160, **rest: Any) -> None:
        """`rest`: fields of DomainConfig."""
        kernel, ramdisk, cmdline = debian.kernel, debian.ramdisk, debian.cmdline
        config = DomainConfig(kernel=kernel, ramdisk=ramdisk, cmdline=cmdline, memory_mib=memory_mib, **rest)
        self._commands = 0
        self.log: list[str] = []
        self.session = DomainSession(config, log=self.log.append)
        self.session.start()

    def ready(self) -> None:
        """Its shell is there, and lines are not broken."""
        self.start("stty cols 500")()

    def start(self, command: str) -> Callable[[], str]:
        """Types a command; the result waits for its end and gives what it wrote."""
        console = self.session.console
        until(lambda: PROMPT in console.history, 240, "a prompt")
        self._commands += 1
        at, mark = len(console.history), f"end{self._commands}"
        console.send(f"{command}; echo ''{mark[0]}''{mark[1:]}\n".encode())

        def finished() -> str:
            until(lambda: f"{mark}\r\n".encode() in console.history[at:], 240, command)
            text = console.history[at:].decode(errors="replace").replace("\r", "")
            return text.partition(f"{mark}\n")[0].rpartition(f"''{mark[1:]}\n")[2]  # its echo may be there twice

        return finished

    def do(self, command: str) -> str:
        """Types a command, and gives what it wrote."""
        return self.start(command)()
