# SPDX-License-Identifier: Apache-2.0
"""xl.cfg files as they are found on hosts, in guides and in installers' templates: each is read, or refused by name.

They are written anew after the habits of such files, none is a copy: strings for numbers, names of old tool stacks,
keys of xm's Python files, devices as other systems name them. Debian's xl 4.17 takes those that are taken here but
the one with a Windows editor's line ends, and of the refused ones all but the program.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from domzero.cli.xl.door import run
from domzero.cli.xl.grammar import XlStatus
from domzero.dom0 import xlcfg
from domzero.dom0.images import grub
from domzero.errors import ConfigErrors


@dataclass(frozen=True)
class Found:
    """A file.

    :param warned: keys that warnings begin with.
    :param refused: what is wrong with it, in part; empty: it makes a domain.
    :param kind: its type.
    """

    text: str
    warned: list[str] = field(default_factory=list)
    refused: str = ""
    kind: str = "pv"


FOUND = {
    "two partitions as disks, and a static address of xm's": Found(
        """
kernel = '/boot/vmlinuz-6.1-amd64'
ramdisk = '/boot/initrd.img-6.1-amd64'
vcpus = '1'
memory = '512'
root = '/dev/xvda2 ro'
disk = [
    'phy:/dev/vg0/www-disk,xvda2,w',
    'phy:/dev/vg0/www-swap,xvda1,w',
]
name = 'www'
hostname = 'www'
vif = [ 'ip=192.0.2.10 ,mac=00:16:3E:11:22:33' ]
ip = "192.0.2.10"
netmask = "255.255.255.0"
gateway = "192.0.2.1"
on_poweroff = 'destroy'
on_reboot = 'restart'
on_crash = 'restart'
""",
        ["hostname", "ip", "netmask", "gateway"],
    ),
    "the script that is the usual one": Found(
        """name = "cloud"
memory = 1024
bootloader = "/usr/bin/pygrub"
disk = [ "tap:aio:/var/lib/xen/images/cloud.img,sda,w" ]
vif = [ "mac=00:16:3e:23:09:11,bridge=xenbr0,script=vif-bridge" ]
vfb = [ "type=vnc,vncunused=1" ]
uuid = "4230bccf-5882-2ac6-7e1c-0e2a60208002"
""",
    ),
    "a script of another network": Found(
        """name = "ovs"
kernel = "/k"
vif = [ 'script=vif-openvswitch,bridge=ovsbr0' ]
""",
        refused="script",
    ),
    "a back end that runs in another domain": Found(
        """name = "app"
kernel = "/k"
vif = [ 'mac=00:16:3e:5e:6c:01,ip=10.137.0.9,script=/etc/xen/scripts/vif-route,backend=sys-net' ]
""",
        refused="script",
    ),
    "an installer with an answer file": Found(
        """kernel ="/tmp/x/vmlinuz"
ramdisk = "/tmp/x/initrd.img"
extra = "text ks=http://192.0.2.1/ks.cfg"
disk = ['tap:aio:/var/lib/xen/f.img,xvda,w',]
name = "installs"
maxmem = 1024
memory = 1024
on_reboot = "destroy"
on_crash = "destroy"
vfb = []
vif = ["mac=00:16:3e:00:00:07,bridge=virbr0",]
"""
    ),
    "an image that a program serves": Found(
        """name = "v"
vcpus = 2
memory = 512
bootloader = "/usr/bin/pygrub"
disk = [ 'tap2:vhd:/srv/v.vhd,xvda,rw' ]
"""
    ),
    "an own image by its keys": Found(
        """name = "yocto"
memory = 6144
vcpus = 4
extra = " earlyprintk=xenboot console=hvc0 rw"
root = "/dev/xvda1"
kernel = "/boot/Image"
disk = ['format=qcow2, vdev=xvda, access=rw, backendtype=qdisk, target=/usr/share/guests/yocto.qcow2']
vif = ['script=vif-bridge,bridge=xenbr0']
""",
    ),
    "a disk as NetBSD numbers it": Found(
        """kernel = "/netbsd-XEN3_DOMU"
memory = 256
name = "bsd"
vif = [ 'mac=00:16:3e:00:00:08, ip=192.0.2.11' ]
disk = [ 'phy:/dev/mapper/vg-bsd,0x3,w' ]
"""
    ),
    "a unikernel": Found(
        """name = 'hello'
kernel = '/home/me/hello/dist/hello.xen'
type = 'pvh'
memory = 32
on_crash = 'preserve'
disk = [  ]
vif = [ 'bridge=service' ]
""",
        kind="pvh",
    ),
    "a file of xm's that is a program": Found(
        """import os
arch_libdir = 'lib'
kernel = "/k"
name = "program"
""",
        refused="Python",
    ),
    "Windows by xm": Found(
        """kernel = "/usr/lib/xen-4.1/boot/hvmloader"
