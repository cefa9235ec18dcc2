# SPDX-License-Identifier: Apache-2.0
"""Kernel modules of the small initramfs: drivers of Xen's and QEMU's devices, and file systems found on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from domzero.dom0.images.cpio import Entry, directory, file

DEPENDS: dict[str, tuple[str, ...]] = {
    "lib/crc16": (),
    "crypto/crc32c_generic": (),
    "fs/mbcache": (),
    "fs/jbd2/jbd2": (),
    "fs/ext4/ext4": ("fs/jbd2/jbd2", "fs/mbcache", "lib/crc16", "crypto/crc32c_generic"),
    "drivers/block/xen-blkfront": (),
    "drivers/net/xen-netfront": (),
    "net/packet/af_packet": (),
    "drivers/virtio/virtio_ring": (),
    "drivers/virtio/virtio": ("drivers/virtio/virtio_ring",),
    "drivers/virtio/virtio_pci_modern_dev": (),
    "drivers/virtio/virtio_pci_legacy_dev": (),
    "drivers/virtio/virtio_pci": (
        "drivers/virtio/virtio_pci_modern_dev",
        "drivers/virtio/virtio_pci_legacy_dev",
        "drivers/virtio/virtio",
        "drivers/virtio/virtio_ring",
    ),
    "drivers/virtio/virtio_balloon": ("drivers/virtio/virtio", "drivers/virtio/virtio_ring"),
    "drivers/block/virtio_blk": ("drivers/virtio/virtio", "drivers/virtio/virtio_ring"),
    "net/core/failover": (),
    "drivers/net/net_failover": ("net/core/failover",),
    "drivers/net/virtio_net": (
        "drivers/net/net_failover",
        "net/core/failover",
        "drivers/virtio/virtio",
        "drivers/virtio/virtio_ring",
    ),
    "drivers/net/mii": (),
    "drivers/net/ethernet/realtek/8139cp": ("drivers/net/mii",),
    "drivers/video/fbdev/core/syscopyarea": (),
    "drivers/video/fbdev/core/sysfillrect": (),
    "drivers/video/fbdev/core/sysimgblt": (),
    "drivers/video/fbdev/core/fb_sys_fops": (),
    "drivers/video/fbdev/xen-fbfront": (
        "drivers/video/fbdev/core/fb_sys_fops",
        "drivers/video/fbdev/core/syscopyarea",
        "drivers/video/fbdev/core/sysfillrect",
        "drivers/video/fbdev/core/sysimgblt",
    ),
    "drivers/input/misc/xen-kbdfront": (),
    "drivers/input/evdev": (),
    "drivers/acpi/button": (),
    "fs/netfs/netfs": (),
    "fs/fscache/fscache": ("fs/netfs/netfs",),
    "net/9p/9pnet": (),
    "net/9p/9pnet_xen": ("net/9p/9pnet",),
    "fs/9p/9p": ("net/9p/9pnet", "fs/fscache/fscache", "fs/netfs/netfs"),
}
"""Each module with those that it needs. Debian's names; what a kernel has built in, or has elsewhere, is left out."""

_ALIASES = """\
alias fs-ext4 ext4
alias fs-9p 9p
alias net-pf-17 af_packet
alias xen:vbd xen-blkfront
alias xen:vif xen-netfront
alias xen:9pfs 9pnet_xen
alias xen:vfb xen-fbfront
alias xen:vkbd xen-kbdfront
"""


def wanted(release: str) -> dict[str, str]:
    """Where a package of kernel `release` has them: name -> beginning of the path."""
    return {name: f"lib/modules/{release}/kernel/{name}.ko" for name in DEPENDS}


def entries(release: str, modules: Mapping[str, tuple[str, bytes]]) -> tuple[Entry, ...]:
    """What an initramfs has of the modules that were found, with the indexes of modprobe.

    :param modules: name -> path in the package, contents.
    """
    paths = {name: PurePosixPath(path) for name, (path, _) in modules.items()}
    root = PurePosixPath("lib/modules", release)
    folders = {parent for path in paths.values() for parent in path.parents if parent.is_relative_to("lib/modules")}
    index = "".join(
        f"{paths[name].relative_to(root)}:"
        + "".join(f" {paths[each].relative_to(root)}" for each in DEPENDS[name] if each in paths)
        + "\n"
        for name in paths
    )
    return (
        *(directory(str(folder)) for folder in sorted(folders | {PurePosixPath("lib/modules"), root})),
        *(file(str(paths[name]), contents) for name, (_, contents) in modules.items()),
        file(f"{root}/modules.dep", index),
        file(f"{root}/modules.alias", _ALIASES),
    )
