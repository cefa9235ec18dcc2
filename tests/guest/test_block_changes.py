# SPDX-License-Identifier: Apache-2.0
"""Disks that change under a guest that uses them: larger ones, and other CDs; with Debian's own front end."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import until

from domzero.dom0.config import DomainConfig
from domzero.dom0.diskspec import parse_disk
from domzero.dom0.images.cache import Image
from domzero.dom0.lifecycle import DomainSession
from domzero.dom0.open_files import open_disk
from domzero.errors import ConfigError

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]
MIB = 1 << 20
KERNELS = re.compile(r"\[ *\d+\.\d{6}\] ")
"""What the kernel had begun to say before it was told not to."""


class Linux:
    """Debian's kernel with a shell on its console."""

    def __init__(self, image: Image, disks: list[str]) -> None:
        config = DomainConfig(
            kernel=image.kernel, ramdisk=image.ramdisk, cmdline=image.cmdline, memory_mib=192, disks=disks
        )
        self.log: list[str] = []
        self.session = DomainSession(config, log=self.log.append)
        self.session.start()
        self._commands = 0
        self.ask("dmesg -n 1")  # what the kernel says would be among the answers

    def ask(self, command: str) -> list[str]:
        """The lines that a shell command prints."""
        self._commands += 1
        begin, end = f"begin-{self._commands}", f"end-{self._commands}"
        self.session.console.send(f"echo {begin[:3]}''{begin[3:]}; {command}; echo {end[:2]}''{end[2:]}\n".encode())

        def said() -> str:
            return self.session.console.history.decode(errors="replace").replace("\r\n", "\n")

        until(lambda: f"{end}\n" in said(), 300, command)
        lines = said().rpartition(f"{begin}\n")[2].partition(f"{end}\n")[0].splitlines()
        return [line for line in lines if not KERNELS.match(line)]

    def size(self, disk: str) -> int:
        """Bytes of a disk, as the guest knows them."""
        return 512 * int(self.ask(f"cat /sys/block/{disk}/size")[-1])

    def medium(self, vdev: str, target: str) -> None:
        """Puts a medium into a drive, or takes it out."""
        spec = parse_disk(f"vdev={vdev},devtype=cdrom,target={target}")
        self.session.disks.change_medium(spec, open_disk(spec))


