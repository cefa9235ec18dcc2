# SPDX-License-Identifier: Apache-2.0
"""Definitions: domains that are there while they do not run, and after Domain 0 has ended."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, replace
from typing import Any

from domzero.dom0.about import About
from domzero.dom0.config import DomainConfig
from domzero.dom0.database import Database
from domzero.dom0.json_values import MessageError, from_json, to_json
from domzero.dom0.life import DomainState, End, EndReason
from domzero.dom0.records import Record


class Definitions:
    """The table of definitions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> tuple[list[Record], list[str]]:
        """All of them, halted; and a line for each that cannot be read, which stays as it is.

        One that ran when its Domain 0 was killed has that as its end.
        """
        records, faults = [], []
        for row in self._database.rows("SELECT * FROM domains ORDER BY created_at, uuid"):
            try:
                records.append(_to_record(dict(row)))
            except (MessageError, ValueError, TypeError) as error:
                faults.append(f"the definition of {row['name']} cannot be read: {error}")
        return records, faults

    def save(self, record: Record) -> None:
        """Keeps what a domain starts with when it is started again, and whether it runs."""
        about, config = record.about, record.config
        if record.next_config is not None:  # whoever reads this finds it halted
            config = replace(record.next_config, name=record.name)
        values = {
            "uuid": str(record.uuid),
            "name": record.name,
            "config": json.dumps(to_json(config)),
            "description": about.description,
            "labels": json.dumps(about.labels),
            "autostart": about.autostart,
            "template": about.template,
            "created_at": record.created_at,
            "generation": record.generation,
            "domid": None if record.state is record.rests else record.domid,
            "saved": record.saved,
            "exit": None if record.exit is None else json.dumps(asdict(record.exit)),
        }
        columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        changes = ", ".join(f"{name} = excluded.{name}" for name in values if name != "uuid")
        with self._database.write() as cursor:
            cursor.execute(
                f"INSERT INTO domains ({columns}) VALUES ({places}) ON CONFLICT (uuid) DO UPDATE SET {changes}",
                values,
            )

    def remove(self, identity: uuid.UUID) -> None:
        """Forgets a domain, and what anybody was granted on it."""
        with self._database.write() as cursor:
            cursor.execute("DELETE FROM domains WHERE uuid = ?", (str(identity),))
            cursor.execute("DELETE FROM grants WHERE domain = ?", (str(identity),))


def _to_record(row: dict[str, Any]) -> Record:
    record = Record(
        from_json(DomainConfig, json.loads(row["config"]), "config"),
        state=DomainState.HALTED,
        created_at=row["created_at"],
        generation=row["generation"],
        persistent=True,
        about=About(
            description=row["description"],
            labels=json.loads(row["labels"]),
            autostart=bool(row["autostart"]),
            template=bool(row["template"]),
        ),
        ending=True,
        gone=True,
        saved=row["saved"],
    )
    record.state = record.rests
    if record.saved is not None:
        record.exit = End(EndReason.SUSPEND)
    elif row["domid"] is not None:
        record.exit = End(EndReason.DESTROYED, ("Domain 0 was killed while it ran",))
    elif row["exit"] is not None:
        end = json.loads(row["exit"])
        record.exit = End(EndReason(end["reason"]), tuple(end["detail"]), end["at"])
    return record
