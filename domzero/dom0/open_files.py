# SPDX-License-Identifier: Apache-2.0
"""What a domain is made of, as open files: kernel, ramdisk, disks, shared directories; networks as connected sockets.

Domain 0 opens all of it and gives it to the worker (`file_passing`), which opens nothing itself. Opening may wait, for
a network's file system or for passt: not in the event loop (`opening`). What only some domains have is
imported by them, so that the others start sooner.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from domzero.builder.files import FILE_MAX, open_file
from domzero.builder.image import open_kernel
from domzero.dom0.config import DomainConfig
from domzero.dom0.console_relay import OpenConsole, open_console
from domzero.dom0.descriptors import Descriptors
from domzero.dom0.diskspec import DiskFile, DiskFormat, DiskSpec
from domzero.dom0.outside import Outside
from domzero.dom0.sharespec import ShareSpec
from domzero.dom0.vifspec import MTU
from domzero.dom0.vnc.listener import OpenScreen, open_screen
from domzero.dom0.wire import Wire
from domzero.errors import ConfigError, ImageError

CHAIN_MAX = 64
"""An image and the files below it."""


@dataclass(slots=True)
class OpenDisk(Descriptors):
    """A disk's image and the files that it rests on, each on the next; none for a drive without a medium.

    :param files: what each is.
    """

    files: tuple[DiskFile, ...] = ()


@dataclass(slots=True)
class DomainFiles:
    """All that one start of a domain needs; what nobody took is closed with `close`."""

    kernel: int | None = None
    ramdisk: int | None = None
    disks: list[OpenDisk] = field(default_factory=list)
    shares: list[int] = field(default_factory=list)
    consoles: list[OpenConsole] = field(default_factory=list)
    screens: list[OpenScreen] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the log is to say of it."""

    def numbers(self) -> list[int]:
        """The descriptors, in the order in which they are passed on."""
        boot = [fd for fd in (self.kernel, self.ramdisk) if fd is not None]
        disks = [fd for disk in self.disks for fd in disk.fds]
        consoles = [console.sock.fileno() for console in self.consoles]
        screens = [screen.sock.fileno() for screen in self.screens]
        return [*boot, *disks, *self.shares, *consoles, *screens, *(wire.fileno() for wire in self.wires)]

    def ttys(self) -> tuple[str, ...]:
        """Names of the ptys of the consoles, empty for those that are sockets."""
        return tuple(console.tty for console in self.consoles)

    def addresses(self) -> tuple[str, ...]:
        """Where its screens can be looked at."""
        return tuple(screen.address for screen in self.screens)

    def disk_files(self) -> tuple[tuple[DiskFile, ...], ...]:
        """What the files of each disk are."""
        return tuple(disk.files for disk in self.disks)

    def outsides(self) -> list[Callable[[], Outside]]:
        """What gives the other ends of its consoles and screens once more."""
        ends = [*(console.outside for console in self.consoles), *(screen.outside for screen in self.screens)]
        return [end for end in ends if end is not None]

    def take_shares(self) -> Iterator[int]:
        """Gives the shared directories away, one by one."""
        while self.shares:
            yield self.shares.pop(0)

    def close(self) -> None:
        """Closes all that is left."""
        for fd in (self.kernel, self.ramdisk, *self.take_shares()):
            if fd is not None:
                os.close(fd)
        self.kernel = self.ramdisk = None
        disks, self.disks = self.disks, []
        wires, self.wires = self.wires, []
        consoles, self.consoles = self.consoles, []
        screens, self.screens = self.screens, []
        for console in consoles:
            console.close()
        for screen in screens:
            screen.close()
        for disk in disks:
            disk.close()
        for wire in wires:
            wire.close()


def open_domain(config: DomainConfig, domid: int, *, kernel: bool = True) -> DomainFiles:
    """Opens all that a configuration names. DomzeroError; nothing is left open then.

    :param domid: that the domain will have, for names in the host.
    :param kernel: the kernel, too.
    """
    files = DomainFiles()
    is_full = config.type.is_full
    try:
        if kernel and config.kernel:
            files.kernel = open_kernel(config.kernel)
        if config.ramdisk:
            files.ramdisk = open_file(config.ramdisk, "ramdisk", min(FILE_MAX, config.memory_mib << 20))
        for spec in config.disk_specs:
            files.disks.append(open_disk(spec, by_qemu=is_full))
        for share in config.share_specs:
            files.shares.append(open_share(share))
        if config.console:
            files.consoles.append(open_console())
        for channel in config.channel_specs:
            files.consoles.append(open_console(channel.connection, channel.path))
        for vfb in config.vfb_specs:
            if vfb.vnc:
                files.screens.append(open_screen(vfb, config.uuid))
                files.notes.append(f"the screen of {config.name} is at {files.screens[-1].address}")
        if config.vif_specs:
            from domzero.dom0.network import connect
        for vif in config.vif_specs:
            if is_full and vif.mtu is None:
                vif = replace(vif, mtu=MTU)  # more is nothing for a card of old
            files.wires.append(connect(vif, config, domid))
            files.notes += files.wires[-1].notes
    except BaseException:
        files.close()
        raise
    return files


