# SPDX-License-Identifier: Apache-2.0
"""Options that say what kind of domain it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from domzero.dom0.hvmspec import DomainType, Firmware, HvmOptions

ENGINE_HELP = "what executes its code: auto (default); interpreter or translator for pv; kvm or tcg for pvh and hvm"
HVM_KEYS = ("type", "firmware", "boot", "engine")
"""Options whose names are xl.cfg's keys."""


def add_type(group: argparse._ArgumentGroup) -> None:
    """Adds them."""
    group.add_argument(
        "--type",
        choices=[each.value for each in DomainType],
        help="pv: a ported kernel; pvh, hvm: in a machine of QEMU's (default: what kernel or disk are for)",
    )
    group.add_argument("--firmware", choices=[each.value for each in Firmware], help="of an hvm domain (default: bios)")
    group.add_argument("--boot", metavar="LETTERS", help="of an hvm domain: c disks, d CDs, n network (default: cdn)")


def choose_type(given: str | None, kernel: str | None, disks: Sequence[str]) -> DomainType:
    """The type that was asked for, else the one that suits; a choice that is not pv is said."""
    if given is not None:
        return DomainType(given)
    from domzero.dom0.config import DomainConfig
    from domzero.dom0.qemu.kinds import type_of

    kind, why = type_of(DomainConfig(kernel=kernel or "", disks=list(disks)))
    if kind.is_full:
        print(f"domzero: type {kind.value}: {why}", file=sys.stderr)
    return kind


def options_of(args: argparse.Namespace) -> HvmOptions:
    """What the options say of an HVM domain."""
    options = HvmOptions()
    if args.firmware is not None:
        options.firmware = Firmware(args.firmware)
    if args.boot is not None:
        options.boot = args.boot
    return options


def console_of(kind: str | None, cmdline: str | None) -> str | None:
    """An image's own command line for a domain of this type: the console of a machine of QEMU's is its serial port."""
    if cmdline is None or kind in (None, DomainType.PV.value):
        return cmdline
    return cmdline.replace("console=hvc0", "console=ttyS0")
