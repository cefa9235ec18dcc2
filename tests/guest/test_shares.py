# SPDX-License-Identifier: Apache-2.0
"""Shared directories, with Linux's own 9pfs front end."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from building import Run
from guest_shell import GuestShell

from domzero.abi.io_xenbus import XenbusState
from domzero.dom0.config import DomainConfig
from domzero.dom0.images.cache import Image
from domzero.dom0.life import EndReason
from domzero.dom0.lifecycle import DomainSession
from domzero.errors import ConfigError
from domzero.hypervisor.clock import VirtualClock

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

MOUNT = "mount -t 9p -o trans=xen,version=9p2000.L,msize=262144"


@pytest.fixture
def boot(debian: Image) -> Iterator[Callable[..., GuestShell]]:
    shells: list[GuestShell] = []

    def boot(*shares: str) -> GuestShell:
        shells.append(GuestShell(debian, memory_mib=192, shares=list(shares)))
        shells[-1].start("stty cols 500")()
        return shells[-1]

    yield boot
    for shell in shells:
        host = shell.session.host
        assert host is None or host.audit() == []
        shell.session.destroy()


def test_a_guest_reads_one_directory_and_changes_another(boot: Callable[..., GuestShell], tmp_path: Path) -> None:
    read, changed = tmp_path / "read", tmp_path / "changed"
    for directory in (read, changed, read / "deep"):
        directory.mkdir()
    data = random.Random(1).randbytes(12 << 20)
    (read / "deep" / "large").write_bytes(data)
    (read / "out").symlink_to("/etc/hostname")
    (tmp_path / "secret").write_text("secret")
    (read / "up").symlink_to("../secret")
    for number in range(400):
        (read / f"file{number}").write_text(f"{number}\n")
    shell = boot(f"tag=r,path={read}", f"tag=w,path={changed},writable")
    shell.do("dmesg -n 1; mkdir /tmp/w")
    assert shell.do(f"{MOUNT} r /mnt && {MOUNT} w /tmp/w && echo mounted").strip() == "mounted"

    assert shell.do("md5sum < /mnt/deep/large").split()[0] == hashlib.md5(data).hexdigest()
    assert shell.do("find /mnt -name 'file*' | wc -l; cat /mnt/file* | md5sum").split()[:2] == [
        "400",
        hashlib.md5("".join(f"{n}\n" for n in sorted(range(400), key=str)).encode()).hexdigest(),
    ]
    # Links are the guest's own to follow.
    assert shell.do("cat /mnt/out").strip() == "guest"
    assert "No such file" in shell.do("cat /mnt/up 2>&1")
    for command in ("echo x > /mnt/new", "rm /mnt/file1", "mkdir /mnt/d", "chmod 777 /mnt/file1", "echo > /mnt/file1"):
        assert "Read-only file system" in shell.do(f"({command}) 2>&1"), command
    assert len(list(read.iterdir())) == 403 and (read / "file1").read_text() == "1\n"

    shell.do("dd if=/dev/urandom of=/tmp/sent bs=1M count=12 2>/dev/null; cp /tmp/sent /tmp/w/sent; sync")
    assert shell.do("md5sum < /tmp/sent").split()[0] == hashlib.md5((changed / "sent").read_bytes()).hexdigest()
    # Many small files in many directories, as a checkout makes them; renamed, linked, removed.
    shell.do(
        "cd /tmp/w; for d in 1 2 3 4 5 6 7 8; do mkdir -p t/$d/x; for f in 1 2 3 4 5 6 7 8 9; do"
        " echo $d$f > t/$d/x/tmp$f;"
        " mv t/$d/x/tmp$f t/$d/$f; done; rmdir t/$d/x; ln t/$d/1 t/$d/hard; ln -s 1 t/$d/soft; rm t/$d/2; done; cd"
    )
    tree = {str(p.relative_to(changed)): p for p in (changed / "t").rglob("*")}
    assert len(tree) == 8 * (1 + 8 + 2)
    assert all(tree[f"t/{d}/{f}"].read_text() == f"{d}{f}\n" for d in range(1, 9) for f in (1, 3, 9))
    assert os.readlink(changed / "t/3/soft") == "1" and (changed / "t/3/hard").stat().st_nlink == 2
    found = shell.do(
        "chmod 750 /tmp/w/t; touch -d '2020-02-03 04:05' /tmp/w/t/1/1; stat -c '%a %Y' /tmp/w/t /tmp/w/t/1/1"
    )
    assert (changed / "t").stat().st_mode & 0o7777 == 0o750
    assert str(int((changed / "t/1/1").stat().st_mtime)) in found
    for command in ("mkfifo /tmp/w/fifo", "mknod /tmp/w/null c 1 3", "chmod u+s /tmp/w/sent"):
        assert "Operation not permitted" in shell.do(f"{command} 2>&1"), command
    assert shell.do("df -P /tmp/w | tail -1").split()[1] == str(_kib(changed))

    # What is open stays, without a name; several at once.
    assert (
        shell.do("echo still > /tmp/w/gone; exec 5</tmp/w/gone; rm /tmp/w/gone; cat <&5; exec 5<&-").strip() == "still"
    )
    writer = "for m in 1 2 3 4 5; do dd if=/tmp/sent of=/tmp/w/p$n bs=64k 2>/dev/null; done"
    shell.do(f"for n in 1 2 3 4; do ({writer}) & done; wait; cat /tmp/w/p[1-4] | md5sum")
    assert {(changed / f"p{n}").read_bytes() == (changed / "sent").read_bytes() for n in range(1, 5)} == {True}

    assert shell.do(f"umount /tmp/w && {MOUNT} w /tmp/w && ls /tmp/w/t | wc -l").strip() == "8"
    shell.session.console.send(b"poweroff\n")
    end = shell.session.wait(120)
    assert end is not None and end.reason is EndReason.POWEROFF


def _kib(path: Path) -> int:
    stat = os.statvfs(path)
    return stat.f_blocks * stat.f_frsize // 1024


def test_a_front_end_without_a_version_or_with_too_many_rings_is_told_so(
    boot: Callable[..., GuestShell], tmp_path: Path
) -> None:
    shell = boot(f"tag=r,path={tmp_path}")
    instance = shell.session._instance  # its devices are nowhere else
    assert instance is not None
    ((device, back_end),) = instance.shares._devices.all()
    assert (device.front_nodes(), device.back_nodes()["security_model"]) == ({"tag": "r"}, "none")
    assert back_end.state is XenbusState.XenbusStateConnected
    back_end.broken("a test")
    shell.do("true")
    assert any("9pfs 0: disconnected: a test" in line for line in shell.log)


def test_shares_and_virtual_time_exclude_each_other(shell: str, tmp_path: Path) -> None:
    config = DomainConfig(kernel=shell, memory_mib=16, shares=[f"tag=a,path={tmp_path}"])
    with pytest.raises(ConfigError, match="not the same with each run"):
        DomainSession(config, clock=VirtualClock()).start()


def test_a_directory_that_is_not_there_is_one_line(shell: str, domzero_run: Run, tmp_path: Path) -> None:
    result = domzero_run("--kernel", shell, "--share", f"tag=a,path={tmp_path}/none")
    assert result.returncode == 2
    assert b"none: No such file or directory" in result.stderr and result.stderr.count(b"\n") == 1
    result = domzero_run("--kernel", shell, "--share", f"tag=a,path={tmp_path},security_model=mapped")
    assert result.returncode == 2 and b"security_model=mapped is not supported" in result.stderr
