# SPDX-License-Identifier: Apache-2.0
"""What a Debian gets besides its packages: files that make it a PV domain's system, and the commands that finish it."""

from __future__ import annotations

import io
import shlex
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass

from domzero.dom0.images.debian import CMDLINE
from domzero.dom0.images.options import FirstBoot
from domzero.dom0.images.unpacked import DIRECTORY, HOOK, HOOK_AT_REMOVAL, HOOK_SCRIPT, README

SETUP_DIR = ".domzero"
"""In the new root while it is being made; gone at the end."""


@dataclass(slots=True, frozen=True)
class File:
    """A file of root's."""

    data: str
    mode: int = 0o644


Files = Mapping[str, File]

_INITRAMFS_CONF = """\
# A PV domain's disk and network need few drivers: a small initramfs is unpacked soon.
MODULES=list
RESUME=none
"""
_INITRAMFS_HOOK = """\
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules xen-blkfront ext4 crc32c_generic
"""
_GRUB_CFG = """\
# Read by GRUB's PV kernel. Debian keeps links in / on the newest kernel and the one before it; what these are on is
# unpacked in /boot/xen (/etc/kernel/postinst.d/zz-domzero).
set default=0
set timeout_style=hidden
set timeout=1
menuentry 'Debian' {{
    linux /{kernels}/vmlinuz root=UUID={uuid} ro {cmdline}
    initrd /initrd.img
}}
menuentry 'Debian, previous kernel' {{
    linux /{kernels}/vmlinuz.old root=UUID={uuid} ro {cmdline}
    initrd /initrd.img.old
}}
menuentry 'Debian, single user' {{
    linux /{kernels}/vmlinuz root=UUID={uuid} ro {cmdline} single
    initrd /initrd.img
}}
"""
_NETWORK = """\
[Match]
Name=eth* en*

[Network]
DHCP=yes
IPv6AcceptRA=yes

[DHCPv4]
UseDomains=yes
"""
_HOST_KEYS = """\
[Unit]
Description=SSH host keys of this machine, made at its first start
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -C "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=multi-user.target
"""
_MODPROBE = """\
# A PV domain has none of this hardware. What it has use for (loop, dm-mod, AES) is still loaded when somebody uses it:
# only units and udev, which would load it at each start, are told not to.
alias net-pf-16-proto-16-family-nl80211 off
blacklist cfg80211
blacklist drm
blacklist efi_pstore
blacklist pcspkr
blacklist evdev
blacklist loop
blacklist dm_mod
blacklist aesni_intel
blacklist ghash_clmulni_intel
blacklist sha512_ssse3
blacklist sha256_ssse3
blacklist sha1_ssse3
blacklist crct10dif_pclmul
blacklist crc32_pclmul
"""
_UNITS = ("systemd-networkd", "systemd-resolved", "ssh", "ssh-host-keys", "serial-getty@hvc0")
_NOT_BY_ITSELF = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap", "getty@tty1")
"""apt's would take its lock, and minutes of processor time, whenever a machine has just been started; the others have
nothing to do here: there is no LVM and no tty1."""

_SETUP = """\
set -eu
export DEBIAN_FRONTEND=noninteractive HOME=/root LC_ALL=C.UTF-8
cd /
rm -f etc/ssh/ssh_host_*
for unit in {units}; do systemctl --quiet enable "$unit"; done
for unit in {disabled}; do systemctl --quiet disable "$unit" || :; done
{account}
{hook}
for command in {dir}/run-*; do
    [ -e "$command" ] || continue
    rm -f etc/resolv.conf; cp {dir}/resolv.conf etc/resolv.conf
    sh -e "$command" || {{ status=$?; echo "domzero: --run: exit status $status" >&2; exit 1; }}
done
rm -f etc/resolv.conf
ln -s ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf
apt-get clean
rm -rf var/lib/apt/lists/* var/log/*.log var/log/apt/* var/cache/ldconfig/aux-cache tmp/* {dir}
rm -f etc/machine-id var/lib/dbus/machine-id etc/.pwd.lock
: > etc/machine-id
touch etc/.updated var/.updated
"""
"""The two stamps keep the first start from making caches again that packages have just made (systemd-update-done)."""


