# SPDX-License-Identifier: Apache-2.0
"""Fields that are the clients': what they set is kept, and means nothing to Domain 0."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from domzero.dom0.xenapi.failure import Failure

VALUE_MAX = 64 << 10
"""Bytes of a field, as JSON."""
FIELDS_MAX = 100_000
"""Of all objects together."""


class Fields:
    """Values by object and field."""

    def __init__(self) -> None:
        self._values: dict[UUID, dict[str, Any]] = {}

    def get(self, identity: UUID, name: str, default: Any) -> Any:
        """What was set, or the default."""
        return self._values.get(identity, {}).get(name, default)

    def put(self, identity: UUID, name: str, value: Any) -> None:
        """Keeps a value. Failure: it is too long."""
        if len(json.dumps(value)) > VALUE_MAX:
            raise Failure("INVALID_VALUE", name, f"longer than {VALUE_MAX} bytes")
        if len(self._values) >= FIELDS_MAX and identity not in self._values:
            raise Failure("INTERNAL_ERROR", f"there are {FIELDS_MAX} objects with fields already")
        self._values.setdefault(identity, {})[name] = value

    def copy(self, source: UUID, target: UUID) -> None:
        """Gives an object what another one has."""
        for name, value in list(self._values.get(source, {}).items()):
            self.put(target, name, value)

    def forget(self, identity: UUID) -> None:
        """The object is gone."""
        self._values.pop(identity, None)
