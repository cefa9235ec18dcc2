# SPDX-License-Identifier: Apache-2.0
"""The small initramfs that `domzero image fetch` builds: busybox, a shell on the PV console, a way to power off."""

from __future__ import annotations

from domzero.dom0.images.cpio import Entry, char_device, directory, file, symlink, write_cpio

_RC = """\
#!/bin/busybox sh
export PATH=/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null || mount -t tmpfs tmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
[ -c /dev/hvc0 ] || mknod /dev/hvc0 c 229 0
if ! [ -e /sys/hypervisor/type ]; then
    ln -sf ttyS0 /dev/hvc0
    for module in virtio_pci virtio_blk virtio_net virtio_balloon 8139cp button evdev; do
        modprobe "$module" 2>/dev/null
    done
    [ -c /dev/input/event0 ] && busybox acpid -l /dev/null  # hears the power button
fi
[ -d /sys/hypervisor/properties ] && mount -t xenfs xenfs /proc/xen 2>/dev/null
ip link set lo up 2>/dev/null
for device in vbd:xen-blkfront vif:xen-netfront 9pfs:9pnet_xen vfb:xen-fbfront vkbd:xen-kbdfront; do
    ls /sys/bus/xen/devices 2>/dev/null | grep -q "^${device%%:*}-" && modprobe "${device#*:}" 2>/dev/null
done
hostname -F /etc/hostname
for device in /sys/class/net/eth*; do
    if [ -e "$device" ]; then
        ip link set "${device##*/}" up
        udhcpc -n -q -S -i "${device##*/}" >/dev/null 2>&1 &
    fi
done
read up rest < /proc/uptime
type=$(cat /sys/hypervisor/type 2>/dev/null || echo none)
echo
echo "Domzero guest: $(uname -s) $(uname -r), hypervisor $type, up after $up s"
echo "A busybox shell follows; 'poweroff' and 'reboot' end it."
echo
"""

_INITTAB = """\
::sysinit:/etc/rc
hvc0::respawn:-/bin/sh
tty1::respawn:/etc/screen
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/sync
"""

# A domain without a framebuffer has a tty1 that nobody sees.
_SCREEN = """\
#!/bin/busybox sh
while ! [ -e /sys/class/graphics/fb0 ]; do sleep 3600; done
exec /bin/busybox sh -l
"""

_PROFILE = """\
export PATH=/sbin:/bin HOME=/root
export PS1='\\h:\\w\\$ '
cd
"""

# The kernel calls these when Domain 0 asks for a shutdown (control/shutdown), acpid when the power button is pressed.
# Nothing here is worth an orderly stop.
_END = """\
#!/bin/busybox sh
exec /bin/busybox {applet} -f
"""

_DHCP = """\
#!/bin/sh
# What udhcpc was told is set.
case "$1" in
deconfig) ip link set "$interface" up ;;
bound | renew)
    [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
    ip address replace "$ip/$mask" dev "$interface"
    for gateway in $router; do ip route replace default via "$gateway" dev "$interface" onlink; done
    : > /etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >> /etc/resolv.conf; done ;;
esac
"""

_APPLETS = """
[ ash awk basename cat chmod chown clear cp cut date dd df dirname dmesg du echo env expr false find free getty
grep gunzip gzip head hexdump hostname id init insmod ip kill killall less ln ls lsmod md5sum mkdir mkfifo mknod
modprobe more mount mv nc nproc od pgrep ping pkill printf ps pwd readlink renice reset rm rmdir rmmod sed seq
setsid sh sha256sum sleep sort stat stty sync sysctl tail tar tee test time top touch tr true tty udhcpc umount uname
uniq uptime vi watch wc wget which who xargs yes zcat
""".split()  # noqa: SIM905

_DIRECTORIES = "bin dev etc etc/acpi etc/acpi/PWRF etc/udhcpc lib mnt proc root run sbin sys var".split()  # noqa: SIM905


def build_initramfs(busybox: bytes, *, hostname: str = "guest", extra: tuple[Entry, ...] = ()) -> bytes:
    """An initramfs, not compressed: an interpreted guest unpacks that fastest.

    :param busybox: a static busybox for the guest's architecture.
    :param extra: further entries, for instance kernel modules.
    """
    entries = [
        *(directory(name) for name in _DIRECTORIES),
        directory("tmp", 0o1777),
        char_device("dev/console", 5, 1),
        char_device("dev/null", 1, 3, 0o666),
        char_device("dev/hvc0", 229, 0),
        file("bin/busybox", busybox, 0o755),
        symlink("init", "bin/busybox"),
        symlink("sbin/modprobe", "../bin/busybox"),  # the kernel looks for it there
        *(symlink(f"bin/{applet}", "busybox") for applet in _APPLETS),
        *(file(f"sbin/{applet}", _END.format(applet=applet), 0o755) for applet in ("poweroff", "reboot", "halt")),
        symlink("etc/acpi/PWRF/00000080", "/sbin/poweroff"),  # where busybox's acpid looks
        file("etc/inittab", _INITTAB),
        file("etc/udhcpc/default.script", _DHCP, 0o755),
        file("etc/rc", _RC, 0o755),
        file("etc/screen", _SCREEN, 0o755),
        file("etc/profile", _PROFILE),
        file("etc/hostname", hostname + "\n"),
        file("etc/passwd", "root::0:0:root:/root:/bin/sh\n"),
        file("etc/group", "root:x:0:\n"),
        *extra,
    ]
    return write_cpio(entries)
