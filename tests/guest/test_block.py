# SPDX-License-Identifier: Apache-2.0
"""Disks, with front ends that are not ours: GRUB's and Linux's; checked from the host by e2fsprogs and qemu-img."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from building import Run
from waiting import until

from domzero.dom0.config import DomainConfig
from domzero.dom0.images.cache import Image
from domzero.dom0.life import EndReason
from domzero.dom0.lifecycle import DomainSession

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

MIB = 1 << 20


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")


@pytest.fixture
def ext4(tmp_path: Path) -> Path:
    """A raw disk with a file system and a file in it."""
    need("mke2fs", "debugfs", "e2fsck")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "greeting").write_text("hello from the disk\n")
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "tree", disk], check=True)
    return disk


def qcow2_of(raw: Path) -> Path:
    need("qemu-img")
    image = raw.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    return image


def checked(disk: Path) -> None:
    subprocess.run(["e2fsck", "-f", "-n", disk], check=True, capture_output=True)


def read_file(disk: Path, name: str) -> bytes:
    return subprocess.run(["debugfs", "-R", f"cat {name}", disk], check=True, capture_output=True).stdout


@pytest.mark.parametrize("kernel", ["grub-x86_64-xen.bin", "grub-i386-xen.bin"])
def test_grub_lists_a_disk_and_reads_a_file_from_it(grub: Path, ext4: Path, kernel: str) -> None:
    config = DomainConfig(kernel=str(grub / kernel), memory_mib=64, disks=[f"{ext4},raw,xvda,ro"])
    session = DomainSession(config)
    session.start()
    try:
        until(lambda: session.console.history.endswith(b"grub> "))
        session.console.send(b"ls\r")
        until(lambda: b"(memdisk) (proc) (xen/xvda)" in session.console.history)
        session.console.send(b"cat (xen/xvda)/greeting\r")
        until(lambda: b"hello from the disk" in session.console.history)
        assert session.host is not None and session.host.audit() == []
        session.console.send(b"halt\r")
        end = session.wait(60)
        assert end is not None and end.reason is EndReason.POWEROFF
    finally:
        session.destroy()


def test_linux_reads_writes_flushes_and_discards(debian: Image, domzero_run: Run, ext4: Path, tmp_path: Path) -> None:
    image = qcow2_of(ext4)
    data = random.Random(5).randbytes(16 * MIB)
    plain, read_only = tmp_path / "plain.img", tmp_path / "read-only.img"
    plain.write_bytes(data)
    read_only.write_bytes(data[:MIB])
    script = """
        md5sum /dev/xvda
        dd if=/dev/xvda of=/tmp/part bs=4096 skip=1000 count=1000 2>/dev/null
        dd if=/tmp/part of=/dev/xvda bs=4096 seek=3000 conv=fsync 2>/dev/null; echo wrote $?
        cat /sys/block/xvdb/ro /sys/block/xvdb/size /sys/block/xvda/queue/discard_granularity
        cd /sys/block/xvda; echo persistent $(dmesg | grep -c "xvda.*persistent grants: enabled")
        echo others $(dmesg | grep -c "xvd.*persistent grants: disabled")
        echo queues $(ls mq) of $(cat queue/nr_requests)
        echo sectors $(cat queue/hw_sector_size queue/logical_block_size queue/physical_block_size) $(cat size)
        cd /
        dd if=/dev/zero of=/dev/xvdb bs=512 count=1 conv=fsync 2>/dev/null || echo refused
        mount -t ext4 -o discard /dev/xvdc /mnt && cat /mnt/greeting
        cp /tmp/part /mnt/part && sync && md5sum /mnt/part && rm /mnt/greeting && umount /mnt; echo unmounted $?
        poweroff
    """
    result = domzero_run(
        *("--kernel", debian.kernel, "--ramdisk", debian.ramdisk, "--vcpus", "2"),
        # Rings of four pages, one for each vCPU.
        *("--cmdline", f"{debian.cmdline} xen_blkfront.max_ring_page_order=2"),
        *(
            "--disk",
            f"{plain},raw,xvda,persistent-grants",
            "--disk",
            f"{read_only},raw,xvdb,ro",
            "--disk",
            f"{image},qcow2,xvdc",
        ),
        stdin=script.encode(),
        limit=300,
    )
    assert result.returncode == 0, result.stdout[-3000:]
    lines = result.stdout.decode(errors="replace").splitlines()
    part = data[1000 * 4096 : 2000 * 4096]
    assert f"{hashlib.md5(data).hexdigest()}  /dev/xvda" in lines
    assert f"{hashlib.md5(part).hexdigest()}  /mnt/part" in lines
    said = ("wrote 0", "1", "2048", "4096", "refused", "hello from the disk", "unmounted 0")
    for expected in (*said, "persistent 1", "others 2", "queues 0 1 of 128", f"sectors 512 512 512 {16 * MIB // 512}"):
        assert expected in lines
    assert plain.read_bytes() == data[: 3000 * 4096] + part + data[4000 * 4096 :]
    assert read_only.read_bytes() == data[:MIB]
    subprocess.run(["qemu-img", "check", "-q", image], check=True)
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, ext4], check=True)
    checked(ext4)
    assert read_file(ext4, "part") == part
    assert read_file(ext4, "greeting") == b""


def test_a_disk_that_another_domain_writes_to_is_refused(shell: str, ext4: Path, domzero_run: Run) -> None:
    config = DomainConfig(kernel=shell, memory_mib=16, disks=[f"{ext4},raw,xvda"])
    session = DomainSession(config)
    session.start()
    try:
        for access in ("rw", "ro"):
            result = domzero_run("--kernel", shell, "--disk", f"{ext4},raw,xvda,{access}")
            assert result.returncode == 2
            assert b"disk" in result.stderr and b"in use" in result.stderr
    finally:
        session.destroy()
    assert domzero_run("--kernel", shell, "--disk", f"{ext4},raw", stdin=b"poweroff\n", limit=60).returncode == 0


@pytest.mark.parametrize(
    ("disk", "why"),
    [
        ("missing.img", "No such file"),
        ("/dev/null", "neither a regular file nor a block device"),
        (".", "directory"),
        ("no.qcow2", "qcow2"),
        ("x,vpc,xvda", "no such format"),
    ],
)
def test_a_disk_that_cannot_be_is_one_clear_line(
    shell: str, domzero_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no.qcow2").write_bytes(bytes(1 << 16))
    result = domzero_run("--kernel", shell, "--disk", disk)
    assert result.returncode == 2
    assert why in result.stderr.decode() and result.stderr.count(b"\n") <= 2
