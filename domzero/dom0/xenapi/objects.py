# SPDX-License-Identifier: Apache-2.0
"""Objects of XenAPI's that Domain 0 has as parts of others: devices of domains, consoles, networks.

XenAPI's domains may have devices that are not plugged in. They are kept among the fields of their domain, and go into
its configuration when they are plugged in, or when it starts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Generic, TypeVar
from uuid import UUID, uuid4

from domzero.dom0.config import Action
from domzero.dom0.diskspec import DiskSpec, parse_disk, parse_disks
from domzero.dom0.life import DomainState
from domzero.dom0.records import Record
from domzero.dom0.vifspec import USER, VifSpec, parse_vif, parse_vifs
from domzero.dom0.xenapi.world import NAMESPACE, World, derived
from domzero.errors import ConfigError

HALTED, PAUSED, RUNNING, SUSPENDED = "Halted", "Paused", "Running", "Suspended"
TEXT, SCREEN = "vt100", "rfb"
"""Protocols of consoles."""
LOOSE_DISKS, LOOSE_VIFS = "loose disks", "loose interfaces"
"""Names that no field of XAPI's has."""


S = TypeVar("S", bound=DiskSpec | VifSpec)


@dataclass(frozen=True)
class Device(Generic[S]):
    """A disk or a network interface of a domain's.

    `kind` is its class.

    :param loose: it is not in the domain's configuration.
    """

    kind: ClassVar[str]
    vm: Record
    spec: S
    loose: bool = False

    @property
    def id(self) -> UUID:
        """Its identity: it is the same as long as the domain has one of this class with this number."""
        return derived(self.vm.uuid, f"{self.kind.lower()}:{self.spec.devid}")

    @property
    def is_attached(self) -> bool:
        """Whether its guest has it now."""
        return not self.loose and power_state(self.vm) != HALTED


class Vbd(Device[DiskSpec]):
    """A disk of a domain's."""

    kind = "VBD"


class Vif(Device[VifSpec]):
    """A network interface of a domain's."""

    kind = "VIF"


@dataclass(frozen=True)
class Console:
    """A console of a domain's."""

    vm: Record
    protocol: str

    @property
    def id(self) -> UUID:
        """Its identity."""
        return console_id(self.vm, self.protocol)


@dataclass(frozen=True)
class Network:
    """A network.

    :param name: of its switch, as a `bridge` of an interface's specification.
    :param is_kept: it is there without interfaces, too.
    """

    name: str
    label: str
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    is_kept: bool = False

    @property
    def id(self) -> UUID:
        """Its identity."""
        return network_id(self.name)


def power_state(record: Record) -> str:
    """In XenAPI's word. One that is about to start again runs, as for XAPI a reboot is no halt."""
    if record.state is DomainState.PAUSED:
        return PAUSED
    if record.state is DomainState.SUSPENDED:
        return SUSPENDED
    following = record.following
    if following is not None and following.action is Action.RESTART and not (record.ending or record.gone):
        return RUNNING
    return HALTED if record.ended or record.domid is None else RUNNING


def is_there(record: Record) -> bool:
    """Whether it has a domain now: it is neither halted nor suspended."""
    return power_state(record) not in (HALTED, SUSPENDED)


def metrics_id(record: Record) -> UUID:
    """Of its VM_metrics."""
    return derived(record.uuid, "metrics")


def guest_metrics_id(record: Record) -> UUID:
    """Of its VM_guest_metrics."""
    return derived(record.uuid, "guest metrics")


def console_id(record: Record, protocol: str = TEXT) -> UUID:
    """Of its console, or its screen."""
    return derived(record.uuid, f"console:{protocol}")


def consoles_of(record: Record) -> list[Console]:
    """A domain's, while it runs: its screen first, as clients take the first that they understand."""
    if not is_there(record):
        return []
    protocols = (SCREEN, TEXT) if record.config.has_screen else (TEXT,)
    return [Console(record, protocol) for protocol in protocols]


