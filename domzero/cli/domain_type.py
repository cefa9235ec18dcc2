# SPDX-License-Identifier: Apache-2.0
"""Options that say what kind of domain it is."""

from __future__ import annotations

import argparse

from domzero.dom0.hvmspec import DomainType, Firmware

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