def early_files() -> dict[str, File]:
    """Files that have to be there before the kernel's package is installed."""
    return {
        "etc/initramfs-tools/conf.d/domzero": File(_INITRAMFS_CONF),
        "etc/initramfs-tools/hooks/domzero": File(_INITRAMFS_HOOK, 0o755),
    }


def system_files(first: FirstBoot, root_uuid: str, resolv_conf: str) -> dict[str, File]:
    """Files of the finished system, and those that `setup_script` uses."""
    name = first.hostname.split(".")[0]
    names = first.hostname if name == first.hostname else f"{first.hostname} {name}"
    files = {
        "etc/hostname": File(f"{name}\n"),
        "etc/hosts": File(f"127.0.0.1\tlocalhost\n127.0.1.1\t{names}\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
        "etc/fstab": File(f"UUID={root_uuid} / ext4 errors=remount-ro,x-systemd.growfs 0 1\n"),
        "boot/grub/grub.cfg": File(_GRUB_CFG.format(uuid=root_uuid, kernels=DIRECTORY, cmdline=CMDLINE)),
        f"{DIRECTORY}/README": File(README),
        HOOK: File(HOOK_SCRIPT, 0o755),
        HOOK_AT_REMOVAL: File(HOOK_SCRIPT, 0o755),
        "etc/systemd/network/80-domzero.network": File(_NETWORK),
        "etc/modprobe.d/domzero.conf": File(_MODPROBE),
        "etc/systemd/system/ssh-host-keys.service": File(_HOST_KEYS),
        "etc/default/locale": File("LANG=C.UTF-8\n"),
        f"{SETUP_DIR}/setup": File(setup_script(first), 0o700),
        f"{SETUP_DIR}/resolv.conf": File(resolv_conf),
    }
    if first.user is not None:
        files["etc/sudoers.d/domzero"] = File(f"{first.user} ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)
    if first.password is not None:
        files[f"{SETUP_DIR}/password"] = File(f"{first.login}:{first.password}\n", 0o600)
    if first.ssh_keys:
        files[f"{SETUP_DIR}/authorized_keys"] = File("".join(f"{key}\n" for key in first.ssh_keys))
    for number, command in enumerate(first.run):
        files[f"{SETUP_DIR}/run-{number:04d}"] = File(f"{command}\n", 0o700)
    return files


def setup_script(first: FirstBoot) -> str:
    """A shell script that finishes the system from inside; it deletes itself."""
    login = shlex.quote(first.login)
    account = []
    if first.user is not None:
        account.append(f"useradd --create-home --shell /bin/bash --groups sudo {login}")
        account.append("passwd --quiet --lock root")
    account.append(
        f"chpasswd < {SETUP_DIR}/password" if first.password is not None else f"passwd --quiet --delete {login}"
    )
    if first.ssh_keys:
        home = "root" if first.user is None else f"home/{login}"
        account.append(f"install -d -m 700 -o {login} -g {login} {home}/.ssh")
        keys = f"{SETUP_DIR}/authorized_keys {home}/.ssh/authorized_keys"
        account.append(f"install -m 600 -o {login} -g {login} {keys}")
    return _SETUP.format(
        units=" ".join(_UNITS),
        disabled=" ".join(_NOT_BY_ITSELF),
        account="\n".join(account),
        dir=SETUP_DIR,
        hook=HOOK,
    )


def make_tar(files: Files) -> bytes:
    """A tar archive of root's files, with their directories."""
    output = io.BytesIO()
    now = int(time.time())
    directories: set[str] = set()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, file in sorted(files.items()):
            parts = name.split("/")
            for count in range(1, len(parts)):
                parent = "/".join(parts[:count])
                if parent not in directories:
                    directories.add(parent)
                    entry = tarfile.TarInfo(f"./{parent}")
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o700 if parent == SETUP_DIR else 0o755
                    entry.mtime = now
                    archive.addfile(entry)
            data = file.data.encode()
            entry = tarfile.TarInfo(f"./{name}")
            entry.mode, entry.size, entry.mtime = file.mode, len(data), now
            archive.addfile(entry, io.BytesIO(data))
    return output.getvalue()


def recipe_of(first: FirstBoot) -> dict[str, object]:
    """What is kept of the options: no password."""
    return {
        "hostname": first.hostname,
        "user": first.user,
        "ssh_keys": list(first.ssh_keys),
        "run": list(first.run),
    }