@lru_cache(4096)
def _disks(texts: tuple[str, ...]) -> tuple[DiskSpec, ...]:
    return tuple(found for found in parse_disks(list(texts)) if isinstance(found, DiskSpec))


@lru_cache(4096)
def _vifs(texts: tuple[str, ...]) -> tuple[VifSpec, ...]:
    return tuple(found for found in parse_vifs(list(texts)) if isinstance(found, VifSpec))


def vbds_of(world: World, record: Record) -> list[Vbd]:
    """A domain's disks."""
    plugged = list(_disks(tuple(record.config.disks)))
    loose = _loose(world, LOOSE_DISKS, record, parse_disk, plugged)
    return [*(Vbd(record, spec) for spec in plugged), *(Vbd(record, spec, loose=True) for spec in loose)]


def vifs_of(world: World, record: Record) -> list[Vif]:
    """A domain's network interfaces."""
    plugged = list(_vifs(tuple(record.config.vifs)))
    loose = _loose(world, LOOSE_VIFS, record, parse_vif, plugged)
    return [*(Vif(record, spec) for spec in plugged), *(Vif(record, spec, loose=True) for spec in loose)]


def _loose(world: World, name: str, record: Record, parse: Callable[[str], S], plugged: list[S]) -> Iterator[S]:
    """What is kept under this name of a domain's devices; one whose number another has by now is left out."""
    taken = {spec.devid for spec in plugged}
    for text in world.fields.get(record.uuid, name, []):
        with suppress(ConfigError):
            if (spec := parse(text)).devid not in taken:
                yield spec


def domains(world: World) -> Iterator[Record]:
    """All domains but Domain 0."""
    return (record for record in world.records().values() if record is not world.control_domain)


def vbds(world: World) -> dict[UUID, Vbd]:
    """All disks of domains."""
    return world.once("vbds", lambda: {vbd.id: vbd for record in domains(world) for vbd in vbds_of(world, record)})


def vifs(world: World) -> dict[UUID, Vif]:
    """All network interfaces of domains."""
    return world.once("vifs", lambda: {vif.id: vif for record in domains(world) for vif in vifs_of(world, record)})


def consoles(world: World) -> dict[UUID, Console]:
    """The consoles and screens of domains that run."""
    return {console.id: console for record in domains(world) for console in consoles_of(record)}


def network_id(name: str) -> UUID:
    """Of a network, by its name in Domain 0."""
    return derived(NAMESPACE, f"network:{name}")


def networks(world: World) -> dict[UUID, Network]:
    """The networks that there are: to the outside, those that were made, and those that interfaces name."""
    found = {USER: Network(USER, "Outside, as the user who runs Domain 0")}
    for row in world.manager.database.rows("SELECT * FROM networks ORDER BY created_at, name"):
        name = row["name"]
        found[name] = Network(name, row["label"] or name, row["description"], json.loads(row["labels"]), is_kept=True)
    for vif in vifs(world).values():
        name = vif.spec.network
        found.setdefault(name, Network(name, name))
    return {network.id: network for network in found.values()}


def save_network(world: World, network: Network) -> None:
    """Keeps a network, or what has changed of it."""
    with world.manager.database.write() as cursor:
        cursor.execute(
            "INSERT INTO networks (uuid, name, label, description, labels, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
            "label = excluded.label, description = excluded.description, labels = excluded.labels",
            (
                str(network.id),
                network.name,
                network.label,
                network.description,
                json.dumps(network.labels),
                time.time(),
            ),
        )
    world.manager.events.note("network", network.id)


def free_network_name(world: World) -> str:
    """A name that no network has."""
    taken = {network.name for network in networks(world).values()}
    return next((name for number in range(10_000) if (name := f"net{number}") not in taken), f"net{uuid4().hex[:8]}")


def forget_network(world: World, network: Network) -> None:
    """Does not keep it any more."""
    with world.manager.database.write() as cursor:
        cursor.execute("DELETE FROM networks WHERE name = ?", (network.name,))
    world.manager.events.note("network", network.id)