builder='hvm'
memory = '4096'
name = 'win'
vcpus = 4
disk = [ 'phy:vg0/win,ioemu:hda,w',
         'file:/root/windows.iso,ioemu:hdb:cdrom,r' ]
vif = ['ip=192.0.2.7, bridge=xen-br0, mac=00:16:3e:60:57:3f']
boot='d'
vnc=1
vncviewer=1
vncconsole=0
sdl=0
soundhw='es1370'
device_model = '/usr/lib/xen-4.1/bin/qemu-dm'
""",
        ["kernel", "soundhw", "vncviewer", "vncconsole", "device_model"],
        kind="hvm",
    ),
    "a server with everything in quotes": Found(
        """name = 'dc'
type = 'hvm'
memory = '8192'
vcpus = '6'
vif = [ 'mac=00:16:3E:0b:cd:50,bridge=br0' ]
disk = [ '/dev/vg1/Sys,raw,hda,rw',
               '/dev/vg1/Data,raw,hdb,rw' ]
viridian = 'all'
localtime = '1'
vnc = '1'
keymap = 'de'
vnclisten = '127.0.0.1'
usb = '1'
usbdevice = 'tablet'
on_crash  = 'restart'
boot = 'c'
xen_platform_pci = '1'
max_grant_frames = 128
""",
        ["viridian", "keymap", "xen_platform_pci", "max_grant_frames"],
        kind="hvm",
    ),
    "UEFI with a screen": Found(
        """builder = 'hvm'
bios = 'ovmf'
memory = '6144'
vcpus = '4'
disk = ['/dev/linux/trixie,,xvda,w']
name = 'trixie'
vif = [ 'mac=00:16:3e:00:00:09,type=vif,ip=192.0.2.3' ]
boot = 'c'
acpi = '1'
apic = '1'
viridian = '1'
xen_platform_pci = '1'
serial = 'pty'
vga = 'stdvga'
videoram = '16'
sdl = '0'
vnc = '1'
vnclisten = '127.0.0.1'
vncdisplay = '1'
usb = '1'
usbdevice = 'tablet'
""",
        ["apic", "viridian", "xen_platform_pci"],
        kind="hvm",
    ),
    "an installation from a CD": Found(
        """builder = "hvm"
name = "c7.hvm"
memory = 4096
vcpus = 2
serial='pty'
vif = [ 'mac=00:16:3E:29:00:01,bridge=xenbr0' ]
disk = [ 'phy:/dev/vg/c7,xvda,rw', 'file:/opt/isos/c7.iso,xvdb:cdrom,r' ]
boot = "dc"
sdl = 0
vnc = 1
vnclisten  = "127.0.0.1"
vncdisplay = 0
vncpasswd  = "secret"
stdvga=1
videoram = 64
""",
        kind="hvm",
    ),
    "one to look into from outside": Found(
        """arch = 'x86_64'
name = "win7"
maxmem = 3000
memory = 3000
vcpus = 2
maxvcpus = 2
builder = "hvm"
boot = "cd"
hap = 1
on_poweroff = "destroy"
on_reboot = "destroy"
on_crash = "destroy"
vnc = 1
vnclisten = "127.0.0.1"
vga = "stdvga"
usb = 1
usbdevice = "tablet"
audio = 1
soundhw = "hda"
viridian = 1
altp2m = 2
shadow_memory = 32
vif = [ 'type=ioemu,model=e1000,bridge=virbr0,mac=48:9e:bd:9e:2b:0e']
disk = [ 'phy:/dev/vg/win7,hda,w', 'file:/isos/win7.iso,hdc:cdrom,r' ]
""",
        ["arch", "hap", "altp2m", "shadow_memory", "audio", "soundhw", "viridian"],
        kind="hvm",
    ),
    "a virtualization in a virtualization": Found(
        """type = "hvm"
name = "srv"
uuid = "a4c28f32-7b89-4e12-b91c-99d82e11fa03"
memory = 4096
maxmem = 8192
vcpus = 4
maxvcpus = 8
builder = "hvm"
hap = 1
nestedhvm = 1
disk = [
    'format=qcow2, vdev=xvda, access=rw, target=/srv/srv.qcow2',
    'format=raw, vdev=xvdb, access=rw, target=/dev/vg/data'
]
vif = [
    'mac=00:16:3e:54:1a:8b, bridge=xenbr0, script=vif-bridge, model=e1000'
]
boot = "c"
sdl = 0
vnc = 1
vnclisten = "127.0.0.1"
""",
        ["hap", "nestedhvm"],
        kind="hvm",
    ),
    "SPICE": Found(
        """type = "hvm"
name = "desk"
memory = 2048
disk = ['/srv/desk.img,raw,xvda,rw']
vnc = 0
spice = 1
spicehost = '127.0.0.1'
spiceport = 6000
spicedisable_ticketing = 1
spicevdagent = 1
vga = "qxl"
""",
        ["spice", "spicehost", "spiceport", "spicedisable_ticketing", "spicevdagent", "vga"],
        kind="hvm",
    ),
    "a guest of a replicated disk": Found(
        """kernel = "/data/kernels/vmlinuz"
