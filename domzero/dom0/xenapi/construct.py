# SPDX-License-Identifier: Apache-2.0
"""Records that clients send to make objects: fields that are there are checked, others have defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from domzero.dom0.xenapi.failure import Failure
from domzero.dom0.xenapi.table import Field
from domzero.dom0.xenapi.values import Type
from domzero.dom0.xenapi.world import World


class Given:
    """What a client gave."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, name: str, type: Type, default: Any = None) -> Any:
        """A field, checked. Failure."""
        return type.read(self._values[name], name) if name in self._values else default

    def need(self, name: str, type: Type) -> Any:
        """One that has to be there. Failure."""
        if name not in self._values:
            raise Failure("FIELD_MISSING", name)
        return type.read(self._values[name], name)

    def kept(self, fields: tuple[Field, ...]) -> dict[str, Any]:
        """Those that are the clients'; what is the default needs no keeping."""
        found = {}
        for one in fields:
            if one.kept and one.name in self._values:
                value = one.type.read(self._values[one.name], one.name)
                if value != one.default:
                    found[one.name] = one.type.write(value)
        return found


def keep(world: World, identity: UUID, values: Mapping[str, Any]) -> None:
    """Keeps fields with an object."""
    for name, value in values.items():
        world.fields.put(identity, name, value)
