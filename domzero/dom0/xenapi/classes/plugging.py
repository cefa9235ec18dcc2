# SPDX-License-Identifier: Apache-2.0
"""Messages that VBD and VIF have in common: destroy, plug, unplug."""

from __future__ import annotations

from domzero.dom0.xenapi.classes.vm_changes import check_state
from domzero.dom0.xenapi.devices import Plugs, S
from domzero.dom0.xenapi.failure import Failure, not_allowed
from domzero.dom0.xenapi.objects import PAUSED, RUNNING
from domzero.dom0.xenapi.table import Found, Message, message
from domzero.dom0.xenapi.values import Ref, reference
from domzero.dom0.xenapi.world import Call


def plugging(kind: str, plugs: Plugs[S]) -> tuple[Message, ...]:
    """The messages of a class of devices."""

    async def destroy(call: Call, device: Found) -> None:
        if device.it.is_attached:
            raise not_allowed(f"{kind} '{device.identity}' still attached to '{device.it.vm.uuid}'")
        await plugs.remove(call, device.it)

    async def plug(call: Call, device: Found) -> None:
        if device.it.is_attached:
            raise Failure("DEVICE_ALREADY_ATTACHED", reference(device.identity))
        check_state(device.it.vm, RUNNING, PAUSED)
        await plugs.plug(call, device.it)

    async def unplug(call: Call, device: Found, *, force: bool = False) -> None:
        if not device.it.is_attached:
            raise Failure("DEVICE_ALREADY_DETACHED", reference(device.identity))
        await plugs.unplug(call, device.it, force=force)

    async def unplug_force(call: Call, device: Found) -> None:
        await unplug(call, device, force=True)

    itself = Ref(kind)
    return (
        message("destroy", destroy, self=itself),
        message("plug", plug, self=itself),
        message("unplug", unplug, self=itself),
        message("unplug_force", unplug_force, self=itself),
    )