root = "/dev/xvda1 ro console=hvc0 mitigations=off"
#extra = "init=/bin/sh"
name = "drbd"
memory = 1024
vcpus = 2
disk = ['phy:/dev/drbd/by-res/drbd/0,xvda1,w']
vif = [ 'bridge=guestbr0, vifname=drbd' ]
type = "pvh"
""",
        kind="pvh",
    ),
    "FreeBSD": Found(
        """type = "pvh"
memory = 2048
vcpus = 2
name = "BSD"
kernel = "/boot/kernel/kernel"
cmdline = "vfs.root.mountfrom=ufs:/dev/ada0p3"
disk = [ '/srv/bsd.raw,raw,hda,w' ]
boot = "c"
serial = 'pty'
on_poweroff = 'destroy'
on_reboot = 'restart'
on_crash = 'restart'
#vif = [ 'bridge=bridge0' ]
""",
        ["boot", "serial"],
        kind="pvh",
    ),
    "a card of the host": Found(
        """type = "hvm"
name = "gpu"
memory = 4096
disk = ['/srv/gpu.img,raw,xvda,rw']
pci = ['01:00.0', '01:00.1']
gfx_passthru = 1
""",
        refused="pci",
        kind="hvm",
    ),
    "vCPUs in their places": Found(
        """name = "pinned"
kernel = "/boot/vmlinuz"
memory = 512
vcpus = 2
cpus = ["0", "0"]
cpu_weight = 512
cap = 150
tsc_mode = "native"
extra = "root=/dev/xvda ro quiet"
disk = ['file:/srv/pinned.img,xvda,w']
""",
        ["tsc_mode"],
    ),
    "a file of a Windows editor": Found(
        'name = "crlf"\r\nkernel = "/k"\r\nmemory = 128\r\ndisk = [ "/d.img,raw,xvda,w",\r\n\t"/e.img,raw,xvdb,r" ]\r\n'
    ),
    "words between semicolons and with octal and hexadecimal numbers": Found(
        'name="semi"; kernel="/k"; memory=0x80; vcpus=02;; on_crash="coredump-restart"\n'
    ),
    "a guest of an Arm board": Found(
        """name = "DomA"
kernel = "/usr/lib/xen/Image"
memory = 1024
gic_version = "v2"
dtdev = [ "/soc/gpu@fd000000" ]
""",
        refused="dtdev",
    ),
    "a guest that is routed": Found(
        """bootloader = '/usr/lib/xen-4.9/bin/pygrub'
name = "routed"
memory = 1024
maxmem = 6144
vcpus = 6
maxvcpus = 8
disk = [ 'phy:/dev/vg0/routed,xvda,rw' ]
vif = [ 'ip=192.0.2.9, mac=00:16:3E:29:33:15, gatewaydev=xenbr0:1' ]
""",
        refused="gatewaydev",
    ),
    "a virtio disk": Found(
        """name = "virtio"
kernel = "/k"
disk = [ 'phy:/dev/mmcblk0p3, xvda1, backendtype=standalone, specification=virtio']
""",
        refused="backendtype=standalone",
    ),
    "a CD that a PV guest has": Found(
        """name = "domU"
memory = 512
kernel = "/mnt/boot/vmlinuz"
ramdisk = "/mnt/boot/initramfs"
extra = "label=SYSTEM"
disk = [ "file:/srv/install.iso,xvdb:cdrom,r", "phy:/dev/vg0/domU,xvda,w" ]
vif = [ 'mac=00:16:3e:00:00:10,bridge=xenbr0' ]
"""
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_file_that_is_found_makes_a_domain_or_is_refused_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(grub, "find_pvgrub", lambda cache=None, kind="x86_64": Path("/grub"))
    found, path = FOUND[name], tmp_path / "guest.cfg"
    path.write_bytes(found.text.encode())
    status = run(["create", "-n", str(path)])
    shown = capsys.readouterr()
    if found.refused:
        assert status == XlStatus.FAILED and found.refused in shown.err and shown.out == ""
        with pytest.raises(ConfigErrors) as refused:
            xlcfg.load(found.text)
        assert any(found.refused in str(one) for one in refused.value.errors), refused.value
        return
    parsed = xlcfg.load(found.text)
    assert status == XlStatus.OK and json.loads(shown.out)["c_info"]["type"] == found.kind
    assert parsed.config.name and parsed.config.type.value == found.kind
    heads = [line.partition(": ")[0] for line in parsed.warnings]
    told = [key.removeprefix("unknown key ").removesuffix(" ignored") for head in heads for key in head.split(", ")]
    assert sorted(told) == sorted(found.warned), parsed.warnings
