# SPDX-License-Identifier: Apache-2.0
"""Sixteen Linux domains at once, each busy with its disk and its network: all of them and Domain 0 answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dom0_server import Server
from runtime_dir import short_runtime_directory
from waiting import until

from domzero.dom0.images.cache import Image

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(1800)]
COUNT = 16
MIB = 1 << 20
# Writes to the second MiB of its disk, flushes, and asks its neighbour for an echo, all the time.
WORK = (
    "(while :; do dd if=/dev/urandom of=/dev/xvda bs=64k seek=16 count=16 conv=fsync 2>/dev/null;"
    " ping -c 1 -W 30 10.0.0.{neighbour} >/dev/null && echo x >>/tmp/answers; done) & work=$!"
)
ASK = "echo round {turn} is $((6 * {turn})) after $(wc -l </tmp/answers)"
END = (
    "kill $work; wait; yes machine{number} | head -c 1048576 | dd of=/dev/xvda bs=64k conv=fsync 2>/dev/null; poweroff"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with short_runtime_directory():
        server = Server(tmp_path)
        yield server
        assert server.stop() == 0


class Machine:
    """A domain, by its number from 1 on."""

    def __init__(self, api: httpx.Client, image: Image, directory: Path, number: int) -> None:
        self.number, self.disk = number, directory / f"{number}.img"
        self._api, self._path = api, f"/domains/machine{number}"
        self.disk.write_bytes(bytes(4 * MIB))
        body = {
            "name": f"machine{number}", "kernel": image.kernel, "ramdisk": image.ramdisk, "cmdline": image.cmdline,
            "memory_mib": 96, "disks": [f"{self.disk},raw,xvda"], "vifs": ["bridge=lan"],
        }  # fmt: skip
        assert api.post("/domains", json=body).status_code in (201, 202)

    def type(self, line: str) -> None:
        assert self._api.post(f"{self._path}/console", json={"data": line + "\n"}).is_success

    def says(self, pattern: str) -> None:
        """Waits for a line."""
        said = re.compile(pattern, re.M)
        until(lambda: said.search(self._api.get(f"{self._path}/console").text) is not None, 600, pattern)

    def ended(self) -> bool:
        return not self._api.get(self._path).json()["exists"]


def test_sixteen_linux_domains_with_busy_disks_and_networks_answer(
    server: Server, debian: Image, tmp_path: Path
) -> None:
    transport = httpx.HTTPTransport(uds=str(server.socket))
    with httpx.Client(transport=transport, base_url="http://domzero/v1", timeout=120) as api:
        machines = [Machine(api, debian, tmp_path, number) for number in range(1, COUNT + 1)]
        for each in machines:
            each.says("A busybox shell follows")
            each.type(f"ip addr add 10.0.0.{each.number}/24 dev eth0; : >/tmp/answers")
        for each in machines:
            each.type(WORK.format(neighbour=each.number % COUNT + 1))
        for turn in range(1, 4):
            for each in machines:
                each.type(ASK.format(turn=turn))
            assert server.cli("list").stdout.count("machine") == COUNT
            for each in machines:
                each.says(rf"^round {turn} is {6 * turn} after \d+")
        for each in machines:  # and the network has carried something for each
            each.type("until [ -s /tmp/answers ]; do sleep 1; done; echo answered $((1 + 1))")
            each.says("^answered 2")
            each.type(END.format(number=each.number))
        for each in machines:
            until(each.ended, 600)
            line = f"machine{each.number}\n".encode()
            assert each.disk.read_bytes()[:MIB] == (line * MIB)[:MIB]
        until(lambda: server.workers() == [])
