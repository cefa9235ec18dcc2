# SPDX-License-Identifier: Apache-2.0
"""The QEMU that is installed here: where it is, and which version. Nothing of it comes with Domzero."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from domzero.errors import ConfigError

NAME = "qemu-system-x86_64"
VARIABLE = "DOMZERO_QEMU"
"""In the environment: the program to be used in its place."""
PACKAGE = "apt-get install qemu-system-x86"
OLDEST = (7, 2)
"""`screendump` writes PNG and `-netdev stream` is there since then."""
XEN_SINCE = (8, 1)
"""KVM's emulation of Xen, with its xenstore, disks and interfaces."""
_SECONDS = 10
FIRMWARE = tuple(
    (Path(code), Path(variables))
    for code, variables in (
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    )
)
"""Where Debian and Fedora keep UEFI, and the variables that it begins with."""


@dataclass(slots=True, frozen=True)
class Program:
    """A QEMU.

    :param version: major and minor.
    """

    path: str
    version: tuple[int, int]

    def __str__(self) -> str:
        return f"QEMU {self.version[0]}.{self.version[1]}"


def find_qemu() -> Program:
    """The QEMU of this host. ConfigError: it is not here, too old, or does not run."""
    wanted = os.environ.get(VARIABLE) or NAME
    path = shutil.which(wanted)
    if path is None:
        raise ConfigError(f"hvm and pvh domains need QEMU, and {wanted} is not here", key="type", hint=PACKAGE)
    status = os.stat(path)
    program = _look_at(path, status.st_mtime_ns, status.st_size)
    if program.version < OLDEST:
        raise ConfigError(f"{program} is too old: {OLDEST[0]}.{OLDEST[1]} or later is needed", key="type", hint=PACKAGE)
    return program


@functools.lru_cache(maxsize=4)
def _look_at(path: str, _mtime_ns: int, _size: int) -> Program:
    try:
        done = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
        match = re.search(rb"version (\d{1,4})\.(\d{1,4})", done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{path} does not run: {error}", key="type", hint=PACKAGE) from error
    if match is None:
        raise ConfigError(f"{path} does not say which version it is", key="type", hint=PACKAGE)
    return Program(path, (int(match[1]), int(match[2])))


def find_uefi() -> tuple[Path, Path]:
    """UEFI for guests: its code, and the variables that it begins with. ConfigError: it is not here."""
    for code, variables in FIRMWARE:
        if code.is_file() and variables.is_file():
            return code, variables
    raise ConfigError("UEFI for guests is not here", key="firmware", hint="apt-get install ovmf, or firmware=bios")


__all__ = ["FIRMWARE", "Program", "find_qemu", "find_uefi"]
