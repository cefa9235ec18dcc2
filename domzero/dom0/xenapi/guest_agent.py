# SPDX-License-Identifier: Apache-2.0
"""What a guest's agent says of its guest in xenstore (`xe-guest-utilities`), as VM_guest_metrics has it.

All of it is the guest's word: it is looked up by name, and cut to a sane length.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field

from domzero.dom0.records import Record
from domzero.dom0.xenapi.world import World
from domzero.dom0.xenstore import XenstoreError

VALUE_MAX = 256
INTERFACES_MAX, ADDRESSES_MAX = 32, 16
_OS = {
    "data/os_name": "name",
    "data/os_uname": "uname",
    "data/os_distro": "distro",
    "data/os_majorver": "major",
    "data/os_minorver": "minor",
}
_DRIVERS = {
    "attr/PVAddons/MajorVersion": "major",
    "attr/PVAddons/MinorVersion": "minor",
    "attr/PVAddons/MicroVersion": "micro",
    "attr/PVAddons/BuildVersion": "build",
}
_MEMORY = {"data/meminfo_total": "total", "data/meminfo_free": "free"}
_DIGITS = re.compile("[0-9]{1,3}", re.ASCII)
_OLD_INTERFACE = re.compile("eth([0-9]{1,2})", re.ASCII)


@dataclass
class Said:
    """What it has said; nothing, if there is none."""

    os: dict[str, str] = field(default_factory=dict)
    drivers: dict[str, str] = field(default_factory=dict)
    memory: dict[str, str] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)


def said(world: World, vm: Record) -> Said:
    """What the agent in a domain has said."""
    return world.once(f"guest agent {vm.uuid}", lambda: _look(world, vm))


def _look(world: World, vm: Record) -> Said:
    if vm.domid is None:
        return Said()
    at, store = f"/local/domain/{vm.domid}", world.manager.store

    def get(name: str) -> str | None:
        value = store.get(f"{at}/{name}")
        return None if value is None else value[:VALUE_MAX]

    def children(name: str) -> list[str]:
        with suppress(XenstoreError):
            return sorted(store.ls(f"{at}/{name}"))
        return []

    def named(names: dict[str, str]) -> dict[str, str]:
        return {key: value for name, key in names.items() if (value := get(name))}

    networks: dict[str, str] = {}
    for name in children("attr")[:INTERFACES_MAX]:
        if (match := _OLD_INTERFACE.fullmatch(name)) and (value := get(f"attr/{name}/ip")):
            networks[f"{match[1]}/ip"] = value
    for vif in _numbers(children("attr/vif"), INTERFACES_MAX):
        for version in ("ipv4", "ipv6"):
            for number in _numbers(children(f"attr/vif/{vif}/{version}"), ADDRESSES_MAX):
                if value := get(f"attr/vif/{vif}/{version}/{number}"):
                    networks[f"{vif}/{version}/{number}"] = value
                    if version == "ipv4" and number == "0":
                        networks[f"{vif}/ip"] = value
    return Said(named(_OS), named(_DRIVERS), named(_MEMORY), networks)


def _numbers(names: list[str], most: int) -> list[str]:
    return sorted((name for name in names if _DIGITS.fullmatch(name)), key=int)[:most]
