# SPDX-License-Identifier: Apache-2.0
"""VIF: network interfaces of domains; network."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from domzero.dom0.actions import RedefineDomain
from domzero.dom0.actors import Role
from domzero.dom0.vifspec import ADDRESSES_MAX, MTU_MAX, MTU_MIN, USER, VifSpec, mac_text, parse_vif
from domzero.dom0.xenapi import objects
from domzero.dom0.xenapi.classes import vif_rate
from domzero.dom0.xenapi.classes.pif import pifs_of
from domzero.dom0.xenapi.classes.plugging import plugging
from domzero.dom0.xenapi.classes.vm_changes import domain_to_change
from domzero.dom0.xenapi.construct import Given, keep
from domzero.dom0.xenapi.devices import VIFS
from domzero.dom0.xenapi.failure import Failure, handle_invalid, not_allowed
from domzero.dom0.xenapi.objects import HALTED, Network, Vif, power_state, vifs_of
from domzero.dom0.xenapi.table import Found, Kind, kept, message, ro, rw
from domzero.dom0.xenapi.values import BOOL, INT, STRING, STRING_MAP, STRINGS, Enum, Map, Record, Ref, Set, reference
from domzero.dom0.xenapi.world import Call, World
from domzero.errors import ConfigError

LOCKING = Enum("enum vif_locking_mode", ("network_default", "locked", "unlocked", "disabled"))
_SELF = Ref("VIF")
_NETWORK = Ref("network")


def _operations(world: World, vif: Vif) -> list[str]:
    if vif.is_attached:
        return ["unplug", "unplug_force"]
    return ["attach"] if power_state(vif.vm) == HALTED else ["plug", "attach"]


async def _create(call: Call, values: dict[str, Any]) -> UUID:
    """VIF.create."""
    given, world = Given(values), call.world
    vm = domain_to_change(call, given.need("VM", Ref("VM")))
    chosen = given.need("network", _NETWORK)
    network = objects.networks(world).get(chosen)
    if network is None:
        raise handle_invalid("network", reference(chosen))
    taken = {vif.spec.devid for vif in vifs_of(world, vm)}
    device = given.get("device", STRING, "autodetect")
    if device in ("autodetect", ""):
        device = next(str(number) for number in range(len(taken) + 1) if number not in taken)
    if not re.fullmatch("[0-9]{1,2}", device):
        raise Failure("INVALID_DEVICE", device)
    if int(device) in taken:
        raise Failure("DEVICE_ALREADY_EXISTS", device)
    mac, mtu = given.get("MAC", STRING, ""), given.get("MTU", INT, 0)
    words = [f"devid={device}", f"bridge={network.name}", *([f"mac={mac}"] if mac else [])]
    if mtu and mtu != 1500:
        if not MTU_MIN <= mtu <= MTU_MAX:
            raise Failure("INVALID_VALUE", "MTU", f"{mtu}: {MTU_MIN} to {MTU_MAX}")
        words.append(f"mtu={mtu}")
    if "," in mac:
        raise Failure("MAC_INVALID", mac)
    try:
        spec = _locked(parse_vif(",".join(words)), given.get("locking_mode", LOCKING, "network_default"))
    except ConfigError as error:
        raise Failure("MAC_INVALID", mac) if mac else error from error
    own, qos = given.kept(VIF_FIELDS), given.get(vif_rate.TYPE, STRING, "")
    params = given.get(vif_rate.PARAMS, STRING_MAP, {})
    spec = vif_rate.with_rate(spec, qos, params)
    identity = Vif(vm, spec).id
    await VIFS.add(call, vm, spec, identity)
    keep(world, identity, own)
    if qos or params:
        vif_rate.remember(world, identity, qos, params)
    return identity


def _locked(spec: VifSpec, mode: str) -> VifSpec:
    """With a locking mode: whether the network drops what does not come from it, and whether anything passes."""
    if spec.network == USER:
        return replace(spec, is_up=mode != "disabled")
    return replace(spec, antispoof=mode in ("locked", "network_default"), is_up=mode != "disabled")


def _locking_mode(world: World, vif: Vif) -> str:
    if not vif.spec.is_up:
        return "disabled"
    if vif.spec.network == USER:
        return "network_default"
    return "locked" if vif.spec.antispoof else "unlocked"


async def _redefine(call: Call, vif: Vif, spec: VifSpec) -> None:
    """Gives an interface that its guest does not have another specification."""
    if vif.is_attached:
        raise not_allowed("the interface is attached: unplug it first")
    if vif.loose:
        await VIFS.change(call, vif, spec)
    else:
        config = replace(vif.vm.config, vifs=list(vif.vm.config.vifs))
        config.put_vif(spec.devid, spec)
        action = RedefineDomain(domain=vif.vm.uuid, config=config, about=vif.vm.about, startable=False)
        await call.do(action)


async def _set_locking_mode(call: Call, vif: Found, mode: str) -> None:
    """VIF.set_locking_mode."""
    await _redefine(call, vif.it, _locked(vif.it.spec, mode))


async def _move(call: Call, vif: Found, network: Found) -> None:
    """VIF.move: to another network."""
    await _redefine(call, vif.it, replace(vif.it.spec, network=network.it.name, antispoof=True))


async def _set_addresses(call: Call, vif: Found, version: int, texts: list[str]) -> None:
    others = [ip for ip in vif.it.spec.ip if ip.version != version]
    try:
        wanted = [ip_address(text) for text in texts]
    except ValueError as error:
        raise Failure("INVALID_VALUE", f"ipv{version}_allowed", str(error)) from error
    if any(ip.version != version for ip in wanted) or len(wanted) + len(others) > ADDRESSES_MAX:
        raise Failure("INVALID_VALUE", f"ipv{version}_allowed", f"at most {ADDRESSES_MAX} addresses of IPv{version}")
    await _redefine(call, vif.it, replace(vif.it.spec, ip=(*others, *wanted)))


async def _set_ipv4_allowed(call: Call, vif: Found, texts: list[str]) -> None:
    """VIF.set_ipv4_allowed."""
    await _set_addresses(call, vif, 4, texts)


async def _set_ipv6_allowed(call: Call, vif: Found, texts: list[str]) -> None:
    """VIF.set_ipv6_allowed."""
    await _set_addresses(call, vif, 6, texts)


VIF_FIELDS = (
    ro("uuid", STRING, lambda w, it: it.id),
    ro("allowed_operations", Set(Enum("enum vif_operations")), _operations),
    ro("current_operations", Map(STRING, Enum("enum vif_operations")), default={}),
    ro("device", STRING, lambda w, it: it.spec.devid),
    ro("network", _NETWORK, lambda w, it: objects.network_id(it.spec.network)),
    ro("VM", Ref("VM"), lambda w, it: it.vm.uuid),
    ro("MAC", STRING, lambda w, it: mac_text(it.spec.mac_of(it.vm.uuid))),
    ro("MTU", INT, lambda w, it: it.spec.effective_mtu),
    kept("other_config"),
    ro("currently_attached", BOOL, lambda w, it: it.is_attached),
    ro("status_code", INT, default=0),
    ro("status_detail", STRING, default=""),
    ro("runtime_properties", STRING_MAP, default={}),
    rw(vif_rate.TYPE, STRING, vif_rate.type_of, vif_rate.put_type),
    rw(vif_rate.PARAMS, STRING_MAP, vif_rate.params_of, vif_rate.put_params),
    ro("qos_supported_algorithms", STRINGS, default=[]),
    ro("metrics", Ref("VIF_metrics")),
    ro("MAC_autogenerated", BOOL, lambda w, it: it.spec.mac is None),
    ro("locking_mode", LOCKING, _locking_mode),
    ro("ipv4_allowed", STRINGS, lambda w, it: [str(ip) for ip in it.spec.ip if ip.version == 4]),
    ro("ipv6_allowed", STRINGS, lambda w, it: [str(ip) for ip in it.spec.ip if ip.version == 6]),
    ro("ipv4_configuration_mode", Enum("enum vif_ipv4_configuration_mode"), default="None"),
    ro("ipv4_addresses", STRINGS, default=[]),
    ro("ipv4_gateway", STRING, default=""),
    ro("ipv6_configuration_mode", Enum("enum vif_ipv6_configuration_mode"), default="None"),
    ro("ipv6_addresses", STRINGS, default=[]),
    ro("ipv6_gateway", STRING, default=""),
    ro("reserved_pci", Ref("PCI")),
)

VIF = Kind(
    "VIF",
    VIF_FIELDS,
    objects.vifs,
    role=Role.VM_ADMIN,
    explicit=(
        message("create", _create, _SELF, open=True, args=Record("VIF")),
        *plugging("VIF", VIFS),
        message("set_locking_mode", _set_locking_mode, self=_SELF, value=LOCKING),
        message("move", _move, self=_SELF, network=_NETWORK),
        message("set_ipv4_allowed", _set_ipv4_allowed, self=_SELF, value=STRINGS),
        message("set_ipv6_allowed", _set_ipv6_allowed, self=_SELF, value=STRINGS),
        *(
            message(name, None, self=_SELF)
            for name in (
                "add_ipv4_allowed", "remove_ipv4_allowed", "add_ipv6_allowed", "remove_ipv6_allowed", "configure_ipv4",
                "configure_ipv6",
            )
        ),
    ),
)  # fmt: skip


async def _create_network(call: Call, values: dict[str, Any]) -> UUID:
    """network.create: one of domains' own, that is there when an interface is on it."""
    given, world = Given(values), call.world
    name = given.get("bridge", STRING, "") or objects.free_network_name(world)
    parse_vif(f"bridge={name.replace(',', ' ')}")
    if any(network.name == name for network in objects.networks(world).values() if network.is_kept or name == USER):
        raise Failure("BRIDGE_NAME_EXISTS", name)
    label, description = given.need("name_label", STRING), given.get("name_description", STRING, "")
    network = Network(name, label[:1000], description[:4096], given.get("other_config", STRING_MAP, {}), is_kept=True)
    own = given.kept(NETWORK_FIELDS)
    objects.save_network(world, network)
    keep(world, network.id, own)
    return network.id


