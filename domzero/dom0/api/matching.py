# SPDX-License-Identifier: Apache-2.0
"""ETag, If-Match and If-None-Match: nobody overwrites what they have not seen, or reads what they have."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header

from domzero.dom0.api.asking import RecordDep
from domzero.dom0.records import Record
from domzero.dom0.roster import HasChanged

Tags = Annotated[str | None, Header(max_length=1000, examples=['"3"'])]


def etag(record: Record) -> str:
    """What stands for all that can be changed of a domain; what it does by itself, its time and state, is not in it."""
    return f'"{record.generation}"'


def names(tags: str, record: Record) -> bool:
    """Whether a list of entity tags has the present one; `*` has any."""
    return tags.strip() == "*" or etag(record) in (tag.strip().removeprefix("W/") for tag in tags.split(","))


async def _check(record: RecordDep, if_match: Tags = None) -> None:
    if if_match is not None and not names(if_match, record):
        raise HasChanged(f"domain {record.name} has changed since: its ETag is {etag(record)}", key="If-Match")


IfMatch = Depends(_check)
"""Of requests that change a domain."""
