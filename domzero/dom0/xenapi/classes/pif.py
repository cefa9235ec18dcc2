# SPDX-License-Identifier: Apache-2.0
"""PIF: the host's interfaces by which networks leave it. Domain 0 looks at them, and sets nothing of them."""

from __future__ import annotations

import time
from uuid import UUID

from domzero.dom0 import uplinks
from domzero.dom0.uplinks import Uplink
from domzero.dom0.vifspec import USER
from domzero.dom0.xenapi import objects
from domzero.dom0.xenapi.table import Found, Kind, Message, kept, message, ro
from domzero.dom0.xenapi.values import BOOL, DATETIME, FLOAT, INT, STRING, STRING_MAP, STRINGS, Enum, Ref, Set
from domzero.dom0.xenapi.world import Call, World, derived

NO_VLAN = -1
_SELF = Ref("PIF")


def pif_id(world: World, link: Uplink) -> UUID:
    """Of an interface of the host in a network."""
    return derived(world.host, f"pif:{link.network}:{link.name}")


def metrics_id(world: World, link: Uplink) -> UUID:
    """Of its PIF_metrics."""
    return derived(pif_id(world, link), "metrics")


def pifs(world: World) -> dict[UUID, Uplink]:
    """All of them; a network of Domain 0's own has none."""

    def look() -> dict[UUID, Uplink]:
        names = {network.name for network in objects.networks(world).values()} - {USER}
        return {pif_id(world, link): link for link in uplinks.uplinks(sorted(names))}

    return world.once("pifs", look)


def pifs_of(world: World, name: str) -> list[UUID]:
    """Those of a network, by its name in Domain 0."""
    return [identity for identity, link in pifs(world).items() if link.network == name]


def management_pif(world: World) -> UUID | None:
    """That of the host's default route."""
    return next(iter(pifs_of(world, USER)), None)


def _metrics(world: World) -> dict[UUID, Uplink]:
    return {metrics_id(world, link): link for link in pifs(world).values()}


async def _scan(call: Call, host: Found) -> None:
    """PIF.scan: the host's interfaces are looked at whenever somebody asks."""


PIF = Kind(
    "PIF",
    (
        ro("uuid", STRING, lambda w, it: pif_id(w, it)),
        ro("device", STRING, lambda w, it: it.name),
        ro("network", Ref("network"), lambda w, it: objects.network_id(it.network)),
        ro("host", Ref("host"), lambda w, it: w.host),
        ro("MAC", STRING, lambda w, it: it.mac),
        ro("MTU", INT, lambda w, it: it.mtu),
        ro("VLAN", INT, default=NO_VLAN),
        ro("metrics", Ref("PIF_metrics"), lambda w, it: metrics_id(w, it)),
        ro("physical", BOOL, lambda w, it: it.is_physical),
        ro("currently_attached", BOOL, lambda w, it: it.is_up),
        ro("ip_configuration_mode", Enum("enum ip_configuration_mode"), default="None"),
        ro("IP", STRING, lambda w, it: it.ip),
        ro("netmask", STRING, lambda w, it: it.netmask),
        ro("gateway", STRING, lambda w, it: it.gateway),
        ro("DNS", STRING, default=""),
        ro("bond_slave_of", Ref("Bond")),
        ro("bond_master_of", Set(Ref("Bond")), default=[]),
        ro("VLAN_master_of", Ref("VLAN")),
        ro("VLAN_slave_of", Set(Ref("VLAN")), default=[]),
        ro("management", BOOL, lambda w, it: it.network == USER),
        kept("other_config"),
        ro("disallow_unplug", BOOL, default=True),
        ro("tunnel_access_PIF_of", Set(Ref("tunnel")), default=[]),
        ro("tunnel_transport_PIF_of", Set(Ref("tunnel")), default=[]),
        ro("ipv6_configuration_mode", Enum("enum ipv6_configuration_mode"), default="None"),
        ro("IPv6", STRINGS, default=[]),
        ro("ipv6_gateway", STRING, default=""),
        ro("primary_address_type", Enum("enum primary_address_type"), default="IPv4"),
        ro("managed", BOOL, default=False),
        ro("properties", STRING_MAP, default={}),
        ro("capabilities", STRINGS, default=[]),
        ro("igmp_snooping_status", Enum("enum pif_igmp_status"), default="unknown"),
        ro("sriov_physical_PIF_of", Set(Ref("network_sriov")), default=[]),
        ro("sriov_logical_PIF_of", Set(Ref("network_sriov")), default=[]),
        ro("PCI", Ref("PCI")),
    ),
    pifs,
    explicit=(
        message("scan", _scan, host=Ref("host")),
        *(
            Message(name, (("self", _SELF),), STRING, None)
            for name in (
                "create_VLAN", "destroy", "reconfigure_ip", "reconfigure_ipv6", "set_primary_address_type",
                "introduce", "forget", "unplug", "plug", "set_disallow_unplug", "set_property", "db_introduce",
                "db_forget",
            )
        ),
    ),
)  # fmt: skip

PIF_METRICS = Kind(
    "PIF_metrics",
    (
        ro("uuid", STRING, lambda w, it: metrics_id(w, it)),
        ro("io_read_kbs", FLOAT, default=0.0),
        ro("io_write_kbs", FLOAT, default=0.0),
        ro("carrier", BOOL, lambda w, it: it.has_carrier),
        ro("vendor_id", STRING, default=""),
        ro("vendor_name", STRING, default=""),
        ro("device_id", STRING, default=""),
        ro("device_name", STRING, default=""),
        ro("speed", INT, lambda w, it: it.speed),
        ro("duplex", BOOL, lambda w, it: it.is_full_duplex),
        ro("pci_bus_path", STRING, default=""),
        ro("last_updated", DATETIME, lambda w, it: time.time(), volatile=True),
        kept("other_config"),
    ),
    _metrics,
)
