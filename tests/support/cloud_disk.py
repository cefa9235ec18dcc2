# SPDX-License-Identifier: Apache-2.0
"""A disk like those that distributions publish for clouds: Debian with its own cloud-init, in their layout.

Debian's cloud images are not in its package mirror. What makes them different from our own disks is made here: the
partitions and their order, GRUB's configuration with its searches and serial console, an initramfs for any machine,
an account that nobody can use, and no network or login but what cloud-init and systemd set up.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from disk_machine import ROOT_START

from domzero.dom0.images.partition import LINUX_ROOT, SECTOR
from domzero.dom0.images.store import DiskImage
from domzero.dom0.images.tools import find_tool

PACKAGES = ("cloud-init", "netplan.io", "cloud-guest-utils")
SIZE = 3 << 30
_ROOT_SECTOR = 262144
_TABLE = f"""\
label: gpt
1 : start={_ROOT_SECTOR}, type={LINUX_ROOT}
14 : start=2048, size=6144, type=21686148-6449-6E6F-744E-656564454649
15 : start=8192, size=253952, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
"""
SETUP = r"""
systemctl --quiet disable ssh-host-keys serial-getty@hvc0
rm -f /etc/systemd/system/ssh-host-keys.service /etc/systemd/network/80-domzero.network /etc/modprobe.d/domzero.conf
rm -rf /etc/kernel/postinst.d/zz-domzero /etc/kernel/postrm.d/zz-domzero /boot/xen
rm -f /etc/initramfs-tools/conf.d/domzero /etc/initramfs-tools/hooks/domzero
passwd --quiet --lock root
update-initramfs -u >/dev/null
uuid=$(sed -n 's/^UUID=\([^ ]*\) .*/\1/p' /etc/fstab)
version=$(readlink -f /vmlinuz | sed 's/.*vmlinuz-//')
cat > /boot/grub/grub.cfg <<END
set default="0"
function load_video {
  insmod all_video
}
set root='hd0,gpt1'
search --no-floppy --fs-uuid --set=root $uuid
serial --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=1
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux --class gnu --class os {
	load_video
	insmod gzio
	if [ x\$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	insmod part_gpt
	insmod ext2
	search --no-floppy --fs-uuid --set=root $uuid
	echo	'Loading Linux $version ...'
	linux	/boot/vmlinuz-$version root=UUID=$uuid ro console=tty0 console=ttyS0,115200 consoleblank=0
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd.img-$version
}
END
"""
"""Run in a Debian with these packages while `domzero image build` makes it."""


def make_cloud_disk(built: DiskImage, target: Path, format: str) -> None:
    """Puts the file system of a disk that was built with SETUP on a larger one, in a format that qemu-img knows."""
    raw = target.with_suffix(".part")
    with raw.open("wb") as file:
        file.truncate(SIZE)
    sfdisk, convert = find_tool("sfdisk"), find_tool("qemu-img")
    assert sfdisk is not None and convert is not None
    subprocess.run([sfdisk, "--quiet", str(raw)], input=_TABLE, text=True, check=True)
    start = _ROOT_SECTOR * SECTOR
    length = built.size - 2 * ROOT_START
    copy = [f"if={built.disk}", f"of={raw}", "bs=1M", f"skip={ROOT_START >> 20}", f"seek={start >> 20}"]
    subprocess.run(["dd", *copy, f"count={length >> 20}", "conv=notrunc,sparse", "status=none"], check=True)
    subprocess.run([convert, "convert", "-f", "raw", "-O", format, raw, target], check=True)
    raw.unlink()
