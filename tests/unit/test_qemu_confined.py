# SPDX-License-Identifier: Apache-2.0
"""What a QEMU can do no more: open, connect, signal, change; whatever its guest has made of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("domzero._machine", reason="the machine is not built", exc_type=ImportError)

from domzero import _machine
from domzero.dom0.config import DomainConfig
from domzero.dom0.hvmspec import DomainType
from domzero.dom0.qemu import launch
from domzero.dom0.qemu.handle import QemuHandle
from domzero.dom0.qemu.qmp import QmpError
from domzero.dom0.xenstore import Store

pytestmark = pytest.mark.skipif(_machine.landlock_version() == 0, reason="no landlock in this kernel")
PROBE = """
import json, os, socket, sys, threading
secret, listens, given, parent = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def connect():
    a, b = socket.socketpair()
    import ctypes
    if ctypes.CDLL(None, use_errno=True).connect(a.fileno(), b"\\1\\0" + listens.encode() + b"\\0", 110):
        raise OSError(ctypes.get_errno(), "connect")
def thread():
    t = threading.Thread(target=lambda: None); t.start(); t.join()
tries = {
    "read": lambda: open(secret), "write": lambda: open(secret, "a"), "make": lambda: open(secret + "2", "x"),
    "list": lambda: os.listdir(os.path.dirname(secret)), "remove": lambda: os.unlink(secret),
    "mode": lambda: os.chmod(secret, 0o777), "times": lambda: os.utime(secret), "password": lambda: open("/etc/passwd"),
    "environment": lambda: open(f"/proc/{parent}/environ"), "memory": lambda: open(f"/proc/{parent}/mem", "rb"),
    "socket": lambda: socket.socket(), "connect": connect, "signal": lambda: os.kill(parent, 0),
    "group": lambda: os.killpg(os.getpgid(parent), 0),
    "given, to write": lambda: open(f"/proc/self/fd/{given}", "r+b"),
    "given": lambda: open(f"/proc/self/fd/{given}", "rb").read(), "library": lambda: open("/usr/bin/env", "rb"),
    "itself": lambda: os.kill(os.getpid(), 0), "thread": thread,
}
found = {}
for name, job in tries.items():
    try:
        job()
        found[name] = "works"
    except OSError as error:
        found[name] = os.strerror(error.errno)
print(json.dumps(found))
"""
WORK = {"given", "library", "itself", "thread"}


def test_what_runs_in_the_place_of_qemu_has_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    secret, given, listens = tmp_path / "secret", tmp_path / "given", tmp_path / "d.sock"
    secret.write_text("secret")
    given.write_text("given")
    program = os.path.realpath(sys.executable)
    with socket.socket(socket.AF_UNIX) as listener, given.open() as file:
        listener.bind(str(listens))
        listener.listen()
        words = [str(secret), str(listens), str(file.fileno()), str(os.getpid())]
        done = subprocess.run(
            [
                *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(file.fileno())),
                *(program, "-I", "-S", "-c", PROBE, *words),
            ],
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name for name, how in found.items() if how == "works"} == WORK, found
    assert secret.exists() and secret.stat().st_mode & 0o777 != 0o777


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not here")
def test_a_qemu_opens_nothing_that_it_is_told_to(tmp_path: Path) -> None:
    secret = tmp_path / "secret.img"
    secret.write_bytes(bytes(4096))

    async def scene() -> None:
        config = DomainConfig(kernel="", name="confined", type=DomainType.HVM, memory_mib=16, engine="tcg", vifs=[])
        handle = QemuHandle(Store(), 1, on_console=lambda _: None, on_event=lambda _: None, on_gone=lambda _: None)
        try:
            await handle.start(config)
            for driver in ("file", "qcow2"):
                file = {"driver": "file", "filename": str(secret)}
                words = file if driver == "file" else {"driver": driver, "file": file}
                with pytest.raises(QmpError, match="Permission denied"):
                    await handle.qmp.ask("blockdev-add", {**words, "node-name": driver})
            with pytest.raises(QmpError, match=r"Permission denied|not permitted"):
                await handle.qmp.ask("screendump", {"filename": str(tmp_path / "picture")})
            address = {"type": "unix", "path": str(tmp_path / "new.sock")}
            backend = {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": address["path"]}}}}
            with pytest.raises(QmpError, match="not permitted"):
                await handle.qmp.ask("chardev-add", {"id": "x", "backend": backend})
            assert "NoNewPrivs:\t1" in Path(f"/proc/{handle.pid}/status").read_text()
        finally:
            await handle.stop()

    asyncio.run(scene())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.img"]