def received_domain(
    config: DomainConfig,
    disks: tuple[tuple[DiskFile, ...], ...],
    ttys: tuple[str, ...],
    addresses: tuple[str, ...],
    fds: list[int],
) -> DomainFiles:
    """What `DomainFiles.numbers` became in the process that got it. ConfigError: that is not what belongs to this.

    :param disks, ttys, addresses: what `disk_files`, `ttys` and `addresses` said of it.
    """
    consoles = bool(config.console) + len(config.channel_specs)
    screens = sum(spec.vnc for spec in config.vfb_specs)
    expected = 1 + bool(config.ramdisk) + sum(map(len, disks)) + len(config.share_specs) + len(config.vif_specs)
    expected += consoles + len(addresses)
    if (
        len(fds) != expected
        or len(disks) != len(config.disk_specs)
        or len(ttys) != consoles
        or len(addresses) != screens
    ):
        for fd in fds:
            os.close(fd)
        raise ConfigError(f"{len(fds)} files came with the domain, and {expected} belong to it")
    left = iter(fds)
    files = DomainFiles(next(left), next(left) if config.ramdisk else None)
    files.disks = [OpenDisk(each, fds=[next(left) for _ in each]) for each in disks]
    files.shares = [next(left) for _ in config.share_specs]
    files.consoles = [OpenConsole(socket.socket(fileno=next(left)), tty) for tty in ttys]
    files.screens = [OpenScreen(socket.socket(fileno=next(left)), address) for address in addresses]
    files.wires = [Wire(fd) for fd in left]
    return files


def open_disk(spec: DiskSpec, *, by_qemu: bool = False) -> OpenDisk:
    """Opens what a specification names, and what that rests on. ConfigError.

    :param by_qemu: it is for a QEMU, which understands all formats itself.
    """
    disk = OpenDisk()
    if not spec.target:
        return disk
    path, format, writable = spec.target, spec.format, spec.writable
    try:
        if format.is_served and not by_qemu:
            from domzero.dom0.served_images import open_served

            fd, bytes, flags = open_served(spec)
            return OpenDisk((DiskFile(format, bytes, flags),), fds=[fd])
        while True:
            disk.fds.append(_open_image(path, writable=writable))
            disk.files = (*disk.files, DiskFile(format))
            if format is not DiskFormat.QCOW2:
                return disk
            from domzero.dom0.images.qcow2 import backing_of

            below = backing_of(disk.fds[-1])
            if below is None:
                return disk
            if len(disk.fds) == CHAIN_MAX:
                raise ImageError(f"it rests on more than {CHAIN_MAX} files")
            format = _backing_format(below.format)
            if ":" in below.name.partition("/")[0]:
                raise ImageError(f"its backing file is none of this host: {below.name[:100]!r}")
            path, writable = os.path.join(os.path.dirname(path), below.name), False
    except (OSError, ValueError, ImageError) as error:
        disk.close()
        hint = "give it as read-only: ',ro'" if isinstance(error, PermissionError) and writable else ""
        if isinstance(error, ImageError):
            hint = error.hint or ""
            reason = error.message
        else:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        where = path if path == spec.target else f"{spec.target}: its backing file {path}"
        raise ConfigError(f"{where}: {reason}", key="disk", hint=hint) from error
    except BaseException:
        disk.close()
        raise


def open_share(spec: ShareSpec) -> int:
    """Opens a directory: the only time that its path is used. ConfigError."""
    try:
        return os.open(spec.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{spec.path}: {error.strerror or error}", key="p9") from error


def _open_image(path: str, *, writable: bool) -> int:
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    fd = os.open(path, flags)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        os.close(fd)
        raise ImageError("neither a regular file nor a block device")
    return fd


def _backing_format(name: str) -> DiskFormat:
    if name in ("raw", "file", "host_device"):
        return DiskFormat.RAW
    if name == DiskFormat.QCOW2.value:
        return DiskFormat.QCOW2
    if not name:  # to guess would be to let whoever wrote to that file decide
        raise ImageError(
            "it does not say which format its backing file has", hint="qemu-img rebase -u -F FORMAT -b FILE IMAGE"
        )
    raise ImageError(f"its backing file has the format {name[:20]!r}: raw and qcow2 are possible")


__all__ = ["DomainFiles", "OpenDisk", "open_disk", "open_domain", "open_share", "received_domain"]
