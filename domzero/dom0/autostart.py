# SPDX-License-Identifier: Apache-2.0
"""Domains that start with Domain 0."""

from __future__ import annotations

from domzero.dom0.database import MEMORY
from domzero.dom0.manager import Manager
from domzero.dom0.paths import SUSPENDED_SUFFIX
from domzero.dom0.records import Record
from domzero.dom0.saved_files import sweep
from domzero.errors import DomzeroError


def autostart(manager: Manager) -> None:
    """Starts them, one after the other. Suspended ones wait to be resumed; what is left of others' files is removed."""
    records = manager.all(halted=True)
    database = manager.database.path
    if database != MEMORY:
        sweep(database.with_suffix(SUSPENDED_SUFFIX), (each.saved for each in records if each.saved is not None))
    manager.spawn(_start(manager, [each for each in manager.roster.halted.values() if each.about.autostart]))


async def _start(manager: Manager, records: list[Record]) -> None:
    for record in records:
        if record.saved is not None:
            continue
        try:
            await manager.start(record)
        except (DomzeroError, OSError) as error:
            manager.say(f"domain {record.name} does not start with Domain 0: {error}")


__all__ = ["autostart"]
