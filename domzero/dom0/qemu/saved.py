# SPDX-License-Identifier: Apache-2.0
"""What a QEMU must be to go on from a saved state: QEMU's own stream says little of the machine that it is of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from domzero.dom0.config import DomainConfig
from domzero.dom0.json_values import MessageError, from_json
from domzero.dom0.qemu.command import disk_device, place_of, vif_device
from domzero.dom0.qemu.machine import Machine
from domzero.dom0.qemu.qmp import number, objects
from domzero.dom0.save_format import MACH, ImageReader
from domzero.errors import ConfigError
from domzero.hypervisor.saved import RestoreError

_NAME = re.compile(r"[a-z]{1,16}[0-9]{0,9}")
_PLACE = re.compile(r"[0-9a-f]{1,2}\.[0-7]")
_TEXT_MAX = 200
_SLOT_MAX, _FUNCTION_MAX = 31, 7
VCPUS_MAX = 1024
PLACES_MAX = 256


@dataclass(slots=True, frozen=True)
class Fact:
    """Something that has a name."""

    name: str
    value: str


@dataclass(slots=True, frozen=True)
class SavedMachine:
    """The machine that a state is of.

    :param facts: its QEMU, its type, what executes its code, its memory and devices: each must be the same.
    :param places: devices on its PCI bus, and where: those that came while it ran are behind the others.
    :param vcpus: numbers of those that are plugged in.
    """

    facts: tuple[Fact, ...]
    places: tuple[Fact, ...] = ()
    vcpus: tuple[int, ...] = (0,)

    def check(self) -> None:
        """Its names and numbers become words of a command line. RestoreError: they cannot."""
        places = [_NAME.fullmatch(place.name) and _PLACE.fullmatch(place.value) for place in self.places]
        vcpus = [0 <= each < VCPUS_MAX for each in self.vcpus]
        if not (all(places) and all(vcpus) and len(places) <= PLACES_MAX and len(set(self.vcpus)) == len(vcpus)):
            raise RestoreError("the file is damaged: it says nonsense of its machine")

    def fact(self, name: str) -> str:
        """One of its facts; "" if it has none of the name."""
        return next((fact.value for fact in self.facts if fact.name == name), "")

    def check_same(self, other: SavedMachine) -> None:
        """Compares with the machine that shall go on from it. ConfigError: that is another one."""
        ours, theirs = ({fact.name: fact.value for fact in each.facts} for each in (self, other))
        for name in sorted(ours.keys() | theirs.keys()):
            was, is_ = ours.get(name, "none"), theirs.get(name, "none")
            if was != is_:
                what = f"the saved state is of a machine with {_shown(name)} {_shown(was)}, not {_shown(is_)}"
                raise ConfigError(what, key="path", hint="it goes on only in a machine that is the same")
        if sorted(self.vcpus) != sorted(other.vcpus) or set(self.places) != set(other.places):
            raise ConfigError("the saved state is of a machine with other devices or vCPUs", key="path")


class SavedState:
    """The file of a saved domain that a QEMU goes on from (`save_format`).

    :param fd: it; it stays the caller's.
    :raises RestoreError: it is damaged, or of a domain of another type. ConfigError.
    """

    def __init__(self, fd: int) -> None:
        self._reader = ImageReader(fd)
        self._reader.description()
        try:
            self.machine = from_json(SavedMachine, self._reader.machine(), MACH.decode())
        except (MessageError, RecursionError) as error:
            raise RestoreError(f"the file is damaged: {error}") from error
        self.machine.check()
        self.bytes = os.fstat(fd).st_size

    def stream(self) -> Iterator[bytes]:
        """What QEMU has said, piece by piece. RestoreError."""
        return self._reader.stream()

    def close(self) -> None:
        """The file is the caller's."""


async def describe(handle: Machine) -> SavedMachine:
    """The machine that a QEMU is now, with all that came and went since it was started. What QEMU says of it is
    bounded: it may be its guest's. QmpError, QmpGone, MessageError."""
    version = await handle.qmp.ask("query-version")
    program = f"{number(version, 'qemu', 'major')}.{number(version, 'qemu', 'minor')}"
    machine = await handle.qmp.ask("qom-get", {"path": "/machine", "property": "type"})
    facts = [("QEMU", program), ("machine", str(machine)[:_TEXT_MAX]), ("accelerator", handle.accelerator)]
    if handle.config is not None:
        facts += shape_of(handle.config)
    places = tuple(_places(await handle.qmp.ask("query-pci")))
    found = objects(await handle.qmp.ask("query-hotpluggable-cpus"), "places of vCPUs")[:VCPUS_MAX]
    vcpus = sorted(number(place, "props", "core-id") for place in found if "qom-path" in place)
    return SavedMachine(tuple(Fact(*fact) for fact in facts), places, tuple(vcpus))


def _places(buses: object) -> Iterator[Fact]:
    for bus in objects(buses, "PCI")[:1]:
        for device in objects(bus.get("devices", []), "PCI")[:PLACES_MAX]:
            name, slot, function = device.get("qdev_id"), number(device, "slot"), number(device, "function")
            if not name:
                continue  # the machine's own
            if not isinstance(name, str) or not _NAME.fullmatch(name) or slot > _SLOT_MAX or function > _FUNCTION_MAX:
                raise MessageError("QEMU's devices are not those that it was given")
            yield Fact(name, f"{slot:x}.{function:x}")


def shape_of(config: DomainConfig) -> list[tuple[str, str]]:
    """What a guest sees of a configuration."""
    hvm, flags = config.hvm, (("acpi", config.hvm.acpi), ("hpet", config.hvm.hpet), ("tablet", config.hvm.tablet))
    shape = [
        ("type", config.type.value),
        ("memory", f"{config.static_max_mib} MiB"),
        ("processor", config.cpu),
        ("vCPUs at most", str(config.vcpus_max)),
        ("firmware", "none" if config.kernel else hvm.firmware.value),
        ("screen", f"{hvm.vga.value}, {hvm.videoram_mib} MiB"),
        *((name, "on" if value else "off") for name, value in flags),
        *((f"channel {at}", spec.name) for at, spec in enumerate(config.channel_specs)),
    ]
    for disk in config.disk_specs:
        words = disk_device(disk, config, "")
        unit = "".join(f" {words[name]}" for name in ("bus", "unit") if name in words)
        shape.append((f"disk {disk.vdev}", f"{place_of(disk, config).value} {words['driver']}{unit}"))
    for vif in config.vif_specs:
        card = vif_device(vif, config)
        shape.append((f"interface {vif.devid}", f"{card['driver']} {card['mac']}"))
    return shape


def _shown(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_TEXT_MAX])


__all__ = ["Fact", "SavedMachine", "SavedState", "describe", "shape_of"]
