# SPDX-License-Identifier: Apache-2.0
"""VIF.qos_algorithm_*: `ratelimit` with `kbps` (1000 bytes a second) is the interface's rate; the rest is clients'."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from domzero.dom0.actions import SetVif
from domzero.dom0.vifrate import Rate
from domzero.dom0.vifspec import VifSpec, changed
from domzero.dom0.xenapi.devices import VIFS
from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.objects import Vif
from domzero.dom0.xenapi.world import Call, World

TYPE, PARAMS = "qos_algorithm_type", "qos_algorithm_params"
RATELIMIT, KBPS = "ratelimit", "kbps"


def with_rate(spec: VifSpec, kind: str, params: dict[str, str]) -> VifSpec:
    """An interface with the rate that these say. Failure."""
    return changed(spec, rate=_text(kind, params))


def _text(kind: str, params: dict[str, str]) -> str:
    number = params.get(KBPS, "")
    if kind != RATELIMIT or not number:
        return ""
    if not (number.isascii() and number.isdecimal() and len(number) <= 9 and int(number)):
        raise Failure("INVALID_VALUE", PARAMS, f"{KBPS} {number[:20]}: kilobytes a second")
    return f"{int(number)}KB/s"


def _kbps(rate: Rate) -> str:
    return str(max(1, rate.bytes * 1000 // rate.interval_us))


def type_of(world: World, vif: Vif) -> str:
    """VIF.qos_algorithm_type."""
    kept: str = world.fields.get(vif.id, TYPE, "")
    return kept if vif.spec.rate is None else RATELIMIT


def params_of(world: World, vif: Vif) -> dict[str, str]:
    """VIF.qos_algorithm_params."""
    kept = dict(world.fields.get(vif.id, PARAMS, {}))
    if vif.spec.rate is not None:
        kept[KBPS] = _kbps(vif.spec.rate)
    elif type_of(world, vif) == RATELIMIT:
        kept.pop(KBPS, None)  # it was taken off at another door
    return kept


async def put_type(call: Call, vif: Vif, value: str) -> None:
    """VIF.set_qos_algorithm_type."""
    await _put(call, vif, value, params_of(call.world, vif))


async def put_params(call: Call, vif: Vif, value: dict[str, str]) -> None:
    """VIF.set_qos_algorithm_params: counts at once, also while the guest has the interface."""
    await _put(call, vif, type_of(call.world, vif), value)


async def _put(call: Call, vif: Vif, kind: str, params: dict[str, str]) -> None:
    rate = _text(kind, params)
    spec = with_rate(vif.spec, kind, params)
    action = SetVif(domain=vif.vm.uuid, devid=vif.spec.devid, link=None, rate=rate)

    async def keep() -> None:
        remember(call.world, vif.id, kind, params)

    if spec == vif.spec:
        await call.do_instead(action, keep, vif.id)
        return
    if vif.loose:
        await VIFS.change(call, vif, replace(vif.spec, rate=spec.rate), action)
    else:
        await call.do(action)
    await keep()


def remember(world: World, identity: UUID, kind: Any, params: Any) -> None:
    """Keeps what was set with the interface."""
    world.fields.put(identity, TYPE, kind)
    world.fields.put(identity, PARAMS, params)
