# SPDX-License-Identifier: Apache-2.0
"""A whole Debian, built from the mirror: what is on its disk."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from domzero.dom0.images.cache import cache_dir
from domzero.dom0.images.debian_base import make_recipe
from domzero.dom0.images.debian_disk import DiskRecipe, build_debian
from domzero.dom0.images.options import FirstBoot
from domzero.dom0.images.store import DiskImage, DiskStore
from domzero.dom0.images.tools import find_tool
from domzero.errors import DomzeroError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def debian_disk(tmp_path_factory: pytest.TempPathFactory) -> DiskImage:
    """A disk with Debian on it, without a password on its console; its packages are from the cache or the mirror."""
    store = DiskStore(tmp_path_factory.mktemp("store"))
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
