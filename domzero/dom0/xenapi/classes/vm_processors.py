# SPDX-License-Identifier: Apache-2.0
"""VM.VCPUs_params: of its keys weight, cap and mask are the domain's; what else clients keep there means nothing."""

from __future__ import annotations

from typing import Any

from domzero.dom0.actions import ChangeDomain, PinVcpu
from domzero.dom0.changes import Changes
from domzero.dom0.config import CAP_MAX, WEIGHT, WEIGHT_MAX
from domzero.dom0.cpuspec import parse_cpus
from domzero.dom0.records import Record
from domzero.dom0.xenapi.classes.vm_changes import check_domain, edit
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.objects import HALTED, power_state
from domzero.dom0.xenapi.table import Found
from domzero.dom0.xenapi.world import Call, World

PARAMS = "VCPUs_params"
_OURS = ("weight", "cap", "mask")


def settings(params: dict[str, str], vcpus: int) -> dict[str, Any]:
    """The fields of a configuration that these parameters say; what they leave out has its default. Failure."""
    mask = params.get("mask", "")
    if mask:
        parse_cpus(mask)
    return {
        "cpu_weight": _number(params, "weight", WEIGHT, 1, WEIGHT_MAX),
        "cap": _number(params, "cap", 0, 0, CAP_MAX),
        "cpus": [mask] * vcpus if mask else [],
    }


def _number(params: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and least <= int(text) <= most):
        raise Failure("INVALID_VALUE", PARAMS, f"{name} {text[:20]}: {least} to {most}")
    return int(text)


def params_of(world: World, vm: Record) -> dict[str, str]:
    """VM.VCPUs_params: what differs from the default, and what clients keep there."""
    kept: dict[str, str] = world.fields.get(vm.uuid, PARAMS, {})
    found = {key: value for key, value in kept.items() if key not in _OURS}
    config = vm.config
    if config.cpu_weight != WEIGHT:
        found["weight"] = str(config.cpu_weight)
    if config.cap:
        found["cap"] = str(config.cap)
    if config.cpus:
        found["mask"] = config.cpus[0]
    return found


async def put_params(call: Call, vm: Record, value: dict[str, str]) -> None:
    """VM.set_VCPUs_params: counts at once, of a domain that runs, too."""
    check_domain(call, vm)
    wanted = settings(value, vm.config.vcpus_max)
    changed = {name: each for name, each in wanted.items() if each != getattr(vm.config, name)}

    async def keep() -> None:
        call.world.fields.put(vm.uuid, PARAMS, {key: text for key, text in value.items() if key not in _OURS})

    if not changed:
        await call.do_instead(ChangeDomain(domain=vm.uuid), keep, vm.uuid)
        return
    if power_state(vm) == HALTED:
        await edit(call, vm, **changed)
    else:
        if (cpus := changed.pop("cpus", None)) is not None:
            mask = parse_cpus(cpus[0] if cpus else "all")
            await call.do(PinVcpu(domain=vm.uuid, vcpu=None, cpus=mask))
        if changed:
            await call.do(ChangeDomain(domain=vm.uuid, changes=Changes(**changed)))
    await keep()


async def add_live(call: Call, vm: Found, key: str, value: str) -> None:
    """VM.add_to_VCPUs_params_live."""
    await put_params(call, vm.it, params_of(call.world, vm.it) | {key: value})
