# SPDX-License-Identifier: Apache-2.0
"""Disks with Debian on them: looked into, started with `domzero run --image`, typed to as a person does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from building import COMMAND
from loopback import free_port
from waiting import until

from domzero.dom0.images.store import DiskImage, DiskStore
from domzero.dom0.images.tools import find_tool

ROOT_START = 1 << 20
"""Where the file system of a disk begins that `domzero image build` has made."""


def file_system_of(image: DiskImage) -> str:
    """A built disk's file system, as e2fsprogs call it."""
    return f"{image.disk}?offset={ROOT_START}"


def debugfs(image: DiskImage, request: str) -> bytes:
    """What debugfs says about a built disk."""
    program = find_tool("debugfs")
    assert program is not None
    return subprocess.run([program, "-R", request, file_system_of(image)], capture_output=True, check=True).stdout


def check_file_system(image: DiskImage) -> None:
    """Fails unless a built disk's file system is sound."""
    program = find_tool("e2fsck")
    assert program is not None
    result = subprocess.run([program, "-f", "-n", file_system_of(image)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


class Machine:
    """`domzero run --image` of an image, typed to as a person would."""

    def __init__(self, store: DiskStore, name: str, output: Path, *options: str) -> None:
        """`options`: more of `domzero run`."""
        self._output = output
        self._seen = 0
        environment = {**os.environ, "XDG_DATA_HOME": str(store.root.parents[1])}
        command = [*COMMAND, "run", "--image", name, "--json", "--audit", *options]
        with output.open("wb") as stdout:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE
            )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_for(self, text: str, seconds: float = 600) -> bytes:
        """What it prints from where the last call ended, as soon as this has come."""
        found: list[int] = []

        def come() -> bool:
            at = self._output.read_bytes().find(text.encode(), self._seen)
            found[:] = [at + len(text)] if at >= 0 else []
            return bool(found) or not self.is_running

        until(come, seconds, text)
        printed = self._output.read_bytes()
        assert found, printed[-2000:].decode(errors="replace")
        self._seen, start = found[0], self._seen
        return printed[start : found[0]]

    def type(self, line: str) -> None:
        """Types a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def log_in(self) -> None:
        """Logs root in, who needs no password, on a machine that starts."""
        self.wait_for("Welcome to GRUB!")
        self.wait_for("login: ")
        self.type("root")
        self.wait_for(":~# ")

    def ask(self, command: str) -> str:
        """What a shell command prints."""
        self.type(f"{command}; echo e''nd of it")
        return self.wait_for("end of it").decode(errors="replace")

    def power_off(self) -> dict[str, Any]:
        """Types `poweroff`, and gives how it ended."""
        self.type("poweroff")
        return self.end()

    def end(self) -> dict[str, Any]:
        """How it ended, as `--json` says it."""
        _, errors = self._process.communicate(timeout=300)
        end: dict[str, Any] = json.loads(errors.splitlines()[-1])
        return end

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.communicate()


class Ssh:
    """An ssh client with a key of its own, for a machine on a port of the loopback interface."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("ssh") is None:
            pytest.skip("ssh is not here: apt-get install openssh-client")
        self._key = directory / "key"
        self.port = free_port()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._key], check=True)

    @property
    def public_key(self) -> str:
        """A line of authorized_keys."""
        return self._key.with_suffix(".pub").read_text().strip()

    def wait(self, machine: Machine, user: str = "root") -> None:
        """Returns when a machine that starts lets this account in; fails if it has ended."""
        until(lambda: self.run("true", user).returncode == 0 or not machine.is_running, 600, "a login by ssh")
        assert machine.is_running

    def run(self, command: str, user: str = "root", seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Runs a command there; status 255 is ssh's own."""
        quiet = ("-F", "none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60")
        host = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-p", str(self.port))
        line = ["ssh", *quiet, *host, "-i", str(self._key), f"{user}@127.0.0.1", command]
        return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