def raw(path: Path, size: int, seed: int = 0) -> Path:
    path.write_bytes(random.Random(seed).randbytes(size) if seed else bytes(size))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with disks and CDs."""
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not here")
    directory = tmp_path_factory.mktemp("disks")
    for name, mib, seed in (
        ("plain", 4, 0),
        ("fixed", 4, 0),
        ("large", 4, 5),
        ("base", 16, 7),
        ("first.iso", 3, 1),
        ("second.iso", 2, 2),
    ):
        raw(directory / name, mib * MIB, seed)
    overlay = ["-F", "raw", "-b", str(directory / "base"), str(directory / "disk.qcow2"), "8M"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *overlay], check=True)
    return directory


@pytest.fixture(scope="module")
def guest(debian: Image, files: Path) -> Iterator[Linux]:
    """One guest for all: nothing of it is undone."""
    guest = Linux(
        debian,
        [
            *(f"{files}/plain,raw,xvda", f"{files}/disk.qcow2,qcow2,xvdb", f"{files}/fixed,raw,xvdc,ro"),
            f"{files}/large,raw,xvdg,sector-size=4096",
            *(",,xvdd,cdrom", f"{files}/first.iso,raw,xvde,devtype=cdrom"),
        ],
    )
    yield guest
    guest.session.destroy()


def test_linux_sees_at_once_that_a_disk_has_become_larger_and_uses_the_new_part(guest: Linux, files: Path) -> None:
    plain, image, fixed, base = (files / name for name in ("plain", "disk.qcow2", "fixed", "base"))
    disks = guest.session.disks
    assert [guest.size(name) for name in ("xvda", "xvdb", "xvdc")] == [4 * MIB, 8 * MIB, 4 * MIB]
    guest.ask("exec 5<>/dev/xvda")  # in use all the time
    disks.grow("xvda", 12 * MIB)
    disks.grow("xvdb", 20 * MIB)
    until(lambda: guest.size("xvda") == 12 * MIB and guest.size("xvdb") == 20 * MIB, 60)
    # Found to be larger, as when lvextend has made it so.
    with plain.open("r+b") as file:
        file.truncate(16 * MIB)
    disks.grow("xvda", None)
    until(lambda: guest.size("xvda") == 16 * MIB, 60)
    for wrong in (("xvda", 8 * MIB), ("xvdb", 8 * MIB), ("xvdc", 8 * MIB), ("xvda", 17 * MIB + 1), ("xvda", 1 << 60)):
        with pytest.raises(ConfigError):
            disks.grow(*wrong)
    wrote = guest.ask(
        "for d in a b; do dd if=/dev/xvdb of=/dev/xvd$d bs=1M count=1 seek=15 conv=fsync 2>/dev/null; echo $?; done"
    )
    assert wrote[-2:] == ["0", "0"]
    # What a longer backing file has behind the old end is none of the guest's.
    hidden = guest.ask("dd if=/dev/xvdb bs=1M skip=8 count=4 2>/dev/null | md5sum")[-1]
    assert hidden.split()[0] == hashlib.md5(bytes(4 * MIB)).hexdigest()
    assert guest.session.audit() == []
    stats = {disk.vdev: disk for disk in disks.stats()}
    assert stats["xvda"].bytes == 16 * MIB and stats["xvda"].errors == 0 == stats["xvdb"].errors
    assert plain.stat().st_size == 16 * MIB and fixed.stat().st_size == 4 * MIB
    assert plain.read_bytes()[15 * MIB :] == base.read_bytes()[:MIB]
    subprocess.run(["qemu-img", "check", "-q", "-U", str(image)], check=True)


def test_linux_reads_each_cd_that_is_put_into_a_drive_and_none_of_an_empty_one(guest: Linux, files: Path) -> None:
    first, second = files / "first.iso", files / "second.iso"
    disks = guest.session.disks

    def digest(disk: str) -> str:
        return guest.ask(f"md5sum /dev/{disk}")[-1].split()[0]

    def expected(path: Path) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest()

    def has_size(disk: str, size: int) -> None:
        until(lambda: guest.size(disk) == size, 60)

    assert (guest.size("xvdd"), guest.size("xvde")) == (0, 3 * MIB)
    assert digest("xvde") == expected(first)
    assert digest("xvdd") == hashlib.md5(b"").hexdigest()
    for disk, cd in (("xvde", second), ("xvdd", first), ("xvde", None), ("xvdd", second), ("xvde", first)):
        guest.medium(disk, str(cd or ""))
        has_size(disk, cd.stat().st_size if cd else 0)
        assert digest(disk) == (expected(cd) if cd else hashlib.md5(b"").hexdigest())
    assert guest.ask("cat /sys/block/xvde/ro /sys/block/xvde/removable")[-2:] == ["1", "1"]
    for target, why in (("/no/such.iso", "No such file"), ("/dev/null", "neither a regular file")):
        with pytest.raises(ConfigError, match=why):
            guest.medium("xvde", target)
    with pytest.raises(ConfigError, match="no disk xvdk"):
        guest.medium("xvdk", str(first))
    assert digest("xvde") == expected(first)
    # What was taken out is nobody's any more.
    guest.medium("xvdd", "")
    spec = replace(parse_disk(f"{second},raw,xvdf"), writable=True)
    disks.attach(spec, open_disk(spec))
    assert guest.session.audit() == []


def test_linux_uses_a_disk_whose_sectors_have_4096_bytes(guest: Linux, files: Path) -> None:
    sizes = [f"/sys/block/xvdg/queue/{name}_block_size" for name in ("logical", "physical")]
    assert guest.ask(f"cat {' '.join(sizes)}") == ["4096", "4096"]
    data = random.Random(5).randbytes(4 * MIB)  # as it was made
    assert guest.size("xvdg") == 4 * MIB
    digest = hashlib.md5(data).hexdigest()
    assert guest.ask("md5sum /dev/xvdg") == [f"{digest}  /dev/xvdg"]
    write = "dd if=/dev/zero of=/dev/xvdg"
    # What is less than a sector is made one by the guest's cache.
    said = guest.ask(
        f"{write} bs=4096 seek=3 count=2 oflag=direct 2>/dev/null; {write} bs=512 seek=80 count=1 2>/dev/null; sync"
    )
    assert said == []
    assert (files / "large").read_bytes() == data[: 3 * 4096] + bytes(8192) + data[5 * 4096 : 80 * 512] + bytes(
        512
    ) + data[81 * 512 :]
    # It grows by whole sectors.
    with pytest.raises(ConfigError, match="whole sectors of 4096"):
        guest.session.disks.grow("xvdg", 5 * MIB + 512)
    guest.session.disks.grow("xvdg", 5 * MIB)
    until(lambda: guest.size("xvdg") == 5 * MIB, 60, "the larger disk")
    # The end of a file that has no whole sector there is not the guest's.
    with (files / "large").open("r+b") as file:
        file.truncate(6 * MIB + 512)
    guest.session.disks.grow("xvdg", None)
    until(lambda: guest.size("xvdg") == 6 * MIB, 60, "the whole sectors")
