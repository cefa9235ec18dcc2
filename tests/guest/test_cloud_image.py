# SPDX-License-Identifier: Apache-2.0
"""A disk as distributions publish them for clouds: imported, started, and configured by its own cloud-init."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_disk import PACKAGES, SETUP, SIZE, make_cloud_disk
from disk_machine import Machine, Ssh

from domzero.dom0.images.cache import cache_dir
from domzero.dom0.images.debian_base import make_recipe
from domzero.dom0.images.debian_disk import DiskRecipe, build_debian
from domzero.dom0.images.disks import import_disk
from domzero.dom0.images.options import FirstBoot
from domzero.dom0.images.store import DiskStore
from domzero.errors import DomzeroError

pytestmark = [pytest.mark.slow, pytest.mark.guest, pytest.mark.timeout(1800)]


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "data" / "domzero")


@pytest.fixture
def cloud_disk(store: DiskStore, tmp_path: Path) -> Path:
    """A VMDK with Debian for clouds on it."""
    recipe = DiskRecipe(make_recipe(packages=PACKAGES), FirstBoot("nobody", run=(SETUP,)), 2 << 30)
    try:
        built, _ = build_debian(store, "source", recipe, progress=print, cache=cache_dir())
    except DomzeroError as error:
        pytest.skip(f"no Debian can be built here: {error}")
    target = tmp_path / "cloud.vmdk"
    make_cloud_disk(built, target, "vmdk")
    store.remove("source")
    return target


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """Machines to end."""
    started: list[Machine] = []
    yield started
    for each in started:
        each.kill()


def test_a_cloud_image_becomes_the_machine_that_its_options_say(
    store: DiskStore, cloud_disk: Path, machines: list[Machine], tmp_path: Path
) -> None:
    """Account, key, password, host name, command, and a root that fills its disk; then it is the same one."""
    pytest.importorskip("pycdlib")
    ssh = Ssh(tmp_path)
    found = import_disk(store, cloud_disk, "cloud")
    assert found.image.format == "qcow2" and found.image.size == SIZE
    assert found.table is not None and found.table.label == "gpt" and len(found.table.partitions) == 3
    assert found.table.may_be_linux

    def start(*options: str) -> Machine:
        vif = f"bridge=user,hostfwd=tcp:127.0.0.1:{ssh.port}-:22"
        machines.append(Machine(store, "cloud", tmp_path / f"console-{len(machines)}", "--vif", vif, *options))
        return machines[-1]

    who = ("--user", "me", "--ssh-key", ssh.public_key, "--password", "correct horse", "--hostname", "web.example.org")
    guest = start(*who, "--run", 'echo "$(id -u) $(hostname -f)" > /ran; df --output=size -B1M / | tail -1 > /size')
    guest.wait_for("web login: ")
    ssh.wait(guest, "me")
    done = ssh.run("cloud-init status --wait --long", "me")
    assert "status: done" in done.stdout and "NoCloud" in done.stdout, done.stdout + done.stderr
    assert ssh.run("cat /ran", "me").stdout.split() == ["0", "web.example.org"]
    assert int(ssh.run("cat /size", "me").stdout) > 2500
    assert ssh.run("sudo rm /ran; sudo id -u", "me").stdout == "0\n"
    ssh.run("sudo poweroff", "me")
    assert guest.end()["ending"] == "poweroff"

    guest = start()
    guest.wait_for("web login: ")
    guest.type("me")
    guest.wait_for("Password: ")
    guest.type("correct horse")
    guest.wait_for("me@web:~$ ")
    assert "status: done" in guest.ask("cloud-init status --wait")
    assert "No such file" in guest.ask("cat /ran"), "its command ran once"
    guest.type("sudo poweroff")
    assert guest.end()["ending"] == "poweroff"
