# SPDX-License-Identifier: Apache-2.0
"""All domains that Domain 0 knows: those that exist, those that are defined and halted, and the last that ended."""

from __future__ import annotations

import uuid
from collections import OrderedDict

from domzero.abi.xen import DOMID_FIRST_RESERVED
from domzero.dom0.names import DOMAIN_0, NAME_MAX, as_uuid, is_domid, shown
from domzero.dom0.records import Record
from domzero.errors import ConfigError, DomzeroError

ENDED_KEPT = 64


class NotFound(DomzeroError):
    """No such domain, or other thing."""


class NameInUse(ConfigError):
    """Another domain has this name or uuid."""


class HasChanged(DomzeroError):
    """The object is not what a client has seen (If-Match)."""


class Roster:
    """The domains. One is in exactly one of `live`, `halted` and `ended`, by its uuid."""

    def __init__(self) -> None:
        self.live: dict[uuid.UUID, Record] = {}
        self.halted: dict[uuid.UUID, Record] = {}
        self.ended: OrderedDict[uuid.UUID, Record] = OrderedDict()
        self.next_domid = 1

    def all(self, *, halted: bool = False, ended: bool = False) -> list[Record]:
        """The domains that exist, oldest first; and, before them, those that ended and those that are halted."""
        records = sorted(self.live.values(), key=lambda record: record.domid or 0)
        return [*(self.ended.values() if ended else ()), *(self.halted.values() if halted else ()), *records]

    def find(self, key: str) -> Record:
        """The domain of this domid, uuid or name, tried in this order; one that ended if no other has it. NotFound."""
        identity = as_uuid(key)
        for records in (self.live.values(), self.halted.values(), reversed(self.ended.values())):
            for record in records:
                if is_domid(key):
                    found = str(record.domid) == (key.lstrip("0") or "0")
                else:
                    found = record.name == key if identity is None else record.uuid == identity
                if found:
                    return record
        raise NotFound(f"no such domain: {shown(key[:NAME_MAX])}", hint="`domzero list` shows what there is")

    def enter(self, record: Record) -> None:
        """It exists from now on."""
        self.halted.pop(record.uuid, None)
        self.ended.pop(record.uuid, None)
        self.live[record.uuid] = record

    def halt(self, record: Record) -> None:
        """It is defined, and does not run."""
        self.live.pop(record.uuid, None)
        self.halted[record.uuid] = record

    def leave(self, record: Record, *, keep: bool) -> None:
        """It is gone.

        :param keep: for those who ask how it ended.
        """
        self.live.pop(record.uuid, None)
        if keep:
            self.ended[record.uuid] = record
            while len(self.ended) > ENDED_KEPT:
                self.ended.popitem(last=False)

    def check_unique(self, name: str, identity: uuid.UUID | None, besides: Record | None = None) -> None:
        """Raises NameInUse for a name or a uuid that another domain has."""
        for record in (*self.live.values(), *self.halted.values()):
            if record is besides:
                continue
            which = "a halted domain" if record.domid is None else f"domain {record.domid}"
            if record.name == name:
                raise NameInUse(f"{which} has the name {name!r} already", key="name")
            if record.uuid == identity:
                raise NameInUse(f"{which} has this uuid already", key="uuid")
        if name == DOMAIN_0:
            raise NameInUse("Domain-0 is the name of Domain 0", key="name")

    def new_domid(self) -> int:
        """One that no domain has, and none has had for as long as possible."""
        used = {record.domid for record in self.live.values()}
        while self.next_domid in used:
            self._advance_domid()
        domid = self.next_domid
        self._advance_domid()
        return domid

    def _advance_domid(self) -> None:
        self.next_domid = self.next_domid % (DOMID_FIRST_RESERVED - 1) + 1
