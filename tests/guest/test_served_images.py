# SPDX-License-Identifier: Apache-2.0
"""Disks in images of QEMU's formats: what a guest writes is in them, and their qemu-nbd ends with whoever used it."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from building import build_guests
from created import created
from dom0_server import Server
from waiting import until

from domzero.dom0.config import DomainConfig
from domzero.dom0.diskspec import parse_disk
from domzero.dom0.life import EndReason
from domzero.dom0.lifecycle import DomainSession
from domzero.dom0.open_files import open_disk
from domzero.errors import ConfigError, ImageError

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]
MIB = 1 << 20
FORMATS = {"vhd": "vpc", "vhdx": "vhdx", "vmdk": "vmdk", "vdi": "vdi", "qed": "qed"}


@pytest.fixture(autouse=True)
def tools() -> None:
    for program in ("qemu-img", "qemu-nbd"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")


def qemu_img(*arguments: object) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


def made(path: Path, size: str = "4M") -> Path:
    """An image of the format that its name ends in."""
    form = FORMATS[path.suffix[1:]]
    options = ["-o", "force_size=on"] if form == "vpc" else []
    qemu_img("create", "-q", "-f", form, *options, path, size)
    return path


def servers(image: Path) -> list[int]:
    """The processes of qemu-nbd that have an image open."""
    found, name = [], os.fsencode(str(image).replace(",", ",,"))  # as QEMU's options have it
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and name in (entry / "cmdline").read_bytes():
                found += [int(entry.name)] if (entry / "exe").readlink().name == "qemu-nbd" else []
    return found


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_guests(tmp_path_factory.mktemp("devices"), "devices") / "64" / "device_disk"


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_guest_writes_is_in_the_image_and_nobody_holds_it_afterwards(
    kernel: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = made(tmp_path / f"disk, with commas.{form}")
    session = DomainSession(
        DomainConfig(kernel=str(kernel), memory_mib=16, disks=[f"format={form},vdev=xvda,target={image}"], paused=True)
    )
    session.start()
    try:
        monkeypatch.setattr("domzero.dom0.served_images.BUSY_SECONDS", 0.1)
        with pytest.raises(ConfigError, match="in use"):
            open_disk(parse_disk(f"format={form},vdev=xvda,target={image}"))
        assert len(servers(image)) == 1
        session.unpause()
        end = session.wait(200)
    finally:
        session.destroy()
    said = session.console.history.decode(errors="replace")
    assert end is not None and end.reason is EndReason.POWEROFF and "PASS disk" in said, said
    until(lambda: not servers(image))
    qemu_img("convert", "-f", FORMATS[form], "-O", "raw", image, tmp_path / "raw")
    words = 3 * 1024 * 128
    written = struct.pack(f"<{words}I", *(n ^ 0x5A5A5A5A for n in range(words)))
    found = (tmp_path / "raw").read_bytes()
    assert found == written + bytes(4 * MIB - len(written))


def test_an_image_that_cannot_be_is_refused_with_the_reason_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage = tmp_path / "garbage.vhdx"
    garbage.write_bytes(bytes(MIB))
    base, overlay = made(tmp_path / "base.qed"), tmp_path / "overlay.qed"
    qemu_img("create", "-q", "-f", "qed", "-F", "qed", "-b", base, overlay)
    for path, why in (
        (tmp_path / "missing.vhd", "No such file"),
        (garbage, "vhdx"),
        (overlay, "it needs other files"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(ConfigError, match=why):
            open_disk(parse_disk(f"format={path.suffix[1:] or 'vhd'},vdev=xvda,target={path}"))
        assert not servers(path)
    monkeypatch.setattr("domzero.dom0.images.tools.search_path", lambda: str(tmp_path))
    with pytest.raises((ConfigError, ImageError)) as refused:
        open_disk(parse_disk(f"{base},qed"))
    assert "apt-get install qemu-utils" in str(refused.value.hint)


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="dz", dir="/tmp") as directory:
        server = Server(Path(directory))
        yield server
        server.stop()


def test_it_ends_with_the_disk_the_worker_and_domain_0_whatever_ends_them(
    server: Server, shell: str, tmp_path: Path
) -> None:
    image = made(tmp_path / "disk.vhd")
    transport = httpx.HTTPTransport(uds=str(server.socket))
    body = {"name": "a", "kernel": shell, "memory_mib": 16}

    with httpx.Client(transport=transport, base_url="http://domzero/v1", timeout=60) as api:

        def create(**more: object) -> str:
            return f"/domains/{created(api, api.post('/domains', json={**body, **more}))['uuid']}"

        plugged = create(name="b")
        assert api.post(f"{plugged}/disks", json={"spec": f"{image},vhd,xvdb"}).json()["bytes"] == 4 * MIB
        assert len(servers(image)) == 1
        assert api.delete(f"{plugged}/disks/xvdb").status_code == 204
        until(lambda: not servers(image))
        path = create(disks=[f"{image},vhd,xvda"])
        before = api.get(path).json()["domid"]
        assert api.post(f"{path}/console", json={"data": "reboot\n"}).is_success
        until(lambda: api.get(path).json()["domid"] not in (None, before))
        until(lambda: api.get(path).json()["state"] in ("running", "blocked") and len(servers(image)) == 1)
        os.kill(api.get(path).json()["pid"], signal.SIGKILL)
        until(lambda: not api.get(path).json()["exists"])
        until(lambda: not servers(image))
        create(name="c", disks=[f"{image},vhd,xvda"])
        assert len(servers(image)) == 1
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(30)
    until(lambda: not servers(image))
