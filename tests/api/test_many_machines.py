# SPDX-License-Identifier: Apache-2.0
"""Domains with disks, networks and shared directories: many one after the other, and many at once. Nothing is left."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from building import build_guests
from dom0_server import Server, children
from waiting import until

pytestmark = [pytest.mark.timeout(1800)]
FEW, MANY = pytest.param(4, id="few"), pytest.param(200, id="many", marks=pytest.mark.slow)
AT_ONCE = 16
MIB = 1 << 20


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A kernel that writes and reads its disk, and powers off."""
    return str(build_guests(tmp_path_factory.mktemp("devices"), "devices") / "64" / "device_disk")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A Domain 0 with networks of its own, whose processes and files are all there are."""
    runtime = Path(f"/tmp/dz-{os.getpid()}")  # short: sockets are in it
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    directory = tmp_path / "dom0"
    for each in (directory, tmp_path / "tmp"):
        each.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    server = Server(directory)
    yield server
    assert server.stop() == 0
    networks = runtime / "domzero" / "networks"
    until(lambda: not list(networks.glob("*.sock")))  # the last interface ends its switch
    for path in sorted(runtime.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    runtime.rmdir()


def files(server: Server, directory: Path) -> list[str]:
    """Files that Domain 0 and its processes may have made."""
    places = (server.socket.parent, directory / "tmp", Path(os.environ["XDG_RUNTIME_DIR"]))
    return sorted(str(path) for place in places for path in place.rglob("*"))


def held(pid: int) -> Counter[str]:
    """What a process has: threads, and kinds of open files."""
    process = Path(f"/proc/{pid}")
    files = [os.readlink(fd).partition(":")[0] for fd in (process / "fd").iterdir() if fd.is_symlink()]
    return Counter(["thread" for _ in (process / "task").iterdir()] + files)


class Machines:
    """Domains with one of each kind of device."""

    def __init__(self, api: httpx.Client, kernel: str, directory: Path) -> None:
        self._api, self._kernel, self._directory = api, kernel, directory

    def create(self, name: str) -> None:
        disk = self._directory / f"{name}.img"
        disk.write_bytes(bytes(4 * MIB))
        share = self._directory / name
        share.mkdir(exist_ok=True)
        body = {
            "name": name,
            "kernel": self._kernel,
            "memory_mib": 16,
            "on_poweroff": "preserve",
            "disks": [f"{disk},raw,xvda"],
            "vifs": ["bridge=lan"],
            "shares": [f"tag=share,path={share}"],
        }
        assert self._api.post("/domains", json=body).status_code in (201, 202)

    def passed(self, name: str) -> bool:
        """Whether its kernel has come to its end, which is a good one."""
        if self._api.get(f"/domains/{name}").json()["state"] != "shutdown":
            return False
        said = self._api.get(f"/domains/{name}/console").text
        assert "PASS disk" in said and "FAIL" not in said, said
        return True

    def destroy(self, name: str) -> None:
        assert self._api.delete(f"/domains/{name}").status_code == 204
        assert self._api.delete(f"/domains/{name}").status_code == 204  # its record


@pytest.fixture
def machines(own: Server, kernel: str, tmp_path: Path) -> Iterator[Machines]:
    transport = httpx.HTTPTransport(uds=str(own.socket))
    with httpx.Client(transport=transport, base_url="http://domzero/v1", timeout=120) as api:
        yield Machines(api, kernel, tmp_path)


@pytest.mark.parametrize("cycles", [FEW, MANY])
def test_domains_with_devices_one_after_the_other_leave_nothing_behind(
    own: Server, machines: Machines, tmp_path: Path, cycles: int
) -> None:
    def cycle(name: str) -> None:
        machines.create(name)
        until(partial(machines.passed, name))
        machines.destroy(name)

    for n in range(2):  # what is made once
        cycle(f"first{n}")
    (spawner,) = children(own.process.pid)

    def left() -> tuple[Counter[str], Counter[str], list[str]]:
        return held(own.process.pid), held(spawner), files(own, tmp_path)

    until(lambda: not list(Path(os.environ["XDG_RUNTIME_DIR"]).rglob("*.sock")))
    before, shared = left(), set(os.listdir("/dev/shm"))
    for n in range(cycles):
        cycle(f"next{n}")
    until(lambda: left() == before and set(os.listdir("/dev/shm")) <= shared)
    assert own.workers() == []


@pytest.mark.slow
def test_sixteen_domains_with_devices_at_once_come_to_their_ends(own: Server, machines: Machines) -> None:
    names = [f"machine{n}" for n in range(AT_ONCE)]
    for name in names:
        machines.create(name)
    for name in names:
        assert own.cli("list", name).returncode == 0
        until(partial(machines.passed, name), 300)
        machines.destroy(name)
    until(lambda: own.workers() == [])
