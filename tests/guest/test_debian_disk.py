# SPDX-License-Identifier: Apache-2.0
"""A whole Debian, built from the mirror: what is on its disk, and that it starts from there to its login."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from building import COMMAND
from waiting import until

from domzero.dom0.images.cache import cache_dir
from domzero.dom0.images.debian_base import make_recipe
from domzero.dom0.images.debian_disk import DiskRecipe, build_debian
from domzero.dom0.images.disks import clone_disk, export_disk
from domzero.dom0.images.options import FirstBoot
from domzero.dom0.images.store import DiskImage, DiskStore
from domzero.dom0.images.tools import find_tool
from domzero.errors import DomzeroError, ImageError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DiskStore:
    return DiskStore(tmp_path_factory.mktemp("data") / "domzero")


@pytest.fixture(scope="module")
def debian_disk(store: DiskStore) -> DiskImage:
    """A disk with Debian on it, without a password on its console; its packages are from the cache or the mirror."""
    recipe = DiskRecipe(make_recipe(), FirstBoot("disk"), 2 << 30)
    try:
        return build_debian(store, "debian-disk", recipe, progress=print, cache=cache_dir())[0]
    except DomzeroError as error:
        pytest.skip(f"no Debian can be built here: {error}")


def file_system_of(image: DiskImage) -> str:
    return f"{image.disk}?offset={1 << 20}"


def ask(image: DiskImage, request: str) -> bytes:
    program = find_tool("debugfs")
    assert program is not None
    return subprocess.run([program, "-R", request, file_system_of(image)], capture_output=True, check=True).stdout


def check_file_system(image: DiskImage) -> None:
    program = find_tool("e2fsck")
    assert program is not None
    result = subprocess.run([program, "-f", "-n", file_system_of(image)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_a_debian_disk_has_all_that_a_pv_domain_starts_from(debian_disk: DiskImage, tmp_path: Path) -> None:
    check_file_system(debian_disk)
    links = {name: re.search(rb'Fast link dest: "(.+)"', ask(debian_disk, f"stat /{name}")) for name in ("vmlinuz",)}
    assert links["vmlinuz"] is not None
    release = links["vmlinuz"][1].decode().removeprefix("boot/vmlinuz-")
    assert b"linux /vmlinuz root=UUID=" in ask(debian_disk, "cat /boot/grub/grub.cfg")
    from domzero.builder.image import parse_kernel

    parse_kernel(ask(debian_disk, f"cat /boot/vmlinuz-{release}"), "vmlinuz")
    initrd = tmp_path / "initrd"
    initrd.write_bytes(ask(debian_disk, f"cat /boot/initrd.img-{release}"))
    import zstandard

    unpacked = zstandard.ZstdDecompressor().stream_reader(initrd.read_bytes()).read()
    for module in (b"xen-blkfront.ko", b"ext4.ko"):
        assert module in unpacked
    for unit in ("getty.target.wants/serial-getty@hvc0", "multi-user.target.wants/ssh"):
        assert b"Type: symlink" in ask(debian_disk, f"stat /etc/systemd/system/{unit}.service")
    assert ask(debian_disk, "cat /etc/hostname") == b"disk\n"


class Machine:
    """`domzero run --image` of an image, typed to as a person would."""

    def __init__(self, store: DiskStore, name: str, output: Path) -> None:
        self._output = output
        self._seen = 0
        environment = {**os.environ, "XDG_DATA_HOME": str(store.root.parents[1])}
        command = [*COMMAND, "run", "--image", name, "--json", "--audit"]
        with output.open("wb") as stdout:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE
            )

    def wait_for(self, text: str, seconds: float = 600) -> bytes:
        """What it prints from where the last call ended, as soon as this has come."""
        found: list[int] = []

        def come() -> bool:
            at = self._output.read_bytes().find(text.encode(), self._seen)
            found[:] = [at + len(text)] if at >= 0 else []
            return bool(found) or self._process.poll() is not None

        until(come, seconds, text)
        printed = self._output.read_bytes()
        assert found, printed[-2000:].decode(errors="replace")
        self._seen, start = found[0], self._seen
        return printed[start : found[0]]

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def log_in(self) -> None:
        self.wait_for("Welcome to GRUB!")
        self.wait_for("login: ")
        self.type("root")
        self.wait_for(":~# ")

    def ask(self, command: str) -> str:
        """What a shell command prints."""
        self.type(f"{command}; echo e''nd of it")
        return self.wait_for("end of it").decode(errors="replace")

    def power_off(self) -> dict[str, object]:
        self.type("poweroff")
        _, errors = self._process.communicate(timeout=300)
        end: dict[str, object] = json.loads(errors.splitlines()[-1])
        return end

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def machine(store: DiskStore, tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    """Starts machines; ends those that are still there."""
    started: list[Machine] = []

    def start(name: str) -> Machine:
        started.append(Machine(store, name, tmp_path / f"console-{len(started)}"))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.mark.guest
def test_it_starts_from_its_disk_to_a_login_and_its_clones_are_machines_of_their_own(
    store: DiskStore, debian_disk: DiskImage, machine: Callable[[str], Machine], tmp_path: Path
) -> None:
    """GRUB, kernel, systemd, login on the console, power-off; then a clone, whose files and keys are its own."""
    names = ["debian-disk", "clone"]
    clone_disk(store, *names)
    keys = set()
    for name in names:
        guest = machine(name)
        guest.log_in()
        with pytest.raises(ImageError, match=f"{name} is in use"):
            store.remove(name)
        assert "0 loaded units listed" in guest.ask("systemctl --failed --no-pager")
        assert "active" in guest.ask("systemctl is-active ssh systemd-networkd").split()
        assert "other's" not in guest.ask("cat /root/mark; echo")
        keys.add(guest.ask("cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub"))
        guest.ask(f'echo "other\'s: {name}" > /root/mark; dd if=/dev/urandom of=/root/data bs=1M count=8 status=none')
        digest = guest.ask("sha256sum /root/data").split()
        assert guest.power_off()["ending"] == "poweroff"

        flat = tmp_path / f"{name}.raw"
        export_disk(store, name, flat, "raw")
        image = dataclasses.replace(store.find(name), disk=str(flat))
        check_file_system(image)
        assert ask(image, "cat /root/mark") == f"other's: {name}\n".encode()
        assert hashlib.sha256(ask(image, "cat /root/data")).hexdigest() in digest
    assert len(keys) == 2
