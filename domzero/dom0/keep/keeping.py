# SPDX-License-Identifier: Apache-2.0
"""Writes down what Domain 0 knows of its domains, for the next one, and reads what the one before has written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from uuid import UUID

from domzero.dom0.about import About
from domzero.dom0.config import DomainConfig
from domzero.dom0.database import MEMORY
from domzero.dom0.json_values import from_json, to_json
from domzero.dom0.keep import journal
from domzero.dom0.keep.journal import Journal
from domzero.dom0.keep.link import KeptSpawner, Left
from domzero.dom0.life import DomainState, End, Next
from domzero.dom0.records import Record
from domzero.dom0.roster import Roster
from domzero.dom0.xenstore import Store


@dataclass(slots=True)
class _Written:
    """What is written of a record: its fields of the same names."""

    config: DomainConfig
    next_config: DomainConfig | None
    domid: int | None
    state: DomainState
    exit: End | None
    following: Next | None
    quick_crashes: int
    created_at: float
    started_at: float | None
    started_mono: float
    cpu_ns: int
    engine: str | None
    steps_down: int
    memory_target_mib: int
    memory_limit_mib: int
    current_memory_mib: int
    reboots: int
    generation: int
    persistent: bool
    ending: bool


_NAMES = [field.name for field in fields(_Written)]


class Keeping:
    """What one Domain 0 leaves to the next."""

    def __init__(self, spawner: KeptSpawner, store: Store, roster: Roster) -> None:
        self.spawner = spawner
        self._store = store
        self._roster = roster
        self._left: set[UUID] = set()
        self._journal = Journal(lambda fd: spawner.hold_files(journal.NAME, [fd]), self._state)
        store.keep(self._journal.write)

    def read(self, database: Path) -> tuple[Left, list[Record]]:
        """What the Domain 0 before this one has left; the store is as it was. ConfigError, ResourceError.

        :param database: which domains are defined is in there, if it is kept.
        """
        left = self.spawner.take_over() or Left()
        written: dict[str, dict[str, Any]] = {}
        for fd in left.files.pop(journal.NAME, ()):
            for entry in journal.entries(fd):
                self._store.restore(entry)
                if (record := entry.get("record")) is not None:
                    written[record["uuid"]] = record
                written.pop(entry.get("gone", ""), None)
                self._roster.next_domid = entry.get("next_domid", self._roster.next_domid)
            os.close(fd)
        records = [_to_record(each) for each in written.values()]
        if database != MEMORY:
            for record in records:
                defined = self._roster.halted.get(record.uuid)
                record.persistent = defined is not None
                if defined is not None and defined.saved is not None:
                    # It is suspended: its worker, which was to end then, does.
                    record.saved, record.exit, record.ending = defined.saved, defined.exit, True
        return left, records

    def begin(self) -> None:
        """Writes all down, and everything that changes from now on."""
        self.spawner.on_started = self._journal.begin
        self.spawner.prepare()
        self._journal.begin()

    def note(self, record: Record) -> None:
        """Writes a domain down as it is now."""
        if record.uuid in self._left:
            return
        if record.gone:
            self._journal.write({"gone": str(record.uuid)})
        else:
            self._journal.write(self._entry(record))

    def leave(self) -> list[Record]:
        """Lets go of the domains that go on without this Domain 0; nothing of them is written any more."""
        left = []
        for record in self._roster.live.values() if self.spawner.stays else ():
            if record.state is not DomainState.BUILDING:
                left.append(record)
                self._left.add(record.uuid)
                if record.worker is not None:
                    record.worker.leave()
        return left

    def _state(self) -> Iterator[dict[str, Any]]:
        yield from self._store.written()
        for record in self._roster.live.values():
            yield self._entry(record)

    def _entry(self, record: Record) -> dict[str, Any]:
        values = to_json(_Written(**{name: getattr(record, name) for name in _NAMES}))
        about = {"uuid": str(record.uuid), "about": asdict(record.about)}
        return {"record": {**values, **about}, "next_domid": self._roster.next_domid}


def _to_record(entry: dict[str, Any]) -> Record:
    about = About(**entry.pop("about"))
    del entry["uuid"]
    written = from_json(_Written, entry, "record")
    return Record(about=about, **{name: getattr(written, name) for name in _NAMES})


__all__ = ["Keeping"]
