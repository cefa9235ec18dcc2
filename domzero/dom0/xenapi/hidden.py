# SPDX-License-Identifier: Apache-2.0
"""What somebody without a role is not told of objects that they may look at: references to those that they may not."""

from __future__ import annotations

from typing import Any

from domzero.dom0.actors import Actor, Role
from domzero.dom0.xenapi.registry import KINDS
from domzero.dom0.xenapi.table import Written
from domzero.dom0.xenapi.values import NULL, Map, Record, Ref, Set, Type, identity_of
from domzero.dom0.xenapi.world import Call, World

_BY_EVENTS_NAME = {name.lower(): name for name in KINDS}


def without_hidden(call: Call, type: Type, value: Any) -> Any:
    """A message's value as who sends it may have it: a hidden reference is none."""
    if call.session is None:
        return value
    actor = call.world.services.users.again(call.session.actor)
    if actor is None or actor.may(Role.READ_ONLY):  # who has just logged out is told that it worked
        return value
    with call.world.still():
        return _shown(call.world, actor, type, value)


def _shown(world: World, actor: Actor, type: Type, value: Any) -> Any:
    if isinstance(type, Written):
        return _shown(world, actor, type.type, value)
    if isinstance(type, Ref):
        return value if _may_follow(world, actor, type, value) else NULL
    if isinstance(type, Set):
        return [_shown(world, actor, type.of, item) for item in value if _may_follow(world, actor, type.of, item)]
    if isinstance(type, Map):
        return {
            key: _shown(world, actor, type.value, item)
            for key, item in value.items()
            if _may_follow(world, actor, type.key, key)
        }
    if isinstance(type, Record):
        return _shown_record(world, actor, type.kind, value)
    return value


def _shown_record(world: World, actor: Actor, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    if kind == "event batch":
        return value | {"events": [_shown_record(world, actor, "event", event) for event in value["events"]]}
    if kind == "event":
        name = _BY_EVENTS_NAME.get(value["class"], "")
        if "snapshot" not in value:
            return value
        return value | {"snapshot": _shown_record(world, actor, name, value["snapshot"])}
    fields = KINDS[kind].by_name if kind in KINDS else {}
    return {
        name: _shown(world, actor, fields[name].type, item) if name in fields else item for name, item in value.items()
    }


def _may_follow(world: World, actor: Actor, type: Type, value: Any) -> bool:
    """Whether it is no reference, or one to none, or to an object that the actor may look at."""
    if not isinstance(type, Ref) or value == NULL:
        return True
    identity, kind = identity_of(value), KINDS.get(type.kind)
    return identity is not None and kind is not None and kind.find_for(world, actor, identity) is not None
