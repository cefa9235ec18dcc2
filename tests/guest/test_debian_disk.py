# SPDX-License-Identifier: Apache-2.0
"""A whole Debian, built from the mirror: what is on its disk, and that it starts from there to its login."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disk_machine import Machine, Ssh, check_file_system, debugfs

from domzero.dom0.images.cache import cache_dir
from domzero.dom0.images.debian_base import make_recipe
from domzero.dom0.images.debian_disk import DiskRecipe, build_debian
from domzero.dom0.images.disks import clone_disk, export_disk
from domzero.dom0.images.options import FirstBoot
from domzero.dom0.images.store import DiskImage, DiskStore
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


def test_a_debian_disk_has_all_that_a_pv_domain_starts_from(debian_disk: DiskImage, tmp_path: Path) -> None:
    check_file_system(debian_disk)
    link = re.search(rb'Fast link dest: "(.+)"', debugfs(debian_disk, "stat /vmlinuz"))
    assert link is not None
    release = link[1].decode().removeprefix("boot/vmlinuz-")
    assert b"linux /boot/xen/vmlinuz root=UUID=" in debugfs(debian_disk, "cat /boot/grub/grub.cfg")
    from domzero.builder.image import parse_kernel

    kernel = parse_kernel(debugfs(debian_disk, f"cat /boot/vmlinuz-{release}"), "vmlinuz")
    assert f'"vmlinuz-{release}"'.encode() in debugfs(debian_disk, "stat /boot/xen/vmlinuz")
    assert debugfs(debian_disk, f"cat /boot/xen/vmlinuz-{release}").startswith(kernel.elf.data)
    initrd = tmp_path / "initrd"
    initrd.write_bytes(debugfs(debian_disk, f"cat /boot/initrd.img-{release}"))
    import zstandard

    unpacked = zstandard.ZstdDecompressor().stream_reader(initrd.read_bytes()).read()
    for module in (b"xen-blkfront.ko", b"ext4.ko"):
        assert module in unpacked
    for unit in ("getty.target.wants/serial-getty@hvc0", "multi-user.target.wants/ssh"):
        assert b"Type: symlink" in debugfs(debian_disk, f"stat /etc/systemd/system/{unit}.service")
    assert debugfs(debian_disk, "cat /etc/hostname") == b"disk\n"


@pytest.fixture
def machine(store: DiskStore, tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Starts machines; ends those that are still there."""
    started: list[Machine] = []

    def start(name: str, *options: str) -> Machine:
        started.append(Machine(store, name, tmp_path / f"console-{len(started)}", *options))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.mark.guest
def test_it_starts_from_its_disk_to_a_login_and_its_clones_are_machines_of_their_own(
    store: DiskStore, debian_disk: DiskImage, machine: Callable[..., Machine], tmp_path: Path
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
        assert "64" in guest.ask("cat /sys/module/xen_blkfront/parameters/max_indirect_segments").split()
        assert "other's" not in guest.ask("cat /root/mark; echo")
        keys.add(guest.ask("cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub"))
        guest.ask(f'echo "other\'s: {name}" > /root/mark; dd if=/dev/urandom of=/root/data bs=1M count=8 status=none')
        digest = guest.ask("sha256sum /root/data").split()
        assert guest.power_off()["ending"] == "poweroff"

        flat = tmp_path / f"{name}.raw"
        export_disk(store, name, flat, "raw")
        image = dataclasses.replace(store.find(name), disk=str(flat))
        check_file_system(image)
        assert debugfs(image, "cat /root/mark") == f"other's: {name}\n".encode()
        assert hashlib.sha256(debugfs(image, "cat /root/data")).hexdigest() in digest
    assert len(keys) == 2


@pytest.mark.guest
def test_it_is_reached_by_ssh_and_installs_packages_through_the_user_network(
    store: DiskStore, machine: Callable[..., Machine], tmp_path: Path
) -> None:
    ssh = Ssh(tmp_path)
    recipe = DiskRecipe(make_recipe(), FirstBoot("server", ssh_keys=(ssh.public_key,)), 2 << 30)
    try:
        image, built = build_debian(store, "server", recipe, progress=print, cache=cache_dir())
    except DomzeroError as error:
        pytest.skip(f"no Debian can be built here: {error}")
    assert built
    guest = machine("server", "--vif", f"bridge=user,hostfwd=tcp:127.0.0.1:{ssh.port}-:22")
    guest.wait_for("server login: ")
    ssh.wait(guest)
    assert ssh.run("hostname; id -u").stdout.split() == ["server", "0"]
    assert "Permission denied" in ssh.run("true", user="nobody").stderr

    update = ssh.run("apt-get update")
    assert update.returncode == 0, update.stdout + update.stderr
    install = ssh.run("DEBIAN_FRONTEND=noninteractive apt-get install -y hello && hello")
    assert install.returncode == 0 and "Hello, world!" in install.stdout, install.stdout + install.stderr
    assert "0 loaded units listed" in ssh.run("systemctl --failed --no-pager").stdout
    ssh.run("poweroff")
    assert guest.end()["ending"] == "poweroff"
    check_file_system(image)
    assert b"/usr/bin/hello" in debugfs(image, "cat /var/lib/dpkg/info/hello.list")


@pytest.mark.guest
def test_debian_13_starts_from_its_disk_to_a_login(store: DiskStore, machine: Callable[..., Machine]) -> None:
    """Its kernel is in zstd; the unpacked one beside it is what GRUB starts."""
    try:
        recipe = DiskRecipe(make_recipe("trixie"), FirstBoot("trixie"), 2 << 30)
        image, _ = build_debian(store, "trixie", recipe, progress=print, cache=cache_dir())
    except DomzeroError as error:
        pytest.skip(f"no Debian 13 can be built here: {error}")
    guest = machine("trixie")
    guest.log_in()
    assert "13 (trixie)" in guest.ask("cat /etc/os-release")
    assert "0 loaded units listed" in guest.ask("systemctl --failed --no-pager")
    assert guest.power_off()["ending"] == "poweroff"
    check_file_system(image)
