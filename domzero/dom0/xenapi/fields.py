# SPDX-License-Identifier: Apache-2.0
"""Fields that are the clients': what they set is kept in the database, and means nothing to Domain 0."""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any
from uuid import UUID

from domzero.dom0.database import Database
from domzero.dom0.xenapi.failure import Failure

VALUE_MAX = 64 << 10
"""Bytes of a field, as JSON."""
OBJECTS_MAX = 100_000


class Fields:
    """Values by object and field."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._values: dict[UUID, dict[str, Any]] = {}
        for row in database.rows("SELECT object, name, value FROM xenapi_fields"):
            self._values.setdefault(UUID(row["object"]), {})[row["name"]] = json.loads(row["value"])

    def get(self, identity: UUID, name: str, default: Any) -> Any:
        """What was set, or the default."""
        return self._values.get(identity, {}).get(name, default)

    def put(self, identity: UUID, name: str, value: Any) -> None:
        """Keeps a value. Failure: it is too long."""
        text = json.dumps(value)
        if len(text) > VALUE_MAX:
            raise Failure("INVALID_VALUE", name, f"longer than {VALUE_MAX} bytes")
        if len(self._values) >= OBJECTS_MAX and identity not in self._values:
            raise Failure("INTERNAL_ERROR", f"there are {OBJECTS_MAX} objects with fields already")
        with self._database.write() as cursor:
            cursor.execute("INSERT OR REPLACE INTO xenapi_fields VALUES (?, ?, ?)", (str(identity), name, text))
        self._values.setdefault(identity, {})[name] = value

    def copy(self, source: UUID, target: UUID) -> None:
        """Gives an object what another one has."""
        for name, value in list(self._values.get(source, {}).items()):
            self.put(target, name, value)

    def forget(self, identity: UUID) -> None:
        """The object is gone."""
        if self._values.pop(identity, None) is not None:
            with self._database.write() as cursor:
                cursor.execute("DELETE FROM xenapi_fields WHERE object = ?", (str(identity),))

    def keep_only(self, identities: Container[UUID]) -> None:
        """Forgets what belongs to objects that are not there any more."""
        for identity in list(self._values):
            if identity not in identities:
                self.forget(identity)
