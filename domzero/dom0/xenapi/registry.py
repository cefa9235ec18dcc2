# SPDX-License-Identifier: Apache-2.0
"""All classes, and all messages by their full names."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from domzero.dom0.xenapi.classes.disks import VDI
from domzero.dom0.xenapi.classes.host import HOST, HOST_CPU, HOST_METRICS, POOL
from domzero.dom0.xenapi.classes.others import OTHERS
from domzero.dom0.xenapi.classes.pif import PIF, PIF_METRICS
from domzero.dom0.xenapi.classes.session import SESSION
from domzero.dom0.xenapi.classes.sr import PBD, SR
from domzero.dom0.xenapi.classes.subjects import ROLE, SUBJECT
from domzero.dom0.xenapi.classes.vbd import VBD
from domzero.dom0.xenapi.classes.vif import NETWORK, VIF
from domzero.dom0.xenapi.classes.vm import CONSOLE, VM, VM_GUEST_METRICS, VM_METRICS
from domzero.dom0.xenapi.classes.work import EVENT, MESSAGE, TASK, USER
from domzero.dom0.xenapi.journal import Audience, Snapshots
from domzero.dom0.xenapi.permissions import declare
from domzero.dom0.xenapi.table import Kind, Message
from domzero.dom0.xenapi.world import World

_ALL = (
    SESSION,
    POOL,
    HOST,
    HOST_METRICS,
    HOST_CPU,
    VM,
    VM_METRICS,
    VM_GUEST_METRICS,
    CONSOLE,
    VBD,
    VIF,
    NETWORK,
    PIF,
    PIF_METRICS,
    VDI,
    SR,
    PBD,
    TASK,
    EVENT,
    MESSAGE,
    ROLE,
    SUBJECT,
    USER,
    *OTHERS,
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
MESSAGES: dict[str, Message] = {f"{kind.name}.{each.name}": each for kind in _ALL for each in kind.messages()}
declare(MESSAGES)
TURN = 50
"""Objects that are looked at in one turn."""
_NO_EVENTS = ("session", "event", "user", "role")


def forget_what_is_gone(world: World) -> None:
    """Drops what clients have kept with objects that other doors have removed since."""
    world.fields.keep_only({identity for kind in _ALL for identity in kind.all(world)})


async def _in_turns(world: World, kind: Kind) -> dict[UUID, Any]:
    """All objects of a class with many fields, while others have their turns."""
    found = {}
    for number, (identity, it) in enumerate(kind.all(world).items()):
        found[identity] = kind.record(world, identity, it)
        if number % TURN == TURN - 1:
            await asyncio.sleep(0)
    return found


async def snapshots(world: World) -> Snapshots:
    """How all objects are now, by the names that events give their classes: in lower case."""
    found: Snapshots = {}
    for kind in _ALL:
        if kind.name in _NO_EVENTS or kind in OTHERS:
            continue
        volatile = {one.name for one in kind.fields if one.volatile}
        objects: dict[UUID, tuple[Any, Any, Audience]] = {}
        every = await _in_turns(world, kind) if kind is VM else kind.present(world)
        with world.still():
            those = kind.all(world)
            for identity, record in every.items():
                audience = kind.audience(world, those[identity]) if identity in those else ()
                seen_by = {name: value for name, value in record.items() if name not in volatile}
                objects[identity] = (seen_by, record, audience)
        found[kind.name.lower()] = objects
        await asyncio.sleep(0)  # others have their turn
    return found