async def _destroy_network(call: Call, network: Found) -> None:
    """network.destroy."""
    if not network.it.is_kept:
        raise not_allowed("it is there as long as interfaces are on it")
    if used := _vifs_on(call.world, network.it):
        raise Failure("NETWORK_CONTAINS_VIF", *(reference(each) for each in used))
    objects.forget_network(call.world, network.it)
    call.world.fields.forget(network.identity)


def _put_network(name: str) -> Any:
    async def put(call: Call, network: Network, value: Any) -> None:
        objects.save_network(call.world, replace(network, **{name: value}))

    return put


def _vifs_on(world: World, network: Network) -> list[UUID]:
    return [vif.id for vif in objects.vifs(world).values() if vif.spec.network == network.name]


NETWORK_FIELDS = (
    ro("uuid", STRING, lambda w, it: it.id),
    rw("name_label", STRING, lambda w, it: it.label, _put_network("label"), role=Role.POOL_OPERATOR),
    rw("name_description", STRING, lambda w, it: it.description, _put_network("description"), role=Role.POOL_OPERATOR),
    ro("allowed_operations", Set(Enum("enum network_operations")), default=["attaching"]),
    ro("current_operations", Map(STRING, Enum("enum network_operations")), default={}),
    ro("VIFs", Set(Ref("VIF")), _vifs_on),
    ro("PIFs", Set(Ref("PIF")), lambda w, it: pifs_of(w, it.name)),
    rw("MTU", INT, lambda w, it: MTU_MAX if it.name == USER else 1500, None),
    rw("other_config", STRING_MAP, lambda w, it: it.labels, _put_network("labels"), role=Role.POOL_OPERATOR),
    ro("bridge", STRING, lambda w, it: it.name),
    ro("managed", BOOL, default=True),
    ro("blobs", Map(STRING, Ref("blob")), default={}),
    kept("tags", STRINGS),
    ro("default_locking_mode", Enum("enum network_default_locking_mode"), default="unlocked"),
    ro("assigned_ips", Map(Ref("VIF"), STRING), default={}),
    ro("purpose", Set(Enum("enum network_purpose")), default=[]),
)

NETWORK = Kind(
    "network",
    NETWORK_FIELDS,
    objects.networks,
    audience=lambda w, it: [vif.vm.uuid for vif in objects.vifs(w).values() if vif.spec.network == it.name],
    explicit=(
        message("create", _create_network, _NETWORK, role=Role.POOL_OPERATOR, args=Record("network")),
        message("destroy", _destroy_network, role=Role.POOL_OPERATOR, self=_NETWORK),
        *(
            message(name, None, network=_NETWORK)
            for name in ("set_default_locking_mode", "create_new_blob", "add_purpose", "remove_purpose",
                         "attach_for_vm", "detach_for_vm")
        ),
    ),
)  # fmt: skip
