# SPDX-License-Identifier: Apache-2.0
"""Objects of XenAPI's that Domain 0 has as parts of others: devices of domains, consoles, networks."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from domzero.dom0.diskspec import DiskSpec
from domzero.dom0.life import DomainState
from domzero.dom0.records import Record
from domzero.dom0.vifspec import USER, VifSpec
from domzero.dom0.xenapi.world import NAMESPACE, World, derived

HALTED, PAUSED, RUNNING = "Halted", "Paused", "Running"


@dataclass(frozen=True)
class Vbd:
    """A disk of a domain's."""

    vm: Record
    spec: DiskSpec

    @property
    def id(self) -> UUID:
        """Its identity: it is the same as long as the domain has a disk of this number."""
        return derived(self.vm.uuid, f"vbd:{self.spec.devid}")


@dataclass(frozen=True)
class Vif:
    """A network interface of a domain's."""

    vm: Record
    spec: VifSpec

    @property
    def id(self) -> UUID:
        """As of a disk."""
        return derived(self.vm.uuid, f"vif:{self.spec.devid}")


@dataclass(frozen=True)
class Console:
    """A console of a domain's."""

    vm: Record
    protocol: str

    @property
    def id(self) -> UUID:
        """Its identity."""
        return console_id(self.vm)


def power_state(record: Record) -> str:
    """In XenAPI's word."""
    if record.state is DomainState.PAUSED:
        return PAUSED
    return HALTED if record.ended or record.domid is None else RUNNING


def metrics_id(record: Record) -> UUID:
    """Of its VM_metrics."""
    return derived(record.uuid, "metrics")


def guest_metrics_id(record: Record) -> UUID:
    """Of its VM_guest_metrics."""
    return derived(record.uuid, "guest metrics")


def console_id(record: Record) -> UUID:
    """Of its console."""
    return derived(record.uuid, "console:vt100")


def vbds_of(record: Record) -> list[Vbd]:
    """A domain's disks."""
    return [Vbd(record, spec) for spec in record.config.disk_specs]


def vifs_of(record: Record) -> list[Vif]:
    """A domain's network interfaces."""
    return [Vif(record, spec) for spec in record.config.vif_specs]


def vbds(world: World) -> dict[UUID, Vbd]:
    """All disks of domains."""
    return {vbd.id: vbd for record in world.manager.all(halted=True) for vbd in vbds_of(record)}


def vifs(world: World) -> dict[UUID, Vif]:
    """All network interfaces of domains."""
    return {vif.id: vif for record in world.manager.all(halted=True) for vif in vifs_of(record)}


def consoles(world: World) -> dict[UUID, Console]:
    """The consoles of domains that run."""
    running = [record for record in world.manager.all() if power_state(record) != HALTED]
    return {console_id(record): Console(record, "vt100") for record in running}


def network_id(name: str) -> UUID:
    """Of a network, by its name in Domain 0."""
    return derived(NAMESPACE, f"network:{name}")


def network_of(spec: VifSpec) -> str:
    """The name of the network that an interface is on."""
    return spec.network or USER


def networks(world: World) -> dict[UUID, str]:
    """The networks that there are: to the outside, and those that interfaces name."""
    names = {USER, *(network_of(spec) for record in world.manager.all(halted=True) for spec in record.config.vif_specs)}
    return {network_id(name): name for name in sorted(names)}
