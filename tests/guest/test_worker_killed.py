# SPDX-License-Identifier: Apache-2.0
"""What a guest has flushed is in its disk's image when its worker was killed in the middle of other writes."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from building import build_guests
from created import created
from dom0_server import Server
from waiting import until

pytestmark = [pytest.mark.guest, pytest.mark.timeout(1200)]

KILLS = int(os.environ.get("DOMZERO_KILLS", "17"))  # of each format
DISK_MIB = 64
PAGE = 4096


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("s"))
    yield server
    server.stop()


def synced(console: str) -> int:
    """The last page that the guest has said to be flushed; -1: none."""
    said = re.findall(r"^synced (\d+)\r?$", console, re.MULTILINE)
    return int(said[-1]) if said else -1


@pytest.mark.parametrize(
    ("form", "kills"),
    [(form, 1) for form in ("raw", "qcow2")]
    + [pytest.param(form, KILLS, marks=pytest.mark.slow) for form in ("raw", "qcow2", "vhd")],
)
def test_what_was_flushed_is_there_after_the_worker_was_killed(
    server: Server, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, form: str, kills: int
) -> None:
    for program in ("qemu-img", "qemu-nbd"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    kernel = build_guests(tmp_path_factory.mktemp("devices"), "devices") / "64" / "device_numbered"
    image, plain, qemu = tmp_path / f"disk.{form}", tmp_path / "plain", {"vhd": "vpc"}.get(form, form)
    options = ["-o", "force_size=on"] if form == "vhd" else []
    transport = httpx.HTTPTransport(uds=str(server.socket))
    with closing(httpx.Client(transport=transport, base_url="http://domzero/v1", timeout=60)) as api:
        for number in range(kills):
            image.unlink(missing_ok=True)
            create = ["qemu-img", "create", "-q", "-f", qemu, *options, str(image), f"{DISK_MIB}M"]
            subprocess.run(create, check=True)
            body = {
                "name": f"n{kills}-{form}{number}",
                "kernel": str(kernel),
                "memory_mib": 16,
                "disks": [f"{image},{form},xvda"],
            }
            last = killed_after(api, body, random.Random(number).randrange(1, 400))
            if form == "qcow2":
                # Leaked clusters (3) are no damage: they had been allocated, and nothing refers to them.
                assert subprocess.run(["qemu-img", "check", "-q", image], check=False).returncode in (0, 3)
            if form != "raw":
                until(lambda: convert(qemu, image, plain), 30)
            pages = (image if form == "raw" else plain).read_bytes()
            for page in range(last + 1):
                words = struct.unpack_from("<1024I", pages, page * PAGE)
                expected = tuple((page * 1024 + i) & 0xFFFFFFFF ^ 0x77777777 for i in range(1024))
                assert words == expected, f"kill {number}: page {page} of {last}"


def killed_after(api: httpx.Client, body: dict[str, object], enough: int) -> int:
    """Starts the guest, and kills its worker when so many pages are flushed; the last that it has said to be."""
    path = f"/domains/{created(api, api.post('/domains', json=body))['uuid']}"
    until(lambda: synced(api.get(f"{path}/console").text) >= enough, 120)
    os.kill(api.get(path).json()["pid"], signal.SIGKILL)
    until(lambda: not api.get(path).json()["exists"], 60)
    return synced(api.get(f"{path}/console").text)


def convert(form: str, image: Path, plain: Path) -> bool:
    """Makes a raw image of one that nobody has open any more."""
    command = ["qemu-img", "convert", "-f", form, "-O", "raw", str(image), str(plain)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
