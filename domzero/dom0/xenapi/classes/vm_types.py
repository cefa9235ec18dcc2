# SPDX-License-Identifier: Apache-2.0
"""What kind of domain a VM is (PV, PVH, HVM), and what starts one that is HVM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from domzero.dom0.actions import ChangeDomain
from domzero.dom0.hvmspec import DomainType, Firmware, HvmOptions
from domzero.dom0.records import Record
from domzero.dom0.xenapi.classes.vm_changes import check_domain, edit
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.table import Found
from domzero.dom0.xenapi.values import Enum
from domzero.dom0.xenapi.world import Call, World

DOMAIN_TYPE = Enum("enum domain_type", ("hvm", "pv", "pvh", "pv_in_pvh", "unspecified"))
BOOT_PARAMS = "HVM_boot_params"
BIOS_ORDER = "BIOS order"
"""The one boot policy that XAPI knows."""
_TYPES = {"hvm": DomainType.HVM, "pvh": DomainType.PVH, "pv": DomainType.PV, "pv_in_pvh": DomainType.PV}


def type_of(word: str, policy: str) -> DomainType:
    """The type that a client asks for: what it leaves open its boot policy says, as it was before there were types."""
    return _TYPES.get(word, DomainType.HVM if policy else DomainType.PV)


def options_of(params: dict[str, str], now: HvmOptions | None = None) -> HvmOptions:
    """What boot parameters say of an HVM domain. Failure."""
    now = now or HvmOptions()
    firmware = params.get("firmware", now.firmware.value)
    if firmware not in [each.value for each in Firmware]:
        raise Failure("INVALID_VALUE", BOOT_PARAMS, f"firmware {firmware[:20]}: bios or uefi")
    return replace(now, boot=params.get("order") or now.boot, firmware=Firmware(firmware))


def boot_policy(vm: Record) -> str:
    """VM.HVM_boot_policy."""
    return BIOS_ORDER if vm.config.type is DomainType.HVM else ""


def boot_params(world: World, vm: Record) -> dict[str, str]:
    """VM.HVM_boot_params: what clients keep there, and of an HVM domain what it starts with."""
    kept: dict[str, str] = world.fields.get(vm.uuid, BOOT_PARAMS, {})
    if vm.config.type is not DomainType.HVM:
        return kept
    return kept | {"order": vm.config.hvm.boot, "firmware": vm.config.hvm.firmware.value}


async def put_boot_params(call: Call, vm: Record, value: Any) -> None:
    """VM.set_HVM_boot_params: of a halted domain, if it is HVM."""
    check_domain(call, vm)

    async def keep() -> None:
        call.world.fields.put(vm.uuid, BOOT_PARAMS, value)

    options = options_of(value, vm.config.hvm)
    if vm.config.type is DomainType.HVM and options != vm.config.hvm:
        await edit(call, vm, hvm=options)
        await keep()
    else:
        await call.do_instead(ChangeDomain(domain=vm.uuid), keep, vm.uuid)


async def set_domain_type(call: Call, vm: Found, value: str) -> None:
    """VM.set_domain_type, of a halted one."""
    await edit(call, vm.it, type=type_of(value, boot_policy(vm.it)))


async def set_boot_policy(call: Call, vm: Found, value: str) -> None:
    """VM.set_HVM_boot_policy, of a halted one: any makes it HVM, none PV."""
    await edit(call, vm.it, type=type_of("unspecified", value))
