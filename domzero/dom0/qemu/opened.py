# SPDX-License-Identifier: Apache-2.0
"""All that one QEMU is started with, opened by Domain 0 in a thread: what `open_files` opens, and firmware."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from domzero.builder.files import FILE_MAX, open_file, read_open
from domzero.builder.image import KERNEL_MAX, open_kernel, unpack
from domzero.dom0.config import DomainConfig
from domzero.dom0.hvmspec import DomainType, Firmware
from domzero.dom0.open_files import DomainFiles, open_domain
from domzero.dom0.qemu.command import Files
from domzero.dom0.qemu.program import find_uefi
from domzero.dom0.qemu.trial import Accelerator, choose
from domzero.errors import ImageError


@dataclass(slots=True)
class Opened:
    """What was opened; `close` closes it.

    :param domain: what `open_files` has.
    :param files: which of it QEMU gets, and what it gets besides.
    :param ttys: of its channels, empty for sockets.
    """

    accelerator: Accelerator
    domain: DomainFiles
    files: Files
    ttys: tuple[str, ...] = ()
    _own: list[int] = field(default_factory=list)

    def own(self, fd: int) -> int:
        """One more descriptor that is closed with the others."""
        self._own.append(fd)
        return fd

    def given(self) -> None:
        """QEMU has its copies: closes ours, but for who is let in at consoles and screens."""
        for fd in self._own:
            os.close(fd)
        self._own.clear()
        domain = self.domain
        channels = domain.consoles[len(domain.consoles) - len(self.files.channels) :]
        del domain.consoles[len(domain.consoles) - len(self.files.channels) :]
        for console in channels:
            console.close()
        kept = DomainFiles(consoles=domain.consoles, screens=domain.screens, notes=domain.notes)
        domain.consoles, domain.screens = [], []
        domain.close()
        self.domain = kept

    def close(self) -> None:
        """Closes all that is left."""
        for fd in self._own:
            os.close(fd)
        self._own.clear()
        self.domain.close()


def open_all(config: DomainConfig, domid: int) -> Opened:
    """Chooses what executes its code, and opens all that a configuration names. DomzeroError; nothing is left then.

    :param domid: that the domain will have.
    """
    accelerator = choose(config.engine)
    domain = open_domain(config, domid, kernel=False)
    opened = Opened(accelerator, domain, Files(-1, -1))
    try:
        _complete(opened, config)
    except BaseException:
        opened.close()
        raise
    return opened


def _complete(opened: Opened, config: DomainConfig) -> None:
    files, domain = opened.files, opened.domain
    if config.kernel:
        files.kernel = opened.own(
            _open_pvh(config.kernel)
            if config.type is DomainType.PVH
            else open_file(config.kernel, "kernel", KERNEL_MAX)
        )
        files.ramdisk = domain.ramdisk
    elif config.type is DomainType.HVM and config.hvm.firmware is Firmware.UEFI:
        code, variables = find_uefi()
        files.firmware = opened.own(open_file(code, "firmware", FILE_MAX))
        files.variables = opened.own(_copied(variables.read_bytes(), "variables"))
        domain.notes.append(f"{config.name}: UEFI's variables are forgotten with this start of the domain")
    files.disks, files.wires = domain.disks, domain.wires
    channels = domain.consoles[1:] if config.console else domain.consoles
    files.channels = [console.sock.fileno() for console in channels]
    opened.ttys = tuple(console.tty for console in channels)


def _open_pvh(path: str) -> int:
    """A kernel as the ELF file that QEMU looks for a PVH entry note in: the file itself, or unpacked."""
    fd = open_kernel(path)
    try:
        from domzero.dom0.qemu.kinds import has_pvh_entry  # kernels are looked into by few

        data = read_open(fd, path, "kernel", KERNEL_MAX)
        elf = unpack(data)
        if not has_pvh_entry(elf):
            hint = 'type="hvm" starts any kernel from a disk'
            raise ImageError(f"{path}: no PVH entry note (PHYS32_ENTRY)", key="kernel", hint=hint)
        if elf is data:
            return os.dup(fd)
    except ImageError as error:
        message = error.message if error.message.startswith(path) else f"{path}: {error.message}"
        raise ImageError(message, key="kernel", hint=error.hint) from error
    finally:
        os.close(fd)
    return _copied(bytes(elf), Path(path).name)


def _copied(data: bytes, name: str) -> int:
    """A file of its own without a name, on a disk: it is read once, and need not stay in memory."""
    with tempfile.TemporaryFile(prefix=f"domzero-{name[:40]}-") as file:
        file.write(data)
        file.flush()
        return os.dup(file.fileno())


__all__ = ["Opened", "open_all"]
