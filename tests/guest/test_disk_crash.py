# SPDX-License-Identifier: Apache-2.0
"""What a guest has flushed is there after its process was killed, and its file system is whole after a replay."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from building import COMMAND

from domzero.dom0.images.cache import Image

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(3600)]

ROUNDS = int(os.environ.get("DOMZERO_CRASH_ROUNDS", "25"))  # of each format
FILE_KIB = 64
QEMU_ROUNDS = int(os.environ.get("DOMZERO_CRASH_ROUNDS", "5"))  # whose domain takes longer to start
# Files of one pattern each; other writes, which are not flushed, go on beside them.
SCRIPT = f"""
mount -t ext4 /dev/$(ls /sys/block | grep -m1 -E '^(xv|v)da') /mnt
(while true; do dd if=/dev/urandom of=/mnt/noise bs=64k count=64 2>/dev/null; rm /mnt/noise; done) &
i=0
while true; do
    yes "file $i" | head -c {FILE_KIB * 1024} | dd of=/mnt/f$i bs=4k conv=fsync 2>/dev/null && sync && echo "synced $i"
    i=$((i+1))
done
"""


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize("type", ["pv", "pvh"])
def test_what_was_flushed_survives_the_death_of_the_process(
    debian: Image, tmp_path: Path, type: str, form: str
) -> None:
    for program in ("mke2fs", "e2fsck", "debugfs", "qemu-img", *(["qemu-system-x86_64"] if type == "pvh" else [])):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    for number in range(ROUNDS if type == "pv" else QEMU_ROUNDS):
        dice = random.Random(number)
        raw, image = tmp_path / "disk.raw", tmp_path / f"disk.{form}"
        with raw.open("wb") as file:
            file.truncate(256 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", raw], check=True)
        if form != "raw":
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, raw, image], check=True)
        synced = killed_after(debian, type, f"{image},{form},xvda", dice.randrange(3, 40))
        if form != "raw":
            # Leaked clusters (3) are no damage: they had been allocated, and nothing refers to them.
            assert subprocess.run(["qemu-img", "check", "-q", image], check=False).returncode in (0, 3)
            subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", image, raw], check=True)
        # Replays the journal; 1: which changed something.
        assert subprocess.run(["e2fsck", "-p", raw], capture_output=True, check=False).returncode in (0, 1)
        subprocess.run(["e2fsck", "-f", "-n", raw], capture_output=True, check=True)
        for index in range(synced + 1):
            expected = (f"file {index}\n".encode() * FILE_KIB * 1024)[: FILE_KIB * 1024]
            found = subprocess.run(["debugfs", "-R", f"cat f{index}", raw], capture_output=True, check=True).stdout
            assert found == expected, f"round {number}: f{index} of {synced}"


def killed_after(image: Image, type: str, disk: str, files: int) -> int:
    """Runs the script until so many files are flushed, and kills it; the last that was said to be.

    :param type: of the domain; what is killed ends the QEMU of one that has one.
    """
    command = [*COMMAND, "run", "--kernel", image.kernel, "--ramdisk", image.ramdisk, "--type", type]
    command += ["--cmdline", image.cmdline if type == "pv" else "console=ttyS0"]
    command += [] if type == "pv" else ["--engine", "tcg"]
    with subprocess.Popen(
        [*command, "--disk", disk], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as guest:
        assert guest.stdin is not None and guest.stdout is not None
        seen = b""
        while not seen.endswith(
            b"# "
        ):  # the shell's prompt: what comes to a serial port before somebody reads it is lost
            byte = guest.stdout.read(1)
            assert byte, seen
            seen += byte
        guest.stdin.write(SCRIPT.encode())
        guest.stdin.flush()
        last = -1
        for line in guest.stdout:
            if match := re.search(rb"^synced (\d+)", line):
                last = int(match[1])
            if last >= files:
                break
        guest.kill()
        # What it had said before it was killed counts, too.
        for line in guest.stdout.read().splitlines():
            if match := re.search(rb"^synced (\d+)$", line):
                last = int(match[1])
    assert last >= files
    return last
